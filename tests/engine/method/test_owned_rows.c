/* Random numbers of states that are split by rows. Everything else about them is tested on whole
 * trainers: train/test_split_states.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "../comm/loopback.h"
#include "engine/method/owned_rows.h"

/* One step on a matrix whose rows are all the same: rounded at random, the rows of two ranks must
 * not be. */
struct rounding_case {
    uint16_t weight[2][8 * 64];
    bool split[2];
};

static void round_rows(struct comm *comm, void *context)
{
    struct rounding_case *c = context;
    struct error err = { 0 };
    char why[128];
    struct backend *be = backend_open("cpu", 0, why, sizeof why);
    size_t capacity[MEMORY_CATEGORY_COUNT];
    for (int i = 0; i < MEMORY_CATEGORY_COUNT; i++) {
        capacity[i] = 1 << 16;
    }
    struct memory *memory = memory_open(be, capacity, &err);
    struct method method = { .be = be, .memory = memory, .comm = comm, .rule = rule_find("sgd") };
    const int64_t dim[2] = { 8, 64 };
    struct tensor weight = memory_matrix(memory, MEMORY_WEIGHTS, "w", DTYPE_BF16, dim);
    struct tensor gradient = memory_matrix(memory, MEMORY_GRADIENTS, "g", DTYPE_BF16, dim);
    struct tensor control =
        memory_vector(memory, MEMORY_GRADIENTS, "control", DTYPE_F32, CONTROL_COUNT);
    float controls[CONTROL_COUNT] = { 0 };
    controls[CONTROL_FACTOR] = 1.0f;
    backend_upload(be, control.data, controls, sizeof controls);
    uint16_t *values = calloc(8 * 64, sizeof *values);
    for (int i = 0; i < 8 * 64; i++) {
        values[i] = bf16_from_float(1.0f);
    }
    backend_upload(be, weight.data, values, 8 * 64 * sizeof *values);
    backend_upload(be, gradient.data, values, 8 * 64 * sizeof *values);
    free(values);
    struct owned_rows owned;
    owned_rows_place(
        &owned, &method,
        &(struct rule_layout){ .name = "w", .like = &weight, .whole = 512, .ages = 1 });
    owned_rows_step(
        &owned, method.rule,
        &(struct rule_settings){
            .rounding = ROUNDING_STOCHASTIC, .seed = 5, .step = 1, .control = &control },
        &(struct rule_target){
            .weight = &weight, .gradient = &gradient, .lr = 0.003f, .scale = 1.0f });
    comm_wait(comm, be);
    backend_download(be, c->weight[comm->rank], weight.data, sizeof c->weight[0]);
    c->split[comm->rank] = owned.split;
    memory_close(memory);
    backend_close(be);
}

static void test_rounding_of_shares(void **state)
{
    (void)state;
    struct rounding_case c = { 0 };
    loopback_run(&(struct loopback_options){ .ranks = 2, .silent_rank = -1 }, round_rows, &c);
    assert_true(c.split[0] && c.split[1]);
    assert_memory_equal(c.weight[0], c.weight[1], sizeof c.weight[0]);
    int up = 0;
    int differ = 0;
    for (int i = 0; i < 4 * 64; i++) {
        up += c.weight[0][i] == bf16_from_float(1.0f);
        differ += c.weight[0][i] != c.weight[0][4 * 64 + i];
    }
    assert_in_range(up, 16, 240); /* both values come up */
    assert_true(differ > 32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rounding_of_shares),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
