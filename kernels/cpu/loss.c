/*
 * Softmax cross-entropy (formula in kernels/ops.h).
 *
 * The largest logit is subtracted before exponentials are taken, so none overflows. A NaN or +inf
 * among the logits of a trained row makes its loss NaN: the step is then skipped, not hidden.
 */
#include <math.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/math.h"

static float row_maximum(const struct tensor *logits, int64_t first, int64_t count)
{
    float buffer[CPU_BLOCK];
    float most = -INFINITY;
    for (int64_t at = 0; at < count; at += CPU_BLOCK) {
        int64_t length = cpu_min(CPU_BLOCK, count - at);
        const float *x = cpu_read(logits, first + at, length, buffer);
#pragma omp simd reduction(max : most)
        for (int64_t i = 0; i < length; i++) {
            most = x[i] > most ? x[i] : most;
        }
    }
    return most;
}

static double row_sum(const struct tensor *logits, int64_t first, int64_t count, float most)
{
    float buffer[CPU_BLOCK];
    double total = 0.0;
    for (int64_t at = 0; at < count; at += CPU_BLOCK) {
        int64_t length = cpu_min(CPU_BLOCK, count - at);
        const float *x = cpu_read(logits, first + at, length, buffer);
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < length; i++) {
            sum += cpu_exp(x[i] - most);
        }
        total += (double)sum;
    }
    return total;
}

/* logits = factor * exp(logits - most) over one row. */
static void row_gradient(const struct tensor *logits, int64_t first, int64_t count, float most,
                         float factor)
{
    float buffer[CPU_BLOCK];
    for (int64_t at = 0; at < count; at += CPU_BLOCK) {
        int64_t length = cpu_min(CPU_BLOCK, count - at);
        cpu_load(buffer, logits, first + at, length);
#pragma omp simd
        for (int64_t i = 0; i < length; i++) {
            buffer[i] = factor * cpu_exp(buffer[i] - most);
        }
        cpu_store(logits, first + at, buffer, length);
    }
}

static void entropy_row(const struct cross_entropy *args, int64_t row, int64_t columns)
{
    int64_t first = row * columns;
    float *loss = (float *)args->losses->data + row;
    int32_t target = ((const int32_t *)args->targets->data)[row];
    if (target < 0) {
        *loss = 0.0f;
        if (args->gradient) {
            memset((char *)args->logits->data + (size_t)first * dtype_size(args->logits->dtype), 0,
                   (size_t)columns * dtype_size(args->logits->dtype));
        }
        return;
    }
    float most = row_maximum(args->logits, first, columns);
    double sum = row_sum(args->logits, first, columns, most);
    float logit = cpu_get(args->logits, first + target);
    *loss = (float)(log(sum) + ((double)most - (double)logit));
    if (args->gradient) {
        row_gradient(args->logits, first, columns, most, (float)((double)args->scale / sum));
        double chosen = exp((double)logit - (double)most) / sum;
        cpu_set(args->logits, first + target, (float)((double)args->scale * (chosen - 1.0)));
    }
}

void cpu_cross_entropy(struct backend *be, const struct cross_entropy *args)
{
    (void)be;
    int64_t rows = tensor_rows(args->logits);
    int64_t columns = tensor_columns(args->logits);
    int64_t grain = cpu_row_grain(columns);
    int64_t chunks = cpu_chunk_count(rows, grain);
#pragma omp parallel for schedule(static) if (chunks > 1)
    for (int64_t i = 0; i < chunks; i++) {
        struct cpu_range r = cpu_chunk(rows, grain, i);
        for (int64_t row = r.first; row < r.last; row++) {
            entropy_row(args, row, columns);
        }
    }
}
