/*
 * Is this a whole and consistent SentencePiece model?
 *
 * The library that reads these models trusts them: broken ones make it read and write where it must
 * not. So the bytes are walked here first, strictly, and the library only ever sees models that
 * passed.
 *
 * Checked: the protobuf structure (varints of at most 10 bytes, lengths inside their message, no
 * groups, known fields with their own wire type); between 1 and MODEL_PIECES_LIMIT pieces, none
 * empty, longer than MODEL_PIECE_BYTES_LIMIT, repeated, holding NUL or invalid UTF-8; finite
 * scores; exactly one unknown piece; byte pieces written <0x00> .. <0xFF>, all 256 of them if and
 * only if byte fallback is on; a known model type; and the compiled character maps (below).
 *
 * A compiled character map (of the normalizer and of the denormalizer) is
 *     uint32 bytes of the trie | trie: uint32 units of a double array | strings, each ended by NUL
 * Every path through the trie must stay inside its units, end, and meet at most 32 values; every
 * value must be the offset of a string.
 */
#ifndef WINDROW_TOKENIZER_MODEL_CHECK_H
#define WINDROW_TOKENIZER_MODEL_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MODEL_PIECES_LIMIT = 1 << 21,
    MODEL_PIECE_BYTES_LIMIT = 1024,
};

/* Numbers of the format. */
enum model_piece_type {
    MODEL_PIECE_NORMAL = 1,
    MODEL_PIECE_UNKNOWN = 2,
    MODEL_PIECE_CONTROL = 3,
    MODEL_PIECE_USER_DEFINED = 4,
    MODEL_PIECE_UNUSED = 5,
    MODEL_PIECE_BYTE = 6,
};

struct model_summary {
    int32_t piece_count;
    uint8_t *type; /* enum model_piece_type by id; free with model_summary_free */
    bool byte_fallback;
    bool adds_dummy_prefix;    /* puts a space in front of every text */
    bool removes_whitespace;   /* strips spaces at both ends, joins runs */
    bool maps_characters;      /* has a character map: a newline may become a space */
    bool newline_stands_alone; /* cutting a text at newlines cuts its ids there too */
};

/* 0 with the summary filled, or -1 with a sentence in `why`. */
int model_check(const void *bytes, size_t size, struct model_summary *summary, char *why,
                size_t why_size);
void model_summary_free(struct model_summary *summary);

/* The map's own check, for tests: 0, or -1 with a sentence in `why`. */
int model_check_character_map(const uint8_t *bytes, size_t size, char *why, size_t why_size);

#endif
