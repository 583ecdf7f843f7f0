/*
 * Elementwise operations, sums over a whole tensor, and the decision about a step.
 *
 * Sums are taken in double, chunk by chunk; the partial sums are added in the order of the chunks,
 * so that the result does not depend on the number of threads.
 */
#include "kernels/cpu/cpu.h"

#include <math.h>

#include "kernels/cpu/lanes.h"

void cpu_zero(struct backend *be, struct tensor *y)
{
    (void)be;
    int64_t bytes = (int64_t)tensor_bytes(y);
    int64_t grain = CPU_GRAIN * 4;
    int64_t chunks = cpu_chunk_count(bytes, grain);
#pragma omp parallel for schedule(static) if (chunks > 1)
    for (int64_t i = 0; i < chunks; i++) {
        struct cpu_range r = cpu_chunk(bytes, grain, i);
        memset((char *)y->data + r.first, 0, (size_t)(r.last - r.first));
    }
}

static void copy_range(const struct tensor *y, const struct tensor *x, struct cpu_range r)
{
    if (y->dtype == x->dtype) {
        size_t size = dtype_size(x->dtype);
        memcpy((char *)y->data + (size_t)r.first * size,
               (const char *)x->data + (size_t)r.first * size, (size_t)(r.last - r.first) * size);
    } else if (y->dtype == DTYPE_F32) {
        cpu_load((float *)y->data + r.first, x, r.first, r.last - r.first);
    } else {
        cpu_store(y, r.first, (const float *)x->data + r.first, r.last - r.first);
    }
}

void cpu_copy(struct backend *be, struct tensor *y, const struct tensor *x)
{
    (void)be;
    int64_t count = tensor_count(x);
    int64_t chunks = cpu_chunk_count(count, CPU_GRAIN);
#pragma omp parallel for schedule(static) if (chunks > 1)
    for (int64_t i = 0; i < chunks; i++) {
        copy_range(y, x, cpu_chunk(count, CPU_GRAIN, i));
    }
}

static void add_block(const struct tensor *y, const struct tensor *x, int64_t first, int64_t count)
{
    float y_buffer[CPU_BLOCK];
    float x_buffer[CPU_BLOCK];
    const float *b = cpu_read(x, first, count, x_buffer);
    float *a = cpu_write(y, first, y_buffer);
    if (a == y_buffer) {
        cpu_load(a, y, first, count);
    }
#pragma omp simd
    for (int64_t i = 0; i < count; i++) {
        a[i] += b[i];
    }
    cpu_store(y, first, a, count);
}

void cpu_add(struct backend *be, struct tensor *y, const struct tensor *x)
{
    (void)be;
    int64_t count = tensor_count(y);
    int64_t chunks = cpu_chunk_count(count, CPU_GRAIN);
#pragma omp parallel for schedule(static) if (chunks > 1)
    for (int64_t i = 0; i < chunks; i++) {
        struct cpu_range r = cpu_chunk(count, CPU_GRAIN, i);
        for (int64_t at = r.first; at < r.last; at += CPU_BLOCK) {
            add_block(y, x, at, cpu_min(CPU_BLOCK, r.last - at));
        }
    }
}

static void scale_block(const struct tensor *y, int64_t first, int64_t count, float s)
{
    float buffer[CPU_BLOCK];
    float *a = cpu_write(y, first, buffer);
    if (a == buffer) {
        cpu_load(a, y, first, count);
    }
#pragma omp simd
    for (int64_t i = 0; i < count; i++) {
        a[i] *= s;
    }
    cpu_store(y, first, a, count);
}

void cpu_scale(struct backend *be, struct tensor *y, float s)
{
    (void)be;
    int64_t count = tensor_count(y);
    int64_t chunks = cpu_chunk_count(count, CPU_GRAIN);
#pragma omp parallel for schedule(static) if (chunks > 1)
    for (int64_t i = 0; i < chunks; i++) {
        struct cpu_range r = cpu_chunk(count, CPU_GRAIN, i);
        for (int64_t at = r.first; at < r.last; at += CPU_BLOCK) {
            scale_block(y, at, cpu_min(CPU_BLOCK, r.last - at), s);
        }
    }
}

static double sum_range(const struct tensor *x, struct cpu_range r, bool square)
{
    float buffer[CPU_BLOCK];
    double sum = 0.0;
    for (int64_t at = r.first; at < r.last; at += CPU_BLOCK) {
        int64_t count = cpu_min(CPU_BLOCK, r.last - at);
        const float *a = cpu_read(x, at, count, buffer);
        sum += square ? cpu_lanes_sum_squares(a, count) : cpu_lanes_sum(a, count);
    }
    return sum;
}

static void sum_tensor(struct tensor *sum, const struct tensor *x, bool accumulate, bool square)
{
    double partial[CPU_PARTIAL_COUNT];
    int64_t count = tensor_count(x);
    int64_t grain = cpu_sum_grain(count);
    int64_t chunks = cpu_chunk_count(count, grain);
#pragma omp parallel for schedule(static) if (chunks > 1)
    for (int64_t i = 0; i < chunks; i++) {
        partial[i] = sum_range(x, cpu_chunk(count, grain, i), square);
    }
    float *result = sum->data;
    double total = accumulate ? (double)*result : 0.0;
    for (int64_t i = 0; i < chunks; i++) {
        total += partial[i];
    }
    *result = (float)total;
}

void cpu_sum(struct backend *be, struct tensor *sum, const struct tensor *x, bool accumulate)
{
    (void)be;
    sum_tensor(sum, x, accumulate, false);
}

void cpu_sum_squares(struct backend *be, struct tensor *sum, const struct tensor *x,
                     bool accumulate)
{
    (void)be;
    sum_tensor(sum, x, accumulate, true);
}

void cpu_clip(struct backend *be, struct tensor *control, const struct tensor *sum_squares,
              const struct tensor *loss, float clip)
{
    (void)be;
    float norm = sqrtf(*(const float *)sum_squares->data);
    float limit = clip / (norm + 1e-6f);
    float *c = control->data;
    c[CONTROL_FACTOR] = clip > 0.0f && limit < 1.0f ? limit : 1.0f;
    c[CONTROL_SKIP] = isfinite(norm) && isfinite(*(const float *)loss->data) ? 0.0f : 1.0f;
    c[CONTROL_NORM] = norm;
}
