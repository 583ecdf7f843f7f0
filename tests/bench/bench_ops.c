/*
 * How fast the operations of the cpu backend are, at the shapes of a small model (4 blocks, hidden
 * size 256, 2048 tokens a micro-batch), next to what the machine can do at best in the same run.
 *
 *     bench_ops [SECONDS]     at least SECONDS (default 0.2) for each line
 *
 * Bytes and FLOPs are those of the backend's own counters: the least an ideal kernel needs. The
 * last column is the larger of the two shares of the ceilings (copy within the cache or from
 * memory, by the size of what the operation touches; product of two large matrices).
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/ops.h"

enum {
    TOKENS = 2048,
    SEQUENCE = 256,
    HIDDEN = 256,
    HEADS = 8,
    KV_HEADS = 4,
    HEAD = 32,
    PACKED = (HEADS + 2 * KV_HEADS) * HEAD,
    FEED = 688,
    VOCABULARY = 4096,
    RANK = 64,
    LARGE = 1536,
    TENSOR_COUNT = 40,
};

struct bench {
    struct backend *be;
    double seconds;
    enum dtype dtype;
    double memory_bytes_s; /* ceilings */
    double cache_bytes_s;
    double flops_s;
    struct tensor tensor[TENSOR_COUNT]; /* what the present line allocated */
    int tensors;
};

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A tensor of the present line, filled with small normal numbers (or zeros). */
static struct tensor *make(struct bench *b, enum dtype dtype, int64_t rows, int64_t columns)
{
    if (b->tensors == TENSOR_COUNT) {
        fprintf(stderr, "bench_ops: more than %d tensors in one line\n", TENSOR_COUNT);
        exit(1);
    }
    struct tensor *t = &b->tensor[b->tensors++];
    *t = (struct tensor){ .dim = { rows, columns, 1, 1 }, .rank = 2, .dtype = dtype, .name = "b" };
    t->data = backend_alloc(b->be, tensor_bytes(t));
    if (t->data == NULL) {
        fprintf(stderr, "bench_ops: no memory for %zu bytes\n", tensor_bytes(t));
        exit(1);
    }
    if (dtype == DTYPE_I32) {
        memset(t->data, 0, tensor_bytes(t));
    } else {
        struct random_key key = { .seed = 1, .tensor = (uint32_t)b->tensors };
        op_random_normal(b->be, t, 0.5f, key);
    }
    return t;
}

static struct tensor *stored(struct bench *b, int64_t rows, int64_t columns)
{
    return make(b, b->dtype, rows, columns);
}

static struct tensor *exact(struct bench *b, int64_t rows, int64_t columns)
{
    return make(b, DTYPE_F32, rows, columns);
}

static struct tensor *vector(struct bench *b, enum dtype dtype, int64_t count)
{
    struct tensor *t = make(b, dtype, count, 1);
    t->rank = 1;
    return t;
}

/* ---- measuring ------------------------------------------------------------------------------- */

struct rate {
    double bytes_s;
    double flops_s;
    double bytes; /* of one call */
    double us;
};

/* The best of batches of calls, so that a neighbour on the machine costs little. */
static struct rate measure(struct bench *b, void (*call)(struct bench *, void *), void *args)
{
    call(b, args); /* warm up */
    backend_clear_counts(b->be);
    call(b, args);
    struct op_count one = backend_total(b->be);
    double best = INFINITY;
    double end = now_s() + b->seconds;
    int calls = 1;
    while (now_s() < end) {
        double start = now_s();
        for (int i = 0; i < calls; i++) {
            call(b, args);
        }
        double took = (now_s() - start) / calls;
        best = fmin(best, took);
        calls = took * calls < 2e-3 ? calls * 2 : calls;
    }
    if (backend_sync(b->be) != 0) {
        fprintf(stderr, "bench_ops: %s\n", b->be->error);
        exit(1);
    }
    return (struct rate){ one.bytes / best, one.flops / best, one.bytes, best * 1e6 };
}

static void drop_all(struct bench *b)
{
    while (b->tensors > 0) {
        struct tensor *t = &b->tensor[--b->tensors];
        backend_free(b->be, t->data, tensor_bytes(t));
    }
}

static void line(struct bench *b, const char *name, void (*call)(struct bench *, void *),
                 void *args)
{
    struct rate r = measure(b, call, args);
    double ceiling = r.bytes < 32e6 ? b->cache_bytes_s : b->memory_bytes_s;
    double share = fmax(r.bytes_s / ceiling, r.flops_s / b->flops_s);
    printf("%-28s %-5s %10.1f %9.2f %9.2f %6.0f%%\n", name, dtype_name(b->dtype), r.us,
           r.bytes_s * 1e-9, r.flops_s * 1e-9, 100.0 * share);
    fflush(stdout);
    drop_all(b);
}

/* ---- calls -------------------------------------------------------------------------------------
 */

struct pair {
    struct tensor *y;
    const struct tensor *x;
    const struct tensor *index;
    enum side side;
};

static void call_copy(struct bench *b, void *args)
{
    struct pair *p = args;
    op_copy(b->be, p->y, p->x);
}

static void call_add(struct bench *b, void *args)
{
    struct pair *p = args;
    op_add(b->be, p->y, p->x);
}

static void call_scale(struct bench *b, void *args)
{
    struct pair *p = args;
    op_scale(b->be, p->y, 1.0f);
}

static void call_zero(struct bench *b, void *args)
{
    struct pair *p = args;
    op_zero(b->be, p->y);
}

static void call_sum_squares(struct bench *b, void *args)
{
    struct pair *p = args;
    op_sum_squares(b->be, p->y, p->x, false);
}

static void call_squared_norms(struct bench *b, void *args)
{
    struct pair *p = args;
    op_squared_norms(b->be, p->y, p->x, p->side);
}

static void call_gather(struct bench *b, void *args)
{
    struct pair *p = args;
    op_gather(b->be, p->y, p->x, p->index, p->side);
}

static void call_scatter(struct bench *b, void *args)
{
    struct pair *p = args;
    op_scatter(b->be, p->y, p->x, p->index, p->side);
}

static void call_scale_side(struct bench *b, void *args)
{
    struct pair *p = args;
    op_scale_side(b->be, p->y, p->x, p->side);
}

static void call_swiglu_forward(struct bench *b, void *args)
{
    struct pair *p = args;
    op_swiglu_forward(b->be, p->y, p->x);
}

static void call_swiglu_backward(struct bench *b, void *args)
{
    struct tensor **t = args;
    op_swiglu_backward(b->be,
                       &(struct swiglu_backward){ .dgate_up = t[0], .dy = t[1], .gate_up = t[2] });
}

static void call_embedding_forward(struct bench *b, void *args)
{
    struct pair *p = args;
    op_embedding_forward(b->be, p->y, p->x, p->index);
}

static void call_embedding_backward(struct bench *b, void *args)
{
    struct pair *p = args;
    op_embedding_backward(b->be, p->y, p->x, p->index);
}

static void call_random_normal(struct bench *b, void *args)
{
    struct pair *p = args;
    op_random_normal(b->be, p->y, 1.0f, (struct random_key){ .seed = 1 });
}

static void call_matmul(struct bench *b, void *args)
{
    op_matmul(b->be, args);
}

static void call_rmsnorm_forward(struct bench *b, void *args)
{
    op_rmsnorm_forward(b->be, args);
}

static void call_rmsnorm_backward(struct bench *b, void *args)
{
    op_rmsnorm_backward(b->be, args);
}

static void call_rope(struct bench *b, void *args)
{
    op_rope(b->be, args);
}

static void call_attention_forward(struct bench *b, void *args)
{
    op_attention_forward(b->be, args);
}

static void call_attention_backward(struct bench *b, void *args)
{
    op_attention_backward(b->be, args);
}

static void call_cross_entropy(struct bench *b, void *args)
{
    op_cross_entropy(b->be, args);
}

static void call_select(struct bench *b, void *args)
{
    op_select(b->be, args);
}

static void call_adamw(struct bench *b, void *args)
{
    op_adamw(b->be, args);
}

/* ---- lines -------------------------------------------------------------------------------------
 */

static void call_memcpy(struct bench *b, void *args)
{
    struct pair *p = args;
    (void)b;
    memcpy(p->y->data, p->x->data, tensor_bytes(p->y));
}

/* Copies are made by all threads (op_copy of one dtype); the plain memcpy is shown beside it. */
static void bench_ceilings(struct bench *b)
{
    b->dtype = DTYPE_F32;
    struct pair large = { .y = exact(b, 16384, 1024), .x = exact(b, 16384, 1024) };
    struct rate memory = measure(b, call_copy, &large);
    double bytes = 2.0 * (double)tensor_bytes(large.y);
    double one_thread = bytes / (measure(b, call_memcpy, &large).us * 1e-6);
    drop_all(b);
    struct pair small = { .y = exact(b, TOKENS, HIDDEN), .x = exact(b, TOKENS, HIDDEN) };
    struct rate cache = measure(b, call_copy, &small);
    drop_all(b);
    b->memory_bytes_s = fmax(memory.bytes_s, one_thread);
    b->cache_bytes_s = cache.bytes_s;
    printf("copy  64 MiB: %.1f GB/s (one memcpy: %.1f)\ncopy   2 MiB: %.1f GB/s\n",
           memory.bytes_s * 1e-9, one_thread * 1e-9, cache.bytes_s * 1e-9);
}

/* Sets the ceiling of FLOPs for the present dtype. */
static void bench_large_matmul(struct bench *b)
{
    struct matmul args = { .c = exact(b, LARGE, LARGE),
                           .a = stored(b, LARGE, LARGE),
                           .b = stored(b, LARGE, LARGE),
                           .transpose_b = true };
    b->flops_s = measure(b, call_matmul, &args).flops_s;
    drop_all(b);
    printf("product of two %d x %d matrices, %s: %.1f GFLOP/s\n\n", LARGE, LARGE,
           dtype_name(b->dtype), b->flops_s * 1e-9);
    printf("%-28s %-5s %10s %9s %9s %7s\n", "operation", "dtype", "us", "GB/s", "GFLOP/s", "best");
}

static void bench_elementwise(struct bench *b)
{
    struct pair p = { .y = stored(b, TOKENS, HIDDEN) };
    line(b, "zero (T, C)", call_zero, &p);
    p = (struct pair){ .y = stored(b, TOKENS, HIDDEN), .x = stored(b, TOKENS, HIDDEN) };
    line(b, "copy (T, C)", call_copy, &p);
    p = (struct pair){ .y = exact(b, TOKENS, HIDDEN), .x = stored(b, TOKENS, HIDDEN) };
    line(b, "copy to fp32 (T, C)", call_copy, &p);
    p = (struct pair){ .y = stored(b, TOKENS, HIDDEN), .x = exact(b, TOKENS, HIDDEN) };
    line(b, "copy from fp32 (T, C)", call_copy, &p);
    p = (struct pair){ .y = stored(b, TOKENS, HIDDEN), .x = stored(b, TOKENS, HIDDEN) };
    line(b, "add (T, C)", call_add, &p);
    p = (struct pair){ .y = stored(b, TOKENS, HIDDEN) };
    line(b, "scale (T, C)", call_scale, &p);
    p = (struct pair){ .y = vector(b, DTYPE_F32, 1), .x = stored(b, FEED, HIDDEN) };
    line(b, "sum_squares (F, C)", call_sum_squares, &p);
    p = (struct pair){ .y = stored(b, VOCABULARY, HIDDEN) };
    line(b, "random_normal (V, C)", call_random_normal, &p);
}

static void bench_matmuls(struct bench *b)
{
    struct matmul args = { .c = stored(b, TOKENS, PACKED),
                           .a = stored(b, TOKENS, HIDDEN),
                           .b = stored(b, PACKED, HIDDEN),
                           .transpose_b = true };
    line(b, "matmul qkv forward", call_matmul, &args);
    args = (struct matmul){ .c = stored(b, TOKENS, 2 * FEED),
                            .a = stored(b, TOKENS, HIDDEN),
                            .b = stored(b, 2 * FEED, HIDDEN),
                            .transpose_b = true };
    line(b, "matmul gate_up forward", call_matmul, &args);
    args = (struct matmul){ .c = stored(b, TOKENS, HIDDEN),
                            .a = stored(b, TOKENS, 2 * FEED),
                            .b = stored(b, 2 * FEED, HIDDEN) };
    line(b, "matmul gate_up dx", call_matmul, &args);
    args = (struct matmul){ .c = exact(b, FEED, HIDDEN),
                            .a = stored(b, TOKENS, 2 * FEED),
                            .b = stored(b, TOKENS, HIDDEN),
                            .transpose_a = true,
                            .a_first = FEED,
                            .a_columns = FEED,
                            .beta = 1.0f };
    line(b, "matmul up dW", call_matmul, &args);
    args = (struct matmul){ .c = exact(b, RANK, HIDDEN),
                            .a = stored(b, TOKENS, RANK),
                            .b = stored(b, TOKENS, HIDDEN),
                            .transpose_a = true,
                            .beta = 1.0f };
    line(b, "matmul dW of 64 rows", call_matmul, &args);
    args = (struct matmul){ .c = stored(b, TOKENS, VOCABULARY),
                            .a = stored(b, TOKENS, HIDDEN),
                            .b = stored(b, VOCABULARY, HIDDEN),
                            .transpose_b = true };
    line(b, "matmul head forward", call_matmul, &args);
}

static void bench_norm_and_rope(struct bench *b)
{
    struct rmsnorm_forward forward = { .y = stored(b, TOKENS, HIDDEN),
                                       .rstd = vector(b, DTYPE_F32, TOKENS),
                                       .x = stored(b, TOKENS, HIDDEN),
                                       .weight = vector(b, b->dtype, HIDDEN),
                                       .eps = 1e-5f };
    line(b, "rmsnorm_forward", call_rmsnorm_forward, &forward);
    struct rmsnorm_backward backward = { .dx = stored(b, TOKENS, HIDDEN),
                                         .dweight = vector(b, DTYPE_F32, HIDDEN),
                                         .dy = stored(b, TOKENS, HIDDEN),
                                         .x = stored(b, TOKENS, HIDDEN),
                                         .weight = vector(b, b->dtype, HIDDEN),
                                         .rstd = vector(b, DTYPE_F32, TOKENS) };
    line(b, "rmsnorm_backward", call_rmsnorm_backward, &backward);
    struct rope rope = { .x = stored(b, TOKENS, PACKED),
                         .table = exact(b, SEQUENCE, HEAD),
                         .positions = vector(b, DTYPE_I32, TOKENS),
                         .heads = HEADS + KV_HEADS,
                         .head_size = HEAD };
    line(b, "rope", call_rope, &rope);
}

static void bench_attention(struct bench *b)
{
    const struct attention_shape shape = { .batch = TOKENS / SEQUENCE,
                                           .sequence = SEQUENCE,
                                           .heads = HEADS,
                                           .kv_heads = KV_HEADS,
                                           .head_size = HEAD,
                                           .scale = 0.17f };
    struct attention_forward forward = { .out = stored(b, TOKENS, HIDDEN),
                                         .lse = exact(b, TOKENS, HEADS),
                                         .qkv = stored(b, TOKENS, PACKED),
                                         .shape = shape };
    line(b, "attention_forward", call_attention_forward, &forward);
    struct attention_backward backward = { .dqkv = stored(b, TOKENS, PACKED),
                                           .delta = exact(b, TOKENS, HEADS),
                                           .dout = stored(b, TOKENS, HIDDEN),
                                           .out = stored(b, TOKENS, HIDDEN),
                                           .lse = exact(b, TOKENS, HEADS),
                                           .qkv = stored(b, TOKENS, PACKED),
                                           .shape = shape };
    for (int64_t i = 0; i < TOKENS * HEADS; i++) {
        ((float *)backward.lse->data)[i] = 5.0f;
    }
    line(b, "attention_backward", call_attention_backward, &backward);
}

static void bench_activation_and_loss(struct bench *b)
{
    struct pair p = { .y = stored(b, TOKENS, FEED), .x = stored(b, TOKENS, 2 * FEED) };
    line(b, "swiglu_forward", call_swiglu_forward, &p);
    struct tensor *back[] = { stored(b, TOKENS, 2 * FEED), stored(b, TOKENS, FEED),
                              stored(b, TOKENS, 2 * FEED) };
    line(b, "swiglu_backward", call_swiglu_backward, back);
    struct tensor *ids = vector(b, DTYPE_I32, TOKENS);
    for (int i = 0; i < TOKENS; i++) {
        ((int32_t *)ids->data)[i] = (i * 37) % VOCABULARY;
    }
    p = (struct pair){ .y = stored(b, TOKENS, HIDDEN),
                       .x = stored(b, VOCABULARY, HIDDEN),
                       .index = ids };
    line(b, "embedding_forward", call_embedding_forward, &p);
    ids = vector(b, DTYPE_I32, TOKENS);
    for (int i = 0; i < TOKENS; i++) {
        ((int32_t *)ids->data)[i] = (i * 37) % VOCABULARY;
    }
    p = (struct pair){ .y = exact(b, VOCABULARY, HIDDEN),
                       .x = stored(b, TOKENS, HIDDEN),
                       .index = ids };
    line(b, "embedding_backward", call_embedding_backward, &p);
    struct cross_entropy loss = { .losses = vector(b, DTYPE_F32, TOKENS),
                                  .logits = stored(b, TOKENS, VOCABULARY),
                                  .targets = vector(b, DTYPE_I32, TOKENS),
                                  .scale = 1e-3f,
                                  .gradient = true };
    line(b, "cross_entropy", call_cross_entropy, &loss);
}

static struct tensor *every_fourth(struct bench *b)
{
    struct tensor *index = vector(b, DTYPE_I32, RANK);
    for (int i = 0; i < RANK; i++) {
        ((int32_t *)index->data)[i] = 4 * i;
    }
    return index;
}

static void bench_selection(struct bench *b)
{
    struct pair p = { .y = vector(b, DTYPE_F32, FEED), .x = stored(b, FEED, HIDDEN) };
    line(b, "squared_norms rows (F, C)", call_squared_norms, &p);
    p = (struct pair){ .y = vector(b, DTYPE_F32, HIDDEN),
                       .x = stored(b, FEED, HIDDEN),
                       .side = SIDE_COLUMNS };
    line(b, "squared_norms columns (F, C)", call_squared_norms, &p);
    for (int rule = SELECT_TOP; rule <= SELECT_NORM; rule++) {
        struct select args = { .index = vector(b, DTYPE_I32, RANK),
                               .scale = vector(b, DTYPE_F32, RANK),
                               .norms = vector(b, DTYPE_F32, FEED),
                               .rule = (enum select_rule)rule };
        for (int i = 0; i < FEED; i++) {
            ((float *)args.norms->data)[i] = 1.0f + (float)(i * 29 % FEED);
        }
        line(b, rule == SELECT_TOP ? "select top 64 of F" : "select norm 64 of F", call_select,
             &args);
    }
    p = (struct pair){ .y = stored(b, RANK, HIDDEN),
                       .x = stored(b, FEED, HIDDEN),
                       .index = every_fourth(b) };
    line(b, "gather 64 rows (F, C)", call_gather, &p);
    p = (struct pair){ .y = stored(b, TOKENS, RANK),
                       .x = stored(b, TOKENS, HIDDEN),
                       .index = every_fourth(b),
                       .side = SIDE_COLUMNS };
    line(b, "gather 64 columns (T, C)", call_gather, &p);
    p = (struct pair){ .y = stored(b, TOKENS, HIDDEN),
                       .x = stored(b, TOKENS, RANK),
                       .index = every_fourth(b),
                       .side = SIDE_COLUMNS };
    line(b, "scatter 64 columns (T, C)", call_scatter, &p);
    p = (struct pair){ .y = stored(b, TOKENS, HIDDEN), .x = vector(b, DTYPE_F32, HIDDEN) };
    p.side = SIDE_COLUMNS;
    line(b, "scale_side columns (T, C)", call_scale_side, &p);
}

/* One update; bf16 weights and moments are rounded stochastically. */
static void bench_adamw(struct bench *b, const char *name, int rows, int columns, int slots,
                        enum side side)
{
    int part_rows = slots > 0 && side == SIDE_ROWS ? slots : rows;
    int part_columns = slots > 0 && side == SIDE_COLUMNS ? slots : columns;
    struct adamw args = { .weight = stored(b, rows, columns),
                          .m = stored(b, part_rows, part_columns),
                          .v = stored(b, part_rows, part_columns),
                          .age = vector(b, DTYPE_I32, slots > 0 ? slots : 1),
                          .gradient = stored(b, part_rows, part_columns),
                          .index = slots > 0 ? every_fourth(b) : NULL,
                          .control = vector(b, DTYPE_F32, CONTROL_COUNT),
                          .side = side,
                          .lr = 1e-6f,
                          .beta1 = 0.9f,
                          .beta2 = 0.999f,
                          .eps = 1e-8f,
                          .scale = 1.0f,
                          .rounding = ROUNDING_STOCHASTIC };
    op_zero(b->be, args.v);
    float *control = args.control->data;
    control[CONTROL_FACTOR] = 1.0f;
    control[CONTROL_SKIP] = 0.0f;
    line(b, name, call_adamw, &args);
}

int main(int argc, char **argv)
{
    char why[256];
    struct bench b = { .seconds = argc > 1 ? strtod(argv[1], NULL) : 0.2 };
    b.be = backend_open("cpu", 0, why, sizeof why);
    if (b.be == NULL) {
        fprintf(stderr, "bench_ops: %s\n", why);
        return 1;
    }
    printf("%s\n", b.be->facts.device);
    bench_ceilings(&b);
    for (int half = 0; half < 2; half++) {
        b.dtype = half == 0 ? DTYPE_F32 : DTYPE_BF16;
        bench_large_matmul(&b);
        bench_matmuls(&b);
        bench_attention(&b);
        bench_norm_and_rope(&b);
        bench_activation_and_loss(&b);
        bench_elementwise(&b);
        bench_selection(&b);
        bench_adamw(&b, "adamw dense (V, C)", VOCABULARY, HIDDEN, 0, SIDE_ROWS);
        bench_adamw(&b, "adamw 64 rows (F, C)", FEED, HIDDEN, RANK, SIDE_ROWS);
        bench_adamw(&b, "adamw 64 columns (F, C)", FEED, HIDDEN, RANK, SIDE_COLUMNS);
        printf("\n");
    }
    backend_close(b.be);
    return 0;
}
