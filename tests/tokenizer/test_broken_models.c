/* Broken models are refused with a sentence, and never make anything crash. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/random.h"
#include "tokenizer/model_check.h"
#include "tokenizer/tiny_model.h"
#include "tokenizer/tokenizer.h"

/* A copy in a block of exactly that size, so that a read past the end is seen. */
static uint8_t *exact(const uint8_t *bytes, size_t size)
{
    uint8_t *copy = malloc(size > 0 ? size : 1);
    assert_non_null(copy);
    memcpy(copy, bytes, size);
    return copy;
}

/* Opens and, if that works, uses the model. */
static bool try_model(const uint8_t *bytes, size_t size)
{
    static const char text[] = "the c\xC3\xA4t  <s> \xF0\x9F\x98\x80\n on";
    char why[256] = "";
    struct tokenizer *tokenizer = tokenizer_open(bytes, size, why, sizeof(why));
    if (tokenizer == NULL) {
        assert_true(strlen(why) > 10);
        return false;
    }
    struct token_list list;
    if (tokenizer_encode(tokenizer, text, sizeof(text) - 1, &list, why, sizeof(why)) == 0) {
        free(tokenizer_decode(tokenizer, list.id, list.count, NULL, why, sizeof(why)));
        token_list_free(&list);
    }
    tokenizer_close(tokenizer);
    return true;
}

static void test_truncations(void **state)
{
    (void)state;
    size_t size;
    uint8_t *bytes = tiny_model_bytes(&size);
    size_t accepted = 0;
    for (size_t length = 0; length < size; length++) {
        uint8_t *cut = exact(bytes, length);
        accepted += try_model(cut, length);
        free(cut);
    }
    /* Only a cut between two parts that may both be absent leaves a whole model. */
    assert_true(accepted <= 2);
    free(bytes);
}

static void test_mutations(void **state)
{
    (void)state;
    size_t size;
    uint8_t *bytes = tiny_model_bytes(&size);
    struct random_key key = { .seed = 7, .purpose = RANDOM_TEST };
    size_t refused = 0;
    for (uint64_t i = 0; i < 2000; i++) {
        uint8_t *changed = exact(bytes, size);
        changed[random_u32(&key, 2 * i) % size] ^= (uint8_t)(1 + random_u32(&key, 2 * i + 1) % 255);
        refused += !try_model(changed, size);
        free(changed);
    }
    assert_true(refused > 200);
    free(bytes);
}

static void test_structure(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
    } cases[] = {
        { "", 0 },
        { "\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01", 12 },
        { "\x0A\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01x", 12 },
        { "\x0A\x04\x0A\xE8\x07x", 6 },
        { "\x0A\x80\x80\x80\x80\x08x", 7 },
        { "\x12\x02\x18\x01", 4 },
        { "\x0B\x0B\x0B\x0B", 4 },
        { "\x00", 1 },
        { "\x0A", 1 },
        { "\x08\x01", 2 },
        { "\x0A\x00", 2 },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t *copy = exact((const uint8_t *)cases[i].bytes, cases[i].size);
        assert_false(try_model(copy, cases[i].size));
        free(copy);
    }
}

static void assert_refused(uint8_t *bytes, size_t size, const char *words)
{
    char why[256] = "";
    struct tokenizer *tokenizer = tokenizer_open(bytes, size, why, sizeof(why));
    assert_null(tokenizer);
    if (strstr(why, words) == NULL) {
        fail_msg("'%s' does not say '%s'", why, words);
    }
    free(bytes);
}

static void assert_piece_refused(const char *piece, uint8_t type, const char *words)
{
    size_t size;
    uint8_t *bytes = tiny_model_bytes(&size);
    bytes = tiny_model_add_piece(bytes, &size, piece, type);
    assert_refused(bytes, size, words);
}

static void test_pieces(void **state)
{
    (void)state;
    assert_piece_refused("", MODEL_PIECE_NORMAL, "empty");
    assert_piece_refused("</s>", MODEL_PIECE_NORMAL, "same");
    assert_piece_refused("<0x-1>", MODEL_PIECE_BYTE, "byte");
    assert_piece_refused("<0xff>", MODEL_PIECE_BYTE, "byte");
    assert_piece_refused("<0x100>", MODEL_PIECE_BYTE, "byte");
    assert_piece_refused("other", MODEL_PIECE_UNKNOWN, "unknown");
    assert_piece_refused("other", 7, "type");
    assert_piece_refused("other", 0, "type");
    assert_piece_refused("bad\xFF", MODEL_PIECE_NORMAL, "UTF-8");
}

static uint8_t *append(const void *more, size_t more_size, size_t *size)
{
    uint8_t *bytes = tiny_model_bytes(size);
    bytes = realloc(bytes, *size + more_size);
    assert_non_null(bytes);
    memcpy(bytes + *size, more, more_size);
    *size += more_size;
    return bytes;
}

static void test_fields(void **state)
{
    (void)state;
    size_t size;
    static const struct {
        const char *bytes;
        size_t size;
        const char *words;
    } cases[] = {
        { "\x0A\x08\x0A\x01Z\x15\x00\x00\xC0\x7F", 10, "finite" },
        { "\x0A\x08\x0A\x01Z\x15\x00\x00\x80\xFF", 10, "finite" },
        { "\x0A\x05\x0A\x03Z\x00Y", 7, "NUL" },
        { "\x12\x02\x18\x05", 4, "model type" },
        { "\x12\x03\x98\x02\x00", 5, "byte fallback off" },
        { "\x12\x02\x18", 3, "fit" },
        { "\x1A\x02\x12\x05", 4, "fit" },
        { "\x12\x04\xEA\x02\x01\xFF", 6, "UTF-8" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t *bytes = append(cases[i].bytes, cases[i].size, &size);
        assert_refused(bytes, size, cases[i].words);
    }
    enum { LONG = 300000 };
    uint8_t *piece = malloc(LONG + 8);
    assert_non_null(piece);
    /* Two lengths as varints of three bytes: 300004 and 300000. */
    static const uint8_t head[] = { 0x0A, 0xE4, 0xA7, 0x12, 0x0A, 0xE0, 0xA7, 0x12 };
    memcpy(piece, head, sizeof(head));
    memset(piece + 8, 'a', LONG);
    uint8_t *bytes = append(piece, LONG + 8, &size);
    free(piece);
    assert_refused(bytes, size, "long");
}

enum { UNITS = 512, MAP_SIZE = 4 + UNITS * 4 + 2 };

static void put_unit(uint8_t *map, size_t index, uint32_t unit)
{
    for (size_t i = 0; i < 4; i++) {
        map[4 + index * 4 + i] = (uint8_t)(unit >> (8 * i));
    }
}

/* A map with one key "a" whose value is string 0, "x". */
static void good_map(uint8_t map[MAP_SIZE])
{
    memset(map, 0, MAP_SIZE);
    map[0] = (UNITS * 4) & 0xFF;
    map[1] = (UNITS * 4) >> 8;
    /* Unused units carry a label that no path asks for. */
    for (size_t i = 1; i < UNITS; i++) {
        put_unit(map, i, 0x800000FF);
    }
    put_unit(map, 0, 1u << 10);
    put_unit(map, 1 ^ 'a', 'a' | 1u << 8 | 2u << 10);
    put_unit(map, (1 ^ 'a') ^ 2, 0x80000000);
    map[MAP_SIZE - 2] = 'x';
}

static void assert_map(uint8_t map[MAP_SIZE], size_t size, const char *words)
{
    char why[256] = "fine";
    uint8_t *copy = exact(map, size);
    int result = model_check_character_map(copy, size, why, sizeof(why));
    free(copy);
    assert_int_equal(result, words == NULL ? 0 : -1);
    if (words != NULL && strstr(why, words) == NULL) {
        fail_msg("'%s' does not say '%s'", why, words);
    }
}

static void test_character_maps(void **state)
{
    (void)state;
    uint8_t map[MAP_SIZE];
    good_map(map);
    assert_map(map, MAP_SIZE, NULL);
    assert_map(map, 0, NULL);
    for (size_t size = 1; size < MAP_SIZE; size++) {
        assert_map(map, size, size < 4 + UNITS * 4 + 1 ? "character map" : "NUL");
    }
    put_unit(map, 0, 0x7FFFFC00);
    assert_map(map, MAP_SIZE, "outside");
    good_map(map);
    put_unit(map, 1 ^ 'a', 'a' | 1u << 8 | 0x40000000u);
    assert_map(map, MAP_SIZE, "outside");
    good_map(map);
    put_unit(map, (1 ^ 'a') ^ 2, 0x80000002);
    assert_map(map, MAP_SIZE, "offset");
    good_map(map);
    /* The node of "a" leads back to the root. */
    put_unit(map, 1 ^ 'a', 'a' | (uint32_t)'a' << 10);
    assert_map(map, MAP_SIZE, "without end");
    good_map(map);
    map[MAP_SIZE - 2] = 0xFF;
    assert_map(map, MAP_SIZE, "UTF-8");
    good_map(map);
    map[MAP_SIZE - 1] = 'y';
    assert_map(map, MAP_SIZE, "NUL");
    memset(map, 0, MAP_SIZE);
    assert_map(map, MAP_SIZE, "trie");
}

/* A map in the model is found, for the normalizer and the denormalizer. */
static void test_character_map_in_model(void **state)
{
    (void)state;
    size_t size;
    uint8_t *bytes = append("\x1A\x04\x12\x02\x00\x00", 6, &size);
    assert_refused(bytes, size, "character map");
    bytes = append("\x2A\x04\x12\x02\x00\x00", 6, &size);
    assert_refused(bytes, size, "character map");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_truncations),
        cmocka_unit_test(test_mutations),
        cmocka_unit_test(test_structure),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_character_maps),
        cmocka_unit_test(test_character_map_in_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
