/*
 * What the random rules of op_select promise on average, by z-tests over many draws. The tests of
 * the scales are also run on broken scales, which they must reject: a test that cannot fail proves
 * nothing.
 */
#include "kernels/trial.h"

enum { DRAWS = 20000 };

/* q: probabilities of the rule, written once more from the definition. */
static void reference_q(const struct trial *t, double *q)
{
    int64_t count = tensor_count(&t->norms);
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) {
        double n = (double)host_get(&t->norms, i);
        q[i] = t->args.rule == SELECT_UNIFORM ? 1.0 : t->args.rule == SELECT_NORM ? sqrt(n) : n;
        sum += q[i];
    }
    for (int64_t i = 0; i < count; i++) {
        q[i] /= sum;
    }
}

/* pi = min(1, c q) with sum `slots`, by bisection on c: not the method of the operation. */
static void reference_pi(const double *q, double *pi, int64_t count, int64_t slots)
{
    double low = 0.0;
    double high = 1e12;
    for (int step = 0; step < 200; step++) {
        double c = 0.5 * (low + high);
        double sum = 0.0;
        for (int64_t i = 0; i < count; i++) {
            pi[i] = fmin(1.0, c * q[i]);
            sum += pi[i];
        }
        if (sum < (double)slots) {
            low = c;
        } else {
            high = c;
        }
    }
}

enum estimator { RIGHT, WITHOUT_ROOT, WITHOUT_CAP };

/* The largest |z| over candidates of: mean over draws of (P P^T)_ii = 1. The broken estimators use
 * rho^2 for rho, and 1 / (R q) for 1 / pi. */
static double worst_bias(struct trial *t, enum estimator estimator)
{
    enum { MOST = 64 };
    int64_t count = tensor_count(&t->norms);
    int64_t slots = tensor_count(&t->index);
    struct host_mean mean[MOST] = { 0 };
    double q[MOST];
    assert_true(count <= MOST);
    reference_q(t, q);
    for (uint32_t draw = 0; draw < DRAWS; draw++) {
        double diagonal[MOST] = { 0 };
        int64_t used = trial_draw(t, draw);
        for (int64_t j = 0; j < used; j++) {
            int32_t i = host_ints(&t->index)[j];
            double rho = (double)host_get(&t->scale, j);
            diagonal[i] = estimator == RIGHT          ? rho * rho
                          : estimator == WITHOUT_ROOT ? rho * rho * rho * rho
                                                      : 1.0 / ((double)slots * q[i]);
        }
        for (int64_t i = 0; i < count; i++) {
            host_mean_add(&mean[i], diagonal[i]);
        }
    }
    double worst = 0.0;
    for (int64_t i = 0; i < count; i++) {
        worst = fmax(worst, fabs(host_mean_z(&mean[i], 1.0)));
    }
    return worst;
}

static void test_unbiased(void **state)
{
    struct trial t;
    trial_open(&t, *state, 24, 8);
    trial_uneven_norms(&t);
    t.args.unbiased = true;
    for (int r = 0; r < 3; r++) {
        t.args.rule = trial_random_rule(r);
        /* Rare candidates with huge weights make the mean skew: norm2 gets milder norms. */
        for (int64_t i = 0; t.args.rule == SELECT_NORM2 && i < 24; i++) {
            host_set(&t.norms, i, sqrtf(host_get(&t.norms, i)));
        }
        for (int replacement = 0; replacement < 2; replacement++) {
            t.args.replacement = replacement != 0;
            host_assert_near(worst_bias(&t, RIGHT), 0.0, 5.0, "worst z", r);
            assert_true(worst_bias(&t, WITHOUT_ROOT) > 20.0);
        }
        t.args.replacement = false;
        if (t.args.rule != SELECT_UNIFORM) {
            assert_true(worst_bias(&t, WITHOUT_CAP) > 20.0);
        }
    }
    trial_close(&t);
}

/* Slots used and scales of draws with replacement follow from how often a candidate came. */
static void test_replacement_merges_duplicates(void **state)
{
    struct trial t;
    enum { CANDIDATES = 6, SLOTS = 6 };
    trial_open(&t, *state, CANDIDATES, SLOTS);
    trial_uneven_norms(&t);
    t.args.unbiased = true;
    t.args.replacement = true;
    t.args.rule = SELECT_NORM;
    double q[CANDIDATES];
    reference_q(&t, q);
    for (uint32_t draw = 0; draw < 500; draw++) {
        int64_t used = trial_draw(&t, draw);
        assert_in_range(used, 1, CANDIDATES);
        double total = 0.0;
        for (int64_t j = 0; j < used; j++) {
            double rho = (double)host_get(&t.scale, j);
            double times = rho * rho * SLOTS * q[host_ints(&t.index)[j]];
            host_assert_near(times, round(times), 1e-4, "times drawn", j);
            total += round(times);
        }
        assert_true(total == SLOTS);
    }
    trial_close(&t);
}

static void check_inclusion(struct trial *t)
{
    enum { MOST = 64 };
    int64_t count = tensor_count(&t->norms);
    int64_t slots = tensor_count(&t->index);
    double q[MOST];
    double pi[MOST];
    int64_t times[MOST] = { 0 };
    assert_true(count <= MOST);
    reference_q(t, q);
    reference_pi(q, pi, count, slots);
    for (uint32_t draw = 0; draw < DRAWS; draw++) {
        assert_int_equal(trial_draw(t, draw), slots);
        for (int64_t j = 0; j < slots; j++) {
            int32_t i = host_ints(&t->index)[j];
            times[i]++;
            host_assert_near((double)host_get(&t->scale, j), sqrt(1.0 / pi[i]),
                             2e-6 * sqrt(1.0 / pi[i]), "rho", i);
        }
    }
    for (int64_t i = 0; i < count; i++) {
        double deviation = sqrt(DRAWS * pi[i] * (1.0 - pi[i]));
        host_assert_near((double)times[i], DRAWS * pi[i], 5.0 * deviation + 1e-3, "inclusions", i);
    }
}

static void test_inclusion_probabilities(void **state)
{
    struct trial t;
    static const int64_t slot_counts[] = { 1, 5, 16, 23, 24 };
    for (size_t s = 0; s < sizeof slot_counts / sizeof slot_counts[0]; s++) {
        for (int r = 0; r < 3; r++) {
            trial_open(&t, *state, 24, slot_counts[s]);
            trial_uneven_norms(&t);
            t.args.rule = trial_random_rule(r);
            t.args.unbiased = true;
            check_inclusion(&t);
            trial_close(&t);
        }
    }
}

/* With equal probabilities a random order makes every pair as likely as any other; without it only
 * pairs two apart would ever come. */
static void test_pairs_are_equally_likely(void **state)
{
    struct trial t;
    trial_open(&t, *state, 4, 2);
    host_fill(&t.norms, 1.0f);
    t.args.rule = SELECT_UNIFORM;
    double times[16] = { 0 };
    for (uint32_t draw = 0; draw < DRAWS; draw++) {
        trial_draw(&t, draw);
        times[4 * host_ints(&t.index)[0] + host_ints(&t.index)[1]] += 1.0;
    }
    double chi = 0.0;
    for (int a = 0; a < 4; a++) {
        for (int b = a + 1; b < 4; b++) {
            double expected = DRAWS / 6.0;
            chi += (times[4 * a + b] - expected) * (times[4 * a + b] - expected) / expected;
        }
    }
    /* chi^2 of 5 degrees of freedom exceeds 30 once in 70000. */
    host_assert_near(chi, 0.0, 30.0, "chi square", 0);
    trial_close(&t);
}

/* Mean over draws of ||P P^T G - G||^2 = sum_i ((P P^T)_ii - 1)^2 ||g_i||^2. */
static struct host_mean mean_error(struct trial *t)
{
    struct host_mean mean = { 0 };
    for (uint32_t draw = 0; draw < DRAWS; draw++) {
        int64_t used = trial_draw(t, draw);
        double error = 0.0;
        for (int64_t i = 0; i < tensor_count(&t->norms); i++) {
            error += (double)host_get(&t->norms, i);
        }
        for (int64_t j = 0; j < used; j++) {
            double norm = (double)host_get(&t->norms, host_ints(&t->index)[j]);
            double rho = (double)host_get(&t->scale, j);
            error += norm * ((rho * rho - 1.0) * (rho * rho - 1.0) - 1.0);
        }
        host_mean_add(&mean, error);
    }
    return mean;
}

/* With replacement the error is (1 / R) (sum_i ||g_i||^2 / q_i - ||G||^2): smallest for q of the
 * norms; uniform and squared norms both give (M - 1) / R ||G||^2. */
static void test_variance_with_replacement(void **state)
{
    enum { CANDIDATES = 20, SLOTS = 6 };
    struct trial t;
    trial_open(&t, *state, CANDIDATES, SLOTS);
    host_randomize(&t.norms, 77, 0.1f, 4.0f);
    t.args.unbiased = true;
    double closed[3];
    for (int r = 0; r < 3; r++) {
        double q[CANDIDATES];
        double total = 0.0;
        double sum = 0.0;
        t.args.rule = trial_random_rule(r);
        t.args.replacement = true;
        reference_q(&t, q);
        for (int64_t i = 0; i < CANDIDATES; i++) {
            total += (double)host_get(&t.norms, i);
            sum += (double)host_get(&t.norms, i) / q[i];
        }
        closed[r] = (sum - total) / SLOTS;
        if (trial_random_rule(r) != SELECT_NORM) {
            host_assert_near(closed[r], (CANDIDATES - 1) * total / SLOTS, 1e-6 * closed[r],
                             "closed form", r);
        }
        struct host_mean mean = mean_error(&t);
        host_assert_near(host_mean_z(&mean, closed[r]), 0.0, 5.0, "z of the error", r);
        /* The power to tell the rules apart, and no replacement being the better of two. */
        if (trial_random_rule(r) == SELECT_NORM) {
            assert_true(fabs(host_mean_z(&mean, closed[r] * 1.1)) > 8.0);
            t.args.replacement = false;
            struct host_mean without = mean_error(&t);
            assert_true(without.mean < 0.9 * mean.mean);
        }
    }
    assert_true(closed[0] < 0.95 * closed[1]);
    trial_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unbiased),
        cmocka_unit_test(test_replacement_merges_duplicates),
        cmocka_unit_test(test_inclusion_probabilities),
        cmocka_unit_test(test_pairs_are_equally_likely),
        cmocka_unit_test(test_variance_with_replacement),
    };
    return cmocka_run_group_tests_name("sampling", tests, host_setup, host_teardown);
}
