/*
 * Orthonormal bases of matrices good and bad, eigenvectors against closed forms, and the step that
 * was computed elsewhere.
 */
#include "kernels/host_tensor.h"

#include <omp.h>
#include <string.h>

static void orthonormalize(struct backend *be, struct tensor *y)
{
    int64_t columns = tensor_columns(y);
    struct tensor scratch = host_matrix(be, DTYPE_F32, columns + 2, columns);
    op_orthonormalize(be, &(struct orthonormalize){ .y = y,
                                                    .scratch = &scratch,
                                                    .key = { .seed = 3, .tensor = 1, .step = 2 } });
    host_free(be, &scratch);
}

/* Largest |y^T y - I|. */
static double defect(const struct tensor *y)
{
    int64_t n = tensor_columns(y);
    double worst = 0.0;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j <= i; j++) {
            double sum = i == j ? -1.0 : 0.0;
            for (int64_t t = 0; t < tensor_rows(y); t++) {
                sum += (double)host_get(y, t * n + i) * (double)host_get(y, t * n + j);
            }
            worst = isfinite(sum) ? fmax(worst, fabs(sum)) : 1e9;
        }
    }
    return worst;
}

/* What of column `j` of `before` lies outside of the first `count` columns of y, as a share. */
static double outside(const struct tensor *before, const struct tensor *y, int64_t j, int64_t count)
{
    int64_t n = tensor_columns(y);
    int64_t rows = tensor_rows(y);
    double whole = 0.0;
    double inside = 0.0;
    for (int64_t t = 0; t < rows; t++) {
        double x = (double)host_get(before, t * n + j);
        whole += x * x;
    }
    for (int64_t k = 0; k < count; k++) {
        double dot = 0.0;
        for (int64_t t = 0; t < rows; t++) {
            dot += (double)host_get(before, t * n + j) * (double)host_get(y, t * n + k);
        }
        inside += dot * dot;
    }
    return fabs(1.0 - inside / whole);
}

/* Columns that are independent: orthonormal, and the first j span what the first j did. `slope`
 * makes the condition number 10^slope. */
static void check_independent(struct backend *be, int64_t rows, int64_t columns, double slope)
{
    struct tensor y = host_matrix(be, DTYPE_F32, rows, columns);
    struct tensor before = host_matrix(be, DTYPE_F32, rows, columns);
    host_randomize(&y, (uint32_t)(rows + columns), -1.0f, 1.0f);
    for (int64_t at = 0; at < rows * columns; at++) {
        double share = (double)(at % columns) / (double)columns;
        host_set(&y, at, (float)((double)host_get(&y, at) * pow(10.0, -slope * share)));
    }
    memcpy(before.data, y.data, tensor_bytes(&y));
    orthonormalize(be, &y);
    assert_true(defect(&y) < 1e-5);
    for (int64_t j = 0; j < columns; j += 1 + columns / 7) {
        assert_true(outside(&before, &y, j, j + 1) < 1e-4);
    }
    host_free(be, &y);
    host_free(be, &before);
}

static void test_independent(void **state)
{
    static const int64_t shape[][2] = { { 1, 1 },     { 2, 2 },    { 5, 3 },    { 40, 32 },
                                        { 200, 33 },  { 300, 64 }, { 257, 97 }, { 64, 64 },
                                        { 130, 130 }, { 900, 5 } };
    for (size_t i = 0; i < sizeof shape / sizeof shape[0]; i++) {
        check_independent(*state, shape[i][0], shape[i][1], 0.0);
        check_independent(*state, shape[i][0], shape[i][1], 12.0); /* scales of columns */
    }
}

/* Columns that grow together: y = A B with a chain of singular values down to 10^-slope. */
static void test_ill_conditioned(void **state)
{
    enum { ROWS = 150, COLUMNS = 40 };
    struct backend *be = *state;
    for (int slope = 1; slope <= 10; slope += 3) {
        struct tensor a = host_matrix(be, DTYPE_F32, ROWS, COLUMNS);
        struct tensor b = host_matrix(be, DTYPE_F32, COLUMNS, COLUMNS);
        struct tensor y = host_matrix(be, DTYPE_F32, ROWS, COLUMNS);
        host_randomize(&a, 1, -1.0f, 1.0f);
        host_randomize(&b, 2, -1.0f, 1.0f);
        for (int64_t at = 0; at < ROWS * COLUMNS; at++) {
            double share = (double)(at % COLUMNS) / COLUMNS;
            host_set(&a, at, (float)((double)host_get(&a, at) * pow(10.0, -slope * share)));
        }
        op_matmul(be, &(struct matmul){ .c = &y, .a = &a, .b = &b });
        orthonormalize(be, &y);
        assert_true(defect(&y) < 1e-5);
        /* The leading directions are in it. */
        assert_true(outside(&a, &y, 0, COLUMNS) < 1e-5);
        assert_true(outside(&a, &y, 1, COLUMNS) < 1e-5);
        host_free(be, &a);
        host_free(be, &b);
        host_free(be, &y);
    }
}

enum bad { BAD_ZERO, BAD_COPIES, BAD_ONE_RANK, BAD_HOLES, BAD_NAN, BAD_INFINITE, BAD_COUNT };

static void make_bad(const struct tensor *y, enum bad bad)
{
    int64_t n = tensor_columns(y);
    host_randomize(y, 5, -1.0f, 1.0f);
    for (int64_t at = 0; at < tensor_count(y); at++) {
        int64_t j = at % n;
        float first = host_get(y, at - j);
        switch (bad) {
        case BAD_ZERO:
            host_set(y, at, 0.0f);
            break;
        case BAD_COPIES:
            host_set(y, at, first);
            break;
        case BAD_ONE_RANK:
            host_set(y, at, first * (float)(1 + j));
            break;
        case BAD_HOLES:
            host_set(y, at, at / n % 3 == 0 || j % 4 == 1 ? 0.0f : host_get(y, at));
            break;
        case BAD_NAN:
            host_set(y, at, j == n / 2 && at / n == 1 ? NAN : host_get(y, at));
            break;
        default:
            host_set(y, at, j == n - 1 ? INFINITY : host_get(y, at));
            break;
        }
    }
}

/* Whatever comes in, an orthonormal basis goes out, and the same one each time. */
static void test_degenerate(void **state)
{
    static const int64_t shape[][2] = { { 1, 1 }, { 3, 3 }, { 90, 20 }, { 70, 70 }, { 200, 65 } };
    struct backend *be = *state;
    int threads = omp_get_max_threads();
    for (size_t i = 0; i < sizeof shape / sizeof shape[0]; i++) {
        for (int bad = 0; bad < BAD_COUNT; bad++) {
            struct tensor y = host_matrix(be, DTYPE_F32, shape[i][0], shape[i][1]);
            struct tensor again = host_matrix(be, DTYPE_F32, shape[i][0], shape[i][1]);
            make_bad(&y, (enum bad)bad);
            memcpy(again.data, y.data, tensor_bytes(&y));
            orthonormalize(be, &y);
            assert_true(defect(&y) < 1e-5);
            omp_set_num_threads(threads == 1 ? 3 : 1);
            orthonormalize(be, &again);
            omp_set_num_threads(threads);
            host_assert_same_bits(&y, &again);
            host_free(be, &y);
            host_free(be, &again);
        }
    }
}

/* Numbers at both ends of what a gradient may be. */
static void test_magnitudes(void **state)
{
    static const float sizes[] = { 1e-15f, 1e-8f, 1e8f, 1e15f };
    struct backend *be = *state;
    for (size_t i = 0; i < 4; i++) {
        struct tensor y = host_matrix(be, DTYPE_F32, 60, 20);
        struct tensor before = host_matrix(be, DTYPE_F32, 60, 20);
        host_randomize(&y, 8, -sizes[i], sizes[i]);
        memcpy(before.data, y.data, tensor_bytes(&y));
        orthonormalize(be, &y);
        assert_true(defect(&y) < 1e-5);
        assert_true(outside(&before, &y, 19, 20) < 1e-4);
        host_free(be, &y);
        host_free(be, &before);
    }
}

/* The second difference on a line has sines for eigenvectors. */
static void test_eigenvectors(void **state)
{
    enum { SIZE = 24, COUNT = 5 };
    const double pi = 3.14159265358979323846;
    struct backend *be = *state;
    if (!op_eigenvectors_built()) {
        skip();
    }
    struct tensor a = host_matrix(be, DTYPE_F32, SIZE, SIZE);
    struct tensor v = host_matrix(be, DTYPE_F32, SIZE, COUNT);
    host_fill(&a, 0.0f);
    for (int64_t i = 0; i < SIZE; i++) {
        host_set(&a, i * SIZE + i, 2.0f);
        if (i > 0) {
            host_set(&a, i * SIZE + i - 1, -1.0f);
            host_set(&a, (i - 1) * SIZE + i, -1.0f);
        }
    }
    op_eigenvectors(be, &v, &a);
    for (int64_t j = 0; j < COUNT; j++) { /* the largest: 2 - 2 cos(pi (SIZE - j) / (SIZE + 1)) */
        double sum = 0.0;
        int64_t largest = 0;
        for (int64_t i = 0; i < SIZE; i++) {
            double sine = sin(pi * (double)((SIZE - j) * (i + 1)) / (SIZE + 1));
            sum += sqrt(2.0 / (SIZE + 1)) * sine * (double)host_get(&v, i * COUNT + j);
            bool more = fabs((double)host_get(&v, i * COUNT + j)) >
                        fabs((double)host_get(&v, largest * COUNT + j)) + 1e-6;
            largest = more ? i : largest;
        }
        host_assert_near(fabs(sum), 1.0, 1e-6, "cosine", j);
        assert_true(host_get(&v, largest * COUNT + j) > 0.0f);
    }
    host_set(&a, 3, NAN);
    op_eigenvectors(be, &v, &a);
    for (int64_t at = 0; at < SIZE * COUNT; at++) {
        assert_true(host_get(&v, at) == (at / COUNT == at % COUNT ? 1.0f : 0.0f));
    }
    host_fill(&a, 0.0f);
    op_eigenvectors(be, &v, &a);
    assert_true(defect(&v) < 1e-6);
    host_free(be, &a);
    host_free(be, &v);
}

static void test_square(void **state)
{
    struct backend *be = *state;
    struct tensor y = host_matrix(be, DTYPE_F32, 7, 5000);
    host_randomize(&y, 4, -3.0f, 3.0f);
    struct tensor x = host_matrix(be, DTYPE_F32, 7, 5000);
    memcpy(x.data, y.data, tensor_bytes(&y));
    op_square(be, &y);
    for (int64_t i = 0; i < tensor_count(&y); i++) {
        assert_true(host_get(&y, i) == host_get(&x, i) * host_get(&x, i));
    }
    host_free(be, &x);
    host_free(be, &y);
}

struct descent {
    struct tensor weight, step, control;
    struct descend args;
};

static void descent_open(struct descent *d, struct backend *be, enum dtype dtype, int64_t rows,
                         int64_t columns)
{
    d->weight = host_matrix(be, dtype, rows, columns);
    d->step = host_matrix(be, DTYPE_F32, rows, columns);
    d->control = host_vector(be, DTYPE_F32, CONTROL_COUNT);
    host_randomize(&d->weight, 1, -1.0f, 1.0f);
    host_randomize(&d->step, 2, -1.0f, 1.0f);
    host_fill(&d->control, 0.0f);
    d->args = (struct descend){ .weight = &d->weight,
                                .step = &d->step,
                                .control = &d->control,
                                .lr = 0.01f,
                                .scale = 0.25f,
                                .weight_decay = 0.1f,
                                .rounding = ROUNDING_STOCHASTIC,
                                .key = { .seed = 9, .tensor = 4, .step = 7 } };
}

static void descent_close(struct descent *d, struct backend *be)
{
    host_free(be, &d->weight);
    host_free(be, &d->step);
    host_free(be, &d->control);
}

static void test_descend_formula(void **state)
{
    struct backend *be = *state;
    struct descent d;
    descent_open(&d, be, DTYPE_F32, 37, 501);
    double *before = calloc((size_t)tensor_count(&d.weight), sizeof *before);
    for (int64_t i = 0; i < tensor_count(&d.weight); i++) {
        before[i] = (double)host_get(&d.weight, i);
    }
    op_descend(be, &d.args);
    for (int64_t i = 0; i < tensor_count(&d.weight); i++) {
        double want = before[i] - 0.01 * (0.25 * (double)host_get(&d.step, i) + 0.1 * before[i]);
        host_assert_near((double)host_get(&d.weight, i), want, 2e-7, "weight", i);
    }
    /* A step that is skipped. */
    host_set(&d.control, CONTROL_SKIP, 1.0f);
    struct tensor copy = host_matrix(be, DTYPE_F32, 37, 501);
    memcpy(copy.data, d.weight.data, tensor_bytes(&copy));
    op_descend(be, &d.args);
    host_assert_same_bits(&copy, &d.weight);
    host_free(be, &copy);
    free(before);
    descent_close(&d, be);
}

/* Stochastic rounding: unbiased, to one of the two neighbours, and the same whether the matrix is
 * done at once or in blocks of rows. */
static void test_descend_rounding(void **state)
{
    enum { ROWS = 41, COLUMNS = 333 };
    struct backend *be = *state;
    struct descent whole;
    struct descent parts;
    descent_open(&whole, be, DTYPE_BF16, ROWS, COLUMNS);
    descent_open(&parts, be, DTYPE_BF16, ROWS, COLUMNS);
    op_descend(be, &whole.args);
    for (int64_t first = 0; first < ROWS; first += 7) {
        struct tensor weight = tensor_row_range(&parts.weight, first, first + 7 > ROWS ? 6 : 7);
        struct tensor step = tensor_row_range(&parts.step, first, weight.dim[0]);
        struct descend args = parts.args;
        args.weight = &weight;
        args.step = &step;
        args.first = first * COLUMNS;
        op_descend(be, &args);
    }
    host_assert_same_bits(&whole.weight, &parts.weight);
    struct host_mean error = { 0 };
    for (uint32_t step = 0; step < 40; step++) {
        host_fill(&whole.weight, 1.0f);
        host_fill(&whole.step, 0.3f);
        whole.args.key.step = step;
        whole.args.weight_decay = 0.0f;
        op_descend(be, &whole.args);
        for (int64_t i = 0; i < tensor_count(&whole.weight); i++) {
            double w = (double)host_get(&whole.weight, i);
            assert_true(w == 1.0 || w == 0.99609375);
            host_mean_add(&error, w);
        }
    }
    assert_true(fabs(host_mean_z(&error, 1.0 - 0.01 * 0.25 * 0.3)) < 5.0);
    descent_close(&whole, be);
    descent_close(&parts, be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_independent),     cmocka_unit_test(test_ill_conditioned),
        cmocka_unit_test(test_degenerate),      cmocka_unit_test(test_magnitudes),
        cmocka_unit_test(test_eigenvectors),    cmocka_unit_test(test_square),
        cmocka_unit_test(test_descend_formula), cmocka_unit_test(test_descend_rounding),
    };
    return cmocka_run_group_tests(tests, host_setup, host_teardown);
}
