/* Choices among algorithms of a matrix product, and their text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cuda/tuning.h"

static struct tuning_entry entry_of(int64_t m, uint64_t word)
{
    struct tuning_entry entry = { .key = { .m = m, .n = 7, .k = -1, .c_alignment = 256 } };
    for (int i = 0; i < TUNING_WORDS; i++) {
        entry.algorithm[i] = word * (uint64_t)(i + 1);
    }
    return entry;
}

static void fill(struct tuning *t)
{
    tuning_init(t, "NVIDIA H100 80GB HBM3", 132, 130101);
    for (int64_t m = 1; m <= 100; m++) {
        struct tuning_entry entry = entry_of(m, UINT64_MAX / (uint64_t)m);
        assert_int_equal(tuning_put(t, &entry), 0);
    }
}

static void test_entries(void **state)
{
    (void)state;
    struct tuning t;
    fill(&t);
    struct tuning_entry again = entry_of(50, 3);
    assert_int_equal(tuning_put(&t, &again), 0);
    assert_int_equal(t.count, 100);
    assert_memory_equal(tuning_find(&t, &again.key), &again, sizeof again);
    tuning_free(&t);
}

static void test_choice(void **state)
{
    (void)state;
    assert_int_equal(tuning_choose((const double[]){ 1.0, 0.5, 0.7 }, 3), 1);
    /* The library's order decides within the noise. */
    assert_int_equal(tuning_choose((const double[]){ 1.0, 1.01, 0.99 }, 3), 0);
    assert_int_equal(tuning_choose((const double[]){ 0.0, 1.0, 0.995 }, 3), 1);
    assert_int_equal(tuning_choose((const double[]){ 0.0, 0.0 }, 2), -1);
    assert_int_equal(tuning_choose(NULL, 0), -1);
}

static void test_text(void **state)
{
    (void)state;
    char why[256];
    struct tuning t;
    struct tuning back;
    fill(&t);
    char *text = tuning_text(&t);
    assert_non_null(text);
    tuning_init(&back, "NVIDIA H100 80GB HBM3", 132, 130101);
    assert_null(tuning_text(&back));
    assert_int_equal(tuning_parse(&back, text, why, sizeof why), 0);
    assert_int_equal(back.count, t.count);
    assert_memory_equal(back.entry, t.entry, (size_t)t.count * sizeof *t.entry);
    free(text);
    tuning_free(&t);
    tuning_free(&back);
}

/* Every byte that is changed or missing is noticed, and then nothing is taken. */
static void test_damage(void **state)
{
    (void)state;
    char why[256];
    struct tuning t;
    struct tuning back;
    tuning_init(&t, "a device", 1, 1);
    struct tuning_entry entry = entry_of(5, 77);
    assert_int_equal(tuning_put(&t, &entry), 0);
    char *text = tuning_text(&t);
    size_t size = strlen(text);
    tuning_init(&back, "a device", 1, 1);
    for (size_t i = 0; i < size; i++) {
        char kept = text[i];
        text[i] = (char)(kept ^ 1);
        assert_int_equal(tuning_parse(&back, text, why, sizeof why), -1);
        text[i] = '\0';
        assert_int_equal(tuning_parse(&back, text, why, sizeof why), -1);
        text[i] = kept;
        assert_int_equal(back.count, 0);
    }
    assert_int_equal(tuning_parse(&back, text, why, sizeof why), 0);
    tuning_free(&back);
    tuning_init(&back, "a device", 1, 2); /* of another library */
    assert_int_equal(tuning_parse(&back, text, why, sizeof why), -1);
    assert_non_null(strstr(why, "another"));
    free(text);
    tuning_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_entries),
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
