/* Update rules in double. Nothing is rounded: the errors of the others hold their rounding. */
#include <math.h>
#include <stdlib.h>

#include "gpu/reference.h"

/* Where the elements of a gradient lie in the weight, and which slot (age, rho) they have. */
struct part {
    int64_t columns, weight_columns;
    const struct tensor *index; /* NULL: dense */
    enum side side;
};

static struct part part_of(const struct tensor *gradient, const struct tensor *weight,
                           const struct tensor *index, enum side side)
{
    return (struct part){ tensor_columns(gradient), tensor_columns(weight), index, side };
}

/* Along the selected side, or of a dense weight (for factors). */
static int64_t slot_of(const struct part *p, int64_t at)
{
    return p->side == SIDE_ROWS ? at / p->columns : at % p->columns;
}

/* -1: not used. */
static int64_t place_of(const struct part *p, int64_t at)
{
    if (p->index == NULL) {
        return at;
    }
    int64_t chosen = (int64_t)numbers_of(p->index)[slot_of(p, at)];
    return chosen < 0             ? -1
           : p->side == SIDE_ROWS ? chosen * p->weight_columns + at % p->columns
                                  : at / p->columns * p->weight_columns + chosen;
}

static void count_ages(const struct tensor *age, const struct tensor *index)
{
    for (int64_t j = 0; age != NULL && j < tensor_count(age); j++) {
        numbers_of(age)[j] += index == NULL || numbers_of(index)[j] >= 0.0 ? 1.0 : 0.0;
    }
}

/* (m / (1 - beta1^k)) / (sqrt(v / (1 - beta2^k)) + eps), k = age + 1. */
static double adam_of(double m, double v, double age, const float constant[3])
{
    double most = m / (1.0 - pow((double)constant[0], age + 1.0));
    double root = sqrt(v / (1.0 - pow((double)constant[1], age + 1.0)));
    return most / (root + (double)constant[2]);
}

/* ---- eight bits ------------------------------------------------------------------------------ */

static int64_t block_of(const struct tensor *absmax, int64_t row, int64_t column, enum side side)
{
    return side == SIDE_ROWS ? row * tensor_columns(absmax) + column / QUANTIZE_BLOCK
                             : row / QUANTIZE_BLOCK * tensor_columns(absmax) + column;
}

/* The nearest entry of the table, by looking at all of them. */
static double nearest_code(enum quantize_map map, double x)
{
    int best = map == QUANTIZE_ROOT && x > 0.0 ? 1 : 0;
    for (int code = best + 1; code < QUANTIZE_CODES; code++) {
        double here = fabs(x - (double)quantize_entry(map, code));
        best = here < fabs(x - (double)quantize_entry(map, best)) ? code : best;
    }
    return (double)best;
}

static double decoded(enum quantize_map map, double code, double absmax)
{
    double x = (double)quantize_entry(map, (int)code) * absmax;
    return map == QUANTIZE_ROOT ? x * x : x;
}

void reference_quantize(struct backend *be, const struct quantize *args)
{
    (void)be;
    int64_t columns = tensor_columns(args->x);
    double *absmax = numbers_of(args->absmax);
    for (int64_t i = 0; i < tensor_count(args->absmax); i++) {
        absmax[i] = 0.0;
    }
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t at = 0; at < tensor_count(args->x); at++) {
            int64_t block = block_of(args->absmax, at / columns, at % columns, args->side);
            double x = numbers_of(args->x)[at];
            x = args->map == QUANTIZE_ROOT ? sqrt(x) : x;
            if (pass == 0) {
                absmax[block] = fmax(absmax[block], fabs(x));
            } else {
                x = absmax[block] > 0.0 ? x / absmax[block] : 0.0;
                numbers_of(args->codes)[at] = nearest_code(args->map, x);
            }
        }
    }
}

void reference_dequantize(struct backend *be, const struct dequantize *args)
{
    (void)be;
    int64_t columns = tensor_columns(args->x);
    for (int64_t at = 0; at < tensor_count(args->x); at++) {
        int64_t block = block_of(args->absmax, at / columns, at % columns, args->side);
        numbers_of(args->x)[at] =
            decoded(args->map, numbers_of(args->codes)[at], numbers_of(args->absmax)[block]);
    }
}

/* Codes and magnitudes of new moments; those of slots that are not used stay. */
static void encode(struct tensor *codes, struct tensor *absmax, const double *fresh,
                   const struct adamw *args, enum quantize_map map)
{
    struct part p = part_of(args->gradient, args->weight, args->index, args->side);
    for (int pass = 0; pass < 3; pass++) {
        for (int64_t at = 0; at < tensor_count(codes); at++) {
            int64_t block = block_of(absmax, at / p.columns, at % p.columns, args->side);
            double *most = &numbers_of(absmax)[block];
            double x = map == QUANTIZE_ROOT ? sqrt(fresh[at]) : fresh[at];
            if (place_of(&p, at) < 0) {
                continue;
            }
            *most = pass == 0 ? 0.0 : pass == 1 ? fmax(*most, fabs(x)) : *most;
            if (pass == 2) {
                numbers_of(codes)[at] = nearest_code(map, *most > 0.0 ? x / *most : 0.0);
            }
        }
    }
}

/* m and v in plain numbers. */
static void moments_of(const struct adamw *args, double *m, double *v)
{
    int64_t columns = tensor_columns(args->gradient);
    for (int64_t at = 0; at < tensor_count(args->gradient); at++) {
        m[at] = numbers_of(args->m)[at];
        v[at] = numbers_of(args->v)[at];
        if (args->m_absmax != NULL) {
            int64_t block = block_of(args->m_absmax, at / columns, at % columns, args->side);
            m[at] = decoded(QUANTIZE_SIGNED, m[at], numbers_of(args->m_absmax)[block]);
            v[at] = decoded(QUANTIZE_ROOT, v[at], numbers_of(args->v_absmax)[block]);
        }
    }
}

/* ---- rules ----------------------------------------------------------------------------------- */

/* The weight before the step; what is left of the residue is no number. */
static double weight_of(const struct adamw *args, int64_t to, int64_t at)
{
    double w = numbers_of(args->weight)[to];
    if (args->residue != NULL) {
        int16_t residue = (int16_t)numbers_of(args->residue)[at];
        w = (double)bf16_join(bf16_from_float((float)w), residue);
        numbers_of(args->residue)[at] = (double)NAN;
    }
    return w;
}

void reference_adamw(struct backend *be, const struct adamw *args)
{
    (void)be;
    int64_t count = tensor_count(args->gradient);
    struct part p = part_of(args->gradient, args->weight, args->index, args->side);
    const float constant[3] = { args->beta1, args->beta2, args->eps };
    if (numbers_of(args->control)[CONTROL_SKIP] > 0.0) {
        return;
    }
    double *m = reference_room(2 * count);
    double *v = m + count;
    moments_of(args, m, v);
    for (int64_t at = 0; at < count; at++) {
        int64_t to = place_of(&p, at);
        int64_t slot = args->index != NULL ? slot_of(&p, at) : 0;
        if (to < 0) {
            continue;
        }
        double g = numbers_of(args->control)[CONTROL_FACTOR] * numbers_of(args->gradient)[at];
        double rho = args->rho != NULL ? numbers_of(args->rho)[slot] : 1.0;
        m[at] = (double)args->beta1 * m[at] + (1.0 - (double)args->beta1) * g;
        v[at] = (double)args->beta2 * v[at] + (1.0 - (double)args->beta2) * g * g;
        double adam = adam_of(m[at], v[at], numbers_of(args->age)[slot], constant);
        double w = weight_of(args, to, at);
        numbers_of(args->weight)[to] = w - (double)args->lr * ((double)args->scale * rho * adam +
                                                               (double)args->weight_decay * w);
        if (args->m_absmax == NULL) {
            numbers_of(args->m)[at] = m[at];
            numbers_of(args->v)[at] = v[at];
        }
    }
    if (args->m_absmax != NULL) {
        encode(args->m, args->m_absmax, m, args, QUANTIZE_SIGNED);
        encode(args->v, args->v_absmax, v, args, QUANTIZE_ROOT);
    }
    count_ages(args->age, args->index);
    free(m);
}

void reference_settle(struct backend *be, const struct settle *args)
{
    (void)be;
    struct part p = part_of(args->residue, args->weight, args->index, args->side);
    for (int64_t at = 0; at < tensor_count(args->residue); at++) {
        int64_t to = place_of(&p, at);
        if (to >= 0) {
            uint16_t bits = bf16_from_float((float)numbers_of(args->weight)[to]);
            int16_t residue = (int16_t)numbers_of(args->residue)[at];
            numbers_of(args->weight)[to] = (double)bf16_join(bits, residue);
        }
    }
}

void reference_sgd(struct backend *be, const struct sgd *args)
{
    (void)be;
    struct part p = part_of(args->gradient, args->weight, args->index, args->side);
    if (numbers_of(args->control)[CONTROL_SKIP] > 0.0) {
        return;
    }
    for (int64_t at = 0; at < tensor_count(args->gradient); at++) {
        int64_t to = place_of(&p, at);
        double rho = args->rho != NULL ? numbers_of(args->rho)[slot_of(&p, at)] : 1.0;
        bool alone = args->index == NULL && !(fabs(rho) > 0.0);
        if (to >= 0 && !alone) {
            double *w = &numbers_of(args->weight)[to];
            double g = numbers_of(args->control)[CONTROL_FACTOR] * numbers_of(args->gradient)[at];
            *w -= (double)args->lr *
                  ((double)args->scale * rho * g + (double)args->weight_decay * *w);
        }
    }
    count_ages(args->age, args->index);
}

void reference_tradam(struct backend *be, const struct tradam *args)
{
    (void)be;
    const float constant[3] = { args->beta1, args->beta2, args->eps };
    double age = numbers_of(args->age)[0];
    int64_t turn = (int64_t)age % args->interval;
    double lr = args->harmonic ? (double)args->lr / (double)(turn + 1) : (double)args->lr;
    if (numbers_of(args->control)[CONTROL_SKIP] > 0.0) {
        return;
    }
    for (int64_t at = 0; at < tensor_count(args->gradient); at++) {
        double *w = &numbers_of(args->weight)[at];
        double *m = &numbers_of(args->m)[at];
        double *v = &numbers_of(args->v)[at];
        double *anchor = &numbers_of(args->anchor)[at];
        *anchor = turn == 0 ? *w : *anchor;
        double g = numbers_of(args->control)[CONTROL_FACTOR] * numbers_of(args->gradient)[at] +
                   2.0 * (double)args->pull * (*w - *anchor);
        *m = (double)args->beta1 * *m + (1.0 - (double)args->beta1) * g;
        *v = (double)args->beta2 * *v + (1.0 - (double)args->beta2) * g * g;
        *w -= lr * ((double)args->scale * adam_of(*m, *v, age, constant) +
                    (double)args->weight_decay * *w);
    }
    count_ages(args->age, NULL);
}

void reference_descend(struct backend *be, const struct descend *args)
{
    (void)be;
    bool skip = numbers_of(args->control)[CONTROL_SKIP] > 0.0;
    for (int64_t at = 0; at < tensor_count(args->weight) && !skip; at++) {
        double *w = &numbers_of(args->weight)[at];
        *w -= (double)args->lr *
              ((double)args->scale * numbers_of(args->step)[at] + (double)args->weight_decay * *w);
    }
}
