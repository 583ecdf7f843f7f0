/* GaLore on single matrices whose gradient is known. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/optimizer/adamw.h"
#include "engine/optimizer/sgd.h"
#include "one_matrix.h"

static float normal(uint32_t stream, int64_t at)
{
    struct random_key key = { .seed = 77, .purpose = RANDOM_TEST, .tensor = stream };
    float u = 0.0f;
    for (int i = 0; i < 4; i++) { /* near enough */
        u += random_uniform(&key, (uint64_t)(4 * at + i)) - 0.5f;
    }
    return 1.7320508f * u;
}

/* dy and x of random numbers. */
static void random_gradient(struct one_matrix *o, uint32_t stream)
{
    float *dy = o->dy.data;
    float *x = o->x.data;
    for (int64_t i = 0; i < tensor_count(&o->dy); i++) {
        dy[i] = normal(stream, i);
    }
    for (int64_t i = 0; i < tensor_count(&o->x); i++) {
        x[i] = normal(stream + 1, i);
    }
}

/* Random columns made orthonormal. */
static void orthonormal(struct backend *be, float *out, int64_t rows, int64_t columns,
                        uint32_t stream)
{
    struct tensor y = {
        .data = out, .dim = { rows, columns, 1, 1 }, .rank = 2, .dtype = DTYPE_F32, .name = "y"
    };
    struct tensor scratch = y;
    scratch.dim[0] = columns + 2;
    scratch.data = calloc((size_t)((columns + 2) * columns), sizeof(float));
    for (int64_t i = 0; i < rows * columns; i++) {
        out[i] = normal(stream, i);
    }
    op_orthonormalize(be, &(struct orthonormalize){ .y = &y, .scratch = &scratch });
    assert_int_equal(backend_sync(be), 0);
    free(scratch.data);
}

/* A gradient with singular values i^-power, tokens of them. */
static void spectrum_gradient(struct one_matrix *o, double power)
{
    int64_t k = o->dy.dim[0];
    int64_t m = o->dy.dim[1];
    int64_t n = o->x.dim[1];
    float *left = calloc((size_t)(m * k), sizeof *left);
    float *right = calloc((size_t)(n * k), sizeof *right);
    float *x = calloc((size_t)(n * k), sizeof *x);
    orthonormal(o->be, left, m, k, 1);
    orthonormal(o->be, right, n, k, 2);
    for (int64_t t = 0; t < k; t++) {
        for (int64_t j = 0; j < n; j++) {
            x[t * n + j] = (float)(pow((double)(t + 1), -power) * (double)right[j * k + t]);
        }
    }
    one_set_gradient(o, left, x);
    free(left);
    free(right);
    free(x);
}

static double spectrum_energy(int64_t rank, double power)
{
    double sum = 0.0;
    for (int64_t i = 1; i <= rank; i++) {
        sum += pow((double)i, -2.0 * power);
    }
    return sum;
}

/* Sides and sizes as the paper has them; the basis is orthonormal. */
static void test_sides(void **state)
{
    (void)state;
    static const int64_t shape[][3] = { { 40, 24, 5 },  { 24, 40, 5 }, { 32, 32, 5 },
                                        { 12, 30, 12 }, { 9, 1, 4 },   { 1, 9, 4 } };
    for (size_t i = 0; i < sizeof shape / sizeof shape[0]; i++) {
        struct one_matrix o;
        int64_t m = shape[i][0];
        int64_t n = shape[i][1];
        one_open(&o, m, n, 50, shape[i][2]);
        random_gradient(&o, 10);
        one_step(&o, 1);
        const struct galore_part *part = one_part(&o);
        int64_t small = m < n ? m : n;
        int64_t rank = shape[i][2] < small ? shape[i][2] : small;
        assert_int_equal(part->right, m >= n);
        assert_int_equal(part->basis.dim[0], small);
        assert_int_equal(part->basis.dim[1], rank);
        assert_int_equal(part->gradient.dim[0], m < n ? n : m);
        assert_int_equal(part->gradient.dim[1], rank);
        assert_true(one_defect(&o) < 1e-5);
        one_close(&o);
    }
}

/* What the bases capture of gradients with known singular values. */
static void check_energy(double power, enum projection projection, double threshold)
{
    enum { M = 160, N = 96, RANK = 24 };
    for (int turned = 0; turned < 2; turned++) {
        struct one_matrix o;
        one_open(&o, turned ? N : M, turned ? M : N, N, RANK);
        o.method.settings.projection = projection;
        spectrum_gradient(&o, power);
        one_step(&o, 1);
        double share = one_captured(&o) / spectrum_energy(RANK, power);
        assert_true(share > threshold && share < 1.0 + 1e-4);
        assert_true(one_defect(&o) < 1e-5);
        /* The estimate of what lies outside is from 16 directions. */
        double true_share = one_captured(&o) / spectrum_energy(N, power);
        assert_true(fabs(one_part(&o)->report.captured_energy - true_share) < 0.15);
        assert_true(isnan(one_part(&o)->report.overlap));
        one_close(&o);
    }
}

static void test_energy(void **state)
{
    (void)state;
    check_energy(0.5, PROJECTION_SUBSPACE, 0.97);
    check_energy(1.0, PROJECTION_SUBSPACE, 0.99);
    if (op_eigenvectors_built()) {
        check_energy(0.25, PROJECTION_SVD, 0.9999);
        check_energy(1.0, PROJECTION_SVD, 0.9999);
    }
}

/* A warm start comes closer with every refresh. */
static void test_warm_start(void **state)
{
    (void)state;
    struct one_matrix o;
    one_open(&o, 160, 96, 96, 24);
    o.method.settings.interval = 1;
    spectrum_gradient(&o, 0.25);
    double last = 0.0;
    for (int i = 0; i < 8; i++) {
        one_step(&o, 1);
        double captured = one_captured(&o);
        assert_true(captured > last * 0.9999);
        last = captured;
        assert_true(one_defect(&o) < 1e-5);
    }
    assert_true(last > 0.985 * spectrum_energy(24, 0.25));
    assert_true(one_part(&o)->report.overlap > 0.9);
    one_close(&o);
}

/* G = diag(3, 2, 1), rank 2, scale 0.25, lr 0.01: the first step is -0.0025 diag(1, 1, 0). */
static void test_diagonal(void **state)
{
    (void)state;
    static const float left[9] = { 3, 0, 0, 0, 2, 0, 0, 0, 1 };
    static const float right[9] = { 1, 0, 0, 0, 1, 0, 0, 0, 1 };
    struct one_matrix o;
    if (!op_eigenvectors_built()) {
        skip();
    }
    one_open(&o, 3, 3, 3, 2);
    o.method.settings.scale = 0.25;
    o.method.settings.projection = PROJECTION_SVD;
    one_set_gradient(&o, left, right);
    one_step(&o, 1);
    const float *w = o.linear.weight.data;
    for (int i = 0; i < 9; i++) {
        double want = i == 0 || i == 4 ? -0.0025 : 0.0;
        assert_true(fabs((double)w[i] - want) < 1e-8);
    }
    one_close(&o);
}

/* Against the definition, with dense arithmetic: two steps with decay and scale, either side. */
static void test_definition(void **state)
{
    (void)state;
    for (int turned = 0; turned < 2; turned++) {
        struct one_matrix o;
        int64_t m = turned ? 20 : 33;
        int64_t n = turned ? 33 : 20;
        one_open(&o, m, n, 40, 6);
        o.method.settings.scale = 0.3;
        o.method.settings.weight_decay = 0.2;
        ((struct galore *)o.method.state)->tile = 70; /* a few rows at a time */
        double *w = calloc((size_t)(m * n), sizeof *w);
        float *weight = o.linear.weight.data;
        double moment[33 * 6] = { 0 };
        double second[33 * 6] = { 0 };
        for (int64_t i = 0; i < m * n; i++) {
            weight[i] = normal(50, i);
            w[i] = (double)weight[i];
        }
        for (int step = 1; step <= 2; step++) {
            random_gradient(&o, (uint32_t)(20 + step));
            one_step(&o, 1);
            const struct galore_part *part = one_part(&o);
            const float *q = part->basis.data;
            double *g = one_gradient(&o);
            double normalised[33 * 6];
            for (int64_t l = 0; l < 33; l++) {
                for (int64_t r = 0; r < 6; r++) {
                    double sum = 0.0;
                    for (int64_t s = 0; s < 20; s++) {
                        sum += g[turned ? s * n + l : l * n + s] * (double)q[s * 6 + r];
                    }
                    int64_t at = l * 6 + r;
                    moment[at] = 0.9 * moment[at] + 0.1 * sum;
                    second[at] = 0.999 * second[at] + 0.001 * sum * sum;
                    normalised[at] = moment[at] / (1.0 - pow(0.9, step)) /
                                     sqrt(second[at] / (1.0 - pow(0.999, step)));
                }
            }
            for (int64_t i = 0; i < m; i++) {
                for (int64_t j = 0; j < n; j++) {
                    double back = 0.0;
                    int64_t l = turned ? j : i;
                    int64_t s = turned ? i : j;
                    for (int64_t r = 0; r < 6; r++) {
                        back += normalised[l * 6 + r] * (double)q[s * 6 + r];
                    }
                    w[i * n + j] -= 0.01 * (0.3 * back + 0.2 * w[i * n + j]);
                    assert_true(fabs((double)weight[i * n + j] - w[i * n + j]) < 3e-6);
                }
            }
            free(g);
        }
        free(w);
        one_close(&o);
    }
}

/* Several micro-batches are one step on their sum, and one update. */
static void test_accumulation(void **state)
{
    (void)state;
    struct one_matrix whole;
    struct one_matrix parts;
    one_open(&whole, 30, 18, 48, 4);
    one_open(&parts, 30, 18, 48, 4);
    random_gradient(&whole, 30);
    random_gradient(&parts, 30);
    one_step(&whole, 1);
    one_step(&parts, 1);
    for (int i = 0; i < 3; i++) { /* no refresh among these: it would see the first part alone */
        random_gradient(&whole, (uint32_t)(40 + i));
        random_gradient(&parts, (uint32_t)(40 + i));
        one_step(&whole, 1);
        one_step(&parts, 4);
        const float *a = whole.linear.weight.data;
        const float *b = parts.linear.weight.data;
        for (int64_t j = 0; j < 30 * 18; j++) {
            assert_true(fabsf(a[j] - b[j]) < 1e-6f);
        }
        assert_int_equal(((const int32_t *)one_part(&parts)->state.age.data)[0], 2 + i);
    }
    one_close(&whole);
    one_close(&parts);
}

/* Rank of a matrix: pivots of Gaussian elimination above a share of the first. */
static int numerical_rank(double *a, int64_t m, int64_t n)
{
    int rank = 0;
    double first = 0.0;
    for (;;) {
        int64_t best = 0;
        for (int64_t i = 0; i < m * n; i++) {
            best = fabs(a[i]) > fabs(a[best]) ? i : best;
        }
        double pivot = a[best];
        first = rank == 0 ? fabs(pivot) : first;
        if (fabs(pivot) < 1e-3 * first || rank == m || rank == n) {
            return rank;
        }
        int64_t row = best / n;
        int64_t column = best % n;
        rank++;
        for (int64_t i = 0; i < m; i++) {
            double factor = i == row ? 0.0 : a[i * n + column] / pivot;
            for (int64_t j = 0; j < n; j++) {
                a[i * n + j] -= factor * a[row * n + j];
            }
        }
        for (int64_t j = 0; j < n; j++) {
            a[row * n + j] = 0.0;
        }
    }
}

/* Between two refreshes the weight moves within r dimensions, over several in more. */
static void test_rank_of_updates(void **state)
{
    (void)state;
    enum { M = 24, N = 20, RANK = 3 };
    struct one_matrix o;
    one_open(&o, M, N, 30, RANK);
    o.method.settings.interval = 4;
    double moved[M * N];
    float before[M * N];
    float start[M * N];
    const float *w = o.linear.weight.data;
    memcpy(start, w, sizeof start);
    for (int round = 0; round < 3; round++) {
        memcpy(before, w, sizeof before);
        for (int i = 0; i < 4; i++) {
            random_gradient(&o, (uint32_t)(60 + 4 * round + i));
            one_step(&o, 1);
        }
        for (int i = 0; i < M * N; i++) {
            moved[i] = (double)w[i] - (double)before[i];
        }
        assert_int_equal(numerical_rank(moved, M, N), RANK);
    }
    for (int i = 0; i < M * N; i++) {
        moved[i] = (double)w[i] - (double)start[i];
    }
    assert_true(numerical_rank(moved, M, N) > RANK);
    one_close(&o);
}

/* No gradient, one direction, copies, holes: a finite orthonormal basis, by either way. */
static void test_degenerate(void **state)
{
    (void)state;
    for (int i = 0; i < 16; i++) {
        struct one_matrix o;
        enum projection projection = i & 8 ? PROJECTION_SVD : PROJECTION_SUBSPACE;
        if (projection == PROJECTION_SVD && !op_eigenvectors_built()) {
            continue;
        }
        one_open(&o, i & 4 ? 16 : 28, i & 4 ? 28 : 16, 20, i % 2 ? 16 : 100);
        o.method.settings.projection = projection;
        o.method.settings.interval = 1;
        random_gradient(&o, 5);
        float *dy = o.dy.data;
        for (int64_t at = 0; at < tensor_count(&o.dy); at++) {
            int64_t token = at / o.dy.dim[1];
            bool keep = (i & 2) ? token == 3 : false; /* one direction, or none */
            dy[at] = keep ? dy[at] : 0.0f;
        }
        for (int step = 0; step < 3; step++) {
            one_step(&o, 1);
            assert_int_equal(one_part(&o)->rank, 16);
            assert_true(one_defect(&o) < 1e-5);
        }
        const float *w = o.linear.weight.data;
        for (int64_t at = 0; at < tensor_count(&o.linear.weight); at++) {
            assert_true(isfinite(w[at]));
        }
        one_close(&o);
    }
}

/* Turning the basis by signs alone changes nothing that the weights see; keeping the moments as
 * they are does. */
static void test_rotation(void **state)
{
    (void)state;
    enum { M = 26, N = 14, RANK = 5 };
    struct one_matrix twin[3]; /* plain, rotated, kept */
    for (int i = 0; i < 3; i++) {
        one_open(&twin[i], M, N, 30, RANK);
        twin[i].method.settings.moments = i == 2 ? MOMENTS_KEEP : MOMENTS_ROTATE;
        for (int step = 0; step < 3; step++) {
            random_gradient(&twin[i], (uint32_t)(70 + step));
            one_step(&twin[i], 1);
        }
    }
    for (int i = 1; i < 3; i++) {
        struct galore_part *part = &((struct galore *)twin[i].method.state)->part[0];
        float *q = part->basis.data;
        memcpy(part->before, q, tensor_bytes(&part->basis));
        for (int64_t at = 0; at < N * RANK; at++) {
            q[at] = at % RANK % 2 == 0 ? -q[at] : q[at];
        }
        galore_commit_part(&twin[i].method, part);
        assert_true(fabs(part->report.overlap - 1.0) < 1e-5);
    }
    double apart[3] = { 0 };
    for (int i = 0; i < 3; i++) {
        random_gradient(&twin[i], 80);
        one_step(&twin[i], 1);
        const float *w = twin[i].linear.weight.data;
        const float *plain = twin[0].linear.weight.data;
        for (int64_t at = 0; at < M * N; at++) {
            apart[i] = fmax(apart[i], fabs((double)w[at] - (double)plain[at]));
        }
    }
    assert_true(apart[1] < 1e-7);
    assert_true(apart[2] > 1e-3);
    for (int i = 0; i < 3; i++) {
        one_close(&twin[i]);
    }
}

/* In a basis of the whole space a turn loses nothing of the first moment; the second stays
 * positive and keeps its sum over each row. */
static void test_whole_space(void **state)
{
    (void)state;
    enum { M = 21, N = 12 };
    struct one_matrix o;
    one_open(&o, M, N, 30, N);
    random_gradient(&o, 1);
    one_step(&o, 1);
    struct galore_part *part = &((struct galore *)o.method.state)->part[0];
    const float *m = part->state.slot[0].data;
    const float *v = part->state.slot[1].data;
    const float *q = part->basis.data;
    double before[M * N] = { 0 };
    double sums[M] = { 0 };
    for (int at = 0; at < M * N; at++) {
        sums[at / N] += (double)v[at];
        for (int r = 0; r < N; r++) {
            before[at] += (double)m[at / N * N + r] * (double)q[at % N * N + r];
        }
    }
    memcpy(part->before, q, tensor_bytes(&part->basis));
    orthonormal(o.be, part->basis.data, N, N, 90);
    galore_commit_part(&o.method, part);
    for (int at = 0; at < M * N; at++) {
        double after = 0.0;
        for (int r = 0; r < N; r++) {
            after += (double)m[at / N * N + r] * (double)q[at % N * N + r];
        }
        assert_true(fabs(after - before[at]) < 1e-5 * (1.0 + fabs(before[at])));
        assert_true(v[at] >= 0.0f);
        sums[at / N] -= (double)v[at];
    }
    for (int i = 0; i < M; i++) {
        assert_true(fabs(sums[i]) < 1e-5);
    }
    one_close(&o);
}

static void test_reset(void **state)
{
    (void)state;
    struct one_matrix o;
    one_open(&o, 20, 12, 30, 4);
    o.method.settings.moments = MOMENTS_RESET;
    o.method.settings.interval = 3;
    const int32_t *age = one_part(&o)->state.age.data;
    const float *m = one_part(&o)->state.slot[0].data;
    const float *r = one_part(&o)->gradient.data;
    for (int step = 1; step <= 8; step++) {
        random_gradient(&o, (uint32_t)step);
        one_step(&o, 1);
        assert_int_equal(age[0], (step - 1) % 3 + 1);
        for (int i = 0; i < 80 && (step - 1) % 3 == 0; i++) {
            assert_true(fabsf(m[i] - 0.1f * r[i]) < 1e-5f);
        }
    }
    one_close(&o);
}

/* Gradient descent at full rank is gradient descent: a rotation and back. */
static void test_full_rank_descent(void **state)
{
    (void)state;
    for (int turned = 0; turned < 2; turned++) {
        struct one_matrix o;
        int64_t m = turned ? 18 : 31;
        int64_t n = turned ? 31 : 18;
        one_open(&o, m, n, 40, 18);
        one_use(&o, &sgd_rule, DTYPE_F32);
        random_gradient(&o, 3);
        one_step(&o, 1);
        double *g = one_gradient(&o);
        const float *w = o.linear.weight.data;
        double difference = 0.0;
        double norm = 0.0;
        for (int64_t i = 0; i < m * n; i++) {
            double want = -0.01 * g[i];
            difference += ((double)w[i] - want) * ((double)w[i] - want);
            norm += want * want;
        }
        assert_true(sqrt(difference) < 1e-5 * sqrt(norm));
        free(g);
        one_close(&o);
    }
}

/* Eight-bit states, whose blocks lie along a direction of the basis: near the fp32 ones through
 * refreshes that turn them; where there is no gradient nothing moves. */
static void test_eight_bits(void **state)
{
    (void)state;
    enum { M = 300, N = 40, RANK = 6 };
    struct one_matrix exact;
    struct one_matrix bytes;
    one_open(&exact, M, N, 48, RANK);
    one_open(&bytes, M, N, 48, RANK);
    one_use(&bytes, &adamw_rule, DTYPE_U8);
    exact.method.settings.interval = 4;
    bytes.method.settings.interval = 4;
    const struct rule_state *states = &one_part(&bytes)->state;
    assert_int_equal(states->slot[0].dtype, DTYPE_U8);
    assert_int_equal(states->slot[2].dim[0], 2); /* two blocks a column */
    assert_int_equal(states->slot[2].dim[1], RANK);
    for (int i = 0; i < 10; i++) {
        random_gradient(&exact, (uint32_t)(1 + 2 * i));
        random_gradient(&bytes, (uint32_t)(1 + 2 * i));
        one_step(&exact, 1);
        one_step(&bytes, 1);
    }
    const float *a = exact.linear.weight.data;
    const float *b = bytes.linear.weight.data;
    double difference = 0.0;
    double norm = 0.0;
    for (int64_t i = 0; i < M * N; i++) {
        difference += pow((double)a[i] - (double)b[i], 2.0);
        norm += pow((double)a[i], 2.0);
    }
    assert_true(norm > 0.0 && sqrt(difference) < 0.1 * sqrt(norm));
    one_close(&bytes);
    one_open(&bytes, M, N, 48, RANK);
    one_use(&bytes, &adamw_rule, DTYPE_U8);
    memset(bytes.dy.data, 0, tensor_bytes(&bytes.dy));
    random_gradient(&exact, 1);
    memcpy(bytes.linear.weight.data, a, M * N * sizeof *a);
    one_step(&bytes, 1);
    one_step(&bytes, 1);
    assert_memory_equal(bytes.linear.weight.data, a, M * N * sizeof *a);
    one_close(&exact);
    one_close(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sides),           cmocka_unit_test(test_energy),
        cmocka_unit_test(test_warm_start),      cmocka_unit_test(test_diagonal),
        cmocka_unit_test(test_definition),      cmocka_unit_test(test_accumulation),
        cmocka_unit_test(test_rank_of_updates), cmocka_unit_test(test_degenerate),
        cmocka_unit_test(test_rotation),        cmocka_unit_test(test_whole_space),
        cmocka_unit_test(test_reset),           cmocka_unit_test(test_full_rank_descent),
        cmocka_unit_test(test_eight_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
