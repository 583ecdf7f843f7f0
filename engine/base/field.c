/* Settings to and from text. */
#include "engine/base/field.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/text.h"
#include "engine/base/xalloc.h"

static void *place_of(const struct field *field, void *base)
{
    return (char *)base + field->offset;
}

static const void *place_in(const struct field *field, const void *base)
{
    return (const char *)base + field->offset;
}

/* Binary and decimal units of bytes; the binary ones that field_text writes come first, largest
 * first. */
static const struct {
    const char *suffix;
    double bytes;
} byte_units[] = {
    { "TiB", 0x1p40 }, { "GiB", 0x1p30 }, { "MiB", 0x1p20 }, { "KiB", 0x1p10 }, { "TB", 1e12 },
    { "GB", 1e9 },     { "MB", 1e6 },     { "kB", 1e3 },     { "KB", 1e3 },     { "B", 1.0 },
};
enum { BINARY_UNITS = 4, BYTE_UNITS = sizeof byte_units / sizeof byte_units[0] };

/* A bound as a person writes it: settings are whole below 2^53. */
static char *bound_text(const struct field *field, double bound)
{
    char text[TEXT_NUMBER_SIZE];
    if (field->type == FIELD_BYTES && bound > 0.0) {
        for (size_t i = 0; i < BINARY_UNITS; i++) {
            double count = bound / byte_units[i].bytes;
            if (count >= 1.0 && count == trunc(count)) {
                return xasprintf("%.0f%s", count, byte_units[i].suffix);
            }
        }
    }
    text_from_double(text, bound);
    return xstrdup(text);
}

static char *choices_text(const struct field *field)
{
    struct buffer out = { 0 };
    buffer_append(&out, "", 0);
    for (size_t i = 0; field->choices[i]; i++) {
        buffer_printf(&out, "%s%s", i ? "|" : "", field->choices[i]);
    }
    return out.text;
}

char *field_range(const struct field *field)
{
    switch (field->type) {
    case FIELD_BOOL:
        return xstrdup("true|false");
    case FIELD_CHOICE:
        return choices_text(field);
    case FIELD_STRING:
        return xstrdup(field->unit && field->unit[0] ? field->unit : "a text");
    case FIELD_INTEGER:
    case FIELD_NUMBER:
    case FIELD_BYTES:
        break;
    }
    char *low = bound_text(field, field->minimum);
    char *high = isinf(field->maximum) ? NULL : bound_text(field, field->maximum);
    const char *above = field->exclusive_minimum ? "above " : "";
    char *text = high ? xasprintf("%s%s .. %s", above, low, high)
                      : xasprintf("%s%s%s", above, low, above[0] ? "" : " or more");
    free(low);
    free(high);
    return text;
}

static int refuse(const struct field *field, const char *text, struct error *err)
{
    char *range = field_range(field);
    fail(err, ERROR_USAGE, "%s must be %s, found \"%s\"", field->key, range, text_show(text).text);
    if (field->type == FIELD_BYTES) {
        hint(err, "write bytes as 24GiB, 512MB or 1048576");
    }
    if (field->type == FIELD_CHOICE) {
        size_t count = 0;
        while (field->choices[count]) {
            count++;
        }
        const char *near = nearest_name(text, field->choices, count);
        if (near) {
            hint(err, "did you mean %s?", near);
        }
    }
    free(range);
    return -1;
}

static bool within(const struct field *field, double value)
{
    bool above = field->exclusive_minimum ? value > field->minimum : value >= field->minimum;
    return above && value <= field->maximum;
}

/* "24GiB", "1.5GB", "1048576". The number must come to whole bytes. */
static bool parse_bytes(const char *text, double *out)
{
    char number[TEXT_NUMBER_SIZE];
    size_t digits = strspn(text, "0123456789.");
    const char *suffix = text + digits;
    double unit = suffix[0] == '\0' ? 1.0 : 0.0;
    for (size_t i = 0; i < BYTE_UNITS; i++) {
        if (strcmp(suffix, byte_units[i].suffix) == 0) {
            unit = byte_units[i].bytes;
        }
    }
    if (digits >= sizeof number || unit == 0.0) {
        return false;
    }
    memcpy(number, text, digits);
    number[digits] = '\0';
    double value = 0.0;
    if (!text_to_double(number, &value) || value * unit >= 0x1p53) {
        return false;
    }
    *out = round(value * unit);
    return true;
}

static int set_whole(const struct field *field, void *base, const char *text, struct error *err)
{
    int64_t value = 0;
    double bytes = 0.0;
    bool good;
    if (field->type == FIELD_BYTES) {
        good = parse_bytes(text, &bytes);
        value = (int64_t)bytes;
    } else {
        good = text_to_integer(text, &value) && value > -(1LL << 53) && value < 1LL << 53;
    }
    if (!good || !within(field, (double)value)) {
        return refuse(field, text, err);
    }
    memcpy(place_of(field, base), &value, sizeof value);
    return 0;
}

static int set_choice(const struct field *field, void *base, const char *text, struct error *err)
{
    for (int i = 0; field->choices[i]; i++) {
        if (strcmp(field->choices[i], text) == 0) {
            memcpy(place_of(field, base), &i, sizeof i);
            return 0;
        }
    }
    return refuse(field, text, err);
}

static int set_bool(const struct field *field, void *base, const char *text, struct error *err)
{
    bool value = strcmp(text, "true") == 0;
    if (!value && strcmp(text, "false") != 0) {
        return refuse(field, text, err);
    }
    memcpy(place_of(field, base), &value, sizeof value);
    return 0;
}

static int set_number(const struct field *field, void *base, const char *text, struct error *err)
{
    double value = 0.0;
    if (!text_to_double(text, &value) || !within(field, value)) {
        return refuse(field, text, err);
    }
    memcpy(place_of(field, base), &value, sizeof value);
    return 0;
}

int field_set(const struct field *field, void *base, const char *text, struct error *err)
{
    switch (field->type) {
    case FIELD_INTEGER:
    case FIELD_BYTES:
        return set_whole(field, base, text, err);
    case FIELD_NUMBER:
        return set_number(field, base, text, err);
    case FIELD_BOOL:
        return set_bool(field, base, text, err);
    case FIELD_CHOICE:
        return set_choice(field, base, text, err);
    case FIELD_STRING: {
        char **place = place_of(field, base);
        char *copy = xstrdup(text); /* first: `text` may be the old value */
        free(*place);
        *place = copy;
        return 0;
    }
    }
    BUG("%s has type %d", field->key, (int)field->type);
}

char *field_text(const struct field *field, const void *base)
{
    const void *place = place_in(field, base);
    int64_t whole = 0;
    double number = 0.0;
    char text[TEXT_NUMBER_SIZE];
    switch (field->type) {
    case FIELD_INTEGER:
        memcpy(&whole, place, sizeof whole);
        return xasprintf("%lld", (long long)whole);
    case FIELD_BYTES:
        memcpy(&whole, place, sizeof whole);
        return bound_text(field, (double)whole);
    case FIELD_NUMBER:
        memcpy(&number, place, sizeof number);
        text_from_double(text, number);
        return xstrdup(text);
    case FIELD_BOOL:
        return xstrdup(*(const bool *)place ? "true" : "false");
    case FIELD_CHOICE:
        return xstrdup(field->choices[*(const int *)place]);
    case FIELD_STRING: {
        const char *string = *(char *const *)place;
        return xstrdup(string ? string : "");
    }
    }
    BUG("%s has type %d", field->key, (int)field->type);
}

void field_release(const struct field *field, void *base)
{
    if (field->type == FIELD_STRING) {
        char **place = place_of(field, base);
        free(*place);
        *place = NULL;
    }
}
