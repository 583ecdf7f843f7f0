/* Norms, the choice among rows or columns, and moving them, in double. */
#include <math.h>
#include <stdlib.h>

#include "gpu/reference.h"

void reference_squared_norms(struct backend *be, struct tensor *norms, const struct tensor *x,
                             enum side side)
{
    (void)be;
    int64_t columns = tensor_columns(x);
    for (int64_t i = 0; i < tensor_count(norms); i++) {
        numbers_of(norms)[i] = 0.0;
    }
    for (int64_t at = 0; at < tensor_count(x); at++) {
        double value = numbers_of(x)[at];
        numbers_of(norms)[side == SIDE_ROWS ? at / columns : at % columns] += value * value;
    }
}

/* ---- the choice ------------------------------------------------------------------------------ */

struct candidate {
    double weight; /* proportional to q */
    double share;  /* expected number of draws, or inclusion probability */
    uint32_t word;
    int64_t number;
    int64_t drawn;
};

struct choice {
    const struct select *args;
    struct candidate *all;
    int64_t count; /* of candidates */
    int64_t slots;
};

static double uniform_of(const struct choice *c, int64_t element)
{
    return ((double)random_u32(&c->args->key, (uint64_t)element) + 0.5) * 0x1p-32;
}

static int by_weight(const void *left, const void *right)
{
    const struct candidate *a = left;
    const struct candidate *b = right;
    bool first = a->weight > b->weight || (!(a->weight < b->weight) && a->number < b->number);
    return first ? -1 : 1;
}

static int by_word(const void *left, const void *right)
{
    const struct candidate *a = left;
    const struct candidate *b = right;
    bool first = a->word < b->word || (a->word == b->word && a->number < b->number);
    return first ? -1 : 1;
}

static int by_number(const void *left, const void *right)
{
    const struct candidate *a = left;
    const struct candidate *b = right;
    return a->number < b->number ? -1 : 1;
}

static void sort(const struct choice *c, int (*order)(const void *, const void *))
{
    qsort(c->all, (size_t)c->count, sizeof *c->all, order);
}

static void weigh(const struct choice *c)
{
    enum select_rule rule = c->args->rule;
    bool even = rule == SELECT_UNIFORM;
    double sum = 0.0;
    for (int64_t i = 0; i < c->count; i++) {
        double norm = numbers_of(c->args->norms)[i];
        bool squared = rule == SELECT_NORM2 || rule == SELECT_TOP;
        even = even || (rule != SELECT_TOP && !isfinite(norm));
        norm = isnan(norm) ? (double)INFINITY : norm;
        c->all[i].number = i;
        c->all[i].word = random_u32(&c->args->key, (uint64_t)i);
        c->all[i].weight = norm > 0.0 ? (squared ? norm : sqrt(norm)) : 0.0;
        sum += c->all[i].weight;
    }
    for (int64_t i = 0; i < c->count && rule != SELECT_TOP && (even || !(sum > 0.0)); i++) {
        c->all[i].weight = 1.0;
    }
}

/* Draws with replacement among candidates from `first` on; their shares. */
static void draw(const struct choice *c, int64_t first, int64_t draws)
{
    double sum = 0.0;
    for (int64_t i = first; i < c->count; i++) {
        sum += c->all[i].weight;
    }
    for (int64_t j = 0; j < draws; j++) {
        double left = uniform_of(c, j) * sum;
        int64_t i = first;
        int64_t last = first;
        for (; i < c->count && left >= c->all[i].weight; i++) {
            left -= c->all[i].weight;
            last = c->all[i].weight > 0.0 ? i : last;
        }
        c->all[i < c->count ? i : last].drawn++;
    }
    for (int64_t i = first; i < c->count; i++) {
        c->all[i].share = (double)draws * c->all[i].weight / sum;
    }
}

static void take(const struct choice *c, int64_t first, int64_t last)
{
    for (int64_t i = first; i < last; i++) {
        c->all[i].drawn = 1;
        c->all[i].share = 1.0;
    }
}

static void choose_winners(const struct choice *c)
{
    double rest = 0.0;
    int64_t positive = 0;
    sort(c, by_weight);
    for (int64_t i = 0; i < c->count; i++) {
        rest += c->all[i].weight;
        positive += c->all[i].weight > 0.0 ? 1 : 0;
    }
    if (positive <= c->slots) {
        take(c, 0, positive);
        return;
    }
    int64_t winners = 0;
    double least = (double)INFINITY;
    for (int64_t w = 0; w < c->slots; w++) {
        double bound = rest * rest / (double)(c->slots - w);
        if (bound < least) {
            least = bound;
            winners = w;
        }
        rest -= c->all[w].weight;
    }
    draw(c, winners, c->slots - winners);
    take(c, 0, winners);
}

/* Inclusion probabilities min(1, factor * weight) that sum to the slots. */
static void solve_shares(const struct choice *c)
{
    double left = (double)c->slots;
    for (bool changed = true; changed;) {
        double sum = 0.0;
        changed = false;
        for (int64_t i = 0; i < c->count; i++) {
            sum += c->all[i].share < 1.0 ? c->all[i].weight : 0.0;
        }
        double factor = left > 0.0 ? left / sum : 0.0;
        for (int64_t i = 0; i < c->count; i++) {
            struct candidate *one = &c->all[i];
            bool open = one->share < 1.0;
            one->share = open ? factor * one->weight : one->share;
            if (open && one->share > 1.0 - 1e-9) {
                one->share = 1.0;
                left -= 1.0;
                changed = true;
            }
        }
    }
}

static void choose_systematic(const struct choice *c)
{
    int64_t positive = 0;
    double total = 0.0;
    int64_t want = c->slots;
    for (int64_t i = 0; i < c->count; i++) {
        positive += c->all[i].weight > 0.0 ? 1 : 0;
    }
    if (positive > c->slots) {
        solve_shares(c);
    } else {
        for (int64_t i = 0; i < c->count; i++) {
            c->all[i].share = c->all[i].weight > 0.0
                                  ? 1.0
                                  : (double)(c->slots - positive) / (double)(c->count - positive);
        }
    }
    sort(c, by_word);
    for (int64_t i = 0; i < c->count; i++) {
        bool sure = c->all[i].share >= 1.0;
        c->all[i].drawn = sure ? 1 : 0;
        want -= sure ? 1 : 0;
        total += sure ? 0.0 : c->all[i].share;
    }
    double start = uniform_of(c, c->count);
    double line = 0.0;
    int64_t next = 0;
    for (int64_t i = 0; i < c->count && next < want; i++) {
        if (c->all[i].share < 1.0) {
            line += c->all[i].share;
            bool met = ((double)next + start) * (total / (double)want) < line;
            c->all[i].drawn = met ? 1 : 0;
            next += met ? 1 : 0;
        }
    }
}

void reference_select(struct backend *be, const struct select *args)
{
    (void)be;
    struct choice c = { .args = args,
                        .count = tensor_count(args->norms),
                        .slots = tensor_count(args->index) };
    c.all = calloc((size_t)c.count, sizeof *c.all);
    if (c.all == NULL) {
        abort();
    }
    weigh(&c);
    if (args->rule == SELECT_TOP) {
        sort(&c, by_weight);
        take(&c, 0, c.slots);
    } else if (args->rule == SELECT_WINNERS) {
        choose_winners(&c);
    } else if (args->replacement) {
        draw(&c, 0, c.slots);
    } else {
        choose_systematic(&c);
    }
    sort(&c, by_number);
    int64_t slot = 0;
    for (int64_t i = 0; i < c.count && slot < c.slots; i++) {
        const struct candidate *one = &c.all[i];
        if (one->drawn > 0) {
            numbers_of(args->index)[slot] = (double)(i + args->offset);
            numbers_of(args->scale)[slot++] =
                args->unbiased ? sqrt((double)one->drawn / one->share) : 1.0;
        }
    }
    for (; slot < c.slots; slot++) {
        numbers_of(args->index)[slot] = -1.0;
        numbers_of(args->scale)[slot] = 1.0;
    }
    free(c.all);
}

void reference_unit_factors(struct backend *be, const struct unit_factors *args)
{
    (void)be;
    for (int64_t i = 0; i < tensor_count(args->factors); i++) {
        double norm = numbers_of(args->norms)[i];
        bool good = isfinite(norm) && norm > 0.0;
        numbers_of(args->factors)[i] = good ? 1.0 / sqrt(norm / (double)args->length) : 0.0;
    }
    for (int64_t j = 0; j < tensor_count(args->index); j++) {
        int64_t chosen = (int64_t)numbers_of(args->index)[j];
        if (chosen >= 0) {
            numbers_of(args->factors)[chosen - args->offset] = 0.0;
        }
    }
}

/* ---- gather and scatter ---------------------------------------------------------------------- */

/* Where element `at` of the part lies in the whole; -1 in an unused slot. */
static int64_t place_of(const struct tensor *part, const struct tensor *whole,
                        const struct tensor *index, enum side side, int64_t at)
{
    int64_t row = at / tensor_columns(part);
    int64_t column = at % tensor_columns(part);
    int64_t chosen = (int64_t)numbers_of(index)[side == SIDE_ROWS ? row : column];
    return chosen < 0          ? -1
           : side == SIDE_ROWS ? chosen * tensor_columns(whole) + column
                               : row * tensor_columns(whole) + chosen;
}

void reference_gather(struct backend *be, struct tensor *y, const struct tensor *x,
                      const struct tensor *index, enum side side)
{
    (void)be;
    for (int64_t at = 0; at < tensor_count(y); at++) {
        int64_t from = place_of(y, x, index, side, at);
        numbers_of(y)[at] = from < 0 ? 0.0 : numbers_of(x)[from];
    }
}

void reference_scatter(struct backend *be, struct tensor *x, const struct tensor *y,
                       const struct tensor *index, enum side side)
{
    (void)be;
    for (int64_t at = 0; at < tensor_count(y); at++) {
        int64_t to = place_of(y, x, index, side, at);
        if (to >= 0) {
            numbers_of(x)[to] = numbers_of(y)[at];
        }
    }
}

void reference_scale_side(struct backend *be, struct tensor *x, const struct tensor *scale,
                          enum side side)
{
    (void)be;
    int64_t columns = tensor_columns(x);
    for (int64_t at = 0; at < tensor_count(x); at++) {
        int64_t j = side == SIDE_ROWS ? at / columns : at % columns;
        numbers_of(x)[at] *= numbers_of(scale)[j];
    }
}
