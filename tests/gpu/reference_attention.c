/* Causal attention in double: every score is computed where it is needed. */
#include <math.h>
#include <stdlib.h>

#include "gpu/reference.h"

/* Where the vectors of a head begin in a row of qkv. */
struct places {
    int64_t width, query, key, value;
};

static struct places places_of(const struct attention_shape *s, int64_t head)
{
    int64_t size = s->head_size;
    int64_t shared = head / (s->heads / s->kv_heads);
    return (struct places){ .width = (s->heads + 2 * s->kv_heads) * size,
                            .query = head * size,
                            .key = (s->heads + shared) * size,
                            .value = (s->heads + s->kv_heads + shared) * size };
}

static double dot(const double *a, const double *b, int64_t count)
{
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

static int64_t first_of(const struct tensor *starts, int64_t token)
{
    return starts != NULL ? (int64_t)numbers_of(starts)[token] : 0;
}

/* out (size) = softmax of scores (count), values `stride` apart; returns the log of the sum. */
static double mix(double *out, double *scores, int64_t count, const double *values, int64_t stride,
                  int64_t size)
{
    double most = scores[0];
    double sum = 0.0;
    for (int64_t i = 1; i < count; i++) {
        most = fmax(most, scores[i]);
    }
    for (int64_t i = 0; i < count; i++) {
        scores[i] = exp(scores[i] - most);
        sum += scores[i];
    }
    for (int64_t d = 0; d < size; d++) {
        out[d] = 0.0;
        for (int64_t i = 0; i < count; i++) {
            out[d] += scores[i] / sum * values[i * stride + d];
        }
    }
    return most + log(sum);
}

void reference_attention_forward(struct backend *be, const struct attention_forward *args)
{
    (void)be;
    const struct attention_shape *s = &args->shape;
    int64_t size = s->head_size;
    double *scores = reference_room(s->sequence);
    for (int64_t task = 0; task < s->batch * s->heads * s->sequence; task++) {
        int64_t at = task % s->sequence;
        int64_t head = task / s->sequence % s->heads;
        int64_t begin = task / s->sequence / s->heads * s->sequence;
        struct places p = places_of(s, head);
        const double *qkv = numbers_of(args->qkv) + begin * p.width;
        int64_t first = first_of(args->starts, begin + at);
        for (int64_t j = first; j <= at; j++) {
            scores[j - first] = (double)s->scale *
                                dot(qkv + at * p.width + p.query, qkv + j * p.width + p.key, size);
        }
        double *out = numbers_of(args->out) + ((begin + at) * s->heads + head) * size;
        numbers_of(args->lse)[task] =
            mix(out, scores, at - first + 1, qkv + first * p.width + p.value, p.width, size);
    }
    free(scores);
}

void reference_attention_backward(struct backend *be, const struct attention_backward *args)
{
    (void)be;
    const struct attention_shape *s = &args->shape;
    int64_t size = s->head_size;
    for (int64_t i = 0; i < tensor_count(args->dqkv); i++) {
        numbers_of(args->dqkv)[i] = 0.0;
    }
    for (int64_t task = 0; task < s->batch * s->heads * s->sequence; task++) {
        int64_t at = task % s->sequence;
        int64_t head = task / s->sequence % s->heads;
        int64_t begin = task / s->sequence / s->heads * s->sequence;
        int64_t row = ((begin + at) * s->heads + head) * size;
        struct places p = places_of(s, head);
        const double *qkv = numbers_of(args->qkv) + begin * p.width;
        double *dqkv = numbers_of(args->dqkv) + begin * p.width;
        const double *dout = numbers_of(args->dout) + row;
        const double *query = qkv + at * p.width + p.query;
        double delta = dot(dout, numbers_of(args->out) + row, size);
        numbers_of(args->delta)[task] = delta;
        for (int64_t j = first_of(args->starts, begin + at); j <= at; j++) {
            const double *key = qkv + j * p.width + p.key;
            double score = (double)s->scale * dot(query, key, size);
            double weight = exp(score - numbers_of(args->lse)[task]);
            double dweight = dot(dout, qkv + j * p.width + p.value, size);
            double dscore = (double)s->scale * weight * (dweight - delta);
            for (int64_t d = 0; d < size; d++) {
                dqkv[at * p.width + p.query + d] += dscore * key[d];
                dqkv[j * p.width + p.key + d] += dscore * query[d];
                dqkv[j * p.width + p.value + d] += weight * dout[d];
            }
        }
    }
}

/* What a cache of this dtype keeps of a value. */
static double kept(const struct tensor *cache, double value)
{
    return cache->dtype == DTYPE_BF16 ? (double)bf16_to_float(bf16_from_float((float)value))
                                      : value;
}

void reference_attention_decode(struct backend *be, const struct attention_decode *args)
{
    (void)be;
    const struct attention_shape *s = &args->shape;
    int64_t size = s->head_size;
    int64_t across = s->kv_heads * size;
    int64_t held = tensor_rows(args->keys) / s->batch;
    double *scores = reference_room(args->position + 1);
    for (int64_t task = 0; task < s->batch * s->heads; task++) {
        int64_t batch = task / s->heads;
        struct places p = places_of(s, task % s->heads);
        const double *row = numbers_of(args->qkv) + batch * p.width;
        int64_t shared = p.key - s->heads * size;
        double *keys = numbers_of(args->keys) + batch * held * across + shared;
        double *values = numbers_of(args->values) + batch * held * across + shared;
        for (int64_t d = 0; d < size; d++) {
            keys[args->position * across + d] = kept(args->keys, row[p.key + d]);
            values[args->position * across + d] = kept(args->values, row[p.value + d]);
        }
        for (int64_t j = 0; j <= args->position; j++) {
            scores[j] = (double)s->scale * dot(row + p.query, keys + j * across, size);
        }
        (void)mix(numbers_of(args->out) + task * size, scores, args->position + 1, values, across,
                  size);
    }
    free(scores);
}
