/*
 * What every .cu file starts from.
 *
 * The sources are compiled twice: by nvcc for devices, and by the host's compiler for the emulation
 * under tests/simt, which runs the threads of a block as fibres and defines what nvcc would. Two
 * things cannot be written in a way that both understand, and hide behind macros: launches and
 * shared memory whose size is known at the launch.
 *
 * Products and sums are not contracted (-fmad=false), so that elementwise results have the bits of
 * the cpu backend; fmaf is written where it is wanted.
 */
#ifndef WINDROW_KERNELS_CUDA_DEVICE_CUH
#define WINDROW_KERNELS_CUDA_DEVICE_CUH

#ifndef SIMT_EMULATION
#include <cuda_runtime.h>

#define LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                     \
    kernel<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__)
/* name points to the dynamic shared memory of the block, aligned to 16 bytes. */
#define SHARED_POOL(type, name)                                                                    \
    extern __shared__ __align__(16) unsigned char shared_pool[];                                   \
    type *name = (type *)(void *)shared_pool
#endif

#include "kernels/ops.h"

enum { WARP = 32, BLOCK_THREADS = 256 };

#endif
