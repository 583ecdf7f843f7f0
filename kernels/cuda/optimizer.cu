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
    struct adam adam;
    struct view m, v;
    bool by_row; /* the rows of the gradient are slots; otherwise its columns (or neither) */
    bool wide;
};

/* ---- what all AdamW shares (update.cuh) ------------------------------------------------------ */

struct adam adam_of(const struct adamw *args, struct adam_slot *slots)
{
    struct adam a;
    a.weight = view_of(args->weight);
    a.gradient = view_of(args->gradient);
    a.slots = slots;
    a.age = (int32_t *)args->age->data;
    a.index = args->index != NULL ? (const int32_t *)args->index->data : NULL;
    a.rho = args->rho != NULL ? (const float *)args->rho->data : NULL;
    a.control = (const float *)args->control->data;
    a.residue = args->residue != NULL ? (int16_t *)args->residue->data : NULL;
    a.rows = tensor_rows(args->gradient);
    a.columns = tensor_columns(args->gradient);
    a.weight_columns = tensor_columns(args->weight);
    a.stochastic = args->weight->dtype == DTYPE_BF16 && args->rounding == ROUNDING_STOCHASTIC;
    a.lr = args->lr;
    a.beta1 = args->beta1;
    a.beta2 = args->beta2;
    a.eps = args->eps;
    a.decay = args->lr * args->weight_decay;
    a.scale = args->scale;
    a.key = args->key;
    return a;
}

static __global__ void slots_kernel(struct adam a, int64_t count)
{
    int64_t j = thread_number();
    if (j >= count || a.control[CONTROL_SKIP] != 0.0f || (a.index != NULL && a.index[j] < 0)) {
        return;
    }
    double rho = a.rho != NULL ? (double)a.rho[j] : 1.0;
    double rate = (double)a.lr * (double)a.scale * rho;
    a.slots[j] = adam_slot_make(rate, a.beta1, a.beta2, a.age[j]);
    a.age[j]++;
}

void adam_fill_slots(struct backend *be, const struct adam *a, int64_t count)
{
    LAUNCH(slots_kernel, cuda_blocks(count), BLOCK_THREADS, 0, cuda_stream(be), *a, count);
}

/* ---- eight elements -------------------------------------------------------------------------- */

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
    words8(word, u->adam.key, purpose, at);
    store8_stochastic(t, at, x, count, u->wide, word);
}

/* w = bf16 weights [to, to + count) joined with the residues from `at` on. */
static __device__ inline void load8_exact(float w[VECTOR], const struct update *u, int64_t to,
                                          int64_t at, int count)
{
    const uint16_t *weight = (const uint16_t *)u->adam.weight.data + to;
    const int16_t *residue = u->adam.residue + at;
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
    uint16_t *weight = (uint16_t *)u->adam.weight.data + to;
    int16_t *residue = u->adam.residue + at;
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
    float factor = u->adam.control[CONTROL_FACTOR];
    load8(m, u->m, at, count, u->wide);
    load8(v, u->v, at, count, u->wide);
    load8(gradient, u->adam.gradient, at, count, u->wide);
#pragma unroll
    for (int i = 0; i < VECTOR; i++) {
        float g = factor * gradient[i];
        m[i] = u->adam.beta1 * m[i] + (1.0f - u->adam.beta1) * g;
        v[i] = u->adam.beta2 * v[i] + (1.0f - u->adam.beta2) * (g * g);
        w[i] -=
            slot[i].step * m[i] / (sqrtf(v[i]) * slot[i].root + u->adam.eps) + u->adam.decay * w[i];
    }
    store_moment(u, u->m, at, m, count, RANDOM_ROUND_M);
    store_moment(u, u->v, at, v, count, RANDOM_ROUND_V);
}

/* A run of the gradient that is a run of the weight: dense, or selected rows. */
static __global__ void update_runs_kernel(struct update u)
{
    int64_t groups = (u.adam.columns + VECTOR - 1) / VECTOR;
    int64_t row = thread_number() / groups;
    int64_t column = thread_number() % groups * VECTOR;
    if (row >= u.adam.rows || u.adam.control[CONTROL_SKIP] != 0.0f ||
        (u.adam.index != NULL && u.adam.index[row] < 0)) {
        return;
    }
    struct adam_slot slot[VECTOR];
    struct adam_slot one = u.adam.slots[u.adam.index != NULL ? row : 0];
#pragma unroll
    for (int i = 0; i < VECTOR; i++) {
        slot[i] = one;
    }
    float w[VECTOR];
    int n = vector_count(column, u.adam.columns);
    int64_t to = (u.adam.index != NULL ? u.adam.index[row] : row) * u.adam.columns + column;
    int64_t at = row * u.adam.columns + column;
    if (u.adam.residue != NULL) {
        load8_exact(w, &u, to, at, n);
    } else {
        load8(w, u.adam.weight, to, n, u.wide);
    }
    adam8(&u, at, n, w, slot);
    if (u.adam.residue != NULL) {
        store8_exact(&u, to, at, w, n);
    } else if (u.adam.stochastic) {
        uint32_t word[VECTOR];
        words8(word, u.adam.key, RANDOM_ROUND_W, to);
        store8_stochastic(u.adam.weight, to, w, n, u.wide, word);
    } else {
        store8(u.adam.weight, to, w, n, u.wide);
    }
}

/* Selected columns, one element a thread. */
static __global__ void update_columns_kernel(struct update u)
{
    int64_t at = thread_number();
    int64_t j = at % u.adam.columns;
    if (at >= u.adam.rows * u.adam.columns || u.adam.control[CONTROL_SKIP] != 0.0f ||
        u.adam.index[j] < 0) {
        return;
    }
    int64_t to = at / u.adam.columns * u.adam.weight_columns + u.adam.index[j];
    float g = u.adam.control[CONTROL_FACTOR] * get(u.adam.gradient, at);
    float m = u.adam.beta1 * get(u.m, at) + (1.0f - u.adam.beta1) * g;
    float v = u.adam.beta2 * get(u.v, at) + (1.0f - u.adam.beta2) * (g * g);
    put_moment(u.m, at, m, u.adam.key, RANDOM_ROUND_M);
    put_moment(u.v, at, v, u.adam.key, RANDOM_ROUND_V);
    adam_step(&u.adam, to, at, m, sqrtf(v), u.adam.slots[j]);
}

static struct update update_make(const struct adamw *args, struct adam_slot *slots)
{
    struct update u;
    bool selected = args->index != NULL;
    u.adam = adam_of(args, slots);
    u.m = view_of(args->m);
    u.v = view_of(args->v);
    u.by_row = !selected || args->side == SIDE_ROWS;
    if (!selected) {
        /* A dense weight is one long row: its tail is short whatever its shape. */
        u.adam.rows = 1;
        u.adam.columns = tensor_count(args->gradient);
    }
    u.wide = (!selected || u.adam.columns % VECTOR == 0) && view_is_wide(args->weight) &&
             view_is_wide(args->m) && view_is_wide(args->v) && view_is_wide(args->gradient) &&
             (args->residue == NULL || view_is_wide(args->residue));
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
    adam_fill_slots(be, &u.adam, count);
    if (u.by_row) {
        LAUNCH(update_runs_kernel, cuda_blocks(u.adam.rows * vectors_of(u.adam.columns)),
               BLOCK_THREADS, 0, cuda_stream(be), u);
    } else {
        LAUNCH(update_columns_kernel, cuda_blocks(u.adam.rows * u.adam.columns), BLOCK_THREADS, 0,
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
