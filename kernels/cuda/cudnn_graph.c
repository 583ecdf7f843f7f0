/* Descriptors of cuDNN, one operation after the other. */
#include "kernels/cuda/cudnn_graph.h"

#include <stdio.h>
#include <string.h>

typedef cudnnBackendDescriptor_t descriptor;

static const cudnnDataType_t bf16 = CUDNN_DATA_BFLOAT16;
static const cudnnDataType_t fp32 = CUDNN_DATA_FLOAT;

/* ---- descriptors ---------------------------------------------------------------------------- */

static void check(struct cudnn_graph *g, cudnnStatus_t status, const char *what)
{
    if (status == CUDNN_STATUS_SUCCESS || g->failed) {
        return;
    }
    char detail[160] = "";
    g->call->last_error(detail, sizeof detail);
    snprintf(g->why, sizeof g->why, "cuDNN refuses %s: %s (%.150s)", what,
             g->call->error_string(status), detail);
    g->failed = true;
}

descriptor cudnn_graph_make(struct cudnn_graph *g, cudnnBackendDescriptorType_t type)
{
    descriptor made = NULL;
    if (g->failed) {
        return NULL;
    }
    if (g->held_count == CUDNN_HELD_MAX) {
        snprintf(g->why, sizeof g->why, "the graph for cuDNN is too large");
        g->failed = true;
        return NULL;
    }
    check(g, g->call->make(type, &made), "a descriptor");
    if (!g->failed) {
        g->held[g->held_count++] = made;
    }
    return made;
}

void cudnn_graph_set(struct cudnn_graph *g, descriptor to, cudnnBackendAttributeName_t name,
                     cudnnBackendAttributeType_t type, int64_t count, const void *value)
{
    if (!g->failed) {
        check(g, g->call->set(to, name, type, count, value), "an attribute");
    }
}

void cudnn_graph_finalize(struct cudnn_graph *g, descriptor d, const char *what)
{
    if (!g->failed) {
        check(g, g->call->finalize(d), what);
    }
}

static void set_descriptor(struct cudnn_graph *g, descriptor to, cudnnBackendAttributeName_t name,
                           descriptor value)
{
    cudnn_graph_set(g, to, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

/* ---- tensors -------------------------------------------------------------------------------- */

/* Always four dimensions: rows of the batch, heads, and two more. */
struct layout {
    int64_t dim[4];
    int64_t stride[4];
};

/* `heads` heads of rows that are `width` elements wide. */
static struct layout layout_heads(const struct cudnn_shape *s, int64_t heads, int64_t width)
{
    return (struct layout){ { s->batch, heads, s->sequence, s->head_size },
                            { s->sequence * width, s->head_size, width, 1 } };
}

static struct layout layout_transposed(struct layout l)
{
    return (struct layout){ { l.dim[0], l.dim[1], l.dim[3], l.dim[2] },
                            { l.stride[0], l.stride[1], l.stride[3], l.stride[2] } };
}

/* A matrix (rows, columns) for each query head. */
static struct layout layout_matrix(const struct cudnn_shape *s, int64_t rows, int64_t columns)
{
    return (struct layout){ { s->batch, s->heads, rows, columns },
                            { s->heads * rows * columns, rows * columns, columns, 1 } };
}

static struct layout layout_scores(const struct cudnn_shape *s)
{
    return layout_matrix(s, s->sequence, s->sequence);
}

/* One number for each query of each head. */
static struct layout layout_rows(const struct cudnn_shape *s)
{
    return (struct layout){ { s->batch, s->heads, s->sequence, 1 },
                            { s->heads * s->sequence, s->sequence, 1, 1 } };
}

static int64_t packed_width(const struct cudnn_shape *s)
{
    return (s->heads + 2 * s->kv_heads) * s->head_size;
}

/* `id` CUDNN_ID_OTHER: inside of the graph, never in memory. */
static descriptor tensor(struct cudnn_graph *g, enum cudnn_id id, cudnnDataType_t type,
                         struct layout l)
{
    descriptor t = cudnn_graph_make(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    bool inside = id == CUDNN_ID_OTHER;
    bool by_value = id >= CUDNN_ID_SCALE && id <= CUDNN_ID_ONE;
    int64_t number = inside ? CUDNN_ID_OTHER + g->next_id++ : (int64_t)id;
    int64_t alignment = by_value ? 4 : 16;
    cudnn_graph_set(g, t, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    cudnn_graph_set(g, t, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, l.dim);
    cudnn_graph_set(g, t, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, l.stride);
    cudnn_graph_set(g, t, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &number);
    cudnn_graph_set(g, t, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
    cudnn_graph_set(g, t, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &inside);
    if (by_value) {
        cudnn_graph_set(g, t, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &by_value);
    }
    cudnn_graph_finalize(g, t, "a tensor");
    return t;
}

static descriptor inner(struct cudnn_graph *g, cudnnDataType_t type, struct layout l)
{
    return tensor(g, CUDNN_ID_OTHER, type, l);
}

static descriptor scalar(struct cudnn_graph *g, enum cudnn_id id)
{
    return tensor(g, id, fp32, (struct layout){ { 1, 1, 1, 1 }, { 1, 1, 1, 1 } });
}

/* ---- operations: each returns the tensor that it writes -------------------------------------- */

static void add_operation(struct cudnn_graph *g, descriptor operation, const char *what)
{
    cudnn_graph_finalize(g, operation, what);
    if (!g->failed && g->operation_count < CUDNN_OPERATIONS_MAX) {
        g->operation[g->operation_count++] = operation;
    }
}

static descriptor product(struct cudnn_graph *g, descriptor a, descriptor b, descriptor c)
{
    descriptor how = cudnn_graph_make(g, CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    cudnn_graph_set(g, how, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &fp32);
    cudnn_graph_finalize(g, how, "a product");
    descriptor o = cudnn_graph_make(g, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    set_descriptor(g, o, CUDNN_ATTR_OPERATION_MATMUL_ADESC, a);
    set_descriptor(g, o, CUDNN_ATTR_OPERATION_MATMUL_BDESC, b);
    set_descriptor(g, o, CUDNN_ATTR_OPERATION_MATMUL_CDESC, c);
    set_descriptor(g, o, CUDNN_ATTR_OPERATION_MATMUL_DESC, how);
    add_operation(g, o, "a product");
    return c;
}

/* What an elementwise operation reads, and computes in. */
struct pointwise {
    cudnnPointwiseMode_t mode;
    descriptor x, b, t; /* b and t may be NULL */
    cudnnDataType_t precision;
    int64_t axis; /* of an index; 0: none */
};

static descriptor pointwise(struct cudnn_graph *g, const struct pointwise *p, descriptor y)
{
    descriptor how = cudnn_graph_make(g, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    cudnn_graph_set(g, how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &p->mode);
    cudnn_graph_set(g, how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &p->precision);
    if (p->axis > 0) {
        cudnn_graph_set(g, how, CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, 1, &p->axis);
    }
    cudnn_graph_finalize(g, how, "an elementwise operation");
    descriptor o = cudnn_graph_make(g, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    set_descriptor(g, o, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how);
    set_descriptor(g, o, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, p->x);
    if (p->b != NULL) {
        set_descriptor(g, o, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, p->b);
    }
    if (p->t != NULL) {
        set_descriptor(g, o, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, p->t);
    }
    set_descriptor(g, o, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    add_operation(g, o, "an elementwise operation");
    return y;
}

/* y = x op b in fp32; b may be NULL. */
static descriptor combine(struct cudnn_graph *g, cudnnPointwiseMode_t mode, descriptor x,
                          descriptor b, descriptor y)
{
    return pointwise(g, &(struct pointwise){ .mode = mode, .x = x, .b = b, .precision = fp32 }, y);
}

static descriptor reduction(struct cudnn_graph *g, cudnnReduceTensorOp_t mode, descriptor x,
                            descriptor y)
{
    descriptor how = cudnn_graph_make(g, CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
    cudnn_graph_set(g, how, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1,
                    &mode);
    cudnn_graph_set(g, how, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &fp32);
    cudnn_graph_finalize(g, how, "a reduction");
    descriptor o = cudnn_graph_make(g, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
    set_descriptor(g, o, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x);
    set_descriptor(g, o, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y);
    set_descriptor(g, o, CUDNN_ATTR_OPERATION_REDUCTION_DESC, how);
    add_operation(g, o, "a reduction");
    return y;
}

static descriptor reshape(struct cudnn_graph *g, descriptor x, descriptor y)
{
    descriptor o = cudnn_graph_make(g, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
    set_descriptor(g, o, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x);
    set_descriptor(g, o, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, y);
    add_operation(g, o, "a reshape");
    return y;
}

/* ---- attention ------------------------------------------------------------------------------ */

/* Scores of later keys become `hidden`: select(row >= column, scores, hidden). */
static descriptor hide(struct cudnn_graph *g, const struct cudnn_shape *s, descriptor scores,
                       descriptor hidden)
{
    struct layout square = layout_scores(s);
    descriptor index[2];
    for (int i = 0; i < 2; i++) {
        index[i] = pointwise(
            g,
            &(struct pointwise){
                .mode = CUDNN_POINTWISE_GEN_INDEX, .x = scores, .precision = fp32, .axis = 2 + i },
            inner(g, CUDNN_DATA_INT32, square));
    }
    descriptor seen = pointwise(g,
                                &(struct pointwise){ .mode = CUDNN_POINTWISE_CMP_GE,
                                                     .x = index[0],
                                                     .b = index[1],
                                                     .precision = CUDNN_DATA_BOOLEAN },
                                inner(g, CUDNN_DATA_BOOLEAN, square));
    return pointwise(g,
                     &(struct pointwise){ .mode = CUDNN_POINTWISE_BINARY_SELECT,
                                          .x = scores,
                                          .b = hidden,
                                          .t = seen,
                                          .precision = fp32 },
                     inner(g, fp32, square));
}

static void build_forward(struct cudnn_graph *g, const struct cudnn_shape *s)
{
    struct layout queries = layout_heads(s, s->heads, packed_width(s));
    struct layout keys = layout_heads(s, s->kv_heads, packed_width(s));
    struct layout square = layout_scores(s);
    struct layout rows = layout_rows(s);
    descriptor q = tensor(g, CUDNN_ID_Q, bf16, queries);
    descriptor k = tensor(g, CUDNN_ID_K, bf16, layout_transposed(keys));
    descriptor v = tensor(g, CUDNN_ID_V, bf16, keys);
    descriptor scale = scalar(g, CUDNN_ID_SCALE);
    descriptor hidden = scalar(g, CUDNN_ID_HIDDEN);
    descriptor x = product(g, q, k, inner(g, fp32, square));
    x = combine(g, CUDNN_POINTWISE_MUL, x, scale, inner(g, fp32, square));
    x = hide(g, s, x, hidden);
    descriptor most = reduction(g, CUDNN_REDUCE_TENSOR_MAX, x, inner(g, fp32, rows));
    x = combine(g, CUDNN_POINTWISE_SUB, x, most, inner(g, fp32, square));
    x = combine(g, CUDNN_POINTWISE_EXP, x, NULL, inner(g, fp32, square));
    descriptor total = reduction(g, CUDNN_REDUCE_TENSOR_ADD, x, inner(g, fp32, rows));
    descriptor log = combine(g, CUDNN_POINTWISE_LOG, total, NULL, inner(g, fp32, rows));
    combine(g, CUDNN_POINTWISE_ADD, most, log, tensor(g, CUDNN_ID_LSE, fp32, rows));
    x = combine(g, CUDNN_POINTWISE_DIV, x, total, inner(g, bf16, square));
    product(g, x, v,
            tensor(g, CUDNN_ID_OUT, bf16, layout_heads(s, s->heads, s->heads * s->head_size)));
}

/* The gradient of keys or values: transposed weights times what the queries hold, summed over the
 * heads of a group. */
static void build_key_side(struct cudnn_graph *g, const struct cudnn_shape *s, descriptor weights,
                           descriptor rows, enum cudnn_id id)
{
    struct layout turned = layout_transposed(layout_scores(s));
    descriptor to = tensor(g, id, bf16, layout_heads(s, s->kv_heads, packed_width(s)));
    descriptor w = reshape(g, weights, inner(g, bf16, turned));
    if (s->heads == s->kv_heads) {
        product(g, w, rows, to);
        return;
    }
    descriptor each = inner(g, bf16, layout_matrix(s, s->sequence, s->head_size));
    reduction(g, CUDNN_REDUCE_TENSOR_ADD, product(g, w, rows, each), to);
}

static void build_backward(struct cudnn_graph *g, const struct cudnn_shape *s)
{
    struct layout queries = layout_heads(s, s->heads, packed_width(s));
    struct layout keys = layout_heads(s, s->kv_heads, packed_width(s));
    struct layout outs = layout_heads(s, s->heads, s->heads * s->head_size);
    struct layout whole = layout_matrix(s, s->sequence, s->head_size);
    struct layout square = layout_scores(s);
    struct layout rows = layout_rows(s);
    descriptor q = tensor(g, CUDNN_ID_Q, bf16, queries);
    descriptor k = tensor(g, CUDNN_ID_K, bf16, layout_transposed(keys));
    descriptor v = tensor(g, CUDNN_ID_V, bf16, layout_transposed(keys));
    descriptor out = tensor(g, CUDNN_ID_OUT, bf16, outs);
    descriptor dout = tensor(g, CUDNN_ID_DOUT, bf16, outs);
    descriptor lse = tensor(g, CUDNN_ID_LSE, fp32, rows);
    descriptor delta = tensor(g, CUDNN_ID_DELTA, fp32, rows);
    descriptor scale = scalar(g, CUDNN_ID_SCALE);
    descriptor hidden = scalar(g, CUDNN_ID_HIDDEN);
    descriptor one = scalar(g, CUDNN_ID_ONE);
    descriptor x = combine(g, CUDNN_POINTWISE_MUL, dout, out, inner(g, fp32, whole));
    x = reduction(g, CUDNN_REDUCE_TENSOR_ADD, x, inner(g, fp32, rows));
    combine(g, CUDNN_POINTWISE_MUL, x, one, delta); /* it has to be in memory between two passes */
    x = product(g, q, k, inner(g, fp32, square));
    x = combine(g, CUDNN_POINTWISE_MUL, x, scale, inner(g, fp32, square));
    x = combine(g, CUDNN_POINTWISE_SUB, x, lse, inner(g, fp32, square));
    x = hide(g, s, x, hidden);
    descriptor p = combine(g, CUDNN_POINTWISE_EXP, x, NULL, inner(g, fp32, square));
    build_key_side(g, s, p, dout, CUDNN_ID_DV);
    x = product(g, dout, v, inner(g, fp32, square));
    x = combine(g, CUDNN_POINTWISE_SUB, x, delta, inner(g, fp32, square));
    x = combine(g, CUDNN_POINTWISE_MUL, x, p, inner(g, fp32, square));
    descriptor slope = combine(g, CUDNN_POINTWISE_MUL, x, scale, inner(g, bf16, square));
    build_key_side(g, s, slope, q, CUDNN_ID_DK);
    descriptor plain_keys = reshape(g, k, inner(g, bf16, keys));
    descriptor sum = product(g, slope, plain_keys, tensor(g, CUDNN_ID_DQ_SUM, fp32, whole));
    combine(g, CUDNN_POINTWISE_IDENTITY, sum, NULL, tensor(g, CUDNN_ID_DQ, bf16, queries));
}

int cudnn_graph_build(struct cudnn_graph *g, const struct cudnn_shape *shape, cudnnHandle_t handle)
{
    if (shape->backward) {
        build_backward(g, shape);
    } else {
        build_forward(g, shape);
    }
    g->whole = cudnn_graph_make(g, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    if (handle != NULL) {
        cudnn_graph_set(g, g->whole, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1,
                        &handle);
    }
    cudnn_graph_set(g, g->whole, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                    g->operation_count, g->operation);
    cudnn_graph_finalize(g, g->whole, "the graph of attention");
    return g->failed ? -1 : 0;
}

void cudnn_graph_free(struct cudnn_graph *g)
{
    while (g->held_count > 0) {
        g->call->drop(g->held[--g->held_count]);
    }
}
