/* windrow plan --limit BYTES --host BYTES: what to change so that it fits, and the fastest that
 * does. */
#include "app/commands/plan_advice.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "app/commands/output.h"
#include "app/text.h"
#include "engine/base/xalloc.h"
#include "engine/recipe.h"

/* A size as memory.limit takes it. */
static int set_limit(struct recipe *recipe, const char *option, const char *text, struct error *err)
{
    char *assignment = xasprintf("memory.limit=%s", text);
    int result = recipe_set(recipe, assignment, err);
    free(assignment);
    return result == -1 ? fail_within(err, "--%s", option) : 0;
}

int plan_advice_take(struct plan_advice *advice, struct recipe *recipe,
                     const struct arguments *arguments, struct error *err)
{
    const char *limit = option_text(arguments, "limit");
    const char *host = option_text(arguments, "host");
    advice->asked = limit != NULL;
    if (limit != NULL && set_limit(recipe, "limit", limit, err) == -1) {
        return -1;
    }
    if (host == NULL) {
        return 0;
    }
    if (limit == NULL) {
        fail(err, ERROR_USAGE, "--host bounds what --limit looks for; no limit is said");
        return hint(err, "add --limit BYTES");
    }
    struct recipe scratch;
    recipe_init(&scratch);
    int result = set_limit(&scratch, "host", host, err);
    advice->place.host_bytes = scratch.memory_limit;
    recipe_free(&scratch);
    return result;
}

int plan_advice_search(struct plan_advice *advice, const struct recipe *recipe,
                       const struct model_config *config, const struct plan *plan,
                       struct error *err)
{
    struct plan_place *place = &advice->place;
    double rows = (double)recipe->batch_micro * (double)recipe->batch_accumulate;
    int result = 0;
    advice->rows = rows * (double)recipe->data_sequence_length * plan->ranks;
    advice->total_bytes = plan->total_bytes;
    advice->fits = plan_fits(plan, place);
    if (!advice->fits) {
        result = plan_changes(recipe, config, place, advice->change, PLAN_CHANGES_MAX,
                              &advice->change_count, err);
    }
    advice->asked = advice->asked && place->limit_bytes > 0;
    if (result != 0 || !advice->asked) {
        return result;
    }
    if (isatty(STDERR_FILENO)) {
        output_say("looking for ways that fit ...");
    }
    place->card = card_for(place->limit_bytes);
    advice->step_seconds = plan_place_seconds(plan, recipe, place);
    result = plan_trades(recipe, config, place, advice->trade, &advice->trade_count, err);
    return result == 0 ? plan_fastest(recipe, config, place, &advice->fastest, err) : -1;
}

/* ---- text ------------------------------------------------------------------------------------ */

static void print_changes(const struct plan_advice *advice)
{
    if (advice->change_count == 0) {
        output_data("no change known here makes it fit\n");
        return;
    }
    output_data("changes that fit, cheapest first (time for a token: x 1 is as it is now)\n");
    for (size_t i = 0; i < advice->change_count; i++) {
        const struct plan_change *change = &advice->change[i];
        output_data("\n  %s\n      %s, time x %.2f: %s\n", change->assignments,
                    text_bytes((double)change->total_bytes).text, change->time_factor,
                    change->sentence);
    }
}

static void print_trade(const struct plan_advice *advice)
{
    struct table table;
    if (advice->trade_count == 0) {
        return;
    }
    output_data("\n");
    table_open(&table, "lrr");
    table_add(&table, (const char *[]){ "EACH CHANGE ALONE, CHEAPEST FIRST", "saves", "time" });
    for (size_t i = 0; i < advice->trade_count; i++) {
        const struct plan_change *change = &advice->trade[i];
        double saved = (double)advice->total_bytes - (double)change->total_bytes;
        struct text_number bytes = text_bytes(saved);
        char factor[32];
        snprintf(factor, sizeof factor, "x %.3f", change->time_factor);
        table_add(&table, (const char *[]){ change->assignments, bytes.text, factor });
    }
    table_print(&table);
}

/* Tokens of a step over the predicted seconds of one. */
static double tokens_per_second(const struct plan_advice *advice, double seconds)
{
    return seconds > 0.0 ? advice->rows / seconds : 0.0;
}

/* What the search found; the times are predictions for cards of that size. */
static void print_fastest(const struct plan_advice *advice)
{
    const struct plan_fastest *f = &advice->fastest;
    const struct plan_place *place = &advice->place;
    char where[128] = "";
    if (place->ranks > 1) {
        snprintf(where, sizeof where, " on each of %d GPUs, exchanging included", place->ranks);
    }
    output_data("\nas it is, %s tokens/s are predicted for a %s%s\n",
                text_count(tokens_per_second(advice, advice->step_seconds)).text, place->card->name,
                where);
    if (!f->found) {
        output_data("nothing that trains this model fits, whatever its speed\n");
        return;
    }
    if (f->adapters) {
        output_data("nothing that trains this model's own weights fits; adapters beside them do. ");
    }
    output_data("%she fastest found that fits, or at most 5 %% slower and nearer to full training: "
                "%s, %s tokens/s predicted\n\n  %s\n",
                f->adapters ? "T" : "t", text_bytes((double)f->total_bytes).text,
                text_count(tokens_per_second(advice, f->step_seconds)).text, f->assignments);
}

void plan_advice_print(const struct plan_advice *advice)
{
    double limit = (double)advice->place.limit_bytes;
    double total = (double)advice->total_bytes;
    if (limit <= 0.0) {
        output_data("no limit known: it fits\n");
    } else if (advice->fits) {
        output_data("fits into %s: %s to spare\n", text_bytes(limit).text,
                    text_bytes(limit - total).text);
    } else {
        if (total > limit) {
            output_data("does not fit into %s: %s too much\n\n", text_bytes(limit).text,
                        text_bytes(total - limit).text);
        } else {
            output_data("does not fit into %s of host memory\n\n",
                        text_bytes((double)advice->place.host_bytes).text);
        }
        print_changes(advice);
    }
    print_trade(advice);
    if (advice->asked) {
        print_fastest(advice);
    }
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static void json_changes(cJSON *root, const char *key, const struct plan_change *list, size_t count)
{
    cJSON *changes = json_add_array(root, key);
    for (size_t i = 0; i < count; i++) {
        cJSON *item = json_append_object(changes);
        json_add_text(item, "assignments", list[i].assignments);
        json_add_text(item, "sentence", list[i].sentence);
        json_add_number(item, "total_bytes", (double)list[i].total_bytes);
        json_add_number(item, "time_factor", list[i].time_factor);
    }
}

void plan_advice_json(cJSON *root, const struct plan_advice *advice)
{
    const struct plan_fastest *fastest = &advice->fastest;
    json_add_bool(root, "fits", advice->fits);
    json_changes(root, "changes", advice->change, advice->change_count);
    if (!advice->asked) {
        return;
    }
    json_changes(root, "trade", advice->trade, advice->trade_count);
    json_add_text(root, "card", advice->place.card->name);
    if (advice->place.host_bytes > 0) {
        json_add_number(root, "host_limit_bytes", (double)advice->place.host_bytes);
    }
    json_add_number(root, "predicted_step_seconds", advice->step_seconds);
    cJSON *item = json_add_object(root, "fastest");
    json_add_bool(item, "found", fastest->found);
    if (fastest->found) {
        json_add_bool(item, "adapters", fastest->adapters);
        json_add_text(item, "assignments", fastest->assignments);
        json_add_number(item, "total_bytes", (double)fastest->total_bytes);
        json_add_number(item, "predicted_step_seconds", fastest->step_seconds);
        json_add_number(item, "predicted_tokens_per_second",
                        tokens_per_second(advice, fastest->step_seconds));
    }
}
