/*
 * AdamW against a reference in double written from the formula, and its three ways against each
 * other. The rounding of bf16 is in test_rounding.c.
 */
#include "kernels/adam_problem.h"

#include <omp.h>

static double *to_doubles(const struct tensor *t)
{
    double *values = calloc((size_t)tensor_count(t), sizeof *values);
    assert_non_null(values);
    for (int64_t i = 0; i < tensor_count(t); i++) {
        values[i] = (double)host_get(t, i);
    }
    return values;
}

/* ---- the formula ----------------------------------------------------------------------------- */

static void reference_element(const struct adamw *a, double factor, double rho, int age, double g,
                              double *w, double *m, double *v)
{
    double beta1 = (double)a->beta1;
    double beta2 = (double)a->beta2;
    g *= factor;
    *m = beta1 * *m + (1.0 - beta1) * g;
    *v = beta2 * *v + (1.0 - beta2) * g * g;
    double m_hat = *m / (1.0 - pow(beta1, age + 1));
    double v_hat = *v / (1.0 - pow(beta2, age + 1));
    double adam = m_hat / (sqrt(v_hat) + (double)a->eps);
    *w -= (double)a->lr * ((double)a->scale * rho * adam + (double)a->weight_decay * *w);
}

static void check_dense(struct backend *be, int64_t count, enum dtype gradient_type)
{
    struct problem p;
    problem_open(&p, be, (const int64_t[]){ 1, count, 1, count }, 1);
    host_fill(&p.m, 0.0f);
    host_fill(&p.v, 0.0f);
    if (gradient_type == DTYPE_BF16) {
        to_bf16(be, &p.gradient);
    }
    p.args.scale = 0.5f;
    double *w = to_doubles(&p.weight);
    double *m = to_doubles(&p.m);
    double *v = to_doubles(&p.v);
    for (uint32_t step = 0; step < 6; step++) {
        float factor = step == 3 ? 0.25f : 1.0f;
        host_randomize(&p.gradient, 100 + step, -1.0f, 1.5f);
        if (step == 4) { /* no gradient anywhere: the moments decay, the weights move on */
            host_fill(&p.gradient, 0.0f);
        }
        set_control(&p, factor, 0.0f);
        op_adamw(be, &p.args);
        for (int64_t i = 0; i < count; i++) {
            reference_element(&p.args, (double)factor, 1.0, (int)step,
                              (double)host_get(&p.gradient, i), &w[i], &m[i], &v[i]);
            host_assert_near((double)host_get(&p.weight, i), w[i], 1e-6, "weight", i);
            host_assert_near((double)host_get(&p.m, i), m[i], 3e-7, "m", i);
            host_assert_near((double)host_get(&p.v, i), v[i], 3e-8, "v", i);
        }
        assert_int_equal(host_ints(&p.age)[0], step + 1);
    }
    free(w);
    free(m);
    free(v);
    problem_close(&p);
}

static void test_dense_formula(void **state)
{
    static const int64_t counts[] = { 1, 5, 511, 513, 16385, 40000 };
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        check_dense(*state, counts[i], DTYPE_F32);
        check_dense(*state, counts[i], DTYPE_BF16);
    }
}

/* By hand: at age 0 Adam is the sign of the gradient, whatever its size. */
static void test_first_step_by_hand(void **state)
{
    struct problem p;
    problem_open(&p, *state, (const int64_t[]){ 1, 3, 1, 3 }, 1);
    memcpy(p.weight.data, (const float[]){ 2.0f, 2.0f, 2.0f }, 12);
    memcpy(p.gradient.data, (const float[]){ 1e-3f, -50.0f, 0.0f }, 12);
    host_fill(&p.m, 0.0f);
    host_fill(&p.v, 0.0f);
    op_adamw(*state, &p.args);
    /* 2 - 0.01 * (sign + 0.1 * 2) */
    static const double expected[] = { 1.988, 2.008, 1.998 };
    for (int64_t i = 0; i < 3; i++) {
        host_assert_near((double)host_get(&p.weight, i), expected[i], 5e-7, "weight", i);
    }
    problem_close(&p);
}

/* Long after the start the bias corrections are 1, and nothing overflows. */
static void test_high_age_and_zero_betas(void **state)
{
    struct problem p;
    problem_open(&p, *state, (const int64_t[]){ 1, 1, 1, 1 }, 1);
    host_ints(&p.age)[0] = 2000000000;
    double w = (double)host_get(&p.weight, 0);
    double m = (double)host_get(&p.m, 0);
    double v = (double)host_get(&p.v, 0);
    double g = (double)host_get(&p.gradient, 0);
    op_adamw(*state, &p.args);
    reference_element(&p.args, 1.0, 1.0, 2000000000 - 1, g, &w, &m, &v);
    host_assert_near((double)host_get(&p.weight, 0), w, 3e-7, "weight", 0);
    assert_int_equal(host_ints(&p.age)[0], 2000000001);
    p.args.beta1 = 0.0f;
    p.args.beta2 = 0.0f;
    reference_element(&p.args, 1.0, 1.0, 1, g, &w, &m, &v);
    op_adamw(*state, &p.args);
    host_assert_near((double)host_get(&p.weight, 0), w, 3e-7, "weight", 0);
    problem_close(&p);
}

/* ---- selections ------------------------------------------------------------------------------ */

enum { ROWS = 37, COLUMNS = 1100, SLOTS = PROBLEM_SLOTS };

/* The dense step on slot j alone, on copies: what the selected step must do, bit for bit. */
static void dense_slot(struct problem *p, int64_t j, struct problem *one)
{
    problem_open(one, p->be, (const int64_t[]){ 1, COLUMNS, 1, COLUMNS }, 1);
    size_t row = COLUMNS * sizeof(float);
    int32_t i = host_ints(&p->index)[j];
    memcpy(one->weight.data, host_floats(&p->weight) + i * COLUMNS, row);
    memcpy(one->gradient.data, host_floats(&p->gradient) + j * COLUMNS, row);
    memcpy(one->m.data, host_floats(&p->m) + j * COLUMNS, row);
    memcpy(one->v.data, host_floats(&p->v) + j * COLUMNS, row);
    host_ints(&one->age)[0] = host_ints(&p->age)[j];
    one->args.scale = p->args.scale * host_get(&p->rho, j);
    set_control(one, 0.5f, 0.0f);
    op_adamw(p->be, &one->args);
}

static void test_rows_equal_dense(void **state)
{
    struct problem p;
    struct problem one[SLOTS];
    problem_open(&p, *state, (const int64_t[]){ ROWS, COLUMNS, SLOTS, COLUMNS }, SLOTS);
    choose_slots(&p);
    p.args.side = SIDE_ROWS;
    set_control(&p, 0.5f, 0.0f);
    float *before = malloc(tensor_bytes(&p.weight));
    float *m_before = malloc(tensor_bytes(&p.m));
    assert_non_null(before);
    assert_non_null(m_before);
    memcpy(before, p.weight.data, tensor_bytes(&p.weight));
    memcpy(m_before, p.m.data, tensor_bytes(&p.m));
    for (int64_t j = 0; j < SLOTS; j++) {
        if (host_ints(&p.index)[j] >= 0) {
            dense_slot(&p, j, &one[j]);
            memcpy(before + host_ints(&p.index)[j] * COLUMNS, one[j].weight.data,
                   COLUMNS * sizeof(float));
        }
    }
    op_adamw(*state, &p.args);
    /* Selected rows as the dense step leaves them, the others untouched. */
    assert_memory_equal(p.weight.data, before, tensor_bytes(&p.weight));
    for (int64_t j = 0; j < SLOTS; j++) {
        size_t row = COLUMNS * sizeof(float);
        bool used = host_ints(&p.index)[j] >= 0;
        assert_int_equal(host_ints(&p.age)[j], j * j + (used ? 1 : 0));
        if (used) {
            assert_memory_equal(host_floats(&p.m) + j * COLUMNS, one[j].m.data, row);
            assert_memory_equal(host_floats(&p.v) + j * COLUMNS, one[j].v.data, row);
            problem_close(&one[j]);
        } else {
            assert_memory_equal(host_floats(&p.m) + j * COLUMNS, m_before + j * COLUMNS, row);
        }
    }
    free(before);
    free(m_before);
    problem_close(&p);
}

static void transpose(const struct tensor *y, const struct tensor *x)
{
    for (int64_t i = 0; i < tensor_rows(x); i++) {
        for (int64_t j = 0; j < tensor_columns(x); j++) {
            host_set(y, j * tensor_columns(y) + i, host_get(x, i * tensor_columns(x) + j));
        }
    }
}

static void assert_transposed(const struct tensor *y, const struct tensor *x)
{
    for (int64_t i = 0; i < tensor_rows(x); i++) {
        for (int64_t j = 0; j < tensor_columns(x); j++) {
            assert_int_equal(float_bits(host_get(y, j * tensor_columns(y) + i)),
                             float_bits(host_get(x, i * tensor_columns(x) + j)));
        }
    }
}

/* bf16 weights to nearest too: stochastic rounding is keyed by position, which differs. */
static void check_columns(struct backend *be, enum dtype weight_type)
{
    struct problem r;
    struct problem c;
    problem_open(&r, be, (const int64_t[]){ ROWS, COLUMNS, SLOTS, COLUMNS }, SLOTS);
    problem_open(&c, be, (const int64_t[]){ COLUMNS, ROWS, COLUMNS, SLOTS }, SLOTS);
    if (weight_type == DTYPE_BF16) {
        to_bf16(be, &r.weight);
        to_bf16(be, &c.weight);
    }
    choose_slots(&r);
    choose_slots(&c);
    r.args.side = SIDE_ROWS;
    c.args.side = SIDE_COLUMNS;
    transpose(&c.weight, &r.weight);
    transpose(&c.gradient, &r.gradient);
    transpose(&c.m, &r.m);
    transpose(&c.v, &r.v);
    for (int step = 0; step < 3; step++) {
        op_adamw(be, &r.args);
        op_adamw(be, &c.args);
    }
    assert_transposed(&c.weight, &r.weight);
    assert_transposed(&c.m, &r.m);
    assert_transposed(&c.v, &r.v);
    host_assert_same_bits(&c.age, &r.age);
    problem_close(&r);
    problem_close(&c);
}

static void test_columns_equal_rows_of_the_transpose(void **state)
{
    check_columns(*state, DTYPE_F32);
    check_columns(*state, DTYPE_BF16);
}

/* More columns than a block holds, all of them in use and rho left out. */
static void test_many_columns(void **state)
{
    struct backend *be = *state;
    struct problem d;
    struct problem c;
    enum { MANY = 1201 };
    problem_open(&d, be, (const int64_t[]){ 40, MANY, 40, MANY }, 1);
    problem_open(&c, be, (const int64_t[]){ 40, MANY, 40, MANY }, MANY);
    for (int32_t j = 0; j < MANY; j++) {
        host_ints(&c.index)[j] = j;
    }
    c.args.index = &c.index;
    c.args.side = SIDE_COLUMNS;
    op_adamw(be, &d.args);
    op_adamw(be, &c.args);
    host_assert_same_bits(&c.weight, &d.weight);
    host_assert_same_bits(&c.m, &d.m);
    host_assert_same_bits(&c.v, &d.v);
    problem_close(&d);
    problem_close(&c);
}

/* ---- skip ------------------------------------------------------------------------------------ */

static void check_skip(struct backend *be, int way, bool half)
{
    struct problem p;
    struct problem q;
    struct problem *both[] = { &p, &q };
    static const int64_t shapes[3][4] = { { 40, 50, 40, 50 },
                                          { 40, 50, SLOTS, 50 },
                                          { 40, 50, 40, SLOTS } };
    for (int k = 0; k < 2; k++) {
        problem_open(both[k], be, shapes[way], way == 0 ? 1 : SLOTS);
        if (way > 0) {
            choose_slots(both[k]);
            both[k]->args.side = way == 1 ? SIDE_ROWS : SIDE_COLUMNS;
        }
        if (half) {
            to_bf16(be, &both[k]->weight);
            to_bf16(be, &both[k]->m);
            to_bf16(be, &both[k]->v);
        }
    }
    host_fill(&p.gradient, NAN);
    p.args.rounding = ROUNDING_STOCHASTIC;
    set_control(&p, NAN, 1.0f);
    op_adamw(be, &p.args);
    host_assert_same_bits(&p.weight, &q.weight);
    host_assert_same_bits(&p.m, &q.m);
    host_assert_same_bits(&p.v, &q.v);
    host_assert_same_bits(&p.age, &q.age);
    problem_close(&p);
    problem_close(&q);
}

static void test_skip_leaves_every_byte(void **state)
{
    for (int way = 0; way < 3; way++) {
        check_skip(*state, way, false);
        check_skip(*state, way, true);
    }
}

/* ---- determinism ----------------------------------------------------------------------------- */

static void check_threads(struct backend *be, int way)
{
    static const int64_t shapes[3][4] = { { 300, 333, 300, 333 },
                                          { 37, 9001, SLOTS, 9001 },
                                          { 9001, 37, 9001, SLOTS } };
    int threads = omp_get_max_threads();
    struct problem first;
    for (int run = 0; run < 10; run++) {
        struct problem p;
        problem_open(&p, be, shapes[way], way == 0 ? 1 : SLOTS);
        if (way > 0) {
            choose_slots(&p);
            p.args.side = way == 1 ? SIDE_ROWS : SIDE_COLUMNS;
        }
        to_bf16(be, &p.weight);
        to_bf16(be, &p.v);
        p.args.rounding = ROUNDING_STOCHASTIC;
        omp_set_num_threads(1 + run % 3);
        op_adamw(be, &p.args);
        op_adamw(be, &p.args);
        if (run == 0) {
            first = p;
            continue;
        }
        host_assert_same_bits(&p.weight, &first.weight);
        host_assert_same_bits(&p.m, &first.m);
        host_assert_same_bits(&p.v, &first.v);
        problem_close(&p);
    }
    omp_set_num_threads(threads);
    problem_close(&first);
}

static void test_same_bits_with_any_threads(void **state)
{
    for (int way = 0; way < 3; way++) {
        check_threads(*state, way);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense_formula),
        cmocka_unit_test(test_first_step_by_hand),
        cmocka_unit_test(test_high_age_and_zero_betas),
        cmocka_unit_test(test_rows_equal_dense),
        cmocka_unit_test(test_columns_equal_rows_of_the_transpose),
        cmocka_unit_test(test_many_columns),
        cmocka_unit_test(test_skip_leaves_every_byte),
        cmocka_unit_test(test_same_bits_with_any_threads),
    };
    return cmocka_run_group_tests_name("optimizer", tests, host_setup, host_teardown);
}
