/*
 * Walks the table of operations: every entry must be there on the device and in the reference, and
 * must have been compared in fp32 and in bf16 (those that only know fp32: in fp32).
 *
 * A new operation makes this file fail to compile until it has a line here, and the table then
 * fails until it has cases.
 */
#include <stddef.h>
#include <stdio.h>

#include "gpu/cases.h"
#include "kernels/backend_ops.h"

static const struct entry {
    const char *op;
    size_t offset;
    bool bf16;
} entries[] = {
#define BOTH(name)                                                                                 \
    {                                                                                              \
#name, offsetof(struct backend_ops, name), true                                            \
    }
#define FP32(name)                                                                                 \
    {                                                                                              \
#name, offsetof(struct backend_ops, name), false                                           \
    }
    BOTH(zero),
    BOTH(copy),
    BOTH(add),
    BOTH(scale),
    BOTH(sum),
    BOTH(sum_squares),
    FP32(clip), /* numbers of a step */
    BOTH(matmul),
    BOTH(rmsnorm_forward),
    BOTH(rmsnorm_backward),
    BOTH(rope),
    BOTH(attention_forward),
    BOTH(attention_backward),
    BOTH(attention_decode),
    BOTH(swiglu_forward),
    BOTH(swiglu_backward),
    BOTH(embedding_forward),
    BOTH(embedding_backward),
    FP32(distinct), /* reads token ids */
    BOTH(cross_entropy),
    BOTH(squared_norms),
    FP32(select), /* reads norms */
    BOTH(gather),
    BOTH(scatter),
    BOTH(scale_side),
    BOTH(adamw),
    BOTH(settle), /* bf16 alone has residues */
    BOTH(adamw_int8),
    BOTH(sgd),
    FP32(unit_factors),
    BOTH(tradam),
    BOTH(quantize),
    BOTH(dequantize),
    BOTH(random_normal),
    FP32(orthonormalize),
    FP32(eigenvectors),
    BOTH(square),
    BOTH(descend),
    BOTH(random_sign),
#undef BOTH
#undef FP32
};

enum { ENTRIES = sizeof entries / sizeof entries[0] };
typedef void (*any_operation)(void);
_Static_assert(sizeof(struct backend_ops) ==
                   offsetof(struct backend_ops, zero) + ENTRIES * sizeof(any_operation),
               "an operation of struct backend_ops has no line in this table");

static int cases_of(const struct report *report, const char *op, const char *dtype)
{
    for (int i = 0; i < report->lines; i++) {
        const struct line *line = &report->line[i];
        if (strcmp(line->op, op) == 0 && strcmp(line->dtype, dtype) == 0) {
            return line->cases;
        }
    }
    return 0;
}

int coverage_gaps(const struct report *report)
{
    int gaps = 0;
    for (size_t i = 0; i < ENTRIES; i++) {
        const struct entry *e = &entries[i];
        any_operation function;
        memcpy(&function, (const char *)report->device->ops + e->offset, sizeof function);
        any_operation exact;
        memcpy(&exact, (const char *)report->reference->ops + e->offset, sizeof exact);
        bool in_place = e->offset == offsetof(struct backend_ops, zero) + i * sizeof function;
        bool half_alone = strcmp(e->op, "settle") == 0;
        bool fp32 = half_alone || cases_of(report, e->op, "fp32") > 0;
        bool bf16 = !e->bf16 || cases_of(report, e->op, "bf16") > 0;
        if (!in_place || function == NULL || exact == NULL || !fp32 || !bf16) {
            printf("%s: %s\n", e->op,
                   function == NULL ? "the device has no such operation"
                   : exact == NULL  ? "has no reference in double"
                   : !in_place      ? "is not in the order of struct backend_ops"
                   : !fp32          ? "no case in fp32"
                                    : "no case in bf16");
            gaps++;
        }
    }
    return gaps;
}
