/* Writing JSON. cJSON prints numbers with 17 digits and leaves DEL, C1 and direction marks alone,
 * so trees are printed here. */
#include "engine/base/json.h"

#include <math.h>
#include <string.h>

#include "engine/base/text.h"

static void write_code(struct buffer *out, uint32_t code)
{
    static const char plain[] = "\b\f\n\r\t\"\\";
    static const char letters[] = "bfnrt\"\\";
    const char *found = code != 0 && code < 0x80 ? strchr(plain, (int)code) : NULL;
    if (found) {
        char text[2] = { '\\', letters[found - plain] };
        buffer_append(out, text, 2);
    } else if (code > 0xffff) {
        uint32_t rest = code - 0x10000;
        buffer_printf(out, "\\u%04x\\u%04x", 0xd800 + (rest >> 10), 0xdc00 + (rest & 0x3ff));
    } else {
        buffer_printf(out, "\\u%04x", code);
    }
}

void json_write_string(struct buffer *out, const char *text, size_t size)
{
    size_t clean = 0; /* start of what can be copied as it is */
    size_t at = 0;
    buffer_append(out, "\"", 1);
    while (at < size) {
        uint32_t code = 0;
        size_t length = text_decode(text + at, size - at, &code);
        bool special = length == 0 || code == '"' || code == '\\' || text_is_control(code);
        if (special) {
            buffer_append(out, text + clean, at - clean);
            if (length == 0) {
                buffer_append(out, "\xef\xbf\xbd", 3);
            } else {
                write_code(out, code);
            }
        }
        at += length ? length : 1;
        clean = special ? at : clean;
    }
    buffer_append(out, text + clean, size - clean);
    buffer_append(out, "\"", 1);
}

void json_write_double(struct buffer *out, double value)
{
    char text[TEXT_NUMBER_SIZE] = "null";
    if (isfinite(value)) {
        text_from_double(text, value);
    }
    buffer_append(out, text, strlen(text));
}

void json_write_float(struct buffer *out, float value)
{
    char text[TEXT_NUMBER_SIZE] = "null";
    if (isfinite(value)) {
        text_from_float(text, value);
    }
    buffer_append(out, text, strlen(text));
}

/* A new line, indented; nothing in compact text (`indent` < 0). */
static void write_break(struct buffer *out, int indent)
{
    if (indent >= 0) {
        buffer_printf(out, "\n%*s", 2 * indent, "");
    }
}

/* `indent` is the level, or -1 for compact text. Trees of this program are shallow, those of files
 * at most JSON_DEPTH_LIMIT deep: recursion is bounded. */
static void write_value(struct buffer *out, const cJSON *value, int indent)
{
    if (cJSON_IsObject(value) || cJSON_IsArray(value)) {
        bool object = cJSON_IsObject(value);
        int inner = indent < 0 ? -1 : indent + 1;
        const cJSON *child;
        buffer_append(out, object ? "{" : "[", 1);
        cJSON_ArrayForEach (child, value) {
            if (child != value->child) {
                buffer_append(out, ",", 1);
            }
            write_break(out, inner);
            if (object) {
                json_write_string(out, child->string, strlen(child->string));
                buffer_append(out, ": ", indent < 0 ? 1 : 2);
            }
            write_value(out, child, inner);
        }
        if (value->child) {
            write_break(out, indent);
        }
        buffer_append(out, object ? "}" : "]", 1);
    } else if (cJSON_IsString(value)) {
        json_write_string(out, value->valuestring, strlen(value->valuestring));
    } else if (cJSON_IsNumber(value)) {
        json_write_double(out, value->valuedouble);
    } else if (cJSON_IsRaw(value)) {
        buffer_append(out, value->valuestring, strlen(value->valuestring));
    } else {
        const char *word = cJSON_IsTrue(value) ? "true" : cJSON_IsFalse(value) ? "false" : "null";
        buffer_append(out, word, strlen(word));
    }
}

char *json_print(const cJSON *value)
{
    struct buffer out = { 0 };
    write_value(&out, value, -1);
    return out.text;
}

char *json_print_pretty(const cJSON *value)
{
    struct buffer out = { 0 };
    write_value(&out, value, 0);
    return out.text;
}
