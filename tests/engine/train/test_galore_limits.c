/* What GaLore is by its definition: gradient descent where nothing is projected away, updates of
 * the rank that it says, the same step from one batch and from its micro-batches. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/method/galore_parts.h"
#include "saved_states.h"

static const char *const matrices[] = { "model.layers.0.self_attn.q_proj.weight",
                                        "model.layers.0.self_attn.k_proj.weight",
                                        "model.layers.1.mlp.up_proj.weight",
                                        "model.layers.1.mlp.down_proj.weight" };
enum { MATRICES = 4 };

/* after - before, in double. */
static double *difference(const float *before, const float *after, int64_t count)
{
    double *out = malloc((size_t)count * sizeof *out);
    for (int64_t i = 0; i < count; i++) {
        out[i] = (double)after[i] - (double)before[i];
    }
    return out;
}

static double largest(const double *values, int64_t count)
{
    double most = 0.0;
    for (int64_t i = 0; i < count; i++) {
        most = fmax(most, fabs(values[i]));
    }
    return most;
}

/* A basis of everything, the gradient itself as the step: W -= lr G. Adam in another basis would be
 * another method. */
static void test_whole_basis_is_descent(void **state)
{
    (void)state;
    struct fixture full;
    struct fixture galore;
    int64_t a = 0;
    int64_t b = 0;
    fixture_open(&full, "untied",
                 WORDS("method.name=full", "optimizer.name=sgd", "optimizer.lr=1", "train.clip=0",
                       "optimizer.weight_decay=0"));
    fixture_open(&galore, "untied",
                 WORDS("method.name=galore", "method.rank=32", "method.scale=1",
                       "optimizer.name=sgd", "optimizer.lr=1", "train.clip=0",
                       "optimizer.weight_decay=0"));
    float *before[MATRICES];
    struct state_entry entry;
    for (int m = 0; m < MATRICES; m++) {
        before[m] = fixture_state(&full, matrices[m], &entry);
    }
    fixture_step(&full, &a);
    fixture_step(&galore, &b);
    for (int m = 0; m < MATRICES; m++) {
        float *one = fixture_state(&full, matrices[m], &entry);
        float *two = fixture_state(&galore, matrices[m], &entry);
        int64_t count = entry.dim[0] * entry.dim[1];
        double *step = difference(before[m], one, count);
        double *error = difference(one, two, count);
        assert_true(largest(step, count) > 1e-3);
        assert_true(largest(error, count) < 2e-5 * largest(step, count));
        free(step);
        free(error);
        free(one);
        free(two);
        free(before[m]);
    }
    fixture_close(&full);
    fixture_close(&galore);
}

static double dot(const double *a, const double *b, int64_t count)
{
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

/* Rank of (rows, columns), which is lost: the largest row is taken out of all others, until what is
 * left is rounding. */
static int64_t rank_of(double *matrix, int64_t rows, int64_t columns)
{
    double first = 0.0;
    for (int64_t rank = 0; rank < columns; rank++) {
        int64_t pivot = 0;
        double most = 0.0;
        for (int64_t i = 0; i < rows; i++) {
            double squares = dot(matrix + i * columns, matrix + i * columns, columns);
            pivot = squares > most ? i : pivot;
            most = fmax(most, squares);
        }
        first = rank == 0 ? most : first;
        if (most <= 1e-7 * first) {
            return rank;
        }
        double *taken = malloc((size_t)columns * sizeof *taken);
        memcpy(taken, matrix + pivot * columns, (size_t)columns * sizeof *taken);
        for (int64_t i = 0; i < rows; i++) {
            double share = dot(matrix + i * columns, taken, columns) / most;
            for (int64_t c = 0; c < columns; c++) {
                matrix[i * columns + c] -= share * taken[c];
            }
        }
        free(taken);
    }
    return columns;
}

/* The largest part of a matrix (m, n) that its own basis does not hold, relative to the largest
 * element: back(project(A)) = A for what came back once. */
static double left_over(const struct galore_part *part, const double *a, int64_t m, int64_t n)
{
    const float *basis = part->basis.data;
    double worst = 0.0;
    for (int64_t line = 0; line < (part->right ? m : n); line++) {
        for (int64_t at = 0; at < part->small; at++) {
            double back = 0.0;
            for (int64_t r = 0; r < part->rank; r++) {
                double inside = 0.0;
                for (int64_t k = 0; k < part->small; k++) {
                    double element = part->right ? a[line * n + k] : a[k * n + line];
                    inside += element * (double)basis[k * part->rank + r];
                }
                back += inside * (double)basis[at * part->rank + r];
            }
            double element = part->right ? a[line * n + at] : a[at * n + line];
            worst = fmax(worst, fabs(back - element));
        }
    }
    return worst / largest(a, m * n);
}

static const struct galore_part *part_of(const struct fixture *f, const char *name)
{
    const struct galore *galore = f->trainer->method.state;
    for (int64_t i = 0; i < galore->part_count; i++) {
        if (strcmp(galore->part[i].part->parameter->name, name) == 0) {
            return &galore->part[i];
        }
    }
    fail_msg("no part %s", name);
    return NULL;
}

/* Between two refreshes all updates together have the rank of one; over several they have more. */
static void test_rank_of_updates(void **state)
{
    (void)state;
    enum { RANK = 4, INTERVAL = 3 };
    struct fixture f;
    int64_t step = 0;
    fixture_open(&f, "untied",
                 WORDS("method.name=galore", "method.rank=4", "method.interval=3",
                       "method.moments=reset", "optimizer.lr=0.1", "method.scale=1",
                       "optimizer.weight_decay=0"));
    float *before[MATRICES];
    struct state_entry entry;
    for (int m = 0; m < MATRICES; m++) {
        before[m] = fixture_state(&f, matrices[m], &entry);
    }
    for (int period = 1; period <= 2; period++) {
        for (int s = 0; s < INTERVAL; s++) {
            fixture_step(&f, &step);
        }
        for (int m = 0; m < MATRICES; m++) {
            float *after = fixture_state(&f, matrices[m], &entry);
            double *moved = difference(before[m], after, entry.dim[0] * entry.dim[1]);
            if (period == 1) {
                const struct galore_part *part = part_of(&f, matrices[m]);
                double left = left_over(part, moved, entry.dim[0], entry.dim[1]);
                if (!(left < 1e-4)) {
                    fail_msg("%s: %g is left over", matrices[m], left);
                }
            }
            int64_t rank = rank_of(moved, entry.dim[0], entry.dim[1]);
            assert_true(period == 1 ? rank == RANK : rank > RANK && rank <= 2 * RANK);
            free(moved);
            free(after);
        }
    }
    for (int m = 0; m < MATRICES; m++) {
        free(before[m]);
    }
    fixture_close(&f);
}

/* From the same bases: rows of a batch in three micro-batches give the step of one. */
static void test_accumulation(void **state)
{
    (void)state;
    struct error err = { 0 };
    struct fixture whole;
    struct fixture parts;
    struct batch micro[3];
    int64_t step = 0;
    fixture_open(&whole, "untied", WORDS("method.name=galore", "method.rank=8", "train.clip=1"));
    fixture_open(&parts, "untied",
                 WORDS("method.name=galore", "method.rank=8", "train.clip=1", "batch.micro=1",
                       "batch.accumulate=3"));
    for (int i = 0; i < 3; i++) {
        check(batch_init(&micro[i], 1, 16, &err), &err);
        memcpy(micro[i].ids, parts.batch.ids + 16 * i, 64);
        memcpy(micro[i].targets, parts.batch.targets + 16 * i, 64);
        memcpy(micro[i].positions, parts.batch.positions + 16 * i, 64);
        for (int t = 0; t < 16; t++) {
            micro[i].trained_tokens += micro[i].targets[t] >= 0;
        }
    }
    fixture_step(&whole, &step);
    states_copy(parts.trainer, whole.trainer, &err);
    for (int s = 0; s < 5; s++) {
        struct step_result a = fixture_step(&whole, &step);
        struct step_result b;
        check(trainer_step(parts.trainer, step, micro, 3, &b, &err), &err);
        assert_false(a.refreshed || b.refreshed);
        assert_int_equal(a.tokens, b.tokens);
        assert_true(fabsf(a.loss - b.loss) < 2e-6f);
        assert_true(fabsf(a.grad_norm - b.grad_norm) < 1e-5f * a.grad_norm);
    }
    for (int i = 0; i < 3; i++) {
        batch_free(&micro[i]);
    }
    fixture_close(&whole);
    fixture_close(&parts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_basis_is_descent),
        cmocka_unit_test(test_rank_of_updates),
        cmocka_unit_test(test_accumulation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
