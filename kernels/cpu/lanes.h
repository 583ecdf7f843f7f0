/*
 * Inner loops that several files of the cpu backend share, written in lanes: a fixed number of
 * independent accumulators or counters side by side, which the compiler turns into vectors and
 * which give the same bits in every build.
 */
#ifndef WINDROW_KERNELS_CPU_LANES_H
#define WINDROW_KERNELS_CPU_LANES_H

#include "kernels/random.h"

enum { CPU_LANES = 8 };

static inline double cpu_lanes_total(const double lane[CPU_LANES])
{
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) +
           ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

/* Sum of x[0, count) in double. */
static inline double cpu_lanes_sum(const float *x, int64_t count)
{
    double lane[CPU_LANES] = { 0 };
    int64_t i = 0;
    for (; i + CPU_LANES <= count; i += CPU_LANES) {
        for (int l = 0; l < CPU_LANES; l++) {
            lane[l] += (double)x[i + l];
        }
    }
    for (int l = 0; i < count; i++, l++) {
        lane[l] += (double)x[i];
    }
    return cpu_lanes_total(lane);
}

/* Sum of the squares of x[0, count) in double: no overflow for any finite fp32. */
static inline double cpu_lanes_sum_squares(const float *x, int64_t count)
{
    double lane[CPU_LANES] = { 0 };
    int64_t i = 0;
    for (; i + CPU_LANES <= count; i += CPU_LANES) {
        for (int l = 0; l < CPU_LANES; l++) {
            lane[l] += (double)x[i + l] * (double)x[i + l];
        }
    }
    for (int l = 0; i < count; i++, l++) {
        lane[l] += (double)x[i] * (double)x[i];
    }
    return cpu_lanes_total(lane);
}

enum { CPU_RANDOM_LANES = 32, CPU_RANDOM_WORDS = 4 * CPU_RANDOM_LANES };

/* random_words of CPU_RANDOM_LANES blocks: words[4 * l, 4 * l + 4) are those of block[l]. */
static inline void cpu_lanes_random(const struct random_key *key, const uint64_t *block,
                                    uint32_t *restrict words)
{
    uint32_t c0[CPU_RANDOM_LANES];
    uint32_t c1[CPU_RANDOM_LANES];
    uint32_t c2[CPU_RANDOM_LANES];
    uint32_t c3[CPU_RANDOM_LANES];
    for (int l = 0; l < CPU_RANDOM_LANES; l++) {
        c0[l] = (uint32_t)block[l];
        c1[l] = (uint32_t)(block[l] >> 32);
        c2[l] = key->step;
        c3[l] = key->tensor | ((uint32_t)key->purpose << 24);
    }
    uint32_t key0 = (uint32_t)key->seed;
    uint32_t key1 = (uint32_t)(key->seed >> 32);
    for (int round = 0; round < 10; round++) {
#pragma omp simd
        for (int l = 0; l < CPU_RANDOM_LANES; l++) {
            uint64_t p0 = (uint64_t)0xD2511F53u * c0[l];
            uint64_t p1 = (uint64_t)0xCD9E8D57u * c2[l];
            c0[l] = (uint32_t)(p1 >> 32) ^ c1[l] ^ key0;
            c2[l] = (uint32_t)(p0 >> 32) ^ c3[l] ^ key1;
            c1[l] = (uint32_t)p1;
            c3[l] = (uint32_t)p0;
        }
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    for (int l = 0; l < CPU_RANDOM_LANES; l++) {
        words[4 * l] = c0[l];
        words[4 * l + 1] = c1[l];
        words[4 * l + 2] = c2[l];
        words[4 * l + 3] = c3[l];
    }
}

/* The words of elements [4 * block, 4 * block + CPU_RANDOM_WORDS). */
static inline void cpu_lanes_random_run(const struct random_key *key, uint64_t block,
                                        uint32_t *restrict words)
{
    uint64_t blocks[CPU_RANDOM_LANES];
    for (int l = 0; l < CPU_RANDOM_LANES; l++) {
        blocks[l] = block + (uint64_t)l;
    }
    cpu_lanes_random(key, blocks, words);
}

#endif
