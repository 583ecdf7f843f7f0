/*
 * SwiGLU, forward and backward (formulas in kernels/ops.h). A thread takes eight gates and their
 * eight ups at a time; in the backward a block has a row of its own, so that it can capture columns
 * of it.
 *
 * Floor, bytes a token in bf16: forward 6F; backward 10F, and 2R for R captured columns.
 */
#include "kernels/cuda/capture.cuh"
#include "kernels/cuda/check.cuh"
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/vector.cuh"

static __global__ void swiglu_forward_kernel(struct view y, struct view gate_up, int64_t rows,
                                             int64_t size, bool wide)
{
    int64_t groups = (size + VECTOR - 1) / VECTOR;
    int64_t row = thread_number() / groups;
    int64_t at = thread_number() % groups * VECTOR;
    if (row >= rows) {
        return;
    }
    float gate[VECTOR];
    float up[VECTOR];
    int n = vector_count(at, size);
    load8(gate, gate_up, 2 * row * size + at, n, wide);
    load8(up, gate_up, 2 * row * size + size + at, n, wide);
#pragma unroll
    for (int i = 0; i < VECTOR; i++) {
        gate[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
    }
    store8(y, row * size + at, gate, n, wide);
}

struct swiglu_gradient {
    struct view dgate_up, dy, gate_up;
    int64_t size;
    struct captured captured;
    bool wide;
};

/* The result may overwrite gate and up: a thread reads its elements before it writes them. */
static __global__ void swiglu_backward_kernel(struct swiglu_gradient s)
{
    int64_t row = blockIdx.x;
    for (int64_t at = threadIdx.x * VECTOR; at < s.size; at += blockDim.x * VECTOR) {
        float gate[VECTOR];
        float up[VECTOR];
        float dout[VECTOR];
        int n = vector_count(at, s.size);
        int64_t first = 2 * row * s.size + at;
        load8(gate, s.gate_up, first, n, s.wide);
        load8(up, s.gate_up, first + s.size, n, s.wide);
        load8(dout, s.dy, row * s.size + at, n, s.wide);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            float g = gate[i];
            float sigmoid = 1.0f / (1.0f + expf(-g));
            gate[i] = dout[i] * up[i] * sigmoid * (1.0f + g * (1.0f - sigmoid));
            up[i] = dout[i] * g * sigmoid;
        }
        store8(s.dgate_up, first, gate, n, s.wide);
        store8(s.dgate_up, first + s.size, up, n, s.wide);
    }
    capture_row(&s.captured, s.dgate_up, row, 2 * s.size);
}

void cuda_swiglu_forward(struct backend *be, struct tensor *y, const struct tensor *gate_up)
{
    int64_t rows = tensor_rows(y);
    int64_t size = tensor_columns(y);
    bool wide = view_has_wide_rows(y) && view_is_wide(gate_up);
    if (rows > 0 && size > 0) {
        LAUNCH(swiglu_forward_kernel, cuda_blocks(rows * vectors_of(size)), BLOCK_THREADS, 0,
               cuda_stream(be), view_of(y), view_of(gate_up), rows, size, wide);
    }
    cuda_check(be, "swiglu_forward");
}

void cuda_swiglu_backward(struct backend *be, const struct swiglu_backward *args)
{
    int64_t rows = tensor_rows(args->dy);
    struct swiglu_gradient s = { view_of(args->dgate_up),
                                 view_of(args->dy),
                                 view_of(args->gate_up),
                                 tensor_columns(args->dy),
                                 captured_of(args->capture),
                                 view_has_wide_rows(args->dy) && view_is_wide(args->gate_up) &&
                                     view_is_wide(args->dgate_up) };
    if (rows > 0 && s.size > 0) {
        LAUNCH(swiglu_backward_kernel, (unsigned)rows, row_threads(s.size), 0, cuda_stream(be), s);
    }
    cuda_check(be, "swiglu_backward");
}
