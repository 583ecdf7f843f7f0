/* GaLore saved and put back, under the same rank and under another: the same run to the bit. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/xalloc.h"
#include "engine/method/galore_parts.h"
#include "fixture.h"

static const struct galore *galore_of(const struct fixture *f)
{
    return f->trainer->method.state;
}

struct saved {
    struct state_entry entry[512];
    char name[512][STATE_NAME_SIZE];
    void *data[512];
    int64_t count;
    struct trainer_counters counters;
};

static int64_t saved_find(void *context, const char *name, struct state_entry *entry)
{
    struct saved *s = context;
    for (int64_t i = 0; i < s->count; i++) {
        if (strcmp(s->name[i], name) == 0) {
            *entry = s->entry[i];
            return i;
        }
    }
    return -1;
}

static int saved_read(void *context, int64_t index, int64_t first, int64_t count, void *out,
                      struct error *err)
{
    (void)err;
    struct saved *s = context;
    size_t width = dtype_size(s->entry[index].dtype);
    memcpy(out, (char *)s->data[index] + (size_t)first * width, (size_t)count * width);
    return 0;
}

/* Moves everything that survives from one trainer into another. */
static void hand_over(struct fixture *from, struct fixture *to)
{
    static struct saved s;
    struct error err = { 0 };
    s.count = trainer_state_count(from->trainer);
    assert_true(s.count < 512);
    for (int64_t i = 0; i < s.count; i++) {
        struct state_entry *e = &s.entry[i];
        trainer_state_entry(from->trainer, i, e);
        snprintf(s.name[i], sizeof s.name[i], "%s", e->name);
        e->name = s.name[i];
        int64_t n = e->dim[0] * e->dim[1] * e->dim[2] * e->dim[3];
        s.data[i] = xmalloc((size_t)n * dtype_size(e->dtype) + 1);
        check(trainer_state_read(from->trainer, i, 0, n, s.data[i], &err), &err);
    }
    trainer_counters(from->trainer, &s.counters);
    struct state_source source = { .find = saved_find, .read = saved_read, .context = &s };
    check(trainer_restore(to->trainer, &source, &s.counters, &err), &err);
    for (int64_t i = 0; i < s.count; i++) {
        free(s.data[i]);
    }
}

static void change(struct fixture *f, const char *word)
{
    struct error err = { 0 };
    check(recipe_set(&f->recipe, word, &err), &err);
    check(plan_make(&f->recipe, &f->config, &f->plan, &err), &err);
    check(trainer_apply(f->trainer, &f->recipe, f->plan.bytes, &err), &err);
}

static void check_same(struct fixture *a, struct fixture *b, int64_t step, int steps)
{
    int64_t a_step = step;
    int64_t b_step = step;
    for (int i = 0; i < steps; i++) {
        struct step_result x = fixture_step(a, &a_step);
        struct step_result y = fixture_step(b, &b_step);
        assert_memory_equal(&x.loss, &y.loss, sizeof x.loss);
        assert_int_equal(x.refreshed, y.refreshed);
    }
    char x[DIGEST_TEXT_SIZE];
    char y[DIGEST_TEXT_SIZE];
    fixture_digest(a, x);
    fixture_digest(b, y);
    assert_string_equal(x, y);
}

/* Going on from a save, wherever it falls, is the uninterrupted run. */
static void test_resume(void **state)
{
    (void)state;
    static const char *const stagger[] = { "method.stagger=false", "method.stagger=true" };
    static const char *const dtypes[] = { "optimizer.state=fp32", "optimizer.state=bf16" };
    for (int i = 0; i < 8; i++) {
        const char *const *words =
            WORDS("method.name=galore", "method.rank=5", "method.interval=4", stagger[i % 2],
                  dtypes[i / 2 % 2], i < 4 ? "precision.weights=fp32" : "precision.weights=bf16",
                  "precision.rounding=stochastic");
        struct fixture run;
        struct fixture resumed;
        int64_t step = 0;
        fixture_open(&run, "untied", words);
        fixture_open(&resumed, "untied", words);
        for (int s = 0; s < 2 + i % 5; s++) {
            fixture_step(&run, &step);
        }
        hand_over(&run, &resumed);
        check_same(&run, &resumed, step, 7);
        fixture_close(&run);
        fixture_close(&resumed);
    }
}

/* Another rank: all are chosen anew at the next step; what was learned stays; the same offline,
 * also when the save falls between the change and that step. */
static void test_rank_changes(void **state)
{
    (void)state;
    static const char *const words[] = { "method.rank=11", "method.rank=3", "method.rank=100" };
    for (int i = 0; i < 6; i++) {
        struct fixture live;
        struct fixture offline;
        int64_t step = 0;
        const char *const *base = WORDS("method.name=galore", "method.rank=6", "method.interval=50",
                                        i % 2 ? "method.stagger=true" : "method.stagger=false");
        fixture_open(&live, "untied", base);
        fixture_open(&offline, "untied", base);
        for (int s = 0; s < 4; s++) {
            fixture_step(&live, &step);
        }
        change(&offline, words[i % 3]);
        if (i < 3) {
            hand_over(&live, &offline);
            change(&live, words[i % 3]);
        } else {
            change(&live, words[i % 3]);
            hand_over(&live, &offline);
        }
        const struct galore_part *part = &galore_of(&live)->part[0];
        assert_int_equal(part->refreshed, GALORE_OTHER_RANK);
        int64_t rank = i % 3 == 0 ? 11 : i % 3 == 1 ? 3 : 32;
        assert_int_equal(part->rank, rank);
        assert_true(trainer_selection_count(live.trainer) == 0);
        check_same(&live, &offline, step, 6);
        part = &galore_of(&live)->part[0];
        assert_int_equal(part->refreshed, 5);
        assert_true(part->report.overlap > 0.05);
        assert_int_equal(((const int32_t *)part->state.age.data)[0], 10); /* went on counting */
        struct memory *memory = trainer_memory(live.trainer);
        for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
            enum memory_category category = (enum memory_category)c;
            assert_int_equal(memory_capacity(memory, category), live.plan.bytes[c]);
            assert_int_equal(memory_peak(memory, category), live.plan.bytes[c]);
        }
        fixture_close(&live);
        fixture_close(&offline);
    }
}

static void test_restore_refuses(void **state)
{
    (void)state;
    struct fixture f;
    struct fixture grass;
    struct error err = { 0 };
    int64_t step = 0;
    fixture_open(&f, "untied", WORDS("method.name=galore", "method.rank=6"));
    fixture_open(&grass, "untied", WORDS("method.name=grass", "method.rank=6"));
    fixture_step(&grass, &step);
    static struct saved s;
    struct state_source source = { .find = saved_find, .read = saved_read, .context = &s };
    assert_int_equal(galore_restore(&f.trainer->method, &source, &err), -1);
    assert_non_null(strstr(err.message, "q_proj.weight/refreshed"));
    fixture_close(&f);
    fixture_close(&grass);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_rank_changes),
        cmocka_unit_test(test_restore_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
