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

enum { STATES = 3, RECOMPUTES = 4, OFFLOADS = 2, SPLITS = 6 };
static const char *const state_words[STATES] = { "fp32", "bf16", "int8" };
/* What each format gives up, in halvings of the rank. */
static const double state_costs[STATES] = { 0.0, 0.2, 0.4 };

struct way {
    const char *method;
    int64_t divisor; /* of the hidden size: the rank */
    double cost;     /* what it gives up, in halvings of the rank */
};
static const struct way ways[] = {
    { "full", 1, 0.0 },   { "grass", 4, 2.0 },   { "grass", 8, 3.0 },
    { "grass", 16, 4.0 }, { "grass", 32, 5.0 },  { "galore", 4, 2.5 },
    { "galore", 8, 3.5 }, { "galore", 16, 4.5 }, { "galore", 32, 5.5 },
};
enum { WAYS = sizeof ways / sizeof ways[0], HOLDS = WAYS * STATES };
enum { RUNS = RECOMPUTES * OFFLOADS * SPLITS };
/* The fixed half beside which the other is planned: grass of 1/16 in bf16, and one row at a time
 * with nothing recomputed. */
enum { HOLD_FIXED = 3 * STATES + 1, RUN_FIXED = 0 };

/* Estimates are trusted this far when they say in which order to look; beyond the tolerance, time
 * counts more than what is given up. */
static const double estimate_slack = 0.02;
static const double tolerance = 0.05;

struct half {
    bool known; /* it could be planned */
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
    int64_t limit_bytes;
    const struct card *card;
    struct plan *plan;
    struct half hold[HOLDS], run[RUNS], fixed;
    struct candidate *item;
    size_t count;
};

/* The words that make a candidate of the recipe: what the method and the step have, all of it. */
static int candidate_words(const struct hunt *hunt, int hold, int run, char *out, size_t size)
{
    const struct way *way = &ways[hold / STATES];
    int64_t rows = hunt->recipe->batch_micro * hunt->recipe->batch_accumulate;
    int64_t micro = (int64_t)1 << run % SPLITS;
    int64_t rank = hunt->config->hidden_size / way->divisor;
    if (rows % micro != 0 || rank < 1) {
        return -1;
    }
    char method[128] = "";
    if (strcmp(way->method, "full") != 0) {
        bool galore = strcmp(way->method, "galore") == 0;
        bool same = strcmp(way->method, hunt->recipe->method_name) == 0;
        const char *own = galore ? " method.scale=0.25 method.stagger=true" : " method.scale=1";
        snprintf(method, sizeof method, " method.rank=%lld%s", (long long)rank, same ? "" : own);
    }
    run /= SPLITS;
    snprintf(out, size,
             "method.name=%s%s optimizer.name=adamw optimizer.state=%s precision.weights=bf16 "
             "precision.rounding=stochastic activation.recompute=%s activation.offload=%s "
             "activation.sample=none batch.micro=%lld batch.accumulate=%lld",
             way->method, method, state_words[hold % STATES],
             activation_name((size_t)(run % RECOMPUTES)), run / RECOMPUTES ? "host" : "none",
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
        plan_make(&recipe, hunt->config, hunt->plan, &unused) == 0) {
        result = (struct half){ .known = true,
                                .bytes = (double)hunt->plan->total_bytes,
                                .seconds = plan_step_seconds(hunt->plan, &recipe, hunt->card) };
    }
    recipe_free(&recipe);
    return result;
}

static void list_candidates(struct hunt *hunt)
{
    hunt->fixed = plan_pair(hunt, HOLD_FIXED, RUN_FIXED);
    for (int h = 0; h < HOLDS; h++) {
        hunt->hold[h] = plan_pair(hunt, h, RUN_FIXED);
    }
    for (int r = 0; r < RUNS; r++) {
        hunt->run[r] = plan_pair(hunt, HOLD_FIXED, r);
    }
    hunt->item = xcalloc((size_t)HOLDS * RUNS, sizeof *hunt->item);
    for (int h = 0; h < HOLDS; h++) {
        for (int r = 0; r < RUNS; r++) {
            if (hunt->hold[h].known && hunt->run[r].known) {
                hunt->item[hunt->count++] = (struct candidate){
                    .hold = h,
                    .run = r,
                    .cost = ways[h / STATES].cost + state_costs[h % STATES],
                    .bytes = hunt->hold[h].bytes + hunt->run[r].bytes - hunt->fixed.bytes,
                    .seconds = hunt->hold[h].seconds + hunt->run[r].seconds - hunt->fixed.seconds,
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
    if (c->state == ESTIMATED && c->bytes > certain * (double)hunt->limit_bytes) {
        c->state = REFUSED;
    }
    if (c->state == ESTIMATED) {
        struct half whole = plan_pair(hunt, c->hold, c->run);
        bool good = whole.known && whole.bytes <= (double)hunt->limit_bytes;
        c->bytes = whole.bytes;
        c->seconds = whole.seconds;
        c->state = good ? FITS : REFUSED;
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

int plan_fastest(const struct recipe *recipe, const struct model_config *config,
                 int64_t limit_bytes, const struct card *card, struct plan_fastest *out,
                 struct error *err)
{
    struct hunt hunt = {
        .recipe = recipe, .config = config, .limit_bytes = limit_bytes, .card = card
    };
    *out = (struct plan_fastest){ 0 };
    hunt.plan = malloc(sizeof *hunt.plan);
    if (hunt.plan == NULL) {
        return fail(err, ERROR_RUNTIME, "out of memory");
    }
    list_candidates(&hunt);
    out->fastest_seconds = find_least(&hunt);
    const struct candidate *best = find_nearest(&hunt, out->fastest_seconds * (1.0 + tolerance));
    if (out->fastest_seconds > 0.0 && best != NULL) {
        out->found = true;
        out->total_bytes = (size_t)best->bytes;
        out->step_seconds = best->seconds;
        candidate_words(&hunt, best->hold, best->run, out->assignments, sizeof out->assignments);
    }
    free(hunt.item);
    free(hunt.plan);
    return 0;
}
