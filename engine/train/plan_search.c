/*
 * What to change so that it fits.
 *
 * A few independent knobs, each with steps from cheap to dear; every combination within reach is
 * planned, cheapest first, until enough fit. Costs are judgements of how much a change hurts; the
 * time factors are predicted from the FLOPs and bytes of the changed plan.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/activation/policy.h"
#include "engine/base/xalloc.h"
#include "engine/plan.h"
#include "engine/recipe/combine.h"

enum {
    SPLITS = 7,
    RANKS = 4,
    STATES = 3,
    PRECISIONS = 2,
    METHODS = 4,
    RECOMPUTES = 4,
    OFFLOADS = 3,
    ROUNDINGS = 2
};
enum {
    OPTIONS = SPLITS * RANKS * STATES * PRECISIONS * METHODS * RECOMPUTES * OFFLOADS * ROUNDINGS
};

struct option {
    int split;     /* halvings of batch.micro */
    int rank;      /* halvings of method.rank */
    int state;     /* 1: bf16 moments, 2: int8 */
    int precision; /* bf16 weights */
    int method;    /* a row of other_methods instead of full; 0: as it is */
    int recompute; /* 0: as it is; else a row of the policies (activation_name) */
    int offload;   /* activations wait: 1 in host memory, 2 on a disk */
    int inexact;   /* selected rows in bf16 like the others */
    double cost;
};

/* One search: the recipe as it is, what it would take, and a plan to work with. */
struct search {
    const struct recipe *recipe;
    const struct model_config *config;
    struct plan_place place;
    size_t now_bytes;
    double now_seconds; /* 0: it cannot be planned as it is */
    struct plan *plan;
};

enum { GRASS = 1, GALORE, LORA };
static const struct {
    const char *name;
    const char *settings; /* that it wants beside a rank */
    const char *sentence;
    double cost;
} other_methods[METHODS] = {
    [GRASS] = { "grass", "", "only selected rows have gradients and states", 6.0 },
    [GALORE] = { "galore", " method.scale=0.25 method.stagger=true",
                 "gradients and states lie in a subspace that changes", 6.5 },
    [LORA] = { "lora", "", "the weights stay as they are, adapters beside them train", 8.0 },
};
static const char *const offload_places[OFFLOADS] = { "none", "host", "ssd" };

static double option_cost(const struct option *o)
{
    static const double offload[OFFLOADS] = { 0.0, 2.4, 5.0 };
    static const double recompute[RECOMPUTES] = { 0.0, 0.3, 1.3, 2.2 };
    static const double state[STATES] = { 0.0, 1.5, 2.6 };
    return 1.0 * o->split + 2.5 * o->rank + state[o->state] + 3.0 * o->precision +
           other_methods[o->method].cost + recompute[o->recompute] + offload[o->offload] +
           0.4 * o->inexact;
}

static int by_cost(const void *a, const void *b)
{
    const struct option *left = a;
    const struct option *right = b;
    if (left->cost < right->cost) {
        return -1;
    }
    return left->cost > right->cost;
}

/* The row of the recipe's policy. */
static int recompute_now(const struct recipe *recipe)
{
    int row = 0;
    while (row + 1 < RECOMPUTES &&
           strcmp(activation_name((size_t)row), recipe->activation_recompute) != 0) {
        row++;
    }
    return row;
}

/* Host memory is another memory only on a GPU, or where a card's limit was named. */
static bool may_offload(const struct recipe *recipe)
{
    return strcmp(recipe->activation_offload, "none") == 0 && strcmp(recipe->device, "cpu") != 0 &&
           (recipe->memory_limit > 0 || plan_takes_cuda(recipe));
}

/* A disk takes the bytes of the device that host memory does, and longer: it is a trade, but never
 * the cheapest change unless host memory is short. */
static bool option_makes_sense(const struct option *o, const struct plan_place *place)
{
    return o->offload < 2 || place->host_bytes > 0;
}

static bool option_applies(const struct option *o, const struct recipe *recipe)
{
    const int64_t most = (int64_t)recipe_field("batch.accumulate")->maximum;
    bool full = strcmp(recipe->method_name, "full") == 0;
    /* Adapters beside random weights would train nothing. */
    bool trained = recipe->model_path[0] != '\0' && recipe->model_init == MODEL_PRETRAINED;
    return recipe->batch_micro % ((int64_t)1 << o->split) == 0 &&
           recipe->batch_accumulate <= most >> o->split && (o->method == 0 || full) &&
           (o->method != LORA || trained) &&
           (o->rank == 0 || (!full && recipe->method_rank >> o->rank >= 1)) &&
           (o->state == 0 || recipe->optimizer_state == STATE_FP32 ||
            (o->state == 2 && recipe->optimizer_state == STATE_BF16)) &&
           (o->precision == 0 || recipe->precision_weights == DTYPE_F32) &&
           (o->recompute == 0 || o->recompute > recompute_now(recipe)) &&
           (o->offload == 0 || may_offload(recipe)) &&
           (o->inexact == 0 || recipe->method_exact_rows);
}

static void set_text(char **place, const char *text)
{
    free(*place);
    *place = xstrdup(text);
}

/* The rank of a recipe for full training was never meant for this model. */
static void method_apply(const struct option *o, const struct model_config *config,
                         struct recipe *recipe)
{
    bool adapters = o->method == LORA;
    int64_t most = (config->hidden_size + 3) / 4;
    most = adapters && most > 16 ? 16 : most;
    set_text(&recipe->method_name, other_methods[o->method].name);
    recipe->method_rank = recipe->method_rank > most ? most : recipe->method_rank;
    if (o->method == GALORE) {
        recipe->method_scale = 0.25;
        recipe->method_stagger = true;
    }
}

/* Lays the change over a copy of the recipe; -1 if it does not apply. */
static int option_apply(const struct option *o, const struct model_config *config,
                        struct recipe *recipe)
{
    static const int states[STATES] = { STATE_FP32, STATE_BF16, STATE_INT8 };
    struct error unused;
    if (!option_applies(o, recipe)) {
        return -1;
    }
    recipe->batch_micro >>= o->split;
    recipe->batch_accumulate <<= o->split;
    recipe->method_rank >>= o->rank;
    recipe->optimizer_state = o->state ? states[o->state] : recipe->optimizer_state;
    if (o->precision) {
        recipe->precision_weights = DTYPE_BF16;
        recipe->precision_rounding = ROUNDING_STOCHASTIC;
    }
    if (o->recompute) {
        set_text(&recipe->activation_recompute, activation_name((size_t)o->recompute));
    }
    if (o->offload) {
        set_text(&recipe->activation_offload, offload_places[o->offload]);
    }
    if (o->inexact) {
        recipe->method_exact_rows = false;
        recipe->precision_rounding = ROUNDING_STOCHASTIC;
    }
    if (o->method) {
        method_apply(o, config, recipe);
    }
    return combine_check(recipe, &unused);
}

static void append(char *text, size_t size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void append(char *text, size_t size, const char *format, ...)
{
    size_t used = strlen(text);
    va_list args;
    va_start(args, format);
    vsnprintf(text + used, size - used, format, args);
    va_end(args);
}

static void option_describe(const struct option *o, const struct recipe *recipe,
                            struct plan_change *out)
{
    char *words = out->assignments;
    char *text = out->sentence;
    size_t words_size = sizeof out->assignments;
    size_t text_size = sizeof out->sentence;
    if (o->split > 0) {
        append(words, words_size, " batch.micro=%lld batch.accumulate=%lld",
               (long long)recipe->batch_micro, (long long)recipe->batch_accumulate);
        append(text, text_size, "; the same batch in %lld smaller parts",
               (long long)recipe->batch_accumulate);
    }
    if (o->recompute > 0) {
        append(words, words_size, " activation.recompute=%s", recipe->activation_recompute);
        append(text, text_size, "; the backward computes activations again");
    }
    if (o->offload > 0) {
        append(words, words_size, " activation.offload=%s", offload_places[o->offload]);
        append(text, text_size, "; activations wait %s",
               o->offload > 1 ? "on a disk of 3 GB a second" : "in host memory");
    }
    if (o->state > 0) {
        bool bytes = recipe->optimizer_state == STATE_INT8;
        append(words, words_size, " optimizer.state=%s", bytes ? "int8" : "bf16");
        append(text, text_size, "; moments %s",
               bytes ? "of eight bits in blocks" : "of two bytes, rounded stochastically");
    }
    if (o->precision > 0) {
        append(words, words_size, " precision.weights=bf16 precision.rounding=stochastic");
        append(text, text_size, "; weights, gradients and activations in half the bytes");
    }
    if (o->rank > 0) {
        append(words, words_size, " method.rank=%lld", (long long)recipe->method_rank);
        append(text, text_size, "; fewer rows train at a time");
    }
    if (o->inexact > 0) {
        append(words, words_size, " method.exact_rows=false precision.rounding=stochastic");
        append(text, text_size, "; selected rows without the bits that bf16 lacks");
    }
    if (o->method > 0) {
        append(words, words_size, " method.name=%s method.rank=%lld%s",
               other_methods[o->method].name, (long long)recipe->method_rank,
               other_methods[o->method].settings);
        append(text, text_size, "; %s", other_methods[o->method].sentence);
    }
    memmove(words, words + 1, strlen(words));
    if (text[0] == ';') {
        memmove(text, text + 2, strlen(text + 2) + 1);
    }
}

static size_t option_list(struct option *out)
{
    size_t count = 0;
    for (int code = 1; code < OPTIONS; code++) {
        int rest = code;
        struct option o = { 0 };
        o.split = rest % SPLITS;
        rest /= SPLITS;
        o.rank = rest % RANKS;
        rest /= RANKS;
        o.state = rest % STATES;
        rest /= STATES;
        o.precision = rest % PRECISIONS;
        rest /= PRECISIONS;
        o.method = rest % METHODS;
        rest /= METHODS;
        o.recompute = rest % RECOMPUTES;
        rest /= RECOMPUTES;
        o.offload = rest % OFFLOADS;
        o.inexact = rest / OFFLOADS;
        o.cost = option_cost(&o);
        out[count++] = o;
    }
    qsort(out, count, sizeof *out, by_cost);
    return count;
}

static int search_open(struct search *search, const struct recipe *recipe,
                       const struct model_config *config, const struct plan_place *place,
                       struct error *err)
{
    struct error unused;
    *search = (struct search){
        .recipe = recipe, .config = config, .place = *place, .plan = malloc(sizeof *search->plan)
    };
    if (search->plan == NULL) {
        return fail(err, ERROR_RUNTIME, "out of memory");
    }
    search->place.ranks = place->ranks > 0 ? place->ranks : 1;
    if (plan_make_ranks(recipe, config, search->place.ranks, search->plan, &unused) == 0) {
        search->now_bytes = search->plan->total_bytes;
        search->now_seconds = plan_place_seconds(search->plan, recipe, &search->place);
    }
    return 0;
}

/* Plans the recipe after the change; false if it does not apply. */
static bool option_plan(struct search *search, const struct option *option,
                        struct plan_change *change)
{
    struct error unused;
    struct recipe changed;
    recipe_init(&changed);
    recipe_copy(&changed, search->recipe);
    bool planned =
        option_apply(option, search->config, &changed) == 0 &&
        plan_make_ranks(&changed, search->config, search->place.ranks, search->plan, &unused) == 0;
    if (planned && change != NULL) {
        double seconds = plan_place_seconds(search->plan, &changed, &search->place);
        *change = (struct plan_change){ .total_bytes = search->plan->total_bytes,
                                        .time_factor = search->now_seconds > 0.0
                                                           ? seconds / search->now_seconds
                                                           : 1.0 };
        option_describe(option, &changed, change);
    }
    recipe_free(&changed);
    return planned;
}

/* Whether anything can fit with these weights, gradients and states: asked once for each, with all
 * that the batch, recomputing and offloading can save. */
struct hopes {
    enum { UNASKED, HOPE, NONE } of[RANKS][STATES][PRECISIONS][METHODS][ROUNDINGS];
};

static bool hopeless(struct search *search, struct hopes *hopes, const struct option *option)
{
    int *asked =
        (int *)&hopes
            ->of[option->rank][option->state][option->precision][option->method][option->inexact];
    if (*asked == UNASKED) {
        struct option least = *option;
        int now = recompute_now(search->recipe);
        least.split = SPLITS - 1;
        while (least.split > 0 && search->recipe->batch_micro % ((int64_t)1 << least.split) != 0) {
            least.split--;
        }
        least.recompute = now < RECOMPUTES - 1 ? RECOMPUTES - 1 : 0;
        least.offload = may_offload(search->recipe);
        bool planned = option_plan(search, &least, NULL);
        const struct plan *plan = search->plan;
        size_t limit = search->place.limit_bytes > 0 ? (size_t)search->place.limit_bytes : 0;
        size_t fixed = planned ? plan->bytes[MEMORY_WEIGHTS] + plan->bytes[MEMORY_GRADIENTS] +
                                     plan->bytes[MEMORY_OPTIMIZER]
                               : 0;
        bool more = fixed > limit || (planned && plan->total_bytes > limit);
        *asked = more && limit > 0 ? NONE : HOPE;
    }
    return *asked == NONE;
}

int plan_changes(const struct recipe *recipe, const struct model_config *config,
                 const struct plan_place *place, struct plan_change *out, size_t limit,
                 size_t *count, struct error *err)
{
    struct search search;
    struct hopes hopes = { 0 };
    *count = 0;
    if (search_open(&search, recipe, config, place, err) != 0) {
        return -1;
    }
    struct option *options = xcalloc(OPTIONS, sizeof *options);
    size_t options_count = option_list(options);
    for (size_t i = 0; i < options_count && *count < limit; i++) {
        struct plan_change change;
        bool fits = option_makes_sense(&options[i], place) && option_applies(&options[i], recipe) &&
                    !hopeless(&search, &hopes, &options[i]) &&
                    option_plan(&search, &options[i], &change) && plan_fits(search.plan, place);
        if (fits) {
            out[(*count)++] = change;
        }
    }
    free(options);
    free(search.plan);
    return 0;
}

static int by_time(const void *a, const void *b)
{
    const struct plan_change *left = a;
    const struct plan_change *right = b;
    if (left->time_factor < right->time_factor) {
        return -1;
    }
    return left->time_factor > right->time_factor;
}

int plan_trades(const struct recipe *recipe, const struct model_config *config,
                const struct plan_place *place, struct plan_change out[PLAN_TRADES_MAX],
                size_t *count, struct error *err)
{
    /* In this order: the last step of every knob. */
    static const int steps[] = { SPLITS,  RANKS,      STATES,   PRECISIONS,
                                 METHODS, RECOMPUTES, OFFLOADS, ROUNDINGS };
    struct search search;
    *count = 0;
    if (search_open(&search, recipe, config, place, err) != 0) {
        return -1;
    }
    for (size_t knob = 0; knob < sizeof steps / sizeof steps[0]; knob++) {
        for (int step = 1; step < steps[knob] && *count < PLAN_TRADES_MAX; step++) {
            struct option option = { 0 };
            int *const value[] = { &option.split,     &option.rank,   &option.state,
                                   &option.precision, &option.method, &option.recompute,
                                   &option.offload,   &option.inexact };
            *value[knob] = step;
            struct plan_change change;
            if (option_plan(&search, &option, &change) && change.total_bytes < search.now_bytes) {
                out[(*count)++] = change;
            }
        }
    }
    qsort(out, *count, sizeof *out, by_time);
    free(search.plan);
    return 0;
}

static void largest_category(const struct plan *plan, int *category)
{
    *category = 0;
    for (int c = 1; c < MEMORY_CATEGORY_COUNT; c++) {
        if (plan->bytes[c] > plan->bytes[*category]) {
            *category = c;
        }
    }
}

int plan_check(const struct plan *plan, const struct recipe *recipe,
               const struct model_config *config, int64_t limit_bytes, struct error *err)
{
    if (limit_bytes <= 0 || plan->total_bytes <= (size_t)limit_bytes) {
        return 0;
    }
    const double mib = 1024.0 * 1024.0;
    int category;
    largest_category(plan, &category);
    fail(err, ERROR_FIT,
         "does not fit: the plan takes %.1f MiB, %.1f MiB may be used; the largest part is %s "
         "with %.1f MiB",
         (double)plan->total_bytes / mib, (double)limit_bytes / mib,
         memory_category_names[category], (double)plan->bytes[category] / mib);
    struct plan_change change;
    size_t count = 0;
    struct error unused;
    struct plan_place place = { .limit_bytes = limit_bytes, .ranks = plan->ranks };
    if (plan_changes(recipe, config, &place, &change, 1, &count, &unused) == 0 && count > 0) {
        hint(err, "%s (%.1f MiB: %s)", change.assignments, (double)change.total_bytes / mib,
             change.sentence);
    } else {
        hint(err, "no combination of batch.micro, activation.recompute, method.name, method.rank, "
                  "optimizer.state and precision.weights fits; lower data.sequence_length or "
                  "choose a smaller model");
    }
    return -1;
}

int64_t plan_largest_rank(const struct recipe *recipe, const struct model_config *config,
                          const struct plan_place *place)
{
    int ranks = place->ranks > 0 ? place->ranks : 1;
    int64_t low = 0; /* fits; 0: nothing known to fit */
    int64_t high = config->hidden_size + 1;
    struct plan *plan = malloc(sizeof *plan);
    if (plan == NULL) {
        return 0;
    }
    while (high - low > 1) {
        struct recipe tried;
        struct error unused;
        int64_t middle = low + (high - low) / 2;
        recipe_init(&tried);
        recipe_copy(&tried, recipe);
        tried.method_rank = middle;
        bool fits =
            plan_make_ranks(&tried, config, ranks, plan, &unused) == 0 && plan_fits(plan, place);
        low = fits ? middle : low;
        high = fits ? high : middle;
        recipe_free(&tried);
    }
    free(plan);
    return low;
}
