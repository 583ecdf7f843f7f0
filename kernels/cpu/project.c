/*
 * Gather, scatter and scaling of rows or columns, and columns captured by other operations.
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

/* The loops over columns are written once for each width of element: converting one by one costs
 * several times the move. */
static void pick_u32(uint32_t *restrict dst, const uint32_t *restrict src, const int32_t *index,
                     int64_t count)
{
    for (int64_t j = 0; j < count; j++) {
        dst[j] = index[j] < 0 ? 0 : src[index[j]];
    }
}

static void pick_u16(uint16_t *restrict dst, const uint16_t *restrict src, const int32_t *index,
                     int64_t count)
{
    for (int64_t j = 0; j < count; j++) {
        dst[j] = index[j] < 0 ? 0 : src[index[j]];
    }
}

static void pick_u8(uint8_t *restrict dst, const uint8_t *restrict src, const int32_t *index,
                    int64_t count)
{
    for (int64_t j = 0; j < count; j++) {
        dst[j] = index[j] < 0 ? 0 : src[index[j]];
    }
}

static void gather_row_elements(const struct tensor *y, int64_t to, const struct tensor *x,
                                int64_t from, const int32_t *index)
{
    int64_t slots = tensor_columns(y);
    if (y->dtype == DTYPE_F32 && x->dtype == DTYPE_F32) {
        pick_u32((uint32_t *)y->data + to, (const uint32_t *)x->data + from, index, slots);
    } else if (y->dtype == DTYPE_U8) {
        pick_u8((uint8_t *)y->data + to, (const uint8_t *)x->data + from, index, slots);
    } else if (y->dtype == x->dtype) {
        pick_u16((uint16_t *)y->data + to, (const uint16_t *)x->data + from, index, slots);
    } else {
        for (int64_t j = 0; j < slots; j++) {
            cpu_set(y, to + j, index[j] < 0 ? 0.0f : cpu_get(x, from + index[j]));
        }
    }
}

void cpu_capture_row(const struct capture *capture, const struct tensor *x, int64_t row)
{
    if (capture != NULL) {
        gather_row_elements(capture->out, row * tensor_columns(capture->out), x,
                            row * tensor_columns(x), capture->index->data);
    }
}

/* The elements picked from a row are too far apart for the processor to foresee. */
static void expect_row(const struct tensor *x, int64_t row)
{
    enum { LINE_BYTES = 64 };
    size_t row_bytes = (size_t)tensor_columns(x) * dtype_size(x->dtype);
    const char *at = (const char *)x->data + (size_t)row * row_bytes;
    for (size_t i = 0; i < row_bytes; i += LINE_BYTES) {
        __builtin_prefetch(at + i);
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
    bool dense = tensor_columns(y) * 32 > tensor_columns(x); /* most lines of a row are needed */
#pragma omp parallel for schedule(static) if (chunks > 1)
    for (int64_t i = 0; i < chunks; i++) {
        struct cpu_range r = cpu_chunk(rows, grain, i);
        for (int64_t row = r.first; row < r.last; row++) {
            if (dense && row + 1 < r.last) {
                expect_row(x, row + 1);
            }
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

static void put_u32(uint32_t *restrict dst, const uint32_t *restrict src, const int32_t *index,
                    int64_t count)
{
    for (int64_t j = 0; j < count; j++) {
        if (index[j] >= 0) {
            dst[index[j]] = src[j];
        }
    }
}

static void put_u16(uint16_t *restrict dst, const uint16_t *restrict src, const int32_t *index,
                    int64_t count)
{
    for (int64_t j = 0; j < count; j++) {
        if (index[j] >= 0) {
            dst[index[j]] = src[j];
        }
    }
}

static void put_u8(uint8_t *restrict dst, const uint8_t *restrict src, const int32_t *index,
                   int64_t count)
{
    for (int64_t j = 0; j < count; j++) {
        if (index[j] >= 0) {
            dst[index[j]] = src[j];
        }
    }
}

static void scatter_row_elements(const struct tensor *x, int64_t to, const struct tensor *y,
                                 int64_t from, const int32_t *index)
{
    int64_t slots = tensor_columns(y);
    if (x->dtype == DTYPE_F32 && y->dtype == DTYPE_F32) {
        put_u32((uint32_t *)x->data + to, (const uint32_t *)y->data + from, index, slots);
    } else if (x->dtype == DTYPE_U8) {
        put_u8((uint8_t *)x->data + to, (const uint8_t *)y->data + from, index, slots);
    } else if (x->dtype == DTYPE_BF16 && y->dtype == DTYPE_BF16) {
        put_u16((uint16_t *)x->data + to, (const uint16_t *)y->data + from, index, slots);
    } else {
        for (int64_t j = 0; j < slots; j++) {
            if (index[j] >= 0) {
                cpu_set(x, to + index[j], cpu_get(y, from + j));
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
