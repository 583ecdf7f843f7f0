/*
 * Attention of one new token a row against cached keys and values.
 *
 * A block takes one query head: its warps walk over tiles of 32 positions, one a lane, each with a
 * running maximum and sum of its own; in the end they are put together in the order of the warps.
 */
#include "kernels/cuda/check.cuh"
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/vector.cuh"

enum { WARPS = 4, THREADS = WARPS * WARP, HEAD_MAX = 128, PARTS = HEAD_MAX / WARP };

#define NO_SCORE (-1e30f)

struct decode {
    struct view out, keys, values, qkv;
    int64_t position;
    int64_t held; /* positions of a cache */
    int64_t heads;
    int64_t kv_heads;
    int size;
    float scale;
};

/* The new keys and values of a row of the batch go to the caches. Grid: rows of the batch. */
static __global__ void decode_store_kernel(struct decode c)
{
    int64_t width = c.kv_heads * c.size;
    int64_t from = blockIdx.x * (c.heads * c.size + 2 * width) + c.heads * c.size;
    int64_t to = (blockIdx.x * c.held + c.position) * width;
    for (int64_t i = threadIdx.x; i < width; i += THREADS) {
        put(c.keys, to + i, get(c.qkv, from + i));
        put(c.values, to + i, get(c.qkv, from + width + i));
    }
}

/* Grid: (query heads, rows of the batch). */
static __global__ void __launch_bounds__(THREADS) attention_decode_kernel(struct decode c)
{
    __shared__ float query[HEAD_MAX];
    __shared__ float weight[WARPS][WARP];
    __shared__ float partial[WARPS][HEAD_MAX];
    __shared__ float tops[WARPS];
    __shared__ float totals[WARPS];
    int lane = (int)threadIdx.x % WARP;
    int warp = (int)threadIdx.x / WARP;
    int64_t width = c.kv_heads * c.size;
    int64_t group = blockIdx.x / (c.heads / c.kv_heads);
    int64_t cache = blockIdx.y * c.held * width + group * c.size;
    int64_t row = blockIdx.y * (c.heads * c.size + 2 * width) + blockIdx.x * c.size;
    float sum[PARTS] = { 0.0f };
    float most = NO_SCORE;
    float total = 0.0f;
    for (int d = (int)threadIdx.x; d < c.size; d += THREADS) {
        query[d] = get(c.qkv, row + d);
    }
    __syncthreads();
    for (int64_t first = warp * WARP; first <= c.position; first += THREADS) {
        int64_t at = first + lane;
        float x = NO_SCORE;
        if (at <= c.position) {
            float dot = 0.0f;
            for (int d = 0; d < c.size; d++) {
                dot = fmaf(query[d], get(c.keys, cache + at * width + d), dot);
            }
            x = dot * c.scale;
        }
        float top = warp_max(x);
        float now = top > most ? top : most;
        float p = at <= c.position ? expf(x - now) : 0.0f;
        float shrink = expf(most - now);
        total = total * shrink + warp_sum(p);
        most = now;
        weight[warp][lane] = p;
        __syncwarp();
        int count = c.position + 1 - first < WARP ? (int)(c.position + 1 - first) : WARP;
#pragma unroll
        for (int i = 0; i < PARTS; i++) {
            int d = lane + WARP * i;
            sum[i] *= shrink;
            for (int j = 0; d < c.size && j < count; j++) {
                float value = get(c.values, cache + (first + j) * width + d);
                sum[i] = fmaf(weight[warp][j], value, sum[i]);
            }
        }
        __syncwarp();
    }
#pragma unroll
    for (int i = 0; i < PARTS; i++) {
        partial[warp][lane + WARP * i] = sum[i];
    }
    tops[warp] = most;
    totals[warp] = total;
    __syncthreads();
    float all = tops[0];
    for (int i = 1; i < WARPS; i++) {
        all = tops[i] > all ? tops[i] : all;
    }
    for (int d = (int)threadIdx.x; d < c.size; d += THREADS) {
        float above = 0.0f;
        float below = 0.0f;
        for (int i = 0; i < WARPS; i++) {
            float factor = expf(tops[i] - all);
            above = fmaf(factor, partial[i][d], above);
            below = fmaf(factor, totals[i], below);
        }
        put(c.out, (blockIdx.y * c.heads + blockIdx.x) * c.size + d, above / below);
    }
}

void cuda_attention_decode(struct backend *be, const struct attention_decode *args)
{
    const struct attention_shape *shape = &args->shape;
    if (shape->head_size > HEAD_MAX) {
        backend_fail(be, "attention_decode: cuda takes heads of at most %d, not %lld",
                     (int)HEAD_MAX, (long long)shape->head_size);
    }
    if (be->failed || shape->batch == 0) {
        return;
    }
    struct decode c = { view_of(args->out),    view_of(args->keys),
                        view_of(args->values), view_of(args->qkv),
                        args->position,        tensor_rows(args->keys) / shape->batch,
                        shape->heads,          shape->kv_heads,
                        (int)shape->head_size, shape->scale };
    dim3 grid((unsigned)c.heads, (unsigned)shape->batch);
    LAUNCH(decode_store_kernel, (unsigned)shape->batch, THREADS, 0, cuda_stream(be), c);
    LAUNCH(attention_decode_kernel, grid, THREADS, 0, cuda_stream(be), c);
    cuda_check(be, "attention_decode");
}
