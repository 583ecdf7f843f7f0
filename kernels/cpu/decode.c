/*
 * Attention of one new token a row against cached keys and values, 64 positions at a time, with a
 * running maximum and sum as in attention.c. Limited by memory: every cached element is read once.
 */
#include <omp.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/math.h"

enum { BLOCK = 64 };

/* Below every score, and finite: differences with it are not NaN. */
static const float no_score = -1e30f;

/* Scratch of a thread: the query, the output and the converted row of a cache. */
struct decode_room {
    float *query;
    float *out;
    float *row;
};

/* One query head over all cached positions, BLOCK at a time. */
static void decode_head(const struct attention_decode *args, const struct decode_room *room,
                        int64_t batch, int64_t head)
{
    const struct attention_shape *shape = &args->shape;
    int64_t size = shape->head_size;
    int64_t width = shape->kv_heads * size;
    int64_t group = head / (shape->heads / shape->kv_heads);
    int64_t held = tensor_rows(args->keys) / shape->batch;
    int64_t cache = batch * held * width + group * size;
    int64_t qkv_width = (shape->heads + 2 * shape->kv_heads) * size;
    float most = no_score;
    float sum = 0.0f;
    cpu_load(room->query, args->qkv, batch * qkv_width + head * size, size);
    memset(room->out, 0, (size_t)size * sizeof *room->out);
    for (int64_t first = 0; first <= args->position; first += BLOCK) {
        float score[BLOCK];
        int64_t count = cpu_min(BLOCK, args->position + 1 - first);
        float old = most;
        for (int64_t j = 0; j < count; j++) {
            const float *key = cpu_read(args->keys, cache + (first + j) * width, size, room->row);
            float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
            for (int64_t d = 0; d < size; d++) {
                dot += room->query[d] * key[d];
            }
            score[j] = dot * shape->scale;
            most = score[j] > most ? score[j] : most;
        }
        float shrink = cpu_exp(old - most);
        sum *= shrink;
        for (int64_t d = 0; d < size; d++) {
            room->out[d] *= shrink;
        }
        for (int64_t j = 0; j < count; j++) {
            float p = cpu_exp(score[j] - most);
            const float *value =
                cpu_read(args->values, cache + (first + j) * width, size, room->row);
            sum += p;
#pragma omp simd
            for (int64_t d = 0; d < size; d++) {
                room->out[d] += p * value[d];
            }
        }
    }
    for (int64_t d = 0; d < size; d++) {
        room->out[d] /= sum;
    }
    cpu_store(args->out, (batch * shape->heads + head) * size, room->out, size);
}

/* Stores the new keys and values of one row in the caches. */
static void decode_store(const struct attention_decode *args, int64_t batch)
{
    const struct attention_shape *shape = &args->shape;
    int64_t width = shape->kv_heads * shape->head_size;
    int64_t qkv_width = shape->heads * shape->head_size + 2 * width;
    int64_t held = tensor_rows(args->keys) / shape->batch;
    int64_t to = (batch * held + args->position) * width;
    int64_t from = batch * qkv_width + shape->heads * shape->head_size;
    float buffer[CPU_BLOCK];
    for (int64_t at = 0; at < width; at += CPU_BLOCK) {
        int64_t length = cpu_min(CPU_BLOCK, width - at);
        cpu_store(args->keys, to + at, cpu_read(args->qkv, from + at, length, buffer), length);
        cpu_store(args->values, to + at, cpu_read(args->qkv, from + width + at, length, buffer),
                  length);
    }
}

void cpu_attention_decode(struct backend *be, const struct attention_decode *args)
{
    const struct attention_shape *shape = &args->shape;
    int64_t tasks = shape->batch * shape->heads;
    size_t floats = (size_t)shape->head_size * 3;
    size_t threads = (size_t)omp_get_max_threads();
    float *scratch = cpu_scratch(be, threads * floats * sizeof *scratch);
    if (scratch == NULL) {
        return;
    }
    for (int64_t batch = 0; batch < shape->batch; batch++) {
        decode_store(args, batch);
    }
    bool worth = tasks * (args->position + 1) * shape->head_size > CPU_GRAIN;
#pragma omp parallel if (worth)
    {
        float *at = scratch + (size_t)omp_get_thread_num() * floats;
        struct decode_room room = { at, at + shape->head_size, at + 2 * shape->head_size };
#pragma omp for schedule(static)
        for (int64_t task = 0; task < tasks; task++) {
            decode_head(args, &room, task / shape->heads, task % shape->heads);
        }
    }
}
