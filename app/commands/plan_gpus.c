/* windrow plan --gpus N --link NAME: what several GPUs exchange, and what that does to a step. */
#include "app/commands/plan_gpus.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/commands/output.h"
#include "app/text.h"
#include "engine/recipe.h"

enum { GPUS_MAX = 1024 };
static const char *const default_link = "pcie4";

int plan_gpus_take(struct plan_gpus *gpus, const struct arguments *arguments, struct error *err)
{
    const char *link = option_text(arguments, "link");
    int64_t count = 1;
    if (option_integer(arguments, "gpus", 1, GPUS_MAX, &count, err) == -1) {
        return -1;
    }
    gpus->asked = option_given(arguments, "gpus");
    gpus->count = (int)count;
    if (link != NULL && !gpus->asked) {
        fail(err, ERROR_USAGE, "--link says what joins several GPUs; how many is not said");
        return hint(err, "add --gpus N");
    }
    if (gpus->asked && option_given(arguments, "measure")) {
        fail(err, ERROR_USAGE, "--measure times this one device, --gpus plans for several");
        return hint(err, "use one of them");
    }
    if (link_from_text(link != NULL ? link : default_link, &gpus->link, err) == -1) {
        return fail_within(err, "--link");
    }
    return 0;
}

static struct gpus_cost cost_of(const struct plan_gpus *gpus, const struct plan *plan,
                                const struct recipe *recipe)
{
    double backward = plan_backward_seconds(plan, gpus->card);
    return (struct gpus_cost){
        .step_payload_bytes = plan->step_payload_bytes,
        .step_wire_bytes = plan->step_wire_bytes,
        .refresh_payload_bytes = plan->refresh_payload_bytes,
        .refresh_wire_bytes = plan->refresh_wire_bytes,
        .compute_seconds = plan_step_seconds(plan, recipe, gpus->card),
        .exchange_seconds = plan_exchange_seconds(plan, recipe, &gpus->link),
        .hidden_seconds = plan_hidden_seconds(plan, backward, &gpus->link),
        .early_wire_bytes = plan->early_wire_bytes,
        .backward_seconds = backward,
        .total_bytes = (double)plan->total_bytes,
    };
}

void plan_gpus_compare(struct plan_gpus *gpus, const struct recipe *recipe,
                       const struct model_config *config, const struct plan *plan)
{
    int64_t held = recipe->memory_limit > 0 ? recipe->memory_limit : (int64_t)plan->total_bytes;
    double rows = (double)recipe->batch_micro * (double)recipe->batch_accumulate;
    gpus->card = card_for(held);
    gpus->tokens = rows * (double)recipe->data_sequence_length * gpus->count;
    gpus->exchange = recipe->precision_exchange;
    gpus->cost = cost_of(gpus, plan, recipe);
    if (strcmp(recipe->method_name, "full") == 0) {
        return;
    }
    struct recipe full;
    struct plan *full_plan = xcalloc(1, sizeof *full_plan);
    struct error why = { 0 };
    recipe_init(&full);
    if (plan_full_recipe(recipe, &full, &why) == 0 &&
        plan_make_ranks(&full, config, gpus->count, full_plan, &why) == 0) {
        gpus->full_known = true;
        gpus->full = cost_of(gpus, full_plan, &full);
    } else {
        snprintf(gpus->full_why, sizeof gpus->full_why, "%.250s", why.message);
    }
    recipe_free(&full);
    free(full_plan);
}

static double step_seconds(const struct gpus_cost *cost)
{
    return cost->compute_seconds + cost->exchange_seconds - cost->hidden_seconds;
}

static double tokens_per_second(const struct plan_gpus *gpus, const struct gpus_cost *cost)
{
    double seconds = step_seconds(cost);
    return seconds > 0.0 ? gpus->tokens / seconds : 0.0;
}

static void milliseconds(char out[32], double seconds)
{
    snprintf(out, 32, "%.1f ms", seconds * 1e3);
}

static void add_cost(struct table *table, const struct plan_gpus *gpus, const char *name,
                     const struct gpus_cost *cost)
{
    char compute[32];
    char exchange[32];
    char hidden[32];
    milliseconds(compute, cost->compute_seconds);
    milliseconds(exchange, cost->exchange_seconds);
    milliseconds(hidden, cost->hidden_seconds);
    struct text_number memory = text_bytes(cost->total_bytes);
    struct text_number step = text_bytes(cost->step_payload_bytes);
    struct text_number refresh = text_bytes(cost->refresh_payload_bytes);
    struct text_number rate = text_count(tokens_per_second(gpus, cost));
    bool refreshes = cost->refresh_payload_bytes > 0.0;
    table_add(table, (const char *[]){ name, memory.text, step.text, refreshes ? refresh.text : "-",
                                       compute, exchange, hidden, rate.text });
}

void plan_gpus_print(const struct plan_gpus *gpus)
{
    struct table table;
    if (!gpus->asked) {
        return;
    }
    output_data("\n");
    char title[32];
    snprintf(title, sizeof title, "%d GPU%s", gpus->count, gpus->count == 1 ? "" : "S");
    table_open(&table, "lrrrrrrr");
    table_add(&table, (const char *[]){ title, "memory each", "summed a step", "with a refresh",
                                        "compute", "exchange", "hidden", "tokens/s" });
    add_cost(&table, gpus, "this recipe", &gpus->cost);
    if (gpus->full_known) {
        add_cost(&table, gpus, "in full", &gpus->full);
    }
    table_print(&table);
    if (gpus->full_known) {
        output_data("%.2f times the tokens/s of full training, %.1f times fewer bytes in a step "
                    "without refresh\n",
                    step_seconds(&gpus->full) / step_seconds(&gpus->cost),
                    gpus->cost.step_payload_bytes > 0.0
                        ? gpus->full.step_payload_bytes / gpus->cost.step_payload_bytes
                        : 1.0);
        if (gpus->full.total_bytes > (double)card_usable_bytes(gpus->card)) {
            output_data("(full training would not fit a %s: its row is for comparing)\n",
                        gpus->card->name);
        }
    } else if (gpus->full_why[0] != '\0') {
        output_data("not compared with full training: %s\n", gpus->full_why);
    }
    output_data("gradients are exchanged %s (precision.exchange)\n",
                gpus->exchange == EXCHANGE_GRADIENT ? "in the format they are kept in"
                : gpus->exchange == EXCHANGE_BF16   ? "in bf16"
                                                    : "in fp32");
    output_data(
        "predicted for a %s each and %s: %s/s, %.1f us a hop; a ring, refreshes spread over "
        "their interval. Hidden is what is summed beside the backward of a step's last "
        "micro-batch, taken to slow nothing down: the gradients of full training but for "
        "the last bucket; other methods sum after it, and rows that other ranks have "
        "updated are waited for\n",
        gpus->card->name, gpus->link.words, text_count(gpus->link.bytes).text,
        gpus->link.latency_seconds * 1e6);
}

static void json_cost(cJSON *item, const struct plan_gpus *gpus, const struct gpus_cost *cost)
{
    json_add_number(item, "total_bytes", cost->total_bytes);
    json_add_number(item, "step_payload_bytes", cost->step_payload_bytes);
    json_add_number(item, "step_wire_bytes", cost->step_wire_bytes);
    json_add_number(item, "refresh_payload_bytes", cost->refresh_payload_bytes);
    json_add_number(item, "refresh_wire_bytes", cost->refresh_wire_bytes);
    json_add_number(item, "compute_seconds", cost->compute_seconds);
    json_add_number(item, "exchange_seconds", cost->exchange_seconds);
    json_add_number(item, "hidden_seconds", cost->hidden_seconds);
    json_add_number(item, "early_wire_bytes", cost->early_wire_bytes);
    json_add_number(item, "backward_seconds", cost->backward_seconds);
    json_add_number(item, "step_seconds", step_seconds(cost));
    json_add_number(item, "tokens_per_second", tokens_per_second(gpus, cost));
}

void plan_gpus_json(cJSON *root, const struct plan_gpus *gpus)
{
    if (!gpus->asked) {
        return;
    }
    cJSON *item = json_add_object(root, "gpus");
    json_add_number(item, "count", gpus->count);
    json_add_text(item, "card", gpus->card->name);
    json_add_text(item, "link", gpus->link.name);
    json_add_number(item, "link_bytes_per_second", gpus->link.bytes);
    json_add_number(item, "link_latency_seconds", gpus->link.latency_seconds);
    static const char *const formats[] = { "gradient", "bf16", "fp32" };
    json_add_text(item, "exchange", formats[gpus->exchange]);
    json_cost(json_add_object(item, "recipe"), gpus, &gpus->cost);
    if (gpus->full_known) {
        json_cost(json_add_object(item, "full"), gpus, &gpus->full);
        json_add_number(item, "speed_ratio", step_seconds(&gpus->full) / step_seconds(&gpus->cost));
    }
}
