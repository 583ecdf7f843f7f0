/*
 * Lines of events, read fast: a viewer that opens a run of a million steps reads them all.
 *
 * Only the layout that event_write makes is taken: no blanks, keys in the order of the table, texts
 * without escapes, numbers of at most 19 digits. Everything else is left to the general reader.
 *
 * Numbers: m * 10^e with m < 2^64 and |e| <= 27 are both exact in the 64-bit significand of an x87
 * extended number, so that one multiplication or division of them is correctly rounded to 64 bits;
 * rounding that to 53 gives the nearest double unless the 11 bits that fall away are so near to a
 * half that the first rounding could have moved them across it (W. D. Clinger, "How to read
 * floating point numbers accurately", 1990, is the idea with a double). Those go to strtod.
 */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/run/event_rows.h"

struct scanner {
    const char *at;
    const char *end;
};

/* What must come next, comes next. */
static bool take(struct scanner *scanner, const char *text, size_t size)
{
    if ((size_t)(scanner->end - scanner->at) < size || memcmp(scanner->at, text, size) != 0) {
        return false;
    }
    scanner->at += size;
    return true;
}

static bool take_char(struct scanner *scanner, char wanted)
{
    if (scanner->at < scanner->end && *scanner->at == wanted) {
        scanner->at++;
        return true;
    }
    return false;
}

static bool is_digit(const struct scanner *scanner)
{
    return scanner->at < scanner->end && (unsigned char)(*scanner->at - '0') < 10;
}

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
/* How many of the eight bytes at `at` are digits before the first that is none, and their number:
 * pairs, fours and the eight are summed within one word. */
static inline int up_to_eight(const char *at, uint64_t *value)
{
    uint64_t word;
    memcpy(&word, at, sizeof(word));
    word ^= UINT64_C(0x3030303030303030);
    /* The high bit of a byte says that it is no digit; what a carry does to later ones is all the
     * same. */
    uint64_t other = ((word + UINT64_C(0x7676767676767676)) | word) & UINT64_C(0x8080808080808080);
    int count = other == 0 ? 8 : __builtin_ctzll(other) / 8;
    /* Zeros move in before them. */
    word = count == 0 ? 0 : word << (64 - 8 * count);
    word = (word & UINT64_C(0x0f0f0f0f0f0f0f0f)) * 2561 >> 8;
    word = (word & UINT64_C(0x00ff00ff00ff00ff)) * 6553601 >> 16;
    *value = (word & UINT64_C(0x0000ffff0000ffff)) * UINT64_C(42949672960001) >> 32;
    return count;
}
#else
static inline int up_to_eight(const char *at, uint64_t *value)
{
    *value = (uint64_t)(*at - '0');
    return (unsigned char)(*at - '0') < 10 ? 1 : 0;
}
#endif

/* Digits after the ones that were taken; their number is added to `count`. */
static inline uint64_t take_digits(struct scanner *scanner, uint64_t value, int *count)
{
    static const uint64_t powers[9] = { 1,      10,      100,      1000,     10000,
                                        100000, 1000000, 10000000, 100000000 };
    const char *at = scanner->at;
    int taken = *count;
    while (taken <= 11 && scanner->end - at >= 8) {
        uint64_t next;
        int some = up_to_eight(at, &next);
        value = value * powers[some] + next;
        at += some;
        taken += some;
        if (some < 8) {
            break;
        }
    }
    while (at < scanner->end && (unsigned char)(*at - '0') < 10 && taken < 20) {
        value = value * 10 + (uint64_t)(*at++ - '0');
        taken++;
    }
    scanner->at = at;
    *count = taken;
    return value;
}

static bool take_integer(struct scanner *scanner, int64_t *out)
{
    bool negative = take_char(scanner, '-');
    const char *begin = scanner->at;
    int count = 0;
    int64_t value = (int64_t)take_digits(scanner, 0, &count);
    bool good = count > 0 && count <= 16 && (*begin != '0' || count == 1) &&
                value <= ((int64_t)1 << 53) && !(negative && value == 0);
    *out = negative ? -value : value;
    /* With a fraction or an exponent it may still be whole. */
    return good && (scanner->at == scanner->end ||
                    (*scanner->at != '.' && *scanner->at != 'e' && *scanner->at != 'E'));
}

#if LDBL_MANT_DIG == 64
/* 10^0 .. 10^27 are exact: 5^27 < 2^64. */
static bool scale(uint64_t digits, int exponent, double *out)
{
    static const long double powers[28] = { 1e0L,  1e1L,  1e2L,  1e3L,  1e4L,  1e5L,  1e6L,
                                            1e7L,  1e8L,  1e9L,  1e10L, 1e11L, 1e12L, 1e13L,
                                            1e14L, 1e15L, 1e16L, 1e17L, 1e18L, 1e19L, 1e20L,
                                            1e21L, 1e22L, 1e23L, 1e24L, 1e25L, 1e26L, 1e27L };
    if (exponent < -27 || exponent > 27) {
        return false;
    }
    if (digits <= (uint64_t)1 << DBL_MANT_DIG && exponent >= -22 && exponent <= 22) {
        /* Both are doubles: one division or multiplication rounds once. */
        double power = (double)powers[exponent < 0 ? -exponent : exponent];
        *out = exponent < 0 ? (double)digits / power : (double)digits * power;
        return true;
    }
    long double value = exponent < 0 ? (long double)digits / powers[-exponent]
                                     : (long double)digits * powers[exponent];
    uint64_t bits;
    memcpy(&bits, &value, sizeof(bits)); /* the significand */
    unsigned away = (unsigned)(bits & 0x7ff);
    *out = (double)value;
    return away < 0x3fe || away > 0x402;
}
#else
static bool scale(uint64_t digits, int exponent, double *out)
{
    (void)digits;
    (void)exponent;
    (void)out;
    return false;
}
#endif

/* The digits behind the point, after `digits` that stand before it. Zeros at the very beginning of
 * the number only move the point. Returns how many places there are. */
static inline int take_fraction(struct scanner *scanner, uint64_t *digits, int *count)
{
    const char *first = scanner->at;
    if (*digits == 0) {
        *count = 0;
        while (scanner->at < scanner->end && *scanner->at == '0') {
            scanner->at++;
        }
    }
    *digits = take_digits(scanner, *digits, count);
    return (int)(scanner->at - first);
}

static bool take_double(struct scanner *scanner, double *out)
{
    const char *begin = scanner->at;
    bool negative = take_char(scanner, '-');
    const char *first = scanner->at;
    int count = 0;
    uint64_t digits = take_digits(scanner, 0, &count);
    int places = 0;
    int exponent = 0;
    if (count == 0 || (*first == '0' && count > 1)) {
        return false;
    }
    if (take_char(scanner, '.') && (places = take_fraction(scanner, &digits, &count)) == 0) {
        return false;
    }
    if (take_char(scanner, 'e') || take_char(scanner, 'E')) {
        bool down = take_char(scanner, '-');
        int more = 0;
        if (!down) {
            take_char(scanner, '+');
        }
        exponent = (int)take_digits(scanner, 0, &more);
        if (more == 0 || more > 3) {
            return false;
        }
        exponent = down ? -exponent : exponent;
    }
    if (is_digit(scanner)) {
        return false;
    }
    double value = 0;
    if (count > 19 || !scale(digits, exponent - places, &value)) {
        /* strtod needs an end that is no digit: lines go on after every number. */
        char *end = NULL;
        if (scanner->at == scanner->end) {
            return false;
        }
        *out = strtod(begin, &end);
        return end == scanner->at && isfinite(*out);
    }
    *out = negative ? -value : value;
    return true;
}

/* Plain ASCII without escapes. */
static bool take_text(struct scanner *scanner, char **out)
{
    if (!take_char(scanner, '"')) {
        return false;
    }
    const char *begin = scanner->at;
    while (scanner->at < scanner->end && *scanner->at != '"') {
        unsigned char byte = (unsigned char)*scanner->at++;
        if (byte < 0x20 || byte >= 0x7f || byte == '\\') {
            return false;
        }
    }
    const char *end = scanner->at;
    if (!take_char(scanner, '"')) {
        return false;
    }
    *out = xstrndup(begin, (size_t)(end - begin));
    return true;
}

static bool take_categories(struct scanner *scanner, int64_t *bytes)
{
    for (int i = 0; i < MEMORY_CATEGORY_COUNT; i++) {
        const char *name = memory_category_names[i];
        if (!take(scanner, i ? ",\"" : "{\"", 2) || !take(scanner, name, strlen(name)) ||
            !take(scanner, "\":", 2) || !take_integer(scanner, &bytes[i])) {
            return false;
        }
    }
    return take_char(scanner, '}');
}

static bool take_histogram(struct scanner *scanner, int64_t *bins)
{
    for (int i = 0; i < EVENT_HISTOGRAM_BINS; i++) {
        if (!take_char(scanner, i ? ',' : '[') || !take_integer(scanner, &bins[i])) {
            return false;
        }
    }
    return take_char(scanner, ']');
}

static bool take_curve(struct scanner *scanner, double *points)
{
    for (int i = 0; i < EVENT_CURVE_POINTS; i++) {
        if (!take_char(scanner, i ? ',' : '[') || !take_double(scanner, &points[i])) {
            return false;
        }
    }
    return take_char(scanner, ']');
}

static bool take_value(struct scanner *scanner, const struct event_row *row, struct event *event)
{
    void *place = (char *)event + row->offset;
    double value = 0;
    switch (row->type) {
    case ROW_TEXT:
        return take_text(scanner, place);
    case ROW_FLOAT:
        if (!take_double(scanner, &value)) {
            return false;
        }
        *(float *)place = (float)value;
        return true;
    case ROW_DOUBLE:
        return take_double(scanner, place);
    case ROW_INTEGER:
        return take_integer(scanner, place);
    case ROW_FLAG:
        *(bool *)place = true;
        return take(scanner, "true", 4);
    case ROW_CATEGORIES:
        return take_categories(scanner, place);
    case ROW_HISTOGRAM:
        return take_histogram(scanner, place);
    case ROW_CURVE:
        return take_curve(scanner, place);
    case ROW_OBJECT:
    case ROW_PHASES:
    case ROW_LARGEST:
    case ROW_RANKS:
        break; /* there are few of them */
    }
    return false;
}

/* ,"key":value for the rows that are there, in their order. */
static bool take_rows(struct scanner *scanner, struct event *event)
{
    size_t row = event_row_first(event->kind);
    while (take(scanner, ",\"", 2)) {
        const char *key = scanner->at;
        const char *quote = memchr(key, '"', (size_t)(scanner->end - key));
        size_t length = quote ? (size_t)(quote - key) : 0;
        while (row < event_row_count && event_rows[row].kind == event->kind &&
               (strlen(event_rows[row].key) != length ||
                memcmp(event_rows[row].key, key, length) != 0)) {
            row++;
        }
        if (length == 0 || row == event_row_count || event_rows[row].kind != event->kind) {
            return false;
        }
        scanner->at = quote + 1;
        if (!take_char(scanner, ':') || !take_value(scanner, &event_rows[row], event)) {
            return false;
        }
        row++;
    }
    return take_char(scanner, '}') && (scanner->at == scanner->end ||
                                       (take_char(scanner, '\n') && scanner->at == scanner->end));
}

bool event_scan(const char *line, size_t size, struct event *event)
{
    struct scanner scanner = { line, line + size };
    if (!take(&scanner, "{\"event\":\"", 10)) {
        return false;
    }
    for (int kind = 0; kind < EVENT_KIND_COUNT; kind++) {
        size_t length = strlen(event_kind_names[kind]);
        if (!take(&scanner, event_kind_names[kind], length)) {
            continue;
        }
        if (scanner.at == scanner.end || *scanner.at != '"') {
            scanner.at -= length; /* another kind begins with this name */
            continue;
        }
        event_init(event, (enum event_kind)kind);
        if (!take(&scanner, "\",\"time\":", 9) || !take_double(&scanner, &event->time)) {
            return false;
        }
        if (take(&scanner, ",\"step\":", 8) && !take_integer(&scanner, &event->step)) {
            return false;
        }
        if (take_rows(&scanner, event)) {
            return true;
        }
        event_free(event);
        return false;
    }
    return false;
}
