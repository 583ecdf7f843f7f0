/*
 * AdamW on a whole weight or on selected rows or columns of it.
 *
 * All three are spans: runs of consecutive elements of gradient, m and v that belong to one run of
 * the weight (dense, rows) or to chosen elements of one row of it (columns). A span is computed in
 * fp32 block by block, in place where the storage is fp32.
 *
 * Stochastic rounding adds 16 random bits below the kept mantissa (dtype.h); each of weight, m and
 * v has its own stream, keyed by the step as well, or the same noise would return at every step and
 * add up.
 */
#include "kernels/cpu/cpu.h"

#include <math.h>

#include "kernels/cpu/lanes.h"

/* What the formula needs of a slot beside the constants of the whole operation:
 *   w -= step * m / (sqrt(v) * root + eps) + decay * w. */
struct slot {
    float step; /* lr * scale * rho / (1 - beta1^k) */
    float root; /* 1 / sqrt(1 - beta2^k) */
};

struct update {
    const struct adamw *args;
    const struct slot *slots;
    float factor; /* of the gradient */
    float decay;  /* lr * weight_decay */
};

/* A block of at most CPU_BLOCK elements, in fp32. */
struct block {
    float *w;
    float *m;
    float *v;
    const float *gradient;
    int64_t count;
};

static struct slot slot_make(const struct adamw *args, int32_t age, float rho)
{
    double k = (double)age + 1.0;
    double step = (double)args->lr * (double)args->scale * (double)rho;
    return (struct slot){ .step = (float)(step / (1.0 - pow((double)args->beta1, k))),
                          .root = (float)(1.0 / sqrt(1.0 - pow((double)args->beta2, k))) };
}

/* ---- rounding ------------------------------------------------------------------------------- */

/* Elements [first, first + count) of t = src, rounded up or down at random; element e uses the
 * low 16 bits of random word e of `key`. At most CPU_BLOCK elements. */
static void store_stochastic(const struct tensor *t, int64_t first, const float *restrict src,
                             int64_t count, const struct random_key *key)
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

static void store_moment(const struct tensor *t, int64_t first, const float *src, int64_t count,
                         struct random_key key, enum random_purpose purpose)
{
    if (t->dtype == DTYPE_F32) {
        cpu_store(t, first, src, count);
        return;
    }
    key.purpose = purpose;
    store_stochastic(t, first, src, count, &key);
}

static void store_weight(const struct adamw *args, int64_t first, const float *src, int64_t count)
{
    if (args->weight->dtype == DTYPE_F32 || args->rounding == ROUNDING_NEAREST) {
        cpu_store(args->weight, first, src, count);
        return;
    }
    struct random_key key = args->key;
    key.purpose = RANDOM_ROUND_W;
    store_stochastic(args->weight, first, src, count, &key);
}

/* bf16 weights [first, first + count) joined with the residues from `at` on. */
static void load_exact(const struct adamw *args, int64_t first, int64_t at, int64_t count,
                       float *restrict dst)
{
    const uint16_t *restrict weight = (const uint16_t *)args->weight->data + first;
    const int16_t *restrict residue = (const int16_t *)args->residue->data + at;
    for (int64_t i = 0; i < count; i++) {
        dst[i] = bf16_join(weight[i], residue[i]);
    }
}

static void store_exact(const struct adamw *args, int64_t first, int64_t at, int64_t count,
                        const float *restrict src)
{
    uint16_t *restrict weight = (uint16_t *)args->weight->data + first;
    int16_t *restrict residue = (int16_t *)args->residue->data + at;
    for (int64_t i = 0; i < count; i++) {
        weight[i] = bf16_split(src[i], &residue[i]);
    }
}

/* Elements row + index[i] of the weight = src[i], i below count; their residues lie from `at` on.
 */
static void store_weight_columns(const struct adamw *args, int64_t row, const int32_t *index,
                                 int64_t at, const float *src, int64_t count)
{
    if (args->residue != NULL) {
        for (int64_t i = 0; i < count; i++) {
            store_exact(args, row + index[i], at + i, 1, src + i);
        }
        return;
    }
    if (args->weight->dtype == DTYPE_F32 || args->rounding == ROUNDING_NEAREST) {
        for (int64_t i = 0; i < count; i++) {
            cpu_set(args->weight, row + index[i], src[i]);
        }
        return;
    }
    uint16_t *dst = (uint16_t *)args->weight->data + row;
    struct random_key key = args->key;
    key.purpose = RANDOM_ROUND_W;
    for (int64_t i = 0; i < count; i += CPU_RANDOM_LANES) {
        uint64_t block[CPU_RANDOM_LANES] = { 0 };
        uint32_t words[CPU_RANDOM_WORDS];
        int64_t lanes = cpu_min(CPU_RANDOM_LANES, count - i);
        for (int64_t l = 0; l < lanes; l++) {
            block[l] = (uint64_t)(row + index[i + l]) / 4;
        }
        cpu_lanes_random(&key, block, words);
        for (int64_t l = 0; l < lanes; l++) {
            uint32_t word = words[4 * l + (row + index[i + l]) % 4];
            dst[index[i + l]] = bf16_from_float_stochastic(src[i + l], word);
        }
    }
}

/* ---- arithmetic ----------------------------------------------------------------------------- */

/* One slot for the whole block. */
static void update_uniform(const struct update *u, struct block b, struct slot slot)
{
    const float beta1 = u->args->beta1;
    const float beta2 = u->args->beta2;
    const float eps = u->args->eps;
    const float factor = u->factor;
    const float decay = u->decay;
    float *restrict w = b.w;
    float *restrict m = b.m;
    float *restrict v = b.v;
    const float *restrict gradient = b.gradient;
    for (int64_t i = 0; i < b.count; i++) {
        float g = factor * gradient[i];
        m[i] = beta1 * m[i] + (1.0f - beta1) * g;
        v[i] = beta2 * v[i] + (1.0f - beta2) * (g * g);
        w[i] -= slot.step * m[i] / (sqrtf(v[i]) * slot.root + eps) + decay * w[i];
    }
}

/* A slot for each element. */
static void update_each(const struct update *u, struct block b, const struct slot *slot)
{
    const float beta1 = u->args->beta1;
    const float beta2 = u->args->beta2;
    const float eps = u->args->eps;
    const float factor = u->factor;
    const float decay = u->decay;
    float *restrict w = b.w;
    float *restrict m = b.m;
    float *restrict v = b.v;
    const float *restrict gradient = b.gradient;
    for (int64_t i = 0; i < b.count; i++) {
        float g = factor * gradient[i];
        m[i] = beta1 * m[i] + (1.0f - beta1) * g;
        v[i] = beta2 * v[i] + (1.0f - beta2) * (g * g);
        w[i] -= slot[i].step * m[i] / (sqrtf(v[i]) * slot[i].root + eps) + decay * w[i];
    }
}

/* ---- spans ---------------------------------------------------------------------------------- */

struct buffers {
    float w[CPU_BLOCK];
    float m[CPU_BLOCK];
    float v[CPU_BLOCK];
    float gradient[CPU_BLOCK];
};

static float *open_elements(const struct tensor *t, int64_t first, int64_t count, float *buffer)
{
    float *a = cpu_write(t, first, buffer);
    if (a == buffer) {
        cpu_load(a, t, first, count);
    }
    return a;
}

/* All of the block but the weight, whose elements may lie apart. */
static struct block block_open(const struct update *u, int64_t at, int64_t count,
                               struct buffers *buffers)
{
    return (struct block){ .m = open_elements(u->args->m, at, count, buffers->m),
                           .v = open_elements(u->args->v, at, count, buffers->v),
                           .gradient = cpu_read(u->args->gradient, at, count, buffers->gradient),
                           .count = count };
}

static void block_close(const struct update *u, int64_t at, const struct block *b)
{
    store_moment(u->args->m, at, b->m, b->count, u->args->key, RANDOM_ROUND_M);
    store_moment(u->args->v, at, b->v, b->count, u->args->key, RANDOM_ROUND_V);
}

/* Elements [at, at + count) of gradient, m and v are elements [weight_at, ...) of the weight. */
static void update_run(const struct update *u, int64_t at, int64_t weight_at, int64_t count,
                       struct slot slot)
{
    struct buffers buffers;
    for (int64_t i = 0; i < count; i += CPU_BLOCK) {
        int64_t n = cpu_min(CPU_BLOCK, count - i);
        struct block b = block_open(u, at + i, n, &buffers);
        if (u->args->residue != NULL) {
            b.w = buffers.w;
            load_exact(u->args, weight_at + i, at + i, n, b.w);
            update_uniform(u, b, slot);
            store_exact(u->args, weight_at + i, at + i, n, b.w);
        } else {
            b.w = open_elements(u->args->weight, weight_at + i, n, buffers.w);
            update_uniform(u, b, slot);
            store_weight(u->args, weight_at + i, b.w, n);
        }
        block_close(u, at + i, &b);
    }
}

/* Slots [first, last) of row `row`, all of them in use. */
static void update_columns(const struct update *u, int64_t row, int64_t first, int64_t last)
{
    struct buffers buffers;
    const int32_t *index = u->args->index->data;
    int64_t slots = tensor_count(u->args->index);
    int64_t weight_row = row * tensor_columns(u->args->weight);
    for (int64_t j = first; j < last; j += CPU_BLOCK) {
        int64_t n = cpu_min(CPU_BLOCK, last - j);
        struct block b = block_open(u, row * slots + j, n, &buffers);
        b.w = buffers.w;
        for (int64_t i = 0; i < n; i++) {
            if (u->args->residue != NULL) {
                load_exact(u->args, weight_row + index[j + i], row * slots + j + i, 1, b.w + i);
            } else {
                b.w[i] = cpu_get(u->args->weight, weight_row + index[j + i]);
            }
        }
        update_each(u, b, u->slots + j);
        store_weight_columns(u->args, weight_row, index + j, row * slots + j, b.w, n);
        block_close(u, row * slots + j, &b);
    }
}

/* ---- the three ways ------------------------------------------------------------------------- */

static void update_dense(const struct update *u)
{
    int64_t count = tensor_count(u->args->weight);
    int64_t chunks = cpu_chunk_count(count, CPU_GRAIN);
#pragma omp parallel for schedule(static) if (chunks > 1)
    for (int64_t i = 0; i < chunks; i++) {
        struct cpu_range r = cpu_chunk(count, CPU_GRAIN, i);
        update_run(u, r.first, r.first, r.last - r.first, u->slots[0]);
    }
}

static void update_side_rows(const struct update *u)
{
    const int32_t *index = u->args->index->data;
    int64_t slots = tensor_count(u->args->index);
    int64_t columns = tensor_columns(u->args->weight);
    int64_t grain = cpu_row_grain(columns);
    int64_t chunks = cpu_chunk_count(slots, grain);
#pragma omp parallel for schedule(static) if (chunks > 1)
    for (int64_t i = 0; i < chunks; i++) {
        struct cpu_range r = cpu_chunk(slots, grain, i);
        for (int64_t j = r.first; j < r.last; j++) {
            if (index[j] >= 0) {
                update_run(u, j * columns, index[j] * columns, columns, u->slots[j]);
            }
        }
    }
}

static void update_side_columns(const struct update *u)
{
    const int32_t *index = u->args->index->data;
    int64_t slots = tensor_count(u->args->index);
    int64_t rows = tensor_rows(u->args->weight);
    int64_t grain = cpu_row_grain(slots);
    int64_t chunks = cpu_chunk_count(rows, grain);
#pragma omp parallel for schedule(static) if (chunks > 1)
    for (int64_t i = 0; i < chunks; i++) {
        struct cpu_range r = cpu_chunk(rows, grain, i);
        for (int64_t row = r.first; row < r.last; row++) {
            for (int64_t first = 0; first < slots;) {
                int64_t last = first;
                while (last < slots && index[last] >= 0) {
                    last++;
                }
                update_columns(u, row, first, last);
                first = last + 1;
            }
        }
    }
}

void cpu_adamw(struct backend *be, const struct adamw *args)
{
    const float *control = args->control->data;
    if (control[CONTROL_SKIP] != 0.0f) {
        return;
    }
    int32_t *age = args->age->data;
    int64_t count = tensor_count(args->age);
    const int32_t *index = args->index != NULL ? args->index->data : NULL;
    const float *rho = args->rho != NULL ? args->rho->data : NULL;
    struct slot *slots = cpu_scratch(be, (size_t)count * sizeof *slots);
    if (slots == NULL) {
        return;
    }
    for (int64_t j = 0; j < count; j++) {
        slots[j] = slot_make(args, age[j], rho != NULL ? rho[j] : 1.0f);
    }
    struct update u = { .args = args,
                        .slots = slots,
                        .factor = control[CONTROL_FACTOR],
                        .decay = args->lr * args->weight_decay };
    if (index == NULL) {
        update_dense(&u);
    } else if (args->side == SIDE_ROWS) {
        update_side_rows(&u);
    } else {
        update_side_columns(&u);
    }
    for (int64_t j = 0; j < count; j++) {
        age[j] += index == NULL || index[j] >= 0 ? 1 : 0;
    }
}

/* ---- giving up residues --------------------------------------------------------------------- */

/* Row `row` of the residue. */
static void settle_row(const struct settle *args, int64_t row, const struct random_key *key)
{
    const int32_t *index = args->index->data;
    bool by_row = args->side == SIDE_ROWS;
    int64_t count = tensor_columns(args->residue);
    const int16_t *residue = (const int16_t *)args->residue->data + row * count;
    int64_t first = (by_row ? index[row] : row) * tensor_columns(args->weight);
    uint16_t *weight = (uint16_t *)args->weight->data;
    for (int64_t i = 0; i < count; i++) {
        if (by_row || index[i] >= 0) {
            int64_t at = first + (by_row ? i : index[i]);
            float exact = bf16_join(weight[at], residue[i]);
            weight[at] = bf16_from_float_stochastic(exact, random_u32(key, (uint64_t)at));
        }
    }
}

void cpu_settle(struct backend *be, const struct settle *args)
{
    (void)be;
    const int32_t *index = args->index->data;
    struct random_key key = args->key;
    key.purpose = RANDOM_ROUND_W;
    int64_t rows = tensor_rows(args->residue);
#pragma omp parallel for schedule(static) if (tensor_count(args->residue) > CPU_GRAIN)
    for (int64_t row = 0; row < rows; row++) {
        if (args->side == SIDE_COLUMNS || index[row] >= 0) {
            settle_row(args, row, &key);
        }
    }
}
