/* UTF-8, names in messages, numbers, errors, growing strings, checksums, clocks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/base/digest.h"
#include "engine/base/error.h"
#include "engine/base/file.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"

static void test_utf8(void **state)
{
    (void)state;
    size_t bad = 99;
    assert_true(text_is_utf8("abc\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", 12, &bad));
    assert_true(text_is_utf8("", 0, &bad));
    assert_true(text_is_utf8("\0", 1, &bad));
    static const char *const wrong[] = {
        "a\x80",         "a\xc0\xaf",         "a\xc1\xbf",         "a\xe0\x80\xaf",
        "a\xed\xa0\x80", "a\xf0\x80\x80\xaf", "a\xf4\x90\x80\x80", "a\xf5\x80\x80\x80",
        "a\xff",         "a\xe2\x82"
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        bad = 99;
        assert_false(text_is_utf8(wrong[i], strlen(wrong[i]), &bad));
        assert_int_equal(bad, 1);
    }
}

static void test_names_are_harmless(void **state)
{
    (void)state;
    assert_string_equal(text_show("plain name").text, "plain name");
    assert_string_equal(text_show("\x1b]52;c;x\x07").text, "\\x1b]52;c;x\\x07");
    assert_string_equal(text_show("a\xc2\x9b\xe2\x80\xae\xff").text, "a\\u009b\\u202e\\xff");
    assert_string_equal(text_show(NULL).text, "(none)");
    assert_string_equal(text_escape("a\0b", 3).text, "a\\x00b");

    char *many = xmalloc(1000001);
    memset(many, 'n', 1000000);
    many[1000000] = '\0';
    many[999999] = 'z';
    struct text_shown shown = text_show(many);
    assert_int_equal(strlen(shown.text), 79);
    assert_non_null(strstr(shown.text, "nnn...nnn"));
    assert_int_equal(shown.text[78], 'z');
    memset(many, 'n', 80);
    many[80] = '\0';
    assert_int_equal(strlen(text_show(many).text), 80);
    /* Any bytes: always terminated, always UTF-8, never a control. */
    uint32_t random = 7;
    for (int round = 0; round < 3000; round++) {
        size_t size = random % 300;
        for (size_t i = 0; i < size; i++) {
            random = random * 1664525u + 1013904223u;
            many[i] = (char)(random >> 24);
        }
        shown = text_escape(many, size);
        size_t length = strnlen(shown.text, sizeof shown.text);
        assert_true(length < sizeof shown.text);
        assert_true(text_is_utf8(shown.text, length, NULL));
        for (size_t i = 0; i < length; i++) {
            assert_true((unsigned char)shown.text[i] >= 0x20 && shown.text[i] != 0x7f);
        }
    }
    free(many);
}

static void test_numbers(void **state)
{
    (void)state;
    double d = 0;
    int64_t n = 0;
    assert_true(text_to_double("1.5e3", &d) && d == 1500);
    assert_true(text_to_double("-.5", &d) && d == -0.5);
    assert_false(text_to_double("", &d));
    assert_false(text_to_double("1,5", &d));
    assert_false(text_to_double("nan", &d));
    assert_false(text_to_double("0x10", &d));
    assert_false(text_to_double("1e999", &d));
    assert_false(text_to_double(" 1", &d));
    assert_true(text_to_integer("-9223372036854775808", &n) && n == INT64_MIN);
    assert_false(text_to_integer("9223372036854775808", &n));
    assert_false(text_to_integer("1.0", &n));
    assert_false(text_to_integer("", &n));
    assert_false(text_to_integer("-", &n));
}

static void test_errors(void **state)
{
    (void)state;
    struct error err = { 0 };
    assert_int_equal((fail)(&err, ERROR_DATA, "bad %s", "a\x1b[31m\nb"), -1);
    assert_string_equal(err.message, "bad a\\x1b[31m\\x0ab");
    assert_int_equal(hint(&err, "try %d", 7), -1);
    assert_string_equal(err.hint, "try 7");
    assert_int_equal(fail_within(&err, "file %s", "x"), -1);
    assert_string_equal(err.message, "file x: bad a\\x1b[31m\\x0ab");
    assert_string_equal(err.hint, "try 7");
    assert_int_equal(err.code, ERROR_DATA);
    (fail)(&err, ERROR_USAGE, "again: %s", err.message);
    assert_string_equal(err.message, "again: file x: bad a\\x1b[31m\\x0ab");
    assert_string_equal(err.hint, "");

    char *many = xmalloc(5000);
    for (size_t i = 0; i + 3 < 5000; i += 3) {
        memcpy(many + i, "\xe2\x82\xac", 4);
    }
    (fail)(&err, ERROR_DATA, "xx%s", many);
    assert_true(text_is_utf8(err.message, strlen(err.message), NULL));
    assert_true(strlen(err.message) > 1000);
    memset(many, '\x01', 4999);
    many[4999] = '\0';
    (fail)(&err, ERROR_DATA, "%s", many);
    assert_true(strlen(err.message) < sizeof err.message);
    fail_within(&err, "%s", many);
    assert_true(strlen(err.message) < sizeof err.message);
    free(many);
}

static void test_nearest(void **state)
{
    (void)state;
    static const char *const names[] = { "method.rank", "method.interval", "optimizer.lr",
                                         "train.steps", "train.seed" };
    assert_string_equal(nearest_name("method.rnak", names, 5), "method.rank");
    assert_string_equal(nearest_name("rank", names, 5), "method.rank");
    assert_string_equal(nearest_name("train.step", names, 5), "train.steps");
    assert_string_equal(nearest_name("Train.Seed", names, 5), "train.seed");
    assert_null(nearest_name("colour", names, 5));
    assert_null(nearest_name("", names, 5));
    assert_null(nearest_name("x", names, 0));
}

static void test_buffer(void **state)
{
    (void)state;
    struct buffer b = { 0 };
    for (int i = 0; i < 1000; i++) {
        buffer_printf(&b, "%d,", i);
    }
    assert_int_equal(b.size, 3890);
    assert_int_equal(strlen(b.text), 3890);
    buffer_append(&b, "\0x", 2);
    assert_int_equal(b.size, 3892);
    assert_int_equal(b.text[3892], '\0');
    buffer_free(&b);
    assert_null(b.text);
    char *text = xstrndup("abcdef", 3);
    assert_string_equal(text, "abc");
    free(text);
}

static void test_out_of_memory_ends_the_program(void **state)
{
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        close(STDERR_FILENO);
        /* The sanitizers would end it in their own way. */
        xcalloc(SIZE_MAX / 2, 16);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void test_digest(void **state)
{
    (void)state;
    /* The published value of XXH3 (128 bits, seed 0) of nothing. */
    char text[DIGEST_TEXT_SIZE];
    digest_of("", 0, text);
    assert_string_equal(text, "99aa06d3014798d86001c324468d497f");
    enum { SIZE = 700000 };
    unsigned char *bytes = xmalloc(SIZE);
    for (int i = 0; i < SIZE; i++) {
        bytes[i] = (unsigned char)(i ^ (i >> 8));
    }
    char whole[DIGEST_TEXT_SIZE];
    digest_of(bytes, SIZE, whole);
    struct digest *digest = digest_begin();
    digest_add(digest, bytes, 1);
    digest_add(digest, bytes + 1, 0);
    digest_add(digest, bytes + 1, SIZE - 1);
    digest_end(digest, text);
    assert_string_equal(text, whole);

    struct error err = { 0 };
    char path[] = "/tmp/windrow-test-digest-XXXXXX";
    int fd = mkstemp(path);
    assert_int_equal(file_write_all(fd, path, bytes, SIZE, &err), 0);
    close(fd);
    assert_int_equal(digest_of_file(path, text, &err), 0);
    assert_string_equal(text, whole);
    bytes[12345] ^= 1;
    digest_of(bytes, SIZE, text);
    assert_string_not_equal(text, whole);
    unlink(path);
    assert_int_equal(digest_of_file(path, text, &err), -1);
    free(bytes);
}

static double half_past(void)
{
    return 1.5;
}

static void test_clock(void **state)
{
    (void)state;
    assert_true(clock_wall() > 1.6e9);
    double before = clock_monotonic();
    assert_true(clock_monotonic() >= before);
    clock_install(half_past, half_past);
    assert_true(clock_wall() == 1.5 && clock_monotonic() == 1.5);
    clock_install(NULL, NULL);
    assert_true(clock_wall() > 1.6e9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_names_are_harmless),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_nearest),
        cmocka_unit_test(test_buffer),
        cmocka_unit_test(test_out_of_memory_ends_the_program),
        cmocka_unit_test(test_digest),
        cmocka_unit_test(test_clock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
