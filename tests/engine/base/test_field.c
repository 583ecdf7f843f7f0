/* Settings to and from text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/field.h"

struct settings {
    int64_t rank;
    double lr;
    bool carry;
    int selection;
    char *path;
    int64_t limit;
};

static const char *const selections[] = { "top", "norm", "norm2", "uniform", NULL };

static const struct field fields[] = {
    { .key = "rank",
      .type = FIELD_INTEGER,
      .offset = offsetof(struct settings, rank),
      .minimum = 1,
      .maximum = 65536 },
    { .key = "lr",
      .type = FIELD_NUMBER,
      .offset = offsetof(struct settings, lr),
      .minimum = 0,
      .maximum = 10,
      .exclusive_minimum = true },
    { .key = "carry", .type = FIELD_BOOL, .offset = offsetof(struct settings, carry) },
    { .key = "selection",
      .type = FIELD_CHOICE,
      .offset = offsetof(struct settings, selection),
      .choices = selections },
    { .key = "path", .type = FIELD_STRING, .offset = offsetof(struct settings, path) },
    { .key = "limit",
      .type = FIELD_BYTES,
      .offset = offsetof(struct settings, limit),
      .minimum = 0,
      .maximum = 0x1p50 },
};

static void check_set(size_t i, struct settings *s, const char *text, const char *printed)
{
    struct error err = { 0 };
    assert_int_equal(field_set(&fields[i], s, text, &err), 0);
    char *back = field_text(&fields[i], s);
    assert_string_equal(back, printed);
    /* What is printed is read as the same. */
    assert_int_equal(field_set(&fields[i], s, back, &err), 0);
    char *again = field_text(&fields[i], s);
    assert_string_equal(again, printed);
    free(back);
    free(again);
}

static void check_refused(size_t i, const char *text, const char *part)
{
    struct settings s = { .rank = 5, .lr = 1, .selection = 1, .limit = 7 };
    struct settings before = s;
    struct error err = { 0 };
    assert_int_equal(field_set(&fields[i], &s, text, &err), -1);
    assert_memory_equal(&s, &before, sizeof s);
    assert_int_equal(err.code, ERROR_USAGE);
    assert_non_null(strstr(err.message, fields[i].key));
    assert_non_null(strstr(err.message, part));
}

static void test_good(void **state)
{
    (void)state;
    struct settings s = { 0 };
    check_set(0, &s, "64", "64");
    assert_int_equal(s.rank, 64);
    check_set(1, &s, "5e-4", "0.0005");
    check_set(1, &s, "0.3", "0.3");
    assert_true(s.lr == 0.3);
    check_set(2, &s, "true", "true");
    assert_true(s.carry);
    check_set(2, &s, "false", "false");
    check_set(3, &s, "norm2", "norm2");
    assert_int_equal(s.selection, 2);
    check_set(4, &s, "a b=c", "a b=c");
    check_set(4, &s, "", "");
    check_set(5, &s, "24GiB", "24GiB");
    assert_int_equal(s.limit, 24LL << 30);
    check_set(5, &s, "1.5GiB", "1536MiB");
    check_set(5, &s, "512MB", "500000KiB");
    assert_int_equal(s.limit, 512000000);
    check_set(5, &s, "1000", "1000");
    check_set(5, &s, "0", "0");
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        field_release(&fields[i], &s);
    }
    assert_null(s.path);
}

static void test_refused(void **state)
{
    (void)state;
    check_refused(0, "0", "1 .. 65536");
    check_refused(0, "65537", "65537");
    check_refused(0, "4.5", "4.5");
    check_refused(0, "", "\"\"");
    check_refused(0, "x\x1b", "x\\x1b");
    check_refused(0, "99999999999999999999", "9999");
    check_refused(1, "0", "above 0 .. 10");
    check_refused(1, "nan", "nan");
    check_refused(1, "1e-4x", "1e-4x");
    check_refused(2, "yes", "true|false");
    check_refused(3, "Norm", "top|norm|norm2|uniform");
    check_refused(5, "24 GiB", "24 GiB");
    check_refused(5, "GiB", "GiB");
    check_refused(5, "-1", "-1");
    check_refused(5, "1e30", "1e30");
    check_refused(5, "99999999TiB", "99999999TiB");
    struct error err = { 0 };
    struct settings s = { 0 };
    field_set(&fields[3], &s, "unifrom", &err);
    assert_string_equal(err.hint, "did you mean uniform?");
}

static void test_ranges(void **state)
{
    (void)state;
    static const char *const expected[] = { "1 .. 65536", "above 0 .. 10",
                                            "true|false", "top|norm|norm2|uniform",
                                            "a text",     "0 .. 1024TiB" };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        char *text = field_range(&fields[i]);
        assert_string_equal(text, expected[i]);
        free(text);
    }
    struct field open = fields[1];
    open.maximum = INFINITY;
    open.exclusive_minimum = false;
    char *text = field_range(&open);
    assert_string_equal(text, "0 or more");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_ranges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
