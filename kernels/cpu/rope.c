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

/* Rotates pairs (first + i, first + half + i), i in [0, half): fp32 where it lies, anything else a
 * block at a time. */
static void rotate_head(const struct tensor *x, int64_t first, int64_t half, const float *cosines,
                        const float *sines, float direction)
{
    if (x->dtype == DTYPE_F32) {
        float *at = (float *)x->data + first;
        rotate_pairs(at, at + half, cosines, sines, direction, half);
        return;
    }
    float low[CPU_BLOCK];
    float high[CPU_BLOCK];
    for (int64_t at = 0; at < half; at += CPU_BLOCK) {
        int64_t length = cpu_min(CPU_BLOCK, half - at);
        cpu_load(low, x, first + at, length);
        cpu_load(high, x, first + half + at, length);
        rotate_pairs(low, high, cosines + at, sines + at, direction, length);
        cpu_store(x, first + at, low, length);
        cpu_store(x, first + half + at, high, length);
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
            const float *cosines = table + positions[row] * size;
            for (int64_t head = 0; head < args->heads; head++) {
                rotate_head(args->x, row * width + head * size, size / 2, cosines,
                            cosines + size / 2, direction);
            }
        }
    }
}
