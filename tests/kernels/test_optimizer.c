/*
 * AdamW against a reference in double written from the formula, its three ways against each other,
 * and the rounding of bf16 weights and moments.
 */
#include "kernels/host_tensor.h"

#include <omp.h>
#include <string.h>

/* Everything one optimizer step touches. `index` and `rho` are only used by selections. */
struct problem {
    struct backend *be;
    struct tensor weight, m, v, age, gradient, index, rho, control;
    struct adamw args;
};

static void set_control(struct problem *p, float factor, float skip)
{
    float *c = host_floats(&p->control);
    c[CONTROL_FACTOR] = factor;
    c[CONTROL_SKIP] = skip;
    c[CONTROL_NORM] = 1.0f;
}

/* A weight (rows, columns), with gradient and moments (g_rows, g_columns), and `ages` slots. */
static void problem_open(struct problem *p, struct backend *be, const int64_t shape[4],
                         int64_t ages)
{
    *p = (struct problem){ .be = be };
    p->weight = host_matrix(be, DTYPE_F32, shape[0], shape[1]);
    p->gradient = host_matrix(be, DTYPE_F32, shape[2], shape[3]);
    p->m = host_matrix(be, DTYPE_F32, shape[2], shape[3]);
    p->v = host_matrix(be, DTYPE_F32, shape[2], shape[3]);
    p->age = host_vector(be, DTYPE_I32, ages);
    p->index = host_vector(be, DTYPE_I32, ages);
    p->rho = host_vector(be, DTYPE_F32, ages);
    p->control = host_vector(be, DTYPE_F32, CONTROL_COUNT);
    p->args = (struct adamw){ .weight = &p->weight,
                              .m = &p->m,
                              .v = &p->v,
                              .age = &p->age,
                              .gradient = &p->gradient,
                              .control = &p->control,
                              .lr = 0.01f,
                              .beta1 = 0.9f,
                              .beta2 = 0.999f,
                              .eps = 1e-8f,
                              .weight_decay = 0.1f,
                              .scale = 1.0f,
                              .key = { .seed = 17, .tensor = 9, .step = 3 } };
    host_randomize(&p->weight, 1, -1.0f, 1.0f);
    host_randomize(&p->gradient, 2, -1.0f, 1.0f);
    host_randomize(&p->m, 3, -0.1f, 0.1f);
    host_randomize(&p->v, 4, 0.0f, 0.1f);
    memset(p->age.data, 0, tensor_bytes(&p->age));
    host_fill(&p->rho, 1.0f);
    set_control(p, 1.0f, 0.0f);
}

static void problem_close(struct problem *p)
{
    struct tensor *all[] = { &p->weight,   &p->m,     &p->v,   &p->age,
                             &p->gradient, &p->index, &p->rho, &p->control };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        host_free(p->be, all[i]);
    }
}

/* Stores `t` anew as bf16, rounded to nearest. */
static void to_bf16(struct backend *be, struct tensor *t)
{
    struct tensor half = *t;
    half.dtype = DTYPE_BF16;
    half.data = backend_alloc(be, tensor_bytes(&half));
    assert_non_null(half.data);
    for (int64_t i = 0; i < tensor_count(t); i++) {
        host_set(&half, i, host_get(t, i));
    }
    host_free(be, t);
    *t = half;
}

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

enum { ROWS = 37, COLUMNS = 1100, SLOTS = 9 };

/* Slots 0 .. SLOTS - 1 on candidates 1, 5, 9 ..., with an unused slot inside and one at the end,
 * and ages of their own. */
static void choose_slots(struct problem *p)
{
    for (int64_t j = 0; j < SLOTS; j++) {
        host_ints(&p->index)[j] = j == 3 || j == SLOTS - 1 ? -1 : (int32_t)(4 * j + 1);
        host_ints(&p->age)[j] = (int32_t)(j * j);
        host_set(&p->rho, j, 0.5f + (float)j);
    }
    p->args.index = &p->index;
    p->args.rho = &p->rho;
}

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

/* ---- rounding ------------------------------------------------------------------------------- */

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
            to_bf16(be, stored[s]);
            struct tensor again = host_matrix(be, DTYPE_F32, stored[s]->dim[0], stored[s]->dim[1]);
            for (int64_t i = 0; k == 0 && i < tensor_count(&again); i++) {
                host_set(&again, i, host_get(stored[s], i));
            }
            struct tensor *drop = k == 0 ? stored[s] : &again;
            host_free(be, drop);
            if (k == 0) {
                *stored[s] = again;
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
        cmocka_unit_test(test_stochastic_rounding_is_unbiased),
        cmocka_unit_test(test_stochastic_rounding_keeps_exact_values),
        cmocka_unit_test(test_rounding_words),
        cmocka_unit_test(test_small_steps_arrive),
        cmocka_unit_test(test_moments_do_not_freeze),
        cmocka_unit_test(test_roundings_are_independent),
        cmocka_unit_test(test_same_bits_with_any_threads),
    };
    return cmocka_run_group_tests_name("optimizer", tests, host_setup, host_teardown);
}
