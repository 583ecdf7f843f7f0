/*
 * What the kernels of flash attention share: tiles of bf16 rows in shared memory, and the two
 * products that all of them are made of.
 *
 * A block of FLASH_WARPS warps owns rows of one kind (queries, or keys), MT times 16 a warp, and
 * walks over tiles of the other kind, which all warps read. The first product makes scores,
 * owned rows times tile rows; the second multiplies weights made of them, from the registers where
 * they are, with a tile, and adds to what the owned rows get.
 */
#ifndef WINDROW_KERNELS_CUDA_FLASH_CUH
#define WINDROW_KERNELS_CUDA_FLASH_CUH

#include "kernels/cuda/check.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/vector.cuh"

enum { FLASH_WARPS = 4, FLASH_THREADS = FLASH_WARPS * WARP, CHUNK = 8 /* elements in 16 bytes */ };

#define LOG2_E 1.4426950408889634f

struct flash {
    const uint16_t *qkv;
    uint16_t *out;
    const uint16_t *dout;
    uint16_t *dqkv;
    float *lse;
    float *delta;
    const int32_t *starts; /* or NULL */
    int width;             /* of a row of qkv */
    int sequence;
    int heads, kv_heads;
    float scale;
};

/* Tries the operation. False if its shape or dtypes are not for these kernels: bf16, heads of 32,
 * 64, 80, 96 or 128, a positive scale, addresses aligned to 16 bytes. */
bool flash_forward(struct backend *be, const struct attention_forward *args);
bool flash_backward(struct backend *be, const struct attention_backward *args);

/* Tries the operation with cuDNN. False if it is not there or does not do this: bf16, one run of
 * text a row, a multiple of 128 tokens; for the backward also only where deterministic results were
 * not asked for. */
bool cudnn_forward(struct backend *be, const struct attention_forward *args);
bool cudnn_backward(struct backend *be, const struct attention_backward *args);

/* Whether all tensors are bf16 and begin at a multiple of 16 bytes. */
bool flash_aligned(const struct tensor *const *tensors, int count);
/* Whether a shape and its tensors are for these kernels. */
bool flash_fits(const struct attention_shape *shape, const struct tensor *const *tensors,
                int count);
struct flash flash_of(const struct attention_shape *shape, const struct tensor *qkv,
                      const struct tensor *starts);

/* ---- tiles ---------------------------------------------------------------------------------- */

/* Elements from row to row. Eight rows in a column of 16-byte chunks must lie in different banks:
 * where the head is a power of two, chunks are swapped within a row, else rows are an odd number of
 * chunks apart. */
template <int D> static __device__ __host__ constexpr int tile_stride(void)
{
    return D == 80 || D == 96 ? D + CHUNK : D;
}

/* Where chunk `chunk` of a row begins. */
template <int D> static __device__ inline int tile_place(int row, int chunk)
{
    int swap = D == 32 ? row >> 1 & 3 : D == 64 || D == 128 ? row & 7 : 0;
    return row * tile_stride<D>() + (chunk ^ swap) * CHUNK;
}

/* Begins to copy rows [first, first + ROWS) of a matrix whose rows are `stride` elements apart;
 * zeros from row `end` on. */
template <int D, int ROWS>
static __device__ inline void tile_begin(uint16_t *tile, const uint16_t *from, int stride,
                                         int first, int end)
{
    enum { CHUNKS = D / CHUNK };
#pragma unroll 2
    for (int i = (int)threadIdx.x; i < ROWS * CHUNKS; i += FLASH_THREADS) {
        int row = i / CHUNKS;
        int chunk = i % CHUNKS;
        bool inside = first + row < end;
        int at = inside ? (first + row) * stride + chunk * CHUNK : 0;
        copy_begin(tile + tile_place<D>(row, chunk), from + at, inside);
    }
}

/* ---- products ------------------------------------------------------------------------------- */

template <int MT, int N> static __device__ inline void clear(float c[MT][N][4])
{
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int n = 0; n < N; n++) {
#pragma unroll
            for (int e = 0; e < 4; e++) {
                c[m][n][e] = 0.0f;
            }
        }
    }
}

/* c (16 MT, COLUMNS) = the warp's rows times the rows of a tile. */
template <int D, int MT, int COLUMNS>
static __device__ inline void multiply_rows(float c[MT][COLUMNS / 8][4], const uint16_t *owned,
                                            const uint16_t *tile)
{
    int lane = computed_here((int)threadIdx.x % WARP);
    int row = (lane & 7) + (lane >> 4) * 8;
    clear<MT, COLUMNS / 8>(c);
    /* Fully unrolled, it loads ahead into more registers than there are. */
#pragma unroll 4
    for (int k = 0; k < D / 16; k++) {
        uint32_t a[MT][4];
#pragma unroll
        for (int m = 0; m < MT; m++) {
            matrix_load(a[m], owned + tile_place<D>(16 * m + lane % 16, 2 * k + lane / 16));
        }
#pragma unroll
        for (int j = 0; j < COLUMNS / 16; j++) {
            uint32_t b[4];
            matrix_load(b, tile + tile_place<D>(16 * j + row, 2 * k + (lane >> 3 & 1)));
#pragma unroll
            for (int m = 0; m < MT; m++) {
                mma_pair(c[m][2 * j], c[m][2 * j + 1], a[m], b);
            }
        }
    }
}

/* sum (16 MT, D) += weight (16 MT, COLUMNS), rounded to bf16, times a tile (COLUMNS, D). */
template <int D, int MT, int COLUMNS>
static __device__ inline void
add_weighted(float sum[MT][D / 8][4], const float weight[MT][COLUMNS / 8][4], const uint16_t *tile)
{
    int lane = computed_here((int)threadIdx.x % WARP);
#pragma unroll
    for (int k = 0; k < COLUMNS / 16; k++) {
        uint32_t a[MT][4];
#pragma unroll
        for (int m = 0; m < MT; m++) {
            a[m][0] = bf16_pair(weight[m][2 * k][0], weight[m][2 * k][1]);
            a[m][1] = bf16_pair(weight[m][2 * k][2], weight[m][2 * k][3]);
            a[m][2] = bf16_pair(weight[m][2 * k + 1][0], weight[m][2 * k + 1][1]);
            a[m][3] = bf16_pair(weight[m][2 * k + 1][2], weight[m][2 * k + 1][3]);
        }
#pragma unroll
        for (int j = 0; j < D / 16; j++) {
            uint32_t b[4];
            matrix_load_transposed(b, tile + tile_place<D>(16 * k + lane % 16, 2 * j + lane / 16));
#pragma unroll
            for (int m = 0; m < MT; m++) {
                mma_pair(sum[m][2 * j], sum[m][2 * j + 1], a[m], b);
            }
        }
    }
}

/* ---- rows that see keys --------------------------------------------------------------------- */

/* The first key that a query sees; of queries beyond the sequence, that of the last. */
static __device__ inline int first_seen(const int32_t *starts, int query, int sequence)
{
    return starts != NULL ? starts[query < sequence ? query : sequence - 1] : 0;
}

/* Scores of keys that are later than the query, or of an earlier record, become minus infinity.
 * `row` and `key` belong to the lane's first element. */
template <int MT, int KEYS>
static __device__ inline void hide_keys(float score[MT][KEYS / 8][4], int row, int key,
                                        const int32_t *starts, int sequence)
{
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int query = row + 16 * m + 8 * i;
            int from = first_seen(starts, query, sequence);
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    int k = key + 8 * n + e;
                    bool seen = k <= query && k >= from;
                    score[m][n][2 * i + e] = seen ? score[m][n][2 * i + e] : -INFINITY;
                }
            }
        }
    }
}

/* ---- results -------------------------------------------------------------------------------- */

/* The warp's rows [first, ...), before `end`, = factor[m][i] * sum, rounded to bf16, by way of its
 * rows in shared memory, which nobody else reads: 16 bytes at a time. */
template <int D, int MT>
static __device__ inline void store_rows(uint16_t *to, int stride, int first, int end,
                                         uint16_t *owned, const float sum[MT][D / 8][4],
                                         const float factor[MT][2])
{
    enum { CHUNKS = D / CHUNK };
    int lane = (int)threadIdx.x % WARP;
    __syncwarp();
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int n = 0; n < CHUNKS; n++) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                int at = tile_place<D>(16 * m + 8 * i + lane / 4, n) + 2 * (lane % 4);
                *(uint32_t *)(owned + at) =
                    bf16_pair(sum[m][n][2 * i] * factor[m][i], sum[m][n][2 * i + 1] * factor[m][i]);
            }
        }
    }
    __syncwarp();
#pragma unroll 2
    for (int i = lane; i < 16 * MT * CHUNKS; i += WARP) {
        int row = i / CHUNKS;
        int chunk = i % CHUNKS;
        if (first + row < end) {
            *(uint4 *)(to + (first + row) * stride + chunk * CHUNK) =
                *(const uint4 *)(owned + tile_place<D>(row, chunk));
        }
    }
}

#endif
