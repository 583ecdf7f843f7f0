/*
 * Gradients by central differences.
 *
 * The loss of an operation is the sum of its outputs times fixed random weights, taken in double.
 * A gradient is right if it agrees with (loss(x + h) - loss(x - h)) / 2h; large tensors are
 * checked at evenly spread elements. A wrong factor is far outside the tolerance, since it is
 * relative to the gradient's typical size.
 */
#ifndef WINDROW_TESTS_KERNELS_GRADIENT_H
#define WINDROW_TESTS_KERNELS_GRADIENT_H

#include "kernels/host_tensor.h"

enum { GRADIENT_CHECKS = 300 };

struct gradient_check {
    /* Runs the forward operation; `state` is the caller's. */
    void (*forward)(void *state);
    void *state;
    const struct tensor *output;
    const struct tensor *probe;    /* dloss / doutput, of the output's size */
    const struct tensor *input;    /* fp32; perturbed and restored */
    const struct tensor *gradient; /* what the backward gave for the input */
    const char *what;
};

static inline double gradient_loss(const struct gradient_check *c)
{
    c->forward(c->state);
    double loss = 0.0;
    for (int64_t i = 0; i < tensor_count(c->output); i++) {
        loss += (double)host_get(c->output, i) * (double)host_get(c->probe, i);
    }
    return loss;
}

static inline void gradient_assert(const struct gradient_check *c)
{
    const float step = 1.0f / 128.0f;
    int64_t count = tensor_count(c->input);
    assert_int_equal(tensor_count(c->gradient), count);
    double squares = 0.0;
    for (int64_t i = 0; i < count; i++) {
        squares += pow((double)host_get(c->gradient, i), 2.0);
    }
    double typical = sqrt(squares / (double)count);
    assert_true(typical > 1e-3); /* a gradient of zeros would agree with anything flat */
    int64_t stride = count / GRADIENT_CHECKS | 1; /* odd: no column is passed over */
    for (int64_t i = 0; i < count; i += stride) {
        float x = host_get(c->input, i);
        host_set(c->input, i, x + step);
        double above = gradient_loss(c);
        double up = (double)host_get(c->input, i);
        host_set(c->input, i, x - step);
        double below = gradient_loss(c);
        double down = (double)host_get(c->input, i);
        host_set(c->input, i, x);
        double slope = (above - below) / (up - down);
        host_assert_near((double)host_get(c->gradient, i), slope, 4e-3 * typical + 2e-4, c->what,
                         i);
    }
    c->forward(c->state);
}

#endif
