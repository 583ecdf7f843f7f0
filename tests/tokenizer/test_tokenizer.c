/* Text to ids and back with a model trained here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tokenizer/model_check.h"
#include "tokenizer/tiny_model.h"
#include "tokenizer/tokenizer.h"

static struct tokenizer *tiny;

static int set_up(void **state)
{
    (void)state;
    size_t size;
    uint8_t *bytes = tiny_model_bytes(&size);
    tiny = tiny_model_open(bytes, size);
    free(bytes);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    tokenizer_close(tiny);
    return 0;
}

static struct token_list encode(const struct tokenizer *tokenizer, const char *text, size_t size)
{
    struct token_list list;
    char why[256] = "";
    if (tokenizer_encode(tokenizer, text, size, &list, why, sizeof(why)) != 0) {
        fail_msg("encoding: %s", why);
    }
    return list;
}

static void assert_round_trip(const char *text, size_t size)
{
    struct token_list list = encode(tiny, text, size);
    char why[256] = "";
    size_t back_size = 0;
    char *back = tokenizer_decode(tiny, list.id, list.count, &back_size, why, sizeof(why));
    assert_non_null(back);
    assert_int_equal(back_size, size);
    assert_memory_equal(back, text, size);
    free(back);
    token_list_free(&list);
}

static void test_facts(void **state)
{
    (void)state;
    const struct tokenizer_facts *facts = tokenizer_facts(tiny);
    assert_int_equal(facts->vocabulary, 330);
    assert_int_equal(facts->unk, 0);
    assert_int_equal(facts->bos, 1);
    assert_int_equal(facts->eos, 2);
    assert_int_equal(facts->pad, -1);
    assert_true(facts->byte_fallback);
    assert_string_equal(tokenizer_piece(tiny, 2), "</s>");
    assert_string_equal(tokenizer_piece(tiny, 3), "<0x00>");
    assert_string_equal(tokenizer_piece(tiny, 258), "<0xFF>");
    assert_null(tokenizer_piece(tiny, 330));
    assert_null(tokenizer_piece(tiny, -1));
    assert_int_equal(tokenizer_piece_id(tiny, "</s>"), 2);
    assert_int_equal(tokenizer_piece_id(tiny, "<unk>"), 0);
    assert_int_equal(tokenizer_piece_id(tiny, "no such piece"), -1);
    assert_true(tokenizer_is_control(tiny, 1));
    assert_false(tokenizer_is_control(tiny, 3));
    assert_false(tokenizer_is_control(tiny, 1000));
}

static void test_round_trips(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "the cat sat",
        "The Cat, in capitals: XYZ!",
        "  two  spaces  everywhere  ",
        "line\nline\r\n\ttab\n\n",
        "\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80 \xE4\xB8\xAD\xE6\x96\x87 e\xCC\x81",
        "</s><s><unk><0x41><pad>",
        "\x01\x02\x1B[31m\x7F",
        "\xE2\x96\x81",
    };
    for (size_t i = 0; i + 1 < sizeof(texts) / sizeof(texts[0]); i++) {
        assert_round_trip(texts[i], strlen(texts[i]));
    }
    assert_round_trip("a\0b\0\0c", 6);
    assert_round_trip("", 0);
    assert_round_trip("\0", 1);
}

static void test_bytes(void **state)
{
    (void)state;
    /* No piece holds a euro sign: its three bytes stand for it, after the space in front. */
    struct token_list list = encode(tiny, "\xE2\x82\xAC", 3);
    assert_int_equal(list.count, 4);
    assert_int_equal(list.id[1], 3 + 0xE2);
    assert_int_equal(list.id[2], 3 + 0x82);
    assert_int_equal(list.id[3], 3 + 0xAC);
    char why[256];
    /* Cut inside the sequence. */
    char *text = tokenizer_decode(tiny, list.id, 3, NULL, why, sizeof(why));
    assert_string_equal(text, "\xEF\xBF\xBD\xEF\xBF\xBD");
    free(text);
    token_list_free(&list);
}

static void test_control_text_stays_text(void **state)
{
    (void)state;
    struct token_list list = encode(tiny, "<s>the cat</s>", 14);
    for (size_t i = 0; i < list.count; i++) {
        assert_false(tokenizer_is_control(tiny, list.id[i]));
    }
    token_list_free(&list);
    const int32_t ids[] = { 1, tokenizer_piece_id(tiny, "\xE2\x96\x81the"), 2 };
    char why[256];
    char *text = tokenizer_decode(tiny, ids, 3, NULL, why, sizeof(why));
    assert_string_equal(text, "the");
    free(text);
}

static void test_refusals(void **state)
{
    (void)state;
    struct token_list list;
    char why[256];
    assert_int_equal(tokenizer_encode(tiny, "abc\xFF", 4, &list, why, sizeof(why)), -1);
    assert_non_null(strstr(why, "byte 3"));
    const int32_t ids[] = { 5, 330 };
    assert_null(tokenizer_decode(tiny, ids, 2, NULL, why, sizeof(why)));
    assert_non_null(strstr(why, "330"));
    const int32_t negative[] = { -1 };
    assert_null(tokenizer_decode(tiny, negative, 1, NULL, why, sizeof(why)));
}

/* Long texts go in piece by piece; the ids must not show it. */
static void test_long_text(void **state)
{
    (void)state;
    static const char line[] = "the cat sat on \xC3\xA4 mat, then \n\n on that  one\n";
    enum { LINES = 5000 };
    size_t size = LINES * (sizeof(line) - 1);
    char *text = malloc(size);
    assert_non_null(text);
    for (size_t i = 0; i < LINES; i++) {
        memcpy(text + i * (sizeof(line) - 1), line, sizeof(line) - 1);
    }
    struct token_list whole = encode(tiny, text, size);
    struct token_list first = encode(tiny, line, sizeof(line) - 1);
    struct token_list rest;
    char why[256];
    assert_int_equal(
        tokenizer_encode_continued(tiny, line, sizeof(line) - 1, &rest, why, sizeof(why)), 0);
    assert_int_equal(whole.count, first.count + (LINES - 1) * rest.count);
    assert_memory_equal(whole.id, first.id, first.count * sizeof(int32_t));
    for (size_t i = 0; i < LINES - 1; i++) {
        assert_memory_equal(whole.id + first.count + i * rest.count, rest.id,
                            rest.count * sizeof(int32_t));
    }
    /* What follows text has no space put in front. */
    assert_string_not_equal(tokenizer_piece(tiny, rest.id[0]), tokenizer_piece(tiny, first.id[0]));
    token_list_free(&whole);
    token_list_free(&first);
    token_list_free(&rest);
    free(text);
}

static void test_user_defined_pieces(void **state)
{
    (void)state;
    size_t size;
    uint8_t *bytes = tiny_model_bytes(&size);
    bytes = tiny_model_add_piece(bytes, &size, "<|end|>", MODEL_PIECE_USER_DEFINED);
    bytes = tiny_model_add_piece(bytes, &size, "<pad>", MODEL_PIECE_CONTROL);
    struct tokenizer *tokenizer = tiny_model_open(bytes, size);
    free(bytes);
    assert_int_equal(tokenizer_facts(tokenizer)->pad, 331);
    assert_true(tokenizer_is_user_defined(tokenizer, 330));
    assert_false(tokenizer_is_user_defined(tokenizer, 331));
    struct token_list list = encode(tokenizer, "cat<|end|><pad>", 15);
    size_t found = 0;
    for (size_t i = 0; i < list.count; i++) {
        found += list.id[i] == 330;
        assert_int_not_equal(list.id[i], 331);
    }
    assert_int_equal(found, 1);
    token_list_free(&list);
    tokenizer_close(tokenizer);
}

static void test_training(void **state)
{
    (void)state;
    size_t size[2];
    uint8_t *bytes[2] = { tiny_model_bytes(&size[0]), tiny_model_bytes(&size[1]) };
    assert_int_equal(size[0], size[1]);
    assert_memory_equal(bytes[0], bytes[1], size[0]);
    free(bytes[0]);
    free(bytes[1]);
}

static void test_training_refusals(void **state)
{
    (void)state;
    static const char *const sentences[] = { "a cat and a hat", "a dog\tand\na frog" };
    char why[512] = "";
    size_t size;
    assert_null(tokenizer_train(sentences, 2, 5000, &size, why, sizeof(why)));
    assert_non_null(strstr(why, "too large"));
    int least = 0;
    int most = 0;
    assert_int_equal(sscanf(strstr(why, "text: ") + 6, "%d to %d", &least, &most), 2);
    assert_true(least > 256 && least <= most && most < 400);
    assert_null(tokenizer_train(sentences, 2, least - 1, &size, why, sizeof(why)));
    assert_non_null(strstr(why, "too small"));
    const int possible[] = { least, most };
    for (int i = 0; i < 2; i++) {
        void *bytes = tokenizer_train(sentences, 2, possible[i], &size, why, sizeof(why));
        assert_non_null(bytes);
        free(bytes);
    }
    assert_null(tokenizer_train(sentences, 0, 300, &size, why, sizeof(why)));
    assert_null(tokenizer_train(sentences, 2, 0, &size, why, sizeof(why)));
    assert_null(tokenizer_train(sentences, 2, -5, &size, why, sizeof(why)));
    static const char *const broken[] = { "fine", "not\xFF" };
    assert_null(tokenizer_train(broken, 2, 300, &size, why, sizeof(why)));
    assert_non_null(strstr(why, "text 1"));
    static const char *const empty[] = { "", "\n\t\n" };
    assert_null(tokenizer_train(empty, 2, 300, &size, why, sizeof(why)));
}

static void test_training_on_long_lines(void **state)
{
    (void)state;
    enum { SIZE = 60000 };
    char *text = malloc(SIZE + 1);
    assert_non_null(text);
    for (int i = 0; i < SIZE; i++) {
        text[i] = i % 20000 > 9000 ? "word "[i % 5] : "\xC3\xA4"[i % 2];
    }
    text[SIZE] = '\0';
    /* The pattern breaks a character where it changes: repair both ends. */
    for (int i = 0; i < SIZE; i++) {
        bool lead = text[i] == '\xC3' && (i + 1 == SIZE || text[i + 1] != '\xA4');
        bool tail = text[i] == '\xA4' && (i == 0 || text[i - 1] != '\xC3');
        text[i] = lead || tail ? 'x' : text[i];
    }
    const char *sentences[] = { text };
    char why[512] = "";
    size_t size;
    void *bytes = tokenizer_train(sentences, 1, 270, &size, why, sizeof(why));
    if (bytes == NULL) {
        fail_msg("%s", why);
    }
    free(bytes);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_facts),
        cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_control_text_stays_text),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_long_text),
        cmocka_unit_test(test_user_defined_pieces),
        cmocka_unit_test(test_training),
        cmocka_unit_test(test_training_refusals),
        cmocka_unit_test(test_training_on_long_lines),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
