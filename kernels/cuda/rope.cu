/*
 * Rotary position embedding, in place (formula in kernels/ops.h). A block has a row, a thread
 * rotates up to eight pairs of one head at a time.
 *
 * Floor, bytes a token in bf16: 4 for each rotated element (the table stays in the cache), and 2R
 * for R captured columns.
 */
#include "kernels/cuda/capture.cuh"
#include "kernels/cuda/check.cuh"
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/vector.cuh"

struct rotation {
    struct view x, table;
    const int32_t *positions;
    int64_t width; /* elements of a row of x */
    int64_t heads;
    int64_t half; /* pairs of a head */
    float direction;
    struct captured captured;
    bool wide;
};

static __global__ void rope_kernel(struct rotation r, int64_t groups)
{
    int64_t row = blockIdx.x;
    for (int64_t number = threadIdx.x; number < r.heads * groups; number += blockDim.x) {
        int64_t at = number % groups * VECTOR;
        int64_t first = row * r.width + number / groups * 2 * r.half + at;
        int64_t turn = r.positions[row] * 2 * r.half + at;
        int n = vector_count(at, r.half);
        float a[VECTOR];
        float b[VECTOR];
        float cosine[VECTOR];
        float sine[VECTOR];
        load8(a, r.x, first, n, r.wide);
        load8(b, r.x, first + r.half, n, r.wide);
        load8(cosine, r.table, turn, n, r.wide);
        load8(sine, r.table, turn + r.half, n, r.wide);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            float s = r.direction * sine[i];
            float low = a[i];
            a[i] = low * cosine[i] - b[i] * s;
            b[i] = b[i] * cosine[i] + low * s;
        }
        store8(r.x, first, a, n, r.wide);
        store8(r.x, first + r.half, b, n, r.wide);
    }
    capture_row(&r.captured, r.x, row, r.width);
}

void cuda_rope(struct backend *be, const struct rope *args)
{
    int64_t half = args->head_size / 2;
    int64_t rows = tensor_rows(args->x);
    struct rotation r = { view_of(args->x),
                          view_of(args->table),
                          (const int32_t *)args->positions->data,
                          tensor_columns(args->x),
                          args->heads,
                          half,
                          args->inverse ? -1.0f : 1.0f,
                          captured_of(args->capture),
                          view_has_wide_rows(args->x) && view_is_wide(args->table) &&
                              half % VECTOR == 0 };
    int64_t groups = vectors_of(half);
    if (rows > 0) {
        LAUNCH(rope_kernel, (unsigned)rows, row_threads(r.heads * groups * VECTOR), 0,
               cuda_stream(be), r, groups);
    }
    cuda_check(be, "rope");
}
