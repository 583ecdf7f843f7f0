/* SwiGLU, forward and backward (formulas in kernels/ops.h). A thread takes eight gates and their
 * eight ups. */
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

/* The result may overwrite gate and up: a thread reads its elements before it writes them. */
static __global__ void swiglu_backward_kernel(struct view dgate_up, struct view dy,
                                              struct view gate_up, int64_t rows, int64_t size,
                                              bool wide)
{
    int64_t groups = (size + VECTOR - 1) / VECTOR;
    int64_t row = thread_number() / groups;
    int64_t at = thread_number() % groups * VECTOR;
    if (row >= rows) {
        return;
    }
    float gate[VECTOR];
    float up[VECTOR];
    float dout[VECTOR];
    int n = vector_count(at, size);
    int64_t first = 2 * row * size + at;
    load8(gate, gate_up, first, n, wide);
    load8(up, gate_up, first + size, n, wide);
    load8(dout, dy, row * size + at, n, wide);
#pragma unroll
    for (int i = 0; i < VECTOR; i++) {
        float g = gate[i];
        float s = 1.0f / (1.0f + expf(-g));
        gate[i] = dout[i] * up[i] * s * (1.0f + g * (1.0f - s));
        up[i] = dout[i] * g * s;
    }
    store8(dgate_up, first, gate, n, wide);
    store8(dgate_up, first + size, up, n, wide);
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

void cuda_swiglu_backward(struct backend *be, struct tensor *dgate_up, const struct tensor *dy,
                          const struct tensor *gate_up)
{
    int64_t rows = tensor_rows(dy);
    int64_t size = tensor_columns(dy);
    bool wide = view_has_wide_rows(dy) && view_is_wide(gate_up) && view_is_wide(dgate_up);
    if (rows > 0 && size > 0) {
        LAUNCH(swiglu_backward_kernel, cuda_blocks(rows * vectors_of(size)), BLOCK_THREADS, 0,
               cuda_stream(be), view_of(dgate_up), view_of(dy), view_of(gate_up), rows, size, wide);
    }
    cuda_check(be, "swiglu_backward");
}
