/* A live change that is taken back, or cannot be made, leaves no trace; one whose memory is gone is
 * told. */
#include <stdlib.h>
#include <string.h>

#include "fixture.h"
#include "kernels/backend_ops.h"

/* A device that has nothing for `failures` allocations, after the next `sound` ones. */
static struct {
    const struct backend_ops *real;
    struct backend_ops ops;
    int sound;
    int failures;
} scarce;

static void *scarce_alloc(struct backend *be, size_t bytes)
{
    if (scarce.failures > 0 && scarce.sound-- <= 0) {
        scarce.failures--;
        return NULL;
    }
    return scarce.real->alloc(be, bytes);
}

static void make_scarce(struct fixture *f)
{
    scarce.real = f->be->ops;
    scarce.ops = *f->be->ops;
    scarce.ops.alloc = scarce_alloc;
    scarce.failures = 0;
    f->be->ops = &scarce.ops;
}

static struct trainer_before *try(struct fixture *f, const char *word, struct error *err)
{
    struct recipe recipe;
    struct plan plan;
    recipe_init(&recipe);
    recipe_copy(&recipe, &f->recipe);
    check(recipe_set(&recipe, word, err), err);
    check(plan_make(&recipe, &f->config, &plan, err), err);
    struct trainer_before *before = trainer_try(f->trainer, &recipe, plan.bytes, err);
    recipe_free(&recipe);
    return before;
}

static void expect_same(struct fixture *a, struct fixture *b)
{
    char text[2][DIGEST_TEXT_SIZE];
    fixture_digest(a, text[0]);
    fixture_digest(b, text[1]);
    assert_string_equal(text[0], text[1]);
    for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
        enum memory_category category = (enum memory_category)c;
        assert_int_equal(memory_capacity(trainer_memory(a->trainer), category),
                         memory_capacity(trainer_memory(b->trainer), category));
    }
    assert_int_equal(trainer_recipe(a->trainer)->method_rank,
                     trainer_recipe(b->trainer)->method_rank);
}

static const char *const changes[] = { "method.rank=3", "method.rank=16", "method.rank=12",
                                       "optimizer.lr=0.5", "train.sample_every=4" };
enum { CHANGES = sizeof changes / sizeof changes[0], MOVED = 3 };

/* Steps with changes that come to nothing between them, beside steps without. The one that fails
 * does so at one region after another. */
static void check_traceless(const char *const *words)
{
    struct fixture plain;
    struct fixture tried;
    struct error err = { 0 };
    int64_t plain_step = 0;
    int64_t tried_step = 0;
    fixture_open(&plain, "untied", words);
    fixture_open(&tried, "untied", words);
    make_scarce(&tried);
    for (int i = 0; i < 9; i++) {
        struct step_result a = fixture_step(&plain, &plain_step);
        struct step_result b = fixture_step(&tried, &tried_step);
        assert_memory_equal(&a.loss, &b.loss, sizeof a.loss);
        assert_int_equal(a.refreshed, b.refreshed);
        struct trainer_before *before = try(&tried, changes[i % CHANGES], &err);
        assert_non_null(before);
        check(trainer_take_back(tried.trainer, before, &err), &err);
        expect_same(&plain, &tried);
        scarce.sound = i % 4;
        scarce.failures = 1;
        assert_null(try(&tried, changes[i % MOVED], &err));
        assert_int_equal(scarce.failures, 0);
        assert_int_equal(err.code, ERROR_FIT);
        assert_non_null(strstr(err.message, "cannot take"));
        assert_false(trainer_lost(tried.trainer));
        expect_same(&plain, &tried);
    }
    fixture_close(&plain);
    fixture_close(&tried);
}

static void test_no_trace(void **state)
{
    (void)state;
    check_traceless(
        WORDS("method.name=grass", "method.rank=8", "method.interval=4", "method.carry=true"));
    check_traceless(WORDS("method.name=grass", "method.rank=8", "method.interval=4",
                          "method.carry=true", "method.stagger=true", "method.side=in"));
    check_traceless(WORDS("method.name=grass", "method.rank=8", "method.interval=4",
                          "method.carry=true", "precision.weights=bf16", "optimizer.state=bf16",
                          "method.exact_rows=true"));
    check_traceless(WORDS("method.name=galore", "method.rank=8", "method.interval=4"));
}

/* A change that was tried twice before the step that completes it: the states that wait stay. */
static void test_waiting_states_stay(void **state)
{
    (void)state;
    struct fixture plain;
    struct fixture tried;
    struct error err = { 0 };
    int64_t plain_step = 0;
    int64_t tried_step = 0;
    const char *const *words = WORDS("method.name=grass", "method.rank=8", "method.carry=true");
    fixture_open(&plain, "untied", words);
    fixture_open(&tried, "untied", words);
    fixture_step(&plain, &plain_step);
    fixture_step(&tried, &tried_step);
    trainer_keep(try(&plain, "method.rank=12", &err));
    trainer_keep(try(&tried, "method.rank=12", &err));
    check(trainer_take_back(tried.trainer, try(&tried, "method.rank=5", &err), &err), &err);
    expect_same(&plain, &tried);
    struct step_result a = fixture_step(&plain, &plain_step);
    struct step_result b = fixture_step(&tried, &tried_step);
    assert_true(a.refreshed && b.refreshed);
    expect_same(&plain, &tried);
    fixture_close(&plain);
    fixture_close(&tried);
}

static void test_lost_is_told(void **state)
{
    (void)state;
    struct fixture f;
    struct error err = { 0 };
    int64_t step = 0;
    fixture_open(&f, "untied", WORDS("method.name=grass", "method.rank=8"));
    make_scarce(&f);
    fixture_step(&f, &step);
    scarce.sound = 0;
    scarce.failures = 1000;
    assert_null(try(&f, "method.rank=16", &err));
    assert_true(trainer_lost(f.trainer));
    assert_non_null(strstr(err.message, "nor could the change be taken back"));
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_trace),
        cmocka_unit_test(test_waiting_states_stay),
        cmocka_unit_test(test_lost_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
