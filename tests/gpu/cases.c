/* Cases of the forward and backward pass. Shapes have tails: few are multiples of anything. */
#include "gpu/cases.h"

#include <math.h>
#include <stdlib.h>

static const enum dtype types[] = { DTYPE_F32, DTYPE_BF16 };

/* Rows that are short, around a vector, and longer than a block. */
static int64_t some_columns(struct report *r, int round)
{
    return round == 0   ? case_random(r, 1, 17)
           : round == 1 ? 8 * case_random(r, 30, 40) * r->size
                        : case_random(r, 2049, 2200);
}

static struct item uniform(int64_t rows, int64_t columns, enum dtype dtype, float low, float high)
{
    return (struct item){ rows, columns, dtype, FILL_UNIFORM, low, high, NULL, false };
}

/* A tensor that the operation adds to, or turns into something else. */
static struct item changed(int64_t rows, int64_t columns, enum dtype dtype)
{
    return (struct item){ rows, columns, dtype, FILL_UNIFORM, -1.0f, 1.0f, NULL, true };
}

static struct item output(int64_t rows, int64_t columns, enum dtype dtype)
{
    return (struct item){ rows, columns, dtype, FILL_POISON, 0.0f, 0.0f, NULL, true };
}

static struct item below(int64_t count, int64_t limit)
{
    return (struct item){ count, 1, DTYPE_I32, FILL_BELOW, 0.0f, (float)limit, NULL, false };
}

/* Columns in ascending order, some slots unused; the last two tensors of a case are what is
 * captured and where from. */
static int32_t *columns_of(struct report *r, int64_t slots, int64_t columns)
{
    int32_t *index = malloc((size_t)slots * sizeof *index);
    if (index == NULL) {
        abort();
    }
    for (int64_t j = 0; j < slots; j++) {
        int64_t stride = columns / slots;
        int64_t chosen = j * stride + case_random(r, 0, stride - 1);
        index[j] = case_random(r, 0, 6) == 0 ? -1 : (int32_t)chosen;
    }
    return index;
}

static void add_captured(struct trial *t, const int32_t *index, int64_t slots, enum dtype dtype)
{
    t->item[t->count++] = output(t->item[0].rows, slots, dtype);
    t->item[t->count++] =
        (struct item){ 1, slots, DTYPE_I32, FILL_GIVEN, 0.0f, 0.0f, index, false };
}

/* ---- elementwise ---------------------------------------------------------------------------- */

static void run_zero(struct backend *be, struct tensor *t, const struct numbers *n)
{
    (void)n;
    op_zero(be, &t[0]);
}

static void run_copy(struct backend *be, struct tensor *t, const struct numbers *n)
{
    (void)n;
    op_copy(be, &t[0], &t[1]);
}

static void run_add(struct backend *be, struct tensor *t, const struct numbers *n)
{
    (void)n;
    op_add(be, &t[0], &t[1]);
}

static void run_scale(struct backend *be, struct tensor *t, const struct numbers *n)
{
    op_scale(be, &t[0], n->f);
}

static void run_sum(struct backend *be, struct tensor *t, const struct numbers *n)
{
    op_sum(be, &t[0], &t[1], n->yes);
}

static void run_sum_squares(struct backend *be, struct tensor *t, const struct numbers *n)
{
    op_sum_squares(be, &t[0], &t[1], n->yes);
}

static void run_clip(struct backend *be, struct tensor *t, const struct numbers *n)
{
    op_clip(be, &t[0], &t[1], &t[2], n->f);
}

static void cases_elementwise(struct report *r)
{
    for (int i = 0; i < 12; i++) {
        enum dtype x = types[i & 1];
        enum dtype y = types[i >> 1 & 1];
        int64_t count = i < 4 ? case_random(r, 1, 40) : case_random(r, 2000, 9000) * r->size;
        struct numbers n = { .f = 0.37f, .yes = i % 3 == 0 };
        struct item sum = n.yes ? changed(1, 1, DTYPE_F32) : output(1, 1, DTYPE_F32);
        case_run(r, &(struct trial){ "zero", { output(1, count, y) }, 1, n, run_zero });
        case_run(
            r, &(struct trial){
                   "copy", { output(1, count, y), uniform(1, count, x, -3, 3) }, 2, n, run_copy });
        case_run(r,
                 &(struct trial){
                     "add", { changed(1, count, y), uniform(1, count, x, -3, 3) }, 2, n, run_add });
        case_run(r, &(struct trial){ "scale", { changed(1, count, y) }, 1, n, run_scale });
        case_run(r, &(struct trial){ "sum", { sum, uniform(1, count, x, 0, 3) }, 2, n, run_sum });
        case_run(r,
                 &(struct trial){
                     "sum_squares", { sum, uniform(1, count, x, -3, 3) }, 2, n, run_sum_squares });
    }
    static const float sums[] = { 0.0f, 9.0f, 0.01f, INFINITY, NAN };
    static const float losses[] = { 1.0f, NAN };
    for (int i = 0; i < 10; i++) {
        struct trial t = { "clip", { output(1, 3, DTYPE_F32) }, 3, { .f = 1.0f }, run_clip };
        t.item[1] = (struct item){ 1, 1, DTYPE_F32, FILL_GIVEN, 0, 0, &sums[i % 5], false };
        t.item[2] = (struct item){ 1, 1, DTYPE_F32, FILL_GIVEN, 0, 0, &losses[i / 5], false };
        case_run(r, &t);
    }
}

/* ---- products and norms --------------------------------------------------------------------- */

static void run_matmul(struct backend *be, struct tensor *t, const struct numbers *n)
{
    op_matmul(be, &(struct matmul){ .c = &t[0],
                                    .a = &t[1],
                                    .b = &t[2],
                                    .transpose_a = n->yes,
                                    .transpose_b = n->other,
                                    .a_first = n->a,
                                    .a_columns = n->b,
                                    .beta = n->c > 0 ? 0.0f : n->f,
                                    .addend = n->c > 0 ? &t[3] : NULL });
}

static void cases_matmul(struct report *r)
{
    for (int i = 0; i < 48; i++) {
        int64_t m = case_random(r, 1, 20 * r->size);
        int64_t n = case_random(r, 1, 20 * r->size);
        int64_t k = case_random(r, 1, 20 * r->size);
        bool a_turned = (i & 1) != 0;
        bool b_turned = (i & 2) != 0;
        enum dtype factor = types[i >> 2 & 1];
        enum dtype result = types[i >> 3 & 1];
        float beta = (i & 16) != 0 ? 1.0f : 0.0f;
        int64_t used = a_turned ? m : k;
        int64_t first = i % 3 == 0 ? case_random(r, 0, 9) : 0;
        int64_t whole = i % 3 == 0 ? first + used + case_random(r, 0, 9) : used;
        struct numbers numbers = {
            .a = first, .b = i % 3 == 0 ? used : 0, .f = beta, .yes = a_turned, .other = b_turned
        };
        struct trial t = { "matmul", { output(m, n, result) }, 3, numbers, run_matmul };
        if (beta != 0.0f) {
            t.item[0] = changed(m, n, result);
        }
        t.item[1] = uniform(a_turned ? k : m, whole, factor, -1, 1);
        t.item[2] = uniform(b_turned ? n : k, b_turned ? k : n, factor, -1, 1);
        if (i % 4 == 1) {
            t.numbers.c = 1;
            t.item[0] = output(m, n, result);
            t.item[t.count++] = uniform(m, n, result, -1, 1);
        }
        case_run(r, &t);
    }
}

static void run_rmsnorm_forward(struct backend *be, struct tensor *t, const struct numbers *n)
{
    struct tensor *x = n->yes ? &t[0] : &t[2];
    op_rmsnorm_forward(be, &(struct rmsnorm_forward){ &t[0], &t[1], x, &t[3], 1e-5f });
}

static void run_rmsnorm_backward(struct backend *be, struct tensor *t, const struct numbers *n)
{
    struct tensor *dweight = n->yes ? NULL : &t[1];
    struct capture capture = { &t[6], &t[7] };
    op_rmsnorm_backward(be, &(struct rmsnorm_backward){ &t[0], dweight, &t[2], &t[3], &t[4], &t[5],
                                                        n->a > 0 ? &capture : NULL });
}

static void cases_norm(struct report *r)
{
    for (int i = 0; i < 12; i++) {
        enum dtype x = types[i & 1];
        enum dtype w = types[i >> 1 & 1];
        int64_t rows = case_random(r, 1, 5) * (i == 7 ? 30 : 1);
        int64_t columns = some_columns(r, i % 3);
        bool yes = i % 5 == 4;
        struct trial f = {
            "rmsnorm_forward", { output(rows, columns, x) }, 4, { 0 }, run_rmsnorm_forward
        };
        f.numbers.yes = yes;
        f.item[0] = yes ? changed(rows, columns, x) : f.item[0];
        f.item[1] = output(rows, 1, DTYPE_F32);
        f.item[2] = uniform(rows, columns, types[i >> 2 & 1], -2, 2);
        f.item[3] = uniform(1, columns, w, 0, 2);
        case_run(r, &f);
        struct trial b = {
            "rmsnorm_backward", { changed(rows, columns, x) }, 6, { 0 }, run_rmsnorm_backward
        };
        b.numbers.yes = yes;
        b.item[1] = changed(1, columns, w);
        b.item[2] = uniform(rows, columns, x, -1, 1);
        b.item[3] = uniform(rows, columns, types[i >> 2 & 1], -2, 2);
        b.item[4] = uniform(1, columns, w, 0, 2);
        b.item[5] = uniform(rows, 1, DTYPE_F32, 0.5f, 1.5f);
        int64_t slots = case_slots(r, i, columns);
        int32_t *index = columns_of(r, slots, columns);
        b.numbers.a = i % 2;
        if (b.numbers.a > 0) {
            add_captured(&b, index, slots, types[i >> 2 & 1]);
        }
        case_run(r, &b);
        free(index);
    }
}

/* ---- rope and decoding ----------------------------------------------------------------------- */

static void run_rope(struct backend *be, struct tensor *t, const struct numbers *n)
{
    struct capture capture = { &t[3], &t[4] };
    op_rope(be,
            &(struct rope){ &t[0], &t[1], &t[2], n->a, n->b, n->yes, n->other ? &capture : NULL });
}

static void cases_rope(struct report *r)
{
    for (int i = 0; i < 8; i++) {
        int64_t size = i < 4 ? 16 * case_random(r, 1, 4) : 2 * case_random(r, 1, 9);
        int64_t heads = case_random(r, 1, 4);
        int64_t rows = case_random(r, 1, 9) * r->size;
        int64_t width = heads * size + (i % 2 == 0 ? size : case_random(r, 0, 5));
        struct trial t = { "rope", { changed(rows, width, types[i & 1]) }, 3, { 0 }, run_rope };
        t.item[1] = uniform(20, size, DTYPE_F32, -1, 1);
        t.item[2] = below(rows, 20);
        t.numbers = (struct numbers){ .a = heads, .b = size, .yes = (i & 2) != 0 };
        int64_t slots = case_slots(r, i, width);
        int32_t *index = columns_of(r, slots, width);
        t.numbers.other = i % 3 > 0;
        if (t.numbers.other) {
            add_captured(&t, index, slots, types[i & 1]);
        }
        case_run(r, &t);
        free(index);
    }
}

static void run_decode(struct backend *be, struct tensor *t, const struct numbers *n)
{
    op_attention_decode(
        be, &(struct attention_decode){ &t[0], &t[1], &t[2], &t[3], n->a, n->attention });
}

static void cases_decode(struct report *r)
{
    for (int i = 0; i < 6; i++) {
        struct attention_shape s = { .batch = case_random(r, 1, 3), .sequence = 1, .scale = 0.4f };
        s.kv_heads = case_random(r, 1, 2);
        s.heads = s.kv_heads * case_random(r, 1, 3);
        s.head_size = i < 4 ? case_random(r, 3, 70) : 128;
        int64_t held = case_random(r, 1, 300);
        struct numbers n = { .a = case_random(r, 0, held - 1), .attention = s };
        struct trial t = { "attention_decode",
                           { output(s.batch, s.heads * s.head_size, types[i & 1]) },
                           4,
                           n,
                           run_decode };
        t.item[1] = changed(s.batch * held, s.kv_heads * s.head_size, types[i >> 1 & 1]);
        t.item[2] = t.item[1];
        t.item[3] = uniform(s.batch, (s.heads + 2 * s.kv_heads) * s.head_size, types[i & 1], -1, 1);
        case_run(r, &t);
    }
}

/* ---- feed-forward, embedding, loss ---------------------------------------------------------- */

static void run_swiglu_forward(struct backend *be, struct tensor *t, const struct numbers *n)
{
    (void)n;
    op_swiglu_forward(be, &t[0], &t[1]);
}

static void run_swiglu_backward(struct backend *be, struct tensor *t, const struct numbers *n)
{
    struct capture capture = { &t[3], &t[4] };
    op_swiglu_backward(be, &(struct swiglu_backward){ &t[0], &t[1], n->yes ? &t[0] : &t[2],
                                                      n->other ? &capture : NULL });
}

static void cases_swiglu(struct report *r)
{
    for (int i = 0; i < 8; i++) {
        int64_t rows = case_random(r, 1, 6);
        int64_t size = some_columns(r, i % 3);
        enum dtype x = types[i & 1];
        enum dtype y = types[i >> 1 & 1];
        bool yes = i % 4 == 3;
        struct trial f = {
            "swiglu_forward", { output(rows, size, y) }, 2, { 0 }, run_swiglu_forward
        };
        f.item[1] = uniform(rows, 2 * size, x, -6, 6);
        case_run(r, &f);
        struct trial b = {
            "swiglu_backward", { output(rows, 2 * size, x) }, 3, { 0 }, run_swiglu_backward
        };
        b.numbers.yes = yes;
        b.item[0] = yes ? changed(rows, 2 * size, x) : b.item[0];
        b.item[1] = uniform(rows, size, y, -1, 1);
        b.item[2] = uniform(rows, 2 * size, x, -6, 6);
        int64_t slots = case_slots(r, i, 2 * size);
        int32_t *index = columns_of(r, slots, 2 * size);
        b.numbers.other = i % 3 > 0;
        if (b.numbers.other) {
            add_captured(&b, index, slots, x);
        }
        case_run(r, &b);
        free(index);
    }
}

static void run_embedding_forward(struct backend *be, struct tensor *t, const struct numbers *n)
{
    (void)n;
    op_embedding_forward(be, &t[0], &t[1], &t[2]);
}

static void run_embedding_backward(struct backend *be, struct tensor *t, const struct numbers *n)
{
    (void)n;
    op_embedding_backward(be, &t[0], &t[1], &t[2]);
}

static void cases_embedding(struct report *r)
{
    for (int i = 0; i < 8; i++) {
        /* Few tokens, or several runs of the sort. */
        int64_t tokens = case_random(r, 1, 60) * (i == 6 ? 60 : r->size);
        int64_t columns = some_columns(r, i % 2);
        int64_t words = case_random(r, 1, 30);
        enum dtype x = types[i & 1];
        enum dtype y = types[i >> 1 & 1];
        struct trial f = {
            "embedding_forward", { output(tokens, columns, y) }, 3, { 0 }, run_embedding_forward
        };
        f.item[1] = uniform(words, columns, x, -1, 1);
        f.item[2] = below(tokens, words);
        case_run(r, &f);
        struct trial b = {
            "embedding_backward", { changed(words, columns, x) }, 3, { 0 }, run_embedding_backward
        };
        b.item[1] = uniform(tokens, columns, y, -1, 1);
        b.item[2] = below(tokens, words);
        case_run(r, &b);
    }
}

static void run_distinct(struct backend *be, struct tensor *t, const struct numbers *n)
{
    (void)n;
    op_distinct(be, &(struct distinct){ &t[0], &t[1], &t[2], &t[3] });
}

/* Few words for many tokens, and the reverse; more slots than are needed. */
static void cases_distinct(struct report *r)
{
    for (int i = 0; i < 8; i++) {
        int64_t tokens = i == 0 ? 1 : case_random(r, 1, i % 2 == 0 ? 20 : 900);
        int64_t words = i == 1 ? 1 : case_random(r, 1, i % 3 == 0 ? 20 : 900);
        int64_t slots = (tokens < words ? tokens : words) + i % 4;
        struct trial t = { "distinct", { output(1, slots, DTYPE_I32) }, 4, { 0 }, run_distinct };
        t.item[1] = output(1, tokens, DTYPE_I32);
        t.item[2] = output(1, words, DTYPE_I32);
        t.item[3] = below(tokens, words);
        case_run(r, &t);
    }
}

static void run_cross_entropy(struct backend *be, struct tensor *t, const struct numbers *n)
{
    op_cross_entropy(
        be, &(struct cross_entropy){ &t[0], &t[1], &t[2], n->f, n->yes, n->other ? &t[3] : NULL });
}

static void cases_loss(struct report *r)
{
    for (int i = 0; i < 10; i++) {
        /* One class alone, and a vocabulary that no vector divides. */
        int64_t rows = i == 8 ? 1 : case_random(r, 1, 6);
        int64_t words = i < 6 ? some_columns(r, i % 3) : 4096 * r->size + (i == 9 ? 3 : 0);
        words = i == 8 ? 1 : words;
        struct trial t = { "cross_entropy",
                           { output(rows, 1, DTYPE_F32) },
                           i % 3 == 1 ? 4 : 3,
                           { 0 },
                           run_cross_entropy };
        t.numbers = (struct numbers){ .f = 0.125f, .yes = i % 4 != 2, .other = i % 3 == 1 };
        t.item[1] = uniform(rows, words, types[i & 1], -20, 20);
        t.item[1].written = t.numbers.yes;
        t.item[2] = below(rows, words);
        t.item[2].low = -1.0f; /* some are not trained */
        t.item[3] = uniform(1, 1, DTYPE_F32, 0.5f, 2);
        case_run(r, &t);
    }
}

void cases_model(struct report *report)
{
    cases_elementwise(report);
    cases_matmul(report);
    cases_norm(report);
    cases_rope(report);
    cases_decode(report);
    cases_swiglu(report);
    cases_embedding(report);
    cases_distinct(report);
    cases_loss(report);
}
