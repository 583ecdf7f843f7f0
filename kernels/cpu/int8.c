/*
 * AdamW with moments of eight bits, and the conversion itself (kernels/quantize.h).
 *
 * The work is cut into tiles: 256 neighbours of one row, or 256 rows of a few columns, so that a
 * tile holds whole blocks. A tile is brought into fp32, updated, measured and stored anew.
 */
#include "kernels/cpu/update.h"

enum { STRIP = 16 }; /* columns of a tile whose blocks run down */

struct table {
    float m[QUANTIZE_CODES];
    float v[QUANTIZE_CODES];
};

static void table_fill(struct table *t)
{
    for (int i = 0; i < QUANTIZE_CODES; i++) {
        t->m[i] = quantize_entry(QUANTIZE_SIGNED, i);
        t->v[i] = quantize_entry(QUANTIZE_ROOT, i);
    }
}

struct update {
    const struct adamw *args;
    const struct adam_slot *slots;
    const struct table *table;
    float factor;
    float decay;
};

/* One run of a tile: neighbours in a row of the moments, in fp32. */
struct run {
    float *w;
    float *m;
    float *v;
    const float *gradient;
    int64_t count;
};

static void load_codes(float *restrict dst, const struct tensor *codes, int64_t first,
                       int64_t count, const float *restrict entry)
{
    const uint8_t *restrict src = (const uint8_t *)codes->data + first;
    for (int64_t i = 0; i < count; i++) {
        dst[i] = entry[src[i]];
    }
}

/* `slot` has one entry an element, or one in all. */
static void adam_run(const struct update *u, struct run b, const struct adam_slot *slot, bool each)
{
    const float beta1 = u->args->beta1;
    const float beta2 = u->args->beta2;
    const float eps = u->args->eps;
    float *restrict w = b.w;
    float *restrict m = b.m;
    float *restrict v = b.v;
    for (int64_t i = 0; i < b.count; i++) {
        struct adam_slot s = slot[each ? i : 0];
        float g = u->factor * b.gradient[i];
        m[i] = beta1 * m[i] + (1.0f - beta1) * g;
        v[i] = beta2 * v[i] + (1.0f - beta2) * (g * g);
        float root = sqrtf(v[i]);
        w[i] -= s.step * m[i] / (root * s.root + eps) + u->decay * w[i];
        v[i] = root;
    }
}

/* ---- blocks along rows ---------------------------------------------------------------------- */

static float largest(const float *x, int64_t count)
{
    float most = 0.0f;
    for (int64_t i = 0; i < count; i++) {
        float magnitude = fabsf(x[i]);
        most = magnitude > most ? magnitude : most;
    }
    return most;
}

/* codes[first, first + count) = x as stored (quantize_stored), one block. */
static void store_block(const struct tensor *codes, const struct tensor *absmax, int64_t first,
                        int64_t block, const float *restrict x, int64_t count,
                        enum quantize_map map)
{
    float most = largest(x, count);
    uint8_t *restrict dst = (uint8_t *)codes->data + first;
    ((float *)absmax->data)[block] = most;
    if (map == QUANTIZE_SIGNED) {
        for (int64_t i = 0; i < count; i++) {
            dst[i] = quantize_store(QUANTIZE_SIGNED, x[i], most);
        }
    } else {
        for (int64_t i = 0; i < count; i++) {
            dst[i] = quantize_store(QUANTIZE_ROOT, x[i], most);
        }
    }
}

/* Block `block` of moments, elements [at, at + count), which are elements [weight_at, ...) of the
 * weight. */
static void update_block(const struct update *u, int64_t at, int64_t weight_at, int64_t block,
                         int64_t count, const struct adam_slot *slot)
{
    float m[QUANTIZE_BLOCK];
    float v[QUANTIZE_BLOCK];
    float w[QUANTIZE_BLOCK];
    float gradient[QUANTIZE_BLOCK];
    const struct adamw *a = u->args;
    float m_most = ((const float *)a->m_absmax->data)[block];
    float v_most = ((const float *)a->v_absmax->data)[block];
    load_codes(m, a->m, at, count, u->table->m);
    load_codes(v, a->v, at, count, u->table->v);
    for (int64_t i = 0; i < count; i++) {
        m[i] = quantize_load(QUANTIZE_SIGNED, m[i], m_most);
        v[i] = quantize_load(QUANTIZE_ROOT, v[i], v_most);
    }
    struct run run = { .m = m, .v = v, .count = count };
    run.gradient = cpu_read(a->gradient, at, count, gradient);
    if (a->residue != NULL) {
        run.w = w;
        update_load_exact(a->weight, a->residue, weight_at, at, count, w);
        adam_run(u, run, slot, false);
        update_store_exact(a->weight, a->residue, weight_at, at, count, w);
    } else {
        run.w = update_open(a->weight, weight_at, count, w);
        adam_run(u, run, slot, false);
        update_store_weight(a->weight, weight_at, run.w, count, a->rounding, a->key);
    }
    store_block(a->m, a->m_absmax, at, block, m, count, QUANTIZE_SIGNED);
    store_block(a->v, a->v_absmax, at, block, v, count, QUANTIZE_ROOT);
}

static void update_rows(const struct update *u)
{
    const struct adamw *a = u->args;
    const int32_t *index = a->index != NULL ? a->index->data : NULL;
    int64_t rows = tensor_rows(a->gradient);
    int64_t columns = tensor_columns(a->gradient);
    int64_t blocks = quantize_blocks(columns);
    int64_t grain = cpu_row_grain(columns);
    int64_t chunks = cpu_chunk_count(rows, grain);
#pragma omp parallel for schedule(static) if (chunks > 1)
    for (int64_t i = 0; i < chunks; i++) {
        struct cpu_range r = cpu_chunk(rows, grain, i);
        for (int64_t j = r.first; j < r.last; j++) {
            if (index != NULL && index[j] < 0) {
                continue;
            }
            int64_t to = (index != NULL ? index[j] : j) * columns;
            for (int64_t b = 0; b < blocks; b++) {
                int64_t first = b * QUANTIZE_BLOCK;
                update_block(u, j * columns + first, to + first, j * blocks + b,
                             cpu_min(QUANTIZE_BLOCK, columns - first),
                             &u->slots[index != NULL ? j : 0]);
            }
        }
    }
}

/* ---- blocks down columns -------------------------------------------------------------------- */

/* Rows [row, row + rows) and columns [first, first + count) of the moments. */
struct tile {
    int64_t row;
    int64_t rows;
    int64_t first;
    int64_t count;
    int64_t block; /* of its first column */
};

static struct tile tile_make(int64_t rows, int64_t columns, int64_t number)
{
    int64_t strips = (columns + STRIP - 1) / STRIP;
    int64_t down = number / strips;
    int64_t first = number % strips * STRIP;
    return (struct tile){ .row = down * QUANTIZE_BLOCK,
                          .rows = cpu_min(QUANTIZE_BLOCK, rows - down * QUANTIZE_BLOCK),
                          .first = first,
                          .count = cpu_min(STRIP, columns - first),
                          .block = down * columns + first };
}

static int64_t tile_count(int64_t rows, int64_t columns)
{
    return quantize_blocks(rows) * ((columns + STRIP - 1) / STRIP);
}

static void measure_row(float most[STRIP], const float *x, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        float magnitude = fabsf(x[i]);
        most[i] = magnitude > most[i] ? magnitude : most[i];
    }
}

/* Contents of a tile (rows of STRIP) and whose they are: columns of index -1 are left alone. */
struct stored {
    const float *x;
    const int32_t *index; /* NULL: all are used */
    enum quantize_map map;
};

static void store_tile(const struct tensor *codes, const struct tensor *absmax,
                       const struct tile *t, const struct stored *s)
{
    float most[STRIP] = { 0 };
    for (int64_t i = 0; i < t->rows; i++) {
        measure_row(most, s->x + i * STRIP, t->count);
    }
    for (int64_t j = 0; j < t->count; j++) {
        if (s->index != NULL && s->index[j] < 0) {
            continue;
        }
        uint8_t *to = (uint8_t *)codes->data + t->row * tensor_columns(codes) + t->first + j;
        ((float *)absmax->data)[t->block + j] = most[j];
        for (int64_t i = 0; i < t->rows; i++) {
            to[i * tensor_columns(codes)] = quantize_store(s->map, s->x[i * STRIP + j], most[j]);
        }
    }
}

/* One row of a tile; m and v are its places in the tile's buffers. */
static void update_tile_row(const struct update *u, const struct tile *t, int64_t row, float *m,
                            float *v)
{
    const struct adamw *a = u->args;
    const int32_t *index = a->index != NULL ? (const int32_t *)a->index->data + t->first : NULL;
    const float *m_most = (const float *)a->m_absmax->data + t->block;
    const float *v_most = (const float *)a->v_absmax->data + t->block;
    int64_t at = row * tensor_columns(a->gradient) + t->first;
    int64_t weight_row = row * tensor_columns(a->weight);
    float w[STRIP];
    float gradient[STRIP];
    load_codes(m, a->m, at, t->count, u->table->m);
    load_codes(v, a->v, at, t->count, u->table->v);
    for (int64_t j = 0; j < t->count; j++) {
        m[j] = quantize_load(QUANTIZE_SIGNED, m[j], m_most[j]);
        v[j] = quantize_load(QUANTIZE_ROOT, v[j], v_most[j]);
        int64_t column = index == NULL ? t->first + j : index[j] < 0 ? 0 : index[j];
        if (a->residue != NULL) {
            update_load_exact(a->weight, a->residue, weight_row + column, at + j, 1, &w[j]);
        } else {
            w[j] = cpu_get(a->weight, weight_row + column);
        }
    }
    struct run run = { .w = w, .m = m, .v = v, .count = t->count };
    run.gradient = cpu_read(a->gradient, at, t->count, gradient);
    adam_run(u, run, index != NULL ? u->slots + t->first : u->slots, index != NULL);
    for (int64_t j = 0; j < t->count; j++) {
        int64_t column = index == NULL ? t->first + j : index[j];
        if (column >= 0 && a->residue != NULL) {
            update_store_exact(a->weight, a->residue, weight_row + column, at + j, 1, &w[j]);
        } else if (column >= 0) {
            update_store_one(a->weight, weight_row + column, w[j], a->rounding, a->key);
        }
    }
}

static void update_tile(const struct update *u, const struct tile *t)
{
    float m[QUANTIZE_BLOCK * STRIP];
    float v[QUANTIZE_BLOCK * STRIP];
    const struct adamw *a = u->args;
    const int32_t *index = a->index != NULL ? (const int32_t *)a->index->data + t->first : NULL;
    for (int64_t i = 0; i < t->rows; i++) {
        update_tile_row(u, t, t->row + i, m + i * STRIP, v + i * STRIP);
    }
    store_tile(a->m, a->m_absmax, t, &(struct stored){ m, index, QUANTIZE_SIGNED });
    store_tile(a->v, a->v_absmax, t, &(struct stored){ v, index, QUANTIZE_ROOT });
}

static void update_columns(const struct update *u)
{
    int64_t rows = tensor_rows(u->args->gradient);
    int64_t columns = tensor_columns(u->args->gradient);
    int64_t tiles = tile_count(rows, columns);
#pragma omp parallel for schedule(static) if (tiles > 1)
    for (int64_t i = 0; i < tiles; i++) {
        struct tile t = tile_make(rows, columns, i);
        update_tile(u, &t);
    }
}

/* ---- entries -------------------------------------------------------------------------------- */

void cpu_adamw_int8(struct backend *be, const struct adamw *args)
{
    const float *control = args->control->data;
    int64_t count = tensor_count(args->age);
    const int32_t *index = args->index != NULL ? args->index->data : NULL;
    const float *rho = args->rho != NULL ? args->rho->data : NULL;
    int32_t *age = args->age->data;
    struct table table;
    if (control[CONTROL_SKIP] != 0.0f) {
        return;
    }
    struct adam_slot *slots = cpu_scratch(be, (size_t)count * sizeof *slots);
    if (slots == NULL) {
        return;
    }
    for (int64_t j = 0; j < count; j++) {
        double rate = (double)args->lr * (double)args->scale * (rho != NULL ? (double)rho[j] : 1.0);
        slots[j] = adam_slot_make(rate, args->beta1, args->beta2, age[j]);
    }
    table_fill(&table);
    struct update u = { .args = args,
                        .slots = slots,
                        .table = &table,
                        .factor = control[CONTROL_FACTOR],
                        .decay = args->lr * args->weight_decay };
    if (args->side == SIDE_ROWS) {
        update_rows(&u);
    } else {
        update_columns(&u);
    }
    for (int64_t j = 0; j < count; j++) {
        age[j] += index == NULL || index[j] >= 0 ? 1 : 0;
    }
}

static void quantize_row_block(const struct quantize *a, int64_t at, int64_t block, int64_t count)
{
    float x[QUANTIZE_BLOCK];
    cpu_load(x, a->x, at, count);
    for (int64_t i = 0; i < count; i++) {
        x[i] = quantize_stored(a->map, x[i]);
    }
    store_block(a->codes, a->absmax, at, block, x, count, a->map);
}

static void quantize_tile(const struct quantize *a, const struct tile *t)
{
    float x[QUANTIZE_BLOCK * STRIP];
    for (int64_t i = 0; i < t->rows; i++) {
        int64_t at = (t->row + i) * tensor_columns(a->x) + t->first;
        cpu_load(x + i * STRIP, a->x, at, t->count);
        for (int64_t j = 0; j < t->count; j++) {
            x[i * STRIP + j] = quantize_stored(a->map, x[i * STRIP + j]);
        }
    }
    store_tile(a->codes, a->absmax, t, &(struct stored){ x, NULL, a->map });
}

void cpu_quantize(struct backend *be, const struct quantize *args)
{
    (void)be;
    int64_t rows = tensor_rows(args->x);
    int64_t columns = tensor_columns(args->x);
    int64_t blocks = quantize_blocks(columns);
    bool by_row = args->side == SIDE_ROWS;
    int64_t tiles = by_row ? rows * blocks : tile_count(rows, columns);
#pragma omp parallel for schedule(static) if (tiles > 16)
    for (int64_t i = 0; i < tiles; i++) {
        if (by_row) {
            int64_t first = i % blocks * QUANTIZE_BLOCK;
            quantize_row_block(args, i / blocks * columns + first, i,
                               cpu_min(QUANTIZE_BLOCK, columns - first));
        } else {
            struct tile t = tile_make(rows, columns, i);
            quantize_tile(args, &t);
        }
    }
}

void cpu_dequantize(struct backend *be, const struct dequantize *args)
{
    (void)be;
    int64_t rows = tensor_rows(args->codes);
    int64_t columns = tensor_columns(args->codes);
    int64_t blocks = quantize_blocks(columns);
    const uint8_t *codes = args->codes->data;
    const float *absmax = args->absmax->data;
    float entry[QUANTIZE_CODES];
    for (int i = 0; i < QUANTIZE_CODES; i++) {
        entry[i] = quantize_entry(args->map, i);
    }
#pragma omp parallel for schedule(static) if (rows > 16)
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < columns; j++) {
            int64_t block = args->side == SIDE_ROWS ? i * blocks + j / QUANTIZE_BLOCK
                                                    : i / QUANTIZE_BLOCK * columns + j;
            float x = quantize_load(args->map, entry[codes[i * columns + j]], absmax[block]);
            cpu_set(args->x, i * columns + j, x);
        }
    }
}
