/*
 * Gather, scatter and scaling of rows or columns. Rows are moved 16 bytes a thread, columns one
 * element: chosen columns are seldom neighbours.
 *
 * Floor: the chosen part is read once and written once. Columns cost more: memory moves 32 bytes at
 * a time, 16 elements in bf16, so that from one column in sixteen on nearly all of the matrix is
 * read.
 */
#include "kernels/cuda/check.cuh"
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/vector.cuh"

static __global__ void move_rows_kernel(struct view to, struct view from, const int32_t *index,
                                        int64_t columns, bool gather, bool wide)
{
    int64_t slot = blockIdx.x;
    int64_t chosen = index[slot];
    if (chosen < 0 && !gather) {
        return;
    }
    int64_t source = (gather ? chosen : slot) * columns;
    int64_t target = (gather ? slot : chosen) * columns;
    for (int64_t at = threadIdx.x * VECTOR; at < columns; at += BLOCK_THREADS * VECTOR) {
        float v[VECTOR] = { 0.0f };
        int n = vector_count(at, columns);
        if (chosen >= 0) {
            load8(v, from, source + at, n, wide);
        }
        store8(to, target + at, v, n, wide);
    }
}

/* The same of rows of one dtype, bit by bit; their elements have an even number of bytes. */
static __global__ void move_equal_rows_kernel(char *to, const char *from, const int32_t *index,
                                              int64_t bytes, bool gather, bool wide)
{
    int64_t slot = blockIdx.x;
    int64_t chosen = index[slot];
    if (chosen < 0 && !gather) {
        return;
    }
    const char *source = from + (gather ? chosen : slot) * bytes;
    char *target = to + (gather ? slot : chosen) * bytes;
    const uint4 zeros = { 0, 0, 0, 0 };
    if (wide) {
        for (int64_t i = threadIdx.x; i < bytes / 16; i += BLOCK_THREADS) {
            ((uint4 *)(void *)target)[i] =
                chosen >= 0 ? ((const uint4 *)(const void *)source)[i] : zeros;
        }
        return;
    }
    for (int64_t i = threadIdx.x; i < bytes / 2; i += BLOCK_THREADS) {
        ((uint16_t *)(void *)target)[i] =
            chosen >= 0 ? ((const uint16_t *)(const void *)source)[i] : (uint16_t)0;
    }
}

/* part (rows, slots), whole (rows, columns). */
static __global__ void move_columns_kernel(struct view part, struct view whole,
                                           const int32_t *index, int64_t count, int64_t slots,
                                           int64_t columns, bool gather, bool raw)
{
    int64_t at = thread_number();
    if (at >= count) {
        return;
    }
    int64_t row = at / slots;
    int64_t chosen = index[at % slots];
    if (gather && raw) {
        const int16_t *from = (const int16_t *)whole.data + row * columns;
        ((int16_t *)part.data)[at] = chosen < 0 ? 0 : from[chosen];
    } else if (gather) {
        put(part, at, chosen < 0 ? 0.0f : get(whole, row * columns + chosen));
    } else if (chosen >= 0) {
        put(whole, row * columns + chosen, get(part, at));
    }
}

static void move_columns(struct backend *be, const struct tensor *part, const struct tensor *whole,
                         const struct tensor *index, bool gather)
{
    int64_t count = tensor_count(part);
    if (count > 0) {
        LAUNCH(move_columns_kernel, cuda_blocks(count), BLOCK_THREADS, 0, cuda_stream(be),
               view_of(part), view_of(whole), (const int32_t *)index->data, count,
               tensor_columns(part), tensor_columns(whole), gather, part->dtype == DTYPE_I16);
    }
}

static void move_rows(struct backend *be, const struct tensor *to, const struct tensor *from,
                      const struct tensor *index, bool gather)
{
    int64_t slots = tensor_count(index);
    if (slots > 0 && to->dtype == from->dtype) {
        int64_t bytes = tensor_columns(to) * (int64_t)dtype_size(to->dtype);
        LAUNCH(move_equal_rows_kernel, (unsigned)slots, BLOCK_THREADS, 0, cuda_stream(be),
               (char *)to->data, (const char *)from->data, (const int32_t *)index->data, bytes,
               gather, bytes % 16 == 0 && view_is_wide(to) && view_is_wide(from));
    } else if (slots > 0) {
        LAUNCH(move_rows_kernel, (unsigned)slots, BLOCK_THREADS, 0, cuda_stream(be), view_of(to),
               view_of(from), (const int32_t *)index->data, tensor_columns(to), gather,
               view_has_wide_rows(to) && view_is_wide(from));
    }
}

/* Bytes, one a thread; `columns` are those of the whole. */
static __global__ void move_bytes_kernel(uint8_t *part, uint8_t *whole, const int32_t *index,
                                         int64_t count, int64_t slots, int64_t columns, bool rows,
                                         bool gather)
{
    int64_t at = thread_number();
    if (at >= count) {
        return;
    }
    int64_t chosen = rows ? index[at / columns] : index[at % slots];
    int64_t there = rows ? chosen * columns + at % columns : at / slots * columns + chosen;
    if (gather) {
        part[at] = chosen < 0 ? 0 : whole[there];
    } else if (chosen >= 0) {
        whole[there] = part[at];
    }
}

static void move_bytes(struct backend *be, const struct tensor *part, const struct tensor *whole,
                       const struct tensor *index, enum side side, bool gather)
{
    int64_t count = tensor_count(part);
    if (count > 0) {
        LAUNCH(move_bytes_kernel, cuda_blocks(count), BLOCK_THREADS, 0, cuda_stream(be),
               (uint8_t *)part->data, (uint8_t *)whole->data, (const int32_t *)index->data, count,
               tensor_count(index), tensor_columns(whole), side == SIDE_ROWS, gather);
    }
}

void cuda_gather(struct backend *be, struct tensor *y, const struct tensor *x,
                 const struct tensor *index, enum side side)
{
    if (x->dtype == DTYPE_U8) {
        move_bytes(be, y, x, index, side, true);
    } else if (side == SIDE_ROWS) {
        move_rows(be, y, x, index, true);
    } else {
        move_columns(be, y, x, index, true);
    }
    cuda_check(be, "gather");
}

void cuda_scatter(struct backend *be, struct tensor *x, const struct tensor *y,
                  const struct tensor *index, enum side side)
{
    if (x->dtype == DTYPE_U8) {
        move_bytes(be, y, x, index, side, false);
    } else if (side == SIDE_ROWS) {
        move_rows(be, x, y, index, false);
    } else {
        move_columns(be, y, x, index, false);
    }
    cuda_check(be, "scatter");
}

static __global__ void scale_side_kernel(struct view x, const float *scale, int64_t rows,
                                         int64_t columns, bool by_row, bool wide)
{
    int64_t groups = (columns + VECTOR - 1) / VECTOR;
    int64_t row = thread_number() / groups;
    int64_t at = thread_number() % groups * VECTOR;
    if (row >= rows) {
        return;
    }
    float v[VECTOR];
    int n = vector_count(at, columns);
    load8(v, x, row * columns + at, n, wide);
#pragma unroll
    for (int i = 0; i < VECTOR; i++) {
        v[i] *= i < n ? scale[by_row ? row : at + i] : 0.0f;
    }
    store8(x, row * columns + at, v, n, wide);
}

void cuda_scale_side(struct backend *be, struct tensor *x, const struct tensor *scale,
                     enum side side)
{
    int64_t rows = tensor_rows(x);
    int64_t columns = tensor_columns(x);
    if (rows > 0 && columns > 0) {
        LAUNCH(scale_side_kernel, cuda_blocks(rows * vectors_of(columns)), BLOCK_THREADS, 0,
               cuda_stream(be), view_of(x), (const float *)scale->data, rows, columns,
               side == SIDE_ROWS, view_has_wide_rows(x));
    }
    cuda_check(be, "scale_side");
}
