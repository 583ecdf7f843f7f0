/*
 * Small tensors on the cpu backend, whose elements tests read and write directly.
 */
#ifndef WINDROW_TESTS_KERNELS_HOST_TENSOR_H
#define WINDROW_TESTS_KERNELS_HOST_TENSOR_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "kernels/ops.h"

/* cmocka fixture: *state is an open cpu backend. */
static inline int host_setup(void **state)
{
    char why[256];
    *state = backend_open("cpu", 0, why, sizeof why);
    return *state == NULL ? -1 : 0;
}

/* Fails the test program if a test left an error behind. */
static inline int host_teardown(void **state)
{
    struct backend *be = *state;
    int status = backend_sync(be);
    if (status != 0) {
        print_error("latched: %s\n", be->error);
    }
    backend_close(be);
    return status;
}

static inline struct tensor host_matrix(struct backend *be, enum dtype dtype, int64_t rows,
                                        int64_t columns)
{
    struct tensor t = { .dim = { rows, columns, 1, 1 }, .rank = 2, .dtype = dtype, .name = "test" };
    t.data = backend_alloc(be, tensor_bytes(&t));
    assert_non_null(t.data);
    return t;
}

static inline struct tensor host_vector(struct backend *be, enum dtype dtype, int64_t count)
{
    struct tensor t = host_matrix(be, dtype, count, 1);
    t.rank = 1;
    return t;
}

static inline void host_free(struct backend *be, struct tensor *t)
{
    backend_free(be, t->data, tensor_bytes(t));
    t->data = NULL;
}

static inline float host_get(const struct tensor *t, int64_t at)
{
    return t->dtype == DTYPE_F32 ? ((const float *)t->data)[at]
                                 : bf16_to_float(((const uint16_t *)t->data)[at]);
}

static inline void host_set(const struct tensor *t, int64_t at, float value)
{
    if (t->dtype == DTYPE_F32) {
        ((float *)t->data)[at] = value;
    } else {
        ((uint16_t *)t->data)[at] = bf16_from_float(value);
    }
}

static inline void host_fill(const struct tensor *t, float value)
{
    for (int64_t i = 0; i < tensor_count(t); i++) {
        host_set(t, i, value);
    }
}

/* Uniform in (low, high); different for each `stream`. */
static inline void host_randomize(const struct tensor *t, uint32_t stream, float low, float high)
{
    struct random_key key = { .seed = 99, .purpose = RANDOM_TEST, .tensor = stream };
    for (int64_t i = 0; i < tensor_count(t); i++) {
        host_set(t, i, low + (high - low) * random_uniform(&key, (uint64_t)i));
    }
}

static inline int32_t *host_ints(const struct tensor *t)
{
    assert_int_equal(t->dtype, DTYPE_I32);
    return t->data;
}

static inline float *host_floats(const struct tensor *t)
{
    assert_int_equal(t->dtype, DTYPE_F32);
    return t->data;
}

static inline void host_assert_same_bits(const struct tensor *a, const struct tensor *b)
{
    assert_int_equal(tensor_bytes(a), tensor_bytes(b));
    assert_memory_equal(a->data, b->data, tensor_bytes(a));
}

/* A failing comparison says where and what. */
static inline void host_assert_near(double value, double expected, double tolerance,
                                    const char *what, int64_t at)
{
    if (!(fabs(value - expected) <= tolerance)) {
        fail_msg("%s[%lld] is %.9g, expected %.9g within %.3g", what, (long long)at, value,
                 expected, tolerance);
    }
}

/* ---- statistics ----------------------------------------------------------------------------- */

/* Running mean and variance (Welford 1962). */
struct host_mean {
    double count;
    double mean;
    double squares;
};

static inline void host_mean_add(struct host_mean *m, double x)
{
    m->count += 1.0;
    double delta = x - m->mean;
    m->mean += delta / m->count;
    m->squares += delta * (x - m->mean);
}

/* How many standard errors the mean lies from `expected`. */
static inline double host_mean_z(const struct host_mean *m, double expected)
{
    double variance = m->squares / (m->count - 1.0);
    double deviation = m->mean - expected;
    if (variance <= 0.0) {
        return fabs(deviation) < 1e-6 ? 0.0 : 1e9;
    }
    return deviation / sqrt(variance / m->count);
}

#endif
