/* Choices among the algorithms of a matrix product, and their text. */
#include "kernels/cuda/tuning.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A line of 13 decimal and 8 hexadecimal numbers fits. */
enum { LINE_SIZE = 512, ENTRIES_MAX = 65536 };
static const char title[] = "windrow products 1\n";
static const double noise = 0.02;

_Static_assert(sizeof(struct product_key) == TUNING_KEY_NUMBERS * sizeof(int64_t),
               "the numbers of a key are counted");

void tuning_init(struct tuning *t, const char *device, int multiprocessors, size_t version)
{
    memset(t, 0, sizeof *t);
    snprintf(t->device, sizeof t->device, "%.120s, %d multiprocessors, cuBLASLt %zu", device,
             multiprocessors, version);
}

void tuning_free(struct tuning *t)
{
    free(t->entry);
    t->entry = NULL;
    t->count = 0;
    t->capacity = 0;
}

const struct tuning_entry *tuning_find(const struct tuning *t, const struct product_key *key)
{
    for (int i = 0; i < t->count; i++) {
        if (memcmp(&t->entry[i].key, key, sizeof *key) == 0) {
            return &t->entry[i];
        }
    }
    return NULL;
}

int tuning_put(struct tuning *t, const struct tuning_entry *entry)
{
    for (int i = 0; i < t->count; i++) {
        if (memcmp(&t->entry[i].key, &entry->key, sizeof entry->key) == 0) {
            t->entry[i] = *entry;
            return 0;
        }
    }
    if (t->count == t->capacity) {
        int capacity = t->capacity == 0 ? 64 : 2 * t->capacity;
        struct tuning_entry *grown = realloc(t->entry, (size_t)capacity * sizeof *grown);
        if (grown == NULL) {
            return -1;
        }
        t->entry = grown;
        t->capacity = capacity;
    }
    t->entry[t->count++] = *entry;
    return 0;
}

int tuning_choose(const double *seconds, int count)
{
    int best = -1;
    for (int i = 0; i < count; i++) {
        if (seconds[i] > 0.0 && (best < 0 || seconds[i] < seconds[best])) {
            best = i;
        }
    }
    for (int i = 0; i < best; i++) {
        if (seconds[i] > 0.0 && seconds[i] <= seconds[best] * (1.0 + noise)) {
            return i;
        }
    }
    return best;
}

/* ---- text ------------------------------------------------------------------------------------ */

static uint64_t checksum(const char *text, size_t size)
{
    uint64_t sum = 0xcbf29ce484222325u;
    for (size_t i = 0; i < size; i++) {
        sum = (sum ^ (unsigned char)text[i]) * 0x100000001b3u;
    }
    return sum;
}

static size_t put_entry(char *text, const struct tuning_entry *entry)
{
    int64_t number[TUNING_KEY_NUMBERS];
    memcpy(number, &entry->key, sizeof number);
    size_t used = (size_t)snprintf(text, LINE_SIZE, "p");
    for (int i = 0; i < TUNING_KEY_NUMBERS; i++) {
        used += (size_t)snprintf(text + used, LINE_SIZE - used, " %lld", (long long)number[i]);
    }
    for (int i = 0; i < TUNING_WORDS; i++) {
        used += (size_t)snprintf(text + used, LINE_SIZE - used, " %llx",
                                 (unsigned long long)entry->algorithm[i]);
    }
    used += (size_t)snprintf(text + used, LINE_SIZE - used, "\n");
    return used;
}

char *tuning_text(const struct tuning *t)
{
    size_t size = ((size_t)t->count + 4) * LINE_SIZE;
    char *text = t->count > 0 ? malloc(size) : NULL;
    if (text == NULL) {
        return NULL;
    }
    size_t used = (size_t)snprintf(text, size, "%son %s\n", title, t->device);
    for (int i = 0; i < t->count; i++) {
        used += put_entry(text + used, &t->entry[i]);
    }
    uint64_t sum = checksum(text, used);
    snprintf(text + used, size - used, "end %d %llx\n", t->count, (unsigned long long)sum);
    return text;
}

/* One number followed by `after`; moves *at past both. */
static bool take_number(const char **at, int base, char after, uint64_t *number)
{
    char *end = NULL;
    if (**at == ' ') {
        return false;
    }
    errno = 0;
    *number = strtoull(*at, &end, base);
    if (end == *at || errno != 0 || *end != after) {
        return false;
    }
    *at = end + 1;
    return true;
}

static bool take_entry(const char **at, struct tuning_entry *entry)
{
    int64_t number[TUNING_KEY_NUMBERS];
    uint64_t value;
    *at += 2; /* "p " */
    for (int i = 0; i < TUNING_KEY_NUMBERS; i++) {
        if (!take_number(at, 10, ' ', &value)) {
            return false;
        }
        number[i] = (int64_t)value;
    }
    for (int i = 0; i < TUNING_WORDS; i++) {
        if (!take_number(at, 16, i + 1 < TUNING_WORDS ? ' ' : '\n', &entry->algorithm[i])) {
            return false;
        }
    }
    memcpy(&entry->key, number, sizeof number);
    return true;
}

/* The entries of a text whose first lines have been read, and its end. */
static bool take_entries(struct tuning *found, const char *text, const char *at)
{
    struct tuning_entry entry;
    uint64_t count;
    uint64_t sum;
    while (strncmp(at, "p ", 2) == 0) {
        if (found->count == ENTRIES_MAX || !take_entry(&at, &entry) ||
            tuning_put(found, &entry) != 0) {
            return false;
        }
    }
    uint64_t expected = checksum(text, (size_t)(at - text));
    if (strncmp(at, "end ", 4) != 0) {
        return false;
    }
    at += 4;
    return take_number(&at, 10, ' ', &count) && take_number(&at, 16, '\n', &sum) && *at == '\0' &&
           count == (uint64_t)found->count && sum == expected;
}

int tuning_parse(struct tuning *t, const char *text, char *why, size_t why_size)
{
    struct tuning found = { .entry = NULL };
    size_t title_size = sizeof title - 1;
    size_t device_size = strlen(t->device);
    if (strncmp(text, title, title_size) != 0 || strncmp(text + title_size, "on ", 3) != 0) {
        snprintf(why, why_size, "it is not a list of matrix products");
        return -1;
    }
    const char *device = text + title_size + 3;
    if (strncmp(device, t->device, device_size) != 0 || device[device_size] != '\n') {
        snprintf(why, why_size, "it was made on another device or by another library");
        return -1;
    }
    bool good = take_entries(&found, text, device + device_size + 1);
    for (int i = 0; good && i < found.count; i++) {
        good = tuning_put(t, &found.entry[i]) == 0;
    }
    tuning_free(&found);
    if (!good) {
        snprintf(why, why_size, "it is damaged");
        return -1;
    }
    return 0;
}
