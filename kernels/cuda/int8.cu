/*
 * AdamW with moments of eight bits, and the conversion itself (kernels/quantize.h).
 *
 * Blocks along rows: a block of threads takes the 256 neighbours of one block of codes, one a
 * thread. Blocks down columns: it takes 256 rows of 32 columns, a lane a column; magnitudes are
 * found in a first pass, and a second one computes the same again and stores it.
 */
#include "kernels/cuda/check.cuh"
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/scratch.h"
#include "kernels/cuda/update.cuh"

enum { WARPS = BLOCK_THREADS / WARP };

struct update {
    struct adam adam;
    uint8_t *m, *v;
    float *m_absmax, *v_absmax;
};

/* New moments of one element; v by its root. */
struct moments {
    float m, root;
};

static __device__ inline struct moments moments_new(const struct update *u, int64_t at,
                                                    float m_most, float v_most)
{
    float g = u->adam.control[CONTROL_FACTOR] * get(u->adam.gradient, at);
    float m = quantize_load(QUANTIZE_SIGNED, quantize_entry(QUANTIZE_SIGNED, u->m[at]), m_most);
    float v = quantize_load(QUANTIZE_ROOT, quantize_entry(QUANTIZE_ROOT, u->v[at]), v_most);
    struct moments n;
    n.m = u->adam.beta1 * m + (1.0f - u->adam.beta1) * g;
    n.root = sqrtf(u->adam.beta2 * v + (1.0f - u->adam.beta2) * (g * g));
    return n;
}

static __global__ void rows_kernel(struct update u, int64_t blocks)
{
    int64_t row = blockIdx.x / blocks;
    int64_t column = blockIdx.x % blocks * QUANTIZE_BLOCK + threadIdx.x;
    if (u.adam.control[CONTROL_SKIP] != 0.0f || (u.adam.index != NULL && u.adam.index[row] < 0)) {
        return;
    }
    bool inside = column < u.adam.columns;
    int64_t at = row * u.adam.columns + column;
    struct moments n = { 0.0f, 0.0f };
    if (inside) {
        int64_t to = (u.adam.index != NULL ? u.adam.index[row] : row) * u.adam.columns + column;
        n = moments_new(&u, at, u.m_absmax[blockIdx.x], u.v_absmax[blockIdx.x]);
        adam_step(&u.adam, to, at, n.m, n.root, u.adam.slots[u.adam.index != NULL ? row : 0]);
    }
    /* The old magnitudes were read before the first barrier in here. */
    float m_most = block_max(fabsf(n.m));
    float v_most = block_max(n.root);
    if (inside) {
        u.m[at] = quantize_store(QUANTIZE_SIGNED, n.m, m_most);
        u.v[at] = quantize_store(QUANTIZE_ROOT, n.root, v_most);
    }
    if (threadIdx.x == 0) {
        u.m_absmax[blockIdx.x] = m_most;
        u.v_absmax[blockIdx.x] = v_most;
    }
}

/* The largest over the warps, lane by lane. */
static __device__ inline float lanes_max(float *part, float value)
{
    part[threadIdx.x] = value;
    __syncthreads();
    float most = 0.0f;
    for (int w = 0; w < WARPS; w++) {
        float other = part[w * WARP + threadIdx.x % WARP];
        most = other > most ? other : most;
    }
    __syncthreads();
    return most;
}

static __global__ void columns_kernel(struct update u, int64_t strips)
{
    __shared__ float part[BLOCK_THREADS];
    int64_t block = blockIdx.x / strips;
    int64_t j = blockIdx.x % strips * WARP + threadIdx.x % WARP;
    int64_t first = block * QUANTIZE_BLOCK + threadIdx.x / WARP;
    int64_t last = block * QUANTIZE_BLOCK + QUANTIZE_BLOCK;
    last = last < u.adam.rows ? last : u.adam.rows;
    if (u.adam.control[CONTROL_SKIP] != 0.0f) {
        return;
    }
    bool used = j < u.adam.columns && (u.adam.index == NULL || u.adam.index[j] >= 0);
    float m_old = used ? u.m_absmax[block * u.adam.columns + j] : 0.0f;
    float v_old = used ? u.v_absmax[block * u.adam.columns + j] : 0.0f;
    float m_most = 0.0f;
    float v_most = 0.0f;
    for (int64_t i = first; i < last && used; i += WARPS) {
        struct moments n = moments_new(&u, i * u.adam.columns + j, m_old, v_old);
        m_most = fabsf(n.m) > m_most ? fabsf(n.m) : m_most;
        v_most = n.root > v_most ? n.root : v_most;
    }
    m_most = lanes_max(part, m_most);
    v_most = lanes_max(part, v_most);
    for (int64_t i = first; i < last && used; i += WARPS) {
        int64_t at = i * u.adam.columns + j;
        int64_t to = i * u.adam.weight_columns + (u.adam.index != NULL ? u.adam.index[j] : j);
        struct moments n = moments_new(&u, at, m_old, v_old);
        adam_step(&u.adam, to, at, n.m, n.root, u.adam.slots[u.adam.index != NULL ? j : 0]);
        u.m[at] = quantize_store(QUANTIZE_SIGNED, n.m, m_most);
        u.v[at] = quantize_store(QUANTIZE_ROOT, n.root, v_most);
    }
    if (used && threadIdx.x < WARP) {
        u.m_absmax[block * u.adam.columns + j] = m_most;
        u.v_absmax[block * u.adam.columns + j] = v_most;
    }
}

static struct update update_make(const struct adamw *args, struct adam_slot *slots)
{
    struct update u;
    u.adam = adam_of(args, slots);
    u.m = (uint8_t *)args->m->data;
    u.v = (uint8_t *)args->v->data;
    u.m_absmax = (float *)args->m_absmax->data;
    u.v_absmax = (float *)args->v_absmax->data;
    return u;
}

void cuda_adamw_int8(struct backend *be, const struct adamw *args)
{
    int64_t count = tensor_count(args->age);
    if (count == 0 || tensor_count(args->gradient) == 0) {
        return;
    }
    struct adam_slot *slots = (struct adam_slot *)cuda_scratch(be, scratch_adamw(args));
    if (slots == NULL) {
        return;
    }
    struct update u = update_make(args, slots);
    adam_fill_slots(be, &u.adam, count);
    if (args->side == SIDE_ROWS) {
        int64_t blocks = quantize_blocks(u.adam.columns);
        LAUNCH(rows_kernel, (unsigned)(u.adam.rows * blocks), QUANTIZE_BLOCK, 0, cuda_stream(be), u,
               blocks);
    } else {
        int64_t strips = (u.adam.columns + WARP - 1) / WARP;
        LAUNCH(columns_kernel, (unsigned)(quantize_blocks(u.adam.rows) * strips), BLOCK_THREADS, 0,
               cuda_stream(be), u, strips);
    }
    cuda_check(be, "adamw_int8");
}

/* ---- conversion ----------------------------------------------------------------------------- */

struct conversion {
    struct view x;
    uint8_t *codes;
    float *absmax;
    int64_t rows, columns;
    int64_t groups; /* blocks in a row, or strips of columns */
    enum quantize_map map;
};

static __global__ void quantize_rows_kernel(struct conversion c)
{
    int64_t row = blockIdx.x / c.groups;
    int64_t column = blockIdx.x % c.groups * QUANTIZE_BLOCK + threadIdx.x;
    bool inside = column < c.columns;
    int64_t at = row * c.columns + column;
    float x = inside ? quantize_stored(c.map, get(c.x, at)) : 0.0f;
    float most = block_max(fabsf(x));
    if (inside) {
        c.codes[at] = quantize_store(c.map, x, most);
    }
    if (threadIdx.x == 0) {
        c.absmax[blockIdx.x] = most;
    }
}

static __global__ void quantize_columns_kernel(struct conversion c)
{
    __shared__ float part[BLOCK_THREADS];
    int64_t block = blockIdx.x / c.groups;
    int64_t j = blockIdx.x % c.groups * WARP + threadIdx.x % WARP;
    int64_t first = block * QUANTIZE_BLOCK + threadIdx.x / WARP;
    int64_t last = block * QUANTIZE_BLOCK + QUANTIZE_BLOCK;
    last = last < c.rows ? last : c.rows;
    bool used = j < c.columns;
    float most = 0.0f;
    for (int64_t i = first; i < last && used; i += WARPS) {
        float x = fabsf(quantize_stored(c.map, get(c.x, i * c.columns + j)));
        most = x > most ? x : most;
    }
    most = lanes_max(part, most);
    for (int64_t i = first; i < last && used; i += WARPS) {
        float x = quantize_stored(c.map, get(c.x, i * c.columns + j));
        c.codes[i * c.columns + j] = quantize_store(c.map, x, most);
    }
    if (used && threadIdx.x < WARP) {
        c.absmax[block * c.columns + j] = most;
    }
}

static __global__ void dequantize_kernel(struct conversion c, bool by_row)
{
    int64_t at = thread_number();
    if (at >= c.rows * c.columns) {
        return;
    }
    int64_t row = at / c.columns;
    int64_t column = at % c.columns;
    int64_t block = by_row ? row * c.groups + column / QUANTIZE_BLOCK
                           : row / QUANTIZE_BLOCK * c.columns + column;
    put(c.x, at, quantize_load(c.map, quantize_entry(c.map, c.codes[at]), c.absmax[block]));
}

static struct conversion conversion_make(const struct tensor *x, const struct tensor *codes,
                                         const struct tensor *absmax, enum quantize_map map,
                                         enum side side)
{
    struct conversion c;
    c.x = view_of(x);
    c.codes = (uint8_t *)codes->data;
    c.absmax = (float *)absmax->data;
    c.rows = tensor_rows(x);
    c.columns = tensor_columns(x);
    c.groups = side == SIDE_ROWS ? quantize_blocks(c.columns) : (c.columns + WARP - 1) / WARP;
    c.map = map;
    return c;
}

void cuda_quantize(struct backend *be, const struct quantize *args)
{
    struct conversion c =
        conversion_make(args->x, args->codes, args->absmax, args->map, args->side);
    if (c.rows > 0 && c.columns > 0 && args->side == SIDE_ROWS) {
        LAUNCH(quantize_rows_kernel, (unsigned)(c.rows * c.groups), QUANTIZE_BLOCK, 0,
               cuda_stream(be), c);
    } else if (c.rows > 0 && c.columns > 0) {
        LAUNCH(quantize_columns_kernel, (unsigned)(quantize_blocks(c.rows) * c.groups),
               BLOCK_THREADS, 0, cuda_stream(be), c);
    }
    cuda_check(be, "quantize");
}

void cuda_dequantize(struct backend *be, const struct dequantize *args)
{
    struct conversion c =
        conversion_make(args->x, args->codes, args->absmax, args->map, args->side);
    if (c.rows > 0 && c.columns > 0) {
        LAUNCH(dequantize_kernel, cuda_blocks(c.rows * c.columns), BLOCK_THREADS, 0,
               cuda_stream(be), c, args->side == SIDE_ROWS);
    }
    cuda_check(be, "dequantize");
}
