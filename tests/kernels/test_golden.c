/*
 * Every operation against values computed by PyTorch in float64, with tensors stored as fp32 and
 * as bf16.
 */
#include "kernels/golden.h"

/* Both storage types, one after the other. */
static void both(struct golden *g, void (*run)(struct golden *))
{
    g->dtype = DTYPE_F32;
    run(g);
    g->dtype = DTYPE_BF16;
    run(g);
}

/* ---- matrix product -------------------------------------------------------------------------- */

/* a_suffix and b_suffix may name the transposed copies. */
static void product(struct golden *g, bool transpose_a, bool transpose_b, float beta)
{
    struct tensor a = take(g, "matmul", transpose_a ? "at" : "a");
    struct tensor b = take(g, "matmul", transpose_b ? "bt" : "b");
    struct tensor c = beta != 0.0f ? take(g, "matmul", "c") : blank(g, "matmul", "c");
    op_matmul(g->be, &(struct matmul){ .c = &c,
                                       .a = &a,
                                       .b = &b,
                                       .transpose_a = transpose_a,
                                       .transpose_b = transpose_b,
                                       .beta = beta });
    check(g, &c, "matmul", beta != 0.0f ? "added" : "product");
    drop(g, &a);
    drop(g, &b);
}

static void run_matmul(struct golden *g)
{
    for (int way = 0; way < 8; way++) {
        product(g, (way & 1) != 0, (way & 2) != 0, (way & 4) != 0 ? 1.0f : 0.0f);
    }
    struct tensor packed = take(g, "matmul", "packed");
    struct tensor b = take(g, "matmul", "b");
    struct tensor wide = take(g, "matmul", "wide");
    struct tensor part = blank(g, "matmul", "part");
    op_matmul(g->be,
              &(struct matmul){ .c = &part, .a = &packed, .b = &b, .a_first = 5, .a_columns = 19 });
    check(g, &part, "matmul", "part");
    part = blank(g, "matmul", "part_transposed");
    op_matmul(g->be, &(struct matmul){ .c = &part,
                                       .a = &packed,
                                       .b = &wide,
                                       .transpose_a = true,
                                       .a_first = 4,
                                       .a_columns = 8 });
    check(g, &part, "matmul", "part_transposed");
    drop(g, &packed);
    drop(g, &b);
    drop(g, &wide);
}

static void run_linear(struct golden *g)
{
    struct tensor x = take(g, "linear", "x");
    struct tensor w = take(g, "linear", "w");
    struct tensor dy = take(g, "linear", "dy");
    struct tensor y = blank(g, "linear", "y");
    struct tensor dx = blank(g, "linear", "dx");
    struct tensor dw = blank_as(g, "linear", "dw", DTYPE_F32);
    op_matmul(g->be, &(struct matmul){ .c = &y, .a = &x, .b = &w, .transpose_b = true });
    op_matmul(g->be, &(struct matmul){ .c = &dx, .a = &dy, .b = &w });
    op_matmul(g->be, &(struct matmul){ .c = &dw, .a = &dy, .b = &x, .transpose_a = true });
    check(g, &y, "linear", "y");
    check(g, &dx, "linear", "dx");
    check(g, &dw, "linear", "dw");
    drop(g, &x);
    drop(g, &w);
    drop(g, &dy);
}

static void test_matmul(void **state)
{
    both(*state, run_matmul);
    both(*state, run_linear);
}

/* ---- norm and rope ----------------------------------------------------------------------------
 */

static void run_rmsnorm(struct golden *g)
{
    struct tensor x = take(g, "rmsnorm", "x");
    struct tensor w = take(g, "rmsnorm", "w");
    struct tensor dy = take(g, "rmsnorm", "dy");
    struct tensor y = blank(g, "rmsnorm", "y");
    struct tensor rstd = blank_as(g, "rmsnorm", "rstd", DTYPE_F32);
    struct tensor dx = take(g, "rmsnorm", "dx_before");
    struct tensor frozen = take(g, "rmsnorm", "dx_before");
    struct tensor dw = take(g, "rmsnorm", "dw_before");
    op_rmsnorm_forward(g->be, &(struct rmsnorm_forward){
                                  .y = &y, .rstd = &rstd, .x = &x, .weight = &w, .eps = 1e-5f });
    struct rmsnorm_backward back = {
        .dx = &dx, .dweight = &dw, .dy = &dy, .x = &x, .weight = &w, .rstd = &rstd
    };
    op_rmsnorm_backward(g->be, &back);
    back.dx = &frozen;
    back.dweight = NULL;
    op_rmsnorm_backward(g->be, &back);
    host_assert_same_bits(&dx, &frozen);
    check(g, &y, "rmsnorm", "y");
    check(g, &rstd, "rmsnorm", "rstd");
    check(g, &dx, "rmsnorm", "dx");
    check(g, &dw, "rmsnorm", "dw");
    drop(g, &frozen);
    drop(g, &x);
    drop(g, &w);
    drop(g, &dy);
}

static void test_rmsnorm(void **state)
{
    both(*state, run_rmsnorm);
}

static void run_rope(struct golden *g)
{
    struct tensor y = take(g, "rope", "x");
    struct tensor dx = take(g, "rope", "dy");
    struct tensor table = take_as(g, "rope", "table", DTYPE_F32);
    struct tensor positions = take(g, "rope", "positions");
    struct rope args = {
        .x = &y, .table = &table, .positions = &positions, .heads = 3, .head_size = 8
    };
    op_rope(g->be, &args);
    args.x = &dx;
    args.inverse = true;
    op_rope(g->be, &args);
    check(g, &y, "rope", "y");
    check(g, &dx, "rope", "dx");
    drop(g, &table);
    drop(g, &positions);
}

static void test_rope(void **state)
{
    both(*state, run_rope);
}

/* ---- attention ---------------------------------------------------------------------------------
 */

static struct attention_shape take_shape(const struct golden *g, const char *name)
{
    struct tensor s = take(g, name, "shape");
    const int32_t *n = host_ints(&s);
    struct attention_shape shape = {
        .batch = n[0], .sequence = n[1], .heads = n[2], .kv_heads = n[3], .head_size = n[4]
    };
    shape.scale = 1.0f / sqrtf((float)shape.head_size);
    drop(g, &s);
    return shape;
}

static void attend(struct golden *g, const char *name, bool with_starts)
{
    struct tensor qkv = take(g, name, "qkv");
    struct tensor dout = take(g, name, "dout");
    struct tensor starts = take(g, name, "starts");
    struct tensor out = blank(g, name, "out");
    struct tensor lse = blank_as(g, name, "lse", DTYPE_F32);
    struct tensor delta = blank_as(g, name, "lse", DTYPE_F32);
    struct tensor dqkv = blank(g, name, "dqkv");
    struct attention_forward forward = { .out = &out,
                                         .lse = &lse,
                                         .qkv = &qkv,
                                         .starts = with_starts ? &starts : NULL,
                                         .shape = take_shape(g, name) };
    op_attention_forward(g->be, &forward);
    struct attention_backward backward = { .dqkv = &dqkv,
                                           .delta = &delta,
                                           .dout = &dout,
                                           .out = &out,
                                           .lse = &lse,
                                           .qkv = &qkv,
                                           .starts = forward.starts,
                                           .shape = forward.shape };
    op_attention_backward(g->be, &backward);
    check(g, &out, name, "out");
    check(g, &lse, name, "lse");
    check(g, &dqkv, name, "dqkv");
    drop(g, &delta);
    drop(g, &starts);
    drop(g, &dout);
    drop(g, &qkv);
}

static void run_attention(struct golden *g)
{
    attend(g, "attention", true);
    attend(g, "attention", false);
    attend(g, "single_kv", false);
    attend(g, "records", true);
    attend(g, "long", true);
}

static void test_attention(void **state)
{
    both(*state, run_attention);
}

/* Token after token through the caches gives what the whole sequence gives at once. */
static void run_decode(struct golden *g)
{
    struct attention_shape shape = take_shape(g, "decode");
    int64_t length = shape.sequence;
    struct tensor all = take(g, "decode", "qkv");
    struct tensor result = blank(g, "decode", "out");
    int64_t in = tensor_columns(&all);
    int64_t width = tensor_columns(&result);
    struct tensor keys =
        host_matrix(g->be, g->dtype, shape.batch * (length + 3), shape.kv_heads * shape.head_size);
    keys.rank = 3;
    keys.dim[0] = shape.batch;
    keys.dim[1] = length + 3;
    keys.dim[2] = shape.kv_heads * shape.head_size;
    struct tensor values = keys;
    values.data = backend_alloc(g->be, tensor_bytes(&keys));
    assert_non_null(values.data);
    host_fill(&keys, NAN); /* what is not written yet may not be read */
    host_fill(&values, NAN);
    struct tensor qkv = host_matrix(g->be, g->dtype, shape.batch, in);
    struct tensor out = host_matrix(g->be, g->dtype, shape.batch, width);
    shape.sequence = 1;
    for (int64_t s = 0; s < length; s++) {
        for (int64_t b = 0; b < shape.batch; b++) {
            for (int64_t i = 0; i < in; i++) {
                host_set(&qkv, b * in + i, host_get(&all, (b * length + s) * in + i));
            }
        }
        op_attention_decode(g->be, &(struct attention_decode){ .out = &out,
                                                               .keys = &keys,
                                                               .values = &values,
                                                               .qkv = &qkv,
                                                               .position = s,
                                                               .shape = shape });
        for (int64_t b = 0; b < shape.batch; b++) {
            for (int64_t i = 0; i < width; i++) {
                host_set(&result, (b * length + s) * width + i, host_get(&out, b * width + i));
            }
        }
    }
    check(g, &result, "decode", "out");
    drop(g, &all);
    drop(g, &keys);
    drop(g, &values);
    drop(g, &qkv);
    drop(g, &out);
}

static void test_decode(void **state)
{
    both(*state, run_decode);
}

/* ---- activation, embedding, loss
 * ------------------------------------------------------------------ */

static void run_swiglu(struct golden *g)
{
    struct tensor x = take(g, "swiglu", "x");
    struct tensor dy = take(g, "swiglu", "dy");
    struct tensor y = blank(g, "swiglu", "y");
    struct tensor dx = blank(g, "swiglu", "dx");
    op_swiglu_forward(g->be, &y, &x);
    op_swiglu_backward(g->be,
                       &(struct swiglu_backward){ .dgate_up = &dx, .dy = &dy, .gate_up = &x });
    op_swiglu_backward(g->be, &(struct swiglu_backward){
                                  .dgate_up = &x, .dy = &dy, .gate_up = &x }); /* in place */
    host_assert_same_bits(&x, &dx);
    check(g, &y, "swiglu", "y");
    check(g, &dx, "swiglu", "dx");
    drop(g, &x);
    drop(g, &dy);
}

static void test_swiglu(void **state)
{
    both(*state, run_swiglu);
}

static void run_embedding(struct golden *g)
{
    struct tensor table = take(g, "embedding", "table");
    struct tensor ids = take(g, "embedding", "ids");
    struct tensor dy = take(g, "embedding", "dy");
    struct tensor y = blank(g, "embedding", "y");
    struct tensor dtable = take(g, "embedding", "dtable_before");
    op_embedding_forward(g->be, &y, &table, &ids);
    op_embedding_backward(g->be, &dtable, &dy, &ids);
    check(g, &y, "embedding", "y");
    check(g, &dtable, "embedding", "dtable");
    drop(g, &table);
    drop(g, &ids);
    drop(g, &dy);
}

static void test_embedding(void **state)
{
    both(*state, run_embedding);
}

static void run_cross_entropy(struct golden *g)
{
    struct tensor logits = take(g, "loss", "logits");
    struct tensor targets = take(g, "loss", "targets");
    struct tensor losses = blank_as(g, "loss", "losses", DTYPE_F32);
    struct tensor again = blank_as(g, "loss", "losses", DTYPE_F32);
    struct tensor scale = take_as(g, "loss", "scale", DTYPE_F32);
    struct cross_entropy args = {
        .losses = &again, .logits = &logits, .targets = &targets, .scale = host_get(&scale, 0)
    };
    op_cross_entropy(g->be, &args); /* leaves the logits alone */
    args.losses = &losses;
    args.gradient = true;
    op_cross_entropy(g->be, &args);
    host_assert_same_bits(&losses, &again);
    check(g, &losses, "loss", "losses");
    check(g, &logits, "loss", "gradient");
    drop(g, &again);
    drop(g, &targets);
    drop(g, &scale);
}

static void test_cross_entropy(void **state)
{
    both(*state, run_cross_entropy);
}

/* ---- optimizer and selection
 * ------------------------------------------------------------------------ */

/* Five steps with the norm, the clipping and the update of torch.optim.AdamW. */
static void train(struct golden *g, const char *name)
{
    struct tensor settings = take(g, name, "settings");
    const float *s = host_floats(&settings);
    struct tensor w = take(g, name, "w0");
    struct tensor m = blank(g, name, "m");
    struct tensor v = blank(g, name, "v");
    struct tensor age = host_vector(g->be, DTYPE_I32, 1);
    struct tensor squares = host_vector(g->be, DTYPE_F32, 1);
    struct tensor loss = host_vector(g->be, DTYPE_F32, 1);
    struct tensor control = host_vector(g->be, DTYPE_F32, CONTROL_COUNT);
    op_zero(g->be, &m);
    op_zero(g->be, &v);
    op_zero(g->be, &age);
    op_zero(g->be, &loss);
    for (int step = 1; step <= 5; step++) {
        char text[24];
        snprintf(text, sizeof text, "g%d", step);
        struct tensor gradient = take(g, name, text);
        op_sum_squares(g->be, &squares, &gradient, false);
        op_clip(g->be, &control, &squares, &loss, s[5]);
        op_adamw(g->be, &(struct adamw){ .weight = &w,
                                         .m = &m,
                                         .v = &v,
                                         .age = &age,
                                         .gradient = &gradient,
                                         .control = &control,
                                         .lr = s[0],
                                         .beta1 = s[1],
                                         .beta2 = s[2],
                                         .eps = s[3],
                                         .weight_decay = s[4],
                                         .scale = 1.0f });
        struct tensor norm = host_vector(g->be, DTYPE_F32, 1);
        host_set(&norm, 0, host_floats(&control)[CONTROL_NORM]);
        snprintf(text, sizeof text, "norm%d", step);
        check(g, &norm, name, text);
        struct tensor now = blank(g, name, "w0");
        op_copy(g->be, &now, &w);
        snprintf(text, sizeof text, "w%d", step);
        check(g, &now, name, text);
        drop(g, &gradient);
    }
    check(g, &m, name, "m");
    check(g, &v, name, "v");
    struct tensor *rest[] = { &settings, &w, &age, &squares, &loss, &control };
    for (size_t i = 0; i < sizeof rest / sizeof rest[0]; i++) {
        drop(g, rest[i]);
    }
}

static void test_adamw(void **state)
{
    struct golden *g = *state;
    g->dtype = DTYPE_F32;
    train(g, "adamw");
    train(g, "adamw_clip");
}

static void select_and_gather(struct golden *g, enum side side)
{
    bool rows = side == SIDE_ROWS;
    struct tensor x = take(g, "select", "x");
    struct tensor norms = blank(g, "select", rows ? "rows" : "columns");
    struct tensor expected = take(g, "select", rows ? "top_rows" : "top_columns");
    struct tensor index = host_vector(g->be, DTYPE_I32, tensor_count(&expected));
    struct tensor scale = host_vector(g->be, DTYPE_F32, tensor_count(&expected));
    struct tensor part = blank(g, "select", rows ? "gathered_rows" : "gathered_columns");
    op_squared_norms(g->be, &norms, &x, side);
    op_select(g->be, &(struct select){
                         .index = &index, .scale = &scale, .norms = &norms, .rule = SELECT_TOP });
    host_assert_same_bits(&index, &expected);
    op_gather(g->be, &part, &x, &index, side);
    if (rows) {
        struct tensor put = take(g, "select", "put");
        struct tensor whole = take(g, "select", "x");
        op_scatter(g->be, &whole, &put, &index, SIDE_ROWS);
        check(g, &whole, "select", "scattered");
        drop(g, &put);
    }
    check(g, &norms, "select", rows ? "rows" : "columns");
    check(g, &part, "select", rows ? "gathered_rows" : "gathered_columns");
    drop(g, &x);
    drop(g, &expected);
    drop(g, &index);
    drop(g, &scale);
}

static void test_selection(void **state)
{
    struct golden *g = *state;
    g->dtype = DTYPE_F32;
    select_and_gather(g, SIDE_ROWS);
    select_and_gather(g, SIDE_COLUMNS);
    struct tensor x = take(g, "select", "x");
    struct tensor factor = take(g, "select", "factor");
    struct tensor sum = blank(g, "select", "sum");
    struct tensor squares = blank(g, "select", "sum_squares");
    op_sum(g->be, &sum, &x, false);
    op_sum_squares(g->be, &squares, &x, false);
    op_scale_side(g->be, &x, &factor, SIDE_ROWS);
    check(g, &sum, "select", "sum");
    check(g, &squares, "select", "sum_squares");
    check(g, &x, "select", "scaled_rows");
    drop(g, &factor);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matmul),    cmocka_unit_test(test_rmsnorm),
        cmocka_unit_test(test_rope),      cmocka_unit_test(test_attention),
        cmocka_unit_test(test_decode),    cmocka_unit_test(test_swiglu),
        cmocka_unit_test(test_embedding), cmocka_unit_test(test_cross_entropy),
        cmocka_unit_test(test_adamw),     cmocka_unit_test(test_selection),
    };
    return cmocka_run_group_tests_name("golden", tests, golden_setup, golden_teardown);
}
