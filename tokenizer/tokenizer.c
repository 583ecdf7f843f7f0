/*
 * The face of the folder: checks what goes into the SentencePiece library, and cuts long texts.
 *
 * Two models are held: the one of the file, and one that differs in a single setting, "no dummy
 * prefix", for text that goes on where other text ended. The setting is changed by appending a
 * second normalizer message to the bytes: protobuf merges it into the first.
 *
 * The library needs about 150 bytes of memory for each byte of a text. Where a newline never takes
 * part in a longer piece (model_check finds out), cutting the text at newlines gives the same ids,
 * so long texts go in chunk by chunk.
 */
#include "tokenizer/tokenizer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer/model_check.h"
#include "tokenizer/sentencepiece_shim.h"
#include "tokenizer/unicode.h"

enum {
    CHUNK_BYTES = 64 << 10,
    TEXT_BYTES_LIMIT = 1 << 30,
    MODEL_BYTES_LIMIT = 256 << 20,
};

struct tokenizer {
    struct spm *start;     /* as the file says */
    struct spm *continued; /* without the dummy prefix; may be `start` */
    struct model_summary summary;
    struct tokenizer_facts facts;
};

static int complain(char *why, size_t why_size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int complain(char *why, size_t why_size, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(why, why_size, format, list);
    va_end(list);
    return -1;
}

/* The same model with add_dummy_prefix (field 3) of the normalizer (field 3) set to false. */
static struct spm *open_continued(const void *bytes, size_t size, char *why, size_t why_size)
{
    static const uint8_t no_prefix[] = { 0x1A, 0x02, 0x18, 0x00 };
    uint8_t *changed = malloc(size + sizeof(no_prefix));
    if (changed == NULL) {
        complain(why, why_size, "out of memory for a tokenizer of %zu bytes", size);
        return NULL;
    }
    memcpy(changed, bytes, size);
    memcpy(changed + size, no_prefix, sizeof(no_prefix));
    struct spm *spm = spm_open(changed, size + sizeof(no_prefix), why, why_size);
    free(changed);
    return spm;
}

struct tokenizer *tokenizer_open(const void *bytes, size_t size, char *why, size_t why_size)
{
    if (size > MODEL_BYTES_LIMIT) {
        complain(why, why_size, "a tokenizer of %zu bytes (at most %d allowed)", size,
                 MODEL_BYTES_LIMIT);
        return NULL;
    }
    struct tokenizer *tokenizer = calloc(1, sizeof(*tokenizer));
    if (tokenizer == NULL) {
        complain(why, why_size, "out of memory");
        return NULL;
    }
    if (model_check(bytes, size, &tokenizer->summary, why, why_size) != 0) {
        goto fail;
    }
    tokenizer->start = spm_open(bytes, size, why, why_size);
    if (tokenizer->start == NULL) {
        goto fail;
    }
    tokenizer->continued = tokenizer->start;
    if (tokenizer->summary.adds_dummy_prefix) {
        tokenizer->continued = open_continued(bytes, size, why, why_size);
        if (tokenizer->continued == NULL) {
            goto fail;
        }
    }
    tokenizer->facts = (struct tokenizer_facts){
        .vocabulary = tokenizer->summary.piece_count,
        .bos = spm_special(tokenizer->start, SPM_BOS),
        .eos = spm_special(tokenizer->start, SPM_EOS),
        .unk = spm_special(tokenizer->start, SPM_UNK),
        .pad = spm_special(tokenizer->start, SPM_PAD),
        .byte_fallback = tokenizer->summary.byte_fallback,
    };
    return tokenizer;
fail:
    tokenizer_close(tokenizer);
    return NULL;
}

void tokenizer_close(struct tokenizer *tokenizer)
{
    if (tokenizer == NULL) {
        return;
    }
    if (tokenizer->continued != tokenizer->start) {
        spm_close(tokenizer->continued);
    }
    spm_close(tokenizer->start);
    model_summary_free(&tokenizer->summary);
    free(tokenizer);
}

const struct tokenizer_facts *tokenizer_facts(const struct tokenizer *tokenizer)
{
    return &tokenizer->facts;
}

/* Bytes up to and with the last newline within the chunk, or the first after it; all if none. */
static size_t chunk_size(const char *text, size_t size)
{
    if (size <= CHUNK_BYTES) {
        return size;
    }
    const char *newline = memrchr(text, '\n', CHUNK_BYTES);
    if (newline == NULL) {
        newline = memchr(text + CHUNK_BYTES, '\n', size - CHUNK_BYTES);
    }
    return newline == NULL ? size : (size_t)(newline - text) + 1;
}

static int encode(const struct tokenizer *tokenizer, const struct spm *first, const char *text,
                  size_t size, struct token_list *out, char *why, size_t why_size)
{
    size_t bad;
    *out = (struct token_list){ 0 };
    if (size > TEXT_BYTES_LIMIT) {
        return complain(why, why_size, "a text of %zu bytes (at most %d allowed at once)", size,
                        TEXT_BYTES_LIMIT);
    }
    if (!utf8_check(text, size, &bad)) {
        return complain(why, why_size, "invalid UTF-8 at byte %zu", bad);
    }
    const struct spm *spm = first;
    while (size > 0) {
        size_t part = tokenizer->summary.newline_stands_alone ? chunk_size(text, size) : size;
        if (spm_encode(spm, text, part, &out->id, &out->count, why, why_size) != 0) {
            token_list_free(out);
            return -1;
        }
        text += part;
        size -= part;
        spm = tokenizer->continued;
    }
    return 0;
}

int tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t size,
                     struct token_list *out, char *why, size_t why_size)
{
    return encode(tokenizer, tokenizer->start, text, size, out, why, why_size);
}

int tokenizer_encode_continued(const struct tokenizer *tokenizer, const char *text, size_t size,
                               struct token_list *out, char *why, size_t why_size)
{
    /* A model that strips leading white space would lose the space between two words. */
    const struct model_summary *model = &tokenizer->summary;
    bool space = size > 0 && (text[0] == ' ' ||
                              (model->maps_characters && (text[0] == '\n' || text[0] == '\t')));
    bool keep_prefix = model->removes_whitespace && space;
    return encode(tokenizer, keep_prefix ? tokenizer->start : tokenizer->continued, text, size, out,
                  why, why_size);
}

char *tokenizer_decode(const struct tokenizer *tokenizer, const int32_t *ids, size_t count,
                       size_t *size, char *why, size_t why_size)
{
    for (size_t i = 0; i < count; i++) {
        if (ids[i] < 0 || ids[i] >= tokenizer->facts.vocabulary) {
            complain(why, why_size, "id %d at place %zu is outside the vocabulary of %d", ids[i], i,
                     tokenizer->facts.vocabulary);
            return NULL;
        }
    }
    return spm_decode(tokenizer->start, ids, count, size, why, why_size);
}

const char *tokenizer_piece(const struct tokenizer *tokenizer, int32_t id)
{
    return id >= 0 && id < tokenizer->facts.vocabulary ? spm_piece(tokenizer->start, id) : NULL;
}

int32_t tokenizer_piece_id(const struct tokenizer *tokenizer, const char *piece)
{
    return spm_piece_id(tokenizer->start, piece);
}

bool tokenizer_is_control(const struct tokenizer *tokenizer, int32_t id)
{
    return id >= 0 && id < tokenizer->facts.vocabulary &&
           tokenizer->summary.type[id] == MODEL_PIECE_CONTROL;
}

bool tokenizer_is_user_defined(const struct tokenizer *tokenizer, int32_t id)
{
    return id >= 0 && id < tokenizer->facts.vocabulary &&
           tokenizer->summary.type[id] == MODEL_PIECE_USER_DEFINED;
}

void token_list_free(struct token_list *list)
{
    free(list->id);
    *list = (struct token_list){ 0 };
}

void *tokenizer_train(const char *const *sentences, size_t count, int32_t vocabulary, size_t *size,
                      char *why, size_t why_size)
{
    size_t bad;
    if (count == 0) {
        complain(why, why_size, "no text to train a tokenizer on");
        return NULL;
    }
    if (vocabulary < 1 || vocabulary > MODEL_PIECES_LIMIT) {
        complain(why, why_size, "a vocabulary of %d pieces (1 to %d allowed)", vocabulary,
                 MODEL_PIECES_LIMIT);
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        if (!utf8_check(sentences[i], strlen(sentences[i]), &bad)) {
            complain(why, why_size, "text %zu: invalid UTF-8 at byte %zu", i, bad);
            return NULL;
        }
    }
    return spm_train(sentences, count, vocabulary, size, why, why_size);
}
