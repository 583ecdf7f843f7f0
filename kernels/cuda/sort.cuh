/* Sorting on the device. */
#ifndef WINDROW_KERNELS_CUDA_SORT_CUH
#define WINDROW_KERNELS_CUDA_SORT_CUH

#include "kernels/cuda/device.cuh"

/* Sorts keys (count), all different but for UINT64_MAX, which may be there several times: into
 * ascending order, in `keys` or in `spare` (count): the one that is returned. */
uint64_t *cuda_sort(struct backend *be, uint64_t *keys, uint64_t *spare, int64_t count);

#endif
