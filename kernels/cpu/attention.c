/*
 * Causal attention in blocks of 64 queries and 64 keys, in memory linear in the sequence.
 *
 * Forward: Milakov, Gimelshein, "Online normalizer calculation for softmax", arXiv 1805.02867,
 * algorithm 3, block by block; backward: Dao, "FlashAttention-2", arXiv 2307.08691, algorithm 2,
 * with the loops over queries outside.
 *
 * A block of scores is kept transposed, one row a key and one column a query: then a maximum or a
 * sum over the keys of a query is a plain loop over vectors, one lane a query. Head sizes are
 * padded with zeros to a multiple of TILE_COLUMN_STEP, blocks at the end of a sequence with zero
 * rows; padding gets probability 0. Of a block on the diagonal, where no query sees a later key,
 * row j is computed from column tile_first_column(j) on.
 *
 * Forward tasks are (row, query head, block of queries). Backward tasks are (row, key/value head),
 * so that every gradient of a key or value belongs to one task, which adds to it in a fixed order.
 */
#include <math.h>
#include <omp.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/math.h"
#include "kernels/cpu/tile.h"

enum { BLOCK = 64 };

/* Stands for "no score": finite, so that differences of two of them are not NaN. */
static const float no_score = -1e30f;

/* What a call works on. */
struct scene {
    const struct attention_shape *shape;
    const struct tensor *qkv;
    const int32_t *starts; /* or NULL */
    int64_t width;         /* elements of a row of qkv */
    int64_t padded;        /* head size, rounded up */
};

static struct scene scene_make(const struct attention_shape *shape, const struct tensor *qkv,
                               const struct tensor *starts)
{
    int64_t size = shape->head_size;
    return (struct scene){
        .shape = shape,
        .qkv = qkv,
        .starts = starts != NULL ? starts->data : NULL,
        .width = (shape->heads + 2 * shape->kv_heads) * size,
        .padded = (size + TILE_COLUMN_STEP - 1) / TILE_COLUMN_STEP * TILE_COLUMN_STEP,
    };
}

/* One block of queries of one row of the batch. */
struct queries {
    int64_t token;  /* of the row's first token, in the batch */
    int64_t first;  /* position of the block in the sequence */
    int64_t count;  /* at most BLOCK */
    int64_t oldest; /* smallest start among them */
    int32_t start[BLOCK];
};

static void queries_find(struct queries *q, const struct scene *s, int64_t batch, int64_t block)
{
    int64_t sequence = s->shape->sequence;
    q->token = batch * sequence;
    q->first = block * BLOCK;
    q->count = cpu_min(BLOCK, sequence - q->first);
    q->oldest = q->first;
    for (int64_t i = 0; i < BLOCK; i++) {
        int32_t start = 0;
        if (s->starts != NULL && i < q->count) {
            start = s->starts[q->token + q->first + i];
        }
        q->start[i] = i < q->count ? start : INT32_MAX;
        q->oldest = i < q->count ? cpu_min(q->oldest, start) : q->oldest;
    }
}

/* memcpy for a few numbers; a call would cost more than the copy. */
static inline void copy_few(float *restrict dst, const float *restrict src, int64_t count)
{
    int64_t i = 0;
    for (; i + TILE_COLUMN_STEP <= count; i += TILE_COLUMN_STEP) {
        memcpy(dst + i, src + i, TILE_COLUMN_STEP * sizeof *dst);
    }
    for (; i < count; i++) {
        dst[i] = src[i];
    }
}

/* dst (BLOCK, padded) = `count` rows of one head, starting with row `token` of t, zeros around. */
static void load_rows(float *dst, const struct scene *s, const struct tensor *t, int64_t token,
                      int64_t count, int64_t column)
{
    int64_t size = s->shape->head_size;
    int64_t width = tensor_columns(t);
    bool plain = t->dtype == DTYPE_F32;
    for (int64_t i = 0; i < count; i++) {
        int64_t at = (token + i) * width + column;
        if (plain) {
            copy_few(dst + i * s->padded, (const float *)t->data + at, size);
        } else {
            cpu_load(dst + i * s->padded, t, at, size);
        }
        for (int64_t d = size; d < s->padded; d++) {
            dst[i * s->padded + d] = 0.0f;
        }
    }
    memset(dst + count * s->padded, 0, (size_t)((BLOCK - count) * s->padded) * sizeof *dst);
}

static void store_rows(const struct tensor *t, const float *src, const struct scene *s,
                       int64_t token, int64_t count, int64_t column)
{
    int64_t width = tensor_columns(t);
    for (int64_t i = 0; i < count; i++) {
        int64_t at = (token + i) * width + column;
        if (t->dtype == DTYPE_F32) {
            copy_few((float *)t->data + at, src + i * s->padded, s->shape->head_size);
        } else {
            cpu_store(t, at, src + i * s->padded, s->shape->head_size);
        }
    }
}

/* dst (size, BLOCK) = scale * src (BLOCK, padded), transposed. */
static void transpose(float *dst, const float *src, const struct scene *s, float scale)
{
    enum { PATCH = 16 };
    for (int64_t d = 0; d < s->padded; d += PATCH) {
        for (int64_t i = 0; i < BLOCK; i += PATCH) {
            for (int64_t dd = d; dd < d + PATCH; dd++) {
                for (int64_t ii = i; ii < i + PATCH; ii++) {
                    dst[dd * BLOCK + ii] = scale * src[ii * s->padded + dd];
                }
            }
        }
    }
}

/* Rows of a block that hold keys, rounded up to what tile_product takes. */
static int64_t key_rows(int64_t keys)
{
    return (keys + TILE_ROW_STEP - 1) / TILE_ROW_STEP * TILE_ROW_STEP;
}

/* visible[i] = 1.0 where query i attends to the key at `position`, else 0.0; i from `from` on. */
static void see(float visible[BLOCK], const struct queries *q, int64_t position, int32_t from)
{
    int32_t key = (int32_t)position;
    int32_t first = (int32_t)q->first;
#pragma omp simd
    for (int32_t i = from; i < BLOCK; i++) {
        visible[i] = (key <= first + i) & (key >= q->start[i]) ? 1.0f : 0.0f;
    }
}

/* First query whose score with the block's key j was computed. */
static int32_t first_query(const struct queries *q, int64_t first_key, int64_t j)
{
    return first_key == q->first ? (int32_t)tile_first_column(j) : 0;
}

/* True if every query of a whole block sees every key in [first, first + BLOCK). */
static bool all_visible(const struct queries *q, int64_t first)
{
    if (q->count < BLOCK || first + BLOCK > q->first + 1) {
        return false;
    }
    for (int64_t i = 0; i < BLOCK; i++) {
        if (q->start[i] > first) {
            return false;
        }
    }
    return true;
}

/* ---- forward ----------------------------------------------------------------------------------
 */

/* Scratch of one thread, in floats: what follows, one after the other. */
struct forward_room {
    float *query; /* transposed and scaled */
    float *key;
    float *value;
    float *out;   /* (BLOCK, padded), not yet divided by the sums */
    float *score; /* (keys, queries), then probabilities */
    float *most;  /* running maximum of a query */
    float *sum;   /* running sum of exponentials */
};

static size_t forward_floats(const struct scene *s)
{
    return (size_t)(BLOCK * (4 * s->padded + BLOCK + 2));
}

static struct forward_room forward_place(float *at, const struct scene *s)
{
    size_t block = (size_t)(BLOCK * s->padded);
    return (struct forward_room){
        .query = at,
        .key = at + block,
        .value = at + 2 * block,
        .out = at + 3 * block,
        .score = at + 4 * block,
        .most = at + 4 * block + BLOCK * BLOCK,
        .sum = at + 4 * block + BLOCK * BLOCK + BLOCK,
    };
}

/* Scores become exponentials of (score - maximum so far); sums and outputs so far are scaled to
 * the new maximum. */
static void soften(const struct forward_room *room, const struct scene *s, const struct queries *q,
                   int64_t first_key, int64_t rows)
{
    float most[BLOCK];
    float visible[BLOCK];
    float shrink[BLOCK];
    float sum[BLOCK] = { 0.0f };
    bool whole = all_visible(q, first_key);
    memcpy(most, room->most, sizeof most);
    for (int64_t j = 0; j < rows; j++) {
        float *row = room->score + j * BLOCK;
        int32_t from = first_query(q, first_key, j);
        if (!whole) {
            see(visible, q, first_key + j, from);
#pragma omp simd
            for (int32_t i = from; i < BLOCK; i++) {
                row[i] = visible[i] != 0.0f ? row[i] : no_score;
            }
        }
#pragma omp simd
        for (int32_t i = from; i < BLOCK; i++) {
            most[i] = row[i] > most[i] ? row[i] : most[i];
        }
    }
    for (int64_t j = 0; j < rows; j++) {
        float *row = room->score + j * BLOCK;
#pragma omp simd
        for (int32_t i = first_query(q, first_key, j); i < BLOCK; i++) {
            float e = cpu_exp(row[i] - most[i]);
            row[i] = row[i] == no_score ? 0.0f : e;
            sum[i] += row[i];
        }
    }
    for (int i = 0; i < BLOCK; i++) {
        shrink[i] = cpu_exp(room->most[i] - most[i]);
        room->sum[i] = room->sum[i] * shrink[i] + sum[i];
        room->most[i] = most[i];
    }
    for (int64_t i = 0; i < q->count; i++) {
        float *row = room->out + i * s->padded;
#pragma omp simd
        for (int64_t d = 0; d < s->padded; d++) {
            row[d] *= shrink[i];
        }
    }
}

static void forward_keys(const struct forward_room *room, const struct scene *s,
                         const struct queries *q, int64_t group, int64_t first_key)
{
    const struct attention_shape *shape = s->shape;
    int64_t keys = cpu_min(BLOCK, q->first + q->count - first_key);
    int64_t rows = key_rows(keys);
    int64_t key_column = (shape->heads + group) * shape->head_size;
    int64_t value_column = key_column + shape->kv_heads * shape->head_size;
    load_rows(room->key, s, s->qkv, q->token + first_key, keys, key_column);
    load_rows(room->value, s, s->qkv, q->token + first_key, keys, value_column);
    bool diagonal = first_key == q->first;
    tile_product(&(struct tile){ .c = room->score,
                                 .a = room->key,
                                 .b = room->query,
                                 .c_row = BLOCK,
                                 .a_row = s->padded,
                                 .a_column = 1,
                                 .b_row = BLOCK,
                                 .m = rows,
                                 .n = BLOCK,
                                 .k = shape->head_size,
                                 .fresh = 1,
                                 .want = diagonal ? TILE_UPPER : TILE_ALL });
    soften(room, s, q, first_key, rows);
    tile_product(&(struct tile){ .c = room->out,
                                 .a = room->score,
                                 .b = room->value,
                                 .c_row = s->padded,
                                 .a_row = 1,
                                 .a_column = BLOCK,
                                 .b_row = s->padded,
                                 .m = key_rows(q->count),
                                 .n = s->padded,
                                 .k = keys,
                                 .want = diagonal ? TILE_TO_ROW : TILE_ALL });
}

static void forward_task(const struct attention_forward *args, const struct scene *s,
                         const struct forward_room *room, int64_t task)
{
    const struct attention_shape *shape = s->shape;
    int64_t blocks = cpu_chunk_count(shape->sequence, BLOCK);
    int64_t head = task / blocks % shape->heads;
    int64_t batch = task / blocks / shape->heads;
    struct queries q;
    queries_find(&q, s, batch, task % blocks);
    float *rows = room->value; /* free until the first keys come */
    load_rows(rows, s, s->qkv, q.token + q.first, q.count, head * shape->head_size);
    transpose(room->query, rows, s, shape->scale);
    memset(room->out, 0, (size_t)(BLOCK * s->padded) * sizeof *room->out);
    for (int i = 0; i < BLOCK; i++) {
        room->most[i] = no_score;
        room->sum[i] = 0.0f;
    }
    int64_t group = head / (shape->heads / shape->kv_heads);
    for (int64_t key = q.oldest / BLOCK * BLOCK; key <= q.first; key += BLOCK) {
        forward_keys(room, s, &q, group, key);
    }
    float *lse = (float *)args->lse->data + (batch * shape->heads + head) * shape->sequence;
    for (int64_t i = 0; i < q.count; i++) {
        float *out = room->out + i * s->padded;
        lse[q.first + i] = room->most[i] + logf(room->sum[i]);
        float inverse = 1.0f / room->sum[i];
        for (int64_t d = 0; d < s->padded; d++) {
            out[d] *= inverse;
        }
    }
    store_rows(args->out, room->out, s, q.token + q.first, q.count, head * shape->head_size);
}

void cpu_attention_forward(struct backend *be, const struct attention_forward *args)
{
    const struct attention_shape *shape = &args->shape;
    struct scene s = scene_make(shape, args->qkv, args->starts);
    int64_t tasks = shape->batch * shape->heads * cpu_chunk_count(shape->sequence, BLOCK);
    size_t floats = forward_floats(&s);
    size_t threads = (size_t)omp_get_max_threads();
    float *scratch = cpu_scratch(be, threads * floats * sizeof *scratch);
    if (scratch == NULL) {
        return;
    }
#pragma omp parallel if (tasks > 1)
    {
        struct forward_room room =
            forward_place(scratch + (size_t)omp_get_thread_num() * floats, &s);
        /* Backwards: the tasks with most keys first. Who does a task does not change it. */
#pragma omp for schedule(dynamic)
        for (int64_t task = tasks - 1; task >= 0; task--) {
            forward_task(args, &s, &room, task);
        }
    }
}

/* ---- backward ---------------------------------------------------------------------------------
 */

struct backward_room {
    float *query, *query_t; /* (BLOCK, padded); (padded, BLOCK), the latter scaled */
    float *dout, *dout_t;
    float *key, *value;
    float *dquery;
    float *score;  /* (keys, queries): probabilities */
    float *dscore; /* (keys, queries) */
    float *dkey;   /* (sequence, padded), for the whole task */
    float *dvalue;
};

static int64_t padded_sequence(const struct scene *s)
{
    return cpu_chunk_count(s->shape->sequence, BLOCK) * BLOCK;
}

static size_t backward_floats(const struct scene *s)
{
    return (size_t)(BLOCK * (7 * s->padded + 2 * BLOCK) + 2 * padded_sequence(s) * s->padded);
}

static struct backward_room backward_place(float *at, const struct scene *s)
{
    size_t block = (size_t)(BLOCK * s->padded);
    float *scores = at + 7 * block;
    float *whole = scores + 2 * BLOCK * BLOCK;
    return (struct backward_room){
        .query = at,
        .query_t = at + block,
        .dout = at + 2 * block,
        .dout_t = at + 3 * block,
        .key = at + 4 * block,
        .value = at + 5 * block,
        .dquery = at + 6 * block,
        .score = scores,
        .dscore = scores + BLOCK * BLOCK,
        .dkey = whole,
        .dvalue = whole + padded_sequence(s) * s->padded,
    };
}

/* score becomes the probability p, dscore becomes scale * p * (dscore - delta). */
static void harden(const struct backward_room *room, const struct scene *s, const struct queries *q,
                   const float lse[BLOCK], const float delta[BLOCK], int64_t first_key,
                   int64_t rows)
{
    float visible[BLOCK];
    bool whole = all_visible(q, first_key);
    float scale = s->shape->scale;
    for (int i = 0; i < BLOCK; i++) {
        visible[i] = 1.0f;
    }
    for (int64_t j = 0; j < rows; j++) {
        float *p = room->score + j * BLOCK;
        float *d = room->dscore + j * BLOCK;
        int32_t from = first_query(q, first_key, j);
        if (!whole) {
            see(visible, q, first_key + j, from);
        }
#pragma omp simd
        for (int32_t i = from; i < BLOCK; i++) {
            float e = cpu_exp(p[i] - lse[i]);
            p[i] = visible[i] != 0.0f ? e : 0.0f;
            float change = scale * p[i] * (d[i] - delta[i]);
            d[i] = visible[i] != 0.0f ? change : 0.0f;
        }
    }
}

static void backward_keys(const struct backward_room *room, const struct scene *s,
                          const struct queries *q, int64_t group, int64_t first_key,
                          const float lse[BLOCK], const float delta[BLOCK])
{
    const struct attention_shape *shape = s->shape;
    int64_t keys = cpu_min(BLOCK, q->first + q->count - first_key);
    int64_t rows = key_rows(keys);
    int64_t key_column = (shape->heads + group) * shape->head_size;
    int64_t value_column = key_column + shape->kv_heads * shape->head_size;
    load_rows(room->key, s, s->qkv, q->token + first_key, keys, key_column);
    load_rows(room->value, s, s->qkv, q->token + first_key, keys, value_column);
    bool diagonal = first_key == q->first;
    struct tile scores = { .c = room->score,
                           .a = room->key,
                           .b = room->query_t,
                           .c_row = BLOCK,
                           .a_row = s->padded,
                           .a_column = 1,
                           .b_row = BLOCK,
                           .m = rows,
                           .n = BLOCK,
                           .k = shape->head_size,
                           .fresh = 1,
                           .want = diagonal ? TILE_UPPER : TILE_ALL };
    tile_product(&scores);
    scores.c = room->dscore;
    scores.a = room->value;
    scores.b = room->dout_t;
    tile_product(&scores);
    harden(room, s, q, lse, delta, first_key, rows);
    struct tile sums = { .c = room->dvalue + first_key * s->padded,
                         .a = room->score,
                         .b = room->dout,
                         .c_row = s->padded,
                         .a_row = BLOCK,
                         .a_column = 1,
                         .b_row = s->padded,
                         .m = rows,
                         .n = s->padded,
                         .k = q->count,
                         .want = diagonal ? TILE_FROM_ROW : TILE_ALL };
    tile_product(&sums);
    sums.c = room->dkey + first_key * s->padded;
    sums.a = room->dscore;
    sums.b = room->query;
    tile_product(&sums);
    tile_product(&(struct tile){ .c = room->dquery,
                                 .a = room->dscore,
                                 .b = room->key,
                                 .c_row = s->padded,
                                 .a_row = 1,
                                 .a_column = BLOCK,
                                 .b_row = s->padded,
                                 .m = key_rows(q->count),
                                 .n = s->padded,
                                 .k = keys,
                                 .want = diagonal ? TILE_TO_ROW : TILE_ALL });
}

/* Everything that one block of queries of one head contributes. */
static void backward_queries(const struct attention_backward *args, const struct scene *s,
                             const struct backward_room *room, int64_t batch, int64_t head,
                             int64_t block)
{
    const struct attention_shape *shape = s->shape;
    struct queries q;
    queries_find(&q, s, batch, block);
    int64_t token = q.token + q.first;
    int64_t column = head * shape->head_size;
    int64_t statistics = (batch * shape->heads + head) * shape->sequence + q.first;
    float lse[BLOCK] = { 0.0f };
    float delta[BLOCK] = { 0.0f };
    load_rows(room->dquery, s, args->out, token, q.count, column);
    load_rows(room->dout, s, args->dout, token, q.count, column);
    for (int64_t i = 0; i < q.count; i++) {
        const float *out = room->dquery + i * s->padded;
        const float *dout = room->dout + i * s->padded;
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int64_t d = 0; d < s->padded; d++) {
            sum += out[d] * dout[d];
        }
        delta[i] = sum;
        lse[i] = ((const float *)args->lse->data)[statistics + i];
        ((float *)args->delta->data)[statistics + i] = sum;
    }
    transpose(room->dout_t, room->dout, s, 1.0f);
    load_rows(room->query, s, s->qkv, token, q.count, column);
    transpose(room->query_t, room->query, s, shape->scale);
    memset(room->dquery, 0, (size_t)(BLOCK * s->padded) * sizeof *room->dquery);
    int64_t group = head / (shape->heads / shape->kv_heads);
    for (int64_t key = q.oldest / BLOCK * BLOCK; key <= q.first; key += BLOCK) {
        backward_keys(room, s, &q, group, key, lse, delta);
    }
    store_rows(args->dqkv, room->dquery, s, token, q.count, column);
}

static void backward_task(const struct attention_backward *args, const struct scene *s,
                          const struct backward_room *room, int64_t task)
{
    const struct attention_shape *shape = s->shape;
    int64_t batch = task / shape->kv_heads;
    int64_t group = task % shape->kv_heads;
    int64_t shared = shape->heads / shape->kv_heads;
    size_t bytes = (size_t)(padded_sequence(s) * s->padded) * sizeof *room->dkey;
    memset(room->dkey, 0, bytes);
    memset(room->dvalue, 0, bytes);
    for (int64_t head = group * shared; head < (group + 1) * shared; head++) {
        for (int64_t block = 0; block < cpu_chunk_count(shape->sequence, BLOCK); block++) {
            backward_queries(args, s, room, batch, head, block);
        }
    }
    int64_t key_column = (shape->heads + group) * shape->head_size;
    int64_t value_column = key_column + shape->kv_heads * shape->head_size;
    int64_t token = batch * shape->sequence;
    store_rows(args->dqkv, room->dkey, s, token, shape->sequence, key_column);
    store_rows(args->dqkv, room->dvalue, s, token, shape->sequence, value_column);
}

void cpu_attention_backward(struct backend *be, const struct attention_backward *args)
{
    const struct attention_shape *shape = &args->shape;
    struct scene s = scene_make(shape, args->qkv, args->starts);
    int64_t tasks = shape->batch * shape->kv_heads;
    size_t floats = backward_floats(&s);
    size_t threads = (size_t)omp_get_max_threads();
    float *scratch = cpu_scratch(be, threads * floats * sizeof *scratch);
    if (scratch == NULL) {
        return;
    }
#pragma omp parallel if (tasks > 1)
    {
        struct backward_room room =
            backward_place(scratch + (size_t)omp_get_thread_num() * floats, &s);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < tasks; task++) {
            backward_task(args, &s, &room, task);
        }
    }
}
