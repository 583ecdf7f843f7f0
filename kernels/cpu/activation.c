/* SwiGLU, forward and backward (formulas in kernels/ops.h). */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/math.h"

static void forward_row(const struct tensor *y, const struct tensor *gate_up, int64_t row,
                        int64_t size)
{
    float gate_buffer[CPU_BLOCK];
    float up_buffer[CPU_BLOCK];
    float y_buffer[CPU_BLOCK];
    for (int64_t at = 0; at < size; at += CPU_BLOCK) {
        int64_t length = cpu_min(CPU_BLOCK, size - at);
        int64_t first = 2 * row * size + at;
        const float *gate = cpu_read(gate_up, first, length, gate_buffer);
        const float *up = cpu_read(gate_up, first + size, length, up_buffer);
        float *out = cpu_write(y, row * size + at, y_buffer);
#pragma omp simd
        for (int64_t i = 0; i < length; i++) {
            out[i] = gate[i] / (1.0f + cpu_exp(-gate[i])) * up[i];
        }
        cpu_store(y, row * size + at, out, length);
    }
}

/* d silu(g) / dg = s (1 + g (1 - s)) with s the logistic function of g. The result may overwrite
 * gate and up: element i is read before it is written. */
static void backward_row(const struct tensor *dgate_up, const struct tensor *dy,
                         const struct tensor *gate_up, int64_t row, int64_t size)
{
    float buffer[5][CPU_BLOCK];
    for (int64_t at = 0; at < size; at += CPU_BLOCK) {
        int64_t length = cpu_min(CPU_BLOCK, size - at);
        int64_t first = 2 * row * size + at;
        const float *gate = cpu_read(gate_up, first, length, buffer[0]);
        const float *up = cpu_read(gate_up, first + size, length, buffer[1]);
        const float *dout = cpu_read(dy, row * size + at, length, buffer[2]);
        float *dgate = cpu_write(dgate_up, first, buffer[3]);
        float *dup = cpu_write(dgate_up, first + size, buffer[4]);
#pragma omp simd
        for (int64_t i = 0; i < length; i++) {
            float g = gate[i];
            float s = 1.0f / (1.0f + cpu_exp(-g));
            float slope = dout[i] * up[i] * s * (1.0f + g * (1.0f - s));
            dup[i] = dout[i] * g * s;
            dgate[i] = slope;
        }
        cpu_store(dgate_up, first, dgate, length);
        cpu_store(dgate_up, first + size, dup, length);
    }
}

void cpu_swiglu_forward(struct backend *be, struct tensor *y, const struct tensor *gate_up)
{
    (void)be;
    int64_t rows = tensor_rows(y);
    int64_t size = tensor_columns(y);
    int64_t grain = cpu_row_grain(size);
    int64_t chunks = cpu_chunk_count(rows, grain);
#pragma omp parallel for schedule(static) if (chunks > 1)
    for (int64_t i = 0; i < chunks; i++) {
        struct cpu_range r = cpu_chunk(rows, grain, i);
        for (int64_t row = r.first; row < r.last; row++) {
            forward_row(y, gate_up, row, size);
        }
    }
}

void cpu_swiglu_backward(struct backend *be, const struct swiglu_backward *args)
{
    (void)be;
    int64_t rows = tensor_rows(args->dy);
    int64_t size = tensor_columns(args->dy);
    int64_t grain = cpu_row_grain(size);
    int64_t chunks = cpu_chunk_count(rows, grain);
#pragma omp parallel for schedule(static) if (chunks > 1)
    for (int64_t i = 0; i < chunks; i++) {
        struct cpu_range r = cpu_chunk(rows, grain, i);
        for (int64_t row = r.first; row < r.last; row++) {
            backward_row(args->dgate_up, args->dy, args->gate_up, row, size);
            cpu_capture_row(args->capture, args->dgate_up, row);
        }
    }
}
