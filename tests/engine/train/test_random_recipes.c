/* Many small models with many recipes, on one of several ranks: what is planned is used, to the
 * byte in every category, and nothing breaks at sizes of 1. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/activation/store.h"
#include "engine/base/xalloc.h"
#include "engine/recipe/combine.h"
#include "engine/train/trainer_parts.h"
#include "small.h"

enum { CASES = 120, STEPS = 3 };

/* One case: a model, a recipe, and what they came to. */
struct scenario {
    int number;
    struct dice dice;
    struct recipe recipe;
    struct model_config config;
    struct plan plan;
    struct backend *be;
    struct comm *comm; /* this rank is there, the others are not */
    struct trainer *trainer;
    struct store *store; /* NULL: nothing is offloaded */
    struct batch batch[5];
    int64_t steps; /* taken */
};

static void set(struct recipe *recipe, const char *key, const char *value)
{
    struct error err = { 0 };
    char *word = xasprintf("%s=%s", key, value);
    check(recipe_set(recipe, word, &err), &err);
    free(word);
}

static void set_number(struct recipe *recipe, const char *key, int64_t value)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)value);
    set(recipe, key, text);
}

static const char *one_of(struct dice *dice, const char *const *names, int64_t count)
{
    return names[dice_roll(dice, count)];
}

static const char *draw_projection(struct scenario *s)
{
    return dice_roll(&s->dice, 3) == 0 && op_eigenvectors_built() ? "svd" : "subspace";
}

static void draw_method(struct scenario *s)
{
    static const char *const rules[] = { "top", "norm", "norm2", "uniform" };
    static const char *const sides[] = { "out", "in", "short" };
    static const char *const truths[] = { "false", "true" };
    static const char *const moments[] = { "keep", "rotate", "reset" };
    struct recipe *r = &s->recipe;
    const char *rule = one_of(&s->dice, rules, 4);
    bool top = strcmp(rule, "top") == 0;
    static const char *const methods[] = { "full",  "lora",   "grass", "grass",
                                           "grass", "galore", "galore" };
    bool columns = dice_roll(&s->dice, 5) == 0; /* which few others would come to */
    set(r, "method.inputs", columns ? "columns" : "whole");
    set(r, "method.name", columns ? "grass" : one_of(&s->dice, methods, 7));
    set(r, "method.projection", draw_projection(s));
    set(r, "method.moments", one_of(&s->dice, moments, 3));
    set(r, "method.stagger", one_of(&s->dice, truths, 2));
    set_number(r, "method.rank", 1 + dice_roll(&s->dice, s->config.hidden_size));
    set_number(r, "method.interval", 1 + dice_roll(&s->dice, 3));
    set(r, "method.selection", rule);
    set(r, "method.side", columns ? "in" : one_of(&s->dice, sides, 3));
    set(r, "method.replacement", top ? "false" : one_of(&s->dice, truths, 2));
    set(r, "method.unbiased", top ? "false" : one_of(&s->dice, truths, 2));
    set(r, "method.carry", one_of(&s->dice, truths, 2));
    set_number(r, "method.refresh_warmup", dice_roll(&s->dice, 3));
    set_number(r, "method.sketch", DICE_PICK(&s->dice, 0, 0, 1, 6));
    set_number(r, "method.unselected_every", DICE_PICK(&s->dice, 0, 0, 0, 1, 2, 3));
    set(r, "method.head", !s->config.tied && dice_roll(&s->dice, 2) == 0 ? "rows" : "full");
    set(r, "method.embedding", !s->config.tied && dice_roll(&s->dice, 2) == 0 ? "rows" : "dense");
}

/* Half of the cases freeze something. */
static void draw_frozen(struct scenario *s)
{
    static const char *const targets[] = { "all", "q_proj,v_proj", "layers.0.*.down_proj",
                                           "*.k_proj,gate_proj" };
    static const char *const frozen[] = { "",
                                          "embed_tokens",
                                          "norm",
                                          "embed_tokens,layers.0",
                                          "*_layernorm",
                                          "layers.0.mlp,embed_tokens" };
    if (dice_roll(&s->dice, 2) == 0) {
        set(&s->recipe, "method.targets", one_of(&s->dice, targets, 4));
        bool lora = strcmp(s->recipe.method_name, "lora") == 0; /* its weights are all frozen */
        set(&s->recipe, "method.frozen", one_of(&s->dice, frozen, lora ? 3 : 6));
    }
    if (strcmp(s->recipe.activation_offload, "none") != 0) { /* blocks must train alike */
        bool one = strstr(s->recipe.method_targets, "layers.") != NULL;
        bool part = strstr(s->recipe.method_frozen, "layers.0.") != NULL;
        set(&s->recipe, "method.targets", one ? "gate_proj" : s->recipe.method_targets);
        set(&s->recipe, "method.frozen", part ? "mlp" : s->recipe.method_frozen);
    }
}

static void draw_recipe(struct scenario *s)
{
    static const char *const formats[] = { "fp32", "bf16", "int8" };
    static const char *const rules[] = { "adamw", "adamw", "tradam", "sgd" };
    static const char *const roundings[] = { "nearest", "stochastic" };
    static const char *const schedules[] = { "constant", "linear", "cosine", "wsd" };
    static const char *const samples[] = { "none", "crs", "wta-crs", "rad" };
    static const char *const keeps[] = { "0.01", "0.3", "0.7", "1" };
    static const char *const recomputes[] = { "none", "norms", "ffn", "block" };
    static const char *const offloads[] = { "none", "host", "ssd" };
    struct recipe *r = &s->recipe;
    recipe_init(r);
    draw_method(s);
    bool columns = r->method_inputs == METHOD_INPUTS_COLUMNS;
    set(r, "activation.recompute", one_of(&s->dice, recomputes, columns ? 1 : 4));
    bool recomputes_any = strcmp(r->activation_recompute, "none") != 0;
    set(r, "activation.sample", one_of(&s->dice, samples, columns ? 1 : recomputes_any ? 3 : 4));
    set(r, "activation.keep", one_of(&s->dice, keeps, 4));
    set(r, "model.init", "random");
    set_number(r, "data.sequence_length", DICE_PICK(&s->dice, 1, 2, 5, 16));
    set(r, "activation.offload", one_of(&s->dice, offloads, 3));
    set(r, "activation.offload_dir", "/tmp");
    set_number(r, "activation.resident", dice_roll(&s->dice, 2));
    set_number(r, "batch.micro", 1 + dice_roll(&s->dice, 3));
    set_number(r, "batch.accumulate", 1 + dice_roll(&s->dice, 5));
    set_number(r, "train.steps", 10);
    set_number(r, "train.clip", dice_roll(&s->dice, 2));
    set_number(r, "train.sample_every", dice_roll(&s->dice, 2));
    set(r, "data.validation", dice_roll(&s->dice, 3) == 0 ? "" : "0.1");
    set_number(r, "train.eval_every", dice_roll(&s->dice, 3));
    set(r, "optimizer.lr", "0.01");
    set(r, "optimizer.weight_decay", "0.1");
    const char *rule = one_of(&s->dice, rules, 4);
    const char *format = one_of(&s->dice, formats, 3);
    bool whole = strcmp(r->method_name, "full") == 0 || strcmp(r->method_name, "lora") == 0;
    bool tradam = strcmp(rule, "tradam") == 0 && whole;
    if (tradam) { /* with which neither goes */
        set(r, "method.embedding", "dense");
        format = strcmp(format, "int8") == 0 ? "bf16" : format;
    }
    set(r, "optimizer.name", strcmp(rule, "sgd") == 0 || tradam ? rule : "adamw");
    set(r, "optimizer.state", format);
    set_number(r, "optimizer.anchor_interval", 1 + dice_roll(&s->dice, 3));
    set(r, "schedule.name", one_of(&s->dice, schedules, 4));
    set_number(r, "schedule.warmup", dice_roll(&s->dice, 4));
    set(r, "precision.weights", one_of(&s->dice, formats, 2));
    set(r, "precision.rounding", one_of(&s->dice, roundings, 2));
    bool adamw = strcmp(r->optimizer_name, "adamw") == 0;
    if (strcmp(r->method_name, "grass") == 0 && adamw && dice_roll(&s->dice, 2) == 0) {
        set(r, "method.exact_rows", "true");
        set(r, "precision.weights", "bf16");
    }
    static const char *const exchanges[] = { "gradient", "bf16", "fp32" };
    set(r, "precision.exchange", exchanges[s->number % 3]);
    set_number(r, "train.seed", 1 + s->number);
    draw_frozen(s);
}

static struct store *open_store(const struct scenario *s)
{
    struct error err = { 0 };
    bool ssd = strcmp(s->recipe.activation_offload, "ssd") == 0;
    if (s->plan.offload_spans == 0) {
        return NULL;
    }
    struct store *store =
        store_open(&(struct store_options){ .kind = ssd ? STORE_SSD : STORE_HOST,
                                            .be = s->be,
                                            .directory = "/tmp",
                                            .span_bytes = s->plan.offload_span_bytes,
                                            .spans = s->plan.offload_spans },
                   &err);
    check(store == NULL ? -1 : 0, &err);
    return store;
}

static void scenario_draw(struct scenario *s, int number, struct backend *be)
{
    struct error err = { 0 };
    *s = (struct scenario){ .number = number, .be = be };
    s->dice.state = (uint64_t)number << 32;
    small_config(&s->dice, &s->config);
    draw_recipe(s);
    if (strcmp(s->recipe.activation_offload, "none") != 0) {
        s->config.layers += 3; /* so many stay on the device */
    }
    check(combine_check(&s->recipe, &err), &err);
}

static void scenario_open(struct scenario *s)
{
    static const int ranks[] = { 1, 2, 3, 8 };
    struct error err = { 0 };
    int of = ranks[s->number % 4];
    s->comm = comm_open_imaginary(s->number / 4 % of, of);
    check(plan_make_ranks(&s->recipe, &s->config, of, &s->plan, &err), &err);
    s->store = open_store(s);
    s->trainer = trainer_open(&(struct trainer_options){ .recipe = &s->recipe,
                                                         .config = &s->config,
                                                         .be = s->be,
                                                         .comm = s->comm,
                                                         .capacity = s->plan.bytes,
                                                         .store = s->store },
                              &err);
    check(s->trainer == NULL ? -1 : 0, &err);
    for (int64_t i = 0; i < s->recipe.batch_accumulate; i++) {
        check(batch_init(&s->batch[i], s->recipe.batch_micro, s->recipe.data_sequence_length, &err),
              &err);
        small_batch(&s->dice, s->config.vocabulary, &s->batch[i]);
    }
}

static void scenario_close(struct scenario *s)
{
    trainer_close(s->trainer);
    comm_close(s->comm);
    store_close(s->store);
    for (int64_t i = 0; i < s->recipe.batch_accumulate; i++) {
        batch_free(&s->batch[i]);
    }
    recipe_free(&s->recipe);
}

/* Steps, with FLOPs as planned. */
static void take_steps(struct scenario *s, int count)
{
    struct error err = { 0 };
    struct step_result result;
    for (int i = 0; i < count; i++) {
        double before = backend_total(s->be).flops;
        check(trainer_step(s->trainer, ++s->steps, s->batch, s->recipe.batch_accumulate, &result,
                           &err),
              &err);
        double flops = backend_total(s->be).flops - before;
        double planned = s->plan.step_flops;
        if (result.refreshed && s->plan.refresh_flops > 0.0) {
            planned = s->plan.refresh_flops;
        }
        bool galore = strcmp(s->recipe.method_name, "galore") == 0;
        if (galore && result.refreshed) {
            /* The first costs more, and a staggered one is a part of all. */
            assert_true(flops > s->plan.step_flops);
            planned = flops;
        } else if (strcmp(s->recipe.method_name, "grass") == 0 &&
                   s->recipe.method_unselected_every > 1) {
            planned = flops; /* a mean: test_plan.c */
        } else if (result.refreshed && s->recipe.method_stagger && s->steps > 1) {
            /* A part of all; a head whose rows all move has its gradient already. */
            bool moves = s->recipe.method_unselected_every > 0;
            assert_true(moves || flops >= s->plan.step_flops);
            assert_true(moves || flops <= s->plan.refresh_flops);
            planned = flops;
        }
        if (s->comm->rank > 0 || s->trainer->dense.rows.comm != NULL) {
            planned = flops; /* of rank 0, which may own more rows; of words that occur */
        }
        assert_true(result.flops == flops);
        assert_false(result.skipped);
        assert_true(isfinite(result.loss) && isfinite(result.grad_norm));
        if (fabs(flops - planned) > 1e-9 * planned) {
            fail_msg("case %d, step %d: %.17g FLOPs, planned %.17g", s->number, (int)s->steps,
                     flops, planned);
        }
    }
}

static void look(struct scenario *s)
{
    struct error err = { 0 };
    float logits[64];
    if (recipe_evaluates(&s->recipe)) {
        double loss;
        int64_t tokens;
        check(trainer_evaluate(s->trainer, &s->batch[0], &loss, &tokens, &err), &err);
        assert_true(isfinite(loss));
    }
    if (s->recipe.train_sample_every > 0) {
        int64_t length = s->recipe.data_sequence_length;
        check(trainer_generate_begin(s->trainer, length, &err), &err);
        for (int64_t i = 0; i < length; i++) {
            check(trainer_generate_feed(s->trainer, s->batch[0].ids[i], logits, &err), &err);
        }
        trainer_generate_end(s->trainer);
    }
}

static void compare(const struct scenario *s)
{
    const struct memory *memory = trainer_memory(s->trainer);
    const char *bad = NULL;
    for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
        size_t used = memory_peak(memory, (enum memory_category)c);
        if (used != s->plan.bytes[c]) {
            fail_msg("case %d: %zu bytes of %s used, %zu planned", s->number, used,
                     memory_category_names[c], s->plan.bytes[c]);
        }
    }
    if (!trainer_state_finite(s->trainer, &bad)) {
        fail_msg("case %d: %s is not finite", s->number, bad);
    }
}

/* Another rank between two steps, with the memory of its own plan. */
static void change_rank(struct scenario *s)
{
    struct error err = { 0 };
    set_number(&s->recipe, "method.rank", 1 + dice_roll(&s->dice, s->config.hidden_size));
    check(plan_make_ranks(&s->recipe, &s->config, s->comm->ranks, &s->plan, &err), &err);
    check(trainer_apply(s->trainer, &s->recipe, s->plan.bytes, &err), &err);
}

static void run_scenario(struct scenario *s)
{
    scenario_open(s);
    take_steps(s, STEPS);
    look(s);
    compare(s);
    /* Selected inputs that are moved away have places that fit one rank. */
    bool fixed = s->store != NULL && s->recipe.method_inputs == METHOD_INPUTS_COLUMNS;
    if (s->number % 2 == 0 && !s->trainer->method.ops->adapters && !fixed) {
        change_rank(s);
        take_steps(s, STEPS);
        look(s);
        compare(s);
    }
    scenario_close(s);
}

static void test_planned_is_used(void **state)
{
    (void)state;
    struct backend *be = small_backend();
    for (int number = 0; number < CASES; number++) {
        struct scenario s;
        scenario_draw(&s, number, be);
        run_scenario(&s);
    }
    backend_close(be);
}

/* ---- every pair -------------------------------------------------------------------------------
 */

static const struct {
    const char *key;
    const char *value[4];
} features[] = {
    { "method.name", { "full", "lora", "grass", "galore" } },
    { "method.stagger", { "false", "true" } },
    { "method.embedding", { "dense", "rows" } },
    { "method.head", { "full", "rows" } },
    { "method.inputs", { "whole", "columns" } },
    { "method.exact_rows", { "false", "true" } },
    { "method.frozen", { "", "embed_tokens", "norm" } },
    { "optimizer.name", { "adamw", "sgd", "tradam" } },
    { "optimizer.state", { "fp32", "bf16", "int8" } },
    { "precision.weights", { "fp32", "bf16" } },
    { "precision.exchange", { "gradient", "bf16", "fp32" } },
    { "activation.recompute", { "none", "norms", "ffn", "block" } },
    { "activation.sample", { "none", "crs", "wta-crs", "rad" } },
    { "activation.offload", { "none", "host", "ssd" } },
};
enum { FEATURES = sizeof features / sizeof features[0], VALUES = 4, ALL = FEATURES * VALUES };

/* Which of its values a recipe has; -1: another. */
static int value_of(const struct recipe *recipe, int feature)
{
    char *text = field_text(recipe_field(features[feature].key), recipe);
    int found = -1;
    for (int v = 0; v < VALUES && features[feature].value[v] != NULL; v++) {
        found = strcmp(features[feature].value[v], text) == 0 ? v : found;
    }
    free(text);
    return found;
}

/* Whether the pair means something: the table of combinations lets it pass, and the method reads
 * what is no default. */
static bool makes_sense(int a, int b)
{
    struct error unused;
    struct recipe recipe;
    const int both[] = { a, b };
    recipe_init(&recipe);
    for (int i = 0; i < 2; i++) { /* what they ask for themselves */
        bool columns = strcmp(features[both[i] / VALUES].key, "method.inputs") == 0;
        bool exact = strcmp(features[both[i] / VALUES].key, "method.exact_rows") == 0;
        if ((columns || exact) && both[i] % VALUES > 0) {
            set(&recipe, "method.name", "grass");
            set(&recipe, "precision.weights", "bf16");
        }
    }
    for (int i = 0; i < 2; i++) {
        bool columns = strcmp(features[both[i] / VALUES].key, "method.inputs") == 0;
        set(&recipe, features[both[i] / VALUES].key,
            features[both[i] / VALUES].value[both[i] % VALUES]);
        if (columns && both[i] % VALUES > 0) {
            set(&recipe, "method.side", "in");
        }
    }
    const struct method_ops *method = method_find(recipe.method_name);
    bool sense = combine_check(&recipe, &unused) == 0;
    for (int i = 0; i < 2; i++) {
        sense = sense &&
                (both[i] % VALUES == 0 || method_reads(method, features[both[i] / VALUES].key));
    }
    recipe_free(&recipe);
    return sense;
}

/* Marks the pairs of a recipe; how many were not marked before. */
static int mark(const struct recipe *recipe, bool met[ALL][ALL])
{
    int value[FEATURES];
    int fresh = 0;
    for (int f = 0; f < FEATURES; f++) {
        value[f] = value_of(recipe, f);
    }
    for (int f = 0; f < FEATURES; f++) {
        for (int g = f + 1; g < FEATURES; g++) {
            if (value[f] >= 0 && value[g] >= 0) {
                bool *pair = &met[f * VALUES + value[f]][g * VALUES + value[g]];
                fresh += !*pair;
                *pair = true;
            }
        }
    }
    return fresh;
}

/* Recipes are drawn until each pair of settings that goes together has been trained with. */
static void test_every_pair(void **state)
{
    (void)state;
    enum { DRAWS = 6000 };
    bool met[ALL][ALL];
    bool wanted[ALL][ALL];
    int missing = 0;
    memset(met, 1, sizeof met);
    memset(wanted, 0, sizeof wanted);
    for (int a = 0; a < ALL; a++) {
        for (int b = (a / VALUES + 1) * VALUES; b < ALL; b++) {
            wanted[a][b] = features[a / VALUES].value[a % VALUES] != NULL &&
                           features[b / VALUES].value[b % VALUES] != NULL && makes_sense(a, b);
            missing += wanted[a][b];
            met[a][b] = !wanted[a][b];
        }
    }
    assert_true(missing > 500);
    struct backend *be = small_backend();
    for (int number = CASES; number < CASES + DRAWS && missing > 0; number++) {
        struct scenario s;
        scenario_draw(&s, number, be);
        int fresh = mark(&s.recipe, met);
        missing -= fresh;
        if (fresh > 0) {
            run_scenario(&s);
        } else {
            recipe_free(&s.recipe);
        }
    }
    for (int a = 0; a < ALL; a++) {
        for (int b = (a / VALUES + 1) * VALUES; b < ALL; b++) {
            if (wanted[a][b] && !met[a][b]) {
                print_message("never met: %s=%s with %s=%s\n", features[a / VALUES].key,
                              features[a / VALUES].value[a % VALUES], features[b / VALUES].key,
                              features[b / VALUES].value[b % VALUES]);
            }
        }
    }
    assert_int_equal(missing, 0);
    backend_close(be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_planned_is_used),
        cmocka_unit_test(test_every_pair),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
