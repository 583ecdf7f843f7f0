/* Embedding: rows of a table by token id, and the sum of gradients back into them. */
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

/* A thread owns columns, not tokens: two tokens may share a row of the table, and every element
 * gets its terms in the order of the tokens. */
static void add_columns(const struct tensor *dtable, const struct tensor *dy, const int32_t *id,
                        struct cpu_range r)
{
    float sum[COLUMN_GRAIN];
    float buffer[COLUMN_GRAIN];
    int64_t columns = tensor_columns(dy);
    int64_t rows = tensor_rows(dy);
    int64_t length = r.last - r.first;
    for (int64_t row = 0; row < rows; row++) {
        int64_t at = id[row] * columns + r.first;
        const float *add = cpu_read(dy, row * columns + r.first, length, buffer);
        cpu_load(sum, dtable, at, length);
#pragma omp simd
        for (int64_t i = 0; i < length; i++) {
            sum[i] += add[i];
        }
        cpu_store(dtable, at, sum, length);
    }
}

void cpu_embedding_backward(struct backend *be, struct tensor *dtable, const struct tensor *dy,
                            const struct tensor *ids)
{
    (void)be;
    int64_t columns = tensor_columns(dy);
    int64_t parts = cpu_chunk_count(columns, COLUMN_GRAIN);
#pragma omp parallel for schedule(static) if (parts > 1)
    for (int64_t i = 0; i < parts; i++) {
        add_columns(dtable, dy, ids->data, cpu_chunk(columns, COLUMN_GRAIN, i));
    }
}
