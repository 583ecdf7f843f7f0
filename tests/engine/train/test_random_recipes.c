/* Many small models with many recipes: what is planned is used, to the byte in every category, and
 * nothing breaks at sizes of 1. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/activation/store.h"
#include "engine/base/xalloc.h"
#include "engine/train/trainer_parts.h"
#include "small.h"

enum { CASES = 200, STEPS = 3 };

/* One case: a model, a recipe, and what they came to. */
struct scenario {
    int number;
    struct dice dice;
    struct recipe recipe;
    struct model_config config;
    struct plan plan;
    struct backend *be;
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
    set(r, "method.name", one_of(&s->dice, methods, 7));
    set(r, "method.projection", draw_projection(s));
    set(r, "method.moments", one_of(&s->dice, moments, 3));
    set(r, "method.stagger", one_of(&s->dice, truths, 2));
    set_number(r, "method.rank", 1 + dice_roll(&s->dice, s->config.hidden_size));
    set_number(r, "method.interval", 1 + dice_roll(&s->dice, 3));
    set(r, "method.selection", rule);
    set(r, "method.side", one_of(&s->dice, sides, 3));
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
    set(r, "activation.recompute", one_of(&s->dice, recomputes, 4));
    bool recomputes_any = strcmp(r->activation_recompute, "none") != 0;
    set(r, "activation.sample", one_of(&s->dice, samples, recomputes_any ? 3 : 4));
    set(r, "activation.keep", one_of(&s->dice, keeps, 4));
    set(r, "model.init", "random");
    set_number(r, "data.sequence_length", DICE_PICK(&s->dice, 1, 2, 5, 16));
    bool thin = strcmp(r->method_name, "grass") == 0 && r->method_side == METHOD_SIDE_IN &&
                !recomputes_any && strcmp(r->activation_sample, "none") == 0;
    set(r, "method.inputs", thin ? "columns" : "whole");
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
    bool tradam = strcmp(rule, "tradam") == 0;
    bool rows = r->method_embedding == METHOD_EMBEDDING_ROWS; /* which tradam does not go with */
    set(r, "optimizer.name",
        tradam && (rows || strcmp(r->method_name, "full") != 0) ? "adamw" : rule);
    set(r, "optimizer.state", tradam && strcmp(format, "int8") == 0 ? "bf16" : format);
    set_number(r, "optimizer.anchor_interval", 1 + dice_roll(&s->dice, 3));
    set(r, "schedule.name", one_of(&s->dice, schedules, 4));
    set_number(r, "schedule.warmup", dice_roll(&s->dice, 4));
    set(r, "precision.weights", one_of(&s->dice, formats, 2));
    set(r, "precision.rounding", one_of(&s->dice, roundings, 2));
    if (strcmp(r->method_name, "grass") == 0 && dice_roll(&s->dice, 2) == 0) {
        set(r, "method.exact_rows", "true");
        set(r, "precision.weights", "bf16");
    }
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
                                            .directory = "/tmp",
                                            .span_bytes = s->plan.offload_span_bytes,
                                            .spans = s->plan.offload_spans },
                   &err);
    check(store == NULL ? -1 : 0, &err);
    return store;
}

static void scenario_open(struct scenario *s, int number, struct backend *be)
{
    struct error err = { 0 };
    *s = (struct scenario){ .number = number, .be = be };
    s->dice.state = (uint64_t)number << 32;
    small_config(&s->dice, &s->config);
    draw_recipe(s);
    if (strcmp(s->recipe.activation_offload, "none") != 0) {
        s->config.layers += 3; /* so many stay on the device */
    }
    check(plan_make(&s->recipe, &s->config, &s->plan, &err), &err);
    s->store = open_store(s);
    s->trainer = trainer_open(&(struct trainer_options){ .recipe = &s->recipe,
                                                         .config = &s->config,
                                                         .be = be,
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
            assert_true(flops >= s->plan.step_flops && flops <= s->plan.refresh_flops);
            planned = flops;
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
    check(plan_make(&s->recipe, &s->config, &s->plan, &err), &err);
    check(trainer_apply(s->trainer, &s->recipe, s->plan.bytes, &err), &err);
}

static void test_planned_is_used(void **state)
{
    (void)state;
    struct backend *be = small_backend();
    for (int number = 0; number < CASES; number++) {
        struct scenario s;
        scenario_open(&s, number, be);
        take_steps(&s, STEPS);
        look(&s);
        compare(&s);
        /* Selected inputs that are moved away have places that fit one rank. */
        bool fixed = s.store != NULL && s.recipe.method_inputs == METHOD_INPUTS_COLUMNS;
        if (number % 2 == 0 && !s.trainer->method.ops->adapters && !fixed) {
            change_rank(&s);
            take_steps(&s, STEPS);
            look(&s);
            compare(&s);
        }
        scenario_close(&s);
    }
    backend_close(be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_planned_is_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
