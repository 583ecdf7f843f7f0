/* Embedding: rows of a table by token id, the sum of gradients back into them, and which occur. */
#include <string.h>

#include "kernels/cpu/cpu.h"

enum { COLUMN_GRAIN = 64 };

static void copy_row(const struct tensor *y, int64_t to, const struct tensor *table, int64_t from,
                     int64_t count)
{
    float buffer[CPU_BLOCK];
    for (int64_t at = 0; at < count; at += CPU_BLOCK) {
        int64_t length = cpu_min(CPU_BLOCK, count - at);
        cpu_store(y, to + at, cpu_read(table, from + at, length, buffer), length);
    }
}

void cpu_embedding_forward(struct backend *be, struct tensor *y, const struct tensor *table,
                           const struct tensor *ids)
{
    (void)be;
    int64_t rows = tensor_rows(y);
    int64_t columns = tensor_columns(y);
    const int32_t *id = ids->data;
    int64_t grain = cpu_row_grain(columns);
    int64_t chunks = cpu_chunk_count(rows, grain);
#pragma omp parallel for schedule(static) if (chunks > 1)
    for (int64_t i = 0; i < chunks; i++) {
        struct cpu_range r = cpu_chunk(rows, grain, i);
        for (int64_t row = r.first; row < r.last; row++) {
            copy_row(y, row * columns, table, id[row] * columns, columns);
        }
    }
}

/* Tokens in the order of their ids, those of one id in their own order: a radix sort, whose memory
 * is known beforehand. Returns the half of room (2, tokens) that holds the result. */
static const int32_t *order_by_id(int32_t *room, const int32_t *id, int64_t tokens)
{
    enum { BITS = 11, BUCKETS = 1 << BITS };
    int32_t *from = room;
    int32_t *to = room + tokens;
    uint32_t largest = 0;
    for (int64_t t = 0; t < tokens; t++) {
        from[t] = (int32_t)t;
        largest = (uint32_t)id[t] > largest ? (uint32_t)id[t] : largest;
    }
    for (int shift = 0; shift < 32 && largest >> shift != 0; shift += BITS) {
        int64_t place[BUCKETS + 1] = { 0 };
        for (int64_t t = 0; t < tokens; t++) {
            place[((uint32_t)id[t] >> shift) % BUCKETS + 1]++;
        }
        for (int b = 0; b < BUCKETS; b++) {
            place[b + 1] += place[b];
        }
        for (int64_t i = 0; i < tokens; i++) {
            to[place[((uint32_t)id[from[i]] >> shift) % BUCKETS]++] = from[i];
        }
        int32_t *swap = from;
        from = to;
        to = swap;
    }
    return from;
}

/* A thread owns columns, not tokens: two tokens may share a row of the table. The terms of an
 * element are summed in fp32 in the order of the tokens and stored once: stored after each term,
 * bf16 would lose the small ones of a frequent token. */
static void add_columns(const struct tensor *dtable, const struct tensor *dy, const int32_t *id,
                        const int32_t *order, struct cpu_range r)
{
    float sum[COLUMN_GRAIN];
    float buffer[COLUMN_GRAIN];
    int64_t columns = tensor_columns(dy);
    int64_t rows = tensor_rows(dy);
    int64_t length = r.last - r.first;
    for (int64_t i = 0; i < rows; i++) {
        int64_t row = order[i];
        int64_t at = id[row] * columns + r.first;
        if (i == 0 || id[order[i - 1]] != id[row]) {
            cpu_load(sum, dtable, at, length);
        }
        const float *add = cpu_read(dy, row * columns + r.first, length, buffer);
#pragma omp simd
        for (int64_t j = 0; j < length; j++) {
            sum[j] += add[j];
        }
        if (i + 1 == rows || id[order[i + 1]] != id[row]) {
            cpu_store(dtable, at, sum, length);
        }
    }
}

void cpu_embedding_backward(struct backend *be, struct tensor *dtable, const struct tensor *dy,
                            const struct tensor *ids)
{
    int64_t columns = tensor_columns(dy);
    int64_t tokens = tensor_rows(dy);
    int64_t parts = cpu_chunk_count(columns, COLUMN_GRAIN);
    int32_t *room = cpu_scratch(be, (size_t)(2 * tokens) * sizeof *room);
    if (room == NULL) {
        return;
    }
    const int32_t *order = order_by_id(room, ids->data, tokens);
#pragma omp parallel for schedule(static) if (parts > 1)
    for (int64_t i = 0; i < parts; i++) {
        add_columns(dtable, dy, ids->data, order, cpu_chunk(columns, COLUMN_GRAIN, i));
    }
}

/* One walk over the tokens and one over the words: far less than anything else in a step. */
void cpu_distinct(struct backend *be, const struct distinct *args)
{
    (void)be;
    const int32_t *id = args->ids->data;
    int32_t *slot = args->slots->data;
    int32_t *room = args->room->data;
    int32_t *index = args->index->data;
    int64_t tokens = tensor_count(args->ids);
    int64_t words = tensor_count(args->room);
    int64_t slots = tensor_count(args->index);
    memset(room, 0xff, (size_t)words * sizeof *room);
    memset(index, 0xff, (size_t)slots * sizeof *index);
    for (int64_t t = 0; t < tokens; t++) {
        room[id[t]] = 0;
    }
    int32_t used = 0;
    for (int64_t w = 0; w < words; w++) {
        if (room[w] >= 0) {
            index[used] = (int32_t)w;
            room[w] = used++;
        }
    }
    for (int64_t t = 0; t < tokens; t++) {
        slot[t] = room[id[t]];
    }
}
