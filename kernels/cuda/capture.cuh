/*
 * Columns of a row that a block has just written, stored a second time side by side (struct capture
 * of kernels/ops.h).
 *
 * The block reads them back: they lie in the caches of the processor that wrote them, so that
 * memory sees only the 2R bytes that are written. The chosen columns ascend, and neighbouring
 * threads store to neighbouring slots.
 */
#ifndef WINDROW_KERNELS_CUDA_CAPTURE_CUH
#define WINDROW_KERNELS_CUDA_CAPTURE_CUH

#include "kernels/cuda/vector.cuh"

struct captured {
    struct view out;
    const int32_t *index; /* NULL: nothing is captured */
    int64_t slots;
};

static inline struct captured captured_of(const struct capture *capture)
{
    struct captured c = { { NULL, false }, NULL, 0 };
    if (capture != NULL) {
        c.out = view_of(capture->out);
        c.index = (const int32_t *)capture->index->data;
        c.slots = tensor_count(capture->index);
    }
    return c;
}

/* Called by all threads of the block that wrote row `row` of x, after their last store. */
static __device__ inline void capture_row(const struct captured *c, struct view x, int64_t row,
                                          int64_t columns)
{
    if (c->index == NULL) {
        return;
    }
    __syncthreads();
    for (int64_t j = threadIdx.x; j < c->slots; j += blockDim.x) {
        int64_t chosen = c->index[j];
        put(c->out, row * c->slots + j, chosen < 0 ? 0.0f : get(x, row * columns + chosen));
    }
}

#endif
