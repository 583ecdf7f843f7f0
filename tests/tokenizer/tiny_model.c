/* Models for tests. */
#include "tokenizer/tiny_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

uint8_t *tiny_model_bytes(size_t *size)
{
    enum { COUNT = 40 };
    char text[COUNT][128];
    const char *sentences[COUNT];
    char why[256] = "";
    for (int i = 0; i < COUNT; i++) {
        snprintf(
            text[i], sizeof(text[i]),
            "the cat and the hat sat on mat %d, then on that one: %d. Who knows what went there?",
            i, i * 7);
        sentences[i] = text[i];
    }
    uint8_t *bytes = tokenizer_train(sentences, COUNT, 330, size, why, sizeof(why));
    if (bytes == NULL) {
        fail_msg("training: %s", why);
    }
    return bytes;
}

uint8_t *tiny_model_add_piece(uint8_t *bytes, size_t *size, const char *piece, uint8_t type)
{
    size_t length = strlen(piece);
    assert_true(length < 100);
    uint8_t *grown = realloc(bytes, *size + length + 6);
    assert_non_null(grown);
    uint8_t *at = grown + *size;
    /* Field 1 of the model: a piece; its field 1: the text; its field 3: the type. */
    *at++ = 0x0A;
    *at++ = (uint8_t)(length + 4);
    *at++ = 0x0A;
    *at++ = (uint8_t)length;
    memcpy(at, piece, length);
    at += length;
    *at++ = 0x18;
    *at++ = type;
    *size += length + 6;
    return grown;
}

struct tokenizer *tiny_model_open(const uint8_t *bytes, size_t size)
{
    char why[256] = "";
    struct tokenizer *tokenizer = tokenizer_open(bytes, size, why, sizeof(why));
    if (tokenizer == NULL) {
        fail_msg("opening: %s", why);
    }
    return tokenizer;
}
