/*
 * Causal attention on tensor cores, backward, for bf16.
 *
 * Dao, "FlashAttention-2", arXiv 2307.08691, algorithm 2, as two kernels, so that every sum has one
 * owner and a fixed order, and the same bits come out each time: one owns queries and sums their
 * gradients over tiles of keys, one owns keys and sums theirs over the query heads of the group and
 * tiles of queries. The second one computes the scores transposed, keys as rows: weights and slopes
 * then are where the products with dout and with the queries want them. A small kernel before them
 * makes delta, the row sums of dout * out.
 *
 * The floor is 2.5 times the FLOPs of the forward, five products; recomputing scores and slopes in
 * both kernels makes seven of them. A tile of a warp in the kernel for keys (16 keys by 64 queries
 * at D = 128) is 1.05 MFLOP, 390 cycles of the tensor cores of an H100 (see flash_forward.cu),
 * against 72 KiB out of shared memory, 576 cycles: that is its bound; the other one has 0.79 MFLOP
 * against 56 KiB. PREDICTED for an H100, not measured, counting five products: 130 to 170 TFLOP/s
 * at D = 128 and S >= 4096, 100 at S = 1024; a tenth less at D = 64. Atomic sums of dQ in one
 * kernel would save two products of seven, and cost the determinism.
 */
#include "kernels/cuda/flash.cuh"

/* delta = row sums of dout * out; four threads a row, 16 bytes at a time. */
static __global__ void flash_delta_kernel(struct flash f, int size, int64_t rows)
{
    int64_t number = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    int64_t row = number / 4 < rows ? number / 4 : rows - 1;
    float sum = 0.0f;
    for (int chunk = (int)(number % 4); chunk < size / CHUNK; chunk += 4) {
        uint4 x = ((const uint4 *)(f.dout + row * size))[chunk];
        uint4 y = ((const uint4 *)(f.out + row * size))[chunk];
        const uint32_t a[4] = { x.x, x.y, x.z, x.w };
        const uint32_t b[4] = { y.x, y.y, y.z, y.w };
#pragma unroll
        for (int i = 0; i < 4; i++) {
            sum = fmaf(low_half(a[i]), low_half(b[i]), sum);
            sum = fmaf(high_half(a[i]), high_half(b[i]), sum);
        }
    }
    sum += __shfl_xor_sync(ALL_LANES, sum, 1);
    sum += __shfl_xor_sync(ALL_LANES, sum, 2);
    if (number % 4 == 0 && number / 4 < rows) {
        int64_t token = row / f.heads;
        int64_t head = token / f.sequence * f.heads + row % f.heads;
        f.delta[head * f.sequence + token % f.sequence] = sum;
    }
}

/* ---- gradients of queries ------------------------------------------------------------------- */

/* score = exp2(score * factor - lse) * (slope - delta); rows are queries. */
template <int MT, int KEYS>
static __device__ inline void
slope_by_rows(float score[MT][KEYS / 8][4], const float slope[MT][KEYS / 8][4],
              const float lse[MT][2], const float delta[MT][2], float factor)
{
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
            for (int e = 0; e < 4; e++) {
                float p = power_of_two(fmaf(score[m][n][e], factor, -lse[m][e >> 1]));
                score[m][n][e] = p * (slope[m][n][e] - delta[m][e >> 1]);
            }
        }
    }
}

/* Grid: (blocks of queries, query heads, rows of the batch). */
template <int D, int MT, int KEYS>
static __global__ void __launch_bounds__(FLASH_THREADS, 2) flash_query_kernel(struct flash f)
{
    enum { ROWS = 16 * MT, QUERIES = FLASH_WARPS * ROWS, STRIDE = tile_stride<D>() };
    SHARED_POOL(uint16_t, query);
    uint16_t *dout = query + QUERIES * STRIDE;
    uint16_t *key = dout + QUERIES * STRIDE;
    uint16_t *value = key + 2 * KEYS * STRIDE;
    const int lane = (int)threadIdx.x % WARP;
    const int warp = (int)threadIdx.x / WARP;
    const int first = (int)(gridDim.x - 1 - blockIdx.x) * QUERIES;
    const int mine = first + warp * ROWS;
    const int group = (int)blockIdx.y / (f.heads / f.kv_heads);
    const int end = first + QUERIES < f.sequence ? first + QUERIES : f.sequence;
    const int stride = f.heads * D;
    const int64_t token = (int64_t)blockIdx.z * f.sequence;
    const int64_t statistics = ((int64_t)blockIdx.z * f.heads + blockIdx.y) * f.sequence;
    const int32_t *starts = f.starts != NULL ? f.starts + token : NULL;
    const uint16_t *queries = f.qkv + token * f.width + blockIdx.y * D;
    const uint16_t *keys = f.qkv + token * f.width + (f.heads + group) * D;
    const uint16_t *values = keys + f.kv_heads * D;
    uint16_t *owned = query + warp * ROWS * STRIDE;
    float sum[MT][D / 8][4];
    float lse[MT][2];
    float delta[MT][2];
    clear<MT, D / 8>(sum);
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int row = mine + 16 * m + 8 * i + lane / 4;
            lse[m][i] = row < f.sequence ? f.lse[statistics + row] * LOG2_E : 0.0f;
            delta[m][i] = row < f.sequence ? f.delta[statistics + row] : 0.0f;
        }
    }
    int at = first_seen(starts, first, f.sequence) / KEYS * KEYS;
    tile_begin<D, QUERIES>(query, queries, f.width, first, f.sequence);
    tile_begin<D, QUERIES>(dout, f.dout + token * stride + blockIdx.y * D, stride, first,
                           f.sequence);
    tile_begin<D, KEYS>(key + at / KEYS % 2 * KEYS * STRIDE, keys, f.width, at, f.sequence);
    tile_begin<D, KEYS>(value + at / KEYS % 2 * KEYS * STRIDE, values, f.width, at, f.sequence);
    for (; at < end; at += KEYS) {
        const int turn = at / KEYS % 2 * KEYS * STRIDE;
        copy_wait();
        __syncthreads();
        if (at + KEYS < end) {
            int next = KEYS * STRIDE - turn;
            tile_begin<D, KEYS>(key + next, keys, f.width, at + KEYS, f.sequence);
            tile_begin<D, KEYS>(value + next, values, f.width, at + KEYS, f.sequence);
        }
        if (at >= mine + ROWS) {
            continue;
        }
        float score[MT][KEYS / 8][4];
        float slope[MT][KEYS / 8][4];
        multiply_rows<D, MT, KEYS>(score, owned, key + turn);
        if (at + KEYS - 1 > mine || at < first_seen(starts, mine + ROWS - 1, f.sequence)) {
            hide_keys<MT, KEYS>(score, mine + lane / 4, at + 2 * (lane % 4), starts, f.sequence);
        }
        multiply_rows<D, MT, KEYS>(slope, owned + QUERIES * STRIDE, value + turn);
        slope_by_rows<MT, KEYS>(score, slope, lse, delta, f.scale * LOG2_E);
        add_weighted<D, MT, KEYS>(sum, score, key + turn);
    }
    float factor[MT][2];
#pragma unroll
    for (int m = 0; m < MT; m++) {
        factor[m][0] = f.scale;
        factor[m][1] = f.scale;
    }
    store_rows<D, MT>(f.dqkv + token * f.width + blockIdx.y * D, f.width, mine, f.sequence, owned,
                      sum, factor);
}

/* ---- gradients of keys and values ----------------------------------------------------------- */

/* A tile of queries beside its rows: two buffers of these. */
template <int QUERIES> struct statistics {
    float lse[2][QUERIES];
    float delta[2][QUERIES];
    int32_t start[2][QUERIES];
};

template <int QUERIES>
static __device__ inline void statistics_begin(struct statistics<QUERIES> *to, int turn,
                                               const struct flash *f, int64_t head, int64_t token,
                                               int first)
{
    for (int i = (int)threadIdx.x; i < QUERIES; i += FLASH_THREADS) {
        bool inside = first + i < f->sequence;
        int at = inside ? first + i : 0;
        copy_begin_word(&to->lse[turn][i], f->lse + head + at, inside);
        copy_begin_word(&to->delta[turn][i], f->delta + head + at, inside);
        if (f->starts != NULL) {
            copy_begin_word(&to->start[turn][i], f->starts + token + at, inside);
        }
    }
}

/* Scores become weights: rows are keys (`key` the lane's first), columns queries (`query` the
 * lane's first, `column` its place in the tile). `starts` are those of the tile. */
template <int MT, int QUERIES>
static __device__ inline void weigh_columns(float score[MT][QUERIES / 8][4], const float *lse,
                                            const int32_t *starts, bool cut, int key, int query,
                                            int column, const struct flash *f)
{
    float factor = f->scale * LOG2_E;
#pragma unroll
    for (int n = 0; n < QUERIES / 8; n++) {
#pragma unroll
        for (int e = 0; e < 2; e++) {
            float base = lse[column + 8 * n + e] * LOG2_E;
            int q = query + 8 * n + e;
            int from = cut && starts != NULL ? starts[column + 8 * n + e] : 0;
#pragma unroll
            for (int m = 0; m < MT; m++) {
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    int k = key + 16 * m + 8 * i;
                    bool seen = !cut || (k <= q && k >= from && q < f->sequence);
                    float p = power_of_two(fmaf(score[m][n][2 * i + e], factor, -base));
                    score[m][n][2 * i + e] = seen ? p : 0.0f;
                }
            }
        }
    }
}

/* score *= slope - delta; columns are queries. */
template <int MT, int QUERIES>
static __device__ inline void slope_by_columns(float score[MT][QUERIES / 8][4],
                                               const float slope[MT][QUERIES / 8][4],
                                               const float *delta, int column)
{
#pragma unroll
    for (int n = 0; n < QUERIES / 8; n++) {
#pragma unroll
        for (int e = 0; e < 2; e++) {
            float base = delta[column + 8 * n + e];
#pragma unroll
            for (int m = 0; m < MT; m++) {
                score[m][n][e] *= slope[m][n][e] - base;
                score[m][n][2 + e] *= slope[m][n][2 + e] - base;
            }
        }
    }
}

/* The query after the last one that sees a key before `end`: starts never decrease. */
static __device__ inline int last_seeing(const int32_t *starts, int first, int end, int sequence)
{
    int low = first;
    int high = sequence;
    while (starts != NULL && low < high) {
        int middle = low + (high - low) / 2;
        if (starts[middle] < end) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return high;
}

/* Grid: (blocks of keys, key/value heads, rows of the batch). */
template <int D, int MT, int QUERIES>
static __global__ void __launch_bounds__(FLASH_THREADS, 2) flash_key_kernel(struct flash f)
{
    enum { ROWS = 16 * MT, KEYS = FLASH_WARPS * ROWS, STRIDE = tile_stride<D>() };
    SHARED_POOL(uint16_t, key);
    uint16_t *value = key + KEYS * STRIDE;
    uint16_t *query = value + KEYS * STRIDE;
    uint16_t *dout = query + 2 * QUERIES * STRIDE;
    struct statistics<QUERIES> *rows = (struct statistics<QUERIES> *)(dout + 2 * QUERIES * STRIDE);
    const int lane = (int)threadIdx.x % WARP;
    const int warp = (int)threadIdx.x / WARP;
    const int first = (int)blockIdx.x * KEYS;
    const int mine = first + warp * ROWS;
    const int stride = f.heads * D;
    const int shared = f.heads / f.kv_heads;
    const int64_t token = (int64_t)blockIdx.z * f.sequence;
    const uint16_t *keys = f.qkv + token * f.width + (f.heads + blockIdx.y) * D;
    uint16_t *owned = key + warp * ROWS * STRIDE;
    float dkey[MT][D / 8][4];
    float dvalue[MT][D / 8][4];
    clear<MT, D / 8>(dkey);
    clear<MT, D / 8>(dvalue);
    tile_begin<D, KEYS>(key, keys, f.width, first, f.sequence);
    tile_begin<D, KEYS>(value, keys + f.kv_heads * D, f.width, first, f.sequence);
    const int begin = first / QUERIES * QUERIES;
    const int tiles =
        (last_seeing(f.starts != NULL ? f.starts + token : NULL, first, first + KEYS, f.sequence) -
         begin + QUERIES - 1) /
        QUERIES;
    /* All tiles of a head, then those of the next: step `step` copies tile `step`, and computes
     * with the one before. */
    for (int step = 0; step <= tiles * shared; step++) {
        copy_wait();
        __syncthreads();
        if (step < tiles * shared) {
            int head = (int)blockIdx.y * shared + step / tiles;
            int at = begin + step % tiles * QUERIES;
            int to = step % 2 * QUERIES * STRIDE;
            tile_begin<D, QUERIES>(query + to, f.qkv + token * f.width + head * D, f.width, at,
                                   f.sequence);
            tile_begin<D, QUERIES>(dout + to, f.dout + token * stride + head * D, stride, at,
                                   f.sequence);
            statistics_begin<QUERIES>(
                rows, step % 2, &f, ((int64_t)blockIdx.z * f.heads + head) * f.sequence, token, at);
        }
        const int at = begin + (step + tiles - 1) % tiles * QUERIES;
        if (step == 0 || at + QUERIES <= mine) {
            continue;
        }
        const int turn = (step - 1) % 2;
        const int tile = turn * QUERIES * STRIDE;
        const int32_t *start = f.starts != NULL ? rows->start[turn] : NULL;
        float score[MT][QUERIES / 8][4];
        float slope[MT][QUERIES / 8][4];
        multiply_rows<D, MT, QUERIES>(score, owned, query + tile);
        bool cut = at < mine + ROWS - 1 || at + QUERIES > f.sequence ||
                   (start != NULL && start[QUERIES - 1] > mine);
        weigh_columns<MT, QUERIES>(score, rows->lse[turn], start, cut, mine + lane / 4,
                                   at + 2 * (lane % 4), 2 * (lane % 4), &f);
        add_weighted<D, MT, QUERIES>(dvalue, score, dout + tile);
        multiply_rows<D, MT, QUERIES>(slope, owned + KEYS * STRIDE, dout + tile);
        slope_by_columns<MT, QUERIES>(score, slope, rows->delta[turn], 2 * (lane % 4));
        add_weighted<D, MT, QUERIES>(dkey, score, query + tile);
    }
    float factor[MT][2];
    float one[MT][2];
#pragma unroll
    for (int m = 0; m < MT; m++) {
        factor[m][0] = f.scale;
        factor[m][1] = f.scale;
        one[m][0] = 1.0f;
        one[m][1] = 1.0f;
    }
    uint16_t *to = f.dqkv + token * f.width + (f.heads + blockIdx.y) * D;
    store_rows<D, MT>(to, f.width, mine, f.sequence, owned, dkey, factor);
    store_rows<D, MT>(to + f.kv_heads * D, f.width, mine, f.sequence, owned, dvalue, one);
}

/* ---- launchers ------------------------------------------------------------------------------ */

/* D, then MT and the rows of a tile in the kernel for queries, and in that for keys. */
template <int D, int QUERY_MT, int QUERY_TILE, int KEY_MT, int KEY_TILE>
static void launch(struct backend *be, const struct flash *f, int64_t batch)
{
    enum { QUERIES = FLASH_WARPS * 16 * QUERY_MT, KEYS = FLASH_WARPS * 16 * KEY_MT };
    void (*for_queries)(struct flash) = flash_query_kernel<D, QUERY_MT, QUERY_TILE>;
    void (*for_keys)(struct flash) = flash_key_kernel<D, KEY_MT, KEY_TILE>;
    size_t row = tile_stride<D>() * sizeof(uint16_t);
    size_t query_bytes = (size_t)(2 * QUERIES + 4 * QUERY_TILE) * row;
    size_t key_bytes =
        (size_t)(2 * KEYS + 4 * KEY_TILE) * row + sizeof(struct statistics<KEY_TILE>);
    int64_t rows = batch * f->sequence * f->heads;
    struct flash given = *f;
    dim3 queries((unsigned)((f->sequence + QUERIES - 1) / QUERIES), (unsigned)f->heads,
                 (unsigned)batch);
    dim3 keys((unsigned)((f->sequence + KEYS - 1) / KEYS), (unsigned)f->kv_heads, (unsigned)batch);
    cudaFuncSetAttribute(for_queries, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         (int)query_bytes);
    cudaFuncSetAttribute(for_keys, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)key_bytes);
    LAUNCH(flash_delta_kernel, cuda_blocks(4 * rows), BLOCK_THREADS, 0, cuda_stream(be), given, D,
           rows);
    LAUNCH(for_queries, queries, FLASH_THREADS, query_bytes, cuda_stream(be), given);
    LAUNCH(for_keys, keys, FLASH_THREADS, key_bytes, cuda_stream(be), given);
}

bool flash_backward(struct backend *be, const struct attention_backward *args)
{
    const struct attention_shape *shape = &args->shape;
    const struct tensor *tensors[] = { args->qkv, args->out, args->dout, args->dqkv };
    if (!flash_fits(shape, tensors, 4)) {
        return false;
    }
    struct flash f = flash_of(shape, args->qkv, args->starts);
    f.out = (uint16_t *)args->out->data;
    f.dout = (const uint16_t *)args->dout->data;
    f.dqkv = (uint16_t *)args->dqkv->data;
    f.lse = (float *)args->lse->data;
    f.delta = (float *)args->delta->data;
    switch (shape->head_size) {
    case 32:
        launch<32, 2, 64, 2, 32>(be, &f, shape->batch);
        break;
    case 64:
        launch<64, 2, 32, 1, 64>(be, &f, shape->batch);
        break;
    case 80:
        launch<80, 2, 32, 1, 64>(be, &f, shape->batch);
        break;
    case 96:
        launch<96, 2, 32, 1, 32>(be, &f, shape->batch);
        break;
    default:
        launch<128, 1, 64, 1, 64>(be, &f, shape->batch);
        break;
    }
    cuda_check(be, "attention_backward");
    return true;
}
