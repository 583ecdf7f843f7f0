/*
 * The strict walk over a SentencePiece model.
 *
 * Fields of the format that matter here (sentencepiece_model.proto):
 *     model       1 piece, repeated | 2 trainer | 3 normalizer | 4 self test | 5 denormalizer
 *     piece       1 text | 2 score (float) | 3 type
 *     trainer     3 model type | 24 whitespace as suffix | 35 byte fallback | 44..48 special pieces
 *     normalizer  2 character map | 3 dummy prefix | 4 remove whitespace | 5 escape whitespace
 * All other fields may be anything that is well formed: later versions add some.
 */
#include "tokenizer/model_check.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer/unicode.h"

enum wire {
    WIRE_VARINT = 0,
    WIRE_FIXED64 = 1,
    WIRE_BYTES = 2,
    WIRE_FIXED32 = 5,
};

struct span {
    const uint8_t *at;
    size_t size;
};

struct field {
    uint32_t number;
    enum wire wire;
    uint64_t value;    /* VARINT, FIXED32, FIXED64 */
    struct span bytes; /* BYTES */
};

struct piece {
    struct span text;
    uint8_t type;
};

struct check {
    char *why;
    size_t why_size;
    const uint8_t *start;
    struct piece *piece;
    size_t count;
    size_t capacity;
    uint64_t model_type;
    bool byte_fallback;
    bool suffix;
    bool dummy_prefix;
    bool removes_whitespace;
    struct span map[2]; /* normalizer, denormalizer */
};

static int refuse(const struct check *check, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static int refuse(const struct check *check, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(check->why, check->why_size, format, list);
    va_end(list);
    return -1;
}

static bool read_varint(struct span *in, uint64_t *value)
{
    *value = 0;
    for (unsigned i = 0; i < 10 && in->size > 0; i++) {
        uint8_t byte = *in->at;
        in->at++;
        in->size--;
        if (i == 9 && byte > 1) {
            return false;
        }
        *value |= (uint64_t)(byte & 0x7F) << (7 * i);
        if (byte < 0x80) {
            return true;
        }
    }
    return false;
}

static bool read_fixed(struct span *in, size_t size, uint64_t *value)
{
    if (in->size < size) {
        return false;
    }
    *value = 0;
    for (size_t i = 0; i < size; i++) {
        *value |= (uint64_t)in->at[i] << (8 * i);
    }
    in->at += size;
    in->size -= size;
    return true;
}

/* The next field of a message that is not at its end. */
static int read_field(const struct check *check, struct span *in, struct field *field)
{
    size_t offset = (size_t)(in->at - check->start);
    uint64_t tag;
    if (!read_varint(in, &tag) || tag >> 32 != 0 || tag >> 3 == 0) {
        return refuse(check, "offset %zu: no field starts here (broken tag)", offset);
    }
    field->number = (uint32_t)(tag >> 3);
    field->wire = (enum wire)(tag & 7);
    bool good;
    switch (tag & 7) {
    case WIRE_VARINT:
        good = read_varint(in, &field->value);
        break;
    case WIRE_FIXED64:
        good = read_fixed(in, 8, &field->value);
        break;
    case WIRE_FIXED32:
        good = read_fixed(in, 4, &field->value);
        break;
    case WIRE_BYTES:
        good = read_varint(in, &field->value) && field->value <= in->size;
        if (good) {
            field->bytes = (struct span){ in->at, (size_t)field->value };
            in->at += field->value;
            in->size -= (size_t)field->value;
        }
        break;
    default:
        return refuse(check, "offset %zu: field %u has wire type %u (0, 1, 2 or 5 expected)",
                      offset, field->number, (unsigned)(tag & 7));
    }
    if (!good) {
        return refuse(check, "offset %zu: field %u does not fit into its message", offset,
                      field->number);
    }
    return 0;
}

static int check_wire(const struct check *check, const struct field *field, enum wire wire,
                      const char *name)
{
    if (field->wire != wire) {
        return refuse(check, "%s: wire type %d (%d expected)", name, (int)field->wire, (int)wire);
    }
    return 0;
}

static int check_text(const struct check *check, struct span text, const char *name)
{
    size_t bad;
    if (text.size > MODEL_PIECE_BYTES_LIMIT) {
        return refuse(check, "%s: %zu bytes long (at most %d allowed)", name, text.size,
                      MODEL_PIECE_BYTES_LIMIT);
    }
    if (text.size > 0 && memchr(text.at, 0, text.size) != NULL) {
        return refuse(check, "%s: holds a NUL byte", name);
    }
    if (!utf8_check((const char *)text.at, text.size, &bad)) {
        return refuse(check, "%s: invalid UTF-8 at byte %zu", name, bad);
    }
    return 0;
}

static int add_piece(struct check *check, struct piece piece)
{
    if (check->count == MODEL_PIECES_LIMIT) {
        return refuse(check, "more than %d pieces", MODEL_PIECES_LIMIT);
    }
    if (check->count == check->capacity) {
        size_t capacity = check->capacity == 0 ? 1024 : check->capacity * 2;
        struct piece *grown = realloc(check->piece, capacity * sizeof(*grown));
        if (grown == NULL) {
            return refuse(check, "out of memory for %zu pieces", capacity);
        }
        check->piece = grown;
        check->capacity = capacity;
    }
    check->piece[check->count++] = piece;
    return 0;
}

static int check_piece(struct check *check, struct span in)
{
    struct piece piece = { .type = MODEL_PIECE_NORMAL };
    char name[48];
    snprintf(name, sizeof(name), "piece %zu", check->count);
    while (in.size > 0) {
        struct field field;
        if (read_field(check, &in, &field) != 0) {
            return -1;
        }
        if (field.number == 1) {
            if (check_wire(check, &field, WIRE_BYTES, name) != 0) {
                return -1;
            }
            piece.text = field.bytes;
        } else if (field.number == 2) {
            uint32_t bits = (uint32_t)field.value;
            float score;
            memcpy(&score, &bits, sizeof(score));
            if (check_wire(check, &field, WIRE_FIXED32, name) != 0) {
                return -1;
            }
            if (!isfinite(score)) {
                return refuse(check, "%s: its score is not finite", name);
            }
        } else if (field.number == 3) {
            if (check_wire(check, &field, WIRE_VARINT, name) != 0) {
                return -1;
            }
            if (field.value < MODEL_PIECE_NORMAL || field.value > MODEL_PIECE_BYTE) {
                return refuse(check, "%s: type %llu (1 to 6 expected)", name,
                              (unsigned long long)field.value);
            }
            piece.type = (uint8_t)field.value;
        }
    }
    if (piece.text.size == 0) {
        return refuse(check, "%s is empty", name);
    }
    return check_text(check, piece.text, name) == 0 ? add_piece(check, piece) : -1;
}

static int check_trainer(struct check *check, struct span in)
{
    while (in.size > 0) {
        struct field field;
        if (read_field(check, &in, &field) != 0) {
            return -1;
        }
        if (field.number == 3 || field.number == 24 || field.number == 35) {
            if (check_wire(check, &field, WIRE_VARINT, "trainer settings") != 0) {
                return -1;
            }
            if (field.number == 3) {
                check->model_type = field.value;
            } else if (field.number == 24) {
                check->suffix = field.value != 0;
            } else {
                check->byte_fallback = field.value != 0;
            }
        } else if (field.number >= 44 && field.number <= 48) {
            if (check_wire(check, &field, WIRE_BYTES, "name of a special piece") != 0 ||
                check_text(check, field.bytes, "name of a special piece") != 0) {
                return -1;
            }
        }
    }
    return 0;
}

static int check_normalizer(struct check *check, struct span in, int which)
{
    while (in.size > 0) {
        struct field field;
        if (read_field(check, &in, &field) != 0) {
            return -1;
        }
        if (field.number == 2) {
            if (check_wire(check, &field, WIRE_BYTES, "character map") != 0) {
                return -1;
            }
            check->map[which] = field.bytes;
        } else if (field.number >= 3 && field.number <= 5) {
            if (check_wire(check, &field, WIRE_VARINT, "normalizer settings") != 0) {
                return -1;
            }
            if (which == 0 && field.number == 3) {
                check->dummy_prefix = field.value != 0;
            } else if (which == 0 && field.number == 4) {
                check->removes_whitespace = field.value != 0;
            }
        }
    }
    return 0;
}

/* Messages whose content does not matter, but whose structure does. */
static int check_structure(const struct check *check, struct span in)
{
    while (in.size > 0) {
        struct field field;
        if (read_field(check, &in, &field) != 0) {
            return -1;
        }
    }
    return 0;
}

static int check_model(struct check *check, struct span in)
{
    while (in.size > 0) {
        struct field field;
        if (read_field(check, &in, &field) != 0) {
            return -1;
        }
        if (field.number > 5) {
            continue;
        }
        if (check_wire(check, &field, WIRE_BYTES, "part of the model") != 0) {
            return -1;
        }
        int result;
        switch (field.number) {
        case 1:
            result = check_piece(check, field.bytes);
            break;
        case 2:
            result = check_trainer(check, field.bytes);
            break;
        case 3:
            result = check_normalizer(check, field.bytes, 0);
            break;
        case 5:
            result = check_normalizer(check, field.bytes, 1);
            break;
        default:
            result = check_structure(check, field.bytes);
            break;
        }
        if (result != 0) {
            return -1;
        }
    }
    return 0;
}

static bool same_text(struct span a, struct span b)
{
    return a.size == b.size && memcmp(a.at, b.at, a.size) == 0;
}

/* Open addressing over FNV-1a. */
static int check_no_duplicates(const struct check *check)
{
    size_t slots = 1024;
    while (slots < check->count * 2) {
        slots *= 2;
    }
    uint32_t *table = calloc(slots, sizeof(*table));
    if (table == NULL) {
        return refuse(check, "out of memory for %zu pieces", check->count);
    }
    int result = 0;
    for (size_t i = 0; i < check->count && result == 0; i++) {
        struct span text = check->piece[i].text;
        uint64_t hash = 0xCBF29CE484222325u;
        for (size_t k = 0; k < text.size; k++) {
            hash = (hash ^ text.at[k]) * 0x100000001B3u;
        }
        size_t slot = (size_t)(hash ^ hash >> 32) & (slots - 1);
        while (table[slot] != 0 && !same_text(check->piece[table[slot] - 1].text, text)) {
            slot = (slot + 1) & (slots - 1);
        }
        if (table[slot] != 0) {
            result = refuse(check, "pieces %u and %zu are the same", table[slot] - 1, i);
        }
        table[slot] = (uint32_t)(i + 1);
    }
    free(table);
    return result;
}

/* The byte of <0x41>, or -1 if it is not written exactly so. */
static int byte_of_piece(struct span text)
{
    char expected[8];
    for (int byte = 0; byte < 256 && text.size == 6; byte++) {
        snprintf(expected, sizeof(expected), "<0x%02X>", byte);
        if (memcmp(expected, text.at, 6) == 0) {
            return byte;
        }
    }
    return -1;
}

static int check_types(const struct check *check)
{
    size_t unknown = 0;
    size_t bytes = 0;
    for (size_t i = 0; i < check->count; i++) {
        unknown += check->piece[i].type == MODEL_PIECE_UNKNOWN;
        if (check->piece[i].type != MODEL_PIECE_BYTE) {
            continue;
        }
        bytes++;
        if (byte_of_piece(check->piece[i].text) < 0) {
            return refuse(check, "piece %zu is a byte but not written <0x00> to <0xFF>", i);
        }
    }
    if (check->count == 0) {
        return refuse(check, "it has no pieces");
    }
    if (unknown != 1) {
        return refuse(check, "%zu unknown pieces (exactly one expected)", unknown);
    }
    /* Pieces are distinct, so 256 of them are all bytes. */
    if (bytes != (check->byte_fallback ? 256u : 0u)) {
        return refuse(check, "%zu byte pieces with byte fallback %s (%d expected)", bytes,
                      check->byte_fallback ? "on" : "off", check->byte_fallback ? 256 : 0);
    }
    if (check->model_type < 1 || check->model_type > 4) {
        return refuse(check, "model type %llu (1 unigram, 2 BPE, 3 word or 4 character expected)",
                      (unsigned long long)check->model_type);
    }
    return 0;
}

/* In a BPE model without a map, merges never reach over a character that only ever stands alone. */
static bool newline_stands_alone(const struct check *check)
{
    if (check->model_type != 2 || check->suffix || check->removes_whitespace ||
        check->map[0].size > 0) {
        return false;
    }
    for (size_t i = 0; i < check->count; i++) {
        struct span text = check->piece[i].text;
        if (text.size > 1 && memchr(text.at, '\n', text.size) != NULL) {
            return false;
        }
    }
    return true;
}

static int summarize(const struct check *check, struct model_summary *summary)
{
    uint8_t *type = malloc(check->count);
    if (type == NULL) {
        return refuse(check, "out of memory for %zu pieces", check->count);
    }
    for (size_t i = 0; i < check->count; i++) {
        type[i] = check->piece[i].type;
    }
    *summary = (struct model_summary){
        .piece_count = (int32_t)check->count,
        .type = type,
        .byte_fallback = check->byte_fallback,
        .adds_dummy_prefix = check->dummy_prefix && !check->suffix,
        .removes_whitespace = check->removes_whitespace,
        .maps_characters = check->map[0].size > 0,
        .newline_stands_alone = newline_stands_alone(check),
    };
    return 0;
}

int model_check(const void *bytes, size_t size, struct model_summary *summary, char *why,
                size_t why_size)
{
    /* The defaults of the format for fields that are absent. */
    struct check check = { .why = why,
                           .why_size = why_size,
                           .start = bytes,
                           .model_type = 1,
                           .dummy_prefix = true,
                           .removes_whitespace = true };
    int result = -1;
    if (check_model(&check, (struct span){ bytes, size }) == 0 && check_types(&check) == 0 &&
        check_no_duplicates(&check) == 0 &&
        model_check_character_map(check.map[0].at, check.map[0].size, why, why_size) == 0 &&
        model_check_character_map(check.map[1].at, check.map[1].size, why, why_size) == 0) {
        result = summarize(&check, summary);
    }
    free(check.piece);
    return result;
}

void model_summary_free(struct model_summary *summary)
{
    free(summary->type);
    *summary = (struct model_summary){ 0 };
}
