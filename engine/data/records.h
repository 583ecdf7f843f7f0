/*
 * One JSON object of a data set as a conversation or a text.
 *
 * Recognised, in this order:
 *     messages      {"messages": [{"role", "content"}, ...]}; roles system, developer, user, human,
 *                   assistant, model, tool, function; content a string or a list of text parts;
 *                   "weight", "loss_weight" or "train" of 0 or false leaves a message out of the
 * loss sharegpt      {"conversations": [{"from", "value"}, ...]} (also "conversation"); from human,
 *                   user, gpt, assistant, chatgpt, bing, model, system, tool, observation,
 *                   function_call; with "role" and "content" it counts as messages
 *     completion    {"prompt", "completion"}, also prompt/response, question/answer,
 *                   query/response, input/output (without an instruction); strings or lists of
 *                   messages
 *     alpaca        {"instruction", "output"} with "input" (or "context"), "system" and "history"
 *                   ([[question, answer], ...]); "response" for "output"
 *     text          {"text"} or {"content"}: plain text, every token trained
 */
#ifndef WINDROW_ENGINE_DATA_RECORDS_H
#define WINDROW_ENGINE_DATA_RECORDS_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>

#include "engine/base/error.h"
#include "engine/data/rows.h"
#include "engine/dataset.h"
#include "tokenizer/chat_template.h"

/* Messages point into the JSON they were read from, and into `owned`. */
struct conversation {
    struct chat_message *message;
    size_t count;
    size_t capacity;
    char **owned;
    size_t owned_count;
    const char *text; /* DATA_TEXT: the document; no messages then */
};
void conversation_clear(struct conversation *conversation);
void conversation_free(struct conversation *conversation);

enum { RECORDS_REASON_SIZE = 200 };

/* Reads a record of that format (not DATA_AUTO). 0, or -1 with the reason why it must be left out.
 */
int records_read(const cJSON *row, enum data_format format, struct conversation *out,
                 char reason[RECORDS_REASON_SIZE]);

/* The format of one object; DATA_AUTO if none is recognised. */
enum data_format records_format_of(const cJSON *row);

/* Looks at the first 100 rows of a file. -1 with an error if they are of different formats, or
 * of none. */
int records_detect(const char *path, enum data_format *format, struct error *err);

#endif
