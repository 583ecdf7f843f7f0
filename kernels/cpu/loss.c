/*
 * Softmax cross-entropy (formula in kernels/ops.h).
 *
 * The largest logit is subtracted before exponentials are taken, so none overflows. A NaN or +inf
 * among the logits of a trained row makes its loss NaN: the step is then skipped, not hidden.
 */
#include <math.h>
#include <omp.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/math.h"

static float maximum(const float *x, int64_t count)
{
    float most = -INFINITY;
#pragma omp simd reduction(max : most)
    for (int64_t i = 0; i < count; i++) {
        most = x[i] > most ? x[i] : most;
    }
    return most;
}

/* e = exp(x - most); returns their sum. e may be x. */
static double exponentials(float *e, const float *x, int64_t count, float most)
{
    double total = 0.0;
    for (int64_t at = 0; at < count; at += CPU_BLOCK) {
        int64_t last = cpu_min(at + CPU_BLOCK, count);
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = at; i < last; i++) {
            e[i] = cpu_exp(x[i] - most);
            sum += e[i];
        }
        total += (double)sum;
    }
    return total;
}

static void forget_row(const struct tensor *logits, int64_t first, int64_t columns)
{
    size_t size = dtype_size(logits->dtype);
    memset((char *)logits->data + (size_t)first * size, 0, (size_t)columns * size);
}

/* `room` holds one row in fp32. */
static void entropy_row(const struct cross_entropy *args, int64_t row, int64_t columns, float *room)
{
    int64_t first = row * columns;
    float *loss = (float *)args->losses->data + row;
    int32_t target = ((const int32_t *)args->targets->data)[row];
    if (target < 0) {
        *loss = 0.0f;
        if (args->gradient) {
            forget_row(args->logits, first, columns);
        }
        return;
    }
    const float *x = cpu_read(args->logits, first, columns, room);
    float *e = args->gradient ? cpu_write(args->logits, first, room) : room;
    float most = maximum(x, columns);
    float logit = x[target];
    double sum = exponentials(e, x, columns, most);
    *loss = (float)(log(sum) + ((double)most - (double)logit));
    if (args->gradient) {
        float scale =
            args->factor != NULL ? args->scale * *(const float *)args->factor->data : args->scale;
        float factor = (float)((double)scale / sum);
#pragma omp simd
        for (int64_t i = 0; i < columns; i++) {
            e[i] *= factor;
        }
        double chosen = exp((double)logit - (double)most) / sum;
        e[target] = (float)((double)scale * (chosen - 1.0));
        cpu_store(args->logits, first, e, columns);
    }
}

void cpu_cross_entropy(struct backend *be, const struct cross_entropy *args)
{
    int64_t rows = tensor_rows(args->logits);
    int64_t columns = tensor_columns(args->logits);
    int64_t grain = cpu_row_grain(columns);
    int64_t chunks = cpu_chunk_count(rows, grain);
    int64_t room = (columns / 64 + 1) * 64;
    float *scratch = cpu_scratch(be, (size_t)omp_get_max_threads() * (size_t)room * sizeof(float));
    if (scratch == NULL) {
        return;
    }
#pragma omp parallel for schedule(static) if (chunks > 1)
    for (int64_t i = 0; i < chunks; i++) {
        struct cpu_range r = cpu_chunk(rows, grain, i);
        for (int64_t row = r.first; row < r.last; row++) {
            entropy_row(args, row, columns, scratch + omp_get_thread_num() * room);
        }
    }
}
