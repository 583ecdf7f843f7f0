/* The part of windrow plan that is about several GPUs: --gpus N and --link. */
#ifndef WINDROW_APP_COMMANDS_PLAN_GPUS_H
#define WINDROW_APP_COMMANDS_PLAN_GPUS_H

#include <cjson/cJSON.h>

#include "app/commands/command.h"
#include "engine/plan.h"

/* What a step of all GPUs costs. */
struct gpus_cost {
    double step_payload_bytes, step_wire_bytes;       /* of each GPU, without refresh */
    double refresh_payload_bytes, refresh_wire_bytes; /* of a step with one; 0: there is none */
    double compute_seconds, exchange_seconds;         /* of a step, refreshes spread */
    double hidden_seconds; /* of the exchange, behind the backward of the last micro-batch */
    double early_wire_bytes, backward_seconds; /* what is sent in that, and how long it takes */
    double total_bytes;                        /* of each GPU's memory */
};

struct plan_gpus {
    bool asked;
    int count; /* 1 where nothing was asked */
    struct link link;
    int exchange; /* enum precision_exchange */
    const struct card *card;
    double tokens; /* of a step, of all GPUs */
    struct gpus_cost cost;
    bool full_known; /* the method is another than full, and full can be planned */
    struct gpus_cost full;
    char full_why[256]; /* why not */
};

/* Reads --gpus and --link. */
int plan_gpus_take(struct plan_gpus *gpus, const struct arguments *arguments, struct error *err);
/* `plan` is that of a recipe and so many ranks. The card is the smallest that holds the recipe's
 * limit, or the plan where there is none. */
void plan_gpus_compare(struct plan_gpus *gpus, const struct recipe *recipe,
                       const struct model_config *config, const struct plan *plan);
/* Print nothing and add nothing where nothing was asked. */
void plan_gpus_print(const struct plan_gpus *gpus);
void plan_gpus_json(cJSON *root, const struct plan_gpus *gpus);

#endif
