/* Rotary position embedding, in place (formula in kernels/ops.h). */
#include "kernels/cpu/cpu.h"

static inline void rotate_pairs(float *restrict low, float *restrict high,
                                const float *restrict cosines, const float *restrict sines,
                                float direction, int64_t count)
{
#pragma omp simd
    for (int64_t i = 0; i < count; i++) {
        float a = low[i];
        float b = high[i];
        float c = cosines[i];
        float s = direction * sines[i];
        low[i] = a * c - b * s;
        high[i] = b * c + a * s;
    }
}

/* Rotates pairs (at, at + half) of `heads` heads that lie one after the other. */
static void rotate_heads(float *x, int64_t heads, int64_t half, const float *row, float direction)
{
    for (int64_t head = 0; head < heads; head++) {
        float *at = x + 2 * head * half;
        rotate_pairs(at, at + half, row, row + half, direction, half);
    }
}

/* Heads larger than CPU_BLOCK and not fp32: a part of the pairs at a time. */
static void rotate_large(const struct tensor *x, int64_t first, int64_t half, const float *row,
                         float direction)
{
    float low[CPU_BLOCK];
    float high[CPU_BLOCK];
    for (int64_t at = 0; at < half; at += CPU_BLOCK) {
        int64_t length = cpu_min(CPU_BLOCK, half - at);
        cpu_load(low, x, first + at, length);
        cpu_load(high, x, first + half + at, length);
        rotate_pairs(low, high, row + at, row + half + at, direction, length);
        cpu_store(x, first + at, low, length);
        cpu_store(x, first + half + at, high, length);
    }
}

/* The heads of one token, which begin at element `first`: fp32 where they lie, anything else as
 * many heads at a time as the buffer holds. `row` is the token's row of the table. */
static void rotate_token(const struct rope *args, int64_t first, const float *row, float direction)
{
    const struct tensor *x = args->x;
    int64_t size = args->head_size;
    if (x->dtype == DTYPE_F32) {
        rotate_heads((float *)x->data + first, args->heads, size / 2, row, direction);
        return;
    }
    float buffer[CPU_BLOCK];
    int64_t fitting = CPU_BLOCK / size;
    for (int64_t head = 0; head < args->heads;) {
        int64_t at = first + head * size;
        int64_t count = cpu_min(fitting, args->heads - head);
        if (fitting > 0) {
            cpu_load(buffer, x, at, count * size);
            rotate_heads(buffer, count, size / 2, row, direction);
            cpu_store(x, at, buffer, count * size);
        } else {
            rotate_large(x, at, size / 2, row, direction);
        }
        head += fitting > 0 ? count : 1;
    }
}

void cpu_rope(struct backend *be, const struct rope *args)
{
    (void)be;
    int64_t rows = tensor_rows(args->x);
    int64_t width = tensor_columns(args->x);
    int64_t size = args->head_size;
    const float *table = args->table->data;
    const int32_t *positions = args->positions->data;
    float direction = args->inverse ? -1.0f : 1.0f;
    int64_t grain = cpu_row_grain(args->heads * size);
    int64_t chunks = cpu_chunk_count(rows, grain);
#pragma omp parallel for schedule(static) if (chunks > 1)
    for (int64_t i = 0; i < chunks; i++) {
        struct cpu_range r = cpu_chunk(rows, grain, i);
        for (int64_t row = r.first; row < r.last; row++) {
            rotate_token(args, row * width, table + positions[row] * size, direction);
            cpu_capture_row(args->capture, args->x, row);
        }
    }
}
