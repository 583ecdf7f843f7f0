/*
 * Conversations as text, in the form a model was trained on.
 *
 * The chat template that comes with a tokenizer is a program. It is never run: it is recognised by
 * the markers in it, and the format it stands for is written piece by piece here, so that for every
 * token it is known whether the model is to learn it: the text of assistant messages and what ends
 * their turn is trained, everything else is not.
 *
 *     chatml      <|im_start|>{role}\n{text}<|im_end|>\n
 *     llama2      <s>[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{user} [/INST] {assistant} </s>
 *     llama3      <|begin_of_text|><|start_header_id|>{role}<|end_header_id|>\n\n{text}<|eot_id|>
 *     mistral-v1  <s> [INST] {user} [/INST] {assistant}</s>
 *     mistral-v3  <s>[INST] {user}[/INST] {assistant}</s>
 *     gemma <bos><start_of_turn>user\n{user}<end_of_turn>\n<start_of_turn>model\n{assistant}...
 *     zephyr      <|{role}|>\n{text}</s>\n
 *     phi3        <|{role}|>\n{text}<|end|>\n
 *     vicuna      <s>{system} USER: {user} ASSISTANT: {assistant}</s>
 *     alpaca      <s>Below is an instruction ... ### Response:{assistant}</s>
 *     plain       <s>System: {system}\nUser: {user}\nAssistant: {assistant}</s>\n
 *     raw         <s>{user}{assistant}</s>
 *
 * <s> and </s> stand for BOS and EOS of the tokenizer; where it has none they are left out. llama2,
 * llama3 and gemma strip white space from both ends of a message, as their templates do. Formats
 * without a system role (mistral, gemma) put the system text and an empty line before the next user
 * message. Nothing is added that the conversation does not hold (no default system text, no dates).
 */
#ifndef WINDROW_TOKENIZER_CHAT_TEMPLATE_H
#define WINDROW_TOKENIZER_CHAT_TEMPLATE_H

#include <stdbool.h>
#include <stddef.h>

enum chat_format {
    CHAT_NONE,
    CHAT_CHATML,
    CHAT_LLAMA2,
    CHAT_LLAMA3,
    CHAT_MISTRAL_V1,
    CHAT_MISTRAL_V3,
    CHAT_GEMMA,
    CHAT_ZEPHYR,
    CHAT_PHI3,
    CHAT_VICUNA,
    CHAT_ALPACA,
    CHAT_PLAIN,
    CHAT_RAW,
};
/* "none", "chatml", "llama2" ... as above; NULL ends the list. */
extern const char *const chat_format_names[];

/* The format with that name, or CHAT_NONE. */
enum chat_format chat_format_find(const char *name);

/* The format of a template's text, or CHAT_NONE: absent (NULL), or none that is known for certain.
 */
enum chat_format chat_template_recognise(const char *jinja);

enum chat_role {
    CHAT_SYSTEM,
    CHAT_USER,
    CHAT_ASSISTANT,
    CHAT_TOOL,
};

/* Text is borrowed, and need not end in NUL. */
struct chat_message {
    enum chat_role role;
    bool trained; /* assistant only: false leaves this one out of the loss */
    const char *text;
    size_t size;
    const char *input; /* user only: what the instruction applies to, or NULL */
    size_t input_size;
};

enum chat_segment_kind {
    CHAT_TEXT,    /* of the template */
    CHAT_CONTENT, /* of a message: never a special piece, whatever it spells */
    CHAT_SPECIAL, /* of the template: the piece of that name if there is one, else text */
    CHAT_BOS,
    CHAT_EOS,
};

/* Text points into the messages or into constants. For BOS and EOS it is how they are usually
 * written. */
struct chat_segment {
    enum chat_segment_kind kind;
    bool trained;
    const char *text;
    size_t size;
};

struct chat_segments {
    struct chat_segment *segment;
    size_t count;
    size_t capacity;
    bool failed; /* out of memory */
};

/* Writes a conversation. With `add_prompt` it ends where an assistant would go on. 0, or -1: out of
 * memory. Free with chat_segments_free. */
int chat_format_render(enum chat_format format, const struct chat_message *messages, size_t count,
                       bool add_prompt, struct chat_segments *out);
void chat_segments_free(struct chat_segments *segments);

#endif
