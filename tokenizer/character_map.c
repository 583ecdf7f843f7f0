/*
 * Walks the compiled character map of a SentencePiece normalizer (layout in model_check.h).
 *
 * The trie is a double array as Darts-clone writes it: a unit holds a label (low 8 bits), "has a
 * value" (bit 8), an offset (bits 10 to 30, shifted left by 8 more if bit 9 is set); a unit with
 * bit 31 set is a value. From a node with base b, byte c leads to unit b ^ c if that unit's label
 * is c; the base of the next node is (b ^ c) ^ offset; its value, if it has one, is the unit at its
 * base.
 */
#include "tokenizer/model_check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer/unicode.h"

enum {
    MAP_VALUES_LIMIT = 32, /* prefixes of one text the library makes room for */
    MAP_DEPTH_LIMIT = 256, /* bytes of a key */
};

struct map {
    const uint8_t *trie;
    size_t units;
    const uint8_t *strings;
    size_t strings_size;
    /* By base: 0 not seen, 1 on the path now, 2 + the most values on a way down from it. */
    uint8_t *seen;
    const char *fault;
};

static uint32_t map_unit(const struct map *map, size_t index)
{
    const uint8_t *at = map->trie + index * 4;
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static size_t map_offset(uint32_t unit)
{
    return (size_t)(unit >> 10) << ((unit & (1u << 9)) >> 6);
}

static bool map_value_is_good(const struct map *map, size_t base)
{
    size_t value = map_unit(map, base) & 0x7FFFFFFFu;
    return value < map->strings_size && (map->strings[value] & 0xC0) != 0x80;
}

/* The most values on any way down from `base`, or -1 with a fault. */
static int map_walk(struct map *map, size_t base, int depth)
{
    if ((base | 0xFF) >= map->units) {
        map->fault = "its trie leads outside itself";
        return -1;
    }
    if (map->seen[base] >= 2) {
        return map->seen[base] - 2;
    }
    if (map->seen[base] == 1 || depth > MAP_DEPTH_LIMIT) {
        map->fault = "its trie has a path without end";
        return -1;
    }
    map->seen[base] = 1;
    int most = 0;
    for (uint32_t c = 0; c < 256; c++) {
        uint32_t unit = map_unit(map, base ^ c);
        if ((unit & 0x800000FFu) != c) {
            continue;
        }
        size_t next = (base ^ c) ^ map_offset(unit);
        int below = map_walk(map, next, depth + 1);
        if (below < 0) {
            return -1;
        }
        if ((unit >> 8 & 1) != 0) {
            below++;
            if (!map_value_is_good(map, next)) {
                map->fault = "a value of its trie is no offset of a string";
                return -1;
            }
        }
        most = below > most ? below : most;
        if (most > MAP_VALUES_LIMIT) {
            map->fault = "more than 32 of its keys start alike";
            return -1;
        }
    }
    map->seen[base] = (uint8_t)(most + 2);
    return most;
}

int model_check_character_map(const uint8_t *bytes, size_t size, char *why, size_t why_size)
{
    if (size == 0) {
        return 0;
    }
    size_t trie_size = size < 4 ? 0
                                : (size_t)bytes[0] | (size_t)bytes[1] << 8 |
                                      (size_t)bytes[2] << 16 | (size_t)bytes[3] << 24;
    if (size < 5 || trie_size < 1024 || trie_size % 4 != 0 || trie_size >= size - 4) {
        snprintf(why, why_size,
                 "character map of %zu bytes: its trie says it has %zu bytes (1024 or more, a "
                 "multiple of 4, and room for strings after it expected)",
                 size, trie_size);
        return -1;
    }
    struct map map = { .trie = bytes + 4, .units = trie_size / 4 };
    map.strings = bytes + 4 + trie_size;
    map.strings_size = size - 4 - trie_size;
    if (map.strings[map.strings_size - 1] != 0 ||
        !utf8_check((const char *)map.strings, map.strings_size, NULL)) {
        snprintf(why, why_size, "character map: its strings are not UTF-8 text ended by NUL");
        return -1;
    }
    map.seen = calloc(map.units, 1);
    if (map.seen == NULL) {
        snprintf(why, why_size, "out of memory for a character map of %zu bytes", size);
        return -1;
    }
    int values = map_walk(&map, map_offset(map_unit(&map, 0)), 0);
    free(map.seen);
    if (values < 0) {
        snprintf(why, why_size, "character map: %s", map.fault);
        return -1;
    }
    return 0;
}
