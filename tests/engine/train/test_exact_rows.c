/* Exact rows: bf16 weights that train like fp32 ones, rows that come and go, and what it costs. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/method/grass_parts.h"
#include "fixture.h"

static const char *const matrices[] = { "model.layers.0.self_attn.q_proj.weight",
                                        "model.layers.0.self_attn.k_proj.weight",
                                        "model.layers.1.mlp.gate_proj.weight",
                                        "model.layers.1.mlp.down_proj.weight" };

static struct grass_part *part_of(struct fixture *f, const char *matrix)
{
    struct grass *grass = f->trainer->method.state;
    for (int64_t i = 0; i < grass->part_count; i++) {
        if (strcmp(grass->part[i].part->parameter->name, matrix) == 0) {
            return &grass->part[i];
        }
    }
    fail_msg("no part %s", matrix);
    return NULL;
}

/* All weights of a matrix (malloc'd), with their residues. All rows must be selected. */
static double *exact_weights(struct fixture *f, const char *matrix, int64_t *count)
{
    struct state_entry entry;
    void *bits = fixture_state(f, matrix, &entry);
    *count = entry.dim[0] * entry.dim[1];
    double *out = malloc((size_t)*count * sizeof *out);
    assert_non_null(out);
    bool exact = f->recipe.method_exact_rows;
    const int16_t *residue = exact ? part_of(f, matrix)->residue.data : NULL;
    for (int64_t i = 0; i < *count; i++) {
        out[i] = entry.dtype == DTYPE_F32 ? (double)((float *)bits)[i]
                 : exact                  ? (double)bf16_join(((uint16_t *)bits)[i], residue[i])
                                          : (double)bf16_to_float(((uint16_t *)bits)[i]);
    }
    free(bits);
    return out;
}

/* How far the weights of four matrices moved in `steps` steps of lr 1e-5, which is less than half a
 * last place of most bf16 weights. */
static void walk(double *moved[4], int64_t count[4], int steps, const char *const *words)
{
    struct fixture f;
    int64_t step = 0;
    fixture_open(&f, "untied", words);
    double *start[4];
    for (int m = 0; m < 4; m++) {
        start[m] = exact_weights(&f, matrices[m], &count[m]);
    }
    for (int i = 0; i < steps; i++) {
        fixture_step(&f, &step);
    }
    for (int m = 0; m < 4; m++) {
        moved[m] = exact_weights(&f, matrices[m], &count[m]);
        for (int64_t i = 0; i < count[m]; i++) {
            moved[m][i] -= start[m][i];
        }
        free(start[m]);
    }
    fixture_close(&f);
}

#define ALL_ROWS                                                                                   \
    "method.name=grass", "method.rank=32", "method.interval=1000", "optimizer.lr=0.00001",         \
        "optimizer.weight_decay=0"

static void test_follows_fp32(void **state)
{
    (void)state;
    double *full[4];
    double *exact[4];
    double *nearest[4];
    int64_t count[4];
    walk(full, count, 30, WORDS(ALL_ROWS));
    walk(exact, count, 30, WORDS(ALL_ROWS, "precision.weights=bf16", "method.exact_rows=true"));
    walk(nearest, count, 30, WORDS(ALL_ROWS, "precision.weights=bf16"));
    for (int m = 0; m < 4; m++) {
        double norm = 0.0;
        double apart = 0.0;
        double still = 0.0;
        for (int64_t i = 0; i < count[m]; i++) {
            double d = exact[m][i] - full[m][i];
            norm += full[m][i] * full[m][i];
            apart += d * d;
            still += fabs(nearest[m][i]) <= 0.0 ? 1.0 : 0.0;
        }
        /* Gradients through bf16 activations differ a little, and Adam with them. */
        assert_true(sqrt(apart / norm) < 0.35);
        assert_true(still > 0.9 * (double)count[m]);
        free(full[m]);
        free(exact[m]);
        free(nearest[m]);
    }
}

/* What a refresh does to one matrix when the step itself has a learning rate of 0. */
static void check_refresh(const char *side, const char *carry)
{
    enum { M = 3 };
    struct fixture f;
    int64_t step = 0;
    char side_word[32];
    char carry_word[32];
    snprintf(side_word, sizeof side_word, "method.side=%s", side);
    snprintf(carry_word, sizeof carry_word, "method.carry=%s", carry);
    fixture_open(&f, "untied",
                 WORDS("method.name=grass", "method.rank=8", "method.interval=3",
                       "method.selection=uniform", "precision.weights=bf16",
                       "method.exact_rows=true", side_word, carry_word));
    for (int i = 0; i < 3; i++) {
        fixture_step(&f, &step);
    }
    const struct grass_part *part = part_of(&f, matrices[M]);
    struct state_entry entry;
    int64_t slots = part->count;
    uint16_t *before = fixture_state(&f, matrices[M], &entry);
    int64_t rows = entry.dim[0];
    int64_t columns = entry.dim[1];
    int32_t *old = malloc((size_t)slots * sizeof *old);
    int16_t *residue = malloc(tensor_bytes(&part->residue));
    memcpy(old, part->chosen, (size_t)slots * sizeof *old);
    memcpy(residue, part->residue.data, tensor_bytes(&part->residue));
    f.trainer->recipe.optimizer_lr = 0.0;
    assert_true(fixture_step(&f, &step).refreshed);
    const uint16_t *after = part->part->parameter->value.data;
    const int16_t *now = part->residue.data;
    int64_t left = 0;
    int64_t stayed = 0;
    int64_t rounded = 0;
    for (int64_t at = 0; at < rows * columns; at++) {
        bool by_row = part->side == SIDE_ROWS;
        int32_t place = (int32_t)(by_row ? at / columns : at % columns);
        int64_t was = -1;
        int64_t is = -1;
        for (int64_t j = 0; j < slots; j++) {
            was = old[j] == place ? (by_row ? j * columns + at % columns : at / columns * slots + j)
                                  : was;
            is = part->chosen[j] == place
                     ? (by_row ? j * columns + at % columns : at / columns * slots + j)
                     : is;
        }
        if (was >= 0 && is < 0) { /* one of the two neighbours of what it was */
            float exact = bf16_join(before[at], residue[was]);
            uint16_t low = bf16_from_float_stochastic(exact, 0);
            assert_true(after[at] == low || after[at] == bf16_from_float_stochastic(exact, 0xffff));
            rounded += after[at] != before[at];
            left++;
        } else {
            assert_int_equal(after[at], before[at]);
        }
        if (is >= 0) {
            assert_int_equal(now[is], was >= 0 ? residue[was] : 0);
            stayed += was >= 0;
        }
    }
    assert_true(left > 0 && stayed > 0);
    assert_true(rounded > 0 && rounded < left);
    free(before);
    free(old);
    free(residue);
    fixture_close(&f);
}

static void test_refresh(void **state)
{
    (void)state;
    check_refresh("out", "true");
    check_refresh("out", "false");
    check_refresh("in", "true");
}

/* Two bytes an element of the selected rows, among the states of the optimizer. */
static void test_bytes(void **state)
{
    (void)state;
    struct fixture f;
    struct fixture without;
    fixture_open(&f, "untied",
                 WORDS("method.name=grass", "method.rank=8", "precision.weights=bf16",
                       "method.exact_rows=true"));
    fixture_open(&without, "untied",
                 WORDS("method.name=grass", "method.rank=8", "precision.weights=bf16"));
    const struct grass *grass = f.trainer->method.state;
    size_t bytes = 0;
    for (int64_t g = 0; g < grass->group_count; g++) {
        bytes += (2 * (size_t)tensor_count(&grass->group[g].gradient) + 255) / 256 * 256;
    }
    assert_int_equal(f.plan.bytes[MEMORY_OPTIMIZER], without.plan.bytes[MEMORY_OPTIMIZER] + bytes);
    fixture_close(&f);
    fixture_close(&without);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_follows_fp32),
        cmocka_unit_test(test_refresh),
        cmocka_unit_test(test_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
