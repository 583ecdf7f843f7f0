/*
 * Segments to ids: neighbouring text with the same mask is gathered into a run and encoded at once,
 * as the tokenizer would see it in the whole text.
 */
#include "tokenizer/chat_encode.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * How chat formats write their special pieces. A tokenizer may know them as user-defined pieces,
 * which it finds in any text. Inside a message they must stay text: the run is cut behind their
 * first character, so that the tokenizer never sees one whole.
 */
static const char *const markers[] = {
    "<|im_start|>",
    "<|im_end|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<bos>",
    "<eos>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|tool|>",
    "<|end|>",
    "<|endoftext|>",
    "[INST]",
    "[/INST]",
    "<s>",
    "</s>",
};
enum { MARKER_COUNT = sizeof(markers) / sizeof(markers[0]) };

struct encoder {
    const struct tokenizer *tokenizer;
    struct chat_tokens *out;
    char *why;
    size_t why_size;
    bool guarded[MARKER_COUNT]; /* the tokenizer would find this marker in text */
    bool fresh;                 /* nothing, or a special piece, stands before the run */
    /* The run. */
    bool trained;
    char *text;
    size_t size;
    size_t capacity;
    size_t *cut; /* places inside the run where it must be cut */
    size_t cut_count;
    size_t cut_capacity;
};

static int out_of_memory(const struct encoder *e)
{
    snprintf(e->why, e->why_size, "out of memory for a conversation of %zu tokens", e->out->count);
    return -1;
}

static int add_ids(struct encoder *e, const int32_t *ids, size_t count, bool trained)
{
    struct chat_tokens *out = e->out;
    if (count == 0) {
        return 0;
    }
    int32_t *id = realloc(out->id, (out->count + count) * sizeof(*id));
    if (id == NULL) {
        return out_of_memory(e);
    }
    out->id = id;
    uint8_t *mask = realloc(out->trained, out->count + count);
    if (mask == NULL) {
        return out_of_memory(e);
    }
    out->trained = mask;
    memcpy(id + out->count, ids, count * sizeof(*ids));
    memset(mask + out->count, trained ? 1 : 0, count);
    out->count += count;
    return 0;
}

static int encode_part(struct encoder *e, const char *text, size_t size)
{
    struct token_list list;
    if (size == 0) {
        return 0;
    }
    bool begins = e->fresh && text[0] != ' ';
    int result =
        begins ? tokenizer_encode(e->tokenizer, text, size, &list, e->why, e->why_size)
               : tokenizer_encode_continued(e->tokenizer, text, size, &list, e->why, e->why_size);
    if (result == 0) {
        result = add_ids(e, list.id, list.count, e->trained);
        token_list_free(&list);
    }
    e->fresh = false;
    return result;
}

/* Encodes the run and empties it. */
static int flush(struct encoder *e)
{
    size_t start = 0;
    for (size_t i = 0; i <= e->cut_count; i++) {
        size_t end = i < e->cut_count ? e->cut[i] : e->size;
        if (encode_part(e, e->text + start, end - start) != 0) {
            return -1;
        }
        start = end;
    }
    e->size = 0;
    e->cut_count = 0;
    return 0;
}

static int add_cut(struct encoder *e, size_t place)
{
    if (e->cut_count == e->cut_capacity) {
        size_t capacity = e->cut_capacity * 2 + 8;
        size_t *grown = realloc(e->cut, capacity * sizeof(*grown));
        if (grown == NULL) {
            return out_of_memory(e);
        }
        e->cut = grown;
        e->cut_capacity = capacity;
    }
    e->cut[e->cut_count++] = place;
    return 0;
}

static int guard(struct encoder *e, const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (text[i] != '<' && text[i] != '[') {
            continue;
        }
        for (int m = 0; m < MARKER_COUNT; m++) {
            size_t length = strlen(markers[m]);
            if (e->guarded[m] && size - i >= length && memcmp(text + i, markers[m], length) == 0) {
                if (add_cut(e, e->size + i + 1) != 0) {
                    return -1;
                }
                break;
            }
        }
    }
    return 0;
}

static int add_text(struct encoder *e, const struct chat_segment *segment)
{
    if (segment->size == 0) {
        return 0;
    }
    if (e->size > 0 && e->trained != segment->trained && flush(e) != 0) {
        return -1;
    }
    e->trained = segment->trained;
    if (e->size + segment->size > e->capacity) {
        size_t capacity = (e->size + segment->size) * 2;
        char *grown = realloc(e->text, capacity);
        if (grown == NULL) {
            return out_of_memory(e);
        }
        e->text = grown;
        e->capacity = capacity;
    }
    if (segment->kind == CHAT_CONTENT && guard(e, segment->text, segment->size) != 0) {
        return -1;
    }
    memcpy(e->text + e->size, segment->text, segment->size);
    e->size += segment->size;
    return 0;
}

static int32_t special_id(const struct tokenizer *tokenizer, const struct chat_segment *segment)
{
    char name[64];
    if (segment->kind == CHAT_BOS) {
        return tokenizer_facts(tokenizer)->bos;
    }
    if (segment->kind == CHAT_EOS) {
        return tokenizer_facts(tokenizer)->eos;
    }
    if (segment->size >= sizeof(name)) {
        return -1;
    }
    memcpy(name, segment->text, segment->size);
    name[segment->size] = '\0';
    int32_t id = tokenizer_piece_id(tokenizer, name);
    return tokenizer_is_control(tokenizer, id) || tokenizer_is_user_defined(tokenizer, id) ? id
                                                                                           : -1;
}

static int add_segment(struct encoder *e, const struct chat_segment *segment)
{
    if (segment->kind <= CHAT_CONTENT) {
        return add_text(e, segment);
    }
    int32_t id = special_id(e->tokenizer, segment);
    if (id < 0) {
        /* A tokenizer without BOS or EOS does without; other markers are then plain text. */
        return segment->kind == CHAT_SPECIAL ? add_text(e, segment) : 0;
    }
    if (flush(e) != 0) {
        return -1;
    }
    e->fresh = true;
    return add_ids(e, &id, 1, segment->trained);
}

int chat_encode(const struct tokenizer *tokenizer, const struct chat_segments *segments,
                struct chat_tokens *out, char *why, size_t why_size)
{
    struct encoder e = { .tokenizer = tokenizer, .out = out, .why = why, .why_size = why_size };
    *out = (struct chat_tokens){ 0 };
    e.fresh = true;
    for (int m = 0; m < MARKER_COUNT; m++) {
        e.guarded[m] =
            tokenizer_is_user_defined(tokenizer, tokenizer_piece_id(tokenizer, markers[m]));
    }
    int result = 0;
    for (size_t i = 0; i < segments->count && result == 0; i++) {
        result = add_segment(&e, &segments->segment[i]);
    }
    if (result == 0) {
        result = flush(&e);
    }
    free(e.text);
    free(e.cut);
    if (result != 0) {
        chat_tokens_free(out);
    }
    return result;
}

void chat_tokens_free(struct chat_tokens *tokens)
{
    free(tokens->id);
    free(tokens->trained);
    *tokens = (struct chat_tokens){ 0 };
}
