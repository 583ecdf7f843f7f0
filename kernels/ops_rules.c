/* Operations of the other update rules, and of eight-bit states: checked, counted (FLOPs as in
 * ops.c) and handed to the backend. */
#include "kernels/call.h"

static bool check_side(struct call *c, enum side side)
{
    return call_require(c, side == SIDE_ROWS || side == SIDE_COLUMNS, "there is no side %d",
                        (int)side);
}

static void check_sgd(struct call *c, const struct sgd *args)
{
    int64_t rows = tensor_rows(args->weight);
    int64_t columns = tensor_columns(args->weight);
    int64_t ages = 1;
    int64_t factors = args->side == SIDE_COLUMNS ? columns : rows;
    if (args->index != NULL) {
        if (!call_tensor(c, "index", args->index, CALL_IN | CALL_INT32) ||
            !check_side(c, args->side)) {
            return;
        }
        ages = tensor_count(args->index);
        factors = ages;
        rows = args->side == SIDE_ROWS ? ages : rows;
        columns = args->side == SIDE_COLUMNS ? ages : columns;
    }
    if (args->rho != NULL) {
        call_elements(c, "rho", args->rho, CALL_IN | CALL_FP32, factors);
    }
    call_matrix(c, "gradient", args->gradient, CALL_IN | CALL_FLOAT, rows, columns);
    if (args->age != NULL) {
        call_elements(c, "age", args->age, CALL_INOUT | CALL_INT32, ages);
    }
    call_elements(c, "control", args->control, CALL_IN | CALL_FP32, CONTROL_COUNT);
}

void op_sgd(struct backend *be, const struct sgd *args)
{
    struct call c;
    if (!call_begin(&c, be, "sgd") ||
        !call_tensor(&c, "weight", args->weight, CALL_INOUT | CALL_FLOAT | CALL_UNCOUNTED)) {
        return;
    }
    check_sgd(&c, args);
    if (call_start(&c)) {
        double updated = (double)tensor_count(args->gradient);
        c.bytes += 2.0 * updated * (double)dtype_size(args->weight->dtype);
        be->ops->sgd(be, args);
        call_finish(&c, OP_OPTIMIZER, 5.0 * updated);
    }
}

void op_unit_factors(struct backend *be, const struct unit_factors *args)
{
    struct call c;
    if (!call_begin(&c, be, "unit_factors") ||
        !call_tensor(&c, "norms", args->norms, CALL_IN | CALL_FP32)) {
        return;
    }
    int64_t count = tensor_count(args->norms);
    call_elements(&c, "factors", args->factors, CALL_OUT | CALL_FP32, count);
    call_tensor(&c, "index", args->index, CALL_IN | CALL_INT32);
    call_require(&c, args->length >= 1, "rows of %lld elements have no root mean square",
                 (long long)args->length);
    if (call_start(&c)) {
        be->ops->unit_factors(be, args);
        call_finish(&c, OP_OPTIMIZER, 3.0 * (double)count);
    }
}

void op_tradam(struct backend *be, const struct tradam *args)
{
    struct call c;
    if (!call_begin(&c, be, "tradam") ||
        !call_tensor(&c, "weight", args->weight, CALL_INOUT | CALL_FLOAT)) {
        return;
    }
    int64_t count = tensor_count(args->weight);
    unsigned own = args->weight->dtype == DTYPE_BF16 ? CALL_BF16 : CALL_FP32;
    call_elements(&c, "m", args->m, CALL_INOUT | CALL_FLOAT, count);
    call_elements(&c, "v", args->v, CALL_INOUT | CALL_FLOAT, count);
    call_elements(&c, "anchor", args->anchor, CALL_INOUT | own, count);
    call_elements(&c, "gradient", args->gradient, CALL_IN | CALL_FLOAT, count);
    call_elements(&c, "age", args->age, CALL_INOUT | CALL_INT32, 1);
    call_elements(&c, "control", args->control, CALL_IN | CALL_FP32, CONTROL_COUNT);
    call_require(&c, args->interval >= 1, "a loop of %lld steps has no first one",
                 (long long)args->interval);
    if (call_start(&c)) {
        be->ops->tradam(be, args);
        call_finish(&c, OP_OPTIMIZER, 21.0 * (double)count);
    }
}

static void check_blocks(struct call *c, const struct tensor *absmax, unsigned use,
                         const struct tensor *x, enum side side)
{
    int64_t rows = tensor_rows(x);
    int64_t columns = tensor_columns(x);
    bool by_row = side == SIDE_ROWS;
    call_matrix(c, "absmax", absmax, use | CALL_FP32, by_row ? rows : quantize_blocks(rows),
                by_row ? quantize_blocks(columns) : columns);
}

static bool check_map(struct call *c, enum quantize_map map)
{
    return call_require(c, map == QUANTIZE_SIGNED || map == QUANTIZE_ROOT, "there is no table %d",
                        (int)map);
}

void op_quantize(struct backend *be, const struct quantize *args)
{
    struct call c;
    if (!call_begin(&c, be, "quantize") || !call_tensor(&c, "x", args->x, CALL_IN | CALL_FLOAT) ||
        !check_side(&c, args->side) || !check_map(&c, args->map)) {
        return;
    }
    call_matrix(&c, "codes", args->codes, CALL_OUT | CALL_UINT8, tensor_rows(args->x),
                tensor_columns(args->x));
    check_blocks(&c, args->absmax, CALL_OUT, args->x, args->side);
    if (call_start(&c)) {
        be->ops->quantize(be, args);
        call_finish(&c, OP_OPTIMIZER, 4.0 * (double)tensor_count(args->x));
    }
}

void op_dequantize(struct backend *be, const struct dequantize *args)
{
    struct call c;
    if (!call_begin(&c, be, "dequantize") ||
        !call_tensor(&c, "codes", args->codes, CALL_IN | CALL_UINT8) ||
        !check_side(&c, args->side) || !check_map(&c, args->map)) {
        return;
    }
    call_matrix(&c, "x", args->x, CALL_OUT | CALL_FLOAT, tensor_rows(args->codes),
                tensor_columns(args->codes));
    check_blocks(&c, args->absmax, CALL_IN, args->codes, args->side);
    if (call_start(&c)) {
        be->ops->dequantize(be, args);
        call_finish(&c, OP_OPTIMIZER, 2.0 * (double)tensor_count(args->codes));
    }
}
