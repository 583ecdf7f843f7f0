/*
 * The matrix product: every transposition, dtype, column range and beta against sums in double;
 * the same bits in every run and for every number of threads.
 */
#include "kernels/host_tensor.h"

#include <omp.h>
#include <string.h>

/* Element (i, l) of op(a), element (l, j) of op(b). */
static double factor_a(const struct matmul *p, int64_t i, int64_t l)
{
    int64_t width = tensor_columns(p->a);
    int64_t at = p->transpose_a ? l * width + p->a_first + i : i * width + p->a_first + l;
    return (double)host_get(p->a, at);
}

static double factor_b(const struct matmul *p, int64_t l, int64_t j)
{
    int64_t width = tensor_columns(p->b);
    return (double)host_get(p->b, p->transpose_b ? j * width + l : l * width + j);
}

/* Runs the product and compares each element with the sum in double. */
static void check(struct backend *be, const struct matmul *p, int64_t k)
{
    int64_t m = tensor_rows(p->c);
    int64_t n = tensor_columns(p->c);
    host_randomize(p->c, 3, -1.0f, 1.0f);
    struct tensor before = host_matrix(be, p->c->dtype, m, n);
    memcpy(before.data, p->c->data, tensor_bytes(p->c));
    op_matmul(be, p);
    assert_int_equal(backend_sync(be), 0);
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            double sum = p->beta != 0.0f ? (double)host_get(&before, i * n + j) : 0.0;
            double size = fabs(sum);
            for (int64_t l = 0; l < k; l++) {
                double term = factor_a(p, i, l) * factor_b(p, l, j);
                sum += term;
                size += fabs(term);
            }
            double tolerance = 1e-6 * size + 1e-7;
            if (p->c->dtype == DTYPE_BF16) {
                tolerance += fabs(sum) / 250.0;
            }
            host_assert_near((double)host_get(p->c, i * n + j), sum, tolerance, "c", i * n + j);
        }
    }
    host_free(be, &before);
}

static void check_shape(struct backend *be, int64_t m, int64_t n, int64_t k)
{
    static const enum dtype types[] = { DTYPE_F32, DTYPE_BF16 };
    for (int variant = 0; variant < 64; variant++) {
        bool ta = (variant & 1) != 0;
        bool tb = (variant & 2) != 0;
        bool range = (variant & 16) != 0;
        int64_t columns = ta ? m : k;
        struct tensor a =
            host_matrix(be, types[variant >> 2 & 1], ta ? k : m, range ? columns + 11 : columns);
        struct tensor b = host_matrix(be, a.dtype, tb ? n : k, tb ? k : n);
        struct tensor c = host_matrix(be, types[variant >> 3 & 1], m, n);
        host_randomize(&a, 1, -1.0f, 1.0f);
        host_randomize(&b, 2, -1.0f, 1.0f);
        struct matmul p = { .c = &c,
                            .a = &a,
                            .b = &b,
                            .transpose_a = ta,
                            .transpose_b = tb,
                            .a_first = range ? 7 : 0,
                            .a_columns = range ? columns : 0,
                            .beta = (variant & 32) != 0 ? 1.0f : 0.0f };
        check(be, &p, k);
        host_free(be, &a);
        host_free(be, &b);
        host_free(be, &c);
    }
}

static void test_values(void **state)
{
    struct backend *be = *state;
    check_shape(be, 1, 1, 1);
    check_shape(be, 1, 37, 19);
    check_shape(be, 1, 5, 1030);
    check_shape(be, 2, 1, 3);
    check_shape(be, 5, 16, 33);
    check_shape(be, 64, 48, 32);
    check_shape(be, 33, 17, 65);
}

static void test_empty(void **state)
{
    struct backend *be = *state;
    struct tensor a = host_matrix(be, DTYPE_F32, 3, 0);
    struct tensor b = host_matrix(be, DTYPE_F32, 4, 0);
    struct tensor c = host_matrix(be, DTYPE_F32, 3, 4);
    host_fill(&c, 5.0f);
    b.dim[0] = 0;
    b.dim[1] = 4;
    struct matmul p = { .c = &c, .a = &a, .b = &b, .beta = 1.0f };
    a.dim[0] = 0;
    a.dim[1] = 3;
    p.transpose_a = true;
    op_matmul(be, &p);
    assert_int_equal(backend_sync(be), 0);
    assert_true(host_get(&c, 11) == 5.0f);
    p.beta = 0.0f;
    op_matmul(be, &p);
    assert_true(host_get(&c, 0) == 0.0f && host_get(&c, 11) == 0.0f);
    host_free(be, &a);
    host_free(be, &b);
    host_free(be, &c);
}

/* A sum of k terms is split among nobody: any number of threads gives the same bits. */
static void test_same_bits(void **state)
{
    struct backend *be = *state;
    static const int64_t sizes[][3] = {
        { 1, 300, 257 }, { 96, 80, 512 }, { 24, 40, 1024 }, { 130, 64, 31 }
    };
    int threads = omp_get_max_threads();
    for (int variant = 0; variant < 4 * 8; variant++) {
        const int64_t *size = sizes[variant / 8];
        bool ta = (variant & 1) != 0;
        bool tb = (variant & 2) != 0;
        enum dtype dtype = (variant & 4) != 0 ? DTYPE_BF16 : DTYPE_F32;
        struct tensor a = host_matrix(be, dtype, ta ? size[2] : size[0], ta ? size[0] : size[2]);
        struct tensor b = host_matrix(be, dtype, tb ? size[1] : size[2], tb ? size[2] : size[1]);
        struct tensor c = host_matrix(be, DTYPE_F32, size[0], size[1]);
        struct tensor again = host_matrix(be, DTYPE_F32, size[0], size[1]);
        host_randomize(&a, 1, -1.0f, 1.0f);
        host_randomize(&b, 2, -1.0f, 1.0f);
        struct matmul p = { .c = &c, .a = &a, .b = &b, .transpose_a = ta, .transpose_b = tb };
        op_matmul(be, &p);
        p.c = &again;
        for (int run = 0; run < 10; run++) {
            omp_set_num_threads(run % 3 + 1);
            host_fill(&again, 0.0f);
            op_matmul(be, &p);
            host_assert_same_bits(&c, &again);
        }
        omp_set_num_threads(threads);
        host_free(be, &a);
        host_free(be, &b);
        host_free(be, &c);
        host_free(be, &again);
    }
}

/* More shapes than the backend keeps prepared, twice over. */
static void test_many_shapes(void **state)
{
    struct backend *be = *state;
    struct tensor a = host_matrix(be, DTYPE_F32, 40, 40);
    struct tensor b = host_matrix(be, DTYPE_F32, 40, 40);
    struct tensor c = host_matrix(be, DTYPE_F32, 40, 40);
    host_fill(&a, 1.0f);
    host_fill(&b, 2.0f);
    for (int round = 0; round < 2; round++) {
        for (int64_t i = 0; i < 250; i++) {
            int64_t m = 2 + i % 25;
            int64_t k = 1 + i / 25;
            struct tensor left = tensor_as_matrix(&a, m, k);
            struct tensor right = tensor_as_matrix(&b, k, 5);
            struct tensor product = tensor_as_matrix(&c, m, 5);
            op_matmul(be, &(struct matmul){ .c = &product, .a = &left, .b = &right });
            assert_true(host_get(&c, 0) == 2.0f * (float)k);
            assert_true(host_get(&c, m * 5 - 1) == 2.0f * (float)k);
        }
    }
    host_free(be, &a);
    host_free(be, &b);
    host_free(be, &c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_values, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(test_empty, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(test_same_bits, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(test_many_shapes, host_setup, host_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
