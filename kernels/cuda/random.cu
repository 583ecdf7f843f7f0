/*
 * Random signs, and normal random numbers by Box and Muller, on the same words as the cpu backend:
 * a thread makes whole blocks of four words.
 *
 * Floor: 2 bytes an element in bf16. In fact the generator takes longer; normal numbers are made
 * once, before training.
 */
#include "kernels/cuda/check.cuh"
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/vector.cuh"

static __global__ void random_normal_kernel(struct view x, float deviation, struct random_key key,
                                            int64_t count, bool wide)
{
    int64_t at = thread_number() * VECTOR;
    if (at >= count) {
        return;
    }
    const float two_pi = 6.28318530717958648f;
    float value[VECTOR];
#pragma unroll
    for (int half = 0; half < VECTOR; half += 4) {
        struct random_block block = random_words(&key, (uint64_t)(at + half) / 4);
#pragma unroll
        for (int i = 0; i < 4; i += 2) {
            float radius = deviation * sqrtf(-2.0f * logf(random_uniform_from(block.word[i])));
            float angle = two_pi * random_uniform_from(block.word[i + 1]);
            value[half + i] = radius * cosf(angle);
            value[half + i + 1] = radius * sinf(angle);
        }
    }
    store8(x, at, value, vector_count(at, count), wide);
}

void cuda_random_normal(struct backend *be, struct tensor *x, float deviation,
                        struct random_key key)
{
    int64_t count = tensor_count(x);
    if (count > 0) {
        LAUNCH(random_normal_kernel, cuda_blocks(vectors_of(count)), BLOCK_THREADS, 0,
               cuda_stream(be), view_of(x), deviation, key, count, view_is_wide(x));
    }
    cuda_check(be, "random_normal");
}

static __global__ void random_sign_kernel(struct view x, float magnitude, struct random_key key,
                                          int64_t count)
{
    int64_t at = thread_number() * 4;
    if (at >= count) {
        return;
    }
    struct random_block block = random_words(&key, (uint64_t)at / 4);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (at + i < count) {
            put(x, at + i, (block.word[i] & 1u) != 0 ? magnitude : -magnitude);
        }
    }
}

void cuda_random_sign(struct backend *be, struct tensor *x, float magnitude, struct random_key key)
{
    int64_t count = tensor_count(x);
    if (count > 0) {
        LAUNCH(random_sign_kernel, cuda_blocks((count + 3) / 4), BLOCK_THREADS, 0, cuda_stream(be),
               view_of(x), magnitude, key, count);
    }
    cuda_check(be, "random_sign");
}
