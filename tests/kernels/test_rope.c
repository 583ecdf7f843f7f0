/* Rotary embedding against its formula in double: heads of every size that takes another way, and
 * columns after the rotated heads that stay as they are. */
#include "kernels/host_tensor.h"

enum { TOKENS = 5, POSITIONS = 7, HEADS = 3, EXTRA = 6 };

static void check_head(const struct tensor *after, const struct tensor *before, int64_t first,
                       int64_t size, const float *row, double direction)
{
    int64_t half = size / 2;
    double tolerance = after->dtype == DTYPE_F32 ? 1e-6 : 1.5e-2;
    for (int64_t i = 0; i < half; i++) {
        double a = (double)host_get(before, first + i);
        double b = (double)host_get(before, first + half + i);
        double c = (double)row[i];
        double s = direction * (double)row[half + i];
        double low = (double)host_get(after, first + i);
        double high = (double)host_get(after, first + half + i);
        if (!(fabs(low - (a * c - b * s)) <= tolerance) ||
            !(fabs(high - (b * c + a * s)) <= tolerance)) {
            fail_msg("head size %lld, element %lld: (%g, %g) became (%g, %g)", (long long)size,
                     (long long)(first + i), a, b, low, high);
        }
    }
}

static void check_size(struct backend *be, enum dtype dtype, int64_t size, bool inverse)
{
    int64_t width = HEADS * size + EXTRA;
    struct tensor x = host_matrix(be, dtype, TOKENS, width);
    struct tensor before = host_matrix(be, dtype, TOKENS, width);
    struct tensor table = host_matrix(be, DTYPE_F32, POSITIONS, size);
    struct tensor positions = host_vector(be, DTYPE_I32, TOKENS);
    host_randomize(&x, 1, -1.0f, 1.0f);
    host_randomize(&table, 2, -1.0f, 1.0f);
    op_copy(be, &before, &x);
    for (int i = 0; i < TOKENS; i++) {
        ((int32_t *)positions.data)[i] = (i * 3 + 1) % POSITIONS;
    }
    op_rope(be, &(struct rope){ .x = &x,
                                .table = &table,
                                .positions = &positions,
                                .heads = HEADS,
                                .head_size = size,
                                .inverse = inverse });
    assert_int_equal(backend_sync(be), 0);
    for (int64_t t = 0; t < TOKENS; t++) {
        const float *row = (const float *)table.data + ((int32_t *)positions.data)[t] * size;
        for (int64_t head = 0; head < HEADS; head++) {
            check_head(&x, &before, t * width + head * size, size, row, inverse ? -1.0 : 1.0);
        }
        for (int64_t i = t * width + HEADS * size; i < (t + 1) * width; i++) {
            assert_true(host_get(&x, i) == host_get(&before, i));
        }
    }
    host_free(be, &x);
    host_free(be, &before);
    host_free(be, &table);
    host_free(be, &positions);
}

static void test_sizes(void **state)
{
    static const int64_t sizes[] = { 2, 6, 32, 200, 256, 512, 514, 1100 };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (int way = 0; way < 4; way++) {
            check_size(*state, (way & 1) != 0 ? DTYPE_BF16 : DTYPE_F32, sizes[i], (way & 2) != 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_sizes, host_setup, host_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
