/* UTF-8 as RFC 3629 has it, escapes for messages, numbers without locale. */
#include "engine/base/text.h"

#include <errno.h>
#include <float.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

size_t text_decode(const char *text, size_t size, uint32_t *code)
{
    const unsigned char *p = (const unsigned char *)text;
    static const uint32_t least[5] = { 0, 0, 0x80, 0x800, 0x10000 };
    if (size == 0) {
        return 0;
    }
    size_t length = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (length == 0 || length > size || p[0] > 0xf4) {
        return 0;
    }
    uint32_t value = length == 1 ? p[0] : p[0] & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
        value = value << 6 | (p[i] & 0x3fu);
    }
    if (value < least[length] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff)) {
        return 0;
    }
    if (code) {
        *code = value;
    }
    return length;
}

size_t text_encode(uint32_t code, char out[4])
{
    static const uint8_t leads[5] = { 0, 0, 0xc0, 0xe0, 0xf0 };
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    size_t size = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = size - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (code & 0x3f));
        code >>= 6;
    }
    out[0] = (char)(leads[size] | code);
    return size;
}

bool text_is_utf8(const char *text, size_t size, size_t *bad)
{
    size_t at = 0;
    while (at < size) {
        size_t length = text_decode(text + at, size - at, NULL);
        if (length == 0) {
            if (bad) {
                *bad = at;
            }
            return false;
        }
        at += length;
    }
    return true;
}

bool text_is_control(uint32_t code)
{
    static const struct {
        uint32_t first;
        uint32_t last;
    } ranges[] = {
        { 0x0, 0x1f },      { 0x7f, 0x9f },     { 0xad, 0xad },       { 0x61c, 0x61c },
        { 0x180e, 0x180e }, { 0x200b, 0x200f }, { 0x2028, 0x202e },   { 0x2060, 0x206f },
        { 0xfeff, 0xfeff }, { 0xfff9, 0xfffb }, { 0xe0000, 0xe007f },
    };
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        if (code >= ranges[i].first && code <= ranges[i].last) {
            return true;
        }
    }
    return false;
}

/* Escapes what stands at `text` into `out` (12 bytes). Returns the bytes read; `columns` on screen:
 * one, or two from U+1100 on (too many is harmless, too few is not). */
static size_t escape_one(const char *text, size_t size, char out[12], int *columns)
{
    uint32_t code = 0;
    size_t length = text_decode(text, size, &code);
    if (length == 0 || (length == 1 && text_is_control(code))) {
        *columns = snprintf(out, 12, "\\x%02x", (unsigned)(unsigned char)text[0]);
        return 1;
    }
    if (text_is_control(code)) {
        *columns = snprintf(out, 12, code > 0xffff ? "\\U%06x" : "\\u%04x", code);
        return length;
    }
    memcpy(out, text, length);
    out[length] = '\0';
    *columns = code >= 0x1100 ? 2 : 1;
    return length;
}

/* Escapes whole code points from `text` on, up to `limit` columns. Returns the bytes read. */
static size_t escape_up_to(char *out, const char *text, size_t size, int limit)
{
    size_t at = 0;
    size_t used = 0;
    int total = 0;
    out[0] = '\0';
    while (at < size) {
        char one[12];
        int columns = 0;
        size_t length = escape_one(text + at, size - at, one, &columns);
        size_t bytes = strlen(one);
        if (total + columns > limit) {
            break;
        }
        memcpy(out + used, one, bytes + 1);
        used += bytes;
        total += columns;
        at += length;
    }
    return at;
}

/* Where the code point that ends before `end` starts. */
static size_t step_back(const char *text, size_t end)
{
    for (size_t length = 1; length <= 4 && length <= end; length++) {
        if (text_decode(text + end - length, length, NULL) == length) {
            return end - length;
        }
    }
    return end - 1;
}

struct text_shown text_escape(const char *text, size_t size)
{
    struct text_shown shown;
    if (escape_up_to(shown.text, text, size, TEXT_SHOWN_COLUMNS) == size) {
        return shown;
    }
    escape_up_to(shown.text, text, size, TEXT_SHOWN_COLUMNS / 2 - 2);
    size_t used = strlen(shown.text);
    memcpy(shown.text + used, "...", 4);
    used += 3;
    size_t start = size;
    int total = 0;
    while (start > 0) {
        char one[12];
        int columns = 0;
        size_t before = step_back(text, start);
        escape_one(text + before, start - before, one, &columns);
        if (total + columns > TEXT_SHOWN_COLUMNS / 2 - 2) {
            break;
        }
        total += columns;
        start = before;
    }
    escape_up_to(shown.text + used, text + start, size - start, TEXT_SHOWN_COLUMNS / 2 - 1);
    return shown;
}

struct text_shown text_show(const char *text)
{
    return text_escape(text ? text : "(none)", text ? strlen(text) : 6);
}

void text_clean(char *text, size_t capacity)
{
    size_t size = strlen(text);
    size_t at = 0;
    char one[12];
    int columns = 0;
    while (at < size) {
        uint32_t code = 0;
        size_t length = text_decode(text + at, size - at, &code);
        if (length != 0 && !text_is_control(code)) {
            at += length;
            continue;
        }
        size_t taken = escape_one(text + at, size - at, one, &columns);
        size_t bytes = strlen(one);
        if (at + bytes + 1 > capacity) {
            text[at] = '\0';
            return;
        }
        size_t rest = size - at - taken;
        size_t room = capacity - 1 - at - bytes;
        rest = rest < room ? rest : room;
        memmove(text + at + bytes, text + at + taken, rest);
        memcpy(text + at, one, bytes);
        at += bytes;
        size = at + rest;
        text[size] = '\0';
    }
}

/* The C locale costs nothing to get: the C library keeps one. */
static locale_t plain_locale(void)
{
    return newlocale(LC_ALL_MASK, "C", (locale_t)0);
}

bool text_to_double(const char *text, double *out)
{
    /* strtod also takes hexadecimal, inf, nan and leading blanks: only decimal digits here. */
    if (text[0] == '\0' || strspn(text, "+-.0123456789eE") != strlen(text)) {
        return false;
    }
    char *end = NULL;
    locale_t plain = plain_locale();
    double value = strtod_l(text, &end, plain);
    freelocale(plain);
    if (*end != '\0' || !isfinite(value)) {
        return false;
    }
    *out = value;
    return true;
}

bool text_to_integer(const char *text, int64_t *out)
{
    const char *digits = text + (text[0] == '-' || text[0] == '+');
    if (digits[0] == '\0' || strspn(digits, "0123456789") != strlen(digits)) {
        return false;
    }
    errno = 0;
    long long value = strtoll(text, NULL, 10);
    if (errno != 0) {
        return false;
    }
    *out = value;
    return true;
}

/* %.Pg with the least P between `least` and `most` that reads back as `value`; `single` asks for
 * the same float. Decimals of up to FLT_DIG (DBL_DIG) digits survive, so trying starts there;
 * below the smallest normal number that is not so, and trying starts at 1. */
static void shortest(char out[TEXT_NUMBER_SIZE], double value, bool single)
{
    bool tiny = fabs(value) < (single ? (double)FLT_MIN : DBL_MIN);
    int least = tiny ? 1 : single ? FLT_DIG : DBL_DIG;
    int most = single ? 9 : 17;
    locale_t plain = plain_locale();
    locale_t old = uselocale(plain);
    for (int digits = least; digits <= most; digits++) {
        snprintf(out, TEXT_NUMBER_SIZE, "%.*g", digits, value);
        double back = strtod(out, NULL);
        /* Readers go through a double or not: both must find the float again. */
        if (single ? ((float)back == (float)value && strtof(out, NULL) == (float)value)
                   : back == value) {
            break;
        }
    }
    uselocale(old);
    freelocale(plain);
}

void text_from_double(char out[TEXT_NUMBER_SIZE], double value)
{
    if (fabs(value) < 1e15 && value == trunc(value)) {
        snprintf(out, TEXT_NUMBER_SIZE, "%.0f", value);
        return;
    }
    shortest(out, value, false);
}

void text_from_float(char out[TEXT_NUMBER_SIZE], float value)
{
    /* Beyond 2^24 a float is an integer whose last digits say nothing. */
    if (fabsf(value) <= 16777216.0f && value == truncf(value)) {
        snprintf(out, TEXT_NUMBER_SIZE, "%.0f", (double)value);
        return;
    }
    shortest(out, (double)value, true);
}
