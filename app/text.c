/* Sanitising untrusted text, and the forms of numbers on screens. */
#include "app/text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "engine/base/text.h"

enum { REPLACEMENT = 0xfffd };

size_t text_next_glyph(const char *text, size_t size, struct text_glyph *glyph)
{
    uint32_t code = 0;
    memset(glyph, 0, sizeof(*glyph));
    glyph->width = 1;
    size_t length = text_decode(text, size, &code);
    if (length == 0) {
        glyph->code[0] = REPLACEMENT;
        glyph->count = 1;
        glyph->odd = true;
        return 1;
    }
    if (code == '\t') {
        glyph->code[0] = ' ';
        glyph->count = 1;
        return length;
    }
    if (code < 0x20 || (code >= 0x7f && code < 0xa0)) {
        glyph->code[0] = '^';
        glyph->code[1] = code == 0x7f ? '?' : (code & 0x1f) + 0x40;
        glyph->count = 2;
        glyph->odd = true;
        return length;
    }
    if (text_is_control(code)) {
        return length;
    }
    glyph->code[0] = code;
    glyph->count = 1;
    glyph->width = text_code_width(code);
    return length;
}

int text_columns(const char *text)
{
    int columns = 0;
    size_t size = strlen(text);
    for (size_t at = 0; at < size;) {
        struct text_glyph glyph;
        at += text_next_glyph(text + at, size - at, &glyph);
        columns += glyph.count * glyph.width;
    }
    return columns;
}

size_t text_wrap(const char *text, size_t size, int width, size_t *next)
{
    int columns = 0;
    size_t at = 0;
    size_t space = 0;
    bool has_space = false;
    while (at < size) {
        if (text[at] == '\n') {
            *next = at + 1;
            return at;
        }
        struct text_glyph glyph;
        size_t used = text_next_glyph(text + at, size - at, &glyph);
        int wide = glyph.count * glyph.width;
        if (text[at] == ' ') {
            space = at;
            has_space = true;
        }
        if (columns + wide > width) {
            if (has_space && space > 0) {
                *next = space + 1;
                return space;
            }
            /* A single glyph wider than the line is passed over, or nothing would ever move. */
            *next = at > 0 ? at : used;
            return at;
        }
        columns += wide;
        at += used;
    }
    *next = size;
    return size;
}

struct text_number text_bytes(double bytes)
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB" };
    struct text_number out = { "-" };
    if (!(bytes >= 0) || !isfinite(bytes)) {
        return out;
    }
    size_t unit = 0;
    while (bytes >= 999.5 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        bytes /= 1024;
        unit++;
    }
    int digits = unit == 0 || bytes >= 99.95 ? 0 : bytes >= 9.995 ? 1 : 2;
    snprintf(out.text, sizeof(out.text), "%.*f %s", digits, fmin(bytes, 99999), units[unit]);
    return out;
}

struct text_number text_count(double value)
{
    static const char *const units[] = { "", "k", "M", "G", "T" };
    struct text_number out = { "-" };
    if (!isfinite(value) || fabs(value) >= 1e18) {
        return out;
    }
    if (fabs(value) >= 1000 && fabs(value) < 9999.5) {
        snprintf(out.text, sizeof(out.text), "%.0f", value);
        return out;
    }
    size_t unit = 0;
    while (fabs(value) >= 999.5 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        value /= 1000;
        unit++;
    }
    int digits = fabs(value) >= 99.95 || (unit == 0 && value == floor(value)) ? 0 : 1;
    value = fmax(-99999, fmin(value, 99999));
    snprintf(out.text, sizeof(out.text), "%.*f%s", digits, value, units[unit]);
    return out;
}

struct text_number text_duration(double seconds)
{
    struct text_number out = { "-" };
    if (!(seconds >= 0) || seconds > 1e9) {
        return out;
    }
    long long whole = (long long)(seconds + 0.5);
    if (whole < 86400) {
        snprintf(out.text, sizeof(out.text), "%lld:%02lld:%02lld", whole / 3600, whole / 60 % 60,
                 whole % 60);
    } else {
        snprintf(out.text, sizeof(out.text), "%lldd %02lld:%02lld", whole / 86400,
                 whole / 3600 % 24, whole / 60 % 60);
    }
    return out;
}

struct text_number text_loss(double value)
{
    struct text_number out = { "-" };
    if (isnan(value)) {
        snprintf(out.text, sizeof(out.text), "nan");
    } else if (isinf(value)) {
        snprintf(out.text, sizeof(out.text), "%s", value > 0 ? "inf" : "-inf");
    } else if (fabs(value) >= 1e5) {
        snprintf(out.text, sizeof(out.text), "%.2e", value);
    } else {
        int digits = fabs(value) >= 1000 ? 0 : fabs(value) >= 100 ? 1 : fabs(value) >= 10 ? 2 : 3;
        snprintf(out.text, sizeof(out.text), "%.*f", digits, value);
    }
    return out;
}

struct text_number text_value(double value)
{
    struct text_number out = { "-" };
    if (isfinite(value)) {
        if (value != 0 && (fabs(value) < 1e-3 || fabs(value) >= 1e6)) {
            snprintf(out.text, sizeof(out.text), "%.2e", value);
        } else {
            snprintf(out.text, sizeof(out.text), "%.3g", value);
        }
    }
    return out;
}

struct text_number text_percent(double share)
{
    struct text_number out = { "-" };
    if (isfinite(share) && fabs(share) < 100) {
        snprintf(out.text, sizeof(out.text), "%.1f%%", share * 100);
    }
    return out;
}

struct text_number text_clock(double unix_seconds)
{
    struct text_number out = { "--:--:--" };
    if (!(unix_seconds >= 0) || unix_seconds > 1e12) {
        return out;
    }
    time_t whole = (time_t)unix_seconds;
    struct tm parts;
    if (gmtime_r(&whole, &parts)) {
        strftime(out.text, sizeof(out.text), "%H:%M:%S", &parts);
    }
    return out;
}
