/* A small model trained on the spot, and models made from it by hand. */
#ifndef WINDROW_TESTS_TOKENIZER_TINY_MODEL_H
#define WINDROW_TESTS_TOKENIZER_TINY_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "tokenizer/tokenizer.h"

/* Bytes of a model of 330 pieces; free with free(). */
uint8_t *tiny_model_bytes(size_t *size);

/* Appends a piece (type as in model_check.h) to the bytes, which are reallocated. */
uint8_t *tiny_model_add_piece(uint8_t *bytes, size_t *size, const char *piece, uint8_t type);

/* The tokenizer of the bytes; fails the test if there is none. */
struct tokenizer *tiny_model_open(const uint8_t *bytes, size_t size);

#endif
