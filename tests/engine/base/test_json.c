/* Strict JSON: what is refused, what is read, what is written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <float.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/json.h"

/* Parsed from an exact-size heap block, so that reading past the end is seen. */
static cJSON *parse(const char *text, size_t size, struct error *err)
{
    char *block = malloc(size ? size : 1);
    memcpy(block, text, size);
    cJSON *value = json_parse(block, size, "a.json", 1, err);
    free(block);
    return value;
}

#define REFUSED(text) check_refused(text, sizeof text - 1)

static void check_refused(const char *text, size_t size)
{
    struct error err = { 0 };
    cJSON *value = parse(text, size, &err);
    if (value) {
        print_message("accepted: %.*s\n", (int)size, text);
    }
    assert_null(value);
    assert_int_equal(err.code, ERROR_DATA);
    assert_non_null(strstr(err.message, "a.json"));
    for (const char *p = err.message; *p; p++) {
        assert_true((unsigned char)*p >= 0x20);
    }
}

static void test_refusals(void **state)
{
    (void)state;
    REFUSED("");
    REFUSED(" ");
    REFUSED("{");
    REFUSED("}");
    REFUSED("[1,2");
    REFUSED("[1,]");
    REFUSED("[,1]");
    REFUSED("{\"a\":1,}");
    REFUSED("{\"a\" 1}");
    REFUSED("{a:1}");
    REFUSED("{'a':1}");
    REFUSED("{} {}");
    REFUSED("{}x");
    REFUSED("[1}");
    REFUSED("{\"a\":1]");
    REFUSED("nul");
    REFUSED("True");
    REFUSED("NaN");
    REFUSED("Infinity");
    REFUSED("-");
    REFUSED("+1");
    REFUSED("01");
    REFUSED("-01");
    REFUSED("1.");
    REFUSED(".5");
    REFUSED("1e");
    REFUSED("1e+");
    REFUSED("0x10");
    REFUSED("1e999");
    REFUSED("[1 2]");
    REFUSED("\"abc");
    REFUSED("\"a\nb\"");
    REFUSED("\"a\x01\"");
    REFUSED("\"\\x41\"");
    REFUSED("\"\\u12\"");
    REFUSED("\"\\u12g4\"");
    REFUSED("\"\\");
    REFUSED("\"\\u0000\"");
    REFUSED("{\"a\\u0000b\":1}");
    REFUSED("\"\\ud800\"");
    REFUSED("\"\\udc00\\ud800\"");
    REFUSED("\"\\ud800\\u0041\"");
    REFUSED("\"\xff\xfe\"");
    REFUSED("\"\xc0\xaf\"");
    REFUSED("\"\xed\xa0\x80\"");
    REFUSED("\"\xf4\x90\x80\x80\"");
    REFUSED("\"\xe2\x82\"");
    REFUSED("{}\0");
    REFUSED("\0");
    REFUSED("{\"a\":1}\x0b");
    REFUSED("{\"a\":1,\"a\":2}");
    REFUSED("{\"a\":1,\"\\u0061\":2}");
    REFUSED("[{\"x\":{\"b\":1,\"c\":2,\"b\":null}}]");
    REFUSED("/* no */ 1");
    REFUSED("0.1000000000000000000000000000000000000000000000000000000000000000000001");
}

static void test_depth(void **state)
{
    (void)state;
    struct error err = { 0 };
    char text[400] = "";
    memset(text, '[', 64);
    memset(text + 64, ']', 64);
    cJSON *value = parse(text, 128, &err);
    assert_non_null(value);
    cJSON_Delete(value);
    memset(text, '[', 65);
    memset(text + 65, ']', 65);
    check_refused(text, 130);
    enum { MANY = 1000000 };
    char *open = malloc(MANY);
    memset(open, '[', MANY);
    check_refused(open, MANY);
    free(open);
}

static void test_every_cut_and_every_byte(void **state)
{
    (void)state;
    static const char good[] =
        "{\"a\":[1,-2.5e3,true,null,\"\\u00e9\\ud83d\\ude00 \xc3\xa9\"],\"b\":{}}";
    struct error err = { 0 };
    cJSON *value = parse(good, sizeof good - 1, &err);
    assert_non_null(value);
    assert_string_equal(cJSON_GetArrayItem(json_get(value, "a"), 4)->valuestring,
                        "\xc3\xa9\xf0\x9f\x98\x80 \xc3\xa9");
    cJSON_Delete(value);
    for (size_t size = 0; size < sizeof good - 1; size++) {
        check_refused(good, size);
    }
    /* Any byte anywhere: no crash, and what is accepted survives printing and reading. */
    char text[sizeof good];
    for (size_t at = 0; at < sizeof good - 1; at++) {
        for (int byte = 0; byte < 256; byte++) {
            memcpy(text, good, sizeof good);
            text[at] = (char)byte;
            value = parse(text, sizeof good - 1, &err);
            if (value) {
                char *printed = json_print(value);
                cJSON *again = parse(printed, strlen(printed), &err);
                assert_non_null(again);
                assert_true(cJSON_Compare(value, again, true));
                free(printed);
                cJSON_Delete(again);
                cJSON_Delete(value);
            }
        }
    }
}

static void test_positions(void **state)
{
    (void)state;
    struct error err = { 0 };
    static const char text[] = "{\n  \"a\": 1,\n  \"b\": x\n}";
    assert_null(json_parse(text, sizeof text - 1, "c\x1b[2J.json", 7, &err));
    assert_non_null(strstr(err.message, "line 9, column 8"));
    assert_non_null(strstr(err.message, "'x'"));
    assert_non_null(strstr(err.message, "c\\x1b[2J.json"));
}

static void test_getters(void **state)
{
    (void)state;
    struct error err = { 0 };
    static const char text[] =
        "\xef\xbb\xbf{\"n\":12,\"f\":1.5,\"big\":9007199254740993,\"s\":\"x\","
        "\"t\":true,\"z\":null,\"N\":13,\"in\":{\"deep\":\"no\"},\"w\":2.0}";
    cJSON *v = parse(text, sizeof text - 1, &err);
    assert_non_null(v);
    int64_t n = 0;
    double f = 0;
    bool b = false;
    const char *s = NULL;
    struct json_range range = { 1, 100, 5, false };
    assert_int_equal(json_integer(v, "n", range, &n, "a", &err), 0);
    assert_int_equal(n, 12);
    assert_int_equal(json_integer(v, "w", range, &n, "a", &err), 0);
    assert_int_equal(n, 2);
    assert_int_equal(json_integer(v, "z", range, &n, "a", &err), 0);
    assert_int_equal(n, 5);
    assert_int_equal(json_integer(v, "f", range, &n, "a", &err), -1);
    assert_int_equal(json_integer(v, "s", range, &n, "a", &err), -1);
    assert_non_null(strstr(err.message, "\"s\" must be a whole number in 1 .. 100, found \"x\""));
    struct json_range wide = { INT64_MIN, INT64_MAX, 0, false };
    assert_int_equal(json_integer(v, "big", wide, &n, "a", &err), -1);
    range.required = true;
    assert_int_equal(json_integer(v, "absent", range, &n, "a", &err), -1);
    assert_non_null(strstr(err.message, "missing"));
    assert_int_equal(json_integer(v, "z", range, &n, "a", &err), -1);
    assert_int_equal(json_number(v, "f", 0, &f, "a", &err), 0);
    assert_true(f == 1.5);
    assert_int_equal(json_number(v, "q", 7, &f, "a", &err), 0);
    assert_true(f == 7);
    assert_int_equal(json_number(v, "t", 7, &f, "a", &err), -1);
    assert_int_equal(json_bool(v, "t", false, &b, "a", &err), 0);
    assert_true(b);
    assert_int_equal(json_bool(v, "n", false, &b, "a", &err), -1);
    assert_int_equal(json_string(v, "s", "d", &s, "a", &err), 0);
    assert_string_equal(s, "x");
    assert_int_equal(json_string(v, "q", "d", &s, "a", &err), 0);
    assert_string_equal(s, "d");
    assert_int_equal(json_string(json_get(v, "in"), "deep", "d", &s, "a", &err), 0);
    assert_int_equal(json_number(json_get(v, "in"), "deep", 0, &f, "a", &err), -1);
    assert_non_null(strstr(err.message, "\"in.deep\" must be a number, found \"no\""));
    assert_null(json_get(v, "S"));
    assert_null(json_get(NULL, "S"));
    cJSON_Delete(v);
}

static void test_strings_written(void **state)
{
    (void)state;
    struct buffer out = { 0 };
    static const char text[] =
        "a\"\\\n\x1b[2J\x7f\xc2\x9b\xe2\x80\xae\xc3\xa9\xff\xf3\xa0\x80\x81z";
    json_write_string(&out, text, sizeof text - 1);
    assert_string_equal(out.text,
                        "\"a\\\"\\\\\\n\\u001b[2J\\u007f\\u009b\\u202e\xc3\xa9\xef\xbf\xbd"
                        "\\udb40\\udc01z\"");
    buffer_free(&out);
    json_write_string(&out, "", 0);
    assert_string_equal(out.text, "\"\"");
    buffer_free(&out);
}

static void check_float(float value)
{
    struct buffer out = { 0 };
    json_write_float(&out, value);
    float back = strtof(out.text, NULL);
    assert_memory_equal(&back, &value, sizeof value);
    back = (float)strtod(out.text, NULL);
    assert_memory_equal(&back, &value, sizeof value);
    assert_true(strlen(out.text) <= 15);
    buffer_free(&out);
}

static void test_floats_survive(void **state)
{
    (void)state;
    static const float values[] = { 0.0f,  -0.0f,   1.0f,  0.1f,  1e-45f,     FLT_MIN, FLT_MAX,
                                    1e10f, 3.4e38f, 1e-5f, 5e-4f, 16777216.f, 1.f / 3, 2.f / 3 };
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        check_float(values[i]);
    }
    uint32_t bits = 1;
    for (int i = 0; i < 100000; i++) {
        bits = bits * 1664525u + 1013904223u;
        float value;
        memcpy(&value, &bits, sizeof value);
        if (isfinite(value)) {
            check_float(value);
        }
    }
}

static void test_numbers_are_short(void **state)
{
    (void)state;
    static const struct {
        double value;
        const char *text;
    } cases[] = { { 0.1, "0.1" },
                  { 1e-05, "1e-05" },
                  { 100000, "100000" },
                  { 3e20, "3e+20" },
                  { 1.0 / 3, "0.3333333333333333" },
                  { 5e-324, "5e-324" },
                  { INFINITY, "null" },
                  { NAN, "null" },
                  { -12, "-12" } };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buffer out = { 0 };
        json_write_double(&out, cases[i].value);
        assert_string_equal(out.text, cases[i].text);
        buffer_free(&out);
    }
    struct buffer out = { 0 };
    json_write_float(&out, 0.1f);
    json_write_float(&out, 1e-45f);
    json_write_float(&out, NAN);
    assert_string_equal(out.text, "0.11e-45null");
    buffer_free(&out);
}

static void test_printing(void **state)
{
    (void)state;
    struct error err = { 0 };
    static const char text[] = "{\"a\":[1,2.5,{}],\"b\":[],\"c\":{\"d\":true,\"e\":null}}";
    cJSON *value = parse(text, sizeof text - 1, &err);
    char *compact = json_print(value);
    assert_string_equal(compact, text);
    char *pretty = json_print_pretty(value);
    assert_string_equal(pretty, "{\n  \"a\": [\n    1,\n    2.5,\n    {}\n  ],\n  \"b\": [],\n"
                                "  \"c\": {\n    \"d\": true,\n    \"e\": null\n  }\n}");
    free(compact);
    free(pretty);
    cJSON_Delete(value);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_every_cut_and_every_byte),
        cmocka_unit_test(test_positions),
        cmocka_unit_test(test_getters),
        cmocka_unit_test(test_strings_written),
        cmocka_unit_test(test_floats_survive),
        cmocka_unit_test(test_numbers_are_short),
        cmocka_unit_test(test_printing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
