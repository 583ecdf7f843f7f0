/*
 * What to change so that it fits.
 *
 * A few independent knobs, each with steps from cheap to dear; every combination within reach is
 * planned, cheapest first, until enough fit. Costs are judgements of how much a change hurts, the
 * time factors estimates of how much slower a token gets.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/activation/policy.h"
#include "engine/base/xalloc.h"
#include "engine/plan.h"

enum { SPLITS = 7, RANKS = 4, STATES = 2, PRECISIONS = 2, METHODS = 2, RECOMPUTES = 4 };
enum { OPTIONS = SPLITS * RANKS * STATES * PRECISIONS * METHODS * RECOMPUTES };

struct option {
    int split;     /* halvings of batch.micro */
    int rank;      /* halvings of method.rank */
    int state;     /* bf16 moments */
    int precision; /* bf16 weights */
    int method;    /* grass instead of full */
    int recompute; /* 0: as it is; else a row of the policies (activation_name) */
    double cost;
};

/* What recomputing costs in time, by row of the policies: FLOPs of a step as planned, against those
 * of the recipe as it is; 0 where the recipe recomputes as much already. */
struct recompute_times {
    double factor[RECOMPUTES];
};

static double option_cost(const struct option *o)
{
    static const double recompute[RECOMPUTES] = { 0.0, 0.3, 1.3, 2.2 };
    return 1.0 * o->split + 2.5 * o->rank + 1.5 * o->state + 3.0 * o->precision + 6.0 * o->method +
           recompute[o->recompute];
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

/* Lays the change over a copy of the recipe; -1 if it does not apply. */
static int option_apply(const struct option *o, const struct model_config *config,
                        const struct recompute_times *times, struct recipe *recipe)
{
    const int64_t most = (int64_t)recipe_field("batch.accumulate")->maximum;
    bool full = strcmp(recipe->method_name, "full") == 0;
    bool apply = recipe->batch_micro % ((int64_t)1 << o->split) == 0;
    apply = apply && recipe->batch_accumulate <= most >> o->split;
    apply = apply && (o->method == 0 || full);
    apply = apply && (o->rank == 0 || (!full && recipe->method_rank >> o->rank >= 1));
    apply = apply && (o->state == 0 || recipe->optimizer_state == STATE_FP32);
    apply = apply && (o->precision == 0 || recipe->precision_weights == DTYPE_F32);
    apply = apply && (o->recompute == 0 || times->factor[o->recompute] > 0.0);
    if (!apply) {
        return -1;
    }
    recipe->batch_micro >>= o->split;
    recipe->batch_accumulate <<= o->split;
    recipe->method_rank >>= o->rank;
    recipe->optimizer_state = o->state ? STATE_BF16 : recipe->optimizer_state;
    if (o->precision) {
        recipe->precision_weights = DTYPE_BF16;
        recipe->precision_rounding = ROUNDING_STOCHASTIC;
    }
    if (o->recompute) {
        free(recipe->activation_recompute);
        recipe->activation_recompute = xstrdup(activation_name((size_t)o->recompute));
    }
    if (o->method) {
        free(recipe->method_name);
        recipe->method_name = strdup("grass");
        /* The rank of a recipe for full training was never meant for this model. */
        if (recipe->method_rank > config->hidden_size / 4) {
            recipe->method_rank = (config->hidden_size + 3) / 4;
        }
    }
    return recipe->method_name == NULL ? -1 : 0;
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
                            const struct recompute_times *times, struct plan_change *out)
{
    char *words = out->assignments;
    char *text = out->sentence;
    size_t words_size = sizeof out->assignments;
    size_t text_size = sizeof out->sentence;
    out->time_factor = 1.0;
    if (o->split > 0) {
        append(words, words_size, " batch.micro=%lld batch.accumulate=%lld",
               (long long)recipe->batch_micro, (long long)recipe->batch_accumulate);
        append(text, text_size, "; the same batch in %lld smaller parts, a little slower",
               (long long)recipe->batch_accumulate);
        out->time_factor *= 1.0 + 0.03 * o->split;
    }
    if (o->recompute > 0) {
        double factor = times->factor[o->recompute];
        append(words, words_size, " activation.recompute=%s", recipe->activation_recompute);
        append(text, text_size, "; the backward computes activations again, %.0f %% more time",
               100.0 * (factor - 1.0));
        out->time_factor *= factor;
    }
    if (o->state > 0) {
        append(words, words_size, " optimizer.state=bf16");
        append(text, text_size, "; moments in half the bytes, rounded stochastically");
    }
    if (o->precision > 0) {
        append(words, words_size, " precision.weights=bf16 precision.rounding=stochastic");
        append(text, text_size, "; weights, gradients and activations in half the bytes");
    }
    if (o->rank > 0) {
        append(words, words_size, " method.rank=%lld", (long long)recipe->method_rank);
        append(text, text_size, "; fewer rows train at a time");
    }
    if (o->method > 0) {
        append(words, words_size, " method.name=grass method.rank=%lld",
               (long long)recipe->method_rank);
        append(text, text_size, "; only selected rows have gradients and states");
        out->time_factor *= 0.8;
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
        o.recompute = rest / METHODS;
        o.cost = option_cost(&o);
        out[count++] = o;
    }
    qsort(out, count, sizeof *out, by_cost);
    return count;
}

/* Passes over memory that no count of FLOPs shows. */
static const double LEAST_RECOMPUTE_FACTOR = 1.01;

static void recompute_times(const struct recipe *recipe, const struct model_config *config,
                            struct plan *plan, struct recompute_times *times)
{
    struct error unused;
    bool more = false;
    double now = 0.0;
    memset(times, 0, sizeof *times);
    for (int r = 0; r < RECOMPUTES; r++) {
        const char *name = activation_name((size_t)r);
        bool same = strcmp(name, recipe->activation_recompute) == 0;
        struct recipe changed;
        recipe_init(&changed);
        recipe_copy(&changed, recipe);
        free(changed.activation_recompute);
        changed.activation_recompute = xstrdup(name);
        if ((more || same) && plan_make(&changed, config, plan, &unused) == 0) {
            now = same ? plan->step_flops : now;
            double factor = now > 0.0 ? plan->step_flops / now : 0.0;
            factor = factor < LEAST_RECOMPUTE_FACTOR ? LEAST_RECOMPUTE_FACTOR : factor;
            times->factor[r] = more ? factor : 0.0;
        }
        more = more || same;
        recipe_free(&changed);
    }
}

/* What neither the batch nor recomputing changes: if that alone is too much, the rest of such
 * options need not be planned. */
struct hopeless {
    bool found[RANKS][STATES][PRECISIONS][METHODS];
};

static bool *hopeless_at(struct hopeless *h, const struct option *o)
{
    return &h->found[o->rank][o->state][o->precision][o->method];
}

/* True if the changed recipe is planned and fits. */
static bool option_fits(const struct option *option, const struct recipe *changed,
                        const struct model_config *config, int64_t limit_bytes, struct plan *plan,
                        struct hopeless *hopeless)
{
    struct error unused;
    if (*hopeless_at(hopeless, option) || plan_make(changed, config, plan, &unused) != 0) {
        return false;
    }
    size_t fixed =
        plan->bytes[MEMORY_WEIGHTS] + plan->bytes[MEMORY_GRADIENTS] + plan->bytes[MEMORY_OPTIMIZER];
    *hopeless_at(hopeless, option) = fixed > (size_t)limit_bytes;
    return plan->total_bytes <= (size_t)limit_bytes;
}

int plan_changes(const struct recipe *recipe, const struct model_config *config,
                 int64_t limit_bytes, struct plan_change *out, size_t limit, size_t *count,
                 struct error *err)
{
    struct option options[OPTIONS];
    struct hopeless hopeless = { 0 };
    struct recompute_times times;
    size_t options_count = option_list(options);
    struct plan *plan = malloc(sizeof *plan);
    *count = 0;
    if (plan == NULL) {
        return fail(err, ERROR_RUNTIME, "out of memory");
    }
    recompute_times(recipe, config, plan, &times);
    for (size_t i = 0; i < options_count && *count < limit; i++) {
        struct recipe changed;
        recipe_init(&changed);
        recipe_copy(&changed, recipe);
        if (option_apply(&options[i], config, &times, &changed) == 0 &&
            option_fits(&options[i], &changed, config, limit_bytes, plan, &hopeless)) {
            struct plan_change *change = &out[(*count)++];
            memset(change, 0, sizeof *change);
            change->total_bytes = plan->total_bytes;
            option_describe(&options[i], &changed, &times, change);
        }
        recipe_free(&changed);
    }
    free(plan);
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
    if (plan_changes(recipe, config, limit_bytes, &change, 1, &count, &unused) == 0 && count > 0) {
        hint(err, "%s (%.1f MiB: %s)", change.assignments, (double)change.total_bytes / mib,
             change.sentence);
    } else {
        hint(err, "no combination of batch.micro, activation.recompute, method.rank, "
                  "optimizer.state and precision.weights fits; lower data.sequence_length or "
                  "choose a smaller model");
    }
    return -1;
}

int64_t plan_largest_rank(const struct recipe *recipe, const struct model_config *config,
                          int64_t limit_bytes)
{
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
        bool fits = plan_make(&tried, config, plan, &unused) == 0 &&
                    (limit_bytes <= 0 || plan->total_bytes <= (size_t)limit_bytes);
        low = fits ? middle : low;
        high = fits ? high : middle;
        recipe_free(&tried);
    }
    free(plan);
    return low;
}
