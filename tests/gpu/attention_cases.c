/*
 * Attention on random tensors: shapes for the plain kernels, and for those on tensor cores every
 * size of head, with tails, grouped queries and packed records.
 */
#include <stdio.h>
#include <stdlib.h>

#include "gpu/cases.h"

static void run_attention_forward(struct backend *be, struct tensor *t, const struct numbers *n)
{
    op_attention_forward(be, &(struct attention_forward){ &t[0], &t[1], &t[2],
                                                          n->yes ? &t[3] : NULL, n->attention });
}

static void run_attention_backward(struct backend *be, struct tensor *t, const struct numbers *n)
{
    op_attention_backward(be,
                          &(struct attention_backward){ &t[0], &t[1], &t[2], &t[3], &t[4], &t[5],
                                                        n->yes ? &t[6] : NULL, n->attention });
}

/* What the rows of a batch hold. */
enum records { RECORDS_NONE, RECORDS_RANDOM, RECORDS_SINGLE /* of one token each */ };

/* The first token of the record of each token. */
static int32_t *record_starts(struct report *r, enum records records, int64_t batch,
                              int64_t sequence)
{
    int32_t *starts = malloc((size_t)(batch * sequence) * sizeof *starts);
    if (starts == NULL) {
        abort();
    }
    for (int64_t b = 0; b < batch; b++) {
        int64_t first = 0;
        for (int64_t s = 0; s < sequence; s++) {
            bool begins = case_random(r, 0, 14) == 0 || records == RECORDS_SINGLE;
            first = begins ? s : first;
            starts[b * sequence + s] = (int32_t)first;
        }
    }
    return starts;
}

/* Forward and backward at one shape, by cuDNN or by our own kernels. */
static void run_both(struct report *r, const struct attention_shape *s, enum dtype type,
                     enum records records, bool cudnn)
{
    int64_t tokens = s->batch * s->sequence;
    int64_t width = (s->heads + 2 * s->kv_heads) * s->head_size;
    int64_t out = s->heads * s->head_size;
    int32_t *starts = record_starts(r, records, s->batch, s->sequence);
    struct item given = { tokens, 1, DTYPE_I32, FILL_GIVEN, 0, 0, starts, false };
    struct item result = { tokens, out, type, FILL_POISON, 0, 0, NULL, true };
    struct item gradient = { tokens, width, type, FILL_POISON, 0, 0, NULL, true };
    struct item statistics = { s->heads, tokens, DTYPE_F32, FILL_POISON, 0, 0, NULL, true };
    struct item lse = { s->heads, tokens, DTYPE_F32, FILL_UNIFORM, 1, 4, NULL, false };
    struct item qkv = { tokens, width, type, FILL_UNIFORM, -1, 1, NULL, false };
    struct item other = { tokens, out, type, FILL_UNIFORM, -1, 1, NULL, false };
    struct numbers n = { .yes = records != RECORDS_NONE, .attention = *s };
    struct trial f = { cudnn ? "cudnn_forward" : "attention_forward",
                       { result, statistics, qkv, given },
                       4,
                       n,
                       run_attention_forward };
    case_run(r, &f);
    struct trial b = { cudnn ? "cudnn_backward" : "attention_backward",
                       { gradient, statistics, other, other, lse, qkv, given },
                       7,
                       n,
                       run_attention_backward };
    r->varies = cudnn;
    case_run(r, &b);
    r->varies = false;
    free(starts);
}

static void cases_plain(struct report *r)
{
    static const enum dtype types[] = { DTYPE_F32, DTYPE_BF16 };
    for (int i = 0; i < 8; i++) {
        struct attention_shape s = { .batch = 1 + i % 2, .scale = 0.3f };
        s.kv_heads = case_random(r, 1, 2);
        s.heads = s.kv_heads * case_random(r, 1, 2);
        s.head_size = i < 2 ? 8 : i < 6 ? 2 * case_random(r, 5, 15) : i == 6 ? 128 : 112;
        s.sequence = i < 2 ? case_random(r, 1, 9) : case_random(r, 20, 75) * r->size;
        run_both(r, &s, types[i & 1], (i & 2) != 0 ? RECORDS_RANDOM : RECORDS_NONE, false);
    }
}

static void cases_flash(struct report *r)
{
    /* Rows of the batch, tokens, query heads, key/value heads, size, records. */
    static const int shapes[][6] = {
        { 1, 1, 2, 1, 32, 0 },
        { 1, 203, 2, 1, 32, 1 },
        { 2, 131, 1, 1, 64, 0 },
        { 1, 140, 3, 1, 64, 1 },
        { 1, 70, 2, 1, 80, 1 },
        { 1, 130, 1, 1, 96, 1 },
        { 1, 33, 2, 1, 96, 0 },
        { 1, 66, 2, 1, 128, 0 },
        { 1, 100, 2, 1, 128, 1 },
        /* One token, one head; whole tiles and a token more; records of one token. */
        { 1, 1, 1, 1, 64, 0 },
        { 2, 1, 1, 1, 96, 1 },
        { 1, 1, 1, 1, 128, 2 },
        { 1, 128, 1, 1, 32, 0 },
        { 1, 129, 1, 1, 64, 1 },
        { 1, 64, 1, 1, 128, 1 },
        { 1, 65, 1, 1, 96, 2 },
        { 2, 67, 4, 2, 64, 2 },
        { 1, 127, 1, 1, 80, 2 },
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        const int *shape = shapes[i];
        struct attention_shape s = { .batch = shape[0],
                                     .sequence = shape[1] * r->size,
                                     .heads = shape[2],
                                     .kv_heads = shape[3],
                                     .head_size = shape[4],
                                     .scale = 0.3f };
        run_both(r, &s, DTYPE_BF16, (enum records)shape[5], false);
    }
}

void cases_attention(struct report *report)
{
    cases_plain(report);
    cases_flash(report);
}

void cases_cudnn(struct report *report)
{
    static const int shapes[][4] = { { 2, 2, 64, 256 }, { 4, 2, 128, 384 }, { 3, 1, 96, 128 } };
    struct backend_options options = { .attention = ATTENTION_CUDNN };
    char why[256];
    if (backend_configure(report->device, &options, why, sizeof why) != 0) {
        printf("attention by cuDNN is not compared: %s\n", why);
        return;
    }
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        const int *shape = shapes[i];
        struct attention_shape s = { .batch = 2,
                                     .sequence = shape[3] * report->size,
                                     .heads = shape[0],
                                     .kv_heads = shape[1],
                                     .head_size = shape[2],
                                     .scale = 0.3f };
        run_both(report, &s, DTYPE_BF16, RECORDS_NONE, true);
    }
    options.attention = ATTENTION_OWN;
    backend_configure(report->device, &options, why, sizeof why);
}
