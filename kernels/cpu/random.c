/*
 * Normal random numbers: Box, Muller, "A note on the generation of random normal deviates",
 * Ann. Math. Stat. 29 (1958), on pairs of words of the counter-based generator.
 *
 * Elements 2 i and 2 i + 1 are made of words 2 i (radius) and 2 i + 1 (angle). The words have 23
 * bits, so the radius ends at sqrt(-2 ln 2^-24) = 5.77.
 */
#include "kernels/cpu/cpu.h"

#include <math.h>

#include "kernels/cpu/lanes.h"

static void normal_pair(const uint32_t word[2], float deviation, float *out)
{
    const float two_pi = 6.28318530717958648f;
    float radius = deviation * sqrtf(-2.0f * logf(random_uniform_from(word[0])));
    float angle = two_pi * random_uniform_from(word[1]);
    out[0] = radius * cosf(angle);
    out[1] = radius * sinf(angle);
}

void cpu_random_normal(struct backend *be, struct tensor *x, float deviation, struct random_key key)
{
    (void)be;
    _Static_assert(CPU_GRAIN % CPU_RANDOM_WORDS == 0, "chunks begin at a block of words");
    int64_t count = tensor_count(x);
    int64_t chunks = cpu_chunk_count(count, CPU_GRAIN);
#pragma omp parallel for schedule(static) if (chunks > 1)
    for (int64_t i = 0; i < chunks; i++) {
        struct cpu_range r = cpu_chunk(count, CPU_GRAIN, i);
        for (int64_t at = r.first; at < r.last; at += CPU_RANDOM_WORDS) {
            uint32_t words[CPU_RANDOM_WORDS];
            float values[CPU_RANDOM_WORDS];
            cpu_lanes_random_run(&key, (uint64_t)at / 4, words);
            for (int j = 0; j < CPU_RANDOM_WORDS; j += 2) {
                normal_pair(words + j, deviation, values + j);
            }
            cpu_store(x, at, values, cpu_min(CPU_RANDOM_WORDS, r.last - at));
        }
    }
}

void cpu_random_sign(struct backend *be, struct tensor *x, float magnitude, struct random_key key)
{
    (void)be;
    int64_t count = tensor_count(x);
    int64_t chunks = cpu_chunk_count(count, CPU_GRAIN);
#pragma omp parallel for schedule(static) if (chunks > 1)
    for (int64_t i = 0; i < chunks; i++) {
        struct cpu_range r = cpu_chunk(count, CPU_GRAIN, i);
        for (int64_t at = r.first; at < r.last; at += CPU_RANDOM_WORDS) {
            uint32_t words[CPU_RANDOM_WORDS];
            float values[CPU_RANDOM_WORDS];
            cpu_lanes_random_run(&key, (uint64_t)at / 4, words);
            for (int j = 0; j < CPU_RANDOM_WORDS; j++) {
                values[j] = (words[j] & 1u) != 0 ? magnitude : -magnitude;
            }
            cpu_store(x, at, values, cpu_min(CPU_RANDOM_WORDS, r.last - at));
        }
    }
}
