/* Predicted times, the fastest way that fits, and the presets for cards. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/xalloc.h"
#include "fixture.h"

static const double gib = 1024.0 * 1024.0 * 1024.0;

static void near(double a, double b)
{
    assert_true(fabs(a - b) <= 1e-9 * fabs(b));
}

static const struct card *find_card(int64_t memory_gib)
{
    for (size_t i = 0; card_at(i) != NULL; i++) {
        if (card_at(i)->memory_gib == memory_gib) {
            return card_at(i);
        }
    }
    fail_msg("no card of %d GiB", (int)memory_gib);
    return NULL;
}

static void test_cards(void **state)
{
    (void)state;
    assert_int_equal(card_for((int64_t)(7.5 * gib))->memory_gib, 8);
    assert_int_equal(card_for((int64_t)(22.5 * gib))->memory_gib, 24);
    assert_int_equal(card_for((int64_t)(500 * gib))->memory_gib, 80);
    for (size_t i = 0; card_at(i) != NULL; i++) {
        assert_true(i == 0 || card_at(i)->memory_gib > card_at(i - 1)->memory_gib);
        double share = (double)card_usable_bytes(card_at(i)) / gib;
        near(share, 0.94 * (double)card_at(i)->memory_gib);
    }
}

/* By hand, on an H100: the slower of FLOPs and bytes in each family, refreshes spread, and what the
 * link cannot hide. */
static void test_seconds(void **state)
{
    (void)state;
    const struct card *card = find_card(80);
    struct recipe recipe;
    struct plan plan = { 0 };
    recipe_init(&recipe);
    recipe.method_interval = 100;
    recipe.batch_accumulate = 4;
    plan.step_count[OP_MATMUL].flops = 0.73 * 989e12 * 3.0;
    plan.step_count[OP_MATMUL].bytes = 0.78 * 3350e9 * 1.0;
    near(plan_step_seconds(&plan, &recipe, card), 3.0);
    plan.step_count[OP_OPTIMIZER].flops = 1e15; /* elementwise: bytes alone count */
    plan.step_count[OP_OPTIMIZER].bytes = 0.78 * 3350e9 * 0.5;
    near(plan_step_seconds(&plan, &recipe, card), 3.5);
    plan.step_count[OP_ATTENTION].flops = 0.33 * 989e12 * 1.0;
    near(plan_step_seconds(&plan, &recipe, card), 4.5);
    memcpy(plan.refresh_count, plan.step_count, sizeof plan.refresh_count);
    near(plan_step_seconds(&plan, &recipe, card), 4.5);
    plan.refresh_count[OP_MATMUL].flops *= 2.0;
    near(plan_step_seconds(&plan, &recipe, card), 4.53);
    memset(plan.refresh_count, 0, sizeof plan.refresh_count);
    plan.offload_spans = 10;
    plan.offload_span_bytes = (size_t)(0.8 * 64e9 * 1.0 / 40.0); /* a second each way */
    near(plan_step_seconds(&plan, &recipe, card), 4.5);
    plan.offload_span_bytes *= 2; /* two seconds: the forward has but 1.5 */
    near(plan_step_seconds(&plan, &recipe, card), 5.0);
    recipe_free(&recipe);
}

static void lay(struct recipe *recipe, const char *text)
{
    struct error err = { 0 };
    char *words = xstrdup(text);
    char *rest = words;
    for (char *word; (word = strsep(&rest, " ")) != NULL;) {
        check(recipe_set(recipe, word, &err), &err);
    }
    free(words);
}

/* Everything in the space, planned one by one. */
struct sweep {
    const struct fixture *f;
    int64_t limit;
    const struct card *card;
    double least;
    int fitting;
};

static void sweep_one(struct sweep *sweep, const char *words)
{
    struct error err = { 0 };
    struct recipe recipe;
    struct plan plan;
    recipe_init(&recipe);
    recipe_copy(&recipe, &sweep->f->recipe);
    lay(&recipe, words);
    if (plan_make(&recipe, &sweep->f->config, &plan, &err) == 0 &&
        (int64_t)plan.total_bytes <= sweep->limit) {
        double seconds = plan_step_seconds(&plan, &recipe, sweep->card);
        sweep->fitting++;
        sweep->least = sweep->least <= 0.0 || seconds < sweep->least ? seconds : sweep->least;
    }
    recipe_free(&recipe);
}

static void sweep_all(struct sweep *sweep)
{
    static const char *const methods[] = {
        "full method.rank=1",
        "grass method.rank=8",
        "grass method.rank=4",
        "grass method.rank=2",
        "grass method.rank=1",
        "galore method.rank=8 method.scale=0.25 method.stagger=true",
        "galore method.rank=4 method.scale=0.25 method.stagger=true",
        "galore method.rank=2 method.scale=0.25 method.stagger=true",
        "galore method.rank=1 method.scale=0.25 method.stagger=true",
    };
    static const char *const states[] = { "fp32", "bf16", "int8" };
    static const char *const recompute[] = { "none", "norms", "ffn", "block" };
    static const char *const offload[] = { "none", "host" };
    char words[512];
    for (int m = 0; m < 9; m++) {
        for (int rest = 0; rest < 3 * 4 * 2 * 2; rest++) {
            snprintf(words, sizeof words,
                     "method.name=%s optimizer.state=%s activation.recompute=%s "
                     "activation.offload=%s batch.micro=%d batch.accumulate=%d "
                     "precision.weights=bf16 precision.rounding=stochastic",
                     methods[m], states[rest % 3], recompute[rest / 3 % 4], offload[rest / 12 % 2],
                     rest / 24 + 1, 2 / (rest / 24 + 1));
            sweep_one(sweep, words);
        }
    }
}

/* The search plans a part of the space, and finds what planning all of it finds. */
static void test_nothing_faster_fits(void **state)
{
    (void)state;
    struct fixture f;
    struct error err = { 0 };
    const struct card *card = find_card(8);
    fixture_open(&f, "untied",
                 WORDS("method.name=full", "batch.micro=2", "optimizer.state=bf16",
                       "precision.weights=bf16"));
    for (int part = 0; part < 2; part++) {
        static const double share[] = { 0.8, 1.2 };
        struct sweep sweep = { .f = &f, .card = card };
        struct plan_fastest found;
        sweep.limit = (int64_t)((double)f.plan.total_bytes * share[part]);
        sweep_all(&sweep);
        assert_true(sweep.fitting > 0);
        check(plan_fastest(&f.recipe, &f.config, sweep.limit, card, &found, &err), &err);
        assert_true(found.found);
        near(found.fastest_seconds, sweep.least);
        assert_true(found.step_seconds <= 1.05 * sweep.least);

        /* What it names is what it says. */
        struct recipe recipe;
        struct plan plan;
        recipe_init(&recipe);
        recipe_copy(&recipe, &f.recipe);
        lay(&recipe, found.assignments);
        check(plan_make(&recipe, &f.config, &plan, &err), &err);
        assert_int_equal(plan.total_bytes, found.total_bytes);
        assert_true((int64_t)plan.total_bytes <= sweep.limit);
        near(plan_step_seconds(&plan, &recipe, card), found.step_seconds);
        assert_int_equal(recipe.batch_micro * recipe.batch_accumulate, 2);
        recipe_free(&recipe);
    }
    struct plan_fastest none;
    check(plan_fastest(&f.recipe, &f.config, 1000, card, &none, &err), &err);
    assert_false(none.found);
    fixture_close(&f);
}

/* The trade of a recipe, each change planned again; whether one has the words. */
static bool trade_has(const struct fixture *f, const char *words, double *time_factor)
{
    struct plan_change trade[PLAN_TRADES_MAX];
    struct error err = { 0 };
    size_t count = 0;
    bool found = false;
    check(plan_trades(&f->recipe, &f->config, f->recipe.memory_limit, trade, &count, &err), &err);
    for (size_t i = 0; i < count; i++) {
        struct recipe changed;
        struct plan plan;
        recipe_init(&changed);
        recipe_copy(&changed, &f->recipe);
        lay(&changed, trade[i].assignments);
        check(plan_make(&changed, &f->config, &plan, &err), &err);
        assert_int_equal(plan.total_bytes, trade[i].total_bytes);
        assert_true(strlen(trade[i].sentence) > 10);
        recipe_free(&changed);
        if (strstr(trade[i].assignments, words) != NULL) {
            found = true;
            *time_factor = trade[i].time_factor;
        }
    }
    return found;
}

/* The other methods, the disk, and rows without their missing bits; adapters only beside weights
 * that were trained. */
static void test_trades(void **state)
{
    (void)state;
    struct fixture f;
    double host = 0.0;
    double disk = 0.0;
    double unused;
    fixture_open(&f, "untied", WORDS("method.name=full"));
    lay(&f.recipe, "memory.limit=1GiB activation.recompute=none model.path=x device=auto");
    f.config.layers = 9;
    f.config.hidden_size *= 8; /* so large that products hide what a link moves, not a disk */
    f.config.intermediate_size *= 8;
    f.config.head_size *= 8;
    assert_true(trade_has(&f, "method.name=grass", &unused));
    assert_true(trade_has(&f, "method.name=galore", &unused));
    assert_true(trade_has(&f, "activation.offload=host", &host));
    assert_true(trade_has(&f, "activation.offload=ssd", &disk));
    assert_true(disk > host);
    lay(&f.recipe, "model.init=random");
    assert_false(trade_has(&f, "method.name=lora", &unused));
    lay(&f.recipe, "model.init=pretrained");
    assert_true(trade_has(&f, "method.name=lora method.rank=16", &unused));
    lay(&f.recipe, "method.name=grass method.rank=16 precision.weights=bf16");
    assert_false(trade_has(&f, "method.exact_rows", &unused));
    lay(&f.recipe, "method.exact_rows=true");
    assert_true(trade_has(&f, "method.exact_rows=false", &unused));
    assert_false(trade_has(&f, "method.name", &unused));
    fixture_close(&f);
}

static void read_card(const struct preset *preset, struct recipe *recipe,
                      struct model_config *config)
{
    struct error err = { 0 };
    recipe_init(recipe);
    check(recipe_load(recipe, preset->path, &err), &err);
    char *path = xasprintf("%s/presets/models/%s.json", SOURCE_ROOT, recipe->model_preset);
    check(config_read(path, config, &err), &err);
    free(path);
}

static void test_cards_fit(void **state)
{
    (void)state;
    struct preset_list list;
    struct error err = { 0 };
    setenv("WINDROW_PRESETS", SOURCE_ROOT "/presets", 1);
    check(preset_list_read("cards", &list, &err), &err);
    for (size_t i = 0; i < list.count; i++) {
        struct recipe recipe;
        struct model_config config;
        struct plan plan;
        int size = 0;
        read_card(&list.item[i], &recipe, &config);
        assert_int_equal(sscanf(list.item[i].name, "card-%dgb-", &size), 1);
        int64_t usable = card_usable_bytes(find_card(size));
        assert_true(llabs(recipe.memory_limit - usable) <= 1);
        check(plan_make(&recipe, &config, &plan, &err), &err);
        if ((int64_t)plan.total_bytes > usable) {
            fail_msg("%s takes %.2f GiB: run tests/bench/cards.py", list.item[i].name,
                     (double)plan.total_bytes / gib);
        }
        recipe_free(&recipe);
    }
    preset_list_free(&list);
}

/* One of them searched anew: nothing that fits is more than the tolerance faster. All of them:
 * tests/bench/cards.py --check. */
static void test_cards_are_the_fastest(void **state)
{
    (void)state;
    static const char *const names[] = { "card-24gb-7b" };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct recipe recipe;
        struct model_config config;
        struct plan plan;
        struct plan_fastest found;
        struct error err = { 0 };
        char *path = xasprintf("%s/presets/cards/%s.json", SOURCE_ROOT, names[i]);
        read_card(&(struct preset){ .path = path }, &recipe, &config);
        free(path);
        const struct card *card = card_for(recipe.memory_limit);
        check(plan_make(&recipe, &config, &plan, &err), &err);
        check(plan_fastest(&recipe, &config, recipe.memory_limit, card, &found, &err), &err);
        assert_true(found.found);
        if (plan_step_seconds(&plan, &recipe, card) > 1.051 * found.fastest_seconds) {
            fail_msg("%s is slower than %s: run tests/bench/cards.py", names[i], found.assignments);
        }
        recipe_free(&recipe);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cards),
        cmocka_unit_test(test_seconds),
        cmocka_unit_test(test_nothing_faster_fits),
        cmocka_unit_test(test_trades),
        cmocka_unit_test(test_cards_fit),
        cmocka_unit_test(test_cards_are_the_fastest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
