/*
 * Operations of the forward and backward pass: checked, counted, handed to the backend.
 *
 * FLOPs are multiplications and additions counted separately; divisions, roots and exponentials
 * count as one each. They say how much arithmetic a result takes, not what a kernel happens to do.
 */
#include "kernels/ops.h"

#include "kernels/call.h"

/* The number of rows or columns of a tensor that may be missing: its check fails a moment later. */
static int64_t rows_of(const struct tensor *t)
{
    return t != NULL && t->rank >= 1 && t->rank <= TENSOR_RANK_MAX ? tensor_rows(t) : 0;
}

static int64_t columns_of(const struct tensor *t)
{
    return t != NULL && t->rank >= 1 && t->rank <= TENSOR_RANK_MAX ? tensor_columns(t) : 0;
}

/* ---- elementwise ------------------------------------------------------------------------- */

void op_zero(struct backend *be, struct tensor *y)
{
    struct call c;
    if (!call_begin(&c, be, "zero")) {
        return;
    }
    call_tensor(&c, "y", y, CALL_OUT | CALL_FLOAT | CALL_INT32 | CALL_UINT8 | CALL_INT16);
    if (call_start(&c)) {
        be->ops->zero(be, y);
        call_finish(&c, OP_ELEMENTWISE, 0.0);
    }
}

void op_copy(struct backend *be, struct tensor *y, const struct tensor *x)
{
    struct call c;
    if (!call_begin(&c, be, "copy") ||
        !call_tensor(&c, "x", x, CALL_IN | CALL_FLOAT | CALL_UINT8 | CALL_INT16)) {
        return;
    }
    unsigned same = x->dtype == DTYPE_U8    ? CALL_UINT8
                    : x->dtype == DTYPE_I16 ? CALL_INT16
                                            : CALL_FLOAT;
    call_elements(&c, "y", y, CALL_OUT | same, tensor_count(x));
    if (call_start(&c)) {
        be->ops->copy(be, y, x);
        call_finish(&c, OP_ELEMENTWISE, 0.0);
    }
}

void op_add(struct backend *be, struct tensor *y, const struct tensor *x)
{
    struct call c;
    if (!call_begin(&c, be, "add") || !call_tensor(&c, "x", x, CALL_IN | CALL_FLOAT)) {
        return;
    }
    call_elements(&c, "y", y, CALL_INOUT | CALL_FLOAT, tensor_count(x));
    if (call_start(&c)) {
        be->ops->add(be, y, x);
        call_finish(&c, OP_ELEMENTWISE, (double)tensor_count(x));
    }
}

void op_scale(struct backend *be, struct tensor *y, float s)
{
    struct call c;
    if (!call_begin(&c, be, "scale")) {
        return;
    }
    call_tensor(&c, "y", y, CALL_INOUT | CALL_FLOAT);
    if (call_start(&c)) {
        be->ops->scale(be, y, s);
        call_finish(&c, OP_ELEMENTWISE, (double)tensor_count(y));
    }
}

void op_sum(struct backend *be, struct tensor *sum, const struct tensor *x, bool accumulate)
{
    struct call c;
    if (!call_begin(&c, be, "sum")) {
        return;
    }
    call_tensor(&c, "x", x, CALL_IN | CALL_FLOAT);
    call_elements(&c, "sum", sum, (accumulate ? CALL_INOUT : CALL_OUT) | CALL_FP32, 1);
    if (call_start(&c)) {
        be->ops->sum(be, sum, x, accumulate);
        call_finish(&c, OP_ELEMENTWISE, (double)tensor_count(x));
    }
}

void op_sum_squares(struct backend *be, struct tensor *sum, const struct tensor *x, bool accumulate)
{
    struct call c;
    if (!call_begin(&c, be, "sum_squares")) {
        return;
    }
    call_tensor(&c, "x", x, CALL_IN | CALL_FLOAT);
    call_elements(&c, "sum", sum, (accumulate ? CALL_INOUT : CALL_OUT) | CALL_FP32, 1);
    if (call_start(&c)) {
        be->ops->sum_squares(be, sum, x, accumulate);
        call_finish(&c, OP_ELEMENTWISE, 2.0 * (double)tensor_count(x));
    }
}

void op_clip(struct backend *be, struct tensor *control, const struct tensor *sum_squares,
             const struct tensor *loss, float clip)
{
    struct call c;
    if (!call_begin(&c, be, "clip")) {
        return;
    }
    call_elements(&c, "control", control, CALL_OUT | CALL_FP32, CONTROL_COUNT);
    call_elements(&c, "sum_squares", sum_squares, CALL_IN | CALL_FP32, 1);
    call_elements(&c, "loss", loss, CALL_IN | CALL_FP32, 1);
    call_require(&c, clip >= 0.0f, "the clip must be 0 (off) or more, not %g", (double)clip);
    if (call_start(&c)) {
        be->ops->clip(be, control, sum_squares, loss, clip);
        call_finish(&c, OP_ELEMENTWISE, 3.0);
    }
}

/* ---- matrix product ---------------------------------------------------------------------- */

void op_matmul(struct backend *be, const struct matmul *args)
{
    struct call c;
    if (!call_begin(&c, be, "matmul") ||
        !call_tensor(&c, "a", args->a, CALL_IN | CALL_FLOAT | CALL_UNCOUNTED)) {
        return;
    }
    const struct tensor *a = args->a;
    int64_t whole = tensor_columns(a);
    int64_t columns = args->a_columns > 0 ? args->a_columns : whole;
    bool inside = args->a_columns > 0
                      ? args->a_first >= 0 && columns <= whole && args->a_first <= whole - columns
                      : args->a_first == 0 && args->a_columns == 0;
    if (!call_require(&c, inside, "columns [%lld, %lld) are not inside a", (long long)args->a_first,
                      (long long)(args->a_first + args->a_columns))) {
        return;
    }
    int64_t m = args->transpose_a ? columns : tensor_rows(a);
    int64_t k = args->transpose_a ? tensor_rows(a) : columns;
    int64_t n = args->transpose_b ? rows_of(args->b) : columns_of(args->b);
    call_matrix(&c, args->transpose_b ? "b (to be transposed)" : "b", args->b,
                CALL_IN | (a->dtype == DTYPE_F32 ? CALL_FP32 : CALL_BF16),
                args->transpose_b ? n : k, args->transpose_b ? k : n);
    call_require(&c, args->beta == 0.0f || args->beta == 1.0f, "beta must be 0 or 1, not %g",
                 (double)args->beta);
    unsigned use = args->beta == 0.0f ? CALL_OUT : CALL_INOUT;
    call_matrix(&c, "c", args->c, use | CALL_FLOAT, m, n);
    if (args->addend != NULL) {
        call_require(&c, args->beta == 0.0f, "with an addend beta must be 0");
        call_require(&c, args->c != NULL && args->addend->dtype == args->c->dtype,
                     "the addend must have the dtype of c");
        call_matrix(&c, "addend", args->addend, CALL_IN | CALL_FLOAT, m, n);
    }
    c.bytes += (double)m * (double)k * (double)dtype_size(a->dtype);
    if (call_start(&c)) {
        be->ops->matmul(be, args);
        call_finish(&c, OP_MATMUL, 2.0 * (double)m * (double)n * (double)k);
    }
}

/* ---- captured columns -------------------------------------------------------------------- */

/* Checks what an operation captures of its result (rows, columns). */
static void check_capture(struct call *c, const struct capture *capture, int64_t rows)
{
    if (capture == NULL ||
        !call_tensor(c, "captured index", capture->index, CALL_IN | CALL_INT32)) {
        return;
    }
    call_matrix(c, "captured columns", capture->out, CALL_OUT | CALL_FLOAT, rows,
                tensor_count(capture->index));
}

/* ---- normalisation ----------------------------------------------------------------------- */

void op_rmsnorm_forward(struct backend *be, const struct rmsnorm_forward *args)
{
    struct call c;
    if (!call_begin(&c, be, "rmsnorm_forward") ||
        !call_tensor(&c, "x", args->x, CALL_IN | CALL_FLOAT | CALL_ALIAS)) {
        return;
    }
    int64_t rows = tensor_rows(args->x);
    int64_t columns = tensor_columns(args->x);
    call_matrix(&c, "y", args->y, CALL_OUT | CALL_FLOAT | CALL_ALIAS, rows, columns);
    call_elements(&c, "weight", args->weight, CALL_IN | CALL_FLOAT, columns);
    call_elements(&c, "rstd", args->rstd, CALL_OUT | CALL_FP32, rows);
    if (call_start(&c)) {
        be->ops->rmsnorm_forward(be, args);
        call_finish(&c, OP_NORM, 4.0 * (double)rows * (double)columns);
    }
}

void op_rmsnorm_backward(struct backend *be, const struct rmsnorm_backward *args)
{
    struct call c;
    if (!call_begin(&c, be, "rmsnorm_backward") ||
        !call_tensor(&c, "x", args->x, CALL_IN | CALL_FLOAT)) {
        return;
    }
    int64_t rows = tensor_rows(args->x);
    int64_t columns = tensor_columns(args->x);
    call_matrix(&c, "dx", args->dx, CALL_INOUT | CALL_FLOAT, rows, columns);
    call_matrix(&c, "dy", args->dy, CALL_IN | CALL_FLOAT, rows, columns);
    call_elements(&c, "weight", args->weight, CALL_IN | CALL_FLOAT, columns);
    call_elements(&c, "rstd", args->rstd, CALL_IN | CALL_FP32, rows);
    if (args->dweight != NULL) {
        call_elements(&c, "dweight", args->dweight, CALL_INOUT | CALL_FLOAT, columns);
    }
    check_capture(&c, args->capture, rows);
    if (call_start(&c)) {
        be->ops->rmsnorm_backward(be, args);
        double each = args->dweight != NULL ? 10.0 : 7.0;
        call_finish(&c, OP_NORM, each * (double)rows * (double)columns);
    }
}

/* ---- rotary position embedding ------------------------------------------------------------ */

void op_rope(struct backend *be, const struct rope *args)
{
    struct call c;
    if (!call_begin(&c, be, "rope") ||
        !call_tensor(&c, "x", args->x, CALL_INOUT | CALL_FLOAT | CALL_UNCOUNTED)) {
        return;
    }
    int64_t rows = tensor_rows(args->x);
    int64_t width = tensor_columns(args->x);
    call_require(&c, args->head_size > 0 && args->head_size % 2 == 0,
                 "the head size must be even and more than 0, not %lld",
                 (long long)args->head_size);
    call_require(&c, args->heads >= 0 && args->heads * args->head_size <= width,
                 "%lld heads of %lld do not fit into a row of x", (long long)args->heads,
                 (long long)args->head_size);
    call_matrix(&c, "table", args->table, CALL_IN | CALL_FP32 | CALL_UNCOUNTED,
                rows_of(args->table), args->head_size);
    call_elements(&c, "positions", args->positions, CALL_IN | CALL_INT32, rows);
    check_capture(&c, args->capture, rows);
    double rotated = (double)rows * (double)args->heads * (double)args->head_size;
    if (call_start(&c)) {
        c.bytes += 2.0 * rotated * (double)dtype_size(args->x->dtype);
        c.bytes += (double)tensor_bytes(args->table);
        be->ops->rope(be, args);
        call_finish(&c, OP_ROPE, 3.0 * rotated);
    }
}

/* ---- attention ------------------------------------------------------------------------------ */

/* Query-key pairs of all heads in a causal triangle. */
static double causal_pairs(const struct attention_shape *s)
{
    return (double)s->batch * (double)s->heads * (double)s->sequence * ((double)s->sequence + 1.0) /
           2.0;
}

static int64_t packed_width(const struct attention_shape *s)
{
    return (s->heads + 2 * s->kv_heads) * s->head_size;
}

/* Checks the numbers and the tensors that all three have: qkv and out (or its gradient). */
static bool check_attention(struct call *c, const struct attention_shape *s,
                            const struct tensor *qkv, const char *role, const struct tensor *out,
                            unsigned use)
{
    bool good = s->batch >= 0 && s->sequence >= 0 && s->heads > 0 && s->kv_heads > 0 &&
                s->head_size > 0 && s->heads % s->kv_heads == 0;
    if (!call_require(c, good,
                      "batch %lld, sequence %lld, heads %lld, key/value heads %lld, head size %lld "
                      "are no attention: heads must be a multiple of key/value heads",
                      (long long)s->batch, (long long)s->sequence, (long long)s->heads,
                      (long long)s->kv_heads, (long long)s->head_size)) {
        return false;
    }
    int64_t tokens = s->batch * s->sequence;
    call_matrix(c, "qkv", qkv, CALL_IN | CALL_FLOAT, tokens, packed_width(s));
    return call_matrix(c, role, out, use | CALL_FLOAT, tokens, s->heads * s->head_size);
}

void op_attention_forward(struct backend *be, const struct attention_forward *args)
{
    const struct attention_shape *s = &args->shape;
    struct call c;
    if (!call_begin(&c, be, "attention_forward") ||
        !check_attention(&c, s, args->qkv, "out", args->out, CALL_OUT)) {
        return;
    }
    call_elements(&c, "lse", args->lse, CALL_OUT | CALL_FP32, s->batch * s->heads * s->sequence);
    if (args->starts != NULL) {
        call_elements(&c, "starts", args->starts, CALL_IN | CALL_INT32, s->batch * s->sequence);
    }
    if (call_start(&c)) {
        be->ops->attention_forward(be, args);
        call_finish(&c, OP_ATTENTION, 4.0 * (double)s->head_size * causal_pairs(s));
    }
}

/* Five products of the forward's size instead of two: the scores again, and gradients of
 * probabilities, values, queries and keys. */
void op_attention_backward(struct backend *be, const struct attention_backward *args)
{
    const struct attention_shape *s = &args->shape;
    struct call c;
    if (!call_begin(&c, be, "attention_backward") ||
        !check_attention(&c, s, args->qkv, "out", args->out, CALL_IN)) {
        return;
    }
    int64_t tokens = s->batch * s->sequence;
    int64_t statistics = s->heads * tokens;
    call_matrix(&c, "dqkv", args->dqkv, CALL_OUT | CALL_FLOAT, tokens, packed_width(s));
    call_matrix(&c, "dout", args->dout, CALL_IN | CALL_FLOAT, tokens, s->heads * s->head_size);
    call_elements(&c, "lse", args->lse, CALL_IN | CALL_FP32, statistics);
    call_elements(&c, "delta", args->delta, CALL_OUT | CALL_FP32, statistics);
    if (args->starts != NULL) {
        call_elements(&c, "starts", args->starts, CALL_IN | CALL_INT32, tokens);
    }
    if (call_start(&c)) {
        be->ops->attention_backward(be, args);
        call_finish(&c, OP_ATTENTION, 10.0 * (double)s->head_size * causal_pairs(s));
    }
}

void op_attention_decode(struct backend *be, const struct attention_decode *args)
{
    const struct attention_shape *s = &args->shape;
    struct call c;
    if (!call_begin(&c, be, "attention_decode")) {
        return;
    }
    call_require(&c, s->sequence == 1, "the sequence must be 1 (one new token a row), not %lld",
                 (long long)s->sequence);
    if (!check_attention(&c, s, args->qkv, "out", args->out, CALL_OUT)) {
        return;
    }
    int64_t width = s->kv_heads * s->head_size;
    unsigned cache = CALL_INOUT | CALL_FLOAT | CALL_UNCOUNTED;
    int64_t held = s->batch > 0 ? rows_of(args->keys) / s->batch : 0;
    call_matrix(&c, "keys", args->keys, cache, s->batch * held, width);
    call_matrix(&c, "values", args->values, cache, s->batch * held, width);
    call_require(&c, args->position >= 0 && (args->position < held || s->batch == 0),
                 "position %lld is not one of the %lld of the caches", (long long)args->position,
                 (long long)held);
    if (call_start(&c)) {
        double seen = (double)(args->position + 1) * (double)s->batch;
        c.bytes += seen * (double)width * (double)dtype_size(args->keys->dtype);
        c.bytes += seen * (double)width * (double)dtype_size(args->values->dtype);
        be->ops->attention_decode(be, args);
        call_finish(&c, OP_ATTENTION, 4.0 * (double)s->head_size * (double)s->heads * seen);
    }
}

/* ---- feed-forward activation ----------------------------------------------------------------- */

void op_swiglu_forward(struct backend *be, struct tensor *y, const struct tensor *gate_up)
{
    struct call c;
    if (!call_begin(&c, be, "swiglu_forward") || !call_tensor(&c, "y", y, CALL_OUT | CALL_FLOAT)) {
        return;
    }
    call_matrix(&c, "gate_up", gate_up, CALL_IN | CALL_FLOAT, tensor_rows(y),
                2 * tensor_columns(y));
    if (call_start(&c)) {
        be->ops->swiglu_forward(be, y, gate_up);
        call_finish(&c, OP_ACTIVATION, 5.0 * (double)tensor_count(y));
    }
}

void op_swiglu_backward(struct backend *be, const struct swiglu_backward *args)
{
    struct call c;
    if (!call_begin(&c, be, "swiglu_backward") ||
        !call_tensor(&c, "dy", args->dy, CALL_IN | CALL_FLOAT)) {
        return;
    }
    int64_t rows = tensor_rows(args->dy);
    int64_t columns = 2 * tensor_columns(args->dy);
    call_matrix(&c, "gate_up", args->gate_up, CALL_IN | CALL_FLOAT | CALL_ALIAS, rows, columns);
    call_matrix(&c, "dgate_up", args->dgate_up, CALL_OUT | CALL_FLOAT | CALL_ALIAS, rows, columns);
    check_capture(&c, args->capture, rows);
    if (call_start(&c)) {
        be->ops->swiglu_backward(be, args);
        call_finish(&c, OP_ACTIVATION, 11.0 * (double)tensor_count(args->dy));
    }
}

/* ---- embedding and loss ------------------------------------------------------------------------
 */

void op_embedding_forward(struct backend *be, struct tensor *y, const struct tensor *table,
                          const struct tensor *ids)
{
    struct call c;
    if (!call_begin(&c, be, "embedding_forward") ||
        !call_tensor(&c, "y", y, CALL_OUT | CALL_FLOAT)) {
        return;
    }
    call_matrix(&c, "table", table, CALL_IN | CALL_FLOAT | CALL_UNCOUNTED, rows_of(table),
                tensor_columns(y));
    call_elements(&c, "ids", ids, CALL_IN | CALL_INT32, tensor_rows(y));
    if (call_start(&c)) {
        c.bytes += (double)tensor_count(y) * (double)dtype_size(table->dtype);
        be->ops->embedding_forward(be, y, table, ids);
        call_finish(&c, OP_EMBEDDING, 0.0);
    }
}

void op_embedding_backward(struct backend *be, struct tensor *dtable, const struct tensor *dy,
                           const struct tensor *ids)
{
    struct call c;
    if (!call_begin(&c, be, "embedding_backward") ||
        !call_tensor(&c, "dy", dy, CALL_IN | CALL_FLOAT)) {
        return;
    }
    call_matrix(&c, "dtable", dtable, CALL_INOUT | CALL_FLOAT | CALL_UNCOUNTED, rows_of(dtable),
                tensor_columns(dy));
    call_elements(&c, "ids", ids, CALL_IN | CALL_INT32, tensor_rows(dy));
    if (call_start(&c)) {
        c.bytes += 2.0 * (double)tensor_count(dy) * (double)dtype_size(dtable->dtype);
        be->ops->embedding_backward(be, dtable, dy, ids);
        call_finish(&c, OP_EMBEDDING, (double)tensor_count(dy));
    }
}

void op_distinct(struct backend *be, const struct distinct *args)
{
    struct call c;
    if (!call_begin(&c, be, "distinct") ||
        !call_tensor(&c, "ids", args->ids, CALL_IN | CALL_INT32) ||
        !call_tensor(&c, "room", args->room, CALL_OUT | CALL_INT32) ||
        !call_tensor(&c, "index", args->index, CALL_OUT | CALL_INT32)) {
        return;
    }
    int64_t tokens = tensor_count(args->ids);
    int64_t words = tensor_count(args->room);
    int64_t slots = tensor_count(args->index);
    call_elements(&c, "slots", args->slots, CALL_OUT | CALL_INT32, tokens);
    call_require(&c, slots >= (tokens < words ? tokens : words),
                 "%lld slots are too few for %lld tokens of %lld words", (long long)slots,
                 (long long)tokens, (long long)words);
    if (call_start(&c)) {
        be->ops->distinct(be, args);
        call_finish(&c, OP_EMBEDDING, 0.0);
    }
}

void op_cross_entropy(struct backend *be, const struct cross_entropy *args)
{
    struct call c;
    unsigned use = args->gradient ? CALL_INOUT : CALL_IN;
    if (!call_begin(&c, be, "cross_entropy") ||
        !call_tensor(&c, "logits", args->logits, use | CALL_FLOAT)) {
        return;
    }
    int64_t rows = tensor_rows(args->logits);
    call_require(&c, tensor_columns(args->logits) > 0, "there are no classes to choose from");
    call_elements(&c, "losses", args->losses, CALL_OUT | CALL_FP32, rows);
    call_elements(&c, "targets", args->targets, CALL_IN | CALL_INT32, rows);
    if (args->factor != NULL) {
        call_elements(&c, "factor", args->factor, CALL_IN | CALL_FP32, 1);
    }
    if (call_start(&c)) {
        be->ops->cross_entropy(be, args);
        double each = args->gradient ? 7.0 : 4.0;
        call_finish(&c, OP_LOSS, each * (double)tensor_count(args->logits));
    }
}
