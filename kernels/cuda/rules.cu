/* Gradient descent without a state, and trajectory-regularised Adam (formulas in kernels/ops.h).
 * One element a thread: these kernels wait for memory. */
#include "kernels/cuda/check.cuh"
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/scratch.h"
#include "kernels/cuda/update.cuh"

/* ---- sgd ------------------------------------------------------------------------------------ */

struct descent {
    struct view weight, gradient;
    const int32_t *index; /* or NULL */
    const float *rho;     /* or NULL */
    const float *control;
    int64_t count, columns, weight_columns;
    bool by_row, stochastic;
    float rate, decay; /* lr * scale, lr * weight_decay */
    struct random_key key;
};

static __global__ void sgd_kernel(struct descent d)
{
    int64_t at = thread_number();
    if (at >= d.count || d.control[CONTROL_SKIP] != 0.0f) {
        return;
    }
    int64_t row = at / d.columns;
    int64_t column = at % d.columns;
    int64_t slot = d.by_row ? row : column;
    float rho = d.rho != NULL ? d.rho[slot] : 1.0f;
    bool unused = d.index != NULL ? d.index[slot] < 0 : !(fabsf(rho) > 0.0f);
    if (unused) {
        return;
    }
    row = d.index != NULL && d.by_row ? d.index[slot] : row;
    column = d.index != NULL && !d.by_row ? d.index[slot] : column;
    int64_t to = row * d.weight_columns + column;
    float step = d.rate * d.control[CONTROL_FACTOR];
    step = d.rho != NULL ? step * rho : step;
    float w = get(d.weight, to);
    w -= step * get(d.gradient, at) + d.decay * w;
    put_weight(d.weight, to, w, d.stochastic, d.key);
}

static __global__ void age_kernel(int32_t *age, const int32_t *index, const float *control,
                                  int64_t count)
{
    int64_t j = thread_number();
    if (j < count && control[CONTROL_SKIP] == 0.0f && (index == NULL || index[j] >= 0)) {
        age[j]++;
    }
}

void cuda_sgd(struct backend *be, const struct sgd *args)
{
    struct descent d;
    d.weight = view_of(args->weight);
    d.gradient = view_of(args->gradient);
    d.index = args->index != NULL ? (const int32_t *)args->index->data : NULL;
    d.rho = args->rho != NULL ? (const float *)args->rho->data : NULL;
    d.control = (const float *)args->control->data;
    d.count = tensor_count(args->gradient);
    d.columns = tensor_columns(args->gradient);
    d.weight_columns = tensor_columns(args->weight);
    d.by_row = args->side == SIDE_ROWS;
    d.stochastic = args->weight->dtype == DTYPE_BF16 && args->rounding == ROUNDING_STOCHASTIC;
    d.rate = args->lr * args->scale;
    d.decay = args->lr * args->weight_decay;
    d.key = args->key;
    if (d.count > 0) {
        LAUNCH(sgd_kernel, cuda_blocks(d.count), BLOCK_THREADS, 0, cuda_stream(be), d);
    }
    int64_t ages = args->age != NULL ? tensor_count(args->age) : 0;
    if (ages > 0) {
        LAUNCH(age_kernel, cuda_blocks(ages), BLOCK_THREADS, 0, cuda_stream(be),
               (int32_t *)args->age->data, d.index, d.control, ages);
    }
    cuda_check(be, "sgd");
}

static __global__ void unit_factors_kernel(float *factors, const float *norms, float length,
                                           int64_t count)
{
    int64_t i = thread_number();
    if (i < count) {
        bool usable = norms[i] > 0.0f && norms[i] <= 3.402823466e38f;
        factors[i] = usable ? 1.0f / sqrtf(norms[i] / length) : 0.0f;
    }
}

static __global__ void exclude_kernel(float *factors, const int32_t *index, int64_t offset,
                                      int64_t count)
{
    int64_t j = thread_number();
    if (j < count && index[j] >= 0) {
        factors[index[j] - offset] = 0.0f;
    }
}

void cuda_unit_factors(struct backend *be, const struct unit_factors *args)
{
    int64_t count = tensor_count(args->norms);
    int64_t slots = tensor_count(args->index);
    if (count > 0) {
        LAUNCH(unit_factors_kernel, cuda_blocks(count), BLOCK_THREADS, 0, cuda_stream(be),
               (float *)args->factors->data, (const float *)args->norms->data, (float)args->length,
               count);
    }
    if (slots > 0) {
        LAUNCH(exclude_kernel, cuda_blocks(slots), BLOCK_THREADS, 0, cuda_stream(be),
               (float *)args->factors->data, (const int32_t *)args->index->data, args->offset,
               slots);
    }
    cuda_check(be, "unit_factors");
}

/* ---- tradam --------------------------------------------------------------------------------- */

/* What the age of the tensor makes of the arguments. */
struct turn {
    struct adam_slot slot;
    float decay;
    int take;
};

struct pulled {
    struct view weight, m, v, gradient, anchor;
    struct turn *turn;
    int32_t *age;
    const float *control;
    int64_t count, interval;
    bool harmonic, stochastic;
    float pull, lr, beta1, beta2, eps, weight_decay, scale;
    struct random_key key;
};

static __global__ void turn_kernel(struct pulled p)
{
    if (thread_number() != 0 || p.control[CONTROL_SKIP] != 0.0f) {
        return;
    }
    int64_t turn = p.age[0] % p.interval;
    float lr = p.harmonic ? p.lr / (float)(turn + 1) : p.lr;
    p.turn->slot = adam_slot_make((double)lr * (double)p.scale, p.beta1, p.beta2, p.age[0]);
    p.turn->decay = lr * p.weight_decay;
    p.turn->take = turn == 0;
    p.age[0]++;
}

static __global__ void tradam_kernel(struct pulled p)
{
    int64_t at = thread_number();
    if (at >= p.count || p.control[CONTROL_SKIP] != 0.0f) {
        return;
    }
    float w = get(p.weight, at);
    float g = p.control[CONTROL_FACTOR] * get(p.gradient, at);
    if (p.turn->take != 0) {
        put(p.anchor, at, w);
    } else {
        g = g + p.pull * (w - get(p.anchor, at));
    }
    float m = p.beta1 * get(p.m, at) + (1.0f - p.beta1) * g;
    float v = p.beta2 * get(p.v, at) + (1.0f - p.beta2) * (g * g);
    w -= p.turn->slot.step * m / (sqrtf(v) * p.turn->slot.root + p.eps) + p.turn->decay * w;
    put_moment(p.m, at, m, p.key, RANDOM_ROUND_M);
    put_moment(p.v, at, v, p.key, RANDOM_ROUND_V);
    put_weight(p.weight, at, w, p.stochastic, p.key);
}

void cuda_tradam(struct backend *be, const struct tradam *args)
{
    struct pulled p;
    p.count = tensor_count(args->weight);
    p.turn = (struct turn *)cuda_scratch(be, scratch_tradam());
    if (p.turn == NULL || p.count == 0) {
        return;
    }
    p.weight = view_of(args->weight);
    p.m = view_of(args->m);
    p.v = view_of(args->v);
    p.gradient = view_of(args->gradient);
    p.anchor = view_of(args->anchor);
    p.age = (int32_t *)args->age->data;
    p.control = (const float *)args->control->data;
    p.interval = args->interval;
    p.harmonic = args->harmonic;
    p.stochastic = args->weight->dtype == DTYPE_BF16 && args->rounding == ROUNDING_STOCHASTIC;
    p.pull = 2.0f * args->pull;
    p.lr = args->lr;
    p.beta1 = args->beta1;
    p.beta2 = args->beta2;
    p.eps = args->eps;
    p.weight_decay = args->weight_decay;
    p.scale = args->scale;
    p.key = args->key;
    LAUNCH(turn_kernel, 1, WARP, 0, cuda_stream(be), p);
    LAUNCH(tradam_kernel, cuda_blocks(p.count), BLOCK_THREADS, 0, cuda_stream(be), p);
    cuda_check(be, "tradam");
}
