/* What the update rules share: the two factors of Adam, its arguments on the device, and storing
 * one element with a rounding. */
#ifndef WINDROW_KERNELS_CUDA_UPDATE_CUH
#define WINDROW_KERNELS_CUDA_UPDATE_CUH

#include "kernels/cuda/random.cuh"
#include "kernels/cuda/vector.cuh"
#include "kernels/ops.h"

/* w -= step * m / (sqrt(v) * root + eps) + decay * w. */
struct adam_slot {
    float step; /* rate / (1 - beta1^k) */
    float root; /* 1 / sqrt(1 - beta2^k) */
};

/* `rate` is lr * scale * rho; k = age + 1. */
static __device__ inline struct adam_slot adam_slot_make(double rate, float beta1, float beta2,
                                                         int32_t age)
{
    double k = (double)age + 1.0;
    struct adam_slot slot;
    slot.step = (float)(rate / (1.0 - pow((double)beta1, k)));
    slot.root = (float)(1.0 / sqrt(1.0 - pow((double)beta2, k)));
    return slot;
}

static __device__ inline void put_stochastic(struct view t, int64_t at, float value,
                                             struct random_key key, enum random_purpose purpose)
{
    key.purpose = purpose;
    ((uint16_t *)t.data)[at] = bf16_from_float_stochastic(value, random_word(&key, at));
}

/* `stochastic` only with a bf16 weight. */
static __device__ inline void put_weight(struct view t, int64_t at, float value, bool stochastic,
                                         struct random_key key)
{
    if (stochastic) {
        put_stochastic(t, at, value, key, RANDOM_ROUND_W);
    } else {
        put(t, at, value);
    }
}

/* bf16 moments are always rounded stochastically. */
static __device__ inline void put_moment(struct view t, int64_t at, float value,
                                         struct random_key key, enum random_purpose purpose)
{
    if (t.half) {
        put_stochastic(t, at, value, key, purpose);
    } else {
        put(t, at, value);
    }
}

/* The arguments of AdamW, whatever its moments are stored as. */
struct adam {
    struct view weight, gradient;
    struct adam_slot *slots;
    int32_t *age;
    const int32_t *index; /* or NULL */
    const float *rho;     /* or NULL */
    const float *control;
    int16_t *residue;      /* or NULL */
    int64_t rows, columns; /* of the gradient */
    int64_t weight_columns;
    bool stochastic;
    float lr, beta1, beta2, eps, decay, scale;
    struct random_key key;
};

struct adam adam_of(const struct adamw *args, struct adam_slot *slots);

/* Turns the ages of `count` slots into their factors, and counts the ages up. */
void adam_fill_slots(struct backend *be, const struct adam *a, int64_t count);

/* Element `to` of the weight takes its step from new moments m and root = sqrt(v); its residue is
 * element `at`. */
static __device__ inline void adam_step(const struct adam *a, int64_t to, int64_t at, float m,
                                        float root, struct adam_slot slot)
{
    uint16_t *bits = (uint16_t *)a->weight.data;
    float w = a->residue != NULL ? bf16_join(bits[to], a->residue[at]) : get(a->weight, to);
    w -= slot.step * m / (root * slot.root + a->eps) + a->decay * w;
    if (a->residue != NULL) {
        bits[to] = bf16_split(w, &a->residue[at]);
    } else {
        put_weight(a->weight, to, w, a->stochastic, a->key);
    }
}

#endif
