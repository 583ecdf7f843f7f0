/*
 * Norms of rows or columns, and the choice among them.
 *
 * The choice is that of the cpu backend, candidate by candidate (methods: kernels/ops.h). A single
 * block makes it: what each candidate needs is computed by all threads, sums whose rounding decides
 * about borders are taken by one thread in the order of the cpu, and sorting compares whole 64-bit
 * words (key and candidate, all different), so that any sorting network gives the same order.
 */
#include "kernels/cuda/check.cuh"
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/random.cuh"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/vector.cuh"

enum { ROW_CHUNK = 64, SELECT_THREADS = 512 };

/* ---- norms ---------------------------------------------------------------------------------- */

static __global__ void row_norms_kernel(float *norms, struct view x, int64_t columns, bool wide)
{
    int64_t first = blockIdx.x * columns;
    double sum = 0.0;
    for (int64_t at = threadIdx.x * VECTOR; at < columns; at += BLOCK_THREADS * VECTOR) {
        float v[VECTOR];
        load8(v, x, first + at, vector_count(at, columns), wide);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            sum += (double)v[i] * (double)v[i];
        }
    }
    sum = block_sum_double(sum);
    if (threadIdx.x == 0) {
        norms[blockIdx.x] = (float)sum;
    }
}

/* partial (chunks of rows, columns). */
static __global__ void column_partial_kernel(double *partial, struct view x, int64_t rows,
                                             int64_t columns)
{
    int64_t column = thread_number();
    int64_t first = (int64_t)blockIdx.y * ROW_CHUNK;
    int64_t last = first + ROW_CHUNK < rows ? first + ROW_CHUNK : rows;
    if (column < columns) {
        double sum = 0.0;
        for (int64_t row = first; row < last; row++) {
            double v = (double)get(x, row * columns + column);
            sum += v * v;
        }
        partial[blockIdx.y * columns + column] = sum;
    }
}

static __global__ void column_final_kernel(float *norms, const double *partial, int64_t chunks,
                                           int64_t columns)
{
    int64_t column = thread_number();
    if (column < columns) {
        double sum = 0.0;
        for (int64_t i = 0; i < chunks; i++) {
            sum += partial[i * columns + column];
        }
        norms[column] = (float)sum;
    }
}

void cuda_squared_norms(struct backend *be, struct tensor *norms, const struct tensor *x,
                        enum side side)
{
    int64_t rows = tensor_rows(x);
    int64_t columns = tensor_columns(x);
    float *out = (float *)norms->data;
    if (side == SIDE_ROWS && rows > 0) {
        LAUNCH(row_norms_kernel, (unsigned)rows, BLOCK_THREADS, 0, cuda_stream(be), out, view_of(x),
               columns, view_has_wide_rows(x));
    } else if (side == SIDE_COLUMNS && columns > 0) {
        int64_t chunks = (rows + ROW_CHUNK - 1) / ROW_CHUNK;
        size_t count = (size_t)(chunks * columns);
        double *partial = (double *)cuda_scratch(be, (count + 1) * sizeof *partial);
        if (partial == NULL) {
            return;
        }
        dim3 grid(cuda_blocks(columns), (unsigned)chunks);
        LAUNCH(column_partial_kernel, grid, BLOCK_THREADS, 0, cuda_stream(be), partial, view_of(x),
               rows, columns);
        LAUNCH(column_final_kernel, cuda_blocks(columns), BLOCK_THREADS, 0, cuda_stream(be), out,
               partial, chunks, columns);
    }
    cuda_check(be, "squared_norms");
}

/* ---- the choice ----------------------------------------------------------------------------- */

/* One choice under way; the arrays are scratch, `order` is padded to a power of two. */
struct choice {
    const float *norms;
    int32_t *index;
    float *scale;
    double *weight; /* (M) proportional to q */
    double *share;  /* (M) cumulative weights, or inclusion probabilities */
    double *line;   /* (M) shares in the order of sampling */
    uint64_t *order;
    int32_t *drawn; /* (M) how often each candidate was drawn */
    int64_t candidates;
    int64_t slots;
    int64_t padded;
    int64_t offset;
    enum select_rule rule;
    bool replacement;
    bool unbiased;
    struct random_key key;
};

#define EACH_CANDIDATE(i, c) for (int64_t i = threadIdx.x; i < (c)->candidates; i += SELECT_THREADS)

/* A bitonic network over order[0, padded). */
static __device__ void sort_order(const struct choice *c)
{
    for (int64_t size = 2; size <= c->padded; size *= 2) {
        for (int64_t stride = size / 2; stride > 0; stride /= 2) {
            for (int64_t i = threadIdx.x; i < c->padded / 2; i += SELECT_THREADS) {
                int64_t low = i / stride * 2 * stride + i % stride;
                int64_t high = low + stride;
                uint64_t a = c->order[low];
                uint64_t b = c->order[high];
                bool ascending = (low & size) == 0;
                if ((a > b) == ascending) {
                    c->order[low] = b;
                    c->order[high] = a;
                }
            }
            __syncthreads();
        }
    }
}

static __device__ double uniform32(const struct choice *c, int64_t element)
{
    return ((double)random_word(&c->key, element) + 0.5) * (1.0 / 4294967296.0);
}

/* How many threads' counts add up to: exact, so in any order. */
static __device__ int64_t block_count(int64_t count)
{
    return (int64_t)block_sum_double((double)count);
}

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

static __device__ void choose_top(const struct choice *c)
{
    for (int64_t i = threadIdx.x; i < c->padded; i += SELECT_THREADS) {
        c->order[i] = i < c->candidates
                          ? ((uint64_t)descending_key(c->norms[i]) << 32) | (uint32_t)i
                          : UINT64_MAX;
    }
    __syncthreads();
    sort_order(c);
    for (int64_t i = threadIdx.x; i < c->slots && i < c->candidates; i += SELECT_THREADS) {
        c->drawn[(uint32_t)c->order[i]] = 1;
        c->share[(uint32_t)c->order[i]] = 1.0;
    }
}

/* Weights from the squared norms; their sum is finite and positive afterwards. */
static __device__ void weigh(const struct choice *c)
{
    int64_t odd = 0;
    int64_t positive = 0;
    EACH_CANDIDATE(i, c)
    {
        double n = (double)c->norms[i];
        odd += isfinite(n) ? 0 : 1;
        c->weight[i] = !(n > 0.0) ? 0.0 : c->rule == SELECT_NORM ? sqrt(n) : n;
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
    if (threadIdx.x == 0) {
        double sum = 0.0;
        for (int64_t i = 0; i < c->candidates; i++) {
            sum += c->weight[i];
            c->share[i] = sum;
        }
    }
    __syncthreads();
    double sum = c->share[c->candidates - 1];
    for (int64_t j = threadIdx.x; j < c->slots; j += SELECT_THREADS) {
        double at = uniform32(c, j) * sum;
        int64_t low = 0;
        int64_t high = c->candidates - 1;
        while (low < high) {
            int64_t middle = low + (high - low) / 2;
            if (c->share[middle] > at) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        atomicAdd(&c->drawn[low], 1); /* of integers: the order does not matter */
    }
    __syncthreads();
    EACH_CANDIDATE(i, c)
    {
        c->share[i] = (double)c->slots * c->weight[i] / sum;
    }
}

/* share = min(1, factor * weight) with the factor that makes the sum `want`; a share within 1e-9 of
 * 1 counts as 1. */
static __device__ void solve_shares(const struct choice *c, int64_t want)
{
    __shared__ double total;
    EACH_CANDIDATE(i, c)
    {
        c->share[i] = 0.0;
    }
    __syncthreads();
    double left = (double)want;
    for (int64_t changed = 1; changed > 0;) {
        if (threadIdx.x == 0) {
            double sum = 0.0;
            for (int64_t i = 0; i < c->candidates; i++) {
                sum += c->share[i] < 1.0 ? c->weight[i] : 0.0;
            }
            total = sum;
        }
        __syncthreads();
        double factor = left > 0.0 ? left / total : 0.0;
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

/* Systematic sampling of `want` among the candidates with 0 < share < 1, whose shares sum to it. */
static __device__ void sample_systematic(const struct choice *c, int64_t want)
{
    int64_t count = 0;
    for (int64_t i = threadIdx.x; i < c->padded; i += SELECT_THREADS) {
        bool open = i < c->candidates && c->share[i] > 0.0 && c->share[i] < 1.0;
        c->order[i] = open ? ((uint64_t)random_word(&c->key, i) << 32) | (uint32_t)i : UINT64_MAX;
        count += open ? 1 : 0;
    }
    count = block_count(count);
    sort_order(c);
    for (int64_t i = threadIdx.x; i < count; i += SELECT_THREADS) {
        c->line[i] = c->share[(uint32_t)c->order[i]];
    }
    __syncthreads();
    if (threadIdx.x != 0) {
        return;
    }
    double total = 0.0;
    for (int64_t i = 0; i < count; i++) {
        total += c->line[i];
    }
    double start = uniform32(c, c->candidates);
    double end = 0.0; /* of the share of the candidate before `at` */
    int64_t at = 0;
    for (int64_t j = 0; j < want && at < count; j++) {
        double point = ((double)j + start) * (total / (double)want);
        while (end + c->line[at] <= point && at < count - 1) {
            end += c->line[at++];
        }
        end += c->line[at];
        c->drawn[(uint32_t)c->order[at++]] = 1;
    }
}

static __device__ void choose_without_replacement(const struct choice *c)
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
    EACH_CANDIDATE(i, c)
    {
        if (c->share[i] >= 1.0) {
            c->drawn[i] = 1;
            sure++;
        }
    }
    want -= block_count(sure);
    sample_systematic(c, want);
}

/* Chosen candidates in ascending order, then unused slots: each thread writes a run of candidates,
 * after those that the threads before it have. */
static __device__ void write_choice(const struct choice *c)
{
    __shared__ int32_t found[SELECT_THREADS];
    int64_t run = (c->candidates + SELECT_THREADS - 1) / SELECT_THREADS;
    int64_t first = threadIdx.x * run;
    int64_t last = first + run < c->candidates ? first + run : c->candidates;
    int32_t count = 0;
    for (int64_t i = first; i < last; i++) {
        count += c->drawn[i] > 0 ? 1 : 0;
    }
    found[threadIdx.x] = count;
    __syncthreads();
    int64_t slot = 0;
    int64_t used = 0;
    for (int j = 0; j < SELECT_THREADS; j++) {
        slot += j < (int)threadIdx.x ? found[j] : 0;
        used += found[j];
    }
    for (int64_t i = first; i < last && slot < c->slots; i++) {
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

static __global__ void __launch_bounds__(SELECT_THREADS, 1) select_kernel(struct choice c)
{
    EACH_CANDIDATE(i, &c)
    {
        c.drawn[i] = 0;
    }
    __syncthreads();
    if (c.rule == SELECT_TOP) {
        choose_top(&c);
    } else {
        weigh(&c);
        if (c.replacement) {
            choose_with_replacement(&c);
        } else {
            choose_without_replacement(&c);
        }
    }
    __syncthreads();
    write_choice(&c);
}

void cuda_select(struct backend *be, const struct select *args)
{
    int64_t candidates = tensor_count(args->norms);
    int64_t slots = tensor_count(args->index);
    if (candidates == 0) {
        return; /* then there are no slots either */
    }
    int64_t padded = 1;
    while (padded < candidates) {
        padded *= 2;
    }
    size_t count = (size_t)candidates;
    size_t bytes =
        3 * count * sizeof(double) + (size_t)padded * sizeof(uint64_t) + count * sizeof(int32_t);
    double *room = (double *)cuda_scratch(be, bytes);
    if (room == NULL) {
        return;
    }
    struct choice c = { (const float *)args->norms->data,
                        (int32_t *)args->index->data,
                        (float *)args->scale->data,
                        room,
                        room + count,
                        room + 2 * count,
                        (uint64_t *)(room + 3 * count),
                        NULL,
                        candidates,
                        slots,
                        padded,
                        args->offset,
                        args->rule,
                        args->replacement,
                        args->unbiased,
                        args->key };
    c.drawn = (int32_t *)(c.order + padded);
    LAUNCH(select_kernel, 1, SELECT_THREADS, 0, cuda_stream(be), c);
    cuda_check(be, "select");
}
