/* Records of JSON data sets, by the field names that are in use for them. */
#include "engine/data/records.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"

enum { DETECT_ROWS = 100 };

struct pair {
    const char *prompt;
    const char *answer;
};
static const struct pair completion_pairs[] = {
    { "prompt", "completion" }, { "prompt", "response" }, { "question", "answer" },
    { "query", "response" },    { "input", "output" },
};
enum { PAIR_COUNT = sizeof(completion_pairs) / sizeof(completion_pairs[0]) };

static int refuse(char *reason, const char *format, ...) __attribute__((format(printf, 2, 3)));

static int refuse(char *reason, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(reason, RECORDS_REASON_SIZE, format, list);
    va_end(list);
    return -1;
}

void conversation_clear(struct conversation *conversation)
{
    for (size_t i = 0; i < conversation->owned_count; i++) {
        free(conversation->owned[i]);
    }
    conversation->owned_count = 0;
    conversation->count = 0;
    conversation->text = NULL;
}

void conversation_free(struct conversation *conversation)
{
    conversation_clear(conversation);
    free(conversation->message);
    free(conversation->owned);
    *conversation = (struct conversation){ 0 };
}

/* The number of messages is bounded by the limit on rows, so these allocations are small. */
static struct chat_message *add(struct conversation *out, enum chat_role role, const char *text)
{
    if (out->count == out->capacity) {
        out->capacity = out->capacity * 2 + 8;
        out->message = xrealloc(out->message, out->capacity * sizeof(*out->message));
    }
    struct chat_message *message = &out->message[out->count++];
    *message = (struct chat_message){ .role = role, .text = text, .size = strlen(text) };
    message->trained = role == CHAT_ASSISTANT;
    return message;
}

/* A list of parts {"type": "text", "text": ...} joined to one string. NULL if one is no text. */
static const char *join_parts(const cJSON *parts, struct conversation *out)
{
    struct buffer text = { 0 };
    const cJSON *part;
    buffer_append(&text, "", 0);
    cJSON_ArrayForEach (part, parts) {
        const cJSON *type = json_get(part, "type");
        const cJSON *value = json_get(part, "text");
        value = value != NULL ? value : json_get(part, "value");
        bool is_text =
            type == NULL || (cJSON_IsString(type) && strcmp(type->valuestring, "text") == 0);
        if (!is_text || !cJSON_IsString(value)) {
            buffer_free(&text);
            return NULL;
        }
        buffer_append(&text, value->valuestring, strlen(value->valuestring));
    }
    out->owned = xrealloc(out->owned, (out->owned_count + 1) * sizeof(*out->owned));
    out->owned[out->owned_count++] = text.text;
    return text.text;
}

static bool role_of(const char *name, enum chat_role *role)
{
    static const struct {
        const char *name;
        enum chat_role role;
    } roles[] = {
        { "user", CHAT_USER },           { "human", CHAT_USER },
        { "assistant", CHAT_ASSISTANT }, { "gpt", CHAT_ASSISTANT },
        { "chatgpt", CHAT_ASSISTANT },   { "bing", CHAT_ASSISTANT },
        { "model", CHAT_ASSISTANT },     { "function_call", CHAT_ASSISTANT },
        { "system", CHAT_SYSTEM },       { "developer", CHAT_SYSTEM },
        { "tool", CHAT_TOOL },           { "function", CHAT_TOOL },
        { "observation", CHAT_TOOL },
    };
    for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++) {
        if (strcmp(roles[i].name, name) == 0) {
            *role = roles[i].role;
            return true;
        }
    }
    return false;
}

static bool is_masked(const cJSON *message)
{
    static const char *const keys[] = { "weight", "loss_weight", "train" };
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        const cJSON *value = json_get(message, keys[i]);
        if (cJSON_IsFalse(value) || (cJSON_IsNumber(value) && !(value->valuedouble > 0))) {
            return true;
        }
    }
    return false;
}

/* A list of messages whose keys for role and text are given. */
static int read_messages(const cJSON *list, const char *role_key, const char *text_key,
                         struct conversation *out, char *reason)
{
    const cJSON *message;
    cJSON_ArrayForEach (message, list) {
        enum chat_role role;
        const cJSON *name = json_get(message, role_key);
        const cJSON *content = json_get(message, text_key);
        if (!cJSON_IsString(name)) {
            return refuse(reason, "a message without \"%s\"", role_key);
        }
        if (!role_of(name->valuestring, &role)) {
            return refuse(reason, "unknown role \"%.40s\"", text_show(name->valuestring).text);
        }
        if (json_get(message, "tool_calls") != NULL && !cJSON_IsString(content)) {
            return refuse(reason, "tool_calls cannot be written as text");
        }
        const char *text = cJSON_IsString(content)  ? content->valuestring
                           : cJSON_IsArray(content) ? join_parts(content, out)
                                                    : NULL;
        if (text == NULL) {
            return refuse(reason, "a message whose \"%s\" is not text", text_key);
        }
        struct chat_message *added = add(out, role, text);
        added->trained = added->trained && !is_masked(message);
    }
    return 0;
}

static int read_list(const cJSON *row, const char *key, struct conversation *out, char *reason)
{
    const cJSON *list = json_get(row, key);
    if (!cJSON_IsArray(list)) {
        return refuse(reason, "no list \"%s\"", key);
    }
    bool from = json_get(list->child, "from") != NULL;
    return read_messages(list, from ? "from" : "role", from ? "value" : "content", out, reason);
}

static int read_sharegpt(const cJSON *row, struct conversation *out, char *reason)
{
    const cJSON *system = json_get(row, "system");
    if (cJSON_IsString(system) && system->valuestring[0] != '\0') {
        add(out, CHAT_SYSTEM, system->valuestring);
    }
    bool plural = json_get(row, "conversations") != NULL;
    return read_list(row, plural ? "conversations" : "conversation", out, reason);
}

static const struct pair *find_pair(const cJSON *row)
{
    for (size_t i = 0; i < PAIR_COUNT; i++) {
        if (json_get(row, completion_pairs[i].prompt) != NULL &&
            json_get(row, completion_pairs[i].answer) != NULL) {
            return &completion_pairs[i];
        }
    }
    return NULL;
}

/* A string, or a list of messages, of the prompt or the answer. */
static int read_side(const cJSON *value, const char *key, enum chat_role role,
                     struct conversation *out, char *reason)
{
    size_t first = out->count;
    if (cJSON_IsString(value)) {
        add(out, role, value->valuestring);
    } else if (!cJSON_IsArray(value)) {
        return refuse(reason, "\"%s\" is not text", key);
    } else if (read_messages(value, "role", "content", out, reason) != 0) {
        return -1;
    }
    for (size_t i = first; i < out->count && role == CHAT_USER; i++) {
        out->message[i].trained = false;
    }
    return 0;
}

static int read_completion(const cJSON *row, struct conversation *out, char *reason)
{
    const struct pair *pair = find_pair(row);
    if (pair == NULL) {
        return refuse(reason, "no fields \"prompt\" and \"completion\"");
    }
    if (read_side(json_get(row, pair->prompt), pair->prompt, CHAT_USER, out, reason) != 0) {
        return -1;
    }
    return read_side(json_get(row, pair->answer), pair->answer, CHAT_ASSISTANT, out, reason);
}

static int read_history(const cJSON *history, struct conversation *out, char *reason)
{
    const cJSON *turn;
    cJSON_ArrayForEach (turn, history) {
        const cJSON *question = cJSON_GetArrayItem(turn, 0);
        const cJSON *answer = cJSON_GetArrayItem(turn, 1);
        if (!cJSON_IsString(question) || !cJSON_IsString(answer)) {
            return refuse(reason, "\"history\" is not a list of [question, answer]");
        }
        add(out, CHAT_USER, question->valuestring);
        add(out, CHAT_ASSISTANT, answer->valuestring);
    }
    return 0;
}

static int read_alpaca(const cJSON *row, struct conversation *out, char *reason)
{
    const cJSON *instruction = json_get(row, "instruction");
    const cJSON *output = json_get(row, "output");
    const cJSON *input = json_get(row, "input");
    const cJSON *system = json_get(row, "system");
    output = output != NULL ? output : json_get(row, "response");
    input = input != NULL ? input : json_get(row, "context");
    if (!cJSON_IsString(instruction)) {
        return refuse(reason, "no text in field \"instruction\"");
    }
    if (!cJSON_IsString(output)) {
        return refuse(reason, "no text in field \"output\"");
    }
    if (input != NULL && !cJSON_IsString(input) && !cJSON_IsNull(input)) {
        return refuse(reason, "\"input\" is not text");
    }
    if (cJSON_IsString(system) && system->valuestring[0] != '\0') {
        add(out, CHAT_SYSTEM, system->valuestring);
    }
    if (read_history(json_get(row, "history"), out, reason) != 0) {
        return -1;
    }
    struct chat_message *user = add(out, CHAT_USER, instruction->valuestring);
    if (cJSON_IsString(input)) {
        user->input = input->valuestring;
        user->input_size = strlen(input->valuestring);
    }
    add(out, CHAT_ASSISTANT, output->valuestring);
    return 0;
}

static int read_text(const cJSON *row, struct conversation *out, char *reason)
{
    const cJSON *text = json_get(row, "text");
    text = text != NULL ? text : json_get(row, "content");
    if (!cJSON_IsString(text)) {
        return refuse(reason, "no text in field \"text\"");
    }
    if (text->valuestring[0] == '\0') {
        return refuse(reason, "field \"text\" is empty");
    }
    out->text = text->valuestring;
    return 0;
}

/* There must be something to learn. */
static int check_answers(const struct conversation *out, char *reason)
{
    bool assistant = false;
    for (size_t i = 0; i < out->count; i++) {
        const struct chat_message *message = &out->message[i];
        assistant |= message->role == CHAT_ASSISTANT;
        if (message->trained && message->size > 0) {
            return 0;
        }
    }
    return refuse(reason, assistant ? "the answer is empty or left out of the loss"
                                    : "no message of the assistant");
}

int records_read(const cJSON *row, enum data_format format, struct conversation *out,
                 char reason[RECORDS_REASON_SIZE])
{
    int result = -1;
    conversation_clear(out);
    if (!cJSON_IsObject(row)) {
        return refuse(reason, "not an object");
    }
    switch (format) {
    case DATA_TEXT:
        return read_text(row, out, reason);
    case DATA_ALPACA:
        result = read_alpaca(row, out, reason);
        break;
    case DATA_MESSAGES:
        result = json_get(row, "messages") != NULL ? read_list(row, "messages", out, reason)
                                                   : read_sharegpt(row, out, reason);
        break;
    case DATA_SHAREGPT:
        result = read_sharegpt(row, out, reason);
        break;
    case DATA_COMPLETION:
        result = read_completion(row, out, reason);
        break;
    case DATA_AUTO:
        return refuse(reason, "its format is not known");
    }
    return result == 0 ? check_answers(out, reason) : -1;
}

enum data_format records_format_of(const cJSON *row)
{
    if (cJSON_IsArray(json_get(row, "messages"))) {
        return DATA_MESSAGES;
    }
    const cJSON *list = json_get(row, "conversations");
    list = list != NULL ? list : json_get(row, "conversation");
    if (cJSON_IsArray(list)) {
        return json_get(list->child, "role") != NULL ? DATA_MESSAGES : DATA_SHAREGPT;
    }
    bool instruction = json_get(row, "instruction") != NULL;
    if (!instruction && find_pair(row) != NULL) {
        return DATA_COMPLETION;
    }
    if (instruction && (json_get(row, "output") != NULL || json_get(row, "response") != NULL)) {
        return DATA_ALPACA;
    }
    if (json_get(row, "text") != NULL || json_get(row, "content") != NULL) {
        return DATA_TEXT;
    }
    return DATA_AUTO;
}

/* What a row that fits no format looks like. */
static void describe(const cJSON *row, const char *path, int64_t line, struct error *err)
{
    struct buffer keys = { 0 };
    const cJSON *child;
    buffer_append(&keys, "", 0);
    if (cJSON_IsObject(row)) {
        cJSON_ArrayForEach (child, row) {
            if (keys.size < 200) {
                buffer_printf(&keys, "%s\"%s\"", keys.size > 0 ? ", " : "",
                              text_show(child->string).text);
            }
        }
    }
    fail(err, ERROR_DATA, "%s:%lld: no known kind of record; %s%s", text_show(path).text,
         (long long)line, cJSON_IsObject(row) ? "its fields: " : "it is not an object", keys.text);
    buffer_free(&keys);
    if (json_get(row, "chosen") != NULL && json_get(row, "rejected") != NULL) {
        hint(err, "preference data cannot be trained on; keep the chosen answers as "
                  "\"prompt\" and \"completion\"");
        return;
    }
    hint(err, "expected \"text\"; \"instruction\" and \"output\"; \"messages\"; "
              "\"conversations\"; or \"prompt\" and \"completion\"");
}

/* What was found so far. */
struct detection {
    const char *path;
    enum data_format format;
    int64_t line;       /* of the first row of that format */
    bool failed;        /* a row fits no format */
    struct error first; /* about that row */
};

static int detect_row(struct detection *found, const struct row *row, struct error *err)
{
    struct error broken = { 0 };
    cJSON *value =
        row->too_long ? NULL : json_parse(row->text, row->size, found->path, row->line, &broken);
    enum data_format format = records_format_of(value);
    if (format == DATA_AUTO) {
        if (!found->failed && value != NULL) {
            describe(value, found->path, row->line, &found->first);
        } else if (!found->failed) {
            found->first = broken;
            if (row->too_long) {
                fail(&found->first, ERROR_DATA, "%s:%lld: a row larger than 16 MiB",
                     text_show(found->path).text, (long long)row->line);
            }
        }
        found->failed = true;
    } else if (found->format == DATA_AUTO) {
        found->format = format;
        found->line = row->line;
    } else if (format != found->format) {
        fail(err, ERROR_DATA, "%s: line %lld is of the format %s, line %lld of %s",
             text_show(found->path).text, (long long)found->line, data_format_names[found->format],
             (long long)row->line, data_format_names[format]);
        hint(err, "set data.format to the one to read; records of the other are then left out");
        cJSON_Delete(value);
        return -1;
    }
    cJSON_Delete(value);
    return 0;
}

int records_detect(const char *path, enum data_format *format, struct error *err)
{
    struct rows rows = { .source = { .fd = -1 } };
    struct detection found = { .path = path, .format = DATA_AUTO };
    int result = rows_open(&rows, path, NULL, err);
    for (int i = 0; i < DETECT_ROWS && result == 0; i++) {
        struct row row;
        int got = rows_next_json(&rows, &row, err);
        if (got <= 0) {
            result = got;
            break;
        }
        result = detect_row(&found, &row, err);
    }
    rows_close(&rows);
    if (result == 0 && found.format == DATA_AUTO) {
        *err = found.first;
        if (!found.failed) {
            fail(err, ERROR_DATA, "%s: it holds no records", text_show(path).text);
        }
        result = -1;
    }
    *format = found.format;
    return result;
}
