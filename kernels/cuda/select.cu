/*
 * The choice of rows or columns by their norms.
 *
 * Floor: it reads the norms, a few tens of kB: it waits for barriers, not for memory.
 *
 * The choice is that of the cpu backend, candidate by candidate (methods: kernels/ops.h). A block
 * makes it. The largest norms are found by a radix select: four times, a histogram of eight more
 * bits of the keys says which of them the last one taken has. Sums whose rounding decides keep to
 * kernels/select_order.h, a thread a run; all other sums are of integers, exact in any order.
 */
#include "kernels/cuda/check.cuh"
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/random.cuh"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/scratch.h"
#include "kernels/cuda/sort.cuh"
#include "kernels/cuda/vector.cuh"
#include "kernels/select_order.h"

enum { SELECT_THREADS = 512, RADIX_BITS = 8, RADIX = 1 << RADIX_BITS };

/* ---- the choice ----------------------------------------------------------------------------- */

/* One choice under way; the arrays are scratch. */
struct choice {
    const float *norms;
    int32_t *index;
    float *scale;
    double *weight;  /* (M) proportional to q; in the end the line of shares */
    double *share;   /* (M) cumulative weights, or inclusion probabilities */
    double *run_sum; /* (M / SELECT_RUN, rounded up) */
    uint64_t *order; /* (M) candidates in the order of sampling */
    uint64_t *spare; /* (M) */
    int64_t *counts; /* candidates to sample from, and how many of them to take */
    int32_t *drawn;  /* (M) how often each candidate was drawn */
    int64_t candidates;
    int64_t slots;
    int64_t offset;
    enum select_rule rule;
    bool replacement;
    bool unbiased;
    struct random_key key;
};
enum { COUNT_OPEN, COUNT_WANTED, COUNT_COUNT = SELECT_COUNTERS };

#define EACH_CANDIDATE(i, c) for (int64_t i = threadIdx.x; i < (c)->candidates; i += SELECT_THREADS)

static __device__ double uniform32(const struct choice *c, int64_t element)
{
    return ((double)random_word(&c->key, element) + 0.5) * (1.0 / 4294967296.0);
}

/* How many threads' counts add up to: exact, so in any order. */
static __device__ int64_t block_count(int64_t count)
{
    return (int64_t)block_sum_double((double)count);
}

/* Sum, or maximum, of the values of the threads up to and with this one. */
static __device__ int64_t block_scan(int64_t value, bool maximum)
{
    __shared__ int64_t held[SELECT_THREADS];
    held[threadIdx.x] = value;
    __syncthreads();
    for (unsigned distance = 1; distance < SELECT_THREADS; distance *= 2) {
        int64_t before = threadIdx.x >= distance ? held[threadIdx.x - distance] : 0;
        __syncthreads();
        if (threadIdx.x >= distance) {
            value = maximum ? (before > value ? before : value) : value + before;
        }
        held[threadIdx.x] = value;
        __syncthreads();
    }
    return value;
}

/* The part of [0, count) that this thread has when every thread takes a run of its own. */
struct part {
    int64_t first, last;
};
static __device__ struct part own_part(int64_t count)
{
    int64_t each = (count + SELECT_THREADS - 1) / SELECT_THREADS;
    struct part p = { threadIdx.x * each, threadIdx.x * each + each };
    p.first = p.first < count ? p.first : count;
    p.last = p.last < count ? p.last : count;
    return p;
}

/* run_sum[k] = sum of run k of values whose share is below 1 (share NULL: of all). */
static __device__ void sum_runs(const struct choice *c, const double *values, const double *share,
                                int64_t count)
{
    int64_t runs = (count + SELECT_RUN - 1) / SELECT_RUN;
    __syncthreads();
    for (int64_t k = threadIdx.x; k < runs; k += SELECT_THREADS) {
        int64_t first = k * SELECT_RUN;
        int64_t last = first + SELECT_RUN < count ? first + SELECT_RUN : count;
        double within = 0.0;
        for (int64_t i = first; i < last; i++) {
            within += share == NULL || share[i] < 1.0 ? values[i] : 0.0;
        }
        c->run_sum[k] = within;
    }
    __syncthreads();
}

/* The sums of the runs, added up by one thread; each is replaced by the sum of those before it. */
static __device__ double add_runs(const struct choice *c, int64_t count)
{
    __shared__ double total;
    if (threadIdx.x == 0) {
        double base = 0.0;
        for (int64_t k = 0; k * SELECT_RUN < count; k++) {
            double within = c->run_sum[k];
            c->run_sum[k] = base;
            base += within;
        }
        total = base;
    }
    __syncthreads();
    return total;
}

/* to[i] = sum of values[0 .. i]; returns the last. to may be values. */
static __device__ double cumulate(const struct choice *c, double *to, const double *values,
                                  int64_t count)
{
    sum_runs(c, values, NULL, count);
    double total = add_runs(c, count);
    for (int64_t k = threadIdx.x; k * SELECT_RUN < count; k += SELECT_THREADS) {
        int64_t last = (k + 1) * SELECT_RUN < count ? (k + 1) * SELECT_RUN : count;
        double within = 0.0;
        for (int64_t i = k * SELECT_RUN; i < last; i++) {
            within += values[i];
            to[i] = c->run_sum[k] + within;
        }
    }
    __syncthreads();
    return total;
}

/* First of `count` cumulative sums that exceeds `at`. */
static __device__ int64_t find_cumulative(const double *cumulative, int64_t count, double at)
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

/* ---- the largest ---------------------------------------------------------------------------- */

/* A key that sorts the largest norm first; NaN before everything, and both zeros alike. */
static __device__ uint32_t descending_key(float norm)
{
    if (isnan(norm)) {
        return 0;
    }
    uint32_t bits = float_bits(norm + 0.0f);
    uint32_t ascending = (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
    return ~ascending;
}

/* The key of the last candidate taken, and in *left how many of those that have it are taken. */
static __device__ uint32_t last_key(const struct choice *c, int64_t *left)
{
    __shared__ int histogram[RADIX];
    __shared__ uint32_t found;
    __shared__ int64_t rest;
    uint32_t known = 0; /* its upper bits */
    int64_t want = c->slots < c->candidates ? c->slots : c->candidates;
    for (int shift = 32 - RADIX_BITS; shift >= 0; shift -= RADIX_BITS) {
        for (int i = (int)threadIdx.x; i < RADIX; i += SELECT_THREADS) {
            histogram[i] = 0;
        }
        __syncthreads();
        EACH_CANDIDATE(i, c)
        {
            uint32_t key = descending_key(c->norms[i]);
            if (((key ^ known) >> shift) < RADIX) {
                atomicAdd(&histogram[(key >> shift) % RADIX], 1); /* integers: any order */
            }
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            uint32_t bucket = 0;
            while (bucket + 1 < RADIX && want > histogram[bucket]) {
                want -= histogram[bucket++];
            }
            found = known | (bucket << shift);
            rest = want;
        }
        __syncthreads();
        known = found;
        want = rest;
        __syncthreads();
    }
    *left = want;
    return known;
}

static __device__ void choose_top(const struct choice *c)
{
    int64_t left;
    uint32_t last = last_key(c, &left);
    struct part own = own_part(c->candidates);
    int64_t equal = 0;
    for (int64_t i = own.first; i < own.last; i++) {
        equal += descending_key(c->norms[i]) == last ? 1 : 0;
    }
    int64_t before = block_scan(equal, false) - equal;
    for (int64_t i = own.first; i < own.last; i++) {
        uint32_t key = descending_key(c->norms[i]);
        bool taken = key < last || (key == last && before < left);
        before += key == last ? 1 : 0;
        c->drawn[i] = taken ? 1 : 0;
        c->share[i] = 1.0;
    }
}

/* ---- drawing -------------------------------------------------------------------------------- */

/* Weights from the squared norms; their sum is finite and positive afterwards. */
static __device__ void weigh(const struct choice *c)
{
    int64_t odd = 0;
    int64_t positive = 0;
    EACH_CANDIDATE(i, c)
    {
        double n = (double)c->norms[i];
        odd += isfinite(n) ? 0 : 1;
        bool root = c->rule == SELECT_NORM || c->rule == SELECT_WINNERS;
        c->weight[i] = !(n > 0.0) ? 0.0 : root ? sqrt(n) : n;
        positive += c->weight[i] > 0.0 ? 1 : 0;
    }
    odd = block_count(odd);
    positive = block_count(positive);
    if (c->rule == SELECT_UNIFORM || odd > 0 || positive == 0) {
        EACH_CANDIDATE(i, c)
        {
            c->weight[i] = 1.0;
        }
    }
    __syncthreads();
}

static __device__ void choose_with_replacement(const struct choice *c)
{
    double sum = cumulate(c, c->share, c->weight, c->candidates);
    for (int64_t j = threadIdx.x; j < c->slots; j += SELECT_THREADS) {
        int64_t found = find_cumulative(c->share, c->candidates, uniform32(c, j) * sum);
        atomicAdd(&c->drawn[found], 1); /* of integers: the order does not matter */
    }
    __syncthreads();
    EACH_CANDIDATE(i, c)
    {
        c->share[i] = (double)c->slots * c->weight[i] / sum;
    }
}

/* Candidates in `order`, to be sorted from the largest weight to the smallest; how many are
 * positive. */
static __device__ void prepare_winners(const struct choice *c)
{
    int64_t positive = 0;
    EACH_CANDIDATE(i, c)
    {
        c->drawn[i] = 0;
        positive += c->weight[i] > 0.0 ? 1 : 0;
        c->order[i] = ((uint64_t)descending_key((float)c->weight[i]) << 32) | (uint32_t)i;
    }
    positive = block_count(positive);
    if (threadIdx.x == 0) {
        c->counts[COUNT_OPEN] = positive;
    }
}

/* How many of the ordered candidates, with the cumulative weights `share`, are taken for certain:
 * the number with the least bound, and of several the smallest. */
static __device__ int64_t winner_count(const struct choice *c, double sum)
{
    __shared__ double bounds[SELECT_THREADS];
    __shared__ int64_t counts[SELECT_THREADS];
    __shared__ int64_t winners;
    struct part own = own_part(c->slots);
    double least = INFINITY;
    int64_t best = 0;
    for (int64_t w = own.first; w < own.last; w++) {
        double rest = w > 0 ? sum - c->share[w - 1] : sum;
        double bound = rest * rest / (double)(c->slots - w);
        if (bound < least) {
            least = bound;
            best = w;
        }
    }
    bounds[threadIdx.x] = least;
    counts[threadIdx.x] = best;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int i = 1; i < SELECT_THREADS; i++) {
            if (bounds[i] < least) {
                least = bounds[i];
                best = counts[i];
            }
        }
        winners = best;
    }
    __syncthreads();
    return winners;
}

/* Draws the slots that the winners leave from the other candidates; returns the winners' number. */
static __device__ int64_t draw_beside_winners(const struct choice *c, int64_t positive)
{
    for (int64_t i = threadIdx.x; i < c->candidates; i += SELECT_THREADS) {
        c->share[i] = c->weight[(uint32_t)c->order[i]];
    }
    double sum = cumulate(c, c->share, c->share, c->candidates);
    int64_t winners = winner_count(c, sum);
    double before = winners > 0 ? c->share[winners - 1] : 0.0;
    double rest = fmax(sum - before, c->weight[(uint32_t)c->order[winners]]);
    int64_t draws = c->slots - winners;
    for (int64_t j = threadIdx.x; j < draws; j += SELECT_THREADS) {
        int64_t found = find_cumulative(c->share, c->candidates, before + uniform32(c, j) * rest);
        found = found < winners ? winners : found < positive ? found : positive - 1;
        atomicAdd(&c->drawn[(uint32_t)c->order[found]], 1); /* of integers: any order */
    }
    __syncthreads();
    EACH_CANDIDATE(i, c)
    {
        c->share[i] = (double)draws * c->weight[i] / rest;
    }
    return winners;
}

static __device__ void choose_winners(const struct choice *c)
{
    int64_t positive = c->counts[COUNT_OPEN];
    int64_t winners = positive < c->slots ? positive : c->slots;
    if (positive > c->slots && c->slots > 0) {
        winners = draw_beside_winners(c, positive);
    }
    __syncthreads();
    for (int64_t w = threadIdx.x; w < winners; w += SELECT_THREADS) {
        c->drawn[(uint32_t)c->order[w]] = 1;
        c->share[(uint32_t)c->order[w]] = 1.0;
    }
}

/* share = min(1, factor * weight) with the factor that makes the sum `want`; a share within 1e-9 of
 * 1 counts as 1. */
static __device__ void solve_shares(const struct choice *c, int64_t want)
{
    EACH_CANDIDATE(i, c)
    {
        c->share[i] = 0.0;
    }
    double left = (double)want;
    for (int64_t changed = 1; changed > 0;) {
        sum_runs(c, c->weight, c->share, c->candidates);
        double factor = add_runs(c, c->candidates);
        factor = left > 0.0 ? left / factor : 0.0;
        changed = 0;
        EACH_CANDIDATE(i, c)
        {
            if (c->share[i] < 1.0) {
                c->share[i] = factor * c->weight[i];
                if (c->share[i] > 1.0 - 1e-9) {
                    c->share[i] = 1.0;
                    changed++;
                }
            }
        }
        changed = block_count(changed);
        left -= (double)changed;
    }
}

/* Inclusion probabilities; takes the sure ones, and leaves the others in `order`, to be sorted. */
static __device__ void prepare_sampling(const struct choice *c)
{
    int64_t want = c->slots < c->candidates ? c->slots : c->candidates;
    int64_t positive = 0;
    EACH_CANDIDATE(i, c)
    {
        positive += c->weight[i] > 0.0 ? 1 : 0;
    }
    positive = block_count(positive);
    if (positive > want) {
        solve_shares(c, want);
    } else {
        double rest = positive < c->candidates
                          ? (double)(want - positive) / (double)(c->candidates - positive)
                          : 0.0;
        EACH_CANDIDATE(i, c)
        {
            c->share[i] = c->weight[i] > 0.0 ? 1.0 : rest;
        }
    }
    int64_t sure = 0;
    int64_t open = 0;
    EACH_CANDIDATE(i, c)
    {
        bool is_open = c->share[i] > 0.0 && c->share[i] < 1.0;
        c->drawn[i] = c->share[i] >= 1.0 ? 1 : 0;
        c->order[i] =
            is_open ? ((uint64_t)random_word(&c->key, i) << 32) | (uint32_t)i : UINT64_MAX;
        sure += c->drawn[i];
        open += is_open ? 1 : 0;
    }
    sure = block_count(sure);
    open = block_count(open);
    if (threadIdx.x == 0) {
        c->counts[COUNT_OPEN] = open;
        c->counts[COUNT_WANTED] = want - sure < open ? want - sure : open;
    }
}

/* Systematic sampling along the sorted candidates: the points find theirs side by side; no two may
 * meet the same, and the last ones must find some too (kernels/cpu/select.c). */
static __device__ void sample_systematic(const struct choice *c)
{
    int64_t count = c->counts[COUNT_OPEN];
    int64_t want = c->counts[COUNT_WANTED];
    double *line = c->weight;
    for (int64_t i = threadIdx.x; i < count; i += SELECT_THREADS) {
        line[i] = c->share[(uint32_t)c->order[i]];
    }
    double total = cumulate(c, line, line, count);
    double start = uniform32(c, c->candidates);
    struct part own = own_part(want);
    int64_t ahead = 0;
    for (int64_t j = own.first; j < own.last; j++) {
        double point = ((double)j + start) * (total / (double)want);
        int64_t found = find_cumulative(line, count, point) - j;
        ahead = found > ahead ? found : ahead;
    }
    /* Of the threads before this one: what the one before has of them all. */
    __shared__ int64_t held[SELECT_THREADS];
    held[threadIdx.x] = block_scan(ahead, true);
    __syncthreads();
    ahead = threadIdx.x > 0 ? held[threadIdx.x - 1] : 0;
    for (int64_t j = own.first; j < own.last; j++) {
        double point = ((double)j + start) * (total / (double)want);
        int64_t found = find_cumulative(line, count, point) - j;
        ahead = found > ahead ? found : ahead;
        c->drawn[(uint32_t)c->order[(ahead < count - want ? ahead : count - want) + j]] = 1;
    }
}

/* ---- the whole ------------------------------------------------------------------------------ */

/* Chosen candidates in ascending order, then unused slots. */
static __device__ void write_choice(const struct choice *c)
{
    __shared__ int64_t used;
    struct part own = own_part(c->candidates);
    int64_t count = 0;
    for (int64_t i = own.first; i < own.last; i++) {
        count += c->drawn[i] > 0 ? 1 : 0;
    }
    int64_t slot = block_scan(count, false);
    if (threadIdx.x == SELECT_THREADS - 1) {
        used = slot;
    }
    __syncthreads();
    slot -= count;
    for (int64_t i = own.first; i < own.last && slot < c->slots; i++) {
        if (c->drawn[i] > 0) {
            double rho = c->unbiased ? sqrt((double)c->drawn[i] / c->share[i]) : 1.0;
            c->index[slot] = (int32_t)(i + c->offset);
            c->scale[slot++] = (float)rho;
        }
    }
    for (int64_t j = used + threadIdx.x; j < c->slots; j += SELECT_THREADS) {
        c->index[j] = -1;
        c->scale[j] = 1.0f;
    }
}

static __global__ void __launch_bounds__(SELECT_THREADS, 1) top_kernel(struct choice c)
{
    choose_top(&c);
    __syncthreads();
    write_choice(&c);
}

static __global__ void __launch_bounds__(SELECT_THREADS, 1) replacement_kernel(struct choice c)
{
    EACH_CANDIDATE(i, &c)
    {
        c.drawn[i] = 0;
    }
    weigh(&c);
    choose_with_replacement(&c);
    __syncthreads();
    write_choice(&c);
}

static __global__ void __launch_bounds__(SELECT_THREADS, 1) prepare_kernel(struct choice c)
{
    weigh(&c);
    prepare_sampling(&c);
}

static __global__ void __launch_bounds__(SELECT_THREADS, 1) sample_kernel(struct choice c)
{
    if (c.counts[COUNT_WANTED] > 0) {
        sample_systematic(&c);
    }
    __syncthreads();
    write_choice(&c);
}

static __global__ void __launch_bounds__(SELECT_THREADS, 1) order_kernel(struct choice c)
{
    weigh(&c);
    prepare_winners(&c);
}

static __global__ void __launch_bounds__(SELECT_THREADS, 1) winners_kernel(struct choice c)
{
    choose_winners(&c);
    __syncthreads();
    write_choice(&c);
}

/* Places the arrays in scratch. False if there is no room. */
static bool choice_place(struct backend *be, struct choice *c)
{
    size_t count = (size_t)c->candidates;
    size_t runs = (count + SELECT_RUN - 1) / SELECT_RUN;
    c->weight = (double *)cuda_scratch(be, scratch_select(c->candidates));
    if (c->weight == NULL) {
        return false;
    }
    c->share = c->weight + count;
    c->run_sum = c->share + count;
    c->order = (uint64_t *)(c->run_sum + runs);
    c->spare = c->order + count;
    c->counts = (int64_t *)(c->spare + count);
    c->drawn = (int32_t *)(c->counts + COUNT_COUNT);
    return true;
}

void cuda_select(struct backend *be, const struct select *args)
{
    struct choice c;
    memset(&c, 0, sizeof c);
    c.norms = (const float *)args->norms->data;
    c.index = (int32_t *)args->index->data;
    c.scale = (float *)args->scale->data;
    c.candidates = tensor_count(args->norms);
    c.slots = tensor_count(args->index);
    c.offset = args->offset;
    c.rule = args->rule;
    c.replacement = args->replacement;
    c.unbiased = args->unbiased;
    c.key = args->key;
    if (c.candidates == 0 || !choice_place(be, &c)) {
        return; /* without candidates there are no slots either */
    }
    if (c.rule == SELECT_TOP) {
        LAUNCH(top_kernel, 1, SELECT_THREADS, 0, cuda_stream(be), c);
    } else if (c.rule == SELECT_WINNERS) {
        LAUNCH(order_kernel, 1, SELECT_THREADS, 0, cuda_stream(be), c);
        c.order = cuda_sort(be, c.order, c.spare, c.candidates);
        LAUNCH(winners_kernel, 1, SELECT_THREADS, 0, cuda_stream(be), c);
    } else if (c.replacement) {
        LAUNCH(replacement_kernel, 1, SELECT_THREADS, 0, cuda_stream(be), c);
    } else {
        LAUNCH(prepare_kernel, 1, SELECT_THREADS, 0, cuda_stream(be), c);
        c.order = cuda_sort(be, c.order, c.spare, c.candidates);
        LAUNCH(sample_kernel, 1, SELECT_THREADS, 0, cuda_stream(be), c);
    }
    cuda_check(be, "select");
}
