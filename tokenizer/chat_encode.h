/* Conversations as token ids, with a mask that says which of them the model is to learn. */
#ifndef WINDROW_TOKENIZER_CHAT_ENCODE_H
#define WINDROW_TOKENIZER_CHAT_ENCODE_H

#include <stddef.h>
#include <stdint.h>

#include "tokenizer/chat_template.h"
#include "tokenizer/tokenizer.h"

/* `count` ids and, for each, 1 where it is trained. Free with chat_tokens_free. */
struct chat_tokens {
    int32_t *id;
    uint8_t *trained;
    size_t count;
};

/*
 * Ids of segments. Special pieces that the tokenizer knows (as control or user-defined pieces)
 * become one id; text in a message that spells one stays text. Text at the start and after a
 * special piece begins a text of its own: a tokenizer that puts a space in front of texts does so
 * there, unless the text has one. Trained and untrained text are encoded apart, so that no token is
 * half learned. 0, or -1 with a sentence in `why`: invalid UTF-8, out of memory.
 */
int chat_encode(const struct tokenizer *tokenizer, const struct chat_segments *segments,
                struct chat_tokens *out, char *why, size_t why_size);
void chat_tokens_free(struct chat_tokens *tokens);

#endif
