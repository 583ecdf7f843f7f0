/*
 * One choice of rows with its tensors, for the tests of op_select.
 */
#ifndef WINDROW_TESTS_KERNELS_TRIAL_H
#define WINDROW_TESTS_KERNELS_TRIAL_H

#include "kernels/backend_ops.h"
#include "kernels/host_tensor.h"

struct trial {
    struct backend *be;
    struct tensor norms;
    struct tensor index;
    struct tensor scale;
    struct select args;
};

static inline void trial_open(struct trial *t, struct backend *be, int64_t candidates,
                              int64_t slots)
{
    *t = (struct trial){ .be = be };
    t->norms = host_vector(be, DTYPE_F32, candidates);
    t->index = host_vector(be, DTYPE_I32, slots);
    t->scale = host_vector(be, DTYPE_F32, slots);
    t->args = (struct select){ .index = &t->index,
                               .scale = &t->scale,
                               .norms = &t->norms,
                               .key = { .seed = 21, .purpose = RANDOM_SELECT, .tensor = 5 } };
}

static inline void trial_close(struct trial *t)
{
    host_free(t->be, &t->norms);
    host_free(t->be, &t->index);
    host_free(t->be, &t->scale);
}

/* Norms far apart (squared norms 2^-6 .. 2^6), in no order. */
static inline void trial_uneven_norms(struct trial *t)
{
    int64_t count = tensor_count(&t->norms);
    for (int64_t i = 0; i < count; i++) {
        double exponent = -6.0 + 12.0 * (double)((i * 7) % count) / (double)(count - 1);
        host_set(&t->norms, i, (float)exp2(exponent));
    }
}

/* Draws, and checks what holds for every draw. Returns the number of slots used. */
static inline int64_t trial_draw(struct trial *t, uint32_t step)
{
    int64_t slots = tensor_count(&t->index);
    int32_t *index = host_ints(&t->index);
    float *scale = host_floats(&t->scale);
    for (int64_t j = 0; j < slots; j++) {
        index[j] = 12345;
        scale[j] = NAN;
    }
    t->args.key.step = step;
    if (slots <= tensor_count(&t->norms)) {
        op_select(t->be, &t->args);
    } else {
        t->be->ops->select(t->be, &t->args); /* the checks in front of it refuse this */
    }
    assert_false(t->be->failed);
    int64_t used = 0;
    while (used < slots && index[used] >= 0) {
        assert_true(index[used] < tensor_count(&t->norms));
        assert_true(used == 0 || index[used] > index[used - 1]);
        assert_true(isfinite(scale[used]) && scale[used] > 0.0f);
        assert_true(t->args.unbiased || scale[used] == 1.0f);
        used++;
    }
    for (int64_t j = used; j < slots; j++) {
        assert_int_equal(index[j], -1);
        assert_true(scale[j] == 1.0f);
    }
    return used;
}

/* The rules that draw. */
static inline enum select_rule trial_random_rule(int number)
{
    static const enum select_rule rules[] = { SELECT_NORM, SELECT_NORM2, SELECT_UNIFORM };
    return rules[number % 3];
}

#endif
