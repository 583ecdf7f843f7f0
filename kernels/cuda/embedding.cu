/*
 * Rows of the embedding table, and their gradient.
 *
 * The backward adds the terms of a table row in the order of the tokens, with a single store: the
 * tokens of one id are chained by a first kernel, in which each token looks for the next of its
 * kind, and the block of a chain's first token walks along it.
 */
#include "kernels/cuda/check.cuh"
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/vector.cuh"

static __global__ void embedding_forward_kernel(struct view y, struct view table,
                                                const int32_t *ids, int64_t columns, bool wide)
{
    int64_t row = blockIdx.x;
    int64_t from = ids[row] * columns;
    for (int64_t at = threadIdx.x * VECTOR; at < columns; at += BLOCK_THREADS * VECTOR) {
        float v[VECTOR];
        int n = vector_count(at, columns);
        load8(v, table, from + at, n, wide);
        store8(y, row * columns + at, v, n, wide);
    }
}

void cuda_embedding_forward(struct backend *be, struct tensor *y, const struct tensor *table,
                            const struct tensor *ids)
{
    int64_t rows = tensor_rows(y);
    if (rows > 0) {
        LAUNCH(embedding_forward_kernel, (unsigned)rows, BLOCK_THREADS, 0, cuda_stream(be),
               view_of(y), view_of(table), (const int32_t *)ids->data, tensor_columns(y),
               view_has_wide_rows(y) && view_is_wide(table));
    }
    cuda_check(be, "embedding_forward");
}

/* next[t] = the next token of the same id, or -1; follows[t] = 1 if t is the next of another one.
 */
static __global__ void chain_kernel(int32_t *next, int32_t *follows, const int32_t *ids,
                                    int64_t tokens)
{
    int64_t token = thread_number();
    if (token >= tokens) {
        return;
    }
    int64_t at = token + 1;
    while (at < tokens && ids[at] != ids[token]) {
        at++;
    }
    next[token] = at < tokens ? (int32_t)at : -1;
    if (at < tokens) {
        follows[at] = 1;
    }
}

static __global__ void embedding_backward_kernel(struct view dtable, struct view dy,
                                                 const int32_t *ids, const int32_t *next,
                                                 const int32_t *follows, int64_t columns, bool wide)
{
    if (follows[blockIdx.x] != 0) {
        return;
    }
    int64_t to = ids[blockIdx.x] * columns;
    for (int64_t at = threadIdx.x * VECTOR; at < columns; at += BLOCK_THREADS * VECTOR) {
        float sum[VECTOR];
        float v[VECTOR];
        int n = vector_count(at, columns);
        load8(sum, dtable, to + at, n, wide);
        for (int64_t token = blockIdx.x; token >= 0; token = next[token]) {
            load8(v, dy, token * columns + at, n, wide);
#pragma unroll
            for (int i = 0; i < VECTOR; i++) {
                sum[i] += v[i];
            }
        }
        store8(dtable, to + at, sum, n, wide);
    }
}

void cuda_embedding_backward(struct backend *be, struct tensor *dtable, const struct tensor *dy,
                             const struct tensor *ids)
{
    int64_t tokens = tensor_rows(dy);
    const int32_t *id = (const int32_t *)ids->data;
    if (tokens == 0) {
        return;
    }
    int32_t *next = (int32_t *)cuda_scratch(be, 2 * (size_t)tokens * sizeof *next);
    if (next == NULL) {
        return;
    }
    int32_t *follows = next + tokens;
    cudaMemsetAsync(follows, 0, (size_t)tokens * sizeof *follows, cuda_stream(be));
    LAUNCH(chain_kernel, cuda_blocks(tokens), BLOCK_THREADS, 0, cuda_stream(be), next, follows, id,
           tokens);
    LAUNCH(embedding_backward_kernel, (unsigned)tokens, BLOCK_THREADS, 0, cuda_stream(be),
           view_of(dtable), view_of(dy), id, next, follows, tensor_columns(dy),
           view_has_wide_rows(dy) && view_is_wide(dtable));
    cuda_check(be, "embedding_backward");
}
