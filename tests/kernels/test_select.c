/*
 * Norms, and what holds for every single choice among them: exact answers of the deterministic
 * rule, borders, strange norms. Averages of the random rules are in test_sampling.c.
 */
#include "kernels/trial.h"

#include <omp.h>
#include <string.h>

/* ---- norms ---------------------------------------------------------------------------------- */

static void check_norms(struct backend *be, enum dtype dtype, enum side side, int64_t rows,
                        int64_t columns)
{
    int threads = omp_get_max_threads();
    struct tensor x = host_matrix(be, dtype, rows, columns);
    int64_t count = side == SIDE_ROWS ? rows : columns;
    struct tensor norms = host_vector(be, DTYPE_F32, count);
    host_randomize(&x, 1, -2.0f, 2.0f);
    for (int run = 0; run < 4; run++) {
        omp_set_num_threads(1 + run);
        host_fill(&norms, NAN);
        op_squared_norms(be, &norms, &x, side);
        for (int64_t k = 0; k < count; k++) {
            long double sum = 0.0L;
            for (int64_t l = 0; l < rows * columns / count; l++) {
                long double a = (long double)host_get(&x, side == SIDE_ROWS ? k * columns + l
                                                                            : l * columns + k);
                sum += a * a;
            }
            assert_int_equal(float_bits(host_get(&norms, k)), float_bits((float)sum));
        }
    }
    omp_set_num_threads(threads);
    host_free(be, &x);
    host_free(be, &norms);
}

static void test_squared_norms(void **state)
{
    static const int64_t shapes[][2] = {
        { 1, 1 }, { 3, 5 }, { 200, 129 }, { 7, 1500 }, { 900, 3 }
    };
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        for (int side = 0; side < 2; side++) {
            check_norms(*state, DTYPE_F32, (enum side)side, shapes[s][0], shapes[s][1]);
            check_norms(*state, DTYPE_BF16, (enum side)side, shapes[s][0], shapes[s][1]);
        }
    }
}

/* ---- the deterministic rule ------------------------------------------------------------------ */

static void check_top(struct backend *be, const float *norms, int64_t candidates,
                      const int32_t *expected, int64_t slots)
{
    struct trial t;
    trial_open(&t, be, candidates, slots);
    t.args.rule = SELECT_TOP;
    t.args.unbiased = true; /* means nothing here: rho is 1 */
    memcpy(t.norms.data, norms, (size_t)candidates * sizeof *norms);
    trial_draw(&t, 0);
    for (int64_t j = 0; j < slots; j++) {
        assert_int_equal(host_ints(&t.index)[j], expected[j]);
        assert_true(host_get(&t.scale, j) == 1.0f);
    }
    trial_close(&t);
}

static void test_top_known(void **state)
{
    struct backend *be = *state;
    const float plain[] = { 0.5f, 3.0f, 1.0f, 7.0f, 2.0f };
    check_top(be, plain, 5, (const int32_t[]){ 1, 3 }, 2);
    check_top(be, plain, 5, (const int32_t[]){ 3 }, 1);
    check_top(be, plain, 5, (const int32_t[]){ 0, 1, 2, 3, 4 }, 5);
    check_top(be, plain, 5, (const int32_t[]){ 0, 1, 2, 3, 4, -1, -1 }, 7);
    const float ties[] = { 1.0f, 2.0f, 2.0f, 2.0f, 1.0f };
    check_top(be, ties, 5, (const int32_t[]){ 1, 2 }, 2);
    check_top(be, ties, 5, (const int32_t[]){ 0, 1, 2, 3 }, 4);
    const float zeros[] = { 0.0f, -0.0f, 0.0f, 0.0f };
    check_top(be, zeros, 4, (const int32_t[]){ 0, 1 }, 2);
    const float strange[] = { 3.0f, 1.0f, NAN, 3.0f, INFINITY, 0.0f, -NAN, 1e38f };
    check_top(be, strange, 8, (const int32_t[]){ 2 }, 1);
    check_top(be, strange, 8, (const int32_t[]){ 2, 6 }, 2);
    check_top(be, strange, 8, (const int32_t[]){ 2, 4, 6 }, 3);
    check_top(be, strange, 8, (const int32_t[]){ 0, 2, 4, 6, 7 }, 5);
    const float tiny[] = { 1e-40f, 0.0f, 2e-40f };
    check_top(be, tiny, 3, (const int32_t[]){ 2 }, 1);
}

/* No other set of rows leaves less of the gradient outside: all subsets are tried. */
static void test_top_is_optimal(void **state)
{
    enum { CANDIDATES = 12, SLOTS = 5 };
    struct trial t;
    trial_open(&t, *state, CANDIDATES, SLOTS);
    t.args.rule = SELECT_TOP;
    for (uint32_t round = 0; round < 5; round++) {
        host_randomize(&t.norms, 40 + round, 0.0f, 1.0f);
        trial_draw(&t, round);
        double chosen = 0.0;
        for (int64_t j = 0; j < SLOTS; j++) {
            chosen += (double)host_get(&t.norms, host_ints(&t.index)[j]);
        }
        double best = 0.0;
        for (unsigned set = 0; set < 1u << CANDIDATES; set++) {
            double sum = 0.0;
            for (int64_t i = 0; i < CANDIDATES; i++) {
                sum += (set >> i & 1u) != 0 ? (double)host_get(&t.norms, i) : 0.0;
            }
            best = __builtin_popcount(set) == SLOTS ? fmax(best, sum) : best;
        }
        host_assert_near(chosen, best, 1e-12, "captured", round);
    }
    trial_close(&t);
}

/* ---- borders -------------------------------------------------------------------------------- */

/* Norms that cannot be weighed give the very choice of the uniform rule. */
static void test_fallback_to_uniform(void **state)
{
    struct trial t;
    enum { SLOTS = 5 };
    trial_open(&t, *state, 16, SLOTS);
    static const float strange[] = { 0.0f, NAN, INFINITY };
    for (size_t s = 0; s < 3; s++) {
        for (uint32_t draw = 0; draw < 40; draw++) {
            int32_t index[2][SLOTS];
            float scale[2][SLOTS];
            t.args.unbiased = true;
            t.args.replacement = draw % 2 == 0;
            for (int pass = 0; pass < 2; pass++) {
                host_fill(&t.norms, pass == 0 ? 1.0f : strange[s] == 0.0f ? 0.0f : 2.0f);
                if (pass == 1) {
                    host_set(&t.norms, 3, strange[s]);
                }
                t.args.rule = pass == 0      ? SELECT_UNIFORM
                              : draw % 4 < 2 ? SELECT_NORM
                                             : SELECT_NORM2;
                trial_draw(&t, draw);
                memcpy(index[pass], t.index.data, sizeof index[pass]);
                memcpy(scale[pass], t.scale.data, sizeof scale[pass]);
            }
            assert_memory_equal(index[0], index[1], sizeof index[0]);
            assert_memory_equal(scale[0], scale[1], sizeof scale[0]);
        }
    }
    trial_close(&t);
}

/* Candidates of norm 0 come last: never with replacement, and without only to fill up. */
static void test_zero_norms(void **state)
{
    struct trial t;
    enum { CANDIDATES = 9, SLOTS = 5 };
    trial_open(&t, *state, CANDIDATES, SLOTS);
    t.args.unbiased = true;
    for (int positive = 1; positive <= 7; positive += 3) {
        host_fill(&t.norms, 0.0f);
        for (int64_t i = 0; i < positive; i++) {
            host_set(&t.norms, 1 + i, 1.0f + (float)i);
        }
        int64_t times[CANDIDATES] = { 0 };
        for (uint32_t draw = 0; draw < 4000; draw++) {
            t.args.rule = trial_random_rule((int)(draw % 2));
            t.args.replacement = true;
            int64_t used = trial_draw(&t, draw);
            for (int64_t j = 0; j < used; j++) {
                assert_true(host_get(&t.norms, host_ints(&t.index)[j]) > 0.0f);
            }
            t.args.replacement = false;
            assert_int_equal(trial_draw(&t, draw), SLOTS);
            for (int64_t j = 0; j < SLOTS; j++) {
                times[host_ints(&t.index)[j]]++;
            }
        }
        for (int64_t i = 0; i < CANDIDATES; i++) {
            bool zero = !(host_get(&t.norms, i) > 0.0f);
            double filled =
                positive < SLOTS ? (SLOTS - positive) / (double)(CANDIDATES - positive) : 0.0;
            if (zero) {
                double deviation = sqrt(4000 * filled * (1.0 - filled));
                host_assert_near((double)times[i], 4000 * filled, 5.0 * deviation, "fills", i);
            } else if (positive <= SLOTS) {
                assert_int_equal(times[i], 4000);
            }
        }
    }
    trial_close(&t);
}

/* As many slots as candidates, and more: all are taken, with scale 1. */
static void test_more_slots_than_candidates(void **state)
{
    for (int64_t slots = 6; slots <= 9; slots += 3) {
        struct trial t;
        trial_open(&t, *state, 6, slots);
        trial_uneven_norms(&t);
        host_set(&t.norms, 2, 0.0f);
        t.args.unbiased = true;
        for (int r = 0; r < 3; r++) {
            t.args.rule = trial_random_rule(r);
            assert_int_equal(trial_draw(&t, 1), 6);
            for (int64_t j = 0; j < 6; j++) {
                assert_int_equal(host_ints(&t.index)[j], j);
                assert_true(host_get(&t.scale, j) == 1.0f);
            }
        }
        trial_close(&t);
    }
}

/* Extreme spreads of norms, large and small counts: always R distinct candidates. */
static void test_extreme_norms(void **state)
{
    static const int64_t sizes[][2] = {
        { 1, 1 }, { 2, 1 }, { 3000, 7 }, { 3000, 1500 }, { 3000, 2999 }
    };
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        struct trial t;
        trial_open(&t, *state, sizes[s][0], sizes[s][1]);
        t.args.unbiased = true;
        for (int64_t i = 0; i < sizes[s][0]; i++) {
            host_set(&t.norms, i, (float)pow(10.0, (double)(i % 75) - 37.0));
        }
        for (int r = 0; r < 3; r++) {
            t.args.rule = trial_random_rule(r);
            for (uint32_t draw = 0; draw < 20; draw++) {
                t.args.replacement = false;
                assert_int_equal(trial_draw(&t, draw), sizes[s][1]);
                t.args.replacement = true;
                trial_draw(&t, draw);
            }
        }
        trial_close(&t);
    }
}

/* The choice is a function of the key: the same again, another at another step. */
static void test_keyed(void **state)
{
    struct trial t;
    enum { SLOTS = 40 };
    trial_open(&t, *state, 400, SLOTS);
    host_randomize(&t.norms, 3, 0.5f, 1.0f);
    t.args.rule = SELECT_NORM;
    int32_t first[SLOTS];
    for (int replacement = 0; replacement < 2; replacement++) {
        t.args.replacement = replacement != 0;
        trial_draw(&t, 8);
        memcpy(first, t.index.data, sizeof first);
        for (int run = 0; run < 10; run++) {
            trial_draw(&t, 8);
            assert_memory_equal(first, t.index.data, sizeof first);
        }
        trial_draw(&t, 9);
        assert_memory_not_equal(first, t.index.data, sizeof first);
    }
    trial_close(&t);
}

/* The offset moves the indices and nothing else. */
static void test_offset(void **state)
{
    struct trial t;
    enum { SLOTS = 6 };
    trial_open(&t, *state, 30, SLOTS);
    trial_uneven_norms(&t);
    t.args.unbiased = true;
    t.args.replacement = true;
    for (int rule = SELECT_TOP; rule <= SELECT_UNIFORM; rule++) {
        int32_t index[SLOTS];
        float scale[SLOTS];
        t.args.rule = (enum select_rule)rule;
        t.args.offset = 0;
        trial_draw(&t, 4);
        memcpy(index, t.index.data, sizeof index);
        memcpy(scale, t.scale.data, sizeof scale);
        t.args.offset = 1000;
        op_select(t.be, &t.args);
        for (int64_t j = 0; j < SLOTS; j++) {
            int32_t expected = index[j] < 0 ? -1 : index[j] + 1000;
            assert_int_equal(host_ints(&t.index)[j], expected);
        }
        assert_memory_equal(scale, t.scale.data, sizeof scale);
    }
    trial_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_squared_norms),  cmocka_unit_test(test_top_known),
        cmocka_unit_test(test_top_is_optimal), cmocka_unit_test(test_fallback_to_uniform),
        cmocka_unit_test(test_zero_norms),     cmocka_unit_test(test_more_slots_than_candidates),
        cmocka_unit_test(test_extreme_norms),  cmocka_unit_test(test_keyed),
        cmocka_unit_test(test_offset),
    };
    return cmocka_run_group_tests_name("select", tests, host_setup, host_teardown);
}
