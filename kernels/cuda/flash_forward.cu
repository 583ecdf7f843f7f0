/*
 * Causal attention on tensor cores, forward, for bf16.
 *
 * Dao, "FlashAttention-2", arXiv 2307.08691, algorithm 1. Four warps own 16 MT queries each and
 * walk over tiles of 64 keys and values, two of which are in shared memory: one is computed with
 * while the next is copied. Scores stay in registers, become weights there and are the left factor
 * of the second product. Tiles that no query of the block sees are never read, those later than all
 * queries of a warp are skipped by it, and only those cut by the diagonal or by the begin of a
 * record pay for the mask. Blocks with the most keys start first.
 *
 * The floor, for B rows, H query and K key/value heads of size D, S tokens, per layer: 2 B H S^2 D
 * FLOPs (half of the square), 2 B S D (2 H + 2 K) bytes. At S = 1024 and D = 128 that are 512 FLOPs
 * a byte with H = K: bound by arithmetic on every device. mma.sync reaches about 620 of the 989
 * TFLOP/s of an H100, 2700 FLOPs a cycle and multiprocessor. A tile of a warp at D = 128 (MT = 1:
 * two would need more registers than there are) is 0.52 MFLOP, 196 such cycles, against 36 KiB out
 * of shared memory, 288 cycles at 128 bytes each, and 1024 exponentials, 64 cycles. At D = 64, MT =
 * 2: 196 cycles against 160 and 128. PREDICTED for an H100, not measured: 200 to 260 TFLOP/s at D =
 * 128 and S >= 4096, 150 at S = 1024, where tiles on the diagonal weigh more; 200 to 240 and 140 at
 * D = 64. Two MT at D = 128 are the first thing to try on a device: shared memory would be read
 * half as often.
 */
#include "kernels/cuda/flash.cuh"

/* The online softmax (Milakov, Gimelshein, arXiv 1805.02867) over one more tile: scores become
 * weights, what was summed so far shrinks to the new maximum. `factor` is the scale over log 2;
 * most and total belong to the lane's rows, total being the lane's part of the sum. */
template <int D, int MT, int KEYS>
static __device__ inline void weigh(float score[MT][KEYS / 8][4], float sum[MT][D / 8][4],
                                    float most[MT][2], float total[MT][2], float factor)
{
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float top = most[m][i];
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++) {
                top = fmaxf(top, fmaxf(score[m][n][2 * i], score[m][n][2 * i + 1]));
            }
            top = fmaxf(top, __shfl_xor_sync(ALL_LANES, top, 1));
            top = fmaxf(top, __shfl_xor_sync(ALL_LANES, top, 2));
            /* A row may have seen nothing yet. */
            float base = top == -INFINITY ? 0.0f : top * factor;
            float shrink = power_of_two(fmaf(most[m][i], factor, -base));
            float part = 0.0f;
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
                for (int e = 2 * i; e < 2 * i + 2; e++) {
                    score[m][n][e] = power_of_two(fmaf(score[m][n][e], factor, -base));
                    part += score[m][n][e];
                }
            }
            most[m][i] = top;
            total[m][i] = fmaf(total[m][i], shrink, part);
#pragma unroll
            for (int n = 0; n < D / 8; n++) {
                sum[m][n][2 * i] *= shrink;
                sum[m][n][2 * i + 1] *= shrink;
            }
        }
    }
}

/* inverse = 1 / the sums of the lane's rows, and their lse is stored. */
template <int MT>
static __device__ inline void finish(float inverse[MT][2], const float most[MT][2],
                                     const float total[MT][2], float *lse, int row, int sequence,
                                     float scale)
{
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float whole = total[m][i];
            whole += __shfl_xor_sync(ALL_LANES, whole, 1);
            whole += __shfl_xor_sync(ALL_LANES, whole, 2);
            inverse[m][i] = whole > 0.0f ? 1.0f / whole : 0.0f;
            int at = row + 16 * m + 8 * i;
            if (threadIdx.x % 4 == 0 && at < sequence) {
                lse[at] = fmaf(most[m][i], scale, logf(whole));
            }
        }
    }
}

/* Grid: (blocks of queries, query heads, rows of the batch). */
template <int D, int MT, int KEYS>
static __global__ void __launch_bounds__(FLASH_THREADS, 2) flash_forward_kernel(struct flash f)
{
    enum { ROWS = 16 * MT, QUERIES = FLASH_WARPS * ROWS, STRIDE = tile_stride<D>() };
    SHARED_POOL(uint16_t, query);
    uint16_t *key = query + QUERIES * STRIDE;
    uint16_t *value = key + 2 * KEYS * STRIDE;
    const int lane = (int)threadIdx.x % WARP;
    const int warp = (int)threadIdx.x / WARP;
    const int first = (int)(gridDim.x - 1 - blockIdx.x) * QUERIES;
    const int mine = first + warp * ROWS;
    const int group = (int)blockIdx.y / (f.heads / f.kv_heads);
    const int end = first + QUERIES < f.sequence ? first + QUERIES : f.sequence;
    const int64_t token = (int64_t)blockIdx.z * f.sequence;
    const int32_t *starts = f.starts != NULL ? f.starts + token : NULL;
    const uint16_t *queries = f.qkv + token * f.width + blockIdx.y * D;
    const uint16_t *keys = f.qkv + token * f.width + (f.heads + group) * D;
    const uint16_t *values = keys + f.kv_heads * D;
    uint16_t *owned = query + warp * ROWS * STRIDE;
    float sum[MT][D / 8][4];
    float most[MT][2];
    float total[MT][2];
    clear<MT, D / 8>(sum);
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            most[m][i] = -INFINITY;
            total[m][i] = 0.0f;
        }
    }
    const int begin = first_seen(starts, first, f.sequence) / KEYS * KEYS;
    tile_begin<D, QUERIES>(query, queries, f.width, first, f.sequence);
    tile_begin<D, KEYS>(key + begin / KEYS % 2 * KEYS * STRIDE, keys, f.width, begin, f.sequence);
    tile_begin<D, KEYS>(value + begin / KEYS % 2 * KEYS * STRIDE, values, f.width, begin,
                        f.sequence);
    for (int at = begin; at < end; at += KEYS) {
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
        multiply_rows<D, MT, KEYS>(score, owned, key + turn);
        if (at + KEYS - 1 > mine || at < first_seen(starts, mine + ROWS - 1, f.sequence)) {
            hide_keys<MT, KEYS>(score, mine + lane / 4, at + 2 * (lane % 4), starts, f.sequence);
        }
        weigh<D, MT, KEYS>(score, sum, most, total, f.scale * LOG2_E);
        add_weighted<D, MT, KEYS>(sum, score, value + turn);
    }
    float inverse[MT][2];
    float *lse = f.lse + ((int64_t)blockIdx.z * f.heads + blockIdx.y) * f.sequence;
    finish<MT>(inverse, most, total, lse, mine + lane / 4, f.sequence, f.scale);
    const int stride = f.heads * D;
    store_rows<D, MT>(f.out + token * stride + blockIdx.y * D, stride, mine, f.sequence, owned, sum,
                      inverse);
}

/* ---- launchers ------------------------------------------------------------------------------ */

bool flash_aligned(const struct tensor *const *tensors, int count)
{
    for (int i = 0; i < count; i++) {
        if (tensors[i]->dtype != DTYPE_BF16 || (uintptr_t)tensors[i]->data % 16 != 0) {
            return false;
        }
    }
    return true;
}

bool flash_fits(const struct attention_shape *shape, const struct tensor *const *tensors, int count)
{
    int64_t size = shape->head_size;
    return flash_aligned(tensors, count) &&
           (size == 32 || size == 64 || size == 80 || size == 96 || size == 128) &&
           shape->scale > 0.0f &&
           shape->sequence * (shape->heads + 2 * shape->kv_heads) * size < INT32_MAX;
}

struct flash flash_of(const struct attention_shape *shape, const struct tensor *qkv,
                      const struct tensor *starts)
{
    struct flash f;
    memset(&f, 0, sizeof f);
    f.qkv = (const uint16_t *)qkv->data;
    f.starts = starts != NULL ? (const int32_t *)starts->data : NULL;
    f.width = (int)((shape->heads + 2 * shape->kv_heads) * shape->head_size);
    f.sequence = (int)shape->sequence;
    f.heads = (int)shape->heads;
    f.kv_heads = (int)shape->kv_heads;
    f.scale = shape->scale;
    return f;
}

template <int D, int MT, int KEYS>
static void launch(struct backend *be, const struct flash *f, int64_t batch)
{
    enum { QUERIES = FLASH_WARPS * 16 * MT };
    void (*kernel)(struct flash) = flash_forward_kernel<D, MT, KEYS>;
    size_t bytes = (size_t)(QUERIES + 4 * KEYS) * tile_stride<D>() * sizeof(uint16_t);
    dim3 grid((unsigned)((f->sequence + QUERIES - 1) / QUERIES), (unsigned)f->heads,
              (unsigned)batch);
    struct flash given = *f;
    /* More than 48 KiB have to be asked for. */
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    LAUNCH(kernel, grid, FLASH_THREADS, bytes, cuda_stream(be), given);
}

bool flash_forward(struct backend *be, const struct attention_forward *args)
{
    const struct attention_shape *shape = &args->shape;
    const struct tensor *tensors[] = { args->qkv, args->out };
    if (!flash_fits(shape, tensors, 2)) {
        return false;
    }
    struct flash f = flash_of(shape, args->qkv, args->starts);
    f.out = (uint16_t *)args->out->data;
    f.lse = (float *)args->lse->data;
    switch (shape->head_size) {
    case 32:
        launch<32, 2, 64>(be, &f, shape->batch);
        break;
    case 64:
        launch<64, 2, 64>(be, &f, shape->batch);
        break;
    case 80:
        launch<80, 2, 64>(be, &f, shape->batch);
        break;
    case 96:
        launch<96, 2, 64>(be, &f, shape->batch);
        break;
    default:
        launch<128, 1, 64>(be, &f, shape->batch);
        break;
    }
    cuda_check(be, "attention_forward");
    return true;
}
