/*
 * The SentencePiece library behind a C face. Private to this folder: everybody else uses
 * tokenizer.h. No exception and no C++ type gets out.
 */
#ifndef WINDROW_TOKENIZER_SENTENCEPIECE_SHIM_H
#define WINDROW_TOKENIZER_SENTENCEPIECE_SHIM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct spm;

enum spm_special {
    SPM_BOS,
    SPM_EOS,
    SPM_UNK,
    SPM_PAD,
};

/* A model from bytes that passed model_check. NULL with a sentence in `why`. */
struct spm *spm_open(const void *bytes, size_t size, char *why, size_t why_size);
void spm_close(struct spm *spm);

int32_t spm_special(const struct spm *spm, enum spm_special which);

/* Appends the ids of valid UTF-8 to the `*count` ids at `*ids` (realloc'd, may start as NULL). 0,
 * or -1 with a sentence. */
int spm_encode(const struct spm *spm, const char *text, size_t size, int32_t **ids, size_t *count,
               char *why, size_t why_size);

/* Ids must be inside the vocabulary. As tokenizer_decode. */
char *spm_decode(const struct spm *spm, const int32_t *ids, size_t count, size_t *size, char *why,
                 size_t why_size);

/* The id must be inside the vocabulary. */
const char *spm_piece(const struct spm *spm, int32_t id);
int32_t spm_piece_id(const struct spm *spm, const char *piece);

/* As tokenizer_train, for valid UTF-8. */
void *spm_train(const char *const *sentences, size_t count, int32_t vocabulary, size_t *size,
                char *why, size_t why_size);

#ifdef __cplusplus
}
#endif

#endif
