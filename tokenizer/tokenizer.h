/*
 * Text to token ids and back.
 *
 * A tokenizer is made from the bytes of a SentencePiece model (`tokenizer.model`). It is immutable:
 * any number of threads may use one at the same time. Nothing here opens a file, prints or throws.
 */
#ifndef WINDROW_TOKENIZER_TOKENIZER_H
#define WINDROW_TOKENIZER_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct tokenizer;

/* Token ids that a call returned. Owned by the caller; free with token_list_free. */
struct token_list {
    int32_t *id;
    size_t count;
};

/* Special ids; -1 where the model has none. */
struct tokenizer_facts {
    int32_t vocabulary; /* number of pieces */
    int32_t bos;
    int32_t eos;
    int32_t unk;
    int32_t pad;
    bool byte_fallback; /* every byte string can be encoded without `unk` */
};

/* Makes a tokenizer from the bytes of a SentencePiece model. NULL with a sentence in `why` if the
 * bytes are not a whole and consistent model. The bytes are copied. */
struct tokenizer *tokenizer_open(const void *bytes, size_t size, char *why, size_t why_size);
void tokenizer_close(struct tokenizer *tokenizer);

const struct tokenizer_facts *tokenizer_facts(const struct tokenizer *tokenizer);

/* Ids of `text` (`size` bytes, may hold NUL), without BOS and EOS. Text that spells a control piece
 * such as "</s>" stays text. 0, or -1 with a sentence in `why`: invalid UTF-8 (with the offset of
 * the first bad byte), out of memory. */
int tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t size,
                     struct token_list *out, char *why, size_t why_size);

/* The same for text that goes on where other text ended: no space is put in front of it. */
int tokenizer_encode_continued(const struct tokenizer *tokenizer, const char *text, size_t size,
                               struct token_list *out, char *why, size_t why_size);

/* Text of `count` ids, NUL-terminated, to be freed with free(); `size` (may be NULL) gets its
 * length. Control pieces (BOS, EOS ...) become nothing, ids outside the vocabulary are an error.
 * The result is valid UTF-8: bytes that make no whole sequence (also at the end, when more ids
 * would complete it) become U+FFFD each. NULL with `why` on failure. */
char *tokenizer_decode(const struct tokenizer *tokenizer, const int32_t *ids, size_t count,
                       size_t *size, char *why, size_t why_size);

/* The piece of an id ("▁the", "<0x0A>"), or NULL if there is none. Owned by the tokenizer. */
const char *tokenizer_piece(const struct tokenizer *tokenizer, int32_t id);

/* The id of a piece written exactly so, or -1. */
int32_t tokenizer_piece_id(const struct tokenizer *tokenizer, const char *piece);

/* Control piece: never written by text, decodes to nothing. */
bool tokenizer_is_control(const struct tokenizer *tokenizer, int32_t id);

/* User-defined piece: found in text as a whole, before anything else. */
bool tokenizer_is_user_defined(const struct tokenizer *tokenizer, int32_t id);

void token_list_free(struct token_list *list);

/* Trains a byte-fallback BPE model of `vocabulary` pieces (unk 0, bos 1, eos 2) on `count`
 * sentences and returns its bytes (free with free()), `size` long. Deterministic. NULL with `why`
 * if the text cannot give so many pieces (the sentence then names the possible range). */
void *tokenizer_train(const char *const *sentences, size_t count, int32_t vocabulary, size_t *size,
                      char *why, size_t why_size);

#ifdef __cplusplus
}
#endif

#endif
