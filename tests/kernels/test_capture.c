/*
 * Captured columns have the bits that gathering them afterwards would give, and capturing changes
 * nothing else; a product with an addend has the bits of a copy and a product that adds.
 */
#include <string.h>

#include "kernels/host_tensor.h"

enum { ROWS = 37, WIDTH = 96, SLOTS = 21 };

/* What one of the three operations works on. */
struct work {
    struct backend *be;
    struct tensor result, weight, rstd, dweight, input, second, table, positions;
};

static void run(struct work *w, int op, const struct capture *capture)
{
    switch (op) {
    case 0:
        op_rmsnorm_backward(w->be, &(struct rmsnorm_backward){ .dx = &w->result,
                                                               .dweight = &w->dweight,
                                                               .dy = &w->input,
                                                               .x = &w->second,
                                                               .weight = &w->weight,
                                                               .rstd = &w->rstd,
                                                               .capture = capture });
        return;
    case 1:
        op_rope(w->be, &(struct rope){ .x = &w->result,
                                       .table = &w->table,
                                       .positions = &w->positions,
                                       .heads = 4,
                                       .head_size = 16,
                                       .inverse = true,
                                       .capture = capture });
        return;
    default: {
        struct tensor dy = tensor_as_matrix(&w->input, 2 * ROWS, WIDTH / 2);
        dy = tensor_row_range(&dy, 0, ROWS);
        op_swiglu_backward(w->be, &(struct swiglu_backward){ .dgate_up = &w->result,
                                                             .dy = &dy,
                                                             .gate_up = &w->result,
                                                             .capture = capture });
    }
    }
}

static void work_open(struct work *w, struct backend *be, enum dtype dtype)
{
    w->be = be;
    w->result = host_matrix(be, dtype, ROWS, WIDTH);
    w->input = host_matrix(be, dtype, ROWS, WIDTH);
    w->second = host_matrix(be, dtype, ROWS, WIDTH);
    w->weight = host_vector(be, dtype, WIDTH);
    w->dweight = host_vector(be, dtype, WIDTH);
    w->rstd = host_vector(be, DTYPE_F32, ROWS);
    w->table = host_matrix(be, DTYPE_F32, 8, 16);
    w->positions = host_vector(be, DTYPE_I32, ROWS);
    const struct tensor *random[] = { &w->result,  &w->input, &w->second, &w->weight,
                                      &w->dweight, &w->rstd,  &w->table };
    for (uint32_t i = 0; i < 7; i++) {
        host_randomize(random[i], 10 + i, -1.5f, 1.5f);
    }
    for (int64_t i = 0; i < ROWS; i++) {
        host_ints(&w->positions)[i] = (int32_t)(i * 5 % 8);
    }
}

static void work_close(struct work *w)
{
    struct tensor *all[] = { &w->result,  &w->input, &w->second, &w->weight,
                             &w->dweight, &w->rstd,  &w->table,  &w->positions };
    for (size_t i = 0; i < 8; i++) {
        host_free(w->be, all[i]);
    }
}

static void check_capture(struct backend *be, int op, enum dtype dtype)
{
    struct work plain;
    struct work captured;
    work_open(&plain, be, dtype);
    work_open(&captured, be, dtype);
    struct tensor index = host_vector(be, DTYPE_I32, SLOTS);
    for (int j = 0; j < SLOTS; j++) { /* two parts of a packed layer, each with an unused slot */
        host_ints(&index)[j] = j == 9 || j == SLOTS - 1 ? -1 : 4 * j + j % 3;
    }
    struct tensor out = host_matrix(be, dtype, ROWS, SLOTS);
    struct tensor gathered = host_matrix(be, dtype, ROWS, SLOTS);
    memset(out.data, 0xff, tensor_bytes(&out));
    run(&plain, op, NULL);
    run(&captured, op, &(struct capture){ &out, &index });
    op_gather(be, &gathered, &plain.result, &index, SIDE_COLUMNS);
    host_assert_same_bits(&out, &gathered);
    host_assert_same_bits(&captured.result, &plain.result);
    host_assert_same_bits(&captured.dweight, &plain.dweight);
    struct tensor *all[] = { &index, &out, &gathered };
    for (size_t i = 0; i < 3; i++) {
        host_free(be, all[i]);
    }
    work_close(&plain);
    work_close(&captured);
}

static void test_capture_is_gather(void **state)
{
    for (int op = 0; op < 3; op++) {
        check_capture(*state, op, DTYPE_F32);
        check_capture(*state, op, DTYPE_BF16);
    }
}

static void test_capture_is_checked(void **state)
{
    struct backend *be = *state;
    struct work w;
    work_open(&w, be, DTYPE_F32);
    struct tensor index = host_vector(be, DTYPE_I32, SLOTS);
    memset(index.data, 0, tensor_bytes(&index));
    struct tensor narrow = host_matrix(be, DTYPE_F32, ROWS, SLOTS - 1);
    for (int op = 0; op < 3; op++) {
        run(&w, op, &(struct capture){ &narrow, &index });
        assert_true(be->failed);
        assert_non_null(strstr(be->error, "captured columns"));
        be->failed = false;
        be->error[0] = '\0';
    }
    host_free(be, &index);
    host_free(be, &narrow);
    work_close(&w);
}

static void check_addend(struct backend *be, enum dtype factor, enum dtype result, int64_t m)
{
    enum { N = 33, K = 40 };
    struct tensor a = host_matrix(be, factor, m, K);
    struct tensor b = host_matrix(be, factor, N, K);
    struct tensor addend = host_matrix(be, result, m, N);
    struct tensor one = host_matrix(be, result, m, N);
    struct tensor two = host_matrix(be, result, m, N);
    host_randomize(&a, 1, -1.0f, 1.0f);
    host_randomize(&b, 2, -1.0f, 1.0f);
    host_randomize(&addend, 3, -1.0f, 1.0f);
    memset(one.data, 0xff, tensor_bytes(&one));
    op_matmul(be, &(struct matmul){
                      .c = &one, .a = &a, .b = &b, .transpose_b = true, .addend = &addend });
    op_copy(be, &two, &addend);
    op_matmul(be,
              &(struct matmul){ .c = &two, .a = &a, .b = &b, .transpose_b = true, .beta = 1.0f });
    host_assert_same_bits(&one, &two);
    struct tensor *all[] = { &a, &b, &addend, &one, &two };
    for (size_t i = 0; i < 5; i++) {
        host_free(be, all[i]);
    }
}

static void test_addend(void **state)
{
    check_addend(*state, DTYPE_F32, DTYPE_F32, 17);
    check_addend(*state, DTYPE_BF16, DTYPE_BF16, 17);
    check_addend(*state, DTYPE_F32, DTYPE_BF16, 5);
    check_addend(*state, DTYPE_BF16, DTYPE_F32, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_capture_is_gather),
        cmocka_unit_test(test_capture_is_checked),
        cmocka_unit_test(test_addend),
    };
    return cmocka_run_group_tests_name("capture", tests, host_setup, host_teardown);
}
