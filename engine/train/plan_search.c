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

#include "engine/plan.h"

enum { SPLITS = 7, RANKS = 4, STATES = 2, PRECISIONS = 2, METHODS = 2 };

struct option {
    int split;     /* halvings of batch.micro */
    int rank;      /* halvings of method.rank */
    int state;     /* bf16 moments */
    int precision; /* bf16 weights */
    int method;    /* grass instead of full */
    double cost;
};

static double option_cost(const struct option *o)
{
    return 1.0 * o->split + 2.5 * o->rank + 1.5 * o->state + 3.0 * o->precision + 6.0 * o->method;
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
                        struct recipe *recipe)
{
    const int64_t most = (int64_t)recipe_field("batch.accumulate")->maximum;
    bool full = strcmp(recipe->method_name, "full") == 0;
    bool apply = recipe->batch_micro % ((int64_t)1 << o->split) == 0;
    apply = apply && recipe->batch_accumulate <= most >> o->split;
    apply = apply && (o->method == 0 || full);
    apply = apply && (o->rank == 0 || (!full && recipe->method_rank >> o->rank >= 1));
    apply = apply && (o->state == 0 || recipe->optimizer_state == STATE_FP32);
    apply = apply && (o->precision == 0 || recipe->precision_weights == DTYPE_F32);
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
                            struct plan_change *out)
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
    for (int code = 1; code < SPLITS * RANKS * STATES * PRECISIONS * METHODS; code++) {
        int rest = code;
        struct option o = { 0 };
        o.split = rest % SPLITS;
        rest /= SPLITS;
        o.rank = rest % RANKS;
        rest /= RANKS;
        o.state = rest % STATES;
        rest /= STATES;
        o.precision = rest % PRECISIONS;
        o.method = rest / PRECISIONS;
        o.cost = option_cost(&o);
        out[count++] = o;
    }
    qsort(out, count, sizeof *out, by_cost);
    return count;
}

int plan_changes(const struct recipe *recipe, const struct model_config *config,
                 int64_t limit_bytes, struct plan_change *out, size_t limit, size_t *count,
                 struct error *err)
{
    struct option options[SPLITS * RANKS * STATES * PRECISIONS * METHODS];
    size_t options_count = option_list(options);
    struct plan *plan = malloc(sizeof *plan);
    *count = 0;
    if (plan == NULL) {
        return fail(err, ERROR_RUNTIME, "out of memory");
    }
    for (size_t i = 0; i < options_count && *count < limit; i++) {
        struct recipe changed;
        struct error unused;
        recipe_init(&changed);
        recipe_copy(&changed, recipe);
        if (option_apply(&options[i], config, &changed) == 0 &&
            plan_make(&changed, config, plan, &unused) == 0 &&
            plan->total_bytes <= (size_t)limit_bytes) {
            struct plan_change *change = &out[(*count)++];
            memset(change, 0, sizeof *change);
            change->total_bytes = plan->total_bytes;
            option_describe(&options[i], &changed, change);
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
        hint(err, "no combination of batch.micro, method.rank, optimizer.state and "
                  "precision.weights fits; lower data.sequence_length or choose a smaller model");
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
