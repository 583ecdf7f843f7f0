/*
 * A tensor: a contiguous, row-major block of elements with a shape.
 *
 * A tensor does not own its data: memory regions do (engine/memory). Copying the struct makes a
 * second view of the same elements. `name` is for messages and outlives every view.
 */
#ifndef WINDROW_KERNELS_TENSOR_H
#define WINDROW_KERNELS_TENSOR_H

#include "kernels/dtype.h"

enum { TENSOR_RANK_MAX = 4 };

struct tensor {
    void *data;
    int64_t dim[TENSOR_RANK_MAX]; /* dim[0] is the slowest; entries from `rank` on are 1 */
    int rank;
    enum dtype dtype;
    const char *name;
};

/* Number of elements. */
static inline int64_t tensor_count(const struct tensor *t)
{
    return t->dim[0] * t->dim[1] * t->dim[2] * t->dim[3];
}

static inline size_t tensor_bytes(const struct tensor *t)
{
    return (size_t)tensor_count(t) * dtype_size(t->dtype);
}

/* The last dimension: the length of a row. A tensor is seen as (rows, columns) by most ops. */
static inline int64_t tensor_columns(const struct tensor *t)
{
    return t->dim[t->rank - 1];
}

static inline int64_t tensor_rows(const struct tensor *t)
{
    int64_t columns = tensor_columns(t);
    return columns == 0 ? 0 : tensor_count(t) / columns;
}

/* A view with another shape of the same element count, as (rows, columns). */
static inline struct tensor tensor_as_matrix(const struct tensor *t, int64_t rows, int64_t columns)
{
    struct tensor view = *t;
    view.rank = 2;
    view.dim[0] = rows;
    view.dim[1] = columns;
    view.dim[2] = 1;
    view.dim[3] = 1;
    return view;
}

/* A view of rows [first, first + count) of a tensor seen as (rows, columns). The address is
 * computed, never read: this works on the null backend too. */
static inline struct tensor tensor_row_range(const struct tensor *t, int64_t first, int64_t count)
{
    struct tensor view = tensor_as_matrix(t, count, tensor_columns(t));
    size_t offset = (size_t)(first * tensor_columns(t)) * dtype_size(t->dtype);
    view.data = (void *)((uintptr_t)t->data + offset);
    return view;
}

#endif
