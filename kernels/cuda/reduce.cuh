/*
 * Sums and maxima over the threads of a block, in a fixed order: a butterfly within each warp, then
 * the warps in ascending order. Every thread gets the result. All threads of a block of whole warps
 * must call them.
 */
#ifndef WINDROW_KERNELS_CUDA_REDUCE_CUH
#define WINDROW_KERNELS_CUDA_REDUCE_CUH

#include "kernels/cuda/device.cuh"

#define ALL_LANES 0xffffffffu

static __device__ inline float warp_sum(float value)
{
    for (int mask = WARP / 2; mask > 0; mask /= 2) {
        value += __shfl_xor_sync(ALL_LANES, value, mask);
    }
    return value;
}

static __device__ inline float warp_max(float value)
{
    for (int mask = WARP / 2; mask > 0; mask /= 2) {
        float other = __shfl_xor_sync(ALL_LANES, value, mask);
        value = other > value ? other : value;
    }
    return value;
}

static __device__ inline float block_sum(float value)
{
    __shared__ float part[WARP];
    value = warp_sum(value);
    if (threadIdx.x % WARP == 0) {
        part[threadIdx.x / WARP] = value;
    }
    __syncthreads();
    float total = 0.0f;
    for (unsigned i = 0; i < blockDim.x / WARP; i++) {
        total += part[i];
    }
    __syncthreads();
    return total;
}

static __device__ inline float block_max(float value)
{
    __shared__ float part[WARP];
    value = warp_max(value);
    if (threadIdx.x % WARP == 0) {
        part[threadIdx.x / WARP] = value;
    }
    __syncthreads();
    float most = part[0];
    for (unsigned i = 1; i < blockDim.x / WARP; i++) {
        most = part[i] > most ? part[i] : most;
    }
    __syncthreads();
    return most;
}

static __device__ inline double block_sum_double(double value)
{
    __shared__ double part[WARP];
    for (int mask = WARP / 2; mask > 0; mask /= 2) {
        value += __shfl_xor_sync(ALL_LANES, value, mask);
    }
    if (threadIdx.x % WARP == 0) {
        part[threadIdx.x / WARP] = value;
    }
    __syncthreads();
    double total = 0.0;
    for (unsigned i = 0; i < blockDim.x / WARP; i++) {
        total += part[i];
    }
    __syncthreads();
    return total;
}

#endif
