/*
 * Causal attention in memory linear in the sequence, in fp32, without tensor cores: for fp32, and
 * for what the kernels in flash_forward.cu and flash_backward.cu do not take.
 *
 * A block of WARPS warps owns OWNED rows (queries, or keys in the last kernel), four a warp, and
 * walks over tiles of TILE rows of the other kind, one a lane: a score is a dot product that one
 * lane computes, a maximum or sum over the tile one butterfly over the lanes. For the products with
 * probabilities, a lane holds every 32nd element of the head. Rows of a tile are one element apart
 * from a multiple of 32, so that neither way of reading meets a bank twice.
 *
 * Forward: Milakov, Gimelshein, "Online normalizer calculation for softmax", arXiv 1805.02867.
 * Backward: Dao, "FlashAttention-2", arXiv 2307.08691, algorithm 2, as two kernels: one owns
 * queries and sums their gradients, one owns keys and sums theirs, over the query heads of the
 * group and the tiles in a fixed order.
 */
#include "kernels/cuda/check.cuh"
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/flash.cuh"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/vector.cuh"

enum {
    WARPS = 4,
    THREADS = WARPS * WARP,
    EACH = 4, /* owned rows of a warp */
    OWNED = WARPS * EACH,
    TILE = WARP,
    HEAD_MAX = 128,
    PARTS = HEAD_MAX / WARP, /* elements of a row that a lane holds */
};

/* Below every score, and finite: differences with it are not NaN. */
#define NO_SCORE (-1e30f)

struct scene {
    struct view qkv, out, dout, dqkv;
    float *lse;
    float *delta;
    const int32_t *starts; /* or NULL */
    int64_t sequence;
    int64_t heads;
    int64_t kv_heads;
    int size;      /* of a head */
    int64_t width; /* of a row of qkv */
    float scale;
};

/* rows (count, stride) = rows [first, first + count) of one head, zeros beyond the sequence.
 * `token` is the first of the row of the batch, `column` where the head begins. */
static __device__ void load_rows(float *rows, int stride, int count, struct view from,
                                 const struct scene *s, int64_t token, int64_t first, int64_t width,
                                 int64_t column)
{
    for (int i = (int)threadIdx.x; i < count * s->size; i += THREADS) {
        int row = i / s->size;
        int d = i % s->size;
        bool inside = first + row < s->sequence;
        rows[row * stride + d] =
            inside ? get(from, (token + first + row) * width + column + d) : 0.0f;
    }
}

/* dot[r] = owned row r of this warp times the tile's row of this lane. */
static __device__ inline void dots(float dot[EACH], const float *owned, const float *tile, int size)
{
    const float *mine = owned + threadIdx.x / WARP * EACH * size;
    const float *other = tile + threadIdx.x % WARP * (size + 1);
#pragma unroll
    for (int r = 0; r < EACH; r++) {
        dot[r] = 0.0f;
    }
    for (int d = 0; d < size; d++) {
        float value = other[d];
#pragma unroll
        for (int r = 0; r < EACH; r++) {
            dot[r] = fmaf(mine[r * size + d], value, dot[r]);
        }
    }
}

/* sum[r][i] += sum over the tile of weight[r][j] * tile[j][lane + 32 i]; `weight` is this warp's.
 */
static __device__ inline void add_weighted(float sum[EACH][PARTS], const float *weight,
                                           const float *tile, int size)
{
    int lane = (int)threadIdx.x % WARP;
    for (int j = 0; j < TILE; j++) {
#pragma unroll
        for (int i = 0; i < PARTS; i++) {
            int d = lane + WARP * i;
            float value = d < size ? tile[j * (size + 1) + d] : 0.0f;
#pragma unroll
            for (int r = 0; r < EACH; r++) {
                sum[r][i] = fmaf(weight[r * TILE + j], value, sum[r][i]);
            }
        }
    }
}

static __device__ inline void clear(float sum[EACH][PARTS])
{
#pragma unroll
    for (int r = 0; r < EACH; r++) {
#pragma unroll
        for (int i = 0; i < PARTS; i++) {
            sum[r][i] = 0.0f;
        }
    }
}

/* Rows [first, ...) of one head = factor[r] * sum[r]. */
static __device__ inline void store_owned(struct view to, const struct scene *s, int64_t token,
                                          int64_t first, int64_t width, int64_t column,
                                          const float sum[EACH][PARTS], const float factor[EACH])
{
    int lane = (int)threadIdx.x % WARP;
#pragma unroll
    for (int r = 0; r < EACH; r++) {
        int64_t row = first + threadIdx.x / WARP * EACH + r;
#pragma unroll
        for (int i = 0; i < PARTS; i++) {
            int d = lane + WARP * i;
            if (row < s->sequence && d < s->size) {
                put(to, (token + row) * width + column + d, factor[r] * sum[r][i]);
            }
        }
    }
}

/* First key that a query sees; one past every key if the query is beyond the sequence. */
static __device__ inline int64_t first_key(const struct scene *s, int64_t token, int64_t query)
{
    if (query >= s->sequence) {
        return INT64_MAX;
    }
    return s->starts != NULL ? s->starts[token + query] : 0;
}

/* The first tile of keys that any query of the block needs: starts never fall along a sequence. */
static __device__ inline int64_t oldest_tile(const struct scene *s, int64_t token, int64_t first)
{
    return first_key(s, token, first) / TILE * TILE;
}

/* Grid: (blocks of queries, query heads, rows of the batch). */
static __global__ void __launch_bounds__(THREADS, 4) attention_forward_kernel(struct scene s)
{
    SHARED_POOL(float, pool);
    float *query = pool;
    float *key = query + OWNED * s.size;
    float *value = key + TILE * (s.size + 1);
    float *weight = value + TILE * (s.size + 1); /* (OWNED, TILE) */
    int lane = (int)threadIdx.x % WARP;
    int warp = (int)threadIdx.x / WARP;
    float *mine = weight + warp * EACH * TILE;
    int64_t first = (int64_t)blockIdx.x * OWNED;
    int64_t head = blockIdx.y;
    int64_t token = blockIdx.z * s.sequence;
    int64_t group = head / (s.heads / s.kv_heads);
    int64_t last = first + OWNED < s.sequence ? first + OWNED : s.sequence;
    float sum[EACH][PARTS];
    float most[EACH];
    float total[EACH];
    int64_t from[EACH];
    clear(sum);
#pragma unroll
    for (int r = 0; r < EACH; r++) {
        most[r] = NO_SCORE;
        total[r] = 0.0f;
        from[r] = first_key(&s, token, first + warp * EACH + r);
    }
    load_rows(query, s.size, OWNED, s.qkv, &s, token, first, s.width, head * s.size);
    for (int64_t at = oldest_tile(&s, token, first); at < last; at += TILE) {
        __syncthreads();
        load_rows(key, s.size + 1, TILE, s.qkv, &s, token, at, s.width, (s.heads + group) * s.size);
        load_rows(value, s.size + 1, TILE, s.qkv, &s, token, at, s.width,
                  (s.heads + s.kv_heads + group) * s.size);
        __syncthreads();
        float score[EACH];
        dots(score, query, key, s.size);
#pragma unroll
        for (int r = 0; r < EACH; r++) {
            bool seen = at + lane <= first + warp * EACH + r && at + lane >= from[r];
            float x = seen ? score[r] * s.scale : NO_SCORE;
            float top = warp_max(x);
            float now = top > most[r] ? top : most[r];
            float p = seen ? expf(x - now) : 0.0f;
            float shrink = expf(most[r] - now);
            total[r] = total[r] * shrink + warp_sum(p);
            most[r] = now;
            mine[r * TILE + lane] = p;
#pragma unroll
            for (int i = 0; i < PARTS; i++) {
                sum[r][i] *= shrink;
            }
        }
        __syncwarp();
        add_weighted(sum, mine, value, s.size);
    }
    float factor[EACH];
#pragma unroll
    for (int r = 0; r < EACH; r++) {
        int64_t row = first + warp * EACH + r;
        factor[r] = total[r] > 0.0f ? 1.0f / total[r] : 0.0f;
        if (lane == 0 && row < s.sequence) {
            s.lse[(blockIdx.z * s.heads + head) * s.sequence + row] = most[r] + logf(total[r]);
        }
    }
    store_owned(s.out, &s, token, first, s.heads * s.size, head * s.size, sum, factor);
}

/* delta = row sums of dout * out. Grid: (tokens, query heads), one warp. */
static __global__ void delta_kernel(struct scene s)
{
    int64_t at = ((int64_t)blockIdx.x * s.heads + blockIdx.y) * s.size;
    float sum = 0.0f;
    for (int d = (int)threadIdx.x; d < s.size; d += WARP) {
        sum = fmaf(get(s.dout, at + d), get(s.out, at + d), sum);
    }
    sum = warp_sum(sum);
    if (threadIdx.x == 0) {
        int64_t batch = blockIdx.x / s.sequence;
        int64_t row = blockIdx.x % s.sequence;
        s.delta[(batch * s.heads + blockIdx.y) * s.sequence + row] = sum;
    }
}

/* Gradients of queries. Grid as in the forward. */
static __global__ void __launch_bounds__(THREADS, 4) query_gradient_kernel(struct scene s)
{
    SHARED_POOL(float, pool);
    float *query = pool;
    float *dout = query + OWNED * s.size;
    float *key = dout + OWNED * s.size;
    float *value = key + TILE * (s.size + 1);
    float *weight = value + TILE * (s.size + 1);
    int lane = (int)threadIdx.x % WARP;
    int warp = (int)threadIdx.x / WARP;
    float *mine = weight + warp * EACH * TILE;
    int64_t first = (int64_t)blockIdx.x * OWNED;
    int64_t head = blockIdx.y;
    int64_t token = blockIdx.z * s.sequence;
    int64_t group = head / (s.heads / s.kv_heads);
    int64_t last = first + OWNED < s.sequence ? first + OWNED : s.sequence;
    const int64_t statistics = (blockIdx.z * s.heads + head) * s.sequence;
    float sum[EACH][PARTS];
    clear(sum);
    load_rows(query, s.size, OWNED, s.qkv, &s, token, first, s.width, head * s.size);
    load_rows(dout, s.size, OWNED, s.dout, &s, token, first, s.heads * s.size, head * s.size);
    for (int64_t at = oldest_tile(&s, token, first); at < last; at += TILE) {
        __syncthreads();
        load_rows(key, s.size + 1, TILE, s.qkv, &s, token, at, s.width, (s.heads + group) * s.size);
        load_rows(value, s.size + 1, TILE, s.qkv, &s, token, at, s.width,
                  (s.heads + s.kv_heads + group) * s.size);
        __syncthreads();
        float score[EACH];
        float slope[EACH];
        dots(score, query, key, s.size);
        dots(slope, dout, value, s.size);
#pragma unroll
        for (int r = 0; r < EACH; r++) {
            int64_t row = first + warp * EACH + r;
            bool seen = at + lane <= row && at + lane >= first_key(&s, token, row);
            float p = seen ? expf(score[r] * s.scale - s.lse[statistics + row]) : 0.0f;
            float delta = seen ? s.delta[statistics + row] : 0.0f;
            mine[r * TILE + lane] = p * (slope[r] - delta);
        }
        __syncwarp();
        add_weighted(sum, mine, key, s.size);
    }
    const float factor[EACH] = { s.scale, s.scale, s.scale, s.scale };
    store_owned(s.dqkv, &s, token, first, s.width, head * s.size, sum, factor);
}

/* Gradients of keys and values. Grid: (blocks of keys, key/value heads, rows of the batch). */
static __global__ void __launch_bounds__(THREADS, 4) key_gradient_kernel(struct scene s)
{
    SHARED_POOL(float, pool);
    float *key = pool;
    float *value = key + OWNED * s.size;
    float *query = value + OWNED * s.size;
    float *dout = query + TILE * (s.size + 1);
    float *weight = dout + TILE * (s.size + 1); /* (2, OWNED, TILE) */
    int lane = (int)threadIdx.x % WARP;
    int warp = (int)threadIdx.x / WARP;
    float *mine = weight + warp * EACH * TILE;
    float *mine_slope = mine + OWNED * TILE;
    int64_t first = (int64_t)blockIdx.x * OWNED;
    int64_t group = blockIdx.y;
    int64_t token = blockIdx.z * s.sequence;
    int64_t shared = s.heads / s.kv_heads;
    float dkey[EACH][PARTS];
    float dvalue[EACH][PARTS];
    clear(dkey);
    clear(dvalue);
    load_rows(key, s.size, OWNED, s.qkv, &s, token, first, s.width, (s.heads + group) * s.size);
    load_rows(value, s.size, OWNED, s.qkv, &s, token, first, s.width,
              (s.heads + s.kv_heads + group) * s.size);
    for (int64_t head = group * shared; head < (group + 1) * shared; head++) {
        const int64_t statistics = (blockIdx.z * s.heads + head) * s.sequence;
        for (int64_t at = first / TILE * TILE; at < s.sequence; at += TILE) {
            __syncthreads();
            load_rows(query, s.size + 1, TILE, s.qkv, &s, token, at, s.width, head * s.size);
            load_rows(dout, s.size + 1, TILE, s.dout, &s, token, at, s.heads * s.size,
                      head * s.size);
            __syncthreads();
            float score[EACH];
            float slope[EACH];
            int64_t row = at + lane;
            int64_t from = first_key(&s, token, row);
            bool inside = row < s.sequence;
            float lse = inside ? s.lse[statistics + row] : 0.0f;
            float delta = inside ? s.delta[statistics + row] : 0.0f;
            dots(score, key, query, s.size);
            dots(slope, value, dout, s.size);
#pragma unroll
            for (int r = 0; r < EACH; r++) {
                int64_t mine_key = first + warp * EACH + r;
                bool seen = inside && mine_key <= row && mine_key >= from;
                float p = seen ? expf(score[r] * s.scale - lse) : 0.0f;
                mine[r * TILE + lane] = p;
                mine_slope[r * TILE + lane] = p * (slope[r] - delta);
            }
            __syncwarp();
            add_weighted(dvalue, mine, dout, s.size);
            add_weighted(dkey, mine_slope, query, s.size);
        }
    }
    const float one[EACH] = { 1.0f, 1.0f, 1.0f, 1.0f };
    const float factor[EACH] = { s.scale, s.scale, s.scale, s.scale };
    store_owned(s.dqkv, &s, token, first, s.width, (s.heads + group) * s.size, dkey, factor);
    store_owned(s.dqkv, &s, token, first, s.width, (s.heads + s.kv_heads + group) * s.size, dvalue,
                one);
}

/* ---- launchers ------------------------------------------------------------------------------ */

static struct scene scene_make(const struct attention_shape *shape, const struct tensor *qkv,
                               const struct tensor *starts)
{
    struct scene s;
    memset(&s, 0, sizeof s);
    s.qkv = view_of(qkv);
    s.starts = starts != NULL ? (const int32_t *)starts->data : NULL;
    s.sequence = shape->sequence;
    s.heads = shape->heads;
    s.kv_heads = shape->kv_heads;
    s.size = (int)shape->head_size;
    s.width = (shape->heads + 2 * shape->kv_heads) * shape->head_size;
    s.scale = shape->scale;
    return s;
}

static bool size_fits(struct backend *be, const char *op, const struct attention_shape *shape)
{
    if (shape->head_size > HEAD_MAX) {
        backend_fail(be, "%s: cuda takes heads of at most %d, not %lld", op, (int)HEAD_MAX,
                     (long long)shape->head_size);
        return false;
    }
    return shape->batch > 0 && shape->sequence > 0;
}

static size_t shared_bytes(int owned, int weights, int size)
{
    int floats = owned * OWNED * size + 2 * TILE * (size + 1) + weights * OWNED * TILE;
    return (size_t)floats * sizeof(float);
}

void cuda_attention_forward(struct backend *be, const struct attention_forward *args)
{
    const struct attention_shape *shape = &args->shape;
    if (!size_fits(be, "attention_forward", shape) || cudnn_forward(be, args) ||
        flash_forward(be, args)) {
        return;
    }
    struct scene s = scene_make(shape, args->qkv, args->starts);
    s.out = view_of(args->out);
    s.lse = (float *)args->lse->data;
    size_t bytes = shared_bytes(1, 1, s.size);
    dim3 grid((unsigned)((s.sequence + OWNED - 1) / OWNED), (unsigned)s.heads,
              (unsigned)shape->batch);
    LAUNCH(attention_forward_kernel, grid, THREADS, bytes, cuda_stream(be), s);
    cuda_check(be, "attention_forward");
}

void cuda_attention_backward(struct backend *be, const struct attention_backward *args)
{
    const struct attention_shape *shape = &args->shape;
    if (!size_fits(be, "attention_backward", shape) || cudnn_backward(be, args) ||
        flash_backward(be, args)) {
        return;
    }
    struct scene s = scene_make(shape, args->qkv, args->starts);
    s.out = view_of(args->out);
    s.dout = view_of(args->dout);
    s.dqkv = view_of(args->dqkv);
    s.lse = (float *)args->lse->data;
    s.delta = (float *)args->delta->data;
    size_t query_bytes = shared_bytes(2, 1, s.size);
    size_t key_bytes = shared_bytes(2, 2, s.size);
    /* More than 48 KiB have to be asked for. */
    cudaFuncSetAttribute(query_gradient_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         (int)query_bytes);
    cudaFuncSetAttribute(key_gradient_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         (int)key_bytes);
    unsigned blocks = (unsigned)((s.sequence + OWNED - 1) / OWNED);
    dim3 tokens((unsigned)(shape->batch * s.sequence), (unsigned)s.heads);
    dim3 queries(blocks, (unsigned)s.heads, (unsigned)shape->batch);
    dim3 keys(blocks, (unsigned)s.kv_heads, (unsigned)shape->batch);
    LAUNCH(delta_kernel, tokens, WARP, 0, cuda_stream(be), s);
    LAUNCH(query_gradient_kernel, queries, THREADS, query_bytes, cuda_stream(be), s);
    LAUNCH(key_gradient_kernel, keys, THREADS, key_bytes, cuda_stream(be), s);
    cuda_check(be, "attention_backward");
}
