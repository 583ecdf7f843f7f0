/*
 * The fastest way to train a model within a limit.
 *
 * A candidate is a way of holding the weights' gradients and states (the method, its rank, the
 * format of the states) and a way of running the step (recomputing, offloading, rows of a
 * micro-batch). What the two take in bytes and time nearly adds up, so that each half is planned
 * once beside a fixed other half, and the sums say in which order candidates are worth planning
 * whole. Only whole plans decide what fits and how long it takes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/activation/policy.h"
#include "engine/base/xalloc.h"
#include "engine/plan.h"
#include "engine/recipe/combine.h"

enum { STATES = 4, RECOMPUTES = 4, OFFLOADS = 3, SPLITS = 6 };
/* What each format gives up, in halvings of the rank. Exact: the bits that bf16 weights lack are
 * kept for the rows that grass selects. */
static const struct {
    const char *name;
    bool exact;
    double cost;
} states[STATES] = {
    { "fp32", true, 0.0 }, { "fp32", false, 0.1 }, { "bf16", false, 0.2 }, { "int8", false, 0.4 }
};
static const char *const offloads[OFFLOADS] = { "none", "host", "ssd" };

struct way {
    const char *method;
    int64_t divisor; /* of the hidden size: the rank */
    double cost;     /* what it gives up, in halvings of the rank */
};
/* The last trains adapters. */
static const struct way ways[] = {
    { "full", 1, 0.0 },    { "grass", 4, 2.0 },  { "grass", 8, 3.0 },  { "grass", 16, 4.0 },
    { "grass", 32, 5.0 },  { "galore", 4, 2.5 }, { "galore", 8, 3.5 }, { "galore", 16, 4.5 },
    { "galore", 32, 5.5 }, { "lora", 0, 8.0 },
};
enum { WAYS = sizeof ways / sizeof ways[0], ADAPTERS = WAYS - 1, HOLDS = WAYS * STATES };
enum { ADAPTER_RANK = 16 };
enum { RUNS = RECOMPUTES * OFFLOADS * SPLITS };
/* The fixed half beside which the other is planned: grass of 1/16 in bf16, and one row at a time
 * with nothing recomputed. */
enum { HOLD_FIXED = 3 * STATES + 2, RUN_FIXED = 0 };

/* Estimates are trusted this far when they say in which order to look; beyond the tolerance, time
 * counts more than what is given up. */
static const double estimate_slack = 0.02;
static const double tolerance = 0.05;

struct half {
    bool known; /* it could be planned */
    bool fits;
    double bytes;
    double seconds;
};

struct candidate {
    int hold, run;
    double cost;
    double bytes, seconds; /* estimates, then of the plan */
    enum { ESTIMATED, FITS, REFUSED } state;
};

struct hunt {
    const struct recipe *recipe;
    const struct model_config *config;
    struct plan_place place;
    struct plan *plan;
    struct half run[RUNS], fixed;
    struct candidate *item;
    size_t count;
};

/* The words of the method, its rank first; -1 if the way does not go with the format. */
static int method_words(const struct hunt *hunt, int hold, char *out, size_t size)
{
    const struct way *way = &ways[hold / STATES];
    const struct recipe *recipe = hunt->recipe;
    bool selects = strcmp(way->method, "grass") == 0;
    bool same = strcmp(way->method, recipe->method_name) == 0;
    bool exact = states[hold % STATES].exact;
    int64_t rank = way->divisor > 0 ? hunt->config->hidden_size / way->divisor : ADAPTER_RANK;
    const char *own = strcmp(way->method, "galore") == 0 ? " method.scale=0.25 method.stagger=true"
                                                         : " method.scale=1";
    out[0] = '\0';
    if (rank < 1 || (exact && !selects)) {
        return -1;
    }
    int used = 0;
    if (strcmp(way->method, "full") != 0) {
        bool scaled = !same && way->divisor > 0;
        used = snprintf(out, size, " method.rank=%lld%s", (long long)rank, scaled ? own : "");
    }
    if (exact != recipe->method_exact_rows) {
        snprintf(out + used, size - (size_t)used, " method.exact_rows=%s",
                 exact ? "true" : "false");
    }
    return 0;
}

/* The words that make a candidate of the recipe: what the method and the step have, all of it. */
static int candidate_words(const struct hunt *hunt, int hold, int run, char *out, size_t size)
{
    char method[128];
    int64_t rows = hunt->recipe->batch_micro * hunt->recipe->batch_accumulate;
    int64_t micro = (int64_t)1 << run % SPLITS;
    if (rows % micro != 0 || method_words(hunt, hold, method, sizeof method) != 0) {
        return -1;
    }
    run /= SPLITS;
    snprintf(out, size,
             "method.name=%s%s optimizer.name=adamw optimizer.state=%s precision.weights=bf16 "
             "precision.rounding=stochastic activation.recompute=%s activation.offload=%s "
             "activation.sample=none batch.micro=%lld batch.accumulate=%lld",
             ways[hold / STATES].method, method, states[hold % STATES].name,
             activation_name((size_t)(run % RECOMPUTES)), offloads[run / RECOMPUTES],
             (long long)micro, (long long)(rows / micro));
    return 0;
}

static int set_words(struct recipe *recipe, const char *text)
{
    struct error unused;
    char *words = xstrdup(text);
    char *rest = words;
    int rc = 0;
    for (char *word; rc == 0 && (word = strsep(&rest, " ")) != NULL;) {
        rc = recipe_set(recipe, word, &unused);
    }
    free(words);
    return rc == 0 ? combine_check(recipe, &unused) : -1;
}

/* Plans hold and run together. */
static struct half plan_pair(struct hunt *hunt, int hold, int run)
{
    struct half result = { 0 };
    struct error unused;
    struct recipe recipe;
    char words[512];
    recipe_init(&recipe);
    recipe_copy(&recipe, hunt->recipe);
    if (candidate_words(hunt, hold, run, words, sizeof words) == 0 &&
        set_words(&recipe, words) == 0 &&
        plan_make_ranks(&recipe, hunt->config, hunt->place.ranks, hunt->plan, &unused) == 0) {
        result = (struct half){ .known = true,
                                .fits = plan_fits(hunt->plan, &hunt->place),
                                .bytes = (double)hunt->plan->total_bytes,
                                .seconds = plan_place_seconds(hunt->plan, &recipe, &hunt->place) };
    }
    recipe_free(&recipe);
    return result;
}

/* Adapters beside weights that nobody trained would train nothing. */
static bool may_adapt(const struct recipe *recipe)
{
    return recipe->model_path[0] != '\0' && recipe->model_init == MODEL_PRETRAINED;
}

/* What can be run at all: a disk only where host memory may be short. */
static int run_count(const struct hunt *hunt)
{
    int offload_count = hunt->place.host_bytes > 0 ? OFFLOADS : OFFLOADS - 1;
    return RECOMPUTES * SPLITS * offload_count;
}

/* The halves that do not depend on how weights are held. */
static void plan_runs(struct hunt *hunt)
{
    hunt->fixed = plan_pair(hunt, HOLD_FIXED, RUN_FIXED);
    for (int r = 0; r < run_count(hunt); r++) {
        hunt->run[r] = plan_pair(hunt, HOLD_FIXED, r);
    }
}

/* Those of the ways from `first` on and before `end`. */
static void list_candidates(struct hunt *hunt, int first, int end)
{
    hunt->count = 0;
    for (int h = first * STATES; h < end * STATES; h++) {
        struct half hold = plan_pair(hunt, h, RUN_FIXED);
        for (int r = 0; r < run_count(hunt) && hold.known; r++) {
            if (hunt->run[r].known) {
                hunt->item[hunt->count++] = (struct candidate){
                    .hold = h,
                    .run = r,
                    .cost = ways[h / STATES].cost + states[h % STATES].cost,
                    .bytes = hold.bytes + hunt->run[r].bytes - hunt->fixed.bytes,
                    .seconds = hold.seconds + hunt->run[r].seconds - hunt->fixed.seconds,
                };
            }
        }
    }
}

static int by_seconds(const void *a, const void *b)
{
    const struct candidate *left = a;
    const struct candidate *right = b;
    if (left->seconds < right->seconds || left->seconds > right->seconds) {
        return left->seconds < right->seconds ? -1 : 1;
    }
    return left->bytes < right->bytes ? -1 : left->bytes > right->bytes;
}

static int by_cost(const void *a, const void *b)
{
    const struct candidate *left = a;
    const struct candidate *right = b;
    if (left->cost < right->cost || left->cost > right->cost) {
        return left->cost < right->cost ? -1 : 1;
    }
    return by_seconds(a, b);
}

/* Puts the plan in the place of the estimate. */
static bool fits(struct hunt *hunt, struct candidate *c)
{
    /* Estimates of bytes are far nearer than this. */
    const double certain = 1.1;
    const int64_t limit = hunt->place.limit_bytes;
    if (c->state == ESTIMATED && limit > 0 && c->bytes > certain * (double)limit) {
        c->state = REFUSED;
    }
    if (c->state == ESTIMATED) {
        struct half whole = plan_pair(hunt, c->hold, c->run);
        c->bytes = whole.bytes;
        c->seconds = whole.seconds;
        c->state = whole.known && whole.fits ? FITS : REFUSED;
    }
    return c->state == FITS;
}

/* Seconds of the fastest that fits; 0 if none does. */
static double find_least(struct hunt *hunt)
{
    double least = 0.0;
    qsort(hunt->item, hunt->count, sizeof *hunt->item, by_seconds);
    for (size_t i = 0; i < hunt->count; i++) {
        struct candidate *c = &hunt->item[i];
        bool late = least > 0.0 && c->seconds > least * (1.0 + estimate_slack);
        if (!late && fits(hunt, c) && (least <= 0.0 || c->seconds < least)) {
            least = c->seconds;
        }
    }
    return least;
}

static const struct candidate *find_nearest(struct hunt *hunt, double most_seconds)
{
    qsort(hunt->item, hunt->count, sizeof *hunt->item, by_cost);
    for (size_t i = 0; i < hunt->count; i++) {
        struct candidate *c = &hunt->item[i];
        if (c->seconds <= most_seconds * (1.0 + estimate_slack) && fits(hunt, c) &&
            c->seconds <= most_seconds) {
            return c;
        }
    }
    return NULL;
}

static void find(struct hunt *hunt, int first, int end, struct plan_fastest *out)
{
    list_candidates(hunt, first, end);
    out->fastest_seconds = find_least(hunt);
    const struct candidate *best = find_nearest(hunt, out->fastest_seconds * (1.0 + tolerance));
    if (out->fastest_seconds > 0.0 && best != NULL) {
        out->found = true;
        out->total_bytes = (size_t)best->bytes;
        out->step_seconds = best->seconds;
        candidate_words(hunt, best->hold, best->run, out->assignments, sizeof out->assignments);
    }
}

int plan_fastest(const struct recipe *recipe, const struct model_config *config,
                 const struct plan_place *place, struct plan_fastest *out, struct error *err)
{
    struct hunt *hunt = xcalloc(1, sizeof *hunt);
    *out = (struct plan_fastest){ 0 };
    hunt->recipe = recipe;
    hunt->config = config;
    hunt->place = *place;
    hunt->place.ranks = place->ranks > 0 ? place->ranks : 1;
    hunt->plan = malloc(sizeof *hunt->plan);
    if (hunt->plan == NULL) {
        free(hunt);
        return fail(err, ERROR_RUNTIME, "out of memory");
    }
    hunt->item = xcalloc((size_t)HOLDS * RUNS, sizeof *hunt->item);
    plan_runs(hunt);
    find(hunt, 0, ADAPTERS, out);
    if (!out->found && may_adapt(recipe)) {
        find(hunt, ADAPTERS, WAYS, out);
        out->adapters = out->found;
    }
    free(hunt->item);
    free(hunt->plan);
    free(hunt);
    return 0;
}
