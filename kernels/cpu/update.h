/*
 * What the update rules share: the two factors of Adam, and storing with a rounding.
 *
 * Stochastic rounding adds 16 random bits below the kept mantissa (dtype.h); each of weight and
 * moments has its own stream, keyed by the step as well, or the same noise would return at every
 * step and add up.
 */
#ifndef WINDROW_KERNELS_CPU_UPDATE_H
#define WINDROW_KERNELS_CPU_UPDATE_H

#include <math.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/lanes.h"

/* What Adam needs of a slot beside the constants of the whole operation:
 *   w -= step * m / (sqrt(v) * root + eps) + decay * w. */
struct adam_slot {
    float step; /* rate / (1 - beta1^k) */
    float root; /* 1 / sqrt(1 - beta2^k) */
};

/* `rate` is lr * scale * rho; k = age + 1. */
static inline struct adam_slot adam_slot_make(double rate, float beta1, float beta2, int32_t age)
{
    double k = (double)age + 1.0;
    return (struct adam_slot){ .step = (float)(rate / (1.0 - pow((double)beta1, k))),
                               .root = (float)(1.0 / sqrt(1.0 - pow((double)beta2, k))) };
}

/* Elements [first, first + count) of t = src, rounded up or down at random; element e uses the
 * low 16 bits of random word e of `key`. At most CPU_BLOCK elements. */
static inline void update_store_stochastic(const struct tensor *t, int64_t first,
                                           const float *restrict src, int64_t count,
                                           const struct random_key *key)
{
    uint32_t words[CPU_BLOCK + CPU_RANDOM_WORDS];
    uint16_t *restrict dst = (uint16_t *)t->data + first;
    int64_t skip = first % 4; /* words of the first block that belong to earlier elements */
    for (int64_t at = 0; at < skip + count; at += CPU_RANDOM_WORDS) {
        cpu_lanes_random_run(key, (uint64_t)(first - skip + at) / 4, words + at);
    }
    for (int64_t i = 0; i < count; i++) {
        dst[i] = bf16_from_float_stochastic(src[i], words[skip + i]);
    }
}

/* bf16 moments are always rounded stochastically. */
static inline void update_store_moment(const struct tensor *t, int64_t first, const float *src,
                                       int64_t count, struct random_key key,
                                       enum random_purpose purpose)
{
    if (t->dtype == DTYPE_F32) {
        cpu_store(t, first, src, count);
        return;
    }
    key.purpose = purpose;
    update_store_stochastic(t, first, src, count, &key);
}

static inline void update_store_weight(const struct tensor *t, int64_t first, const float *src,
                                       int64_t count, enum rounding rounding, struct random_key key)
{
    if (t->dtype == DTYPE_F32 || rounding == ROUNDING_NEAREST) {
        cpu_store(t, first, src, count);
        return;
    }
    key.purpose = RANDOM_ROUND_W;
    update_store_stochastic(t, first, src, count, &key);
}

/* bf16 weights [first, first + count) joined with the residues from `at` on: fp32 to the bit. */
static inline void update_load_exact(const struct tensor *weight, const struct tensor *residue,
                                     int64_t first, int64_t at, int64_t count, float *restrict dst)
{
    const uint16_t *restrict high = (const uint16_t *)weight->data + first;
    const int16_t *restrict low = (const int16_t *)residue->data + at;
    for (int64_t i = 0; i < count; i++) {
        dst[i] = bf16_join(high[i], low[i]);
    }
}

static inline void update_store_exact(const struct tensor *weight, const struct tensor *residue,
                                      int64_t first, int64_t at, int64_t count,
                                      const float *restrict src)
{
    uint16_t *restrict high = (uint16_t *)weight->data + first;
    int16_t *restrict low = (int16_t *)residue->data + at;
    for (int64_t i = 0; i < count; i++) {
        high[i] = bf16_split(src[i], &low[i]);
    }
}

/* One element of the weight. */
static inline void update_store_one(const struct tensor *t, int64_t at, float value,
                                    enum rounding rounding, struct random_key key)
{
    if (t->dtype == DTYPE_F32 || rounding == ROUNDING_NEAREST) {
        cpu_set(t, at, value);
        return;
    }
    key.purpose = RANDOM_ROUND_W;
    ((uint16_t *)t->data)[at] = bf16_from_float_stochastic(value, random_u32(&key, (uint64_t)at));
}

/* Elements [first, first + count) in fp32: in place, or converted into `buffer`. */
static inline float *update_open(const struct tensor *t, int64_t first, int64_t count,
                                 float *buffer)
{
    float *a = cpu_write(t, first, buffer);
    if (a == buffer) {
        cpu_load(a, t, first, count);
    }
    return a;
}

#endif
