/*
 * Elements in fp32, eight at a time.
 *
 * Whether a tensor is fp32 or bf16 is asked at run time, once for eight elements: all threads take
 * the same branch, and these kernels wait for memory anyway. One kernel serves every mixture of
 * dtypes, where templates would need four or eight.
 */
#ifndef WINDROW_KERNELS_CUDA_VECTOR_CUH
#define WINDROW_KERNELS_CUDA_VECTOR_CUH

#include "kernels/cuda/device.cuh"

enum { VECTOR = 8 };

/* The elements of a float tensor. */
struct view {
    void *data;
    bool half; /* bf16 */
};

static inline struct view view_of(const struct tensor *t)
{
    struct view v = { t->data, t->dtype == DTYPE_BF16 };
    return v;
}

/* Whether runs that begin at a multiple of eight elements can be moved 16 bytes at a time. */
static inline bool view_is_wide(const struct tensor *t)
{
    return (uintptr_t)t->data % 16 == 0;
}

/* ... in every row of a matrix. */
static inline bool view_has_wide_rows(const struct tensor *t)
{
    return view_is_wide(t) && tensor_columns(t) % VECTOR == 0;
}

static __device__ inline float get(struct view v, int64_t at)
{
    return v.half ? bf16_to_float(((const uint16_t *)v.data)[at]) : ((const float *)v.data)[at];
}

static __device__ inline void put(struct view v, int64_t at, float value)
{
    if (v.half) {
        ((uint16_t *)v.data)[at] = bf16_from_float(value);
    } else {
        ((float *)v.data)[at] = value;
    }
}

static __device__ inline float low_half(uint32_t pair)
{
    return float_from_bits(pair << 16);
}

static __device__ inline float high_half(uint32_t pair)
{
    return float_from_bits(pair & 0xffff0000u);
}

static __device__ inline uint32_t pair_of(float low, float high)
{
    return (uint32_t)bf16_from_float(low) | ((uint32_t)bf16_from_float(high) << 16);
}

static __device__ inline void load_wide(float x[VECTOR], struct view v, int64_t at)
{
    if (v.half) {
        uint4 u = *(const uint4 *)((const uint16_t *)v.data + at);
        x[0] = low_half(u.x);
        x[1] = high_half(u.x);
        x[2] = low_half(u.y);
        x[3] = high_half(u.y);
        x[4] = low_half(u.z);
        x[5] = high_half(u.z);
        x[6] = low_half(u.w);
        x[7] = high_half(u.w);
        return;
    }
    float4 a = ((const float4 *)((const float *)v.data + at))[0];
    float4 b = ((const float4 *)((const float *)v.data + at))[1];
    x[0] = a.x;
    x[1] = a.y;
    x[2] = a.z;
    x[3] = a.w;
    x[4] = b.x;
    x[5] = b.y;
    x[6] = b.z;
    x[7] = b.w;
}

static __device__ inline void store_wide(struct view v, int64_t at, const float x[VECTOR])
{
    if (v.half) {
        uint4 u = { pair_of(x[0], x[1]), pair_of(x[2], x[3]), pair_of(x[4], x[5]),
                    pair_of(x[6], x[7]) };
        *(uint4 *)((uint16_t *)v.data + at) = u;
        return;
    }
    float4 a = { x[0], x[1], x[2], x[3] };
    float4 b = { x[4], x[5], x[6], x[7] };
    ((float4 *)((float *)v.data + at))[0] = a;
    ((float4 *)((float *)v.data + at))[1] = b;
}

/* x = elements [at, at + count), count at most 8, zeros after them. `wide`: at is a multiple of 8
 * elements from an aligned address. */
static __device__ inline void load8(float x[VECTOR], struct view v, int64_t at, int count,
                                    bool wide)
{
    if (wide && count == VECTOR) {
        load_wide(x, v, at);
        return;
    }
#pragma unroll
    for (int i = 0; i < VECTOR; i++) {
        x[i] = i < count ? get(v, at + i) : 0.0f;
    }
}

static __device__ inline void store8(struct view v, int64_t at, const float x[VECTOR], int count,
                                     bool wide)
{
    if (wide && count == VECTOR) {
        store_wide(v, at, x);
        return;
    }
#pragma unroll
    for (int i = 0; i < VECTOR; i++) {
        if (i < count) {
            put(v, at + i, x[i]);
        }
    }
}

/* How many of eight elements from `at` on lie before `end`. */
static __device__ inline int vector_count(int64_t at, int64_t end)
{
    return end - at < VECTOR ? (int)(end - at) : VECTOR;
}

/* Number of this thread in the whole grid of one dimension. */
static __device__ inline int64_t thread_number(void)
{
    return (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
}

/* Threads of a block that has a row of its own: whole warps, eight elements a thread as long as
 * there are enough of them. */
static inline unsigned row_threads(int64_t columns)
{
    int64_t warps = (columns + WARP * VECTOR - 1) / (WARP * VECTOR);
    return (unsigned)((warps < 1 ? 1 : warps > 16 ? 16 : warps) * WARP);
}

/* Groups of eight in a row of `columns`. */
static inline int64_t vectors_of(int64_t columns)
{
    return (columns + VECTOR - 1) / VECTOR;
}

#endif
