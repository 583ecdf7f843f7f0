/*
 * The cpu backend: the entries of its table and what they share.
 *
 * Every operation computes in fp32 on elements converted by cpu_load and cpu_store, so that no
 * operation is written twice for two dtypes.
 *
 * Threads. Work is cut into chunks whose borders depend on the sizes alone, never on the number of
 * threads, and no two chunks write the same element; sums over chunks are added in the order of the
 * chunks. One thread and a hundred give the same bits.
 */
#ifndef WINDROW_KERNELS_CPU_CPU_H
#define WINDROW_KERNELS_CPU_CPU_H

#include "kernels/ops.h"

enum {
    CPU_BLOCK = 512,        /* elements converted at a time on the stack */
    CPU_GRAIN = 16384,      /* elements of an elementwise chunk; less is not worth a thread */
    CPU_PARTIAL_COUNT = 64, /* most chunks of a sum */
};

/* ---- conversion ----------------------------------------------------------------------------- */

/* Elements are counted from the start of the tensor, whatever its shape. */

/* dst[0, count) = elements [first, first + count) of the float tensor t. */
static inline void cpu_load(float *restrict dst, const struct tensor *t, int64_t first,
                            int64_t count)
{
    if (t->dtype == DTYPE_F32) {
        memcpy(dst, (const float *)t->data + first, (size_t)count * sizeof *dst);
        return;
    }
    const uint16_t *restrict src = (const uint16_t *)t->data + first;
    for (int64_t i = 0; i < count; i++) {
        dst[i] = bf16_to_float(src[i]);
    }
}

/* Elements [first, first + count) of t = src[0, count), to nearest. src may be the very elements.
 */
static inline void cpu_store(const struct tensor *t, int64_t first, const float *src, int64_t count)
{
    if (t->dtype == DTYPE_F32) {
        float *dst = (float *)t->data + first;
        if (dst != src) {
            memcpy(dst, src, (size_t)count * sizeof *dst);
        }
        return;
    }
    uint16_t *restrict dst = (uint16_t *)t->data + first;
    for (int64_t i = 0; i < count; i++) {
        dst[i] = bf16_from_float(src[i]);
    }
}

/* The same elements to read: in place if t is fp32, otherwise converted into `buffer` (room for
 * count elements). */
static inline const float *cpu_read(const struct tensor *t, int64_t first, int64_t count,
                                    float *buffer)
{
    if (t->dtype == DTYPE_F32) {
        return (const float *)t->data + first;
    }
    cpu_load(buffer, t, first, count);
    return buffer;
}

/* Where to compute elements that cpu_store will then write: in place if t is fp32 (the store is
 * then free), otherwise `buffer`. The contents are undefined. */
static inline float *cpu_write(const struct tensor *t, int64_t first, float *buffer)
{
    return t->dtype == DTYPE_F32 ? (float *)t->data + first : buffer;
}

/* One element. */
static inline float cpu_get(const struct tensor *t, int64_t at)
{
    return t->dtype == DTYPE_F32 ? ((const float *)t->data)[at]
                                 : bf16_to_float(((const uint16_t *)t->data)[at]);
}

static inline void cpu_set(const struct tensor *t, int64_t at, float value)
{
    if (t->dtype == DTYPE_F32) {
        ((float *)t->data)[at] = value;
    } else {
        ((uint16_t *)t->data)[at] = bf16_from_float(value);
    }
}

/* ---- chunks --------------------------------------------------------------------------------- */

/*     int64_t chunks = cpu_chunk_count(count, CPU_GRAIN);
 *     #pragma omp parallel for schedule(static) if (chunks > 1)
 *     for (int64_t i = 0; i < chunks; i++) {
 *         struct cpu_range r = cpu_chunk(count, CPU_GRAIN, i);
 *         ... elements [r.first, r.last) ...
 *     }
 */
struct cpu_range {
    int64_t first;
    int64_t last; /* one past the end */
};

static inline int64_t cpu_chunk_count(int64_t count, int64_t grain)
{
    return (count + grain - 1) / grain;
}

static inline struct cpu_range cpu_chunk(int64_t count, int64_t grain, int64_t index)
{
    struct cpu_range r = { index * grain, (index + 1) * grain };
    r.last = r.last < count ? r.last : count;
    return r;
}

/* A grain for sums: at least CPU_GRAIN, and so large that there are at most CPU_PARTIAL_COUNT
 * chunks, one partial sum each. */
static inline int64_t cpu_sum_grain(int64_t count)
{
    int64_t grain = (count + CPU_PARTIAL_COUNT - 1) / CPU_PARTIAL_COUNT;
    return grain > CPU_GRAIN ? grain : CPU_GRAIN;
}

/* Rows in a chunk when rows of `columns` elements are dealt out whole. */
static inline int64_t cpu_row_grain(int64_t columns)
{
    int64_t rows = columns > 0 ? CPU_GRAIN / columns : 1;
    return rows > 1 ? rows : 1;
}

static inline int64_t cpu_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* ---- matrix product (matmul.c) -------------------------------------------------------------- */

struct cpu_products; /* the library's handles and the cache of prepared products */

/* NULL, with a sentence in `why`, if the library cannot be had. */
struct cpu_products *cpu_products_open(char *why, size_t why_size);
void cpu_products_close(struct cpu_products *products);

/* What backend.state points to. */
struct cpu_state {
    struct cpu_products *products;
    void *scratch;
    size_t scratch_bytes;
};

/* Memory of at least `bytes` for the inside of one operation, aligned to 256 bytes, contents
 * undefined; kept from call to call, so that the same step asks the system only once. NULL, with
 * the error latched, if there is not enough. Each call invalidates what an earlier one returned. */
void *cpu_scratch(struct backend *be, size_t bytes);

/* ---- the table ------------------------------------------------------------------------------ */

/* elementwise.c */
void cpu_zero(struct backend *be, struct tensor *y);
void cpu_copy(struct backend *be, struct tensor *y, const struct tensor *x);
void cpu_add(struct backend *be, struct tensor *y, const struct tensor *x);
void cpu_scale(struct backend *be, struct tensor *y, float s);
void cpu_sum(struct backend *be, struct tensor *sum, const struct tensor *x, bool accumulate);
void cpu_sum_squares(struct backend *be, struct tensor *sum, const struct tensor *x,
                     bool accumulate);
void cpu_clip(struct backend *be, struct tensor *control, const struct tensor *sum_squares,
              const struct tensor *loss, float clip);

/* matmul.c */
void cpu_matmul(struct backend *be, const struct matmul *args);

/* norm.c */
void cpu_rmsnorm_forward(struct backend *be, const struct rmsnorm_forward *args);
void cpu_rmsnorm_backward(struct backend *be, const struct rmsnorm_backward *args);

/* rope.c */
void cpu_rope(struct backend *be, const struct rope *args);

/* attention.c */
void cpu_attention_forward(struct backend *be, const struct attention_forward *args);
void cpu_attention_backward(struct backend *be, const struct attention_backward *args);

/* decode.c */
void cpu_attention_decode(struct backend *be, const struct attention_decode *args);

/* activation.c */
void cpu_swiglu_forward(struct backend *be, struct tensor *y, const struct tensor *gate_up);
void cpu_swiglu_backward(struct backend *be, const struct swiglu_backward *args);

/* embedding.c */
void cpu_embedding_forward(struct backend *be, struct tensor *y, const struct tensor *table,
                           const struct tensor *ids);
void cpu_embedding_backward(struct backend *be, struct tensor *dtable, const struct tensor *dy,
                            const struct tensor *ids);
void cpu_distinct(struct backend *be, const struct distinct *args);

/* loss.c */
void cpu_cross_entropy(struct backend *be, const struct cross_entropy *args);

/* select.c */
void cpu_squared_norms(struct backend *be, struct tensor *norms, const struct tensor *x,
                       enum side side);
void cpu_select(struct backend *be, const struct select *args);

/* project.c */
void cpu_gather(struct backend *be, struct tensor *y, const struct tensor *x,
                const struct tensor *index, enum side side);
void cpu_scatter(struct backend *be, struct tensor *x, const struct tensor *y,
                 const struct tensor *index, enum side side);
void cpu_scale_side(struct backend *be, struct tensor *x, const struct tensor *scale,
                    enum side side);

/* Stores the captured columns of row `row` of x, which has been written; NULL: none. */
void cpu_capture_row(const struct capture *capture, const struct tensor *x, int64_t row);

/* optimizer.c */
void cpu_adamw(struct backend *be, const struct adamw *args);
void cpu_settle(struct backend *be, const struct settle *args);

/* rules.c */
void cpu_sgd(struct backend *be, const struct sgd *args);
void cpu_unit_factors(struct backend *be, const struct unit_factors *args);
void cpu_tradam(struct backend *be, const struct tradam *args);

/* int8.c */
void cpu_adamw_int8(struct backend *be, const struct adamw *args);
void cpu_quantize(struct backend *be, const struct quantize *args);
void cpu_dequantize(struct backend *be, const struct dequantize *args);

/* random.c */
void cpu_random_sign(struct backend *be, struct tensor *x, float magnitude, struct random_key key);
void cpu_random_normal(struct backend *be, struct tensor *x, float deviation,
                       struct random_key key);

/* subspace.c */
void cpu_orthonormalize(struct backend *be, const struct orthonormalize *args);
void cpu_eigenvectors(struct backend *be, struct tensor *vectors, const struct tensor *matrix);
void cpu_square(struct backend *be, struct tensor *y);
void cpu_descend(struct backend *be, const struct descend *args);

#endif
