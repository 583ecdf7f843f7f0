/* The exponential of the cpu backend against libm's in double. */
#include "kernels/host_tensor.h"

#include "kernels/cpu/math.h"

/* Distance in units of the last place of `expected`, denormals included. */
static double error_ulp(float value, double expected)
{
    int exponent = 0;
    (void)frexp(expected, &exponent);
    double unit = ldexp(1.0, (exponent < -125 ? -125 : exponent) - 24);
    return fabs((double)value - expected) / unit;
}

static void test_whole_range(void **state)
{
    (void)state;
    double worst = 0.0;
    for (int64_t i = 0; i <= 2000000; i++) {
        float x = -103.5f + (float)i * (float)(192.2 / 2000000.0);
        worst = fmax(worst, error_ulp(cpu_exp(x), exp((double)x)));
    }
    for (float x = 1e-20f; x < 1.0f; x *= 1.01f) {
        worst = fmax(worst, error_ulp(cpu_exp(x), exp((double)x)));
        worst = fmax(worst, error_ulp(cpu_exp(-x), exp(-(double)x)));
    }
    if (!(worst <= 2.0)) {
        fail_msg("off by %.3f units in the last place", worst);
    }
}

static void test_ends(void **state)
{
    (void)state;
    assert_true(cpu_exp(0.0f) == 1.0f);
    assert_true(cpu_exp(-0.0f) == 1.0f);
    assert_true(isfinite(cpu_exp(88.72f)));
    assert_true(isinf(cpu_exp(88.73f)));
    assert_true(isinf(cpu_exp(1e30f)));
    assert_true(isinf(cpu_exp(INFINITY)));
    assert_true(cpu_exp(-104.0f) == 0.0f);
    assert_true(cpu_exp(-1e30f) == 0.0f);
    assert_true(cpu_exp(-INFINITY) == 0.0f);
    assert_true(isnan(cpu_exp(NAN)));
    assert_true(isnan(cpu_exp(-NAN)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_range),
        cmocka_unit_test(test_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
