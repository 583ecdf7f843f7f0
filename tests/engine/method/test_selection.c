/* Statistics of row selections against counts made by hand and by brute force. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "engine/method/grass_parts.h"
#include "engine/method/selection.h"
#include "kernels/random.h"

static void test_share(void **state)
{
    (void)state;
    /* rank * dimension / hidden, rounded half up, at least 1, at most all */
    assert_int_equal(selection_share(8, 32, 32), 8);
    assert_int_equal(selection_share(8, 88, 32), 22);
    assert_int_equal(selection_share(128, 11008, 4096), 344);
    assert_int_equal(selection_share(1, 16, 32), 1); /* 0.5 */
    assert_int_equal(selection_share(1, 15, 32), 1); /* 0.47: at least one */
    assert_int_equal(selection_share(3, 16, 32), 2); /* 1.5 */
    assert_int_equal(selection_share(5, 16, 32), 3); /* 2.5 */
    assert_int_equal(selection_share(32, 88, 32), 88);
    assert_int_equal(selection_share(40, 88, 32), 88);
}

static void test_by_hand(void **state)
{
    (void)state;
    const float norms[] = { 1.0f, 0.0f, 2.0f, 1.0f };
    const int32_t chosen[] = { 0, 2 };
    const int32_t before[] = { 2, 3 };
    uint8_t seen[4] = { 0, 0, 0, 1 };
    float sorted[4];
    struct selection_report report = { 0 };
    struct selection_input input = { .squared_norms = norms,
                                     .candidates = 4,
                                     .chosen = chosen,
                                     .chosen_count = 2,
                                     .before = before,
                                     .before_count = 2,
                                     .seen = seen,
                                     .sorted = sorted };
    selection_measure(&input, &report);
    /* Of four: one row holds 1/2, two hold 3/4, all of them all; less than one row is one row. */
    static const double curve[SELECTION_CURVE] = { 0.5, 0.5, 0.5, 0.5, 0.5, 0.75, 1.0 };
    assert_memory_equal(report.curve, curve, sizeof curve);
    assert_true(fabs(report.overlap - 1.0 / 3.0) < 1e-12);
    assert_true(fabs(report.captured_energy - 0.75) < 1e-12);
    assert_true(fabs(report.coverage - 0.75) < 1e-12);
    assert_true(fabs(report.entropy - (0.5 * log(2.0) + 0.5 * log(4.0))) < 1e-12);
    assert_int_equal(report.selected, 2);
    assert_int_equal(report.histogram[0], 1);
    assert_int_equal(report.histogram[32], 1);
    input.before_count = 0;
    selection_measure(&input, &report);
    assert_true(isnan(report.overlap));
    const float zero[4] = { 0 };
    input.squared_norms = zero;
    selection_measure(&input, &report);
    assert_true(isnan(report.captured_energy));
    assert_true(isnan(report.entropy));
    assert_true(isnan(report.curve[0]) && isnan(report.curve[6]));
}

/* Random subsets: overlap and histogram against membership tables. */
static void test_brute_force(void **state)
{
    (void)state;
    struct random_key key = { .seed = 5, .purpose = RANDOM_TEST };
    uint64_t draw = 0;
    for (int round = 0; round < 200; round++) {
        enum { N = 130 };
        float norms[N];
        int32_t sets[2][N];
        int64_t counts[2] = { 0, 0 };
        int member[2][N];
        for (int32_t i = 0; i < N; i++) {
            norms[i] = random_uniform(&key, draw++);
            for (int s = 0; s < 2; s++) {
                member[s][i] = random_uniform(&key, draw++) < 0.3f;
                if (member[s][i]) {
                    sets[s][counts[s]++] = i;
                }
            }
        }
        uint8_t seen[N] = { 0 };
        struct selection_report report = { 0 };
        selection_measure(&(struct selection_input){ .squared_norms = norms,
                                                     .candidates = N,
                                                     .chosen = sets[0],
                                                     .chosen_count = counts[0],
                                                     .before = sets[1],
                                                     .before_count = counts[1],
                                                     .seen = seen },
                          &report);
        int both = 0;
        int either = 0;
        int64_t bins[SELECTION_BINS] = { 0 };
        for (int i = 0; i < N; i++) {
            both += member[0][i] && member[1][i];
            either += member[0][i] || member[1][i];
            bins[i * SELECTION_BINS / N] += member[0][i];
        }
        assert_true(fabs(report.overlap - (double)both / either) < 1e-12);
        assert_memory_equal(bins, report.histogram, sizeof bins);
    }
}

static void test_used(void **state)
{
    (void)state;
    const int32_t index[] = { 0, 4, 9, -1, -1 };
    assert_int_equal(grass_used(index, 5), 3);
    assert_int_equal(grass_used(index, 2), 2);
    assert_int_equal(grass_used(index + 3, 2), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_share),
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_brute_force),
        cmocka_unit_test(test_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
