/*
 * The chat formats. One function a family of formats; each writes one message.
 *
 * Where a format has a space between its prompt and the answer, the space belongs to the answer: a
 * tokenizer joins it with the first word, and the prompt alone must have the ids it has in
 * training.
 */
#include "tokenizer/chat_template.h"

#include <stdlib.h>
#include <string.h>

const char *const chat_format_names[] = { "none",       "chatml", "llama2", "llama3", "mistral-v1",
                                          "mistral-v3", "gemma",  "zephyr", "phi3",   "vicuna",
                                          "alpaca",     "plain",  "raw",    NULL };

enum chat_format chat_format_find(const char *name)
{
    for (int i = 0; chat_format_names[i] != NULL; i++) {
        if (strcmp(chat_format_names[i], name) == 0) {
            return (enum chat_format)i;
        }
    }
    return CHAT_NONE;
}

static bool has(const char *text, const char *marker)
{
    return strstr(text, marker) != NULL;
}

/* Templates with [INST]. Two families share it; the newer members of one are not written here. */
static enum chat_format recognise_inst(const char *jinja)
{
    if (has(jinja, "[SYSTEM_PROMPT]") || has(jinja, "\"[INST]\"")) {
        return CHAT_NONE;
    }
    if (has(jinja, "' [INST] ' + system_message") || has(jinja, "[AVAILABLE_TOOLS]")) {
        return has(jinja, " [INST]") ? CHAT_MISTRAL_V1 : CHAT_MISTRAL_V3;
    }
    return CHAT_LLAMA2;
}

enum chat_format chat_template_recognise(const char *jinja)
{
    if (jinja == NULL) {
        return CHAT_NONE;
    }
    if (has(jinja, "<|im_start|>")) {
        return has(jinja, "<|im_sep|>") ? CHAT_NONE : CHAT_CHATML;
    }
    if (has(jinja, "[INST]")) {
        return recognise_inst(jinja);
    }
    if (has(jinja, "<|assistant|>") && has(jinja, "<|end|>")) {
        return CHAT_PHI3;
    }
    /* Templates write EOS as a name or as its text. */
    if (has(jinja, "<|user|>") && (has(jinja, "<|endoftext|>") || has(jinja, "eos_token"))) {
        return CHAT_ZEPHYR;
    }
    if (has(jinja, "<start_of_turn>")) {
        return CHAT_GEMMA;
    }
    if (has(jinja, "USER: ") && has(jinja, "ASSISTANT: ")) {
        return CHAT_VICUNA;
    }
    if (has(jinja, "<|start_header_id|>") && has(jinja, "<|end_header_id|>")) {
        return CHAT_LLAMA3;
    }
    return CHAT_NONE;
}

static void add(struct chat_segments *out, struct chat_segment segment)
{
    if (out->failed || (segment.size == 0 && segment.kind <= CHAT_CONTENT)) {
        return;
    }
    if (out->count == out->capacity) {
        size_t capacity = out->capacity == 0 ? 32 : out->capacity * 2;
        struct chat_segment *grown = realloc(out->segment, capacity * sizeof(*grown));
        if (grown == NULL) {
            out->failed = true;
            return;
        }
        out->segment = grown;
        out->capacity = capacity;
    }
    out->segment[out->count++] = segment;
}

static void add_constant(struct chat_segments *out, enum chat_segment_kind kind, const char *text,
                         bool trained)
{
    add(out, (struct chat_segment){ kind, trained, text, strlen(text) });
}

static void add_text(struct chat_segments *out, const char *text)
{
    add_constant(out, CHAT_TEXT, text, false);
}

static void add_special(struct chat_segments *out, const char *text)
{
    add_constant(out, CHAT_SPECIAL, text, false);
}

static void add_bos(struct chat_segments *out, const char *text)
{
    add_constant(out, CHAT_BOS, text, false);
}

static void add_eos(struct chat_segments *out, bool trained)
{
    add_constant(out, CHAT_EOS, "</s>", trained);
}

static bool learns(const struct chat_message *message)
{
    return message->role == CHAT_ASSISTANT && message->trained;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static void add_part(struct chat_segments *out, const char *text, size_t size, bool trained)
{
    add(out, (struct chat_segment){ CHAT_CONTENT, trained, text, size });
}

/* The text of a message, and its input on a line of its own. */
static void add_content(struct chat_segments *out, const struct chat_message *message)
{
    add_part(out, message->text, message->size, learns(message));
    if (message->input_size > 0) {
        add_text(out, "\n");
        add_part(out, message->input, message->input_size, false);
    }
}

static struct chat_message stripped(const struct chat_message *message)
{
    struct chat_message result = *message;
    while (result.size > 0 && is_space(result.text[result.size - 1])) {
        result.size--;
    }
    while (result.size > 0 && is_space(result.text[0])) {
        result.text++;
        result.size--;
    }
    return result;
}

static const char *role_name(enum chat_role role)
{
    static const char *const names[] = { "system", "user", "assistant", "tool" };
    return names[role];
}

/* A conversation on its way through a format. */
struct rendering {
    enum chat_format format;
    struct chat_segments *out;
    const struct chat_message *system; /* waits for the next user message */
    bool last;                         /* the message is the last one */
};

/* chatml, llama3, gemma: special pieces around the role and at the end of a turn. */
static void render_headed(struct rendering *r, const struct chat_message *message)
{
    struct chat_segments *out = r->out;
    struct chat_message text = *message;
    if (r->format == CHAT_CHATML) {
        add_special(out, "<|im_start|>");
        add_text(out, role_name(text.role));
        add_text(out, "\n");
        add_content(out, &text);
        add_constant(out, CHAT_SPECIAL, "<|im_end|>", learns(&text));
        add_text(out, "\n");
        return;
    }
    text = stripped(message);
    if (r->format == CHAT_LLAMA3) {
        add_special(out, "<|start_header_id|>");
        add_text(out, role_name(text.role));
        add_special(out, "<|end_header_id|>");
        add_text(out, "\n\n");
        add_content(out, &text);
        add_constant(out, CHAT_SPECIAL, "<|eot_id|>", learns(&text));
        return;
    }
    add_special(out, "<start_of_turn>");
    add_text(out, text.role == CHAT_ASSISTANT ? "model\n" : "user\n");
    if (r->system != NULL && text.role != CHAT_ASSISTANT) {
        struct chat_message system = stripped(r->system);
        add_content(out, &system);
        add_text(out, "\n\n");
        r->system = NULL;
    }
    add_content(out, &text);
    add_constant(out, CHAT_SPECIAL, "<end_of_turn>", learns(&text));
    add_text(out, "\n");
}

/* zephyr, phi3: the role as a marker on its own line. */
static void render_marked(struct rendering *r, const struct chat_message *message)
{
    static const char *const markers[] = { "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>" };
    add_special(r->out, markers[message->role]);
    add_text(r->out, "\n");
    add_content(r->out, message);
    if (r->format == CHAT_ZEPHYR) {
        add_eos(r->out, learns(message));
    } else {
        add_constant(r->out, CHAT_SPECIAL, "<|end|>", learns(message));
    }
    add_text(r->out, "\n");
}

static void render_llama2(struct rendering *r, const struct chat_message *message)
{
    struct chat_segments *out = r->out;
    struct chat_message text = stripped(message);
    if (text.role == CHAT_ASSISTANT) {
        add_constant(out, CHAT_TEXT, " ", text.trained);
        add_content(out, &text);
        add_constant(out, CHAT_TEXT, " ", text.trained);
        add_eos(out, text.trained);
        return;
    }
    add_bos(out, "<s>");
    add_text(out, "[INST] ");
    if (r->system != NULL) {
        struct chat_message system = stripped(r->system);
        add_text(out, "<<SYS>>\n");
        add_content(out, &system);
        add_text(out, "\n<</SYS>>\n\n");
        r->system = NULL;
    }
    add_content(out, &text);
    add_text(out, " [/INST]");
}

static void render_mistral(struct rendering *r, const struct chat_message *message)
{
    struct chat_segments *out = r->out;
    bool v1 = r->format == CHAT_MISTRAL_V1;
    if (message->role == CHAT_ASSISTANT) {
        add_constant(out, CHAT_TEXT, " ", message->trained);
        add_content(out, message);
        add_eos(out, message->trained);
        return;
    }
    if (v1) {
        add_text(out, " [INST] ");
    } else {
        add_special(out, "[INST]");
        add_text(out, " ");
    }
    if (r->system != NULL) {
        add_content(out, r->system);
        add_text(out, "\n\n");
        r->system = NULL;
    }
    add_content(out, message);
    if (v1) {
        add_text(out, " [/INST]");
    } else {
        add_special(out, "[/INST]");
    }
}

static void render_vicuna(struct rendering *r, const struct chat_message *message)
{
    struct chat_segments *out = r->out;
    if (message->role == CHAT_SYSTEM) {
        add_content(out, message);
        add_text(out, " ");
    } else if (message->role == CHAT_ASSISTANT) {
        add_text(out, "ASSISTANT:");
        add_constant(out, CHAT_TEXT, " ", message->trained);
        add_content(out, message);
        add_eos(out, message->trained);
    } else {
        add_text(out, "USER: ");
        add_content(out, message);
        add_text(out, " ");
    }
}

/* The first instruction comes with a sentence that says whether there is an input; a system message
 * takes the place of that sentence. */
static void render_alpaca(struct rendering *r, const struct chat_message *message)
{
    static const char *const preface[] = {
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.",
        "Below is an instruction that describes a task, paired with an input that provides "
        "further context. Write a response that appropriately completes the request.",
    };
    struct chat_segments *out = r->out;
    if (message->role == CHAT_ASSISTANT) {
        add_content(out, message);
        add_eos(out, message->trained);
        return;
    }
    if (r->system != NULL) {
        add_content(out, r->system);
        r->system = NULL;
    } else if (out->count <= 1) {
        add_text(out, preface[message->input_size > 0]);
    }
    add_text(out, "\n\n### Instruction:\n");
    add_part(out, message->text, message->size, false);
    if (message->input_size > 0) {
        add_text(out, "\n\n### Input:\n");
        add_part(out, message->input, message->input_size, false);
    }
    add_text(out, "\n\n### Response:");
}

static void render_plain(struct rendering *r, const struct chat_message *message)
{
    static const char *const names[] = { "System: ", "User: ", "Assistant:", "Tool: " };
    add_text(r->out, names[message->role]);
    if (message->role != CHAT_ASSISTANT) {
        add_content(r->out, message);
        add_text(r->out, "\n");
        return;
    }
    add_constant(r->out, CHAT_TEXT, " ", message->trained);
    add_content(r->out, message);
    add_eos(r->out, message->trained);
    if (!r->last) {
        add_text(r->out, "\n");
    }
}

static void render_raw(struct rendering *r, const struct chat_message *message)
{
    add_content(r->out, message);
    if (message->role == CHAT_ASSISTANT) {
        add_eos(r->out, message->trained);
    }
}

/* What each format is made of. */
struct format {
    void (*render)(struct rendering *r, const struct chat_message *message);
    const char *bos;       /* before the first message, or NULL */
    const char *prompt[3]; /* where an assistant goes on; a name in <> or [] is a special piece */
    bool folds_system;     /* system text waits for the next user message */
};

static const struct format formats[] = {
    [CHAT_CHATML] = { render_headed, NULL, { "<|im_start|>", "assistant\n", NULL }, false },
    [CHAT_LLAMA2] = { render_llama2, NULL, { NULL }, true },
    [CHAT_LLAMA3] = { render_headed,
                      "<|begin_of_text|>",
                      { "<|start_header_id|>", "assistant", "<|end_header_id|>" },
                      false },
    [CHAT_MISTRAL_V1] = { render_mistral, "<s>", { NULL }, true },
    [CHAT_MISTRAL_V3] = { render_mistral, "<s>", { NULL }, true },
    [CHAT_GEMMA] = { render_headed, "<bos>", { "<start_of_turn>", "model\n", NULL }, true },
    [CHAT_ZEPHYR] = { render_marked, NULL, { "<|assistant|>", "\n", NULL }, false },
    [CHAT_PHI3] = { render_marked, NULL, { "<|assistant|>", "\n", NULL }, false },
    [CHAT_VICUNA] = { render_vicuna, "<s>", { "ASSISTANT:", NULL }, false },
    [CHAT_ALPACA] = { render_alpaca, "<s>", { NULL }, true },
    [CHAT_PLAIN] = { render_plain, "<s>", { "Assistant:", NULL }, false },
    [CHAT_RAW] = { render_raw, "<s>", { NULL }, false },
};

static void add_prompt_of(const struct format *format, struct chat_segments *out)
{
    for (int i = 0; i < 3 && format->prompt[i] != NULL; i++) {
        bool special = format->prompt[i][0] == '<';
        add_constant(out, special ? CHAT_SPECIAL : CHAT_TEXT, format->prompt[i], false);
    }
    if (format == &formats[CHAT_LLAMA3]) {
        add_text(out, "\n\n");
    }
}

int chat_format_render(enum chat_format format, const struct chat_message *messages, size_t count,
                       bool add_prompt, struct chat_segments *out)
{
    const struct format *how = &formats[format == CHAT_NONE ? CHAT_PLAIN : format];
    struct rendering r = { .format = (enum chat_format)(how - formats), .out = out };
    *out = (struct chat_segments){ 0 };
    if (how->bos != NULL) {
        add_bos(out, how->bos);
    }
    for (size_t i = 0; i < count; i++) {
        if (messages[i].role == CHAT_SYSTEM && how->folds_system) {
            r.system = &messages[i];
            continue;
        }
        r.last = i + 1 == count && !add_prompt;
        how->render(&r, &messages[i]);
    }
    if (add_prompt) {
        add_prompt_of(how, out);
    }
    if (out->failed) {
        chat_segments_free(out);
        return -1;
    }
    return 0;
}

void chat_segments_free(struct chat_segments *segments)
{
    free(segments->segment);
    *segments = (struct chat_segments){ 0 };
}
