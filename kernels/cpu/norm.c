/* RMSNorm, forward and backward (formulas in kernels/ops.h). Sums over a row or over tokens are
 * taken in double, a block of at most CPU_BLOCK values at a time in fp32. */
#include <math.h>

#include "kernels/cpu/cpu.h"

enum { COLUMN_GRAIN = 64 };

static double row_sum_squares(const struct tensor *x, int64_t first, int64_t count)
{
    float buffer[CPU_BLOCK];
    double total = 0.0;
    for (int64_t at = 0; at < count; at += CPU_BLOCK) {
        int64_t length = cpu_min(CPU_BLOCK, count - at);
        const float *v = cpu_read(x, first + at, length, buffer);
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < length; i++) {
            sum += v[i] * v[i];
        }
        total += (double)sum;
    }
    return total;
}

static void forward_row(const struct rmsnorm_forward *args, int64_t row, int64_t columns)
{
    float x_buffer[CPU_BLOCK];
    float w_buffer[CPU_BLOCK];
    float y_buffer[CPU_BLOCK];
    double mean = row_sum_squares(args->x, row * columns, columns) / (double)columns;
    float rstd = (float)(1.0 / sqrt(mean + (double)args->eps));
    ((float *)args->rstd->data)[row] = rstd;
    for (int64_t at = 0; at < columns; at += CPU_BLOCK) {
        int64_t length = cpu_min(CPU_BLOCK, columns - at);
        int64_t first = row * columns + at;
        const float *x = cpu_read(args->x, first, length, x_buffer);
        const float *w = cpu_read(args->weight, at, length, w_buffer);
        float *y = cpu_write(args->y, first, y_buffer);
#pragma omp simd
        for (int64_t i = 0; i < length; i++) {
            y[i] = x[i] * rstd * w[i];
        }
        cpu_store(args->y, first, y, length);
    }
}

void cpu_rmsnorm_forward(struct backend *be, const struct rmsnorm_forward *args)
{
    (void)be;
    int64_t rows = tensor_rows(args->x);
    int64_t columns = tensor_columns(args->x);
    int64_t grain = cpu_row_grain(columns);
    int64_t chunks = cpu_chunk_count(rows, grain);
#pragma omp parallel for schedule(static) if (chunks > 1)
    for (int64_t i = 0; i < chunks; i++) {
        struct cpu_range r = cpu_chunk(rows, grain, i);
        for (int64_t row = r.first; row < r.last; row++) {
            forward_row(args, row, columns);
        }
    }
}

/* mean over the row of dy * weight * x. */
static float backward_mean(const struct rmsnorm_backward *args, int64_t row, int64_t columns)
{
    float x_buffer[CPU_BLOCK];
    float w_buffer[CPU_BLOCK];
    float dy_buffer[CPU_BLOCK];
    double total = 0.0;
    for (int64_t at = 0; at < columns; at += CPU_BLOCK) {
        int64_t length = cpu_min(CPU_BLOCK, columns - at);
        const float *x = cpu_read(args->x, row * columns + at, length, x_buffer);
        const float *dy = cpu_read(args->dy, row * columns + at, length, dy_buffer);
        const float *w = cpu_read(args->weight, at, length, w_buffer);
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < length; i++) {
            sum += dy[i] * w[i] * x[i];
        }
        total += (double)sum;
    }
    return (float)(total / (double)columns);
}

static void backward_row(const struct rmsnorm_backward *args, int64_t row, int64_t columns)
{
    float x_buffer[CPU_BLOCK];
    float w_buffer[CPU_BLOCK];
    float dy_buffer[CPU_BLOCK];
    float dx[CPU_BLOCK];
    float rstd = ((const float *)args->rstd->data)[row];
    float pull = rstd * rstd * backward_mean(args, row, columns);
    for (int64_t at = 0; at < columns; at += CPU_BLOCK) {
        int64_t length = cpu_min(CPU_BLOCK, columns - at);
        int64_t first = row * columns + at;
        const float *x = cpu_read(args->x, first, length, x_buffer);
        const float *dy = cpu_read(args->dy, first, length, dy_buffer);
        const float *w = cpu_read(args->weight, at, length, w_buffer);
        cpu_load(dx, args->dx, first, length);
#pragma omp simd
        for (int64_t i = 0; i < length; i++) {
            dx[i] += rstd * (dy[i] * w[i] - x[i] * pull);
        }
        cpu_store(args->dx, first, dx, length);
    }
}

/* dweight for one range of columns: the tokens in ascending order, so that a column's sum never
 * depends on how columns are dealt out. */
static void backward_weight(const struct rmsnorm_backward *args, struct cpu_range r)
{
    float x_buffer[COLUMN_GRAIN];
    float dy_buffer[COLUMN_GRAIN];
    float dw[COLUMN_GRAIN];
    double total[COLUMN_GRAIN] = { 0.0 };
    int64_t columns = tensor_columns(args->x);
    int64_t rows = tensor_rows(args->x);
    int64_t length = r.last - r.first;
    const float *rstd = args->rstd->data;
    for (int64_t row = 0; row < rows; row++) {
        const float *x = cpu_read(args->x, row * columns + r.first, length, x_buffer);
        const float *dy = cpu_read(args->dy, row * columns + r.first, length, dy_buffer);
#pragma omp simd
        for (int64_t i = 0; i < length; i++) {
            total[i] += (double)(dy[i] * x[i] * rstd[row]);
        }
    }
    cpu_load(dw, args->dweight, r.first, length);
    for (int64_t i = 0; i < length; i++) {
        dw[i] = (float)((double)dw[i] + total[i]);
    }
    cpu_store(args->dweight, r.first, dw, length);
}

void cpu_rmsnorm_backward(struct backend *be, const struct rmsnorm_backward *args)
{
    (void)be;
    int64_t rows = tensor_rows(args->x);
    int64_t columns = tensor_columns(args->x);
    int64_t grain = cpu_row_grain(columns);
    int64_t chunks = cpu_chunk_count(rows, grain);
#pragma omp parallel for schedule(static) if (chunks > 1)
    for (int64_t i = 0; i < chunks; i++) {
        struct cpu_range r = cpu_chunk(rows, grain, i);
        for (int64_t row = r.first; row < r.last; row++) {
            backward_row(args, row, columns);
            cpu_capture_row(args->capture, args->dx, row);
        }
    }
    if (args->dweight == NULL) {
        return;
    }
    int64_t parts = cpu_chunk_count(columns, COLUMN_GRAIN);
#pragma omp parallel for schedule(static) if (parts > 1)
    for (int64_t i = 0; i < parts; i++) {
        backward_weight(args, cpu_chunk(columns, COLUMN_GRAIN, i));
    }
}
