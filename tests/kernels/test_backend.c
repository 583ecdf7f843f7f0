/*
 * Opening backends, the latched error, what is checked before an operation runs, what is counted,
 * and the null backend, whose tensors no one may touch.
 */
#include "kernels/backend_ops.h"
#include "kernels/host_tensor.h"

#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static struct tensor shaped(struct backend *be, enum dtype dtype, int64_t rows, int64_t columns,
                            const char *name)
{
    struct tensor t = host_matrix(be, dtype, rows, columns);
    t.name = name;
    return t;
}

static void test_open(void **state)
{
    (void)state;
    char why[256] = "";
    assert_null(backend_open("gpu", 0, why, sizeof why));
    assert_non_null(strstr(why, "\"gpu\""));
    assert_non_null(strstr(why, "cpu, cuda or null"));
    assert_null(backend_open("cpu", 1, why, sizeof why));
    assert_non_null(strstr(why, "not 1"));
    assert_null(backend_open("null", -1, why, sizeof why));
    backend_close(NULL);

    struct backend *be = backend_open("cpu", 0, why, sizeof why);
    assert_non_null(be);
    assert_true(be->facts.threads > 0);
    assert_true(be->facts.memory_bytes > 0);
    assert_true(be->facts.host_accessible);
    assert_non_null(strstr(be->facts.device, "thread"));
    assert_int_equal(backend_sync(be), 0);
    struct backend_options options = { .attention = ATTENTION_CUDNN };
    assert_int_equal(backend_configure(be, &options, why, sizeof why), -1);
    assert_non_null(strstr(why, "not on the cpu"));
    assert_int_equal(be->options.attention, ATTENTION_AUTO);
    options.attention = ATTENTION_OWN;
    assert_int_equal(backend_configure(be, &options, why, sizeof why), 0);
    assert_int_equal(be->options.attention, ATTENTION_OWN);
    backend_close(be);
}

static void test_memory(void **state)
{
    struct backend *be = *state;
    unsigned char sent[1000];
    unsigned char got[1000] = { 0 };
    for (size_t i = 0; i < sizeof sent; i++) {
        sent[i] = (unsigned char)(i * 7);
    }
    void *data = backend_alloc(be, sizeof sent);
    assert_non_null(data);
    assert_int_equal((uintptr_t)data % 256, 0);
    backend_upload(be, data, sent, sizeof sent);
    backend_download(be, got, data, sizeof got);
    assert_memory_equal(sent, got, sizeof sent);
    backend_free(be, data, sizeof sent);
    backend_free(be, NULL, 10);
    void *empty = backend_alloc(be, 0);
    assert_non_null(empty);
    backend_free(be, empty, 0);
    assert_null(backend_alloc(be, SIZE_MAX));
    assert_null(backend_alloc(be, SIZE_MAX - 255));
    assert_int_equal(backend_sync(be), 0);
}

/* Latches one error and forgets it again, so that one backend serves a whole table. */
static void expect_error(struct backend *be, const char *const words[])
{
    assert_true(be->failed);
    assert_int_equal(backend_sync(be), -1);
    for (int i = 0; words[i] != NULL; i++) {
        if (strstr(be->error, words[i]) == NULL) {
            fail_msg("\"%s\" does not say \"%s\"", be->error, words[i]);
        }
    }
    be->failed = false;
    be->error[0] = '\0';
}

static void test_shapes_are_checked(void **state)
{
    struct backend *be = *state;
    struct tensor x = shaped(be, DTYPE_F32, 4, 8, "hidden");
    struct tensor y = shaped(be, DTYPE_BF16, 4, 9, "wide");
    struct tensor ids = shaped(be, DTYPE_I32, 4, 1, "ids");
    op_add(be, &y, &x);
    expect_error(be, (const char *const[]){ "add", "y 'wide' (4, 9) bf16", "x 'hidden' (4, 8) fp32",
                                            "32 elements", NULL });
    op_add(be, &x, &ids);
    expect_error(be, (const char *const[]){ "add", "x 'ids' (4, 1) int32", "fp32 or bf16", NULL });
    op_matmul(be, &(struct matmul){ .c = &y, .a = &x, .b = &x, .transpose_b = true });
    expect_error(be, (const char *const[]){ "matmul", "c 'wide' (4, 9)", "(4, 4)",
                                            "a 'hidden' (4, 8)", NULL });
    op_matmul(be, &(struct matmul){ .c = &y, .a = &x, .b = &x });
    expect_error(be, (const char *const[]){ "matmul", "b 'hidden' (4, 8)", "(8, 8)", NULL });
    op_matmul(be, &(struct matmul){ .c = &y, .a = &x, .b = &y, .transpose_b = true });
    expect_error(be, (const char *const[]){ "matmul", "b (to be transposed) 'wide'", NULL });
    op_matmul(be, &(struct matmul){ .c = &y, .a = &x, .b = &x, .a_first = 6, .a_columns = 3 });
    expect_error(be, (const char *const[]){ "matmul", "[6, 9)", "(4, 8)", NULL });
    op_matmul(be, &(struct matmul){ .c = &y, .a = &x, .b = &x, .beta = 0.5f });
    expect_error(be, (const char *const[]){ "matmul", NULL });
    op_scale(be, NULL, 1.0f);
    expect_error(be, (const char *const[]){ "scale", "there is no y", NULL });
    struct tensor odd = x;
    odd.rank = 7;
    op_zero(be, &odd);
    expect_error(be, (const char *const[]){ "zero", "rank 1 to 4", NULL });
    odd = x;
    odd.data = NULL;
    op_zero(be, &odd);
    expect_error(be, (const char *const[]){ "zero", "placed in memory", NULL });
    odd = x;
    odd.dtype = DTYPE_F16;
    op_scale(be, &odd, 2.0f);
    expect_error(be, (const char *const[]){ "scale", "fp16", NULL });
    host_free(be, &x);
    host_free(be, &y);
    host_free(be, &ids);
}

static void test_numbers_are_checked(void **state)
{
    struct backend *be = *state;
    struct tensor qkv = shaped(be, DTYPE_F32, 6, 16, "qkv");
    struct tensor out = shaped(be, DTYPE_F32, 6, 8, "out");
    struct tensor lse = shaped(be, DTYPE_F32, 1, 12, "lse");
    struct tensor positions = shaped(be, DTYPE_I32, 1, 6, "positions");
    struct tensor table = shaped(be, DTYPE_F32, 10, 4, "table");
    struct attention_shape shape = {
        .batch = 1, .sequence = 6, .heads = 3, .kv_heads = 2, .head_size = 4, .scale = 0.5f
    };
    op_attention_forward(
        be, &(struct attention_forward){ .out = &out, .lse = &lse, .qkv = &qkv, .shape = shape });
    expect_error(be, (const char *const[]){ "attention_forward", "multiple", NULL });
    shape.heads = 2;
    op_attention_forward(
        be, &(struct attention_forward){ .out = &out, .lse = &lse, .qkv = &qkv, .shape = shape });
    expect_error(be, (const char *const[]){ "qkv 'qkv' (6, 16)", "(6, 24)", NULL });
    op_attention_decode(
        be, &(struct attention_decode){
                .out = &out, .keys = &out, .values = &out, .qkv = &qkv, .shape = shape });
    expect_error(be, (const char *const[]){ "attention_decode", "must be 1", NULL });
    op_rope(be,
            &(struct rope){
                .x = &qkv, .table = &table, .positions = &positions, .heads = 5, .head_size = 4 });
    expect_error(be, (const char *const[]){ "rope", "5 heads of 4", "(6, 16)", NULL });
    op_rope(be,
            &(struct rope){
                .x = &qkv, .table = &table, .positions = &positions, .heads = 1, .head_size = 3 });
    expect_error(be, (const char *const[]){ "rope", "even", NULL });
    op_clip(be, &lse, &lse, &lse, -1.0f);
    expect_error(be, (const char *const[]){ "clip", NULL });
    op_gather(be, &out, &qkv, &positions, (enum side)2);
    expect_error(be, (const char *const[]){ "gather", "side", NULL });
    host_free(be, &qkv);
    host_free(be, &out);
    host_free(be, &lse);
    host_free(be, &positions);
    host_free(be, &table);
}

static void test_overlap_is_refused(void **state)
{
    struct backend *be = *state;
    struct tensor x = shaped(be, DTYPE_F32, 8, 8, "whole");
    host_randomize(&x, 1, -1.0f, 1.0f);
    struct tensor upper = tensor_row_range(&x, 0, 4);
    struct tensor lower = tensor_row_range(&x, 4, 4);
    struct tensor middle = tensor_row_range(&x, 3, 4);
    upper.name = "upper";
    middle.name = "middle";
    op_add(be, &upper, &lower);
    assert_int_equal(backend_sync(be), 0);
    op_add(be, &upper, &middle);
    expect_error(be, (const char *const[]){ "add", "upper", "middle", "overlaps", NULL });
    struct tensor weight = host_vector(be, DTYPE_F32, 8);
    struct tensor rstd = host_vector(be, DTYPE_F32, 4);
    host_fill(&weight, 1.0f);
    struct rmsnorm_forward norm = { .y = &upper, .rstd = &rstd, .x = &upper, .weight = &weight };
    op_rmsnorm_forward(be, &norm); /* in place is allowed here */
    assert_int_equal(backend_sync(be), 0);
    norm.y = &middle;
    op_rmsnorm_forward(be, &norm);
    expect_error(be, (const char *const[]){ "rmsnorm_forward", "overlaps", NULL });
    host_free(be, &x);
    host_free(be, &weight);
    host_free(be, &rstd);
}

static void test_first_error_stays(void **state)
{
    (void)state;
    char why[256];
    struct backend *be = backend_open("cpu", 0, why, sizeof why);
    assert_non_null(be);
    struct tensor x = shaped(be, DTYPE_F32, 2, 3, "x");
    struct tensor y = shaped(be, DTYPE_F32, 2, 4, "y");
    host_fill(&x, 1.0f);
    op_add(be, &y, &x);
    char first[sizeof be->error];
    memcpy(first, be->error, sizeof first);
    op_scale(be, NULL, 1.0f);
    op_scale(be, &x, 5.0f);
    backend_fail(be, "something else");
    assert_string_equal(be->error, first);
    assert_true(host_get(&x, 0) == 1.0f);
    int64_t calls = backend_total(be).calls;
    assert_int_equal(calls, 0);
    float sent = 9.0f;
    float got = 7.0f;
    backend_upload(be, x.data, &sent, sizeof sent);
    assert_true(host_get(&x, 0) == 1.0f);
    backend_download(be, &got, x.data, sizeof got);
    assert_true(got == 0.0f);
    host_free(be, &x);
    host_free(be, &y);
    backend_close(be);
}

static void test_counts(void **state)
{
    struct backend *be = *state;
    struct tensor a = shaped(be, DTYPE_F32, 6, 10, "a");
    struct tensor b = shaped(be, DTYPE_F32, 7, 4, "b");
    struct tensor c = shaped(be, DTYPE_F32, 6, 7, "c");
    host_fill(&a, 1.0f);
    host_fill(&b, 1.0f);
    backend_clear_counts(be);
    assert_false(be->timing);
    op_matmul(be,
              &(struct matmul){
                  .c = &c, .a = &a, .b = &b, .transpose_b = true, .a_first = 3, .a_columns = 4 });
    assert_int_equal(be->count[OP_MATMUL].calls, 1);
    assert_true(be->count[OP_MATMUL].flops == 2.0 * 6 * 7 * 4);
    assert_true(be->count[OP_MATMUL].bytes == 4.0 * (6 * 4 + 7 * 4 + 6 * 7));
    assert_true(be->count[OP_MATMUL].seconds == 0.0);
    be->timing = true;
    op_matmul(be,
              &(struct matmul){
                  .c = &c, .a = &a, .b = &b, .transpose_b = true, .a_columns = 4, .beta = 1.0f });
    be->timing = false;
    assert_true(be->count[OP_MATMUL].bytes == 4.0 * (2 * 6 * 4 + 2 * 7 * 4 + 3 * 6 * 7));
    assert_true(be->count[OP_MATMUL].seconds > 0.0);
    op_add(be, &a, &a);
    be->failed = false; /* refused: x and y overlap */
    assert_int_equal(backend_total(be).calls, 2);
    assert_true(backend_total(be).flops == 2 * 2.0 * 6 * 7 * 4);
    backend_clear_counts(be);
    assert_int_equal(backend_total(be).calls, 0);
    for (int family = 0; family < OP_FAMILY_COUNT; family++) {
        assert_true(strlen(op_family_name((enum op_family)family)) > 2);
    }
    host_free(be, &a);
    host_free(be, &b);
    host_free(be, &c);
}

/* True if reading the address kills a process. */
static bool faults(const void *address)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        signal(SIGBUS, SIG_DFL);
        const struct rlimit none = { 0, 0 };
        setrlimit(RLIMIT_CORE, &none);
        const volatile char *byte = address;
        (void)*byte;
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status);
}

/* Time goes to the part that began last; the null backend has none. */
static void test_times(void **state)
{
    struct backend *be = *state;
    double ms[BACKEND_PARTS] = { 0 };
    char why[256] = "";
    assert_false(backend_time_read(be, ms));
    backend_time_begin(be);
    assert_int_equal(backend_time_part(be, 1), -1);
    usleep(3000);
    int before = backend_time_part(be, 4);
    usleep(1000);
    assert_int_equal(backend_time_part(be, -1), -1); /* changes nothing */
    assert_int_equal(backend_time_part(be, before), 4);
    usleep(3000);
    backend_time_part(be, 0);
    usleep(3000);
    assert_true(backend_time_read(be, ms));
    assert_true(ms[1] >= 6.0);
    assert_true(ms[4] >= 1.0);
    for (int part = 0; part < BACKEND_PARTS; part++) {
        assert_true(part == 1 || part == 4 || !(ms[part] > 0.0));
    }
    assert_false(backend_time_read(be, ms));
    struct backend *null = backend_open("null", 0, why, sizeof why);
    backend_time_begin(null);
    backend_time_part(null, 1);
    backend_time_part(null, 0);
    assert_false(backend_time_read(null, ms));
    backend_close(null);
}

static void test_null_memory(void **state)
{
    (void)state;
    char why[256];
    struct backend *be = backend_open("null", 0, why, sizeof why);
    assert_non_null(be);
    assert_false(be->facts.host_accessible);
    size_t sizes[] = { 0, 1, 256, 257, (size_t)1 << 40, 5 };
    uintptr_t end = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        void *data = backend_alloc(be, sizes[i]);
        assert_non_null(data);
        assert_int_equal((uintptr_t)data % 256, 0);
        assert_true((uintptr_t)data > end);
        end = (uintptr_t)data + sizes[i];
        assert_true(faults(data));
        backend_free(be, data, sizes[i]);
    }
    assert_null(backend_alloc(be, SIZE_MAX));
    float host[4] = { 1, 2, 3, 4 };
    backend_upload(be, (void *)end, host, sizeof host);
    backend_download(be, host, (const void *)end, sizeof host);
    for (int i = 0; i < 4; i++) {
        assert_true(host[i] == 0.0f);
    }
    backend_close(be);
}

/* Tensors for one call of each operation: T = 6 tokens, C = 8, 2 heads and 1 key/value head of
 * size 4, F = 5, V = 11, R = 2 chosen of 8. */
static void call_everything(struct backend *be)
{
    struct tensor x = shaped(be, DTYPE_F32, 6, 8, "x");
    struct tensor x2 = shaped(be, DTYPE_F32, 6, 8, "x2");
    struct tensor x3 = shaped(be, DTYPE_BF16, 6, 8, "x3");
    struct tensor w = shaped(be, DTYPE_F32, 8, 8, "w");
    struct tensor m = shaped(be, DTYPE_F32, 8, 8, "m");
    struct tensor v = shaped(be, DTYPE_F32, 8, 8, "v");
    struct tensor g = shaped(be, DTYPE_F32, 8, 8, "g");
    struct tensor part = shaped(be, DTYPE_F32, 2, 8, "part");
    struct tensor vector = host_vector(be, DTYPE_F32, 8);
    struct tensor gain = host_vector(be, DTYPE_F32, 8);
    struct tensor row = host_vector(be, DTYPE_F32, 6);
    struct tensor one = host_vector(be, DTYPE_F32, 1);
    struct tensor other = host_vector(be, DTYPE_F32, 1);
    struct tensor control = host_vector(be, DTYPE_F32, 3);
    struct tensor ids = host_vector(be, DTYPE_I32, 6);
    struct tensor age = host_vector(be, DTYPE_I32, 1);
    struct tensor index = host_vector(be, DTYPE_I32, 2);
    struct tensor rho = host_vector(be, DTYPE_F32, 2);
    struct tensor qkv = shaped(be, DTYPE_F32, 6, 16, "qkv");
    struct tensor dqkv = shaped(be, DTYPE_F32, 6, 16, "dqkv");
    struct tensor lse = host_vector(be, DTYPE_F32, 12);
    struct tensor delta = host_vector(be, DTYPE_F32, 12);
    struct tensor cache = shaped(be, DTYPE_F32, 6, 4, "keys");
    struct tensor cache2 = shaped(be, DTYPE_F32, 6, 4, "values");
    struct tensor gate_up = shaped(be, DTYPE_F32, 6, 16, "gate_up");
    struct tensor logits = shaped(be, DTYPE_F32, 6, 11, "logits");
    struct tensor table = shaped(be, DTYPE_F32, 11, 8, "table");
    struct tensor angles = shaped(be, DTYPE_F32, 6, 4, "angles");
    struct attention_shape shape = { 1, 6, 2, 1, 4, 0.5f };
    struct attention_shape step = { 1, 1, 2, 1, 4, 0.5f };
    struct tensor first_qkv = tensor_row_range(&qkv, 0, 1);
    struct tensor first_out = tensor_row_range(&x, 0, 1);

    op_zero(be, &x);
    op_copy(be, &x3, &x);
    op_add(be, &x, &x2);
    op_scale(be, &x, 2.0f);
    op_sum(be, &one, &row, false);
    op_sum_squares(be, &one, &g, true);
    op_clip(be, &control, &one, &other, 1.0f);
    op_matmul(be, &(struct matmul){ .c = &x, .a = &x2, .b = &w, .transpose_b = true });
    op_rmsnorm_forward(be, &(struct rmsnorm_forward){ &x, &row, &x2, &vector, 1e-5f });
    op_rmsnorm_backward(be, &(struct rmsnorm_backward){ &x, &gain, &x3, &x2, &vector, &row, NULL });
    op_rope(be, &(struct rope){ &qkv, &angles, &ids, 3, 4, false, NULL });
    op_attention_forward(be, &(struct attention_forward){ &x, &lse, &qkv, &ids, shape });
    op_attention_backward(
        be, &(struct attention_backward){ &dqkv, &delta, &x2, &x, &lse, &qkv, NULL, shape });
    op_attention_decode(
        be, &(struct attention_decode){ &first_out, &cache, &cache2, &first_qkv, 3, step });
    op_swiglu_forward(be, &x, &gate_up);
    op_swiglu_backward(
        be, &(struct swiglu_backward){ .dgate_up = &gate_up, .dy = &x, .gate_up = &gate_up });
    op_embedding_forward(be, &x, &table, &ids);
    op_embedding_backward(be, &table, &x, &ids);
    op_cross_entropy(be, &(struct cross_entropy){ &row, &logits, &ids, 1.0f, true, NULL });
    op_squared_norms(be, &vector, &g, SIDE_ROWS);
    op_select(be, &(struct select){ .index = &index, .scale = &rho, .norms = &vector });
    op_gather(be, &part, &g, &index, SIDE_ROWS);
    op_scatter(be, &g, &part, &index, SIDE_ROWS);
    op_scale_side(be, &part, &rho, SIDE_ROWS);
    op_adamw(
        be, &(struct adamw){
                .weight = &w, .m = &m, .v = &v, .age = &age, .gradient = &g, .control = &control });
    op_random_normal(be, &w, 0.02f, (struct random_key){ 0 });

    struct tensor *all[] = { &x,     &x2,     &x3,     &w,       &m,      &v,     &g,
                             &part,  &vector, &gain,   &row,     &one,    &other, &control,
                             &ids,   &age,    &index,  &rho,     &qkv,    &dqkv,  &lse,
                             &delta, &cache,  &cache2, &gate_up, &logits, &table, &angles };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        host_free(be, all[i]);
    }
}

/* Every operation passes on addresses that cannot be read; each one is counted. */
static void test_null_operations(void **state)
{
    (void)state;
    char why[256];
    struct backend *be = backend_open("null", 0, why, sizeof why);
    assert_non_null(be);
    call_everything(be);
    if (backend_sync(be) != 0) {
        fail_msg("%s", be->error);
    }
    assert_int_equal(backend_total(be).calls, 26);
    for (int family = 0; family < OP_FAMILY_COUNT; family++) {
        assert_true(be->count[family].calls > 0);
        assert_true(be->count[family].bytes > 0.0);
    }
    assert_true(be->count[OP_ATTENTION].flops == (4 + 10) * 4.0 * 2 * 21 + 4.0 * 4 * 2 * 4);
    struct tensor x = shaped(be, DTYPE_F32, 4, 8, "x");
    struct tensor y = shaped(be, DTYPE_F32, 4, 9, "y");
    op_add(be, &y, &x);
    assert_true(be->failed);
    assert_int_equal(backend_sync(be), -1);
    backend_close(be);
}

/* No operation is missing in the table of the cpu. What comes before them may be. */
static void test_table_is_complete(void **state)
{
    struct backend *be = *state;
    void (*entry)(void);
    for (size_t at = offsetof(struct backend_ops, zero); at < sizeof *be->ops; at += sizeof entry) {
        memcpy(&entry, (const char *)be->ops + at, sizeof entry);
        assert_non_null(entry);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open),
        cmocka_unit_test_setup_teardown(test_memory, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(test_shapes_are_checked, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(test_numbers_are_checked, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(test_overlap_is_refused, host_setup, host_teardown),
        cmocka_unit_test(test_first_error_stays),
        cmocka_unit_test_setup_teardown(test_counts, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(test_times, host_setup, host_teardown),
        cmocka_unit_test(test_null_memory),
        cmocka_unit_test(test_null_operations),
        cmocka_unit_test_setup_teardown(test_table_is_complete, host_setup, host_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
