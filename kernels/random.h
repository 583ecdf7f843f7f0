/*
 * Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random
 * numbers: as easy as 1, 2, 3", SC 2011, section 5).
 *
 * A number is a pure function of (seed, purpose, tensor, step, element): no state to store, nothing
 * that depends on the number of threads, and a resumed run cannot drift.
 */
#ifndef WINDROW_KERNELS_RANDOM_H
#define WINDROW_KERNELS_RANDOM_H

#include "kernels/dtype.h"

/* One stream per purpose, so that two uses never share numbers. */
enum random_purpose {
    RANDOM_INIT,    /* weights at random initialisation */
    RANDOM_ROUND_W, /* stochastic rounding of weights */
    RANDOM_ROUND_M, /* ... of first moments */
    RANDOM_ROUND_V, /* ... of second moments */
    RANDOM_SELECT,  /* choice of rows */
    RANDOM_ORDER,   /* order of the data */
    RANDOM_SAMPLE,  /* choice of tokens in generation */
    RANDOM_INPUTS,  /* what is kept of a linear layer's input */
    RANDOM_TEST,
    RANDOM_BASIS,  /* where the search for a subspace begins */
    RANDOM_FILL,   /* columns that complete a basis */
    RANDOM_PROBE,  /* directions that measure what lies outside of a subspace */
    RANDOM_SKETCH, /* sketches of gradients */
};

struct random_key {
    uint64_t seed;
    enum random_purpose purpose; /* below 256 */
    uint32_t tensor;             /* below 2^24: number of the tensor in its model */
    uint32_t step;
};

struct random_block {
    uint32_t word[4];
};

/* The raw generator: counter and key in, four words out. Known answers (Random123):
 * counter 0,0,0,0 key 0,0 -> 6627e8d5 e169c58d bc57ac4c 9b00dbd8. */
KERNELS_INLINE struct random_block random_philox(const uint32_t counter[4], uint32_t key0,
                                                 uint32_t key1)
{
    struct random_block c = { { counter[0], counter[1], counter[2], counter[3] } };
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c.word[0];
        uint64_t p1 = (uint64_t)0xCD9E8D57u * c.word[2];
        struct random_block next = { { (uint32_t)(p1 >> 32) ^ c.word[1] ^ key0, (uint32_t)p1,
                                       (uint32_t)(p0 >> 32) ^ c.word[3] ^ key1, (uint32_t)p0 } };
        c = next;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return c;
}

/* The four words for elements 4 * block .. 4 * block + 3. */
KERNELS_INLINE struct random_block random_words(const struct random_key *key, uint64_t block)
{
    const uint32_t counter[4] = { (uint32_t)block, (uint32_t)(block >> 32), key->step,
                                  key->tensor | ((uint32_t)key->purpose << 24) };
    return random_philox(counter, (uint32_t)key->seed, (uint32_t)(key->seed >> 32));
}

KERNELS_INLINE uint32_t random_u32(const struct random_key *key, uint64_t element)
{
    return random_words(key, element / 4).word[element % 4];
}

/* Uniform in (0, 1): never exactly 0 or 1, so that a logarithm is finite. */
KERNELS_INLINE float random_uniform_from(uint32_t word)
{
    return ((float)(word >> 9) + 0.5f) * (1.0f / 8388608.0f);
}

KERNELS_INLINE float random_uniform(const struct random_key *key, uint64_t element)
{
    return random_uniform_from(random_u32(key, element));
}

#endif
