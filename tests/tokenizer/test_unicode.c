/* UTF-8 against every code point and every class of broken sequence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tokenizer/unicode.h"

static size_t put(char *out, int32_t code)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xC0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3F));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xE0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 0x3F));
        out[2] = (char)(0x80 | (code & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | code >> 18);
    out[1] = (char)(0x80 | (code >> 12 & 0x3F));
    out[2] = (char)(0x80 | (code >> 6 & 0x3F));
    out[3] = (char)(0x80 | (code & 0x3F));
    return 4;
}

static void test_every_code_point(void **state)
{
    (void)state;
    for (int32_t code = 0; code < 0x110000; code++) {
        char text[4];
        size_t size = put(text, code);
        size_t offset = 0;
        int32_t found = utf8_next(text, size, &offset);
        if (code >= 0xD800 && code < 0xE000) {
            assert_int_equal(found, -1);
            assert_int_equal(offset, 1);
            continue;
        }
        assert_int_equal(found, code);
        assert_int_equal(offset, size);
        if (size > 1) {
            assert_false(utf8_check(text, size - 1, NULL));
        }
    }
}

static void test_broken(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t bad;
    } cases[] = {
        { "abc\x80", 3 },
        { "\xC0\x80", 0 },
        { "\xC1\xBF", 0 },
        { "12345678\xE0\x9F\xBF", 8 },
        { "123456789\xED\xA0\x80", 9 },
        { "\xF0\x8F\xBF\xBF", 0 },
        { "a\xF4\x90\x80\x80", 1 },
        { "\xC3\xA4\xF5\x80\x80\x80", 2 },
        { "ab\xE2\x82", 2 },
        { "\xFF", 0 },
        { "1234567\xC3(", 7 },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t bad = 99;
        assert_false(utf8_check(cases[i].text, strlen(cases[i].text), &bad));
        assert_int_equal(bad, cases[i].bad);
    }
    assert_true(utf8_check("a\0b", 3, NULL));
    assert_true(utf8_check("", 0, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_code_point),
        cmocka_unit_test(test_broken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
