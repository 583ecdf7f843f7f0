/*
 * AdamW on a whole weight or on selected rows or columns of it.
 *
 * All three are spans: runs of consecutive elements of gradient, m and v that belong to one run of
 * the weight (dense, rows) or to chosen elements of one row of it (columns). A span is computed in
 * fp32 block by block, in place where the storage is fp32.
 */
#include "kernels/cpu/update.h"

struct update {
    const struct adamw *args;
    const struct adam_slot *slots;
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

/* ---- rounding ------------------------------------------------------------------------------- */

/* Elements row + index[i] of the weight = src[i], i below count; their residues lie from `at` on.
 */
static void store_weight_columns(const struct adamw *args, int64_t row, const int32_t *index,
                                 int64_t at, const float *src, int64_t count)
{
    if (args->residue != NULL) {
        for (int64_t i = 0; i < count; i++) {
            update_store_exact(args->weight, args->residue, row + index[i], at + i, 1, src + i);
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
static void update_uniform(const struct update *u, struct block b, struct adam_slot slot)
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
static void update_each(const struct update *u, struct block b, const struct adam_slot *slot)
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

/* All of the block but the weight, whose elements may lie apart. */
static struct block block_open(const struct update *u, int64_t at, int64_t count,
                               struct buffers *buffers)
{
    return (struct block){ .m = update_open(u->args->m, at, count, buffers->m),
                           .v = update_open(u->args->v, at, count, buffers->v),
                           .gradient = cpu_read(u->args->gradient, at, count, buffers->gradient),
                           .count = count };
}

static void block_close(const struct update *u, int64_t at, const struct block *b)
{
    update_store_moment(u->args->m, at, b->m, b->count, u->args->key, RANDOM_ROUND_M);
    update_store_moment(u->args->v, at, b->v, b->count, u->args->key, RANDOM_ROUND_V);
}

/* Elements [at, at + count) of gradient, m and v are elements [weight_at, ...) of the weight. */
static void update_run(const struct update *u, int64_t at, int64_t weight_at, int64_t count,
                       struct adam_slot slot)
{
    struct buffers buffers;
    for (int64_t i = 0; i < count; i += CPU_BLOCK) {
        int64_t n = cpu_min(CPU_BLOCK, count - i);
        struct block b = block_open(u, at + i, n, &buffers);
        if (u->args->residue != NULL) {
            b.w = buffers.w;
            update_load_exact(u->args->weight, u->args->residue, weight_at + i, at + i, n, b.w);
            update_uniform(u, b, slot);
            update_store_exact(u->args->weight, u->args->residue, weight_at + i, at + i, n, b.w);
        } else {
            b.w = update_open(u->args->weight, weight_at + i, n, buffers.w);
            update_uniform(u, b, slot);
            update_store_weight(u->args->weight, weight_at + i, b.w, n, u->args->rounding,
                                u->args->key);
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
                update_load_exact(u->args->weight, u->args->residue, weight_row + index[j + i],
                                  row * slots + j + i, 1, b.w + i);
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
    struct adam_slot *slots = cpu_scratch(be, (size_t)count * sizeof *slots);
    if (slots == NULL) {
        return;
    }
    for (int64_t j = 0; j < count; j++) {
        double rate = (double)args->lr * (double)args->scale * (rho != NULL ? (double)rho[j] : 1.0);
        slots[j] = adam_slot_make(rate, args->beta1, args->beta2, age[j]);
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
