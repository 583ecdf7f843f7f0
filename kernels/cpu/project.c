/*
 * Gather, scatter and scaling of rows or columns.
 *
 * Rows are moved in pieces of one row; columns element by element along each row, so that both
 * matrices are walked in the order they lie in memory.
 */
#include "kernels/cpu/cpu.h"

/* Elements [to, to + count) of y = elements [from, from + count) of x. */
static void move(const struct tensor *y, int64_t to, const struct tensor *x, int64_t from,
                 int64_t count)
{
    if (y->dtype == x->dtype) {
        size_t size = dtype_size(x->dtype);
        memcpy((char *)y->data + (size_t)to * size, (const char *)x->data + (size_t)from * size,
               (size_t)count * size);
    } else if (y->dtype == DTYPE_F32) {
        cpu_load((float *)y->data + to, x, from, count);
    } else {
        cpu_store(y, to, (const float *)x->data + from, count);
    }
}

static void gather_rows(const struct tensor *y, const struct tensor *x, const int32_t *index)
{
    int64_t rows = tensor_rows(y);
    int64_t columns = tensor_columns(y);
    int64_t grain = cpu_row_grain(columns);
    int64_t chunks = cpu_chunk_count(rows, grain);
    size_t row_bytes = (size_t)columns * dtype_size(y->dtype);
#pragma omp parallel for schedule(static) if (chunks > 1)
    for (int64_t i = 0; i < chunks; i++) {
        struct cpu_range r = cpu_chunk(rows, grain, i);
        for (int64_t j = r.first; j < r.last; j++) {
            if (index[j] < 0) {
                memset((char *)y->data + (size_t)j * row_bytes, 0, row_bytes);
            } else {
                move(y, j * columns, x, index[j] * columns, columns);
            }
        }
    }
}

static void gather_row_elements(const struct tensor *y, int64_t to, const struct tensor *x,
                                int64_t from, const int32_t *index)
{
    float buffer[CPU_BLOCK];
    int64_t slots = tensor_columns(y);
    for (int64_t at = 0; at < slots; at += CPU_BLOCK) {
        int64_t count = cpu_min(CPU_BLOCK, slots - at);
        float *a = cpu_write(y, to + at, buffer);
        for (int64_t j = 0; j < count; j++) {
            int32_t k = index[at + j];
            a[j] = k < 0 ? 0.0f : cpu_get(x, from + k);
        }
        cpu_store(y, to + at, a, count);
    }
}

void cpu_gather(struct backend *be, struct tensor *y, const struct tensor *x,
                const struct tensor *index, enum side side)
{
    (void)be;
    if (side == SIDE_ROWS) {
        gather_rows(y, x, index->data);
        return;
    }
    int64_t rows = tensor_rows(y);
    int64_t grain = cpu_row_grain(tensor_columns(y));
    int64_t chunks = cpu_chunk_count(rows, grain);
#pragma omp parallel for schedule(static) if (chunks > 1)
    for (int64_t i = 0; i < chunks; i++) {
        struct cpu_range r = cpu_chunk(rows, grain, i);
        for (int64_t row = r.first; row < r.last; row++) {
            gather_row_elements(y, row * tensor_columns(y), x, row * tensor_columns(x),
                                index->data);
        }
    }
}

static void scatter_rows(const struct tensor *x, const struct tensor *y, const int32_t *index)
{
    int64_t rows = tensor_rows(y);
    int64_t columns = tensor_columns(y);
    int64_t grain = cpu_row_grain(columns);
    int64_t chunks = cpu_chunk_count(rows, grain);
#pragma omp parallel for schedule(static) if (chunks > 1)
    for (int64_t i = 0; i < chunks; i++) {
        struct cpu_range r = cpu_chunk(rows, grain, i);
        for (int64_t j = r.first; j < r.last; j++) {
            if (index[j] >= 0) {
                move(x, index[j] * columns, y, j * columns, columns);
            }
        }
    }
}

static void scatter_row_elements(const struct tensor *x, int64_t to, const struct tensor *y,
                                 int64_t from, const int32_t *index)
{
    float buffer[CPU_BLOCK];
    int64_t slots = tensor_columns(y);
    for (int64_t at = 0; at < slots; at += CPU_BLOCK) {
        int64_t count = cpu_min(CPU_BLOCK, slots - at);
        const float *a = cpu_read(y, from + at, count, buffer);
        for (int64_t j = 0; j < count; j++) {
            int32_t k = index[at + j];
            if (k >= 0) {
                cpu_set(x, to + k, a[j]);
            }
        }
    }
}

void cpu_scatter(struct backend *be, struct tensor *x, const struct tensor *y,
                 const struct tensor *index, enum side side)
{
    (void)be;
    if (side == SIDE_ROWS) {
        scatter_rows(x, y, index->data);
        return;
    }
    int64_t rows = tensor_rows(y);
    int64_t grain = cpu_row_grain(tensor_columns(y));
    int64_t chunks = cpu_chunk_count(rows, grain);
#pragma omp parallel for schedule(static) if (chunks > 1)
    for (int64_t i = 0; i < chunks; i++) {
        struct cpu_range r = cpu_chunk(rows, grain, i);
        for (int64_t row = r.first; row < r.last; row++) {
            scatter_row_elements(x, row * tensor_columns(x), y, row * tensor_columns(y),
                                 index->data);
        }
    }
}

/* One block of a row: times scale[0] for rows, times scale[i] for columns. */
static void scale_block(const struct tensor *x, int64_t first, int64_t count, const float *scale,
                        enum side side)
{
    float buffer[CPU_BLOCK];
    float *a = cpu_write(x, first, buffer);
    if (a == buffer) {
        cpu_load(a, x, first, count);
    }
    if (side == SIDE_ROWS) {
        float s = scale[0];
        for (int64_t i = 0; i < count; i++) {
            a[i] *= s;
        }
    } else {
        for (int64_t i = 0; i < count; i++) {
            a[i] *= scale[i];
        }
    }
    cpu_store(x, first, a, count);
}

void cpu_scale_side(struct backend *be, struct tensor *x, const struct tensor *scale,
                    enum side side)
{
    (void)be;
    const float *s = scale->data;
    int64_t rows = tensor_rows(x);
    int64_t columns = tensor_columns(x);
    int64_t grain = cpu_row_grain(columns);
    int64_t chunks = cpu_chunk_count(rows, grain);
#pragma omp parallel for schedule(static) if (chunks > 1)
    for (int64_t i = 0; i < chunks; i++) {
        struct cpu_range r = cpu_chunk(rows, grain, i);
        for (int64_t row = r.first; row < r.last; row++) {
            for (int64_t at = 0; at < columns; at += CPU_BLOCK) {
                scale_block(x, row * columns + at, cpu_min(CPU_BLOCK, columns - at),
                            side == SIDE_ROWS ? s + row : s + at, side);
            }
        }
    }
}
