/* The part of windrow plan that says what to change: --limit and --host. */
#ifndef WINDROW_APP_COMMANDS_PLAN_ADVICE_H
#define WINDROW_APP_COMMANDS_PLAN_ADVICE_H

#include <cjson/cJSON.h>

#include "app/commands/command.h"
#include "engine/plan.h"

struct plan_advice {
    bool asked;              /* --limit */
    bool fits;               /* the recipe as it is */
    struct plan_place place; /* its card is NULL if nothing was asked */
    double rows;             /* of a step, on all devices, times their length: tokens */
    double step_seconds;     /* of the recipe as it is, predicted */
    size_t total_bytes;
    struct plan_change change[PLAN_CHANGES_MAX]; /* where it does not fit */
    size_t change_count;
    struct plan_change trade[PLAN_TRADES_MAX];
    size_t trade_count;
    struct plan_fastest fastest;
};

/* Takes --limit into the recipe, and --host. */
int plan_advice_take(struct plan_advice *advice, struct recipe *recipe,
                     const struct arguments *arguments, struct error *err);
/* `plan` is that of the recipe for the ranks of advice->place, whose limit, ranks and link are set.
 * Looks for what fits where it does not; and, where asked, for the trade and the fastest way. */
int plan_advice_search(struct plan_advice *advice, const struct recipe *recipe,
                       const struct model_config *config, const struct plan *plan,
                       struct error *err);
void plan_advice_print(const struct plan_advice *advice);
void plan_advice_json(cJSON *root, const struct plan_advice *advice);

#endif
