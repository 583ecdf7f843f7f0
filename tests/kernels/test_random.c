/*
 * The generator against published answers, its distributions against their moments, and the
 * independence of its streams.
 */
#include "kernels/host_tensor.h"

#include <omp.h>
#include <string.h>

/* Published with Random123 (kat_vectors, philox4x32 10). */
static void test_known_answers(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4];
        uint32_t key[2];
        uint32_t answer[4];
    } cases[] = {
        { { 0, 0, 0, 0 }, { 0, 0 }, { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 } },
        { { 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff },
          { 0xffffffff, 0xffffffff },
          { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd } },
        { { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 },
          { 0xa4093822, 0x299f31d0 },
          { 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 } },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct random_block b = random_philox(cases[i].counter, cases[i].key[0], cases[i].key[1]);
        assert_memory_equal(b.word, cases[i].answer, sizeof b.word);
    }
}

/* Where each part of a key and an element sits in counter and key. */
static void test_key_layout(void **state)
{
    (void)state;
    struct random_key key = {
        .seed = 0x1122334455667788u, .purpose = RANDOM_SELECT, .tensor = 0xabcdef, .step = 77
    };
    const uint32_t counter[4] = { 0x00000005u, 0x00000001u, 77,
                                  0xabcdefu | ((uint32_t)RANDOM_SELECT << 24) };
    struct random_block b = random_philox(counter, 0x55667788u, 0x11223344u);
    uint64_t element = 4 * 0x100000005u;
    for (uint64_t i = 0; i < 4; i++) {
        assert_int_equal(random_u32(&key, element + i), b.word[i]);
    }
}

static void test_uniform_ends(void **state)
{
    (void)state;
    assert_true(random_uniform_from(0) > 0.0f);
    assert_true(random_uniform_from(0xffffffffu) < 1.0f);
    assert_true(isfinite(logf(random_uniform_from(0))));
}

static void test_uniform_distribution(void **state)
{
    (void)state;
    enum { BINS = 64, DRAWS = 400000 };
    struct random_key key = { .seed = 5, .purpose = RANDOM_TEST, .tensor = 1, .step = 1 };
    double bin[BINS] = { 0 };
    struct host_mean mean = { 0 };
    struct host_mean square = { 0 };
    for (uint64_t i = 0; i < DRAWS; i++) {
        double u = (double)random_uniform(&key, i);
        bin[(int)(u * BINS)] += 1.0;
        host_mean_add(&mean, u);
        host_mean_add(&square, (u - 0.5) * (u - 0.5));
    }
    double chi = 0.0;
    for (int i = 0; i < BINS; i++) {
        double expected = (double)DRAWS / BINS;
        chi += (bin[i] - expected) * (bin[i] - expected) / expected;
    }
    /* Mean BINS - 1, deviation sqrt(2 (BINS - 1)): five of them on either side. */
    host_assert_near(chi, BINS - 1, 5.0 * sqrt(2.0 * (BINS - 1)), "chi square", 0);
    host_assert_near(host_mean_z(&mean, 0.5), 0.0, 5.0, "z of the mean", 0);
    host_assert_near(host_mean_z(&square, 1.0 / 12.0), 0.0, 5.0, "z of the variance", 0);
}

/* Changing any one part of the key gives an unrelated stream. */
static void test_streams_are_unrelated(void **state)
{
    (void)state;
    const struct random_key base = { .seed = 9, .purpose = RANDOM_ROUND_W, .tensor = 3, .step = 4 };
    struct random_key other[4] = { base, base, base, base };
    other[0].seed++;
    other[1].purpose = RANDOM_ROUND_M;
    other[2].tensor++;
    other[3].step++;
    for (int k = 0; k < 4; k++) {
        struct host_mean product = { 0 };
        int64_t equal = 0;
        for (uint64_t i = 0; i < 50000; i++) {
            uint32_t a = random_u32(&base, i);
            uint32_t b = random_u32(&other[k], i);
            equal += a == b;
            host_mean_add(&product, ((double)random_uniform_from(a) - 0.5) *
                                        ((double)random_uniform_from(b) - 0.5));
        }
        assert_true(equal <= 1);
        host_assert_near(host_mean_z(&product, 0.0), 0.0, 5.0, "z of the correlation", k);
    }
}

static double normal_cdf(double x)
{
    return 0.5 * erfc(-x / sqrt(2.0));
}

static int compare_floats(const void *a, const void *b)
{
    float x = *(const float *)a;
    float y = *(const float *)b;
    return (x > y) - (x < y);
}

static void test_normal_distribution(void **state)
{
    struct backend *be = *state;
    enum { COUNT = 200000 };
    struct tensor x = host_vector(be, DTYPE_F32, COUNT);
    struct random_key key = { .seed = 1, .purpose = RANDOM_INIT, .tensor = 2 };
    op_random_normal(be, &x, 1.0f, key);
    /* Moments of the normal distribution. */
    static const double expected[5] = { 1.0, 0.0, 1.0, 0.0, 3.0 };
    for (int power = 1; power <= 4; power++) {
        struct host_mean moment = { 0 };
        for (int64_t i = 0; i < COUNT; i++) {
            host_mean_add(&moment, pow((double)host_get(&x, i), power));
        }
        host_assert_near(host_mean_z(&moment, expected[power]), 0.0, 5.0, "z of moment", power);
    }
    /* The two of a pair, and neighbours of different pairs, are uncorrelated. */
    for (int64_t lag = 1; lag <= 4; lag++) {
        struct host_mean product = { 0 };
        for (int64_t i = 0; i + lag < COUNT; i++) {
            host_mean_add(&product, (double)host_get(&x, i) * (double)host_get(&x, i + lag));
        }
        host_assert_near(host_mean_z(&product, 0.0), 0.0, 5.0, "z of lag", lag);
    }
    /* Kolmogorov's distance: sqrt(n) D > 2.2 happens once in 10000. */
    qsort(x.data, COUNT, sizeof(float), compare_floats);
    double distance = 0.0;
    for (int64_t i = 0; i < COUNT; i++) {
        distance = fmax(distance, fabs(normal_cdf((double)host_get(&x, i)) - (double)i / COUNT));
    }
    host_assert_near(distance * sqrt(COUNT), 0.0, 2.2, "Kolmogorov distance", 0);
    host_free(be, &x);
}

/* Every element is the formula applied to its own words, in any storage and at any length. */
static void test_normal_formula(void **state)
{
    struct backend *be = *state;
    struct random_key key = { .seed = 3, .purpose = RANDOM_INIT, .tensor = 8, .step = 1 };
    static const int64_t lengths[] = { 1, 2, 3, 31, 33, 16384, 16387, 50001 };
    for (size_t n = 0; n < sizeof lengths / sizeof lengths[0]; n++) {
        struct tensor x = host_vector(be, DTYPE_F32, lengths[n]);
        struct tensor y = host_vector(be, DTYPE_BF16, lengths[n]);
        op_random_normal(be, &x, 0.02f, key);
        op_random_normal(be, &y, 0.02f, key);
        for (int64_t i = 0; i < lengths[n]; i++) {
            uint64_t pair = (uint64_t)i & ~(uint64_t)1;
            double radius = sqrt(-2.0 * log((double)random_uniform(&key, pair)));
            double angle = 2.0 * 3.14159265358979323846 * (double)random_uniform(&key, pair + 1);
            double z = 0.02 * radius * (i % 2 == 0 ? cos(angle) : sin(angle));
            host_assert_near((double)host_get(&x, i), z, 2e-7, "normal", i);
            assert_int_equal(((uint16_t *)y.data)[i], bf16_from_float(host_get(&x, i)));
        }
        host_free(be, &x);
        host_free(be, &y);
    }
}

static void test_normal_threads(void **state)
{
    struct backend *be = *state;
    int threads = omp_get_max_threads();
    struct tensor x = host_vector(be, DTYPE_F32, 100003);
    struct tensor y = host_vector(be, DTYPE_F32, 100003);
    struct random_key key = { .seed = 4, .purpose = RANDOM_INIT };
    omp_set_num_threads(1);
    op_random_normal(be, &x, 1.0f, key);
    for (int run = 0; run < 10; run++) {
        omp_set_num_threads(2 + run % 3);
        host_fill(&y, 0.0f);
        op_random_normal(be, &y, 1.0f, key);
        host_assert_same_bits(&x, &y);
    }
    omp_set_num_threads(threads);
    host_free(be, &x);
    host_free(be, &y);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers),         cmocka_unit_test(test_key_layout),
        cmocka_unit_test(test_uniform_ends),          cmocka_unit_test(test_uniform_distribution),
        cmocka_unit_test(test_streams_are_unrelated), cmocka_unit_test(test_normal_distribution),
        cmocka_unit_test(test_normal_formula),        cmocka_unit_test(test_normal_threads),
    };
    return cmocka_run_group_tests_name("random", tests, host_setup, host_teardown);
}
