/* One random word of an element, as random_u32 gives it; chosen without an address, so that the
 * block of four stays in registers. */
#ifndef WINDROW_KERNELS_CUDA_RANDOM_CUH
#define WINDROW_KERNELS_CUDA_RANDOM_CUH

#include "kernels/cuda/device.cuh"

static __device__ inline uint32_t word_of(const struct random_block *block, int64_t element)
{
    int64_t lane = element % 4;
    uint32_t even = lane == 0 ? block->word[0] : block->word[2];
    uint32_t odd = lane == 1 ? block->word[1] : block->word[3];
    return lane % 2 == 0 ? even : odd;
}

static __device__ inline uint32_t random_word(const struct random_key *key, int64_t element)
{
    struct random_block block = random_words(key, (uint64_t)element / 4);
    return word_of(&block, element);
}

#endif
