/*
 * Everything that one AdamW step touches, for the tests of the optimizer.
 */
#ifndef WINDROW_TESTS_KERNELS_ADAM_PROBLEM_H
#define WINDROW_TESTS_KERNELS_ADAM_PROBLEM_H

#include <string.h>

#include "kernels/host_tensor.h"

enum { PROBLEM_SLOTS = 9 };

/* `index` and `rho` are only used by selections. */
struct problem {
    struct backend *be;
    struct tensor weight, m, v, age, gradient, index, rho, control;
    struct adamw args;
};

static inline void set_control(struct problem *p, float factor, float skip)
{
    float *c = host_floats(&p->control);
    c[CONTROL_FACTOR] = factor;
    c[CONTROL_SKIP] = skip;
    c[CONTROL_NORM] = 1.0f;
}

/* A weight (rows, columns), with gradient and moments (g_rows, g_columns), and `ages` slots. */
static inline void problem_open(struct problem *p, struct backend *be, const int64_t shape[4],
                                int64_t ages)
{
    *p = (struct problem){ .be = be };
    p->weight = host_matrix(be, DTYPE_F32, shape[0], shape[1]);
    p->gradient = host_matrix(be, DTYPE_F32, shape[2], shape[3]);
    p->m = host_matrix(be, DTYPE_F32, shape[2], shape[3]);
    p->v = host_matrix(be, DTYPE_F32, shape[2], shape[3]);
    p->age = host_vector(be, DTYPE_I32, ages);
    p->index = host_vector(be, DTYPE_I32, ages);
    p->rho = host_vector(be, DTYPE_F32, ages);
    p->control = host_vector(be, DTYPE_F32, CONTROL_COUNT);
    p->args = (struct adamw){ .weight = &p->weight,
                              .m = &p->m,
                              .v = &p->v,
                              .age = &p->age,
                              .gradient = &p->gradient,
                              .control = &p->control,
                              .lr = 0.01f,
                              .beta1 = 0.9f,
                              .beta2 = 0.999f,
                              .eps = 1e-8f,
                              .weight_decay = 0.1f,
                              .scale = 1.0f,
                              .key = { .seed = 17, .tensor = 9, .step = 3 } };
    host_randomize(&p->weight, 1, -1.0f, 1.0f);
    host_randomize(&p->gradient, 2, -1.0f, 1.0f);
    host_randomize(&p->m, 3, -0.1f, 0.1f);
    host_randomize(&p->v, 4, 0.0f, 0.1f);
    memset(p->age.data, 0, tensor_bytes(&p->age));
    host_fill(&p->rho, 1.0f);
    set_control(p, 1.0f, 0.0f);
}

static inline void problem_close(struct problem *p)
{
    struct tensor *all[] = { &p->weight,   &p->m,     &p->v,   &p->age,
                             &p->gradient, &p->index, &p->rho, &p->control };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        host_free(p->be, all[i]);
    }
}

/* Stores `t` anew as bf16, rounded to nearest. */
static inline void to_bf16(struct backend *be, struct tensor *t)
{
    struct tensor half = *t;
    half.dtype = DTYPE_BF16;
    half.data = backend_alloc(be, tensor_bytes(&half));
    assert_non_null(half.data);
    for (int64_t i = 0; i < tensor_count(t); i++) {
        host_set(&half, i, host_get(t, i));
    }
    host_free(be, t);
    *t = half;
}

/* Slots 0 .. PROBLEM_SLOTS - 1 on candidates 1, 5, 9 ..., with an unused slot inside and one at the
 * end, and ages of their own. */
static inline void choose_slots(struct problem *p)
{
    for (int64_t j = 0; j < PROBLEM_SLOTS; j++) {
        host_ints(&p->index)[j] = j == 3 || j == PROBLEM_SLOTS - 1 ? -1 : (int32_t)(4 * j + 1);
        host_ints(&p->age)[j] = (int32_t)(j * j);
        host_set(&p->rho, j, 0.5f + (float)j);
    }
    p->args.index = &p->index;
    p->args.rho = &p->rho;
}

#endif
