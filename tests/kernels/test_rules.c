/* Gradient descent and trajectory-regularised Adam against their formulas, and against AdamW where
 * they must agree. */
#include "kernels/adam_problem.h"

/* ---- sgd ------------------------------------------------------------------------------------- */

static struct sgd sgd_of(struct problem *p)
{
    return (struct sgd){ .weight = &p->weight,
                         .age = &p->age,
                         .gradient = &p->gradient,
                         .control = &p->control,
                         .lr = 0.01f,
                         .weight_decay = 0.1f,
                         .scale = 0.5f,
                         .key = { .seed = 17, .tensor = 9, .step = 3 } };
}

static void test_sgd_formula(void **state)
{
    static const int64_t shapes[3][4] = { { 40, 500, 40, 500 },
                                          { 40, 500, PROBLEM_SLOTS, 500 },
                                          { 500, 40, 500, PROBLEM_SLOTS } };
    for (int way = 0; way < 3; way++) {
        struct problem p;
        struct problem old;
        problem_open(&p, *state, shapes[way], way == 0 ? 1 : PROBLEM_SLOTS);
        problem_open(&old, *state, shapes[way], way == 0 ? 1 : PROBLEM_SLOTS);
        struct sgd args = sgd_of(&p);
        args.side = way == 2 ? SIDE_COLUMNS : SIDE_ROWS;
        if (way > 0) {
            choose_slots(&p);
            args.index = &p.index;
            args.rho = &p.rho;
        }
        set_control(&p, 0.25f, 0.0f);
        op_sgd(*state, &args);
        int64_t columns = tensor_columns(&p.weight);
        for (int64_t i = 0; i < tensor_count(&p.weight); i++) {
            int64_t line = way == 2 ? i % columns : i / columns;
            int64_t slot = (line - 1) / 4;
            bool moved = way == 0 || (line % 4 == 1 && slot < PROBLEM_SLOTS - 1 && slot != 3);
            int64_t at =
                way == 2 ? i / columns * PROBLEM_SLOTS + slot : slot * columns + i % columns;
            double g = moved ? (double)host_get(&p.gradient, way == 0 ? i : at) : 0.0;
            double rho = way == 0 ? 1.0 : 0.5 + (double)slot;
            double w = (double)host_get(&old.weight, i);
            double expected = moved ? w - 0.01 * (0.5 * rho * 0.25 * g + 0.1 * w) : w;
            host_assert_near((double)host_get(&p.weight, i), expected, moved ? 2e-7 : 0.0, "weight",
                             i);
        }
        assert_int_equal(host_ints(&p.age)[0], 1);
        problem_close(&p);
        problem_close(&old);
    }
}

/* Dense with a factor a row: rows of factor 0 are left alone, decay and all. Skipped: nothing. */
static void test_sgd_row_factors(void **state)
{
    struct problem p;
    struct problem old;
    problem_open(&p, *state, (const int64_t[]){ 3, 50, 3, 50 }, 3);
    problem_open(&old, *state, (const int64_t[]){ 3, 50, 3, 50 }, 3);
    struct sgd args = sgd_of(&p);
    memcpy(p.rho.data, (const float[]){ 2.0f, 0.0f, -1.0f }, 12);
    args.rho = &p.rho;
    args.age = NULL;
    set_control(&p, 1.0f, 1.0f);
    op_sgd(*state, &args);
    host_assert_same_bits(&p.weight, &old.weight);
    set_control(&p, 1.0f, 0.0f);
    op_sgd(*state, &args);
    for (int64_t i = 0; i < 150; i++) {
        double rho = (double)host_get(&p.rho, i / 50);
        double w = (double)host_get(&old.weight, i);
        double g = (double)host_get(&p.gradient, i);
        double expected = i / 50 == 1 ? w : w - 0.01 * (0.5 * rho * g + 0.1 * w);
        host_assert_near((double)host_get(&p.weight, i), expected, i / 50 == 1 ? 0.0 : 2e-7,
                         "weight", i);
    }
    problem_close(&p);
    problem_close(&old);
}

/* ---- tradam ---------------------------------------------------------------------------------- */

struct pulled {
    struct problem p;
    struct tensor anchor;
    struct tradam args;
};

static void pulled_open(struct pulled *t, struct backend *be, int64_t count, int64_t interval,
                        float pull)
{
    problem_open(&t->p, be, (const int64_t[]){ 1, count, 1, count }, 1);
    t->anchor = host_matrix(be, DTYPE_F32, 1, count);
    host_fill(&t->anchor, NAN);
    t->args = (struct tradam){ .weight = &t->p.weight,
                               .m = &t->p.m,
                               .v = &t->p.v,
                               .anchor = &t->anchor,
                               .age = &t->p.age,
                               .gradient = &t->p.gradient,
                               .control = &t->p.control,
                               .interval = interval,
                               .pull = pull,
                               .harmonic = true,
                               .lr = 0.01f,
                               .beta1 = 0.9f,
                               .beta2 = 0.999f,
                               .eps = 1e-8f,
                               .weight_decay = 0.1f,
                               .scale = 1.0f,
                               .key = { .seed = 17, .tensor = 9, .step = 3 } };
}

static void pulled_close(struct pulled *t)
{
    host_free(t->p.be, &t->anchor);
    problem_close(&t->p);
}

/* Loops of one step are Adam whatever the pull, bit for bit; so is the first step of any loop, and
 * every step with the full rate and no pull. With the harmonic rate and no pull it is Adam at
 * lr / (1 + t mod S). */
static void check_is_adam(struct backend *be, int64_t interval, float pull, bool harmonic,
                          int steps)
{
    struct pulled t;
    struct problem adam;
    pulled_open(&t, be, 1300, interval, pull);
    problem_open(&adam, be, (const int64_t[]){ 1, 1300, 1, 1300 }, 1);
    t.args.harmonic = harmonic;
    for (int step = 0; step < steps; step++) {
        host_randomize(&t.p.gradient, 50 + (uint32_t)step, -1.0f, 1.5f);
        host_randomize(&adam.gradient, 50 + (uint32_t)step, -1.0f, 1.5f);
        adam.args.lr = harmonic ? 0.01f / (float)(1 + step % interval) : 0.01f;
        op_tradam(be, &t.args);
        op_adamw(be, &adam.args);
        host_assert_same_bits(&t.p.weight, &adam.weight);
        host_assert_same_bits(&t.p.m, &adam.m);
        host_assert_same_bits(&t.p.v, &adam.v);
    }
    pulled_close(&t);
    problem_close(&adam);
}

static void test_limits_are_adam(void **state)
{
    check_is_adam(*state, 1, 0.1f, true, 6);
    check_is_adam(*state, 1, 7.0f, false, 6);
    check_is_adam(*state, 10, 3.0f, true, 1);
    check_is_adam(*state, 3, 0.0f, true, 8);
    check_is_adam(*state, 3, 0.0f, false, 8);
}

/* f(x) = x^2 / 2 from 1, lr 0.1: the numbers of the released program, whose eps lies inside of the
 * bias correction. */
static void test_known_course(void **state)
{
    static const struct {
        int64_t interval;
        float pull;
        double x[6];
    } course[] = {
        { 3, 0.1f, { .900000032, .850267640, .817277453, .718506768, .669651499, .637486951 } },
        { 3, 0.0f, { .900000032, .850206157, .817137071, .718295196, .669364256, .637092669 } },
        { 1, 0.1f, { .900000032, .800412283, .701586346, .603939150, .507963763, .414236573 } },
    };
    for (size_t c = 0; c < sizeof course / sizeof course[0]; c++) {
        struct pulled t;
        pulled_open(&t, *state, 1, course[c].interval, course[c].pull);
        t.args.lr = 0.1f;
        t.args.weight_decay = 0.0f;
        host_fill(&t.p.m, 0.0f);
        host_fill(&t.p.v, 0.0f);
        host_fill(&t.p.weight, 1.0f);
        for (int i = 0; i < 6; i++) {
            host_set(&t.p.gradient, 0, host_get(&t.p.weight, 0));
            op_tradam(*state, &t.args);
            host_assert_near((double)host_get(&t.p.weight, 0), course[c].x[i], 3e-7, "x", i);
        }
        pulled_close(&t);
    }
}

/* 100 steps on a quadratic against the formula in double, full rate and harmonic. */
static void test_quadratic(void **state)
{
    for (int harmonic = 0; harmonic < 2; harmonic++) {
        struct pulled t;
        pulled_open(&t, *state, 1, 10, 0.3f);
        t.args.harmonic = harmonic == 1;
        host_fill(&t.p.m, 0.0f);
        host_fill(&t.p.v, 0.0f);
        host_fill(&t.p.weight, 1.0f);
        double x = 1.0, m = 0.0, v = 0.0, anchor = 0.0;
        for (int k = 0; k < 100; k++) {
            host_set(&t.p.gradient, 0, 3.0f * host_get(&t.p.weight, 0));
            op_tradam(*state, &t.args);
            anchor = k % 10 == 0 ? x : anchor;
            double g = 3.0 * x + 2.0 * (double)0.3f * (x - anchor);
            double lr = harmonic == 1 ? (double)0.01f / (k % 10 + 1) : (double)0.01f;
            m = (double)0.9f * m + (1.0 - (double)0.9f) * g;
            v = (double)0.999f * v + (1.0 - (double)0.999f) * g * g;
            double adam = m / (1.0 - pow((double)0.9f, k + 1)) /
                          (sqrt(v / (1.0 - pow((double)0.999f, k + 1))) + 1e-8);
            x -= lr * (adam + (double)0.1f * x);
            host_assert_near((double)host_get(&t.p.weight, 0), x, 3e-6, "x", k);
        }
        pulled_close(&t);
    }
}

/* Without a gradient and without decay nothing moves: the weights are their own anchor. At a
 * learning rate of 0 nothing becomes NaN. A skipped step leaves the anchor too. */
static void test_rests(void **state)
{
    struct pulled t;
    struct problem same;
    pulled_open(&t, *state, 600, 4, 5.0f);
    problem_open(&same, *state, (const int64_t[]){ 1, 600, 1, 600 }, 1);
    host_fill(&t.p.m, 0.0f);
    host_fill(&t.p.v, 0.0f);
    t.args.weight_decay = 0.0f;
    set_control(&t.p, NAN, 1.0f);
    op_tradam(*state, &t.args);
    assert_true(isnan(host_get(&t.anchor, 3)));
    assert_int_equal(host_ints(&t.p.age)[0], 0);
    set_control(&t.p, 1.0f, 0.0f);
    t.args.lr = 0.0f;
    op_tradam(*state, &t.args);
    host_assert_same_bits(&t.p.weight, &same.weight);
    assert_true(isfinite(host_get(&t.p.m, 3)));
    host_fill(&t.p.m, 0.0f);
    host_fill(&t.p.v, 0.0f);
    host_fill(&t.p.gradient, 0.0f);
    t.args.lr = 0.01f;
    for (int i = 0; i < 9; i++) {
        op_tradam(*state, &t.args);
    }
    host_assert_same_bits(&t.p.weight, &same.weight);
    pulled_close(&t);
    problem_close(&same);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sgd_formula),     cmocka_unit_test(test_sgd_row_factors),
        cmocka_unit_test(test_limits_are_adam), cmocka_unit_test(test_known_course),
        cmocka_unit_test(test_quadratic),       cmocka_unit_test(test_rests),
    };
    return cmocka_run_group_tests_name("rules", tests, host_setup, host_teardown);
}
