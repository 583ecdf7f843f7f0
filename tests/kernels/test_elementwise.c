/*
 * Elementwise operations, sums and the decision about a step.
 */
#include "kernels/host_tensor.h"

#include <omp.h>
#include <string.h>

/* Around the borders of vectors, blocks and chunks. */
static const int64_t lengths[] = { 1, 7, 8, 9, 511, 512, 513, 16383, 16384, 16385, 70001 };
enum { LENGTHS = sizeof lengths / sizeof lengths[0] };

static const enum dtype float_types[] = { DTYPE_F32, DTYPE_BF16 };

static void test_zero(void **state)
{
    struct backend *be = *state;
    static const enum dtype types[] = { DTYPE_F32, DTYPE_BF16, DTYPE_I32 };
    for (size_t d = 0; d < 3; d++) {
        for (int n = 0; n < LENGTHS; n++) {
            struct tensor y = host_vector(be, types[d], lengths[n]);
            memset(y.data, 0x5a, tensor_bytes(&y));
            op_zero(be, &y);
            const unsigned char *bytes = y.data;
            for (size_t i = 0; i < tensor_bytes(&y); i++) {
                assert_int_equal(bytes[i], 0);
            }
            host_free(be, &y);
        }
    }
}

static void test_copy(void **state)
{
    struct backend *be = *state;
    for (int pair = 0; pair < 4; pair++) {
        for (int n = 0; n < LENGTHS; n++) {
            struct tensor x = host_vector(be, float_types[pair & 1], lengths[n]);
            struct tensor y = host_vector(be, float_types[pair >> 1], lengths[n]);
            host_randomize(&x, 1, -3.0f, 3.0f);
            op_copy(be, &y, &x);
            for (int64_t i = 0; i < lengths[n]; i++) {
                float expected = host_get(&x, i);
                if (y.dtype == DTYPE_BF16) {
                    expected = bf16_to_float(bf16_from_float(expected));
                }
                assert_int_equal(float_bits(host_get(&y, i)), float_bits(expected));
            }
            host_free(be, &x);
            host_free(be, &y);
        }
    }
}

/* What has no exact bf16 value, and what must survive. */
static void test_copy_special_values(void **state)
{
    struct backend *be = *state;
    static const struct {
        uint32_t from;
        uint16_t to;
    } cases[] = {
        { 0x00000000, 0x0000 }, { 0x80000000, 0x8000 }, { 0x7f800000, 0x7f80 },
        { 0xff800000, 0xff80 }, { 0x3f808000, 0x3f80 }, /* tie, down to even */
        { 0x3f818000, 0x3f82 },                         /* tie, up to even */
        { 0x3f808001, 0x3f81 }, { 0x7f7fffff, 0x7f80 }, /* rounds to infinity */
        { 0x00000001, 0x0000 }, { 0x7f800001, 0x7fc0 }, /* NaN stays NaN */
    };
    enum { COUNT = sizeof cases / sizeof cases[0] };
    struct tensor x = host_vector(be, DTYPE_F32, COUNT);
    struct tensor y = host_vector(be, DTYPE_BF16, COUNT);
    for (int i = 0; i < COUNT; i++) {
        memcpy((uint32_t *)x.data + i, &cases[i].from, 4);
    }
    op_copy(be, &y, &x);
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(((uint16_t *)y.data)[i], cases[i].to);
    }
    host_free(be, &x);
    host_free(be, &y);
}

static void test_add_and_scale(void **state)
{
    struct backend *be = *state;
    for (int pair = 0; pair < 4; pair++) {
        for (int n = 0; n < LENGTHS; n++) {
            struct tensor x = host_vector(be, float_types[pair & 1], lengths[n]);
            struct tensor y = host_vector(be, float_types[pair >> 1], lengths[n]);
            struct tensor old = host_vector(be, y.dtype, lengths[n]);
            struct tensor expected = host_vector(be, y.dtype, lengths[n]);
            host_randomize(&x, 1, -3.0f, 3.0f);
            host_randomize(&y, 2, -3.0f, 3.0f);
            memcpy(old.data, y.data, tensor_bytes(&y));
            op_add(be, &y, &x);
            for (int64_t i = 0; i < lengths[n]; i++) {
                host_set(&expected, i, host_get(&old, i) + host_get(&x, i));
            }
            host_assert_same_bits(&y, &expected);
            op_scale(be, &y, -0.3f);
            for (int64_t i = 0; i < lengths[n]; i++) {
                host_set(&expected, i, host_get(&expected, i) * -0.3f);
            }
            host_assert_same_bits(&y, &expected);
            host_free(be, &x);
            host_free(be, &y);
            host_free(be, &old);
            host_free(be, &expected);
        }
    }
}

static void test_sums(void **state)
{
    struct backend *be = *state;
    struct tensor sum = host_vector(be, DTYPE_F32, 1);
    for (int d = 0; d < 2; d++) {
        for (int n = 0; n < LENGTHS; n++) {
            struct tensor x = host_vector(be, float_types[d], lengths[n]);
            host_randomize(&x, 3, -1.0f, 2.0f);
            long double total = 0.0L;
            long double squares = 0.0L;
            for (int64_t i = 0; i < lengths[n]; i++) {
                total += (long double)host_get(&x, i);
                squares += (long double)host_get(&x, i) * (long double)host_get(&x, i);
            }
            host_fill(&sum, NAN); /* the old contents are not read */
            op_sum(be, &sum, &x, false);
            assert_int_equal(float_bits(host_get(&sum, 0)), float_bits((float)total));
            op_sum_squares(be, &sum, &x, false);
            assert_int_equal(float_bits(host_get(&sum, 0)), float_bits((float)squares));
            host_fill(&sum, 1000.5f);
            op_sum(be, &sum, &x, true);
            host_assert_near((double)host_get(&sum, 0), 1000.5 + (double)total,
                             1e-7 * fabs(1000.5 + (double)total), "sum", lengths[n]);
            op_sum_squares(be, &sum, &x, true);
            host_assert_near((double)host_get(&sum, 0), 1000.5 + (double)(total + squares),
                             2e-7 * (1000.5 + (double)(total + squares)), "sum", lengths[n]);
            host_free(be, &x);
        }
    }
    host_free(be, &sum);
}

/* An fp32 accumulator would lose every small term of these. */
static void test_sum_of_unequal_terms(void **state)
{
    struct backend *be = *state;
    enum { COUNT = 100001 };
    struct tensor sum = host_vector(be, DTYPE_F32, 1);
    struct tensor x = host_vector(be, DTYPE_F32, COUNT);
    host_fill(&x, 0.25f);
    host_set(&x, 0, 1e9f);
    host_set(&x, COUNT - 1, -1e9f);
    op_sum(be, &sum, &x, false);
    assert_true(host_get(&sum, 0) == 0.25f * (COUNT - 2));
    host_fill(&x, 1e-3f);
    host_set(&x, 0, 1e4f);
    op_sum_squares(be, &sum, &x, false);
    double square = (double)1e-3f * (double)1e-3f;
    assert_true(host_get(&sum, 0) == (float)(1e8 + square * (COUNT - 1)));
    host_fill(&x, 1e20f); /* squares beyond fp32 */
    op_sum_squares(be, &sum, &x, false);
    assert_true(isinf(host_get(&sum, 0)));
    host_free(be, &x);
    host_free(be, &sum);
}

static void test_same_bits_with_any_threads(void **state)
{
    struct backend *be = *state;
    int threads = omp_get_max_threads();
    struct tensor x = host_vector(be, DTYPE_F32, 1300007);
    struct tensor sum = host_vector(be, DTYPE_F32, 1);
    struct tensor squares = host_vector(be, DTYPE_F32, 1);
    float expected[2] = { 0 };
    host_randomize(&x, 4, -1.0f, 1.0f);
    for (int run = 0; run < 10; run++) {
        omp_set_num_threads(1 + run % 4);
        op_sum(be, &sum, &x, false);
        op_sum_squares(be, &squares, &x, false);
        if (run == 0) {
            expected[0] = host_get(&sum, 0);
            expected[1] = host_get(&squares, 0);
        }
        assert_int_equal(float_bits(host_get(&sum, 0)), float_bits(expected[0]));
        assert_int_equal(float_bits(host_get(&squares, 0)), float_bits(expected[1]));
    }
    omp_set_num_threads(threads);
    host_free(be, &x);
    host_free(be, &sum);
    host_free(be, &squares);
}

static void test_clip(void **state)
{
    struct backend *be = *state;
    struct tensor control = host_vector(be, DTYPE_F32, CONTROL_COUNT);
    struct tensor squares = host_vector(be, DTYPE_F32, 1);
    struct tensor loss = host_vector(be, DTYPE_F32, 1);
    static const struct {
        float squares, loss, clip, factor, skip;
    } cases[] = {
        { 16.0f, 2.0f, 1.0f, 0.25f, 0.0f }, /* clipped */
        { 0.25f, 2.0f, 1.0f, 1.0f, 0.0f },  /* below the limit */
        { 16.0f, 2.0f, 0.0f, 1.0f, 0.0f },  /* clipping off */
        { 0.0f, 2.0f, 1.0f, 1.0f, 0.0f },   /* no gradient */
        { INFINITY, 2.0f, 1.0f, 0.0f, 1.0f },    { NAN, 2.0f, 1.0f, 1.0f, 1.0f },
        { NAN, 2.0f, 0.0f, 1.0f, 1.0f },         { 16.0f, NAN, 1.0f, 0.25f, 1.0f },
        { 16.0f, -INFINITY, 1.0f, 0.25f, 1.0f },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        host_fill(&control, -7.0f);
        host_set(&squares, 0, cases[i].squares);
        host_set(&loss, 0, cases[i].loss);
        op_clip(be, &control, &squares, &loss, cases[i].clip);
        const float *c = control.data;
        assert_true(c[CONTROL_SKIP] == cases[i].skip);
        if (!isfinite(cases[i].squares)) {
            assert_true(!isfinite(c[CONTROL_NORM]));
            continue;
        }
        assert_true(c[CONTROL_NORM] == sqrtf(cases[i].squares));
        host_assert_near((double)c[CONTROL_FACTOR], (double)cases[i].factor, 1e-6, "factor",
                         (int64_t)i);
    }
    host_free(be, &control);
    host_free(be, &squares);
    host_free(be, &loss);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zero),
        cmocka_unit_test(test_copy),
        cmocka_unit_test(test_copy_special_values),
        cmocka_unit_test(test_add_and_scale),
        cmocka_unit_test(test_sums),
        cmocka_unit_test(test_sum_of_unequal_terms),
        cmocka_unit_test(test_same_bits_with_any_threads),
        cmocka_unit_test(test_clip),
    };
    return cmocka_run_group_tests_name("elementwise", tests, host_setup, host_teardown);
}
