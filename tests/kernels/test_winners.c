/*
 * Sampling tokens for a weight gradient with op_select: G = sum_t dy_t x_t^T is estimated from the
 * chosen t with weights rho^2. Means against the exact G, variances against their closed forms
 * (Liu et al., arXiv 2305.15265; Oktay et al., arXiv 2007.10412), the case of four tokens worked
 * out by hand, and estimators that are broken on purpose, which the tests must reject.
 */
#include "kernels/trial.h"

enum { TOKENS = 96, N = 6, M = 5, DRAWS = 6000, PAIRS = 16 };

struct problem {
    struct backend *be;
    float x[TOKENS][N];
    float dy[TOKENS][M];
    double g[M][N];
    double direction[PAIRS][M * N];
};

static double normal(uint32_t element)
{
    struct random_key key = { .seed = 77, .purpose = RANDOM_TEST };
    double sum = 0.0;
    for (uint32_t i = 0; i < 12; i++) {
        sum += (double)random_u32(&key, (uint64_t)element * 12 + i) * 0x1p-32;
    }
    return sum - 6.0;
}

/* Row norms of x spread like exp(sigma z). dy has norm 1, so that p proportional to |x_t| is the
 * best there is and the closed forms hold. */
static void problem_fill(struct problem *p, double sigma)
{
    memset(p->g, 0, sizeof p->g);
    for (uint32_t t = 0; t < TOKENS; t++) {
        double length = exp(sigma * normal(t));
        double norm = 0.0;
        for (uint32_t j = 0; j < N; j++) {
            p->x[t][j] = (float)(length * normal(1000 + t * N + j));
        }
        for (uint32_t i = 0; i < M; i++) {
            p->dy[t][i] = (float)normal(9000 + t * M + i);
            norm += (double)p->dy[t][i] * (double)p->dy[t][i];
        }
        for (uint32_t i = 0; i < M; i++) {
            p->dy[t][i] /= (float)sqrt(norm);
            for (uint32_t j = 0; j < N; j++) {
                p->g[i][j] += (double)p->dy[t][i] * (double)p->x[t][j];
            }
        }
    }
}

static void problem_norms(const struct problem *p, struct trial *t)
{
    for (int i = 0; i < TOKENS; i++) {
        double sum = 0.0;
        for (int j = 0; j < N; j++) {
            sum += (double)p->x[i][j] * (double)p->x[i][j];
        }
        host_set(&t->norms, i, (float)sum);
    }
}

/* One estimate; `broken`: without the weights. */
static void estimate(const struct problem *p, const struct trial *t, int64_t used, bool broken,
                     double out[M][N])
{
    memset(out, 0, M * N * sizeof(double));
    for (int64_t s = 0; s < used; s++) {
        int32_t at = host_ints(&t->index)[s];
        double rho = broken ? 1.0 : (double)host_floats(&t->scale)[s];
        for (int e = 0; e < M * N; e++) {
            out[e / N][e % N] += rho * rho * (double)p->dy[at][e / N] * (double)p->x[at][e % N];
        }
    }
}

struct moments {
    double z;     /* the largest |z| over random directions of mean = G */
    double error; /* mean of |estimate - G|^2 */
};

/* A direction of its own for each pair. */
static void fill_directions(struct problem *p)
{
    for (uint32_t i = 0; i < PAIRS * M * N; i++) {
        p->direction[i / (M * N)][i % (M * N)] = normal(50000 + i);
    }
}

static double along(const struct problem *p, double g[M][N], int pair)
{
    double sum = 0.0;
    for (int e = 0; e < M * N; e++) {
        sum += g[e / N][e % N] * p->direction[pair][e];
    }
    return sum;
}

static struct moments measure(struct problem *p, struct trial *t, bool broken)
{
    struct moments result = { 0 };
    double mean[PAIRS] = { 0 };
    double spread[PAIRS] = { 0 };
    for (uint32_t draw = 0; draw < DRAWS; draw++) {
        double g[M][N];
        estimate(p, t, trial_draw(t, draw), broken, g);
        for (int e = 0; e < M * N; e++) {
            double d = g[e / N][e % N] - p->g[e / N][e % N];
            result.error += d * d / DRAWS;
        }
        for (int k = 0; k < PAIRS; k++) {
            double value = along(p, g, k);
            double d = value - mean[k];
            mean[k] += d / (draw + 1.0);
            spread[k] += d * (value - mean[k]);
        }
    }
    for (int k = 0; k < PAIRS; k++) {
        double deviation = sqrt(spread[k] / DRAWS / DRAWS);
        result.z = fmax(result.z, fabs(mean[k] - along(p, p->g, k)) / deviation);
    }
    return result;
}

static void sort_descending(double *values, int count)
{
    for (int i = 1; i < count; i++) {
        for (int j = i; j > 0 && values[j] > values[j - 1]; j--) {
            double swap = values[j];
            values[j] = values[j - 1];
            values[j - 1] = swap;
        }
    }
}

/* E|estimate - G|^2 with W winners: ((1 - P)^2 S^2 - |G_rest|^2) / (k - W); W = 0 is crs. */
static double predicted(const struct problem *p, const struct trial *t, int64_t slots, bool winners)
{
    double length[TOKENS];
    double sorted[TOKENS];
    double total = 0.0;
    for (int i = 0; i < TOKENS; i++) {
        length[i] = sorted[i] = sqrt((double)host_get(&t->norms, i));
        total += length[i];
    }
    sort_descending(sorted, TOKENS);
    int64_t best = 0;
    double rest = total;
    double best_rest = total;
    for (int64_t w = 0; winners && w < slots; w++) {
        if (rest * rest / (double)(slots - w) < best_rest * best_rest / (double)(slots - best)) {
            best = w;
            best_rest = rest;
        }
        rest -= sorted[w];
    }
    double g[M][N] = { 0 };
    double square = 0.0;
    for (int i = 0; i < TOKENS; i++) {
        bool drawn = best == 0 || length[i] < sorted[best - 1];
        for (int e = 0; drawn && e < M * N; e++) {
            g[e / N][e % N] += (double)p->dy[i][e / N] * (double)p->x[i][e % N];
        }
    }
    for (int e = 0; e < M * N; e++) {
        square += g[e / N][e % N] * g[e / N][e % N];
    }
    return (best_rest * best_rest - square) / (double)(slots - best);
}

static void set_rule(struct trial *t, bool winners)
{
    t->args.rule = winners ? SELECT_WINNERS : SELECT_NORM;
    t->args.replacement = true;
    t->args.unbiased = true;
}

static void test_means_and_variances(void **state)
{
    static struct problem p;
    struct trial t;
    const double sigmas[] = { 0.0, 0.7, 1.5 };
    const int64_t slots = 29;
    p.be = *state;
    fill_directions(&p);
    trial_open(&t, p.be, TOKENS, slots);
    for (int s = 0; s < 3; s++) {
        double error[2];
        problem_fill(&p, sigmas[s]);
        problem_norms(&p, &t);
        for (int winners = 0; winners < 2; winners++) {
            set_rule(&t, winners == 1);
            struct moments m = measure(&p, &t, false);
            double want = predicted(&p, &t, slots, winners == 1);
            if (!(m.z < 5.0) || fabs(m.error - want) > 0.05 * want) {
                fail_msg("sigma %g, winners %d: |z| = %g, variance %g, predicted %g", sigmas[s],
                         winners, m.z, m.error, want);
            }
            assert_true(measure(&p, &t, true).z > 20.0);
            error[winners] = m.error;
        }
        /* Winners never lose, and win clearly where few tokens are large. */
        assert_true(error[1] < 1.05 * error[0]);
        assert_true(s < 2 || error[1] < 0.5 * error[0]);
    }
    trial_close(&t);
}

/* x = 3, 1, 1, 1 and dy = 1, 1, -1, 1: G = 4. */
static void test_four_tokens(void **state)
{
    const double x[4] = { 3, 1, 1, 1 };
    const double dy[4] = { 1, 1, -1, 1 };
    const double variances[2][2] = { { 10.0, 20.0 / 3.0 }, { 8.0, 4.0 } };
    for (int winners = 0; winners < 2; winners++) {
        for (int64_t slots = 2; slots <= 3; slots++) {
            struct trial t;
            double mean = 0.0;
            double error = 0.0;
            trial_open(&t, *state, 4, slots);
            for (int i = 0; i < 4; i++) {
                host_set(&t.norms, i, (float)(x[i] * x[i]));
            }
            set_rule(&t, winners == 1);
            for (uint32_t draw = 0; draw < 40000; draw++) {
                int64_t used = trial_draw(&t, draw);
                double g = 0.0;
                for (int64_t s = 0; s < used; s++) {
                    int32_t at = host_ints(&t.index)[s];
                    double rho = (double)host_floats(&t.scale)[s];
                    g += rho * rho * dy[at] * x[at];
                }
                /* One winner and one drawn token with weight 3: 3 + 3 dy. */
                assert_true(winners == 0 || slots > 2 || fabs(g - 6.0) < 1e-5 || fabs(g) < 1e-5);
                mean += g / 40000.0;
                error += (g - 4.0) * (g - 4.0) / 40000.0;
            }
            double want = variances[winners][slots - 2];
            assert_true(fabs(mean - 4.0) < 5.0 * sqrt(want / 40000.0));
            assert_true(fabs(error - want) < 0.05 * want);
            trial_close(&t);
        }
    }
}

/* Zeros are never drawn, nothing is chosen of nothing but zeros that is not finite, and as many
 * slots as tokens take them all with weight 1. */
static void test_edges(void **state)
{
    struct trial t;
    trial_open(&t, *state, 10, 4);
    set_rule(&t, true);
    for (int i = 0; i < 10; i++) {
        host_set(&t.norms, i, i < 3 ? 1e-30f : 0.0f);
    }
    assert_int_equal(trial_draw(&t, 1), 3);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(host_ints(&t.index)[i], i);
        assert_true(host_floats(&t.scale)[i] == 1.0f);
    }
    for (int i = 0; i < 10; i++) {
        host_set(&t.norms, i, i < 6 ? (i == 0 ? 1e30f : 1e-30f) : 0.0f);
    }
    for (uint32_t draw = 0; draw < 200; draw++) {
        int64_t used = trial_draw(&t, draw);
        assert_int_equal(host_ints(&t.index)[0], 0);
        for (int64_t j = 0; j < used; j++) {
            assert_true(host_ints(&t.index)[j] < 6);
        }
    }
    for (int i = 0; i < 10; i++) {
        host_set(&t.norms, i, 0.0f);
    }
    assert_true(trial_draw(&t, 2) > 0);
    trial_close(&t);
    trial_open(&t, *state, 7, 7);
    set_rule(&t, true);
    trial_uneven_norms(&t);
    assert_int_equal(trial_draw(&t, 3), 7);
    for (int i = 0; i < 7; i++) {
        assert_true(host_floats(&t.scale)[i] == 1.0f);
    }
    trial_close(&t);
}

/* k of n columns without replacement, times n / k: E|G' - G|^2 = (n / k - 1) |G|^2. */
static void test_columns(void **state)
{
    enum { COLUMNS = 64, KEPT = 16 };
    struct trial t;
    double count[COLUMNS] = { 0 };
    double error = 0.0;
    double square = 0.0;
    double column[COLUMNS];
    trial_open(&t, *state, COLUMNS, KEPT);
    t.args.rule = SELECT_UNIFORM;
    for (uint32_t j = 0; j < COLUMNS; j++) {
        column[j] = exp(normal(200 + j)); /* |column j of G|^2 */
        square += column[j];
        host_set(&t.norms, j, 0.0f);
    }
    for (uint32_t draw = 0; draw < DRAWS; draw++) {
        bool kept[COLUMNS] = { 0 };
        assert_int_equal(trial_draw(&t, draw), KEPT);
        for (int s = 0; s < KEPT; s++) {
            kept[host_ints(&t.index)[s]] = true;
            count[host_ints(&t.index)[s]] += 1.0;
        }
        for (int j = 0; j < COLUMNS; j++) {
            error += (kept[j] ? 9.0 : 1.0) * column[j] / DRAWS; /* (n / k - 1)^2, or 1 */
        }
    }
    assert_true(fabs(error / square - 3.0) < 0.05 * 3.0);
    for (int j = 0; j < COLUMNS; j++) {
        double off = count[j] / DRAWS - 0.25;
        assert_true(fabs(off) < 5.0 * sqrt(0.25 * 0.75 / DRAWS));
    }
    trial_close(&t);
}

static int open_backend(void **state)
{
    char why[256];
    *state = backend_open("cpu", 0, why, sizeof why);
    return *state == NULL ? -1 : 0;
}

static int close_backend(void **state)
{
    backend_close(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_means_and_variances),
        cmocka_unit_test(test_four_tokens),
        cmocka_unit_test(test_edges),
        cmocka_unit_test(test_columns),
    };
    return cmocka_run_group_tests(tests, open_backend, close_backend);
}
