/*
 * Norms of rows or columns, and the choice among them.
 *
 * With replacement, draws invert the cumulative distribution, which is kept in double. Without, the
 * candidates are put in a random order, their inclusion probabilities are laid end to end on a line
 * of length R, and the candidates under the points u, u + 1, u + 2 ... are taken (Madow, "On the
 * theory of systematic sampling, II", Ann. Math. Stat. 20, 1949). No probability exceeds 1, so a
 * candidate is met at most once, and with exactly its probability.
 */
#include "kernels/cpu/cpu.h"

#include <math.h>

#include "kernels/cpu/lanes.h"
#include "kernels/select_order.h"

/* ---- norms ---------------------------------------------------------------------------------- */

static double row_squared_norm(const struct tensor *x, int64_t row, int64_t columns)
{
    float buffer[CPU_BLOCK];
    double sum = 0.0;
    for (int64_t at = 0; at < columns; at += CPU_BLOCK) {
        int64_t count = cpu_min(CPU_BLOCK, columns - at);
        sum += cpu_lanes_sum_squares(cpu_read(x, row * columns + at, count, buffer), count);
    }
    return sum;
}

/* Columns [r.first, r.last), at most CPU_BLOCK of them, down all rows. */
static void column_squared_norms(float *norms, const struct tensor *x, struct cpu_range r)
{
    float buffer[CPU_BLOCK];
    double sum[CPU_BLOCK] = { 0 };
    int64_t rows = tensor_rows(x);
    int64_t count = r.last - r.first;
    for (int64_t row = 0; row < rows; row++) {
        const float *a = cpu_read(x, row * tensor_columns(x) + r.first, count, buffer);
        for (int64_t j = 0; j < count; j++) {
            sum[j] += (double)a[j] * (double)a[j];
        }
    }
    for (int64_t j = 0; j < count; j++) {
        norms[r.first + j] = (float)sum[j];
    }
}

void cpu_squared_norms(struct backend *be, struct tensor *norms, const struct tensor *x,
                       enum side side)
{
    (void)be;
    float *out = norms->data;
    int64_t rows = tensor_rows(x);
    int64_t columns = tensor_columns(x);
    if (side == SIDE_ROWS) {
        int64_t grain = cpu_row_grain(columns);
        int64_t chunks = cpu_chunk_count(rows, grain);
#pragma omp parallel for schedule(static) if (chunks > 1)
        for (int64_t i = 0; i < chunks; i++) {
            struct cpu_range r = cpu_chunk(rows, grain, i);
            for (int64_t row = r.first; row < r.last; row++) {
                out[row] = (float)row_squared_norm(x, row, columns);
            }
        }
        return;
    }
    enum { GRAIN = 64 }; /* narrow, so that small matrices are shared too */
    int64_t chunks = cpu_chunk_count(columns, GRAIN);
#pragma omp parallel for schedule(static) if (tensor_count(x) > CPU_GRAIN)
    for (int64_t i = 0; i < chunks; i++) {
        column_squared_norms(out, x, cpu_chunk(columns, GRAIN, i));
    }
}

/* ---- the choice ----------------------------------------------------------------------------- */

/* One choice under way. `weight` is proportional to q. */
struct choice {
    const struct select *args;
    int64_t candidates; /* M */
    int64_t slots;      /* R */
    double *weight;     /* (M) */
    double *share;      /* (M) scratch: cumulative weights, or inclusion probabilities */
    uint64_t *order;    /* (M) scratch: sort key in the upper half, candidate in the lower */
    uint64_t *spare;    /* (M) scratch of sorting */
    int32_t *drawn;     /* (M) how often each candidate was drawn */
};

/* Sorts order[0, count), whose lower halves ascend already, by the upper halves: a radix sort,
 * which takes no memory of its own. Four passes, an even number: the result ends where it began. */
static void sort_order(const struct choice *c, int64_t count)
{
    uint64_t *from = c->order;
    uint64_t *to = c->spare;
    for (int shift = 32; shift < 64; shift += 8) {
        int64_t place[257] = { 0 };
        for (int64_t i = 0; i < count; i++) {
            place[(from[i] >> shift) % 256 + 1]++;
        }
        for (int b = 0; b < 256; b++) {
            place[b + 1] += place[b];
        }
        for (int64_t i = 0; i < count; i++) {
            to[place[(from[i] >> shift) % 256]++] = from[i];
        }
        uint64_t *swap = from;
        from = to;
        to = swap;
    }
}

/* values[i] becomes the sum of values[0 .. i]; returns the last (kernels/select_order.h). */
static double cumulate(double *values, int64_t count)
{
    double base = 0.0;
    for (int64_t first = 0; first < count; first += SELECT_RUN) {
        int64_t last = cpu_min(first + SELECT_RUN, count);
        double within = 0.0;
        for (int64_t i = first; i < last; i++) {
            within += values[i];
            values[i] = base + within;
        }
        base += within;
    }
    return base;
}

/* Sum of the weights of shares below 1, in the same order. */
static double open_weight(const double *weight, const double *share, int64_t count)
{
    double total = 0.0;
    for (int64_t first = 0; first < count; first += SELECT_RUN) {
        int64_t last = cpu_min(first + SELECT_RUN, count);
        double within = 0.0;
        for (int64_t i = first; i < last; i++) {
            within += share[i] < 1.0 ? weight[i] : 0.0;
        }
        total += within;
    }
    return total;
}

/* Uniform in (0, 1) with all 32 bits: the candidates of a large matrix are too many for 23. */
static double uniform32(const struct choice *c, int64_t element)
{
    return ((double)random_u32(&c->args->key, (uint64_t)element) + 0.5) * 0x1p-32;
}

static void write_slot(const struct choice *c, int64_t slot, int64_t index, double rho)
{
    ((int32_t *)c->args->index->data)[slot] = (int32_t)index;
    ((float *)c->args->scale->data)[slot] = (float)rho;
}

/* Weights from the squared norms. The sum is finite and positive on return. */
static void weigh(const struct choice *c)
{
    const float *norms = c->args->norms->data;
    bool even = c->args->rule == SELECT_UNIFORM;
    double sum = 0.0;
    for (int64_t i = 0; i < c->candidates; i++) {
        double n = (double)norms[i];
        even = even || !isfinite(n);
        bool root = c->args->rule == SELECT_NORM || c->args->rule == SELECT_WINNERS;
        c->weight[i] = !(n > 0.0) ? 0.0 : root ? sqrt(n) : n;
        sum += c->weight[i];
    }
    if (even || !(sum > 0.0)) {
        for (int64_t i = 0; i < c->candidates; i++) {
            c->weight[i] = 1.0;
        }
    }
}

/* A key that sorts the largest norm first; NaN before everything, and both zeros alike. */
static uint32_t descending_key(float norm)
{
    if (isnan(norm)) {
        return 0;
    }
    uint32_t bits = float_bits(norm + 0.0f);
    uint32_t ascending = (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
    return ~ascending;
}

static void choose_top(const struct choice *c)
{
    const float *norms = c->args->norms->data;
    for (int64_t i = 0; i < c->candidates; i++) {
        c->order[i] = ((uint64_t)descending_key(norms[i]) << 32) | (uint32_t)i;
    }
    sort_order(c, c->candidates);
    int64_t taken = cpu_min(c->slots, c->candidates);
    for (int64_t i = 0; i < taken; i++) {
        c->drawn[(uint32_t)c->order[i]] = 1;
        c->share[(uint32_t)c->order[i]] = 1.0;
    }
}

/* First candidate whose cumulative weight exceeds `at`: never one of weight 0. */
static int64_t find_cumulative(const double *cumulative, int64_t count, double at)
{
    int64_t low = 0;
    int64_t high = count - 1;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (cumulative[middle] > at) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

static void choose_with_replacement(const struct choice *c)
{
    memcpy(c->share, c->weight, (size_t)c->candidates * sizeof *c->share);
    double sum = cumulate(c->share, c->candidates);
    for (int64_t j = 0; j < c->slots; j++) {
        c->drawn[find_cumulative(c->share, c->candidates, uniform32(c, j) * sum)]++;
    }
    /* rho^2 = c / (R q) = drawn / share with share = R q: the expected number of draws. */
    for (int64_t i = 0; i < c->candidates; i++) {
        c->share[i] = (double)c->slots * c->weight[i] / sum;
    }
}

/* Order of the candidates from the largest weight to the smallest; how many are positive. */
static int64_t order_by_weight(const struct choice *c)
{
    int64_t positive = 0;
    for (int64_t i = 0; i < c->candidates; i++) {
        positive += c->weight[i] > 0.0 ? 1 : 0;
        c->order[i] = ((uint64_t)descending_key((float)c->weight[i]) << 32) | (uint32_t)i;
    }
    sort_order(c, c->candidates);
    return positive;
}

/* W: how many of the ordered candidates, with these cumulative weights, are taken for certain. */
static int64_t winner_count(const double *cumulative, double sum, int64_t slots)
{
    int64_t winners = 0;
    double least = sum * sum / (double)slots;
    for (int64_t w = 1; w < slots; w++) {
        double rest = sum - cumulative[w - 1];
        double bound = rest * rest / (double)(slots - w);
        if (bound < least) {
            least = bound;
            winners = w;
        }
    }
    return winners;
}

static void choose_winners(const struct choice *c)
{
    int64_t positive = order_by_weight(c);
    int64_t winners = cpu_min(positive, c->slots);
    if (positive > c->slots && c->slots > 0) {
        for (int64_t i = 0; i < c->candidates; i++) {
            c->share[i] = c->weight[(uint32_t)c->order[i]];
        }
        double sum = cumulate(c->share, c->candidates);
        winners = winner_count(c->share, sum, c->slots);
        double before = winners > 0 ? c->share[winners - 1] : 0.0;
        /* At least the next one, which a sum much larger than the rest may have swallowed. */
        double rest = fmax(sum - before, c->weight[(uint32_t)c->order[winners]]);
        int64_t draws = c->slots - winners;
        for (int64_t j = 0; j < draws; j++) {
            int64_t found =
                find_cumulative(c->share, c->candidates, before + uniform32(c, j) * rest);
            /* Where rounding leads astray, the nearest that may be drawn. */
            found = found < winners ? winners : cpu_min(found, positive - 1);
            c->drawn[(uint32_t)c->order[found]]++;
        }
        for (int64_t i = 0; i < c->candidates; i++) {
            c->share[i] = (double)draws * c->weight[i] / rest;
        }
    }
    for (int64_t w = 0; w < winners; w++) {
        c->drawn[(uint32_t)c->order[w]] = 1;
        c->share[(uint32_t)c->order[w]] = 1.0;
    }
}

/* share = min(1, factor * weight) with the factor that makes the sum `want`, found by fixing at 1
 * whatever exceeds it and solving for the rest, until nothing does. There must be more than `want`
 * candidates of positive weight. A share within 1e-9 of 1 counts as 1, so that rounding in the line
 * of shares below cannot make one candidate as long as the distance of two points. */
static void solve_shares(const struct choice *c, int64_t want)
{
    for (int64_t i = 0; i < c->candidates; i++) {
        c->share[i] = 0.0;
    }
    double left = (double)want;
    for (bool changed = true; changed;) {
        changed = false;
        double sum = open_weight(c->weight, c->share, c->candidates);
        double factor = left > 0.0 ? left / sum : 0.0;
        for (int64_t i = 0; i < c->candidates; i++) {
            if (c->share[i] < 1.0) {
                c->share[i] = factor * c->weight[i];
                if (c->share[i] > 1.0 - 1e-9) {
                    c->share[i] = 1.0;
                    left -= 1.0;
                    changed = true;
                }
            }
        }
    }
}

/* Systematic sampling of `want` among the candidates with 0 < share < 1, whose shares sum to it.
 * The line of shares is as long as rounding made it: no two points may meet the same candidate, and
 * the last ones must find candidates too. The weights, which nobody needs any more, make room for
 * it. */
static void sample_systematic(const struct choice *c, int64_t want)
{
    int64_t count = 0;
    for (int64_t i = 0; i < c->candidates; i++) {
        if (c->share[i] > 0.0 && c->share[i] < 1.0) {
            uint64_t word = random_u32(&c->args->key, (uint64_t)i);
            c->order[count++] = (word << 32) | (uint32_t)i;
        }
    }
    sort_order(c, count);
    double *line = c->weight;
    for (int64_t i = 0; i < count; i++) {
        line[i] = c->share[(uint32_t)c->order[i]];
    }
    double total = cumulate(line, count);
    double start = uniform32(c, c->candidates);
    want = cpu_min(want, count);
    int64_t ahead = 0; /* most that a point so far lay beyond its number */
    for (int64_t j = 0; j < want; j++) {
        double point = ((double)j + start) * (total / (double)want);
        int64_t found = find_cumulative(line, count, point) - j;
        ahead = found > ahead ? found : ahead;
        c->drawn[(uint32_t)c->order[cpu_min(ahead, count - want) + j]] = 1;
    }
}

static void choose_without_replacement(const struct choice *c)
{
    int64_t want = cpu_min(c->slots, c->candidates);
    int64_t positive = 0;
    for (int64_t i = 0; i < c->candidates; i++) {
        positive += c->weight[i] > 0.0 ? 1 : 0;
    }
    if (positive > want) {
        solve_shares(c, want);
    } else {
        /* All of positive weight, and the rest evenly among those of weight 0. */
        double rest = positive < c->candidates
                          ? (double)(want - positive) / (double)(c->candidates - positive)
                          : 0.0;
        for (int64_t i = 0; i < c->candidates; i++) {
            c->share[i] = c->weight[i] > 0.0 ? 1.0 : rest;
        }
    }
    for (int64_t i = 0; i < c->candidates; i++) {
        if (c->share[i] >= 1.0) {
            c->drawn[i] = 1;
            want--;
        }
    }
    sample_systematic(c, want);
}

/* Chosen candidates in ascending order, then unused slots. */
static void write_choice(const struct choice *c)
{
    int64_t slot = 0;
    for (int64_t i = 0; i < c->candidates && slot < c->slots; i++) {
        if (c->drawn[i] > 0) {
            double rho = c->args->unbiased ? sqrt((double)c->drawn[i] / c->share[i]) : 1.0;
            write_slot(c, slot++, i + c->args->offset, rho);
        }
    }
    for (; slot < c->slots; slot++) {
        write_slot(c, slot, -1, 1.0);
    }
}

void cpu_select(struct backend *be, const struct select *args)
{
    struct choice c = { .args = args,
                        .candidates = tensor_count(args->norms),
                        .slots = tensor_count(args->index) };
    size_t count = (size_t)c.candidates;
    size_t each = 2 * sizeof *c.weight + 2 * sizeof *c.order + sizeof *c.drawn;
    char *room = cpu_scratch(be, count * each);
    if (room == NULL) {
        return;
    }
    c.weight = (double *)(void *)room;
    c.share = c.weight + count;
    c.order = (uint64_t *)(void *)(c.share + count);
    c.spare = c.order + count;
    c.drawn = (int32_t *)(void *)(c.spare + count);
    memset(c.drawn, 0, count * sizeof *c.drawn);
    if (args->rule == SELECT_TOP) {
        choose_top(&c);
    } else {
        weigh(&c);
        if (args->rule == SELECT_WINNERS) {
            choose_winners(&c);
        } else if (args->replacement) {
            choose_with_replacement(&c);
        } else {
            choose_without_replacement(&c);
        }
    }
    write_choice(&c);
}
