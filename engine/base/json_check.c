/*
 * cJSON is lenient: it takes 01, 1., blanks below 0x20, strings cut by \u0000, text after the value
 * and a thousand levels. This scanner takes RFC 8259 and nothing else. It does not recurse.
 */
#include "engine/base/json_check.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "engine/base/text.h"

struct scan {
    const char *text;
    size_t size;
    size_t at;
    const char *name;
    int64_t first_line;
    struct error *err;
};

/* Errors come with line and column (in bytes, from 1) of `at`. Always -1. */
static int refuse(struct scan *s, size_t at, const char *what)
{
    int64_t line = s->first_line;
    size_t start = 0;
    for (size_t i = 0; i < at && i < s->size; i++) {
        if (s->text[i] == '\n') {
            line++;
            start = i + 1;
        }
    }
    char found[TEXT_SHOWN_SIZE + 2] = "the end of the text";
    if (at < s->size) {
        size_t length = text_decode(s->text + at, s->size - at, NULL);
        snprintf(found, sizeof found, "'%s'", text_escape(s->text + at, length ? length : 1).text);
    }
    return fail(s->err, ERROR_DATA, "%s: line %lld, column %zu: %s, found %s",
                text_show(s->name).text, (long long)line, at - start + 1, what, found);
}

static int peek(const struct scan *s)
{
    return s->at < s->size ? (unsigned char)s->text[s->at] : -1;
}

static void skip_blanks(struct scan *s)
{
    while (s->at < s->size && s->text[s->at] != '\0' && strchr(" \t\r\n", s->text[s->at])) {
        s->at++;
    }
}

/* Four hexadecimal digits at `at`, or -1. */
static long hexadecimal4(const struct scan *s, size_t at)
{
    long value = 0;
    for (size_t i = at; i < at + 4; i++) {
        static const char digits[] = "0123456789abcdef0123456789ABCDEF";
        const char *found = NULL;
        if (i < s->size && s->text[i] != '\0') {
            found = strchr(digits, s->text[i]);
        }
        if (!found) {
            return -1;
        }
        value = value * 16 + (found - digits) % 16;
    }
    return value;
}

/* After a backslash. */
static int check_escape(struct scan *s)
{
    size_t start = s->at - 1;
    int c = peek(s);
    s->at++;
    if (c > 0 && c != 'u' && strchr("\"\\/bfnrt", c)) {
        return 0;
    }
    if (c != 'u') {
        return refuse(s, start, "this is no escape of JSON");
    }
    long code = hexadecimal4(s, s->at);
    s->at += 4;
    if (code < 0) {
        return refuse(s, start, "\\u needs four hexadecimal digits");
    }
    if (code == 0) {
        return refuse(s, start, "\\u0000 inside a string is not allowed");
    }
    if (code < 0xd800 || code > 0xdfff) {
        return 0;
    }
    long low = s->at + 1 < s->size && s->text[s->at] == '\\' && s->text[s->at + 1] == 'u'
                   ? hexadecimal4(s, s->at + 2)
                   : -1;
    if (code > 0xdbff || low < 0xdc00 || low > 0xdfff) {
        return refuse(s, start, "half of a surrogate pair");
    }
    s->at += 6;
    return 0;
}

static int check_string(struct scan *s)
{
    size_t start = s->at++;
    while (s->at < s->size) {
        unsigned char c = (unsigned char)s->text[s->at];
        if (c == '"') {
            s->at++;
            return 0;
        }
        if (c < 0x20) {
            return refuse(s, s->at, "control characters in strings must be escaped");
        }
        if (c == '\\') {
            s->at++;
            if (check_escape(s) != 0) {
                return -1;
            }
            continue;
        }
        size_t length = c < 0x80 ? 1 : text_decode(s->text + s->at, s->size - s->at, NULL);
        if (length == 0) {
            return refuse(s, s->at, "not valid UTF-8");
        }
        s->at += length;
    }
    return refuse(s, start, "a string that does not end");
}

static size_t count_digits(struct scan *s)
{
    size_t start = s->at;
    while (peek(s) >= '0' && peek(s) <= '9') {
        s->at++;
    }
    return s->at - start;
}

static int check_number(struct scan *s)
{
    size_t start = s->at;
    if (peek(s) == '-') {
        s->at++;
    }
    bool zero = peek(s) == '0';
    size_t digits = count_digits(s);
    if (digits == 0 || (zero && digits > 1)) {
        return refuse(s, start, "not a number of JSON");
    }
    if (peek(s) == '.') {
        s->at++;
        if (count_digits(s) == 0) {
            return refuse(s, start, "a number needs digits after its point");
        }
    }
    if (peek(s) == 'e' || peek(s) == 'E') {
        s->at++;
        if (peek(s) == '+' || peek(s) == '-') {
            s->at++;
        }
        if (count_digits(s) == 0) {
            return refuse(s, start, "a number needs digits in its exponent");
        }
    }
    if (s->at - start > JSON_NUMBER_LIMIT) {
        return refuse(s, start, "a number of more than 60 characters");
    }
    char text[JSON_NUMBER_LIMIT + 1] = "";
    double value = 0.0;
    memcpy(text, s->text + start, s->at - start);
    if (!text_to_double(text, &value)) {
        return refuse(s, start, "a number beyond what a double holds");
    }
    return 0;
}

static int check_word(struct scan *s)
{
    static const char *const words[] = { "true", "false", "null" };
    for (size_t i = 0; i < 3; i++) {
        size_t length = strlen(words[i]);
        if (s->size - s->at >= length && memcmp(s->text + s->at, words[i], length) == 0) {
            s->at += length;
            return 0;
        }
    }
    return refuse(s, s->at, s->at < s->size ? "a value was expected" : "the text is cut off");
}

static int check_scalar(struct scan *s)
{
    int c = peek(s);
    if (c == '"') {
        return check_string(s);
    }
    if (c == '-' || (c >= '0' && c <= '9')) {
        return check_number(s);
    }
    return check_word(s);
}

/* A key and its colon. */
static int check_key(struct scan *s)
{
    skip_blanks(s);
    if (peek(s) != '"') {
        return refuse(s, s->at, "a key in double quotes was expected");
    }
    if (check_string(s) != 0) {
        return -1;
    }
    skip_blanks(s);
    if (peek(s) != ':') {
        return refuse(s, s->at, "a colon was expected after the key");
    }
    s->at++;
    return 0;
}

/* After a value: closes what ends here, and steps over the comma if more follows. */
static int check_after_value(struct scan *s, char *stack, int *depth)
{
    while (*depth > 0) {
        skip_blanks(s);
        bool object = stack[*depth - 1] == '{';
        int c = peek(s);
        if (c == ',') {
            s->at++;
            return object ? check_key(s) : 0;
        }
        if (c != (object ? '}' : ']')) {
            return refuse(s, s->at,
                          object ? "a comma or } was expected" : "a comma or ] was expected");
        }
        s->at++;
        (*depth)--;
    }
    return 0;
}

/* Opens an object or array. `empty` is set if it closes at once. */
static int open_container(struct scan *s, char *stack, int *depth, bool *empty)
{
    bool object = peek(s) == '{';
    if (*depth == JSON_DEPTH_LIMIT) {
        return refuse(s, s->at, "nested deeper than 64 levels");
    }
    s->at++;
    skip_blanks(s);
    *empty = peek(s) == (object ? '}' : ']');
    if (*empty) {
        s->at++;
        return 0;
    }
    stack[(*depth)++] = object ? '{' : '[';
    return object ? check_key(s) : 0;
}

int json_check(const char *text, size_t size, const char *name, int64_t first_line,
               struct error *err)
{
    struct scan s = { text, size, 0, name, first_line, err };
    char stack[JSON_DEPTH_LIMIT];
    int depth = 0;
    int64_t values = 0;
    do {
        skip_blanks(&s);
        if (++values > JSON_VALUE_LIMIT) {
            return refuse(&s, s.at, "more than 8388608 values");
        }
        if (peek(&s) == '{' || peek(&s) == '[') {
            bool empty = false;
            if (open_container(&s, stack, &depth, &empty) != 0) {
                return -1;
            }
            if (!empty) {
                continue;
            }
        } else if (check_scalar(&s) != 0) {
            return -1;
        }
        if (check_after_value(&s, stack, &depth) != 0) {
            return -1;
        }
    } while (depth > 0);
    skip_blanks(&s);
    if (s.at != size) {
        return refuse(&s, s.at, "nothing may follow the value");
    }
    return 0;
}
