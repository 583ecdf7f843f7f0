/*
 * Exact rows under bf16 weights: the two halves of a value, updates that have the bits of fp32, and
 * rows that give up their residue.
 */
#include "kernels/adam_problem.h"

enum { SLOTS = PROBLEM_SLOTS };

static const int64_t shapes[3][4] = { { 30, 70, 30, 70 },
                                      { 37, 601, SLOTS, 601 },
                                      { 601, 37, 601, SLOTS } };

static void check_halves(uint32_t bits)
{
    float value = float_from_bits(bits);
    int16_t residue = 77;
    uint16_t half = bf16_split(value, &residue);
    float joined = bf16_join(half, residue);
    if (isnan(value)) {
        assert_true(isnan(bf16_to_float(half)) && isnan(joined));
        return;
    }
    assert_int_equal(float_bits(joined), bits);
    float nearest = bf16_to_float(bf16_from_float(value));
    float stored = bf16_to_float(half);
    if (isfinite(nearest)) { /* as near as the nearest, which a tie has two of */
        assert_true(fabsf(stored - value) <= fabsf(nearest - value));
    } else {
        assert_true(isinf(stored));
    }
}

static void test_halves(void **state)
{
    (void)state;
    struct random_key key = { .seed = 5, .purpose = RANDOM_TEST };
    for (uint64_t i = 0; i < 400000; i++) {
        check_halves(random_u32(&key, i));
    }
    for (uint32_t low = 0; low < 0x10000; low += 0x7fff) { /* borders of both halves */
        for (uint32_t high = 0; high < 0x10000; high++) {
            check_halves((high << 16) | low);
            check_halves((high << 16) | ((low + 1) & 0xffffu));
        }
    }
}

/* Splits the fp32 weights of `p`: all of them into a bf16 weight, the residues of its targets. */
static struct tensor split_weight(struct problem *p)
{
    struct tensor residue = host_matrix(p->be, DTYPE_I16, p->m.dim[0], p->m.dim[1]);
    const float *exact = p->weight.data;
    int16_t *to = residue.data;
    int64_t slots = tensor_count(&p->age);
    for (int64_t at = 0; at < tensor_count(&residue); at++) {
        int64_t weight_at = at;
        if (p->args.index != NULL) {
            bool rows = p->args.side == SIDE_ROWS;
            int64_t chosen = host_ints(&p->index)[rows ? at / p->m.dim[1] : at % slots];
            weight_at = rows ? chosen * p->weight.dim[1] + at % p->m.dim[1]
                             : at / slots * p->weight.dim[1] + chosen;
            if (chosen < 0) {
                to[at] = 4321;
                continue;
            }
        }
        bf16_split(exact[weight_at], &to[at]);
    }
    struct tensor half = host_matrix(p->be, DTYPE_BF16, p->weight.dim[0], p->weight.dim[1]);
    for (int64_t i = 0; i < tensor_count(&half); i++) {
        int16_t unused;
        ((uint16_t *)half.data)[i] = bf16_split(exact[i], &unused);
    }
    host_free(p->be, &p->weight);
    p->weight = half;
    p->args.residue = NULL; /* the caller's tensor has its address */
    return residue;
}

static void check_equals_fp32(struct backend *be, int way)
{
    struct problem full;
    struct problem half;
    struct problem *both[] = { &full, &half };
    for (int k = 0; k < 2; k++) {
        problem_open(both[k], be, shapes[way], way == 0 ? 1 : SLOTS);
        if (way > 0) {
            choose_slots(both[k]);
            both[k]->args.side = way == 1 ? SIDE_ROWS : SIDE_COLUMNS;
        }
        both[k]->args.lr = 1e-4f;
        both[k]->args.rounding = ROUNDING_STOCHASTIC; /* which must not matter */
    }
    struct tensor residue = split_weight(&half);
    half.args.residue = &residue;
    for (uint32_t step = 0; step < 20; step++) {
        host_randomize(&full.gradient, 50 + step, -1.0f, 1.0f);
        host_randomize(&half.gradient, 50 + step, -1.0f, 1.0f);
        op_adamw(be, &full.args);
        op_adamw(be, &half.args);
    }
    host_assert_same_bits(&full.m, &half.m);
    struct tensor exact = split_weight(&full);
    host_assert_same_bits(&full.weight, &half.weight);
    host_assert_same_bits(&exact, &residue); /* unused slots: 4321 in both */
    host_free(be, &exact);
    host_free(be, &residue);
    problem_close(&full);
    problem_close(&half);
}

static void test_equals_fp32(void **state)
{
    for (int way = 0; way < 3; way++) {
        check_equals_fp32(*state, way);
    }
}

/* 10000 steps of 1e-4 from 1: with the residue they arrive at 2, rounded to nearest they never
 * leave. (beta 0, no decay: Adam is the sign of the gradient.) */
static void test_small_steps_arrive(void **state)
{
    for (int exact = 0; exact < 2; exact++) {
        struct problem p;
        problem_open(&p, *state, (const int64_t[]){ 1, 8, 1, 8 }, 1);
        p.args.lr = 1e-4f;
        p.args.beta1 = 0.0f;
        p.args.beta2 = 0.0f;
        p.args.weight_decay = 0.0f;
        p.args.rounding = ROUNDING_NEAREST;
        host_fill(&p.weight, 1.0f);
        host_fill(&p.gradient, -3.0f);
        struct tensor residue = split_weight(&p);
        p.args.residue = exact ? &residue : NULL;
        for (int step = 0; step < 10000; step++) {
            op_adamw(p.be, &p.args);
        }
        for (int64_t i = 0; i < 8; i++) {
            double w = (double)host_get(&p.weight, i);
            host_assert_near(w, exact ? 2.0 : 1.0, exact ? 0.005 : 0.0, "weight", i);
        }
        host_free(p.be, &residue);
        problem_close(&p);
    }
}

/* Rows that settle hold the value above or below with the words that the manual names; all others
 * are as before. The mean is the exact value. */
static void check_settle(struct backend *be, enum side side)
{
    struct problem p;
    problem_open(&p, be, shapes[side == SIDE_ROWS ? 1 : 2], SLOTS);
    choose_slots(&p);
    p.args.side = side;
    struct tensor residue = split_weight(&p);
    struct tensor before = host_matrix(be, DTYPE_BF16, p.weight.dim[0], p.weight.dim[1]);
    memcpy(before.data, p.weight.data, tensor_bytes(&before));
    op_settle(be, &(struct settle){ .weight = &p.weight,
                                    .residue = &residue,
                                    .index = &p.index,
                                    .side = side,
                                    .key = p.args.key });
    struct random_key key = p.args.key;
    key.purpose = RANDOM_ROUND_W;
    int64_t width = p.weight.dim[1];
    struct host_mean z = { 0 };
    for (int64_t i = 0; i < tensor_count(&p.weight); i++) {
        uint16_t expected = ((uint16_t *)before.data)[i];
        int64_t place = side == SIDE_ROWS ? i / width : i % width;
        for (int64_t j = 0; j < SLOTS; j++) {
            if (host_ints(&p.index)[j] == place) {
                int64_t at = side == SIDE_ROWS ? j * width + i % width : i / width * SLOTS + j;
                float exact = bf16_join(expected, ((int16_t *)residue.data)[at]);
                expected = bf16_from_float_stochastic(exact, random_u32(&key, (uint64_t)i));
                host_mean_add(&z, ((double)bf16_to_float(expected) - (double)exact) /
                                      (double)fabsf(exact));
                break;
            }
        }
        assert_int_equal(((uint16_t *)p.weight.data)[i], expected);
    }
    assert_true(z.count > 3000.0);
    host_assert_near(host_mean_z(&z, 0.0), 0.0, 5.0, "z of the mean", 0);
    host_free(be, &before);
    host_free(be, &residue);
    problem_close(&p);
}

static void test_settle(void **state)
{
    check_settle(*state, SIDE_ROWS);
    check_settle(*state, SIDE_COLUMNS);
}

/* A residue beside an fp32 weight is a mistake. */
static void test_refusal(void **state)
{
    struct backend *be = *state;
    struct problem p;
    problem_open(&p, be, shapes[0], 1);
    struct tensor residue = host_matrix(be, DTYPE_I16, 30, 70);
    p.args.residue = &residue;
    op_adamw(be, &p.args);
    assert_true(be->failed);
    assert_non_null(strstr(be->error, "residue needs a bf16 weight"));
    be->failed = false;
    be->error[0] = '\0';
    host_free(be, &residue);
    problem_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_halves),
        cmocka_unit_test(test_equals_fp32),
        cmocka_unit_test(test_small_steps_arrive),
        cmocka_unit_test(test_settle),
        cmocka_unit_test(test_refusal),
    };
    return cmocka_run_group_tests_name("residue", tests, host_setup, host_teardown);
}
