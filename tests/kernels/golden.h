/*
 * The values that PyTorch computed, as tensors: a reader of tests/data/kernels/golden.{txt,bin}
 * (written and described by tests/reference/make_kernel_golden.py), and the comparison with them.
 *
 * In fp32 each element must agree to a few units of rounding of the largest one. The same inputs
 * stored as bf16 must agree as a whole, to what two bytes can hold.
 */
#ifndef WINDROW_TESTS_KERNELS_GOLDEN_H
#define WINDROW_TESTS_KERNELS_GOLDEN_H

#include <stdio.h>
#include <string.h>

#include "kernels/host_tensor.h"

enum { GOLDEN_MAX = 256 };

struct golden_entry {
    char name[64];
    char type[8];
    size_t offset;
    int64_t dim[TENSOR_RANK_MAX];
    int rank;
};

struct golden {
    struct backend *be;
    unsigned char *blob;
    size_t blob_bytes;
    struct golden_entry entry[GOLDEN_MAX];
    int count;
    enum dtype dtype; /* of float tensors in the pass under way */
};

/* ---- reading --------------------------------------------------------------------------------- */

static inline int read_blob(struct golden *g)
{
    FILE *file = fopen(TEST_DATA "/kernels/golden.bin", "rb");
    if (file == NULL) {
        return -1;
    }
    enum { LIMIT = 1 << 20 };
    g->blob = malloc(LIMIT);
    g->blob_bytes = g->blob != NULL ? fread(g->blob, 1, LIMIT, file) : 0;
    fclose(file);
    return g->blob_bytes > 0 && g->blob_bytes < LIMIT ? 0 : -1;
}

static inline int read_index(struct golden *g)
{
    char line[256];
    FILE *file = fopen(TEST_DATA "/kernels/golden.txt", "r");
    if (file == NULL) {
        return -1;
    }
    while (fgets(line, sizeof line, file) != NULL && g->count < GOLDEN_MAX) {
        struct golden_entry *e = &g->entry[g->count++];
        int used = 0;
        *e = (struct golden_entry){ .dim = { 1, 1, 1, 1 } };
        if (sscanf(line, "%63s %7s %zu%n", e->name, e->type, &e->offset, &used) != 3) {
            fclose(file);
            return -1;
        }
        char *at = line + used;
        for (char *end = at; e->rank < TENSOR_RANK_MAX; at = end) {
            long long dim = strtoll(at, &end, 10);
            if (end == at) {
                break;
            }
            e->dim[e->rank++] = dim;
        }
    }
    fclose(file);
    return g->count > 0 && g->count < GOLDEN_MAX ? 0 : -1;
}

static inline int golden_teardown(void **state)
{
    struct golden *g = *state;
    int status = backend_sync(g->be);
    if (status != 0) {
        print_error("latched: %s\n", g->be->error);
    }
    backend_close(g->be);
    free(g->blob);
    free(g);
    return status;
}

static inline int golden_setup(void **state)
{
    struct golden *g = calloc(1, sizeof *g);
    char why[256];
    if (g == NULL) {
        return -1;
    }
    *state = g;
    g->be = backend_open("cpu", 0, why, sizeof why);
    return g->be != NULL && read_blob(g) == 0 && read_index(g) == 0 ? 0 : -1;
}

/* The tensor `suffix` of case `name`. */
static inline const struct golden_entry *find(const struct golden *g, const char *name,
                                              const char *suffix)
{
    char full[64];
    snprintf(full, sizeof full, "%s.%s", name, suffix);
    for (int i = 0; i < g->count; i++) {
        if (strcmp(g->entry[i].name, full) == 0) {
            return &g->entry[i];
        }
    }
    fail_msg("golden.txt has no %s", full);
    return NULL;
}

/* A copy on the backend: int32 as it is, fp32 as `dtype`. */
static inline struct tensor take_as(const struct golden *g, const char *name, const char *suffix,
                                    enum dtype dtype)
{
    const struct golden_entry *e = find(g, name, suffix);
    bool ints = strcmp(e->type, "int32") == 0;
    struct tensor t = { .rank = e->rank, .dtype = ints ? DTYPE_I32 : dtype, .name = e->name };
    memcpy(t.dim, e->dim, sizeof t.dim);
    assert_true(e->offset + 4 * (size_t)tensor_count(&t) <= g->blob_bytes);
    t.data = backend_alloc(g->be, tensor_bytes(&t));
    assert_non_null(t.data);
    for (int64_t i = 0; i < tensor_count(&t); i++) {
        if (ints) {
            memcpy((int32_t *)t.data + i, g->blob + e->offset + 4 * i, 4);
        } else {
            float value;
            memcpy(&value, g->blob + e->offset + 4 * i, 4);
            host_set(&t, i, value);
        }
    }
    return t;
}

static inline struct tensor take(const struct golden *g, const char *name, const char *suffix)
{
    return take_as(g, name, suffix, g->dtype);
}

/* An output of the shape of a golden tensor, full of NaN. */
static inline struct tensor blank_as(const struct golden *g, const char *name, const char *suffix,
                                     enum dtype dtype)
{
    struct tensor t = take_as(g, name, suffix, dtype);
    host_fill(&t, NAN);
    return t;
}

static inline struct tensor blank(const struct golden *g, const char *name, const char *suffix)
{
    return blank_as(g, name, suffix, g->dtype);
}

static inline void drop(const struct golden *g, struct tensor *t)
{
    host_free(g->be, t);
}

/* Compares and frees the result. */
static inline void check(const struct golden *g, struct tensor *result, const char *name,
                         const char *suffix)
{
    struct tensor expected = take_as(g, name, suffix, DTYPE_F32);
    int64_t count = tensor_count(&expected);
    assert_int_equal(tensor_count(result), count);
    assert_false(g->be->failed);
    double largest = 0.0;
    double square = 0.0;
    double error = 0.0;
    for (int64_t i = 0; i < count; i++) {
        double e = (double)host_get(&expected, i);
        double d = (double)host_get(result, i) - e;
        largest = fmax(largest, fabs(e));
        square += e * e;
        error += d * d;
    }
    for (int64_t i = 0; g->dtype == DTYPE_F32 && i < count; i++) {
        host_assert_near((double)host_get(result, i), (double)host_get(&expected, i),
                         4e-6 * largest, expected.name, i);
    }
    host_assert_near(sqrt(error), 0.0, 0.01 * sqrt(square), expected.name, -1);
    drop(g, &expected);
    drop(g, result);
}

#endif
