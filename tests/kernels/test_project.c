/*
 * Gather, scatter and scaling of rows and columns, against element-by-element references.
 */
#include "kernels/host_tensor.h"

#include <omp.h>
#include <string.h>

static const enum dtype float_types[] = { DTYPE_F32, DTYPE_BF16 };

/* Row and column in x of element (i, j) of the gathered matrix; -1 for an unused slot. */
static int64_t source(const struct tensor *x, const int32_t *index, enum side side, int64_t i,
                      int64_t j)
{
    int64_t slot = side == SIDE_ROWS ? i : j;
    if (index[slot] < 0) {
        return -1;
    }
    return side == SIDE_ROWS ? index[slot] * tensor_columns(x) + j
                             : i * tensor_columns(x) + index[slot];
}

/* Every third candidate, with an unused slot in the middle and one at the end. */
static struct tensor make_index(struct backend *be, int64_t slots)
{
    struct tensor index = host_vector(be, DTYPE_I32, slots);
    for (int64_t j = 0; j < slots; j++) {
        host_ints(&index)[j] = (int32_t)(3 * j + 1);
    }
    host_ints(&index)[slots / 2] = -1;
    host_ints(&index)[slots - 1] = -1;
    return index;
}

static void check_gather_scatter(struct backend *be, enum side side, enum dtype x_type,
                                 enum dtype y_type)
{
    enum { ROWS = 70, COLUMNS = 1600, ROW_SLOTS = 20, COLUMN_SLOTS = 530 };
    int64_t slots = side == SIDE_ROWS ? ROW_SLOTS : COLUMN_SLOTS;
    struct tensor x = host_matrix(be, x_type, ROWS, COLUMNS);
    struct tensor y = side == SIDE_ROWS ? host_matrix(be, y_type, slots, COLUMNS)
                                        : host_matrix(be, y_type, ROWS, slots);
    struct tensor expected = host_matrix(be, x_type, ROWS, COLUMNS);
    struct tensor index = make_index(be, slots);
    host_randomize(&x, 1, -1.0f, 1.0f);
    host_fill(&y, 9.0f);

    op_gather(be, &y, &x, &index, side);
    for (int64_t i = 0; i < tensor_rows(&y); i++) {
        for (int64_t j = 0; j < tensor_columns(&y); j++) {
            int64_t at = source(&x, index.data, side, i, j);
            float value = at < 0 ? 0.0f : host_get(&x, at);
            value = y_type == DTYPE_BF16 ? bf16_to_float(bf16_from_float(value)) : value;
            assert_true(host_get(&y, i * tensor_columns(&y) + j) == value);
        }
    }

    memcpy(expected.data, x.data, tensor_bytes(&x));
    host_randomize(&y, 2, -1.0f, 1.0f);
    for (int64_t i = 0; i < tensor_rows(&y); i++) {
        for (int64_t j = 0; j < tensor_columns(&y); j++) {
            int64_t at = source(&x, index.data, side, i, j);
            if (at >= 0) {
                host_set(&expected, at, host_get(&y, i * tensor_columns(&y) + j));
            }
        }
    }
    op_scatter(be, &x, &y, &index, side);
    host_assert_same_bits(&x, &expected);
    host_free(be, &x);
    host_free(be, &y);
    host_free(be, &expected);
    host_free(be, &index);
}

static void test_gather_and_scatter(void **state)
{
    for (int pair = 0; pair < 4; pair++) {
        check_gather_scatter(*state, SIDE_ROWS, float_types[pair & 1], float_types[pair >> 1]);
        check_gather_scatter(*state, SIDE_COLUMNS, float_types[pair & 1], float_types[pair >> 1]);
    }
}

/* Scatter after gather gives the matrix back, with any number of threads. */
static void test_round_trip(void **state)
{
    struct backend *be = *state;
    int threads = omp_get_max_threads();
    for (int side = 0; side < 2; side++) {
        struct tensor x = host_matrix(be, DTYPE_BF16, 300, 300);
        struct tensor copy = host_matrix(be, DTYPE_BF16, 300, 300);
        struct tensor y = side == SIDE_ROWS ? host_matrix(be, DTYPE_F32, 100, 300)
                                            : host_matrix(be, DTYPE_F32, 300, 100);
        struct tensor index = make_index(be, 100);
        host_randomize(&x, 3, -1.0f, 1.0f);
        memcpy(copy.data, x.data, tensor_bytes(&x));
        for (int run = 1; run <= 4; run++) {
            omp_set_num_threads(run);
            op_gather(be, &y, &x, &index, (enum side)side);
            op_scatter(be, &x, &y, &index, (enum side)side);
            host_assert_same_bits(&x, &copy);
        }
        host_free(be, &x);
        host_free(be, &copy);
        host_free(be, &y);
        host_free(be, &index);
    }
    omp_set_num_threads(threads);
}

static void test_scale_side(void **state)
{
    struct backend *be = *state;
    for (int d = 0; d < 2; d++) {
        for (int side = 0; side < 2; side++) {
            enum { ROWS = 40, COLUMNS = 1030 };
            struct tensor x = host_matrix(be, float_types[d], ROWS, COLUMNS);
            struct tensor expected = host_matrix(be, float_types[d], ROWS, COLUMNS);
            struct tensor scale = host_vector(be, DTYPE_F32, side == SIDE_ROWS ? ROWS : COLUMNS);
            host_randomize(&x, 5, -1.0f, 1.0f);
            host_randomize(&scale, 6, -2.0f, 2.0f);
            for (int64_t i = 0; i < ROWS * COLUMNS; i++) {
                float s = host_get(&scale, side == SIDE_ROWS ? i / COLUMNS : i % COLUMNS);
                host_set(&expected, i, host_get(&x, i) * s);
            }
            op_scale_side(be, &x, &scale, (enum side)side);
            host_assert_same_bits(&x, &expected);
            host_free(be, &x);
            host_free(be, &expected);
            host_free(be, &scale);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gather_and_scatter),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_scale_side),
    };
    return cmocka_run_group_tests_name("project", tests, host_setup, host_teardown);
}
