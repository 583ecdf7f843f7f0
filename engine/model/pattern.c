/* Fitting patterns to the names of parameters, word by word. */
#include "engine/model/pattern.h"

#include <stdint.h>
#include <string.h>

#include "engine/base/text.h"

struct word {
    const char *text;
    size_t size;
};

/* The word at `at`, which ends at a point or at `end`. */
static struct word word_at(const char *at, const char *end)
{
    const char *point = memchr(at, '.', (size_t)(end - at));
    return (struct word){ at, (size_t)((point ? point : end) - at) };
}

/* Where the next word begins, or NULL. */
static const char *after(struct word word, const char *end)
{
    const char *next = word.text + word.size;
    return next < end ? next + 1 : NULL;
}

static bool read_number(const char *text, size_t size, int64_t *out)
{
    char digits[20];
    if (size == 0 || size >= sizeof digits || strspn(text, "0123456789") < size) {
        return false;
    }
    memcpy(digits, text, size);
    digits[size] = '\0';
    return text_to_integer(digits, out);
}

static bool in_range(struct word range, struct word word)
{
    int64_t first;
    int64_t last;
    int64_t value;
    const char *dash = memchr(range.text, '-', range.size);
    if (dash == NULL) {
        return false;
    }
    size_t before = (size_t)(dash - range.text);
    return read_number(range.text, before, &first) &&
           read_number(dash + 1, range.size - before - 1, &last) &&
           read_number(word.text, word.size, &value) && value >= first && value <= last;
}

/* '*' stands for any letters: the last star takes what a mismatch leaves over. */
static bool letters_fit(struct word pattern, struct word word)
{
    size_t p = 0;
    size_t w = 0;
    size_t star = SIZE_MAX;
    size_t taken = 0;
    while (w < word.size) {
        if (p < pattern.size && pattern.text[p] == '*') {
            star = p++;
            taken = w;
        } else if (p < pattern.size && pattern.text[p] == word.text[w]) {
            p++;
            w++;
        } else if (star != SIZE_MAX) {
            p = star + 1;
            w = ++taken;
        } else {
            return false;
        }
    }
    while (p < pattern.size && pattern.text[p] == '*') {
        p++;
    }
    return p == pattern.size;
}

/* Whether the words from `p` on fit those from `n` on. Names have few words, so trying every length
 * of a lone star is cheap. */
static bool words_fit(const char *p, const char *pattern_end, const char *n, const char *name_end)
{
    while (p != NULL) {
        if (n == NULL) {
            return false;
        }
        struct word pattern = word_at(p, pattern_end);
        struct word word = word_at(n, name_end);
        p = after(pattern, pattern_end);
        n = after(word, name_end);
        if (pattern.size == 1 && pattern.text[0] == '*') {
            if (p == NULL) {
                return true;
            }
            for (; n != NULL; n = after(word_at(n, name_end), name_end)) {
                if (words_fit(p, pattern_end, n, name_end)) {
                    return true;
                }
            }
            return false;
        }
        if (!letters_fit(pattern, word) && !in_range(pattern, word)) {
            return false;
        }
    }
    return true;
}

static void trim(const char **text, size_t *size)
{
    while (*size > 0 && (*text)[0] == ' ') {
        (*text)++;
        (*size)--;
    }
    while (*size > 0 && (*text)[*size - 1] == ' ') {
        (*size)--;
    }
}

bool pattern_next(const char **rest, struct pattern *out)
{
    if (*rest == NULL || **rest == '\0') {
        return false;
    }
    const char *text = *rest;
    size_t size = strcspn(text, ",");
    *rest = text[size] == ',' ? text + size + 1 : NULL;
    const char *equals = memchr(text, '=', size);
    *out = (struct pattern){ .text = text, .size = equals ? (size_t)(equals - text) : size };
    if (equals) {
        out->value = equals + 1;
        out->value_size = size - out->size - 1;
        trim(&out->value, &out->value_size);
    }
    trim(&out->text, &out->size);
    return true;
}

bool pattern_fits(const struct pattern *pattern, const char *name)
{
    const char *pattern_end = pattern->text + pattern->size;
    const char *name_end = name + strlen(name);
    if (pattern->size == 0) {
        return false;
    }
    if (pattern->size == 3 && memcmp(pattern->text, "all", 3) == 0) {
        return true;
    }
    for (const char *n = name; n != NULL; n = after(word_at(n, name_end), name_end)) {
        if (words_fit(pattern->text, pattern_end, n, name_end)) {
            return true;
        }
    }
    return false;
}

bool pattern_list_fits(const char *list, const char *name)
{
    struct pattern pattern;
    while (pattern_next(&list, &pattern)) {
        if (pattern_fits(&pattern, name)) {
            return true;
        }
    }
    return false;
}

double pattern_list_number(const char *list, const char *name, double fallback)
{
    struct pattern pattern;
    while (pattern_next(&list, &pattern)) {
        char text[40];
        double value;
        if (pattern_fits(&pattern, name)) {
            if (pattern.value == NULL || pattern.value_size >= sizeof text) {
                return fallback;
            }
            memcpy(text, pattern.value, pattern.value_size);
            text[pattern.value_size] = '\0';
            return text_to_double(text, &value) ? value : fallback;
        }
    }
    return fallback;
}
