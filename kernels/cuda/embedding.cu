/*
 * Rows of the embedding table, their gradient, and which of them occur.
 *
 * The backward adds the terms of a table row in the order of the tokens, with a single store: the
 * tokens are sorted by (id, place), a block finds the run of an id where it begins, and adds its
 * terms.
 *
 * Floor, bytes in bf16: forward 4C a token; backward 2C a token and 4C for each id that occurs.
 */
#include "kernels/cuda/check.cuh"
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/scratch.h"
#include "kernels/cuda/sort.cuh"
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

enum { COLUMN_THREADS = 128, COLUMNS_EACH = 1024 };

static __global__ void token_keys_kernel(uint64_t *keys, const int32_t *ids, int64_t tokens)
{
    int64_t token = thread_number();
    if (token < tokens) {
        keys[token] = ((uint64_t)(uint32_t)ids[token] << 32) | (uint32_t)token;
    }
}

/* ---- backward ------------------------------------------------------------------------------- */

/* Block (x, y): the run that begins at key x, if one does, in columns from y * COLUMNS_EACH on. */
static __global__ void embedding_backward_kernel(struct view dtable, struct view dy,
                                                 const uint64_t *keys, int64_t tokens,
                                                 int64_t columns, bool wide)
{
    int64_t first = blockIdx.x;
    uint32_t id = (uint32_t)(keys[first] >> 32);
    if (first > 0 && (uint32_t)(keys[first - 1] >> 32) == id) {
        return;
    }
    int64_t at = (int64_t)blockIdx.y * COLUMNS_EACH + threadIdx.x * VECTOR;
    if (at >= columns) {
        return;
    }
    float sum[VECTOR];
    int n = vector_count(at, columns);
    load8(sum, dtable, id * columns + at, n, wide);
    for (int64_t i = first; i < tokens && (uint32_t)(keys[i] >> 32) == id; i++) {
        float v[VECTOR];
        load8(v, dy, (int64_t)(uint32_t)keys[i] * columns + at, n, wide);
#pragma unroll
        for (int k = 0; k < VECTOR; k++) {
            sum[k] += v[k];
        }
    }
    store8(dtable, id * columns + at, sum, n, wide);
}

void cuda_embedding_backward(struct backend *be, struct tensor *dtable, const struct tensor *dy,
                             const struct tensor *ids)
{
    int64_t tokens = tensor_rows(dy);
    int64_t columns = tensor_columns(dy);
    if (tokens == 0 || columns == 0) {
        return;
    }
    uint64_t *keys = (uint64_t *)cuda_scratch(be, scratch_embedding_backward(dy));
    if (keys == NULL) {
        return;
    }
    LAUNCH(token_keys_kernel, cuda_blocks(tokens), BLOCK_THREADS, 0, cuda_stream(be), keys,
           (const int32_t *)ids->data, tokens);
    const uint64_t *sorted = cuda_sort(be, keys, keys + tokens, tokens);
    dim3 grid((unsigned)tokens, (unsigned)((columns + COLUMNS_EACH - 1) / COLUMNS_EACH));
    LAUNCH(embedding_backward_kernel, grid, COLUMN_THREADS, 0, cuda_stream(be), view_of(dtable),
           view_of(dy), sorted, tokens, columns, view_has_wide_rows(dy) && view_is_wide(dtable));
    cuda_check(be, "embedding_backward");
}

/* ---- distinct ids --------------------------------------------------------------------------- */

static __global__ void nowhere_kernel(int32_t *room, int64_t words, int32_t *index, int64_t slots)
{
    int64_t i = thread_number();
    if (i < words) {
        room[i] = -1;
    }
    if (i < slots) {
        index[i] = -1;
    }
}

/* Threads whose tokens share a word write the same number. */
static __global__ void occurs_kernel(int32_t *room, const int32_t *ids, int64_t tokens)
{
    int64_t token = thread_number();
    if (token < tokens) {
        room[ids[token]] = 0;
    }
}

/* One block numbers the words that occur: each thread counts those of a run of its own, then knows
 * from the counts of the threads before it where its numbers begin. */
static __global__ void number_kernel(int32_t *room, int32_t *index, int64_t words)
{
    __shared__ int32_t held[BLOCK_THREADS];
    int64_t each = (words + BLOCK_THREADS - 1) / BLOCK_THREADS;
    int64_t first = threadIdx.x * each;
    int64_t last = first + each < words ? first + each : words;
    int32_t count = 0;
    for (int64_t w = first; w < last; w++) {
        count += room[w] >= 0;
    }
    int32_t sum = count;
    held[threadIdx.x] = sum;
    __syncthreads();
    for (unsigned distance = 1; distance < BLOCK_THREADS; distance *= 2) {
        int32_t before = threadIdx.x >= distance ? held[threadIdx.x - distance] : 0;
        __syncthreads();
        sum += before;
        held[threadIdx.x] = sum;
        __syncthreads();
    }
    int32_t slot = sum - count;
    for (int64_t w = first; w < last; w++) {
        if (room[w] >= 0) {
            index[slot] = (int32_t)w;
            room[w] = slot++;
        }
    }
}

static __global__ void slots_kernel(int32_t *slots, const int32_t *room, const int32_t *ids,
                                    int64_t tokens)
{
    int64_t token = thread_number();
    if (token < tokens) {
        slots[token] = room[ids[token]];
    }
}

void cuda_distinct(struct backend *be, const struct distinct *args)
{
    const int32_t *ids = (const int32_t *)args->ids->data;
    int32_t *room = (int32_t *)args->room->data;
    int32_t *index = (int32_t *)args->index->data;
    int64_t tokens = tensor_count(args->ids);
    int64_t words = tensor_count(args->room);
    int64_t slots = tensor_count(args->index);
    int64_t most = words > slots ? words : slots;
    if (tokens > 0 && words > 0) {
        LAUNCH(nowhere_kernel, cuda_blocks(most), BLOCK_THREADS, 0, cuda_stream(be), room, words,
               index, slots);
        LAUNCH(occurs_kernel, cuda_blocks(tokens), BLOCK_THREADS, 0, cuda_stream(be), room, ids,
               tokens);
        LAUNCH(number_kernel, 1, BLOCK_THREADS, 0, cuda_stream(be), room, index, words);
        LAUNCH(slots_kernel, cuda_blocks(tokens), BLOCK_THREADS, 0, cuda_stream(be),
               (int32_t *)args->slots->data, room, ids, tokens);
    }
    cuda_check(be, "distinct");
}
