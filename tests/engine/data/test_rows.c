/* Cutting files into JSON rows and documents. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/data/corpus.h"
#include "engine/data/rows.h"

struct expected {
    const char *text;
    int64_t line;
};

static void assert_rows(const char *path, bool json, const struct expected *expected, size_t count)
{
    struct rows rows = { .source = { .fd = -1 } };
    struct row row;
    struct error err = { 0 };
    assert_int_equal(rows_open(&rows, path, NULL, &err), 0);
    for (size_t i = 0; i < count; i++) {
        int got = json ? rows_next_json(&rows, &row, &err) : rows_next_document(&rows, &row, &err);
        assert_int_equal(got, 1);
        assert_int_equal(row.size, strlen(row.text));
        assert_string_equal(row.text, expected[i].text);
        assert_int_equal(row.line, expected[i].line);
        assert_false(row.too_long);
    }
    assert_int_equal(
        json ? rows_next_json(&rows, &row, &err) : rows_next_document(&rows, &row, &err), 0);
    rows_close(&rows);
}

#define ASSERT_ROWS(path, json, ...)                                                               \
    do {                                                                                           \
        const struct expected expected_[] = { __VA_ARGS__ };                                       \
        assert_rows(path, json, expected_, sizeof(expected_) / sizeof(expected_[0]));              \
    } while (0)

static void test_lines(void **state)
{
    const struct corpus *corpus = *state;
    const char *path =
        corpus_write(corpus, "a.jsonl", "\xEF\xBB\xBF\n{\"a\":1}\r\n  \n\n{\"b\":2}");
    ASSERT_ROWS(path, true, { "{\"a\":1}\r", 2 }, { "{\"b\":2}", 5 });
    path = corpus_write(corpus, "b.jsonl", "");
    assert_rows(path, true, NULL, 0);
    path = corpus_write(corpus, "c.jsonl", "\n \n");
    assert_rows(path, true, NULL, 0);
}

static void test_arrays(void **state)
{
    const struct corpus *corpus = *state;
    const char *path =
        corpus_write(corpus, "a.json", " [\n {\"a\": [1, {\"b\": \"],}\\\"\"}]\n},\n {}, 3 ]\n\n");
    ASSERT_ROWS(path, true, { "{\"a\": [1, {\"b\": \"],}\\\"\"}]\n}", 2 }, { "{}", 4 },
                { "3 ", 4 });
    path = corpus_write(corpus, "b.json", "[]");
    assert_rows(path, true, NULL, 0);
}

static void assert_array_fails(const struct corpus *corpus, const char *text, const char *words)
{
    struct rows rows = { .source = { .fd = -1 } };
    struct row row;
    struct error err = { 0 };
    const char *path = corpus_write(corpus, "broken.json", text);
    assert_int_equal(rows_open(&rows, path, NULL, &err), 0);
    int got = 1;
    while (got == 1) {
        got = rows_next_json(&rows, &row, &err);
    }
    assert_int_equal(got, -1);
    assert_non_null(strstr(err.message, words));
    rows_close(&rows);
}

static void test_broken_arrays(void **state)
{
    const struct corpus *corpus = *state;
    assert_array_fails(corpus, "[{\"a\":1},\n{\"b\":\n", "starts at line 2");
    assert_array_fails(corpus, "[1,2", "ends inside");
    assert_array_fails(corpus, "[\"abc]", "ends inside");
    assert_array_fails(corpus, "[1]\n[2]", "broken.json:2: text after");
    assert_array_fails(corpus, "[", "ends inside");
}

static void test_documents(void **state)
{
    const struct corpus *corpus = *state;
    const char *path = corpus_write(corpus, "a.txt", "one\ntwo");
    ASSERT_ROWS(path, false, { "one\ntwo", 1 });
    path = corpus_write(corpus, "b.txt",
                        "<|endoftext|>\none\n<|endoftext|>\r\n<|endoftext|>\ntwo\n x<|endoftext|>\n"
                        "<|endoftext|>");
    ASSERT_ROWS(path, false, { "one\n", 2 }, { "two\n x<|endoftext|>\n", 5 });
    path = corpus_write(corpus, "c.txt", "");
    assert_rows(path, false, NULL, 0);
    path = corpus_write(corpus, "d.txt", "\xEF\xBB\xBFone");
    ASSERT_ROWS(path, false, { "one", 1 });
}

/* Rows that cross the blocks in which files are read. */
static void test_blocks(void **state)
{
    const struct corpus *corpus = *state;
    enum { SIZE = SOURCE_BLOCK_BYTES + 1000 };
    char *text = malloc(2 * SIZE + 64);
    assert_non_null(text);
    for (int shift = -3; shift < 16; shift++) {
        size_t first = (size_t)(SOURCE_BLOCK_BYTES + shift - 14);
        memset(text, 'a', first);
        strncpy(text + first, "\n<|endoftext|>\nlast\n", 32);
        const char *path = corpus_write(corpus, "block.txt", text);
        text[first + 1] = '\0';
        ASSERT_ROWS(path, false, { text, 1 }, { "last\n", 3 });
    }
    free(text);
}

static void test_limits(void **state)
{
    const struct corpus *corpus = *state;
    size_t size = ROWS_LIMIT_BYTES + 1000;
    char *text = malloc(2 * size + 64);
    assert_non_null(text);
    struct rows rows = { .source = { .fd = -1 } };
    struct row row;
    struct error err = { 0 };
    /* A JSON row above the limit: its place is known, its text is not kept, the next one is fine.
     */
    memset(text, ' ', size);
    memcpy(text, "{\"a\":", 5);
    memcpy(text + size - 10, "1}\n{\"b\":1}", 10);
    const char *path = corpus_write_bytes(corpus, "long.jsonl", text, size);
    assert_int_equal(rows_open(&rows, path, NULL, &err), 0);
    assert_int_equal(rows_next_json(&rows, &row, &err), 1);
    assert_true(row.too_long);
    assert_int_equal(row.line, 1);
    assert_int_equal(rows_next_json(&rows, &row, &err), 1);
    assert_string_equal(row.text, "{\"b\":1}");
    assert_int_equal(row.line, 2);
    assert_true(rows.capacity <= 3 * (size_t)ROWS_LIMIT_BYTES);
    rows_close(&rows);
    /* A document above it is cut after the next newline. */
    memset(text, 'a', 2 * size);
    text[100] = '\n';
    text[size] = '\n';
    path = corpus_write_bytes(corpus, "long.txt", text, size + 50);
    assert_int_equal(rows_open(&rows, path, NULL, &err), 0);
    assert_int_equal(rows_next_document(&rows, &row, &err), 1);
    assert_int_equal(row.size, size + 1);
    assert_int_equal(rows_next_document(&rows, &row, &err), 1);
    assert_int_equal(row.size, 49);
    assert_int_equal(row.line, 3);
    assert_int_equal(rows_next_document(&rows, &row, &err), 0);
    rows_close(&rows);
    /* Without a newline, between two characters at twice the limit. */
    for (size_t i = 0; i + 1 < 2 * size; i += 2) {
        memcpy(text + i, "\xC3\xA4", 2);
    }
    text[0] = 'x';
    text[1] = 'x';
    text[2] = 'x';
    memmove(text + 3, text + 4, 2 * size - 4);
    path = corpus_write_bytes(corpus, "one-line.txt", text, 2 * size - 1);
    assert_int_equal(rows_open(&rows, path, NULL, &err), 0);
    size_t total = 0;
    int parts = 0;
    while (rows_next_document(&rows, &row, &err) == 1) {
        assert_true((row.text[0] & 0xC0) != 0x80);
        total += row.size;
        parts++;
    }
    assert_int_equal(parts, 2);
    assert_int_equal(total, 2 * size - 1);
    rows_close(&rows);
    free(text);
}

/* Refused at the first block: reading all of it would take minutes. */
static void test_holes(void **state)
{
    const struct corpus *corpus = *state;
    static const char *const names[] = { "hole.jsonl", "hole.txt", "hole" };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct rows rows = { .source = { .fd = -1 } };
        struct error err = { 0 };
        const char *path = corpus_write(corpus, names[i], "");
        assert_int_equal(truncate(path, (off_t)64 << 30), 0);
        assert_int_equal(rows_open(&rows, path, NULL, &err), -1);
        assert_int_equal(err.code, ERROR_DATA);
        assert_non_null(strstr(err.message, "NUL"));
        rows_close(&rows);
        assert_int_equal(unlink(path), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),         cmocka_unit_test(test_arrays),
        cmocka_unit_test(test_broken_arrays), cmocka_unit_test(test_documents),
        cmocka_unit_test(test_blocks),        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_holes),
    };
    return cmocka_run_group_tests(tests, corpus_set_up, corpus_tear_down);
}
