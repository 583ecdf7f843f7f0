/*
 * How bf16 weights and moments are rounded: without bias, with the random words that the manual
 * names, and with the effect that small steps arrive and moments do not freeze.
 */
#include "kernels/adam_problem.h"

enum { SLOTS = PROBLEM_SLOTS };

/* The mean of many stochastic roundings is the value itself; the nearest rounding's is not. */
static void test_stochastic_rounding_is_unbiased(void **state)
{
    (void)state;
    static const float values[] = { 1.001f, -3.14159f, 1e-8f, 0.99999f, 1e-39f };
    struct random_key key = { .seed = 8, .purpose = RANDOM_TEST };
    for (uint64_t k = 0; k < sizeof values / sizeof values[0]; k++) {
        struct host_mean mean = { 0 };
        for (uint64_t i = 0; i < 200000; i++) {
            uint32_t word = random_u32(&key, k * 1000000 + i);
            /* Relative to the value, so that z has its scale at 1e-39 too. */
            host_mean_add(&mean,
                          (double)bf16_to_float(bf16_from_float_stochastic(values[k], word)) /
                              (double)values[k]);
        }
        host_assert_near(host_mean_z(&mean, 1.0), 0.0, 5.0, "z of the mean", (int64_t)k);
        double nearest = (double)bf16_to_float(bf16_from_float(values[k])) / (double)values[k];
        double error = sqrt(mean.squares / (mean.count - 1.0) / mean.count);
        assert_true(fabs(nearest - 1.0) > 8.0 * error);
    }
}

static void test_stochastic_rounding_keeps_exact_values(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        float value = bf16_to_float((uint16_t)bits);
        uint16_t low = bf16_from_float_stochastic(value, 0);
        uint16_t high = bf16_from_float_stochastic(value, 0xffffffffu);
        if (isnan(value)) {
            assert_true(isnan(bf16_to_float(low)) && isnan(bf16_to_float(high)));
        } else {
            assert_int_equal(low, bits);
            assert_int_equal(high, bits);
        }
    }
    assert_true(isinf(bf16_to_float(bf16_from_float_stochastic(3.4e38f, 0xffff))));
    float strange = float_from_bits(0x7f800001u); /* a NaN whose payload bf16 cannot hold */
    assert_true(isnan(bf16_to_float(bf16_from_float_stochastic(strange, 0))));
}

/* bf16 results are the fp32 results rounded with the words that the manual names. */
static void check_rounding_words(struct backend *be, int way, enum rounding rounding)
{
    static const int64_t shapes[3][4] = { { 30, 70, 30, 70 },
                                          { 37, 601, SLOTS, 601 },
                                          { 601, 37, 601, SLOTS } };
    struct problem full;
    struct problem half;
    struct problem *both[] = { &full, &half };
    for (int k = 0; k < 2; k++) {
        struct problem *p = both[k];
        problem_open(p, be, shapes[way], way == 0 ? 1 : SLOTS);
        if (way > 0) {
            choose_slots(p);
            p->args.side = way == 1 ? SIDE_ROWS : SIDE_COLUMNS;
        }
        p->args.rounding = rounding;
        struct tensor *stored[] = { &p->weight, &p->m, &p->v };
        for (int s = 0; s < 3; s++) {
            for (int64_t i = 0; i < tensor_count(stored[s]); i++) {
                host_set(stored[s], i, bf16_to_float(bf16_from_float(host_get(stored[s], i))));
            }
            if (k == 1) {
                to_bf16(be, stored[s]);
            }
        }
        op_adamw(be, &p->args);
    }
    const struct tensor *from[] = { &full.weight, &full.m, &full.v };
    const struct tensor *to[] = { &half.weight, &half.m, &half.v };
    static const enum random_purpose purposes[] = { RANDOM_ROUND_W, RANDOM_ROUND_M,
                                                    RANDOM_ROUND_V };
    for (int s = 0; s < 3; s++) {
        struct random_key key = half.args.key;
        key.purpose = purposes[s];
        for (int64_t i = 0; i < tensor_count(to[s]); i++) {
            float value = host_get(from[s], i);
            uint16_t expected =
                s == 0 && rounding == ROUNDING_NEAREST
                    ? bf16_from_float(value)
                    : bf16_from_float_stochastic(value, random_u32(&key, (uint64_t)i));
            assert_int_equal(((uint16_t *)to[s]->data)[i], expected);
        }
    }
    problem_close(&full);
    problem_close(&half);
}

static void test_rounding_words(void **state)
{
    for (int way = 0; way < 3; way++) {
        check_rounding_words(*state, way, ROUNDING_NEAREST);
        check_rounding_words(*state, way, ROUNDING_STOCHASTIC);
    }
}

enum { CROWD = 4096 };

/* `steps` steps of a bf16 weight by exactly `lr` each (beta 0, no decay: Adam is the sign), from 1.
 * Mean and deviation over many elements. */
static struct host_mean walk(struct backend *be, int steps, enum rounding rounding, bool new_steps)
{
    struct problem p;
    struct host_mean mean = { 0 };
    problem_open(&p, be, (const int64_t[]){ 1, CROWD, 1, CROWD }, 1);
    host_fill(&p.weight, 1.0f);
    to_bf16(be, &p.weight);
    host_fill(&p.gradient, -1.0f);
    p.args.beta1 = 0.0f;
    p.args.beta2 = 0.0f;
    p.args.weight_decay = 0.0f;
    p.args.lr = 1e-4f;
    p.args.rounding = rounding;
    for (int step = 0; step < steps; step++) {
        p.args.key.step = new_steps ? (uint32_t)step : 1;
        op_adamw(be, &p.args);
    }
    for (int64_t i = 0; i < CROWD; i++) {
        host_mean_add(&mean, (double)host_get(&p.weight, i));
    }
    problem_close(&p);
    return mean;
}

/* Steps far below half an ulp get lost to nearest, and arrive on average if rounded stochastically.
 * Noise that returned at every step would keep the mean but tear the elements apart. */
static void test_small_steps_arrive(void **state)
{
    struct host_mean nearest = walk(*state, 1000, ROUNDING_NEAREST, true);
    assert_true(nearest.mean == 1.0);
    struct host_mean fresh = walk(*state, 1000, ROUNDING_STOCHASTIC, true);
    host_assert_near(host_mean_z(&fresh, 1.1), 0.0, 5.0, "z of the mean", 0);
    /* Each step adds ulp^2 p (1 - p), with p = lr / ulp, of variance. */
    double ulp = 1.0 / 128.0;
    double p = 1e-4 / ulp;
    double deviation = sqrt(1000.0 * ulp * ulp * p * (1.0 - p));
    host_assert_near(sqrt(fresh.squares / CROWD), deviation, 0.06 * deviation, "deviation", 0);
    struct host_mean stale = walk(*state, 1000, ROUNDING_STOCHASTIC, false);
    assert_true(sqrt(stale.squares / CROWD) > 2.0 * deviation);
}

/* The mean of bf16 moments follows the recurrence, 1 - beta^k for a constant gradient of 1. Rounded
 * to nearest, v at beta2 = 0.999 would freeze at 0.25. */
static void test_moments_do_not_freeze(void **state)
{
    enum { STEPS = 1500 };
    struct problem p;
    problem_open(&p, *state, (const int64_t[]){ 1, CROWD, 1, CROWD }, 1);
    host_fill(&p.gradient, 1.0f);
    host_fill(&p.m, 0.0f);
    host_fill(&p.v, 0.0f);
    to_bf16(*state, &p.m);
    to_bf16(*state, &p.v);
    p.args.beta1 = 0.998f;
    p.args.lr = 0.0f;
    float nearest = 0.0f;
    for (int step = 0; step < STEPS; step++) {
        p.args.key.step = (uint32_t)step;
        op_adamw(*state, &p.args);
        nearest = bf16_to_float(bf16_from_float(0.999f * nearest + 0.001f));
    }
    struct host_mean m = { 0 };
    struct host_mean v = { 0 };
    for (int64_t i = 0; i < CROWD; i++) {
        host_mean_add(&m, (double)host_get(&p.m, i));
        host_mean_add(&v, (double)host_get(&p.v, i));
    }
    double expected = 1.0 - pow((double)0.999f, STEPS);
    host_assert_near(host_mean_z(&m, 1.0 - pow((double)0.998f, STEPS)), 0.0, 5.0, "z of m", 0);
    host_assert_near(host_mean_z(&v, expected), 0.0, 5.0, "z of v", 0);
    assert_true((double)nearest < 0.5 * expected);
    problem_close(&p);
}

/* Weight, m and v of one element are rounded up or down independently. */
static void test_roundings_are_independent(void **state)
{
    struct problem p;
    problem_open(&p, *state, (const int64_t[]){ 1, CROWD, 1, CROWD }, 1);
    struct tensor *stored[] = { &p.weight, &p.m, &p.v };
    host_fill(&p.gradient, 0.7f);
    for (int s = 0; s < 3; s++) {
        host_fill(stored[s], 0.0f);
        to_bf16(*state, stored[s]);
    }
    p.args.rounding = ROUNDING_STOCHASTIC;
    op_adamw(*state, &p.args);
    for (int a = 0; a < 3; a++) {
        for (int b = a + 1; b < 3; b++) {
            struct host_mean mean_a = { 0 };
            struct host_mean mean_b = { 0 };
            struct host_mean product = { 0 };
            for (int64_t i = 0; i < CROWD; i++) {
                host_mean_add(&mean_a, (double)host_get(stored[a], i));
                host_mean_add(&mean_b, (double)host_get(stored[b], i));
            }
            assert_true(mean_a.squares > 0.0 && mean_b.squares > 0.0);
            for (int64_t i = 0; i < CROWD; i++) {
                host_mean_add(&product, ((double)host_get(stored[a], i) - mean_a.mean) *
                                            ((double)host_get(stored[b], i) - mean_b.mean));
            }
            host_assert_near(host_mean_z(&product, 0.0), 0.0, 5.0, "z of the covariance", a + b);
        }
    }
    problem_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stochastic_rounding_is_unbiased),
        cmocka_unit_test(test_stochastic_rounding_keeps_exact_values),
        cmocka_unit_test(test_rounding_words),
        cmocka_unit_test(test_small_steps_arrive),
        cmocka_unit_test(test_moments_do_not_freeze),
        cmocka_unit_test(test_roundings_are_independent),
    };
    return cmocka_run_group_tests_name("rounding", tests, host_setup, host_teardown);
}
