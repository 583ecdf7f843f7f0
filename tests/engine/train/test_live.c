/* Changing settings while training, and putting saved states back. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/method/grass_parts.h"
#include "fixture.h"

static const char *const base[] = { "method.name=grass", "method.rank=8", "method.interval=6",
                                    "method.carry=true", NULL };

/* The same with exact rows, whose residues travel with them. */
static const char *const exact[] = { "method.name=grass",      "method.rank=8",
                                     "method.interval=6",      "method.carry=true",
                                     "precision.weights=bf16", "optimizer.state=bf16",
                                     "method.exact_rows=true", NULL };

/* Applies a word as the run process does: plan first, then the trainer. */
static void change(struct fixture *f, const char *word)
{
    struct error err = { 0 };
    check(recipe_set(&f->recipe, word, &err), &err);
    check(plan_make(&f->recipe, &f->config, &f->plan, &err), &err);
    check(trainer_apply(f->trainer, &f->recipe, f->plan.bytes, &err), &err);
}

/* A saved set: every state tensor in host memory. */
struct saved {
    struct state_entry entry[512];
    char name[512][STATE_NAME_SIZE];
    void *data[512];
    int64_t count;
    struct trainer_counters counters;
};

static void save(struct fixture *f, struct saved *s)
{
    struct error err = { 0 };
    s->count = trainer_state_count(f->trainer);
    assert_true(s->count < 512);
    for (int64_t i = 0; i < s->count; i++) {
        struct state_entry *e = &s->entry[i];
        trainer_state_entry(f->trainer, i, e);
        snprintf(s->name[i], sizeof s->name[i], "%s", e->name);
        e->name = s->name[i];
        int64_t n = e->dim[0] * e->dim[1] * e->dim[2] * e->dim[3];
        s->data[i] = malloc((size_t)n * dtype_size(e->dtype) + 1);
        check(trainer_state_read(f->trainer, i, 0, n, s->data[i], &err), &err);
    }
    trainer_counters(f->trainer, &s->counters);
}

static void saved_free(struct saved *s)
{
    for (int64_t i = 0; i < s->count; i++) {
        free(s->data[i]);
    }
}

static int64_t saved_find(void *context, const char *name, struct state_entry *entry)
{
    struct saved *s = context;
    for (int64_t i = 0; i < s->count; i++) {
        if (strcmp(s->name[i], name) == 0) {
            *entry = s->entry[i];
            return i;
        }
    }
    return -1;
}

static int saved_read(void *context, int64_t index, int64_t first, int64_t count, void *out,
                      struct error *err)
{
    (void)err;
    struct saved *s = context;
    size_t width = dtype_size(s->entry[index].dtype);
    memcpy(out, (char *)s->data[index] + (size_t)first * width, (size_t)count * width);
    return 0;
}

static void restore(struct fixture *f, struct saved *s)
{
    struct error err = { 0 };
    struct state_source source = { .find = saved_find, .read = saved_read, .context = s };
    check(trainer_restore(f->trainer, &source, &s->counters, &err), &err);
}

static int32_t slot_of(const int32_t *index, int64_t count, int32_t row)
{
    for (int64_t i = 0; i < count; i++) {
        if (index[i] == row) {
            return (int32_t)i;
        }
    }
    return -1;
}

/* Rows that survive a change of rank keep their first moment but for one AdamW update, whose inputs
 * we know: m' = beta1 m + (1 - beta1) g. With lr 0 and a copy of the gradient this is exact. */
static void check_carried(struct fixture *f, const char *matrix, const struct saved *before)
{
    char name[STATE_NAME_SIZE];
    struct state_entry entry;
    struct state_entry old = { 0 };
    snprintf(name, sizeof name, "method/%s/index", matrix);
    int32_t *index = fixture_state(f, name, &entry);
    const int32_t *old_index = before->data[saved_find((void *)(uintptr_t)before, name, &old)];
    int64_t old_count = old.dim[0];
    int64_t count = entry.dim[0];
    snprintf(name, sizeof name, "method/%s/age", matrix);
    int32_t *age = fixture_state(f, name, &entry);
    const int32_t *old_age = before->data[saved_find((void *)(uintptr_t)before, name, &old)];
    snprintf(name, sizeof name, "method/%s/m", matrix);
    float *m = fixture_state(f, name, &entry);
    const float *old_m = before->data[saved_find((void *)(uintptr_t)before, name, &old)];
    const struct grass *grass = f->trainer->method.state;
    const float *gradient = NULL;
    for (int64_t i = 0; i < grass->part_count; i++) {
        if (strcmp(grass->part[i].part->parameter->name, matrix) == 0) {
            gradient = grass->part[i].gradient.data;
        }
    }
    int survivors = 0;
    int64_t n = entry.dim[1];
    for (int64_t j = 0; j < count; j++) {
        int32_t slot = slot_of(old_index, old_count, index[j]);
        assert_int_equal(age[j], slot < 0 ? 1 : old_age[slot] + 1);
        survivors += slot >= 0;
        for (int64_t e = 0; e < n; e++) {
            float from = slot < 0 ? 0.0f : old_m[slot * n + e];
            float want = 0.9f * from + (1.0f - 0.9f) * gradient[j * n + e];
            assert_memory_equal(&m[j * n + e], &want, sizeof want);
        }
    }
    assert_true(survivors > 0);
    free(index);
    free(age);
    free(m);
}

static void test_rank_carries(void **state)
{
    (void)state;
    static const char *const ranks[] = { "method.rank=16", "method.rank=4", "method.rank=32" };
    static struct saved before;
    for (int r = 0; r < 3; r++) {
        struct fixture f;
        int64_t step = 0;
        fixture_open(&f, "untied", base);
        for (int i = 0; i < 4; i++) {
            fixture_step(&f, &step);
        }
        save(&f, &before);
        change(&f, ranks[r]);
        struct step_result result = fixture_step(&f, &step);
        assert_true(result.refreshed);
        check_carried(&f, "model.layers.0.self_attn.q_proj.weight", &before);
        check_carried(&f, "model.layers.1.mlp.up_proj.weight", &before);
        struct memory *memory = trainer_memory(f.trainer);
        for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
            enum memory_category category = (enum memory_category)c;
            assert_int_equal(memory_capacity(memory, category), f.plan.bytes[c]);
        }
        saved_free(&before);
        fixture_close(&f);
    }
}

/* Live changes equal stopping, saving, and going on offline with the other settings: also when the
 * save falls between the change and the refresh that completes it. */
static void check_offline(const char *const *words_of_run, bool save_after_change)
{
    static struct saved saved;
    static const char *const words[] = { "method.rank=12", "method.interval=2",
                                         "optimizer.lr=0.003", "method.scale=0.7",
                                         "method.selection=norm" };
    struct fixture live;
    struct fixture offline;
    int64_t live_step = 0;
    fixture_open(&live, "untied", words_of_run);
    fixture_open(&offline, "untied", words_of_run);
    for (int i = 0; i < 5; i++) {
        fixture_step(&live, &live_step);
    }
    int64_t offline_step = live_step;
    if (!save_after_change) {
        save(&live, &saved);
    }
    for (int i = 0; i < 5; i++) {
        change(&live, words[i]);
        change(&offline, words[i]);
    }
    if (save_after_change) {
        save(&live, &saved);
    }
    restore(&offline, &saved);
    for (int i = 0; i < 8; i++) {
        struct step_result a = fixture_step(&live, &live_step);
        struct step_result b = fixture_step(&offline, &offline_step);
        assert_memory_equal(&a.loss, &b.loss, sizeof a.loss);
        assert_int_equal(a.refreshed, b.refreshed);
    }
    char a[DIGEST_TEXT_SIZE];
    char b[DIGEST_TEXT_SIZE];
    fixture_digest(&live, a);
    fixture_digest(&offline, b);
    assert_string_equal(a, b);
    saved_free(&saved);
    fixture_close(&live);
    fixture_close(&offline);
}

static void test_live_equals_offline(void **state)
{
    (void)state;
    check_offline(base, false);
    check_offline(base, true);
    check_offline(exact, false);
    check_offline(exact, true);
}

/* A run that goes on from a saved set has the bits of one that was never interrupted. */
static void test_resume_same_bits(void **state)
{
    (void)state;
    static struct saved saved;
    for (int k = 0; k < 2; k++) {
        struct fixture whole;
        struct fixture resumed;
        int64_t whole_step = 0;
        fixture_open(&whole, "untied", k == 0 ? base : exact);
        fixture_open(&resumed, "untied", k == 0 ? base : exact);
        for (int i = 0; i < 4; i++) {
            fixture_step(&whole, &whole_step);
        }
        save(&whole, &saved);
        restore(&resumed, &saved);
        int64_t resumed_step = whole_step;
        for (int i = 0; i < 9; i++) { /* refreshes at 7 and 13 */
            fixture_step(&whole, &whole_step);
            fixture_step(&resumed, &resumed_step);
        }
        char a[DIGEST_TEXT_SIZE];
        char b[DIGEST_TEXT_SIZE];
        fixture_digest(&whole, a);
        fixture_digest(&resumed, b);
        assert_string_equal(a, b);
        saved_free(&saved);
        fixture_close(&whole);
        fixture_close(&resumed);
    }
}

static void test_interval_counts_from_last_refresh(void **state)
{
    (void)state;
    struct fixture f;
    int64_t step = 0;
    fixture_open(&f, "untied", base);
    for (int i = 0; i < 4; i++) {
        fixture_step(&f, &step); /* refreshed at 1 */
    }
    change(&f, "method.interval=2");
    assert_true(fixture_step(&f, &step).refreshed); /* 5: overdue */
    assert_false(fixture_step(&f, &step).refreshed);
    assert_true(fixture_step(&f, &step).refreshed); /* 7 */
    change(&f, "method.interval=100");
    for (int i = 0; i < 5; i++) {
        assert_false(fixture_step(&f, &step).refreshed);
    }
    fixture_close(&f);
}

static void test_restore_refuses(void **state)
{
    (void)state;
    static struct saved saved;
    struct fixture f;
    struct fixture other;
    struct error err = { 0 };
    int64_t step = 0;
    fixture_open(&f, "untied", base);
    fixture_step(&f, &step);
    save(&f, &saved);
    struct state_source source = { .find = saved_find, .read = saved_read, .context = &saved };
    fixture_open(&other, "untied", WORDS("method.name=full"));
    assert_int_equal(trainer_restore(other.trainer, &source, &saved.counters, &err), -1);
    assert_non_null(strstr(err.message, "optimizer/model.layers.0.self_attn.q_proj.weight/m"));
    fixture_close(&other);
    /* An index out of its matrix must not become a wild write. */
    struct state_entry entry;
    int64_t at = saved_find(&saved, "method/model.layers.0.self_attn.q_proj.weight/index", &entry);
    ((int32_t *)saved.data[at])[7] = 1000;
    assert_int_equal(trainer_restore(f.trainer, &source, &saved.counters, &err), -1);
    assert_non_null(strstr(err.message, "q_proj"));
    saved_free(&saved);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rank_carries),
        cmocka_unit_test(test_live_equals_offline),
        cmocka_unit_test(test_resume_same_bits),
        cmocka_unit_test(test_interval_counts_from_last_refresh),
        cmocka_unit_test(test_restore_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
