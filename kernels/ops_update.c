/* Operations of the update: selection, gather and scatter, AdamW, random numbers; checked, counted
 * (FLOPs as in ops.c) and handed to the backend. */
#include "kernels/call.h"

static bool check_side(struct call *c, enum side side)
{
    return call_require(c, side == SIDE_ROWS || side == SIDE_COLUMNS, "there is no side %d",
                        (int)side);
}

static int64_t along(const struct tensor *t, enum side side)
{
    return side == SIDE_ROWS ? tensor_rows(t) : tensor_columns(t);
}

void op_squared_norms(struct backend *be, struct tensor *norms, const struct tensor *x,
                      enum side side)
{
    struct call c;
    if (!call_begin(&c, be, "squared_norms") || !call_tensor(&c, "x", x, CALL_IN | CALL_FLOAT) ||
        !check_side(&c, side)) {
        return;
    }
    call_elements(&c, "norms", norms, CALL_OUT | CALL_FP32, along(x, side));
    if (call_start(&c)) {
        be->ops->squared_norms(be, norms, x, side);
        call_finish(&c, OP_SELECT, 2.0 * (double)tensor_count(x));
    }
}

void op_select(struct backend *be, const struct select *args)
{
    struct call c;
    if (!call_begin(&c, be, "select") ||
        !call_tensor(&c, "norms", args->norms, CALL_IN | CALL_FP32) ||
        !call_tensor(&c, "index", args->index, CALL_OUT | CALL_INT32)) {
        return;
    }
    int64_t candidates = tensor_count(args->norms);
    int64_t chosen = tensor_count(args->index);
    call_elements(&c, "scale", args->scale, CALL_OUT | CALL_FP32, chosen);
    call_require(&c, chosen <= candidates, "%lld of %lld candidates cannot be chosen",
                 (long long)chosen, (long long)candidates);
    call_require(&c, (unsigned)args->rule <= SELECT_WINNERS, "there is no rule %d",
                 (int)args->rule);
    if (call_start(&c)) {
        be->ops->select(be, args);
        call_finish(&c, OP_SELECT, 2.0 * (double)candidates);
    }
}

/* The smaller matrix of a gather or scatter: R rows or columns of `whole`. */
static void check_part(struct call *c, const struct tensor *part, unsigned use,
                       const struct tensor *whole, int64_t chosen, enum side side)
{
    int64_t rows = side == SIDE_ROWS ? chosen : tensor_rows(whole);
    int64_t columns = side == SIDE_ROWS ? tensor_columns(whole) : chosen;
    call_matrix(c, "y", part, use, rows, columns);
}

void op_gather(struct backend *be, struct tensor *y, const struct tensor *x,
               const struct tensor *index, enum side side)
{
    struct call c;
    if (!call_begin(&c, be, "gather") ||
        !call_tensor(&c, "x", x, CALL_IN | CALL_FLOAT | CALL_INT16 | CALL_UINT8 | CALL_UNCOUNTED) ||
        !call_tensor(&c, "index", index, CALL_IN | CALL_INT32) || !check_side(&c, side)) {
        return;
    }
    unsigned dtype = x->dtype == DTYPE_I16  ? CALL_INT16
                     : x->dtype == DTYPE_U8 ? CALL_UINT8
                                            : CALL_FLOAT;
    check_part(&c, y, CALL_OUT | dtype, x, tensor_count(index), side);
    if (call_start(&c)) {
        c.bytes += (double)tensor_count(y) * (double)dtype_size(x->dtype);
        be->ops->gather(be, y, x, index, side);
        call_finish(&c, OP_PROJECT, 0.0);
    }
}

void op_scatter(struct backend *be, struct tensor *x, const struct tensor *y,
                const struct tensor *index, enum side side)
{
    struct call c;
    if (!call_begin(&c, be, "scatter") ||
        !call_tensor(&c, "x", x, CALL_INOUT | CALL_FLOAT | CALL_UINT8 | CALL_UNCOUNTED) ||
        !call_tensor(&c, "index", index, CALL_IN | CALL_INT32) || !check_side(&c, side)) {
        return;
    }
    unsigned dtype = x->dtype == DTYPE_U8 ? CALL_UINT8 : CALL_FLOAT;
    check_part(&c, y, CALL_IN | dtype, x, tensor_count(index), side);
    if (call_start(&c)) {
        c.bytes += (double)tensor_count(y) * (double)dtype_size(x->dtype);
        be->ops->scatter(be, x, y, index, side);
        call_finish(&c, OP_PROJECT, 0.0);
    }
}

void op_scale_side(struct backend *be, struct tensor *x, const struct tensor *scale, enum side side)
{
    struct call c;
    if (!call_begin(&c, be, "scale_side") || !call_tensor(&c, "x", x, CALL_INOUT | CALL_FLOAT) ||
        !check_side(&c, side)) {
        return;
    }
    call_elements(&c, "scale", scale, CALL_IN | CALL_FP32, along(x, side));
    if (call_start(&c)) {
        be->ops->scale_side(be, x, scale, side);
        call_finish(&c, OP_PROJECT, (double)tensor_count(x));
    }
}

/* Shapes of the gradient and the moments: those of the weight, or of its selected part. */
static void check_adamw_shapes(struct call *c, const struct adamw *args)
{
    int64_t rows = tensor_rows(args->weight);
    int64_t columns = tensor_columns(args->weight);
    int64_t ages = 1;
    if (args->index != NULL) {
        if (!call_tensor(c, "index", args->index, CALL_IN | CALL_INT32) ||
            !check_side(c, args->side)) {
            return;
        }
        ages = tensor_count(args->index);
        rows = args->side == SIDE_ROWS ? ages : rows;
        columns = args->side == SIDE_COLUMNS ? ages : columns;
        if (args->rho != NULL) {
            call_elements(c, "rho", args->rho, CALL_IN | CALL_FP32, ages);
        }
    }
    call_require(c, args->index != NULL || args->rho == NULL, "rho needs an index");
    call_matrix(c, "gradient", args->gradient, CALL_IN | CALL_FLOAT, rows, columns);
    bool bytes = args->m_absmax != NULL;
    unsigned moments = CALL_INOUT | (bytes ? CALL_UINT8 : CALL_FLOAT);
    call_matrix(c, "m", args->m, moments, rows, columns);
    call_matrix(c, "v", args->v, moments, rows, columns);
    if (bytes) {
        int64_t down = args->side == SIDE_ROWS ? rows : quantize_blocks(rows);
        int64_t across = args->side == SIDE_ROWS ? quantize_blocks(columns) : columns;
        call_matrix(c, "m_absmax", args->m_absmax, CALL_INOUT | CALL_FP32, down, across);
        call_matrix(c, "v_absmax", args->v_absmax, CALL_INOUT | CALL_FP32, down, across);
    }
    if (args->residue != NULL) {
        call_require(c, args->weight->dtype == DTYPE_BF16, "a residue needs a bf16 weight");
        call_matrix(c, "residue", args->residue, CALL_INOUT | CALL_INT16, rows, columns);
    }
    call_elements(c, "age", args->age, CALL_INOUT | CALL_INT32, ages);
    call_elements(c, "control", args->control, CALL_IN | CALL_FP32, CONTROL_COUNT);
}

void op_adamw(struct backend *be, const struct adamw *args)
{
    struct call c;
    if (!call_begin(&c, be, "adamw") ||
        !call_tensor(&c, "weight", args->weight, CALL_INOUT | CALL_FLOAT | CALL_UNCOUNTED)) {
        return;
    }
    check_adamw_shapes(&c, args);
    if (call_start(&c)) {
        double updated = (double)tensor_count(args->gradient);
        c.bytes += 2.0 * updated * (double)dtype_size(args->weight->dtype);
        if (args->m_absmax != NULL) {
            be->ops->adamw_int8(be, args);
        } else {
            be->ops->adamw(be, args);
        }
        call_finish(&c, OP_OPTIMIZER, 18.0 * updated);
    }
}

void op_settle(struct backend *be, const struct settle *args)
{
    struct call c;
    if (!call_begin(&c, be, "settle") ||
        !call_tensor(&c, "weight", args->weight, CALL_INOUT | CALL_BF16 | CALL_UNCOUNTED) ||
        !call_tensor(&c, "index", args->index, CALL_IN | CALL_INT32) ||
        !check_side(&c, args->side)) {
        return;
    }
    check_part(&c, args->residue, CALL_IN | CALL_INT16, args->weight, tensor_count(args->index),
               args->side);
    if (call_start(&c)) {
        c.bytes += 2.0 * (double)tensor_bytes(args->residue);
        be->ops->settle(be, args);
        call_finish(&c, OP_OPTIMIZER, 0.0);
    }
}

void op_random_normal(struct backend *be, struct tensor *x, float deviation, struct random_key key)
{
    struct call c;
    if (!call_begin(&c, be, "random_normal")) {
        return;
    }
    call_tensor(&c, "x", x, CALL_OUT | CALL_FLOAT);
    if (call_start(&c)) {
        be->ops->random_normal(be, x, deviation, key);
        call_finish(&c, OP_RANDOM, (double)tensor_count(x));
    }
}

void op_random_sign(struct backend *be, struct tensor *x, float magnitude, struct random_key key)
{
    struct call c;
    if (!call_begin(&c, be, "random_sign")) {
        return;
    }
    call_tensor(&c, "x", x, CALL_OUT | CALL_FLOAT);
    if (call_start(&c)) {
        be->ops->random_sign(be, x, magnitude, key);
        call_finish(&c, OP_RANDOM, (double)tensor_count(x));
    }
}
