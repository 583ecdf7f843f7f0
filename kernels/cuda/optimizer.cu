/*
 * AdamW on a whole weight or on selected rows or columns of it (formulas in kernels/ops.h).
 *
 * Floor: of each element of the gradient, m and v are read and written, the gradient read, and the
 * weight (and its residue) read and written: in bf16 with fp32 moments 22 bytes (26). Nothing else
 * of a weight whose rows were selected is touched.
 *
 * A first kernel turns the age of each slot into its two factors and counts the age up; the second
 * one updates eight elements of the gradient a thread. Random words are those of the cpu backend:
 * of an element of the weight, or of the moments.
 */
#include "kernels/cuda/check.cuh"
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/scratch.h"
#include "kernels/cuda/update.cuh"

struct update {
    struct view weight, m, v, gradient;
    struct adam_slot *slots;
    int32_t *age;
    const int32_t *index; /* or NULL */
    const float *rho;     /* or NULL */
    const float *control;
    int16_t *residue;      /* or NULL */
    int64_t rows, columns; /* of the gradient */
    int64_t weight_columns;
    bool by_row; /* the rows of the gradient are slots; otherwise its columns (or neither) */
    bool stochastic;
    bool wide;
    float lr, beta1, beta2, eps, decay, scale;
    struct random_key key;
};

static __global__ void slots_kernel(struct update u, int64_t count)
{
    int64_t j = thread_number();
    if (j >= count || u.control[CONTROL_SKIP] != 0.0f || (u.index != NULL && u.index[j] < 0)) {
        return;
    }
    double rho = u.rho != NULL ? (double)u.rho[j] : 1.0;
    double rate = (double)u.lr * (double)u.scale * rho;
    u.slots[j] = adam_slot_make(rate, u.beta1, u.beta2, u.age[j]);
    u.age[j]++;
}

/* The words of elements [first, first + 8). */
static __device__ inline void words8(uint32_t word[VECTOR], struct random_key key,
                                     enum random_purpose purpose, int64_t first)
{
    key.purpose = purpose;
    if (first % 4 == 0) {
        struct random_block a = random_words(&key, (uint64_t)first / 4);
        struct random_block b = random_words(&key, (uint64_t)first / 4 + 1);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            word[i] = a.word[i];
            word[4 + i] = b.word[i];
        }
        return;
    }
    struct random_block block = random_words(&key, (uint64_t)first / 4);
#pragma unroll
    for (int i = 0; i < VECTOR; i++) {
        int64_t element = first + i;
        if (i > 0 && element % 4 == 0) {
            block = random_words(&key, (uint64_t)element / 4);
        }
        word[i] = word_of(&block, element);
    }
}

/* bf16 elements [at, at + count) = x, rounded up or down at random. */
static __device__ inline void store8_stochastic(struct view t, int64_t at, const float x[VECTOR],
                                                int count, bool wide, const uint32_t word[VECTOR])
{
    uint16_t *to = (uint16_t *)t.data + at;
    if (wide && count == VECTOR) {
        uint32_t pair[VECTOR / 2];
#pragma unroll
        for (int i = 0; i < VECTOR / 2; i++) {
            uint32_t low = bf16_from_float_stochastic(x[2 * i], word[2 * i]);
            uint32_t high = bf16_from_float_stochastic(x[2 * i + 1], word[2 * i + 1]);
            pair[i] = low | (high << 16);
        }
        uint4 u = { pair[0], pair[1], pair[2], pair[3] };
        *(uint4 *)to = u;
        return;
    }
#pragma unroll
    for (int i = 0; i < VECTOR; i++) {
        if (i < count) {
            to[i] = bf16_from_float_stochastic(x[i], word[i]);
        }
    }
}

static __device__ inline void store_moment(const struct update *u, struct view t, int64_t at,
                                           const float x[VECTOR], int count,
                                           enum random_purpose purpose)
{
    if (!t.half) {
        store8(t, at, x, count, u->wide);
        return;
    }
    uint32_t word[VECTOR];
    words8(word, u->key, purpose, at);
    store8_stochastic(t, at, x, count, u->wide, word);
}

/* w = bf16 weights [to, to + count) joined with the residues from `at` on. */
static __device__ inline void load8_exact(float w[VECTOR], const struct update *u, int64_t to,
                                          int64_t at, int count)
{
    const uint16_t *weight = (const uint16_t *)u->weight.data + to;
    const int16_t *residue = u->residue + at;
    if (u->wide && count == VECTOR) {
        uint4 high = *(const uint4 *)(const void *)weight;
        uint4 low = *(const uint4 *)(const void *)residue;
        const uint32_t highs[VECTOR / 2] = { high.x, high.y, high.z, high.w };
        const uint32_t lows[VECTOR / 2] = { low.x, low.y, low.z, low.w };
#pragma unroll
        for (int i = 0; i < VECTOR / 2; i++) {
            w[2 * i] = bf16_join((uint16_t)highs[i], (int16_t)(uint16_t)lows[i]);
            w[2 * i + 1] =
                bf16_join((uint16_t)(highs[i] >> 16), (int16_t)(uint16_t)(lows[i] >> 16));
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < VECTOR; i++) {
        w[i] = i < count ? bf16_join(weight[i], residue[i]) : 0.0f;
    }
}

static __device__ inline void store8_exact(const struct update *u, int64_t to, int64_t at,
                                           const float w[VECTOR], int count)
{
    uint16_t *weight = (uint16_t *)u->weight.data + to;
    int16_t *residue = u->residue + at;
    if (u->wide && count == VECTOR) {
        uint32_t highs[VECTOR / 2];
        uint32_t lows[VECTOR / 2];
#pragma unroll
        for (int i = 0; i < VECTOR / 2; i++) {
            int16_t first;
            int16_t second;
            uint32_t low = bf16_split(w[2 * i], &first);
            highs[i] = low | ((uint32_t)bf16_split(w[2 * i + 1], &second) << 16);
            lows[i] = (uint32_t)(uint16_t)first | ((uint32_t)(uint16_t)second << 16);
        }
        uint4 high = { highs[0], highs[1], highs[2], highs[3] };
        uint4 low = { lows[0], lows[1], lows[2], lows[3] };
        *(uint4 *)(void *)weight = high;
        *(uint4 *)(void *)residue = low;
        return;
    }
#pragma unroll
    for (int i = 0; i < VECTOR; i++) {
        if (i < count) {
            weight[i] = bf16_split(w[i], &residue[i]);
        }
    }
}

/* New moments in m and v, and the new weights in w. */
static __device__ inline void adam8(const struct update *u, int64_t at, int count, float w[VECTOR],
                                    const struct adam_slot slot[VECTOR])
{
    float m[VECTOR];
    float v[VECTOR];
    float gradient[VECTOR];
    float factor = u->control[CONTROL_FACTOR];
    load8(m, u->m, at, count, u->wide);
    load8(v, u->v, at, count, u->wide);
    load8(gradient, u->gradient, at, count, u->wide);
#pragma unroll
    for (int i = 0; i < VECTOR; i++) {
        float g = factor * gradient[i];
        m[i] = u->beta1 * m[i] + (1.0f - u->beta1) * g;
        v[i] = u->beta2 * v[i] + (1.0f - u->beta2) * (g * g);
        w[i] -= slot[i].step * m[i] / (sqrtf(v[i]) * slot[i].root + u->eps) + u->decay * w[i];
    }
    store_moment(u, u->m, at, m, count, RANDOM_ROUND_M);
    store_moment(u, u->v, at, v, count, RANDOM_ROUND_V);
}

/* A run of the gradient that is a run of the weight: dense, or selected rows. */
static __global__ void update_runs_kernel(struct update u)
{
    int64_t groups = (u.columns + VECTOR - 1) / VECTOR;
    int64_t row = thread_number() / groups;
    int64_t column = thread_number() % groups * VECTOR;
    if (row >= u.rows || u.control[CONTROL_SKIP] != 0.0f || (u.index != NULL && u.index[row] < 0)) {
        return;
    }
    struct adam_slot slot[VECTOR];
    struct adam_slot one = u.slots[u.index != NULL ? row : 0];
#pragma unroll
    for (int i = 0; i < VECTOR; i++) {
        slot[i] = one;
    }
    float w[VECTOR];
    int n = vector_count(column, u.columns);
    int64_t to = (u.index != NULL ? u.index[row] : row) * u.columns + column;
    int64_t at = row * u.columns + column;
    if (u.residue != NULL) {
        load8_exact(w, &u, to, at, n);
    } else {
        load8(w, u.weight, to, n, u.wide);
    }
    adam8(&u, at, n, w, slot);
    if (u.residue != NULL) {
        store8_exact(&u, to, at, w, n);
    } else if (u.stochastic) {
        uint32_t word[VECTOR];
        words8(word, u.key, RANDOM_ROUND_W, to);
        store8_stochastic(u.weight, to, w, n, u.wide, word);
    } else {
        store8(u.weight, to, w, n, u.wide);
    }
}

/* Selected columns, one element a thread. */
static __global__ void update_columns_kernel(struct update u)
{
    int64_t at = thread_number();
    int64_t j = at % u.columns;
    if (at >= u.rows * u.columns || u.control[CONTROL_SKIP] != 0.0f || u.index[j] < 0) {
        return;
    }
    int64_t to = at / u.columns * u.weight_columns + u.index[j];
    float g = u.control[CONTROL_FACTOR] * get(u.gradient, at);
    float m = u.beta1 * get(u.m, at) + (1.0f - u.beta1) * g;
    float v = u.beta2 * get(u.v, at) + (1.0f - u.beta2) * (g * g);
    uint16_t *bits = (uint16_t *)u.weight.data;
    float w = u.residue != NULL ? bf16_join(bits[to], u.residue[at]) : get(u.weight, to);
    w -= u.slots[j].step * m / (sqrtf(v) * u.slots[j].root + u.eps) + u.decay * w;
    put_moment(u.m, at, m, u.key, RANDOM_ROUND_M);
    put_moment(u.v, at, v, u.key, RANDOM_ROUND_V);
    if (u.residue != NULL) {
        bits[to] = bf16_split(w, &u.residue[at]);
    } else {
        put_weight(u.weight, to, w, u.stochastic, u.key);
    }
}

static struct update update_make(const struct adamw *args, struct adam_slot *slots)
{
    struct update u;
    bool selected = args->index != NULL;
    u.weight = view_of(args->weight);
    u.m = view_of(args->m);
    u.v = view_of(args->v);
    u.gradient = view_of(args->gradient);
    u.slots = slots;
    u.age = (int32_t *)args->age->data;
    u.index = selected ? (const int32_t *)args->index->data : NULL;
    u.rho = args->rho != NULL ? (const float *)args->rho->data : NULL;
    u.control = (const float *)args->control->data;
    u.residue = args->residue != NULL ? (int16_t *)args->residue->data : NULL;
    u.by_row = !selected || args->side == SIDE_ROWS;
    /* A dense weight is one long row: its tail is short whatever its shape. */
    u.rows = selected ? tensor_rows(args->gradient) : 1;
    u.columns = selected ? tensor_columns(args->gradient) : tensor_count(args->gradient);
    u.weight_columns = tensor_columns(args->weight);
    u.stochastic = args->weight->dtype == DTYPE_BF16 && args->rounding == ROUNDING_STOCHASTIC;
    u.wide = (!selected || u.columns % VECTOR == 0) && view_is_wide(args->weight) &&
             view_is_wide(args->m) && view_is_wide(args->v) && view_is_wide(args->gradient) &&
             (args->residue == NULL || view_is_wide(args->residue));
    u.lr = args->lr;
    u.beta1 = args->beta1;
    u.beta2 = args->beta2;
    u.eps = args->eps;
    u.decay = args->lr * args->weight_decay;
    u.scale = args->scale;
    u.key = args->key;
    return u;
}

void cuda_adamw(struct backend *be, const struct adamw *args)
{
    int64_t count = tensor_count(args->age);
    if (count == 0 || tensor_count(args->gradient) == 0) {
        return;
    }
    struct adam_slot *slots = (struct adam_slot *)cuda_scratch(be, scratch_adamw(args));
    if (slots == NULL) {
        return;
    }
    struct update u = update_make(args, slots);
    LAUNCH(slots_kernel, cuda_blocks(count), BLOCK_THREADS, 0, cuda_stream(be), u, count);
    if (u.by_row) {
        LAUNCH(update_runs_kernel, cuda_blocks(u.rows * vectors_of(u.columns)), BLOCK_THREADS, 0,
               cuda_stream(be), u);
    } else {
        LAUNCH(update_columns_kernel, cuda_blocks(u.rows * u.columns), BLOCK_THREADS, 0,
               cuda_stream(be), u);
    }
    cuda_check(be, "adamw");
}

/* ---- giving up residues --------------------------------------------------------------------- */

struct settling {
    uint16_t *weight;
    const int16_t *residue;
    const int32_t *index;
    int64_t rows, columns; /* of the residue */
    int64_t weight_columns;
    bool by_row;
    struct random_key key;
};

/* Once in a refresh: an element a thread. */
static __global__ void settle_kernel(struct settling s)
{
    int64_t at = thread_number();
    if (at >= s.rows * s.columns) {
        return;
    }
    int64_t row = at / s.columns;
    int64_t column = at % s.columns;
    int64_t chosen = s.index[s.by_row ? row : column];
    if (chosen < 0) {
        return;
    }
    int64_t to = s.by_row ? chosen * s.weight_columns + column : row * s.weight_columns + chosen;
    float exact = bf16_join(s.weight[to], s.residue[at]);
    s.weight[to] = bf16_from_float_stochastic(exact, random_word(&s.key, to));
}

void cuda_settle(struct backend *be, const struct settle *args)
{
    struct settling s = { (uint16_t *)args->weight->data,
                          (const int16_t *)args->residue->data,
                          (const int32_t *)args->index->data,
                          tensor_rows(args->residue),
                          tensor_columns(args->residue),
                          tensor_columns(args->weight),
                          args->side == SIDE_ROWS,
                          args->key };
    s.key.purpose = RANDOM_ROUND_W;
    if (s.rows * s.columns > 0) {
        LAUNCH(settle_kernel, cuda_blocks(s.rows * s.columns), BLOCK_THREADS, 0, cuda_stream(be),
               s);
    }
    cuda_check(be, "settle");
}
