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
    struct plan_place place;
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
    if (plan_make_ranks(&recipe, &sweep->f->config, sweep->place.ranks, &plan, &err) == 0 &&
        plan_fits(&plan, &sweep->place)) {
        double seconds = plan_place_seconds(&plan, &recipe, &sweep->place);
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
    static const char *const states[] = { "fp32", "bf16", "int8", "fp32 method.exact_rows=true" };
    static const char *const recompute[] = { "none", "norms", "ffn", "block" };
    static const char *const offload[] = { "none", "host", "ssd" };
    const int offloads = sweep->place.host_bytes > 0 ? 3 : 2;
    char words[512];
    for (int m = 0; m < 9; m++) {
        for (int rest = 0; rest < 4 * 4 * offloads * 2; rest++) {
            int micro = rest / (16 * offloads) + 1;
            if (rest % 4 == 3 && strncmp(methods[m], "grass", 5) != 0) {
                continue; /* no other selects rows */
            }
            snprintf(words, sizeof words,
                     "method.name=%s optimizer.state=%s activation.recompute=%s "
                     "activation.offload=%s batch.micro=%d batch.accumulate=%d "
                     "precision.weights=bf16 precision.rounding=stochastic",
                     methods[m], states[rest % 4], recompute[rest / 4 % 4],
                     offload[rest / 16 % offloads], micro, 2 / micro);
            sweep_one(sweep, words);
        }
    }
}

/* The search plans a part of the space, and finds what planning all of it finds; what it names is
 * what it says. The words are the caller's to free. */
static char *check_search(const struct fixture *f, const struct plan_place *place)
{
    struct sweep sweep = { .f = f, .place = *place };
    struct plan_fastest found;
    struct error err = { 0 };
    sweep_all(&sweep);
    assert_true(sweep.fitting > 0);
    check(plan_fastest(&f->recipe, &f->config, place, &found, &err), &err);
    assert_true(found.found && !found.adapters);
    near(found.fastest_seconds, sweep.least);
    assert_true(found.step_seconds <= 1.05 * sweep.least);

    struct recipe recipe;
    struct plan plan;
    recipe_init(&recipe);
    recipe_copy(&recipe, &f->recipe);
    lay(&recipe, found.assignments);
    check(plan_make_ranks(&recipe, &f->config, place->ranks, &plan, &err), &err);
    assert_int_equal(plan.total_bytes, found.total_bytes);
    assert_true(plan_fits(&plan, place));
    near(plan_place_seconds(&plan, &recipe, place), found.step_seconds);
    assert_int_equal(recipe.batch_micro * recipe.batch_accumulate, 2);
    recipe_free(&recipe);
    return xstrdup(found.assignments);
}

static void open_small(struct fixture *f)
{
    fixture_open(f, "untied",
                 WORDS("method.name=full", "batch.micro=2", "optimizer.state=bf16",
                       "precision.weights=bf16"));
}

static void test_nothing_faster_fits(void **state)
{
    (void)state;
    struct fixture f;
    struct error err = { 0 };
    open_small(&f);
    for (int part = 0; part < 2; part++) {
        static const double share[] = { 0.8, 1.2 };
        struct plan_place place = {
            .limit_bytes = (int64_t)((double)f.plan.total_bytes * share[part]),
            .card = find_card(8),
            .ranks = 1,
        };
        free(check_search(&f, &place));
    }
    struct plan_fastest none;
    struct plan_place nowhere = { .limit_bytes = 1000, .card = find_card(8) };
    check(plan_fastest(&f.recipe, &f.config, &nowhere, &none, &err), &err);
    assert_false(none.found);
    fixture_close(&f);
}

/* Two cards: the exchange counts. Where it takes all the time, what sends least is found; where it
 * takes none, what computes least. */
static void test_several_cards(void **state)
{
    (void)state;
    struct fixture f;
    struct link slow = { .bytes = 1e6 };
    struct link fast = { .bytes = 1e15 };
    open_small(&f);
    struct plan_place place = { .limit_bytes = (int64_t)(3 * f.plan.total_bytes),
                                .card = find_card(8),
                                .ranks = 2,
                                .link = &slow };
    char *by_bytes = check_search(&f, &place);
    place.link = &fast;
    char *by_time = check_search(&f, &place);
    assert_non_null(strstr(by_bytes, "method.rank=1 ")); /* the fewest rows */
    assert_string_not_equal(by_bytes, by_time);
    free(by_bytes);
    free(by_time);
    fixture_close(&f);
}

/* What a recipe takes with more words. */
static struct plan *plan_with(const struct fixture *f, const char *words)
{
    struct error err = { 0 };
    struct recipe recipe;
    struct plan *plan = xcalloc(1, sizeof *plan);
    recipe_init(&recipe);
    recipe_copy(&recipe, &f->recipe);
    lay(&recipe, words);
    check(plan_make(&recipe, &f->config, plan, &err), &err);
    recipe_free(&recipe);
    return plan;
}

#define LEAST                                                                                      \
    " optimizer.state=int8 activation.recompute=block batch.micro=1 batch.accumulate=2 "           \
    "precision.rounding=stochastic"

/* Where nothing fits but with activations elsewhere, and host memory has no room for them, they go
 * to a disk. */
static void test_disk(void **state)
{
    (void)state;
    struct fixture f;
    struct error err = { 0 };
    struct plan_fastest found;
    open_small(&f);
    f.config.layers = 12;
    struct plan_place place = { .card = find_card(8), .ranks = 1 };
    const char *galore =
        "method.name=galore method.rank=1 method.scale=0.25 method.stagger=true" LEAST;
    char *host = xasprintf("%s activation.offload=host", galore);
    char *disk = xasprintf("%s activation.offload=ssd", galore);
    struct plan *here = plan_with(&f, galore);
    struct plan *in_host = plan_with(&f, host);
    struct plan *on_disk = plan_with(&f, disk);
    assert_true(on_disk->total_bytes < here->total_bytes);
    assert_true(on_disk->host_bytes < in_host->host_bytes);
    place.limit_bytes = (int64_t)on_disk->total_bytes;
    place.host_bytes = (int64_t)on_disk->host_bytes + 1;
    check(plan_fastest(&f.recipe, &f.config, &place, &found, &err), &err);
    assert_true(found.found && found.total_bytes <= on_disk->total_bytes);
    assert_non_null(strstr(found.assignments, "activation.offload=ssd"));
    place.host_bytes = (int64_t)in_host->host_bytes;
    check(plan_fastest(&f.recipe, &f.config, &place, &found, &err), &err);
    assert_non_null(strstr(found.assignments, "activation.offload=host"));
    free(host);
    free(disk);
    free(here);
    free(in_host);
    free(on_disk);
    fixture_close(&f);
}

/* Adapters where nothing that trains the weights fits, and only beside weights that were trained.
 */
static void test_adapters_last(void **state)
{
    (void)state;
    struct fixture f;
    struct error err = { 0 };
    struct plan_fastest found;
    open_small(&f);
    f.config.vocabulary = 32768; /* of which adapters need no gradients */
    lay(&f.recipe, "model.path=x model.init=pretrained");
    struct plan *least = plan_with(&f, "method.name=lora method.rank=16" LEAST);
    struct plan_place place = { .limit_bytes = (int64_t)least->total_bytes, .card = find_card(8) };
    check(plan_fastest(&f.recipe, &f.config, &place, &found, &err), &err);
    assert_true(found.found && found.adapters);
    assert_non_null(strstr(found.assignments, "method.name=lora method.rank=16"));
    assert_true((int64_t)found.total_bytes <= place.limit_bytes);
    lay(&f.recipe, "model.init=random");
    check(plan_fastest(&f.recipe, &f.config, &place, &found, &err), &err);
    assert_false(found.found);
    free(least);
    fixture_close(&f);
}

/* The trade of a recipe, each change planned again; whether one has the words. */
static bool trade_has(const struct fixture *f, const char *words, double *time_factor)
{
    struct plan_change trade[PLAN_TRADES_MAX];
    struct error err = { 0 };
    size_t count = 0;
    bool found = false;
    check(plan_trades(&f->recipe, &f->config,
                      &(struct plan_place){ .limit_bytes = f->recipe.memory_limit }, trade, &count,
                      &err),
          &err);
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

/* Selected rows keep the bits that bf16 lacks where there is room for them. */
static void test_exact_rows(void **state)
{
    (void)state;
    struct recipe recipe;
    struct model_config config;
    struct error err = { 0 };
    struct plan_fastest found;
    read_card(&(struct preset){ .path = SOURCE_ROOT "/presets/cards/card-24gb-1b.json" }, &recipe,
              &config);
    struct plan_place place = { .limit_bytes = recipe.memory_limit, .card = find_card(24) };
    lay(&recipe, "method.exact_rows=false");
    check(plan_fastest(&recipe, &config, &place, &found, &err), &err);
    assert_non_null(strstr(found.assignments, "method.exact_rows=true"));
    lay(&recipe, found.assignments);
    assert_true(recipe.method_exact_rows);
    recipe_free(&recipe);
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
        check(plan_fastest(&recipe, &config,
                           &(struct plan_place){ .limit_bytes = recipe.memory_limit, .card = card },
                           &found, &err),
              &err);
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
        cmocka_unit_test(test_several_cards),
        cmocka_unit_test(test_disk),
        cmocka_unit_test(test_adapters_last),
        cmocka_unit_test(test_exact_rows),
        cmocka_unit_test(test_trades),
        cmocka_unit_test(test_cards_fit),
        cmocka_unit_test(test_cards_are_the_fastest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
