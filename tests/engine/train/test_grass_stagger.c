/* Grass with refreshes staggered over the layers: the same method at an interval of 1, one refresh
 * a layer and interval, evenly spread work, the same bits after a resume. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/method/grass_parts.h"
#include "saved_states.h"

#define STAGGERED "method.name=grass", "method.rank=8", "method.stagger=true"

static struct grass *grass_of(const struct fixture *f)
{
    return f->trainer->method.state;
}

/* Layers that were refreshed at `step`. */
static int64_t layers_refreshed(const struct fixture *f, int64_t step)
{
    const struct grass *grass = grass_of(f);
    int64_t layers = 0;
    int64_t last = -1;
    for (int64_t g = 0; g < grass->group_count; g++) {
        const struct grass_group *group = &grass->group[g];
        for (int p = 0; p < group->part_count; p++) {
            assert_int_equal(group->part[p]->refreshed, group->part[0]->refreshed);
        }
        if (group->part[0]->refreshed == step && group->unit != last) {
            last = group->unit;
            layers++;
        }
    }
    return layers;
}

/* Due at every step, staggered or not: the same states. */
static void test_interval_of_one(void **state)
{
    (void)state;
    static const char *const variants[][4] = {
        { "method.sketch=6", "method.unselected_every=2", "method.side=out", "method.carry=true" },
        { "method.head=rows", "method.embedding=rows", "method.side=out", "method.carry=false" },
        { "method.inputs=columns", "method.side=in", "optimizer.state=bf16", "method.carry=true" },
        { "method.exact_rows=true", "precision.weights=bf16", "method.side=short",
          "method.refresh_warmup=3" },
        { "method.selection=norm", "method.unbiased=true", "optimizer.state=int8",
          "method.replacement=true" },
    };
    for (size_t v = 0; v < sizeof variants / sizeof variants[0]; v++) {
        const char *const *w = variants[v];
        struct fixture together;
        struct fixture staggered;
        int64_t a = 0;
        int64_t b = 0;
        fixture_open(&together, "untied",
                     WORDS("method.name=grass", "method.rank=8", "method.interval=1", w[0], w[1],
                           w[2], w[3]));
        fixture_open(&staggered, "untied",
                     WORDS(STAGGERED, "method.interval=1", w[0], w[1], w[2], w[3]));
        for (int s = 0; s < 6; s++) {
            struct step_result one = fixture_step(&together, &a);
            struct step_result two = fixture_step(&staggered, &b);
            assert_memory_equal(&one.loss, &two.loss, sizeof one.loss);
            assert_true(one.refreshed && two.refreshed);
        }
        check_same_states(together.trainer, staggered.trainer, NULL);
        assert_memory_equal(together.plan.bytes, staggered.plan.bytes, sizeof together.plan.bytes);
        fixture_close(&together);
        fixture_close(&staggered);
    }
}

/* After the first step, at which all choose, each layer chooses once in an interval, its parts
 * together, no step has more than its share, and reports are of what was chosen alone. */
static void test_once_an_interval(void **state)
{
    (void)state;
    enum { LAYERS = 8 }; /* qkv, o, gate and up, down of two blocks */
    static const int64_t intervals[] = { 2, 3, 5, 8, 20 };
    for (size_t v = 0; v < sizeof intervals / sizeof intervals[0]; v++) {
        char word[64];
        struct fixture f;
        int64_t interval = intervals[v];
        int64_t seen[LAYERS] = { 0 };
        int64_t step = 0;
        snprintf(word, sizeof word, "method.interval=%lld", (long long)interval);
        fixture_open(&f, "untied", WORDS(STAGGERED, word));
        const struct grass *grass = grass_of(&f);
        assert_int_equal(grass->unit_count, LAYERS);
        assert_true(fixture_step(&f, &step).refreshed);
        assert_int_equal(layers_refreshed(&f, 1), LAYERS);
        assert_int_equal(trainer_selection_count(f.trainer), grass->part_count);
        int64_t most = (LAYERS + interval - 1) / interval;
        for (int64_t s = 0; s < 2 * interval; s++) {
            struct step_result result = fixture_step(&f, &step);
            int64_t layers = layers_refreshed(&f, step);
            assert_true(layers <= most && layers + 1 >= LAYERS / interval);
            assert_int_equal(result.refreshed, layers > 0);
            for (int64_t g = 0; g < grass->group_count; g++) {
                seen[grass->group[g].unit] += grass->group[g].part[0]->refreshed == step;
            }
            for (int64_t i = 0; result.refreshed && i < trainer_selection_count(f.trainer); i++) {
                assert_int_equal(grass->part[grass->reported[i]].refreshed, step);
            }
        }
        for (int64_t i = 0; i < LAYERS; i++) {
            assert_int_equal(seen[i], 2);
        }
        fixture_close(&f);
    }
}

/* Products of a step: 4 m n T + 2 r n T a matrix, 2 m n T in place of the latter for what chooses,
 * and 6 V C T for the head. */
static void test_cost(void **state)
{
    (void)state;
    struct fixture f;
    int64_t step = 0;
    fixture_open(&f, "untied", WORDS(STAGGERED, "method.interval=5"));
    const struct grass *grass = grass_of(&f);
    double tokens = (double)(f.batch.rows * f.batch.sequence);
    for (int s = 0; s < 13; s++) {
        double before = f.be->count[OP_MATMUL].flops;
        fixture_step(&f, &step);
        double flops = 6.0 * (double)(f.config.vocabulary * f.config.hidden_size) * tokens;
        for (int64_t i = 0; i < grass->part_count; i++) {
            const struct grass_part *part = &grass->part[i];
            double n = (double)part->part->parameter->dim[1];
            double m = (double)part->part->parameter->dim[0];
            double rows = part->refreshed == step ? m : (double)part->count;
            flops += (4.0 * m * n + 2.0 * rows * n) * tokens;
        }
        assert_true(f.be->count[OP_MATMUL].flops - before == flops);
    }
    fixture_close(&f);
}

/* A skipped step leaves every byte; what was due at it chooses at the next one. */
static void test_skip_is_whole(void **state)
{
    (void)state;
    struct fixture f;
    int64_t step = 0;
    fixture_open(&f, "untied",
                 WORDS(STAGGERED, "method.interval=4", "method.exact_rows=true",
                       "precision.weights=bf16", "method.unselected_every=2"));
    while (step < 6) {
        fixture_step(&f, &step);
    }
    uint16_t *weight = f.trainer->model.final_norm->value.data;
    uint16_t good = weight[3];
    weight[3] = 0x7fc0; /* not a number */
    for (int i = 0; i < 3; i++) {
        char before[DIGEST_TEXT_SIZE];
        char after[DIGEST_TEXT_SIZE];
        fixture_digest(&f, before);
        struct step_result result = fixture_step(&f, &step);
        assert_true(result.skipped && !result.refreshed);
        fixture_digest(&f, after);
        assert_string_equal(before, after);
    }
    weight[3] = good;
    assert_true(fixture_step(&f, &step).refreshed);
    assert_int_equal(layers_refreshed(&f, step), 8); /* of the four steps 7 .. 10 */
    fixture_close(&f);
}

static void test_resume(void **state)
{
    (void)state;
    for (int at = 1; at <= 6; at++) {
        check_resume(WORDS(STAGGERED, "method.interval=5", "method.refresh_warmup=3"), 12, at,
                     NULL);
        check_resume(WORDS(STAGGERED, "method.interval=5", "method.exact_rows=true",
                           "method.sketch=4", "method.unselected_every=3", "method.head=rows",
                           "method.embedding=rows", "precision.weights=bf16",
                           "precision.rounding=stochastic", "optimizer.state=int8"),
                     12, at, NULL);
        check_resume(WORDS(STAGGERED, "method.interval=3", "method.side=in",
                           "method.inputs=columns", "method.carry=false"),
                     9, at, NULL);
    }
}

/* States that were refreshed together go on staggered, and the other way round. */
static void test_resume_the_other_way(void **state)
{
    (void)state;
    for (int way = 0; way < 2; way++) {
        struct fixture from;
        struct fixture to;
        struct error err = { 0 };
        int64_t step = 0;
        fixture_open(&from, "untied",
                     WORDS("method.name=grass", "method.rank=8", "method.interval=6",
                           way ? "method.stagger=true" : "method.stagger=false"));
        fixture_open(&to, "untied",
                     WORDS("method.name=grass", "method.rank=8", "method.interval=6",
                           way ? "method.stagger=false" : "method.stagger=true"));
        while (step < 8) {
            fixture_step(&from, &step);
        }
        states_copy(to.trainer, from.trainer, &err);
        int64_t latest = from.trainer->method.counters.last_refresh;
        for (int i = 0; i < 6; i++) {
            struct step_result result = fixture_step(&to, &step);
            if (way) { /* all at once, an interval after the latest */
                assert_int_equal(result.refreshed, step == latest + 6);
            } else {
                assert_true(layers_refreshed(&to, step) <= 2);
            }
        }
        fixture_close(&from);
        fixture_close(&to);
    }
}

/* A saved step that cannot be is refused. */
static void test_bad_state(void **state)
{
    (void)state;
    struct fixture from;
    struct fixture to;
    struct error err = { 0 };
    int64_t step = 0;
    fixture_open(&from, "untied", WORDS(STAGGERED, "method.interval=4"));
    fixture_open(&to, "untied", WORDS(STAGGERED, "method.interval=4"));
    fixture_step(&from, &step);
    static const int32_t bad[] = { 2, -1 };
    for (int i = 0; i < 2; i++) {
        struct trainer_counters counters;
        struct states states;
        grass_of(&from)->part[3].refreshed = bad[i];
        struct state_source source = states_source(&states, from.trainer);
        trainer_counters(from.trainer, &counters);
        assert_int_equal(trainer_restore(to.trainer, &source, &counters, &err), -1);
        assert_non_null(strstr(err.message, "refreshed"));
    }
    fixture_close(&from);
    fixture_close(&to);
}

/* Another rank: all choose at once, then each at its own step again. Another interval moves the
 * steps, and nothing else. */
static void test_live_changes(void **state)
{
    (void)state;
    struct fixture f;
    struct error err = { 0 };
    int64_t step = 0;
    fixture_open(&f, "untied", WORDS(STAGGERED, "method.interval=4"));
    while (step < 3) {
        fixture_step(&f, &step);
    }
    check(recipe_set(&f.recipe, "method.rank=5", &err), &err);
    check(plan_make(&f.recipe, &f.config, &f.plan, &err), &err);
    check(trainer_apply(f.trainer, &f.recipe, f.plan.bytes, &err), &err);
    assert_true(fixture_step(&f, &step).refreshed);
    assert_int_equal(layers_refreshed(&f, step), 8);
    for (int i = 0; i < 4; i++) {
        fixture_step(&f, &step);
        assert_int_equal(layers_refreshed(&f, step), 2);
    }
    check(recipe_set(&f.recipe, "method.interval=8", &err), &err);
    check(recipe_set(&f.recipe, "method.selection=norm", &err), &err);
    check(trainer_apply(f.trainer, &f.recipe, f.plan.bytes, &err), &err);
    for (int i = 0; i < 16; i++) {
        fixture_step(&f, &step);
        assert_true(layers_refreshed(&f, step) <= 1);
    }
    for (int64_t i = 0; i < grass_of(&f)->part_count; i++) {
        assert_true(grass_of(&f)->part[i].refreshed > step - 8);
    }
    fixture_close(&f);
}

/* How far the first selected row of a group went, in learning rates times its gradient. */
static double went(const struct grass_group *group, const float *before)
{
    const struct grass_part *part = group->part[0];
    const float *after = part->part->parameter->value.data;
    const float *gradient = part->gradient.data;
    int64_t columns = part->part->parameter->dim[1];
    const int64_t first = part->chosen[0] * columns;
    double moved = 0.0;
    double size = 0.0;
    for (int64_t i = 0; i < columns; i++) {
        moved += fabs((double)before[first + i] - (double)after[first + i]);
        size += fabs((double)gradient[i]);
    }
    return moved / size;
}

/* After a refresh the step of a layer grows over the warm-up, that of the others is whole. */
static void test_warmup_of_a_layer(void **state)
{
    (void)state;
    enum { WARMUP = 4 };
    struct fixture f;
    int64_t step = 0;
    fixture_open(&f, "untied",
                 WORDS(STAGGERED, "method.interval=8", "method.refresh_warmup=4",
                       "optimizer.name=sgd", "optimizer.lr=0.5", "train.clip=0",
                       "optimizer.weight_decay=0"));
    const struct grass *grass = grass_of(&f);
    while (step < 9) {
        fixture_step(&f, &step);
    }
    for (int s = 0; s < 8; s++) {
        float *before[16] = { NULL };
        for (int64_t g = 0; g < grass->group_count; g++) {
            const struct parameter *p = grass->group[g].part[0]->part->parameter;
            size_t bytes = (size_t)parameter_count(p) * sizeof(float);
            before[g] = malloc(bytes);
            memcpy(before[g], p->value.data, bytes);
        }
        fixture_step(&f, &step);
        for (int64_t g = 0; g < grass->group_count; g++) {
            const struct grass_group *group = &grass->group[g];
            int64_t k = step - group->part[0]->refreshed + 1;
            double share = k < WARMUP ? (double)k / WARMUP : 1.0;
            assert_true(fabs(went(group, before[g]) - 0.5 * share) < 1e-3);
            free(before[g]);
        }
    }
    fixture_close(&f);
}

/* A step that chooses, or that moves other rows with a learning rate of its own, is never replayed
 * from a record of another. */
static void test_replay(void **state)
{
    (void)state;
    struct fixture f;
    int64_t step = 0;
    int replayed = 0;
    fixture_open(&f, "untied", WORDS(STAGGERED, "method.interval=20", "method.unselected_every=3"));
    struct method *method = &f.trainer->method;
    while (step < 24) {
        fixture_step(&f, &step);
        method->ops->begin_step(method, step + 1);
        bool same = !grass_of(&f)->refreshing && step % 3 != 0;
        assert_int_equal(method->ops->replayable(method), same);
        replayed += same;
    }
    assert_true(replayed > 4);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_interval_of_one),
        cmocka_unit_test(test_once_an_interval),
        cmocka_unit_test(test_cost),
        cmocka_unit_test(test_skip_is_whole),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_resume_the_other_way),
        cmocka_unit_test(test_bad_state),
        cmocka_unit_test(test_live_changes),
        cmocka_unit_test(test_warmup_of_a_layer),
        cmocka_unit_test(test_replay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
