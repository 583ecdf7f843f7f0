/* Gradient descent without a state, and trajectory-regularised Adam (formulas in kernels/ops.h). */
#include "kernels/cpu/update.h"

/* ---- sgd ------------------------------------------------------------------------------------ */

static void sgd_values(float *restrict w, const float *restrict gradient, int64_t count, float step,
                       float decay)
{
    for (int64_t i = 0; i < count; i++) {
        w[i] -= step * gradient[i] + decay * w[i];
    }
}

/* Elements [at, at + count) of the gradient are elements [to, ...) of the weight. */
static void sgd_run(const struct sgd *a, int64_t at, int64_t to, int64_t count, float step)
{
    float w_buffer[CPU_BLOCK];
    float g_buffer[CPU_BLOCK];
    for (int64_t i = 0; i < count; i += CPU_BLOCK) {
        int64_t n = cpu_min(CPU_BLOCK, count - i);
        float *w = update_open(a->weight, to + i, n, w_buffer);
        const float *gradient = cpu_read(a->gradient, at + i, n, g_buffer);
        sgd_values(w, gradient, n, step, a->lr * a->weight_decay);
        update_store_weight(a->weight, to + i, w, n, a->rounding, a->key);
    }
}

/* Row `row` of a gradient whose columns are slots. */
static void sgd_columns(const struct sgd *a, int64_t row, float step)
{
    const int32_t *index = a->index->data;
    const float *rho = a->rho != NULL ? a->rho->data : NULL;
    int64_t slots = tensor_count(a->index);
    int64_t columns = tensor_columns(a->weight);
    for (int64_t j = 0; j < slots; j++) {
        if (index[j] >= 0) {
            int64_t to = row * columns + index[j];
            float w = cpu_get(a->weight, to);
            float gradient = cpu_get(a->gradient, row * slots + j);
            float each = rho != NULL ? step * rho[j] : step;
            sgd_values(&w, &gradient, 1, each, a->lr * a->weight_decay);
            update_store_one(a->weight, to, w, a->rounding, a->key);
        }
    }
}

/* Row `row` of a dense gradient with a factor for every column. */
static void sgd_factors(const struct sgd *a, int64_t row, float step)
{
    const float *rho = a->rho->data;
    int64_t columns = tensor_columns(a->weight);
    for (int64_t j = 0; j < columns; j++) {
        if (fabsf(rho[j]) > 0.0f) {
            float w = cpu_get(a->weight, row * columns + j);
            float gradient = cpu_get(a->gradient, row * columns + j);
            sgd_values(&w, &gradient, 1, step * rho[j], a->lr * a->weight_decay);
            update_store_one(a->weight, row * columns + j, w, a->rounding, a->key);
        }
    }
}

static void sgd_row(const struct sgd *a, int64_t row, float step)
{
    const int32_t *index = a->index != NULL ? a->index->data : NULL;
    const float *rho = a->rho != NULL ? a->rho->data : NULL;
    int64_t columns = tensor_columns(a->gradient);
    if (index != NULL && a->side == SIDE_COLUMNS) {
        sgd_columns(a, row, step);
        return;
    }
    if (index == NULL && rho != NULL && a->side == SIDE_COLUMNS) {
        sgd_factors(a, row, step);
        return;
    }
    bool unused = index != NULL ? index[row] < 0 : rho != NULL && !(fabsf(rho[row]) > 0.0f);
    if (!unused) {
        int64_t to = index != NULL ? index[row] : row;
        sgd_run(a, row * columns, to * columns, columns, rho != NULL ? step * rho[row] : step);
    }
}

void cpu_sgd(struct backend *be, const struct sgd *args)
{
    (void)be;
    const float *control = args->control->data;
    if (control[CONTROL_SKIP] != 0.0f) {
        return;
    }
    float step = args->lr * args->scale * control[CONTROL_FACTOR];
    int64_t rows = tensor_rows(args->gradient);
    int64_t grain = cpu_row_grain(tensor_columns(args->gradient));
    int64_t chunks = cpu_chunk_count(rows, grain);
#pragma omp parallel for schedule(static) if (chunks > 1)
    for (int64_t i = 0; i < chunks; i++) {
        struct cpu_range r = cpu_chunk(rows, grain, i);
        for (int64_t row = r.first; row < r.last; row++) {
            sgd_row(args, row, step);
        }
    }
    const int32_t *index = args->index != NULL ? args->index->data : NULL;
    int64_t ages = args->age != NULL ? tensor_count(args->age) : 0;
    for (int64_t j = 0; j < ages; j++) {
        ((int32_t *)args->age->data)[j] += index == NULL || index[j] >= 0 ? 1 : 0;
    }
}

void cpu_unit_factors(struct backend *be, const struct unit_factors *args)
{
    (void)be;
    float *factors = args->factors->data;
    const float *norms = args->norms->data;
    const int32_t *index = args->index->data;
    int64_t count = tensor_count(args->norms);
    for (int64_t i = 0; i < count; i++) {
        bool usable = norms[i] > 0.0f && isfinite(norms[i]);
        factors[i] = usable ? 1.0f / sqrtf(norms[i] / (float)args->length) : 0.0f;
    }
    for (int64_t j = 0; j < tensor_count(args->index); j++) {
        if (index[j] >= 0) {
            factors[index[j] - args->offset] = 0.0f;
        }
    }
}

/* ---- tradam --------------------------------------------------------------------------------- */

struct pulled {
    const struct tradam *args;
    struct adam_slot slot;
    float factor;
    float pull;  /* 2 lambda; 0 where the anchor is taken */
    float decay; /* lr_i * weight_decay */
    bool take;
};

static void tradam_block(const struct pulled *p, int64_t at, int64_t count)
{
    float w_buffer[CPU_BLOCK];
    float m_buffer[CPU_BLOCK];
    float v_buffer[CPU_BLOCK];
    float g_buffer[CPU_BLOCK];
    float a_buffer[CPU_BLOCK];
    const struct tradam *a = p->args;
    float *w = update_open(a->weight, at, count, w_buffer);
    float *m = update_open(a->m, at, count, m_buffer);
    float *v = update_open(a->v, at, count, v_buffer);
    const float *gradient = cpu_read(a->gradient, at, count, g_buffer);
    if (p->take) {
        cpu_store(a->anchor, at, w, count);
    }
    const float *anchor = cpu_read(a->anchor, at, count, a_buffer);
    for (int64_t i = 0; i < count; i++) {
        float g = p->factor * gradient[i];
        g = p->take ? g : g + p->pull * (w[i] - anchor[i]);
        m[i] = a->beta1 * m[i] + (1.0f - a->beta1) * g;
        v[i] = a->beta2 * v[i] + (1.0f - a->beta2) * (g * g);
        w[i] -= p->slot.step * m[i] / (sqrtf(v[i]) * p->slot.root + a->eps) + p->decay * w[i];
    }
    update_store_weight(a->weight, at, w, count, a->rounding, a->key);
    update_store_moment(a->m, at, m, count, a->key, RANDOM_ROUND_M);
    update_store_moment(a->v, at, v, count, a->key, RANDOM_ROUND_V);
}

void cpu_tradam(struct backend *be, const struct tradam *args)
{
    (void)be;
    const float *control = args->control->data;
    int32_t *age = args->age->data;
    if (control[CONTROL_SKIP] != 0.0f) {
        return;
    }
    int64_t turn = age[0] % args->interval;
    float lr = args->harmonic ? args->lr / (float)(turn + 1) : args->lr;
    struct pulled p = { .args = args,
                        .slot = adam_slot_make((double)lr * (double)args->scale, args->beta1,
                                               args->beta2, age[0]),
                        .factor = control[CONTROL_FACTOR],
                        .pull = 2.0f * args->pull,
                        .decay = lr * args->weight_decay,
                        .take = turn == 0 };
    int64_t count = tensor_count(args->weight);
    int64_t blocks = cpu_chunk_count(count, CPU_BLOCK);
#pragma omp parallel for schedule(static) if (blocks > CPU_GRAIN / CPU_BLOCK)
    for (int64_t i = 0; i < blocks; i++) {
        struct cpu_range r = cpu_chunk(count, CPU_BLOCK, i);
        tradam_block(&p, r.first, r.last - r.first);
    }
    age[0]++;
}
