/* runs, show and prune: what lies under the state directory. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "app/commands/command.h"
#include "app/commands/output.h"
#include "app/commands/show_ranks.h"
#include "app/text.h"
#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/run.h"

static void json_summary(cJSON *item, const struct run_summary *run)
{
    json_add_text(item, "name", run->name);
    json_add_text(item, "path", run->path);
    json_add_text(item, "status", run_status_names[run->status]);
    if (run->pid > 0) {
        json_add_number(item, "pid", (double)run->pid);
    }
    json_add_number(item, "started", run->started);
    json_add_number(item, "step", (double)run->step);
    json_add_number(item, "total_steps", (double)run->total_steps);
    json_add_number(item, "loss", (double)run->loss);
    json_add_number(item, "tokens_per_second", run->tokens_per_second);
    json_add_number(item, "peak_bytes", (double)run->peak_bytes);
    json_add_text(item, "recipe", run->recipe_name);
    json_add_text(item, "method", run->method);
    json_add_text(item, "model", run->model);
    json_add_text(item, "data", run->data);
}

static const char *or_dash(const char *text)
{
    return text == NULL || text[0] == '\0' ? "-" : text;
}

static void add_run(struct table *table, const struct run_summary *run)
{
    char step[64];
    snprintf(step, sizeof step, "%lld/%lld", (long long)run->step, (long long)run->total_steps);
    struct text_number loss = text_loss((double)run->loss);
    struct text_number peak = text_bytes((double)run->peak_bytes);
    struct text_number age = text_duration(clock_wall() - run->started);
    table_add(table, (const char *[]){ or_dash(run->name), run_status_names[run->status], step,
                                       isnan(run->loss) ? "-" : loss.text,
                                       run->peak_bytes > 0 ? peak.text : "-", age.text,
                                       or_dash(run->method), or_dash(run->model) });
}

int command_runs(const struct arguments *arguments)
{
    struct error err = { 0 };
    struct run_list list = { 0 };
    if (run_list_read(&list, &err) == -1) {
        return output_error(&err);
    }
    if (arguments->json) {
        cJSON *root = cJSON_CreateArray();
        for (size_t i = 0; i < list.count; i++) {
            json_summary(json_append_object(root), &list.item[i]);
        }
        output_json(root);
    } else if (list.count == 0) {
        char *root = run_root();
        output_say("no runs yet under %s", root);
        free(root);
    } else {
        struct table table;
        table_open(&table, "llrrrrll");
        table_add(&table, (const char *[]){ "RUN", "status", "step", "loss", "memory", "age",
                                            "method", "model" });
        for (size_t i = 0; i < list.count; i++) {
            add_run(&table, &list.item[i]);
        }
        table_print(&table);
    }
    run_list_free(&list);
    return 0;
}

/* ---- show ----------------------------------------------------------------------------------- */

/* What is gathered from the whole of events.jsonl. */
struct gathered {
    cJSON *evaluations;
    cJSON *checkpoints;
    cJSON *settings;
    cJSON *messages;
    cJSON *stop;           /* NULL: none */
    int64_t offload_steps; /* those that wrote activations to a disk */
    double offload_written, offload_read, offload_stall_ms;
    struct shown_ranks fare; /* how they fared */
    int64_t ranks;
    int64_t exchange_steps; /* those that tell what ranks exchanged */
    double exchanged;
};

/* Whether the checkpoint of a step is still there: older ones are removed as a run goes on. */
static bool is_kept(const char *run, int64_t step)
{
    char *path = xasprintf("%s/checkpoints/step-%06lld", run, (long long)step);
    bool kept = file_exists(path);
    free(path);
    return kept;
}

static void gather_event(struct gathered *g, const char *run, const struct event *event)
{
    cJSON *item;
    double step = event->step == EVENT_UNKNOWN ? 0 : (double)event->step;
    switch (event->kind) {
    case EVENT_START:
        g->ranks = event->start.ranks;
        break;
    case EVENT_STEP:
        g->exchange_steps += event->step_done.exchanged_bytes > 0 ? 1 : 0;
        g->exchanged += fmax(0.0, (double)event->step_done.exchanged_bytes);
        g->offload_steps += event->step_done.offload_written_bytes > 0 ? 1 : 0;
        g->offload_written += fmax(0.0, (double)event->step_done.offload_written_bytes);
        g->offload_read += fmax(0.0, (double)event->step_done.offload_read_bytes);
        g->offload_stall_ms +=
            event->step_done.offload_stall_ms > 0.0 ? event->step_done.offload_stall_ms : 0.0;
        break;
    case EVENT_RANKS:
        show_ranks_take(&g->fare, &event->ranks);
        break;
    case EVENT_EVALUATION:
        item = json_append_object(g->evaluations);
        json_add_number(item, "step", step);
        json_add_number(item, "loss", (double)event->evaluation.loss);
        json_add_number(item, "perplexity", event->evaluation.perplexity);
        break;
    case EVENT_CHECKPOINT:
        item = json_append_object(g->checkpoints);
        json_add_number(item, "step", step);
        json_add_text(item, "path", event->checkpoint.path);
        json_add_number(item, "bytes", (double)event->checkpoint.bytes);
        json_add_bool(item, "kept", is_kept(run, event->step));
        break;
    case EVENT_SETTING:
        item = json_append_object(g->settings);
        json_add_number(item, "step", (double)event->setting.effective_step);
        json_add_text(item, "key", event->setting.key);
        json_add_text(item, "from", event->setting.from);
        json_add_text(item, "to", event->setting.to);
        json_add_text(item, "by", event->setting.by);
        break;
    case EVENT_WARNING:
    case EVENT_ERROR:
        item = json_append_object(g->messages);
        json_add_text(item, "kind", event_kind_names[event->kind]);
        json_add_number(item, "step", step);
        json_add_text(item, "text", event->message.text);
        break;
    case EVENT_STOP:
        cJSON_Delete(g->stop);
        g->stop = cJSON_CreateObject();
        json_add_text(g->stop, "reason", event->stop.reason);
        json_add_number(g->stop, "status", (double)event->stop.status);
        json_add_number(g->stop, "steps", (double)event->stop.steps);
        json_add_number(g->stop, "seconds", event->stop.seconds);
        break;
    case EVENT_RESUME:
        cJSON_Delete(g->stop); /* the stop before it was not the last word */
        g->stop = NULL;
        break;
    default:
        break;
    }
}

static void gather_free(struct gathered *g)
{
    show_ranks_free(&g->fare);
    cJSON_Delete(g->evaluations);
    cJSON_Delete(g->checkpoints);
    cJSON_Delete(g->settings);
    cJSON_Delete(g->messages);
    cJSON_Delete(g->stop);
}

struct gathering {
    struct gathered *g;
    const char *run;
};

static void take_event(void *context, struct event *event)
{
    struct gathering *gathering = context;
    gather_event(gathering->g, gathering->run, event);
}

static int gather(const char *run, struct gathered *g, struct error *err)
{
    *g = (struct gathered){ .evaluations = cJSON_CreateArray(),
                            .checkpoints = cJSON_CreateArray(),
                            .settings = cJSON_CreateArray(),
                            .messages = cJSON_CreateArray() };
    return event_file_read(run, take_event, &(struct gathering){ g, run }, err);
}

static double member(const cJSON *item, const char *key)
{
    const cJSON *value = json_get(item, key);
    return cJSON_IsNumber(value) ? value->valuedouble : (double)NAN;
}

static const char *member_text(const cJSON *item, const char *key)
{
    const cJSON *value = json_get(item, key);
    return cJSON_IsString(value) ? value->valuestring : "-";
}

static void print_show(const struct run_summary *run, const struct gathered *g, const char *recipe)
{
    const cJSON *item;
    output_data("run          %s\npath         %s\nstatus       %s", run->name, run->path,
                run_status_names[run->status]);
    if (g->stop != NULL) {
        output_data(" (%s, exit code %g, %s)", member_text(g->stop, "reason"),
                    member(g->stop, "status"), text_duration(member(g->stop, "seconds")).text);
    }
    output_data("\nmodel        %s\ndata         %s\nmethod       %s\n", or_dash(run->model),
                or_dash(run->data), or_dash(run->method));
    output_data("step         %lld of %lld\nloss         %s\n", (long long)run->step,
                (long long)run->total_steps, text_loss((double)run->loss).text);
    if (run->peak_bytes > 0) {
        output_data("memory       %s at the peak\n", text_bytes((double)run->peak_bytes).text);
    }
    if (g->offload_steps > 0) {
        output_data("offloaded    %s written, %s read, %.1f ms a step waiting for the disk\n",
                    text_bytes(g->offload_written).text, text_bytes(g->offload_read).text,
                    g->offload_stall_ms / (double)g->offload_steps);
    }
    if (g->exchange_steps > 0) {
        output_data("ranks        %lld, %s exchanged a step\n", (long long)g->ranks,
                    text_bytes(g->exchanged / (double)g->exchange_steps).text);
    }
    show_ranks_print(&g->fare);
    cJSON_ArrayForEach (item, g->evaluations) {
        output_data("evaluation   step %g: loss %s, perplexity %s\n", member(item, "step"),
                    text_loss(member(item, "loss")).text,
                    text_value(member(item, "perplexity")).text);
    }
    cJSON_ArrayForEach (item, g->checkpoints) {
        output_data("checkpoint   step %g: %s%s\n", member(item, "step"),
                    text_bytes(member(item, "bytes")).text,
                    cJSON_IsTrue(json_get(item, "kept")) ? "" : ", removed since");
    }
    cJSON_ArrayForEach (item, g->settings) {
        output_data("setting      step %g: %s = %s (was %s) by %s\n", member(item, "step"),
                    member_text(item, "key"), member_text(item, "to"), member_text(item, "from"),
                    member_text(item, "by"));
    }
    cJSON_ArrayForEach (item, g->messages) {
        output_data("%-12s step %g: %s\n", member_text(item, "kind"), member(item, "step"),
                    member_text(item, "text"));
    }
    output_data("recipe\n%s\n", recipe);
}

static void json_show(const struct run_summary *run, struct gathered *g, const cJSON *recipe)
{
    cJSON *root = cJSON_CreateObject();
    json_summary(root, run);
    cJSON_DeleteItemFromObjectCaseSensitive(root, "recipe"); /* its name; the whole follows */
    cJSON_AddItemToObject(root, "recipe", cJSON_Duplicate(recipe, 1));
    cJSON_AddItemToObject(root, "evaluations", cJSON_Duplicate(g->evaluations, 1));
    cJSON_AddItemToObject(root, "checkpoints", cJSON_Duplicate(g->checkpoints, 1));
    cJSON_AddItemToObject(root, "settings", cJSON_Duplicate(g->settings, 1));
    cJSON_AddItemToObject(root, "messages", cJSON_Duplicate(g->messages, 1));
    if (g->exchange_steps > 0) {
        cJSON *exchange = json_add_object(root, "exchange");
        json_add_number(exchange, "ranks", (double)g->ranks);
        json_add_number(exchange, "bytes_per_step", g->exchanged / (double)g->exchange_steps);
    }
    show_ranks_json(&g->fare, root);
    if (g->offload_steps > 0) {
        cJSON *offload = json_add_object(root, "offload");
        json_add_number(offload, "written_bytes", g->offload_written);
        json_add_number(offload, "read_bytes", g->offload_read);
        json_add_number(offload, "stall_ms_per_step",
                        g->offload_stall_ms / (double)g->offload_steps);
    }
    if (g->stop != NULL) {
        cJSON_AddItemToObject(root, "stop", cJSON_Duplicate(g->stop, 1));
    }
    output_json(root);
}

static int show(const char *path, bool json, struct error *err)
{
    struct run_summary run = { 0 };
    struct gathered g = { 0 };
    if (run_summary_read(path, &run, err) == -1) {
        return -1;
    }
    char *recipe_path = path_join(path, "recipe.json");
    cJSON *recipe = json_read(recipe_path, err);
    int result = recipe == NULL ? -1 : gather(path, &g, err);
    if (result == 0 && json) {
        json_show(&run, &g, recipe);
    } else if (result == 0) {
        char *text = json_print_pretty(recipe);
        print_show(&run, &g, text);
        free(text);
    }
    gather_free(&g);
    cJSON_Delete(recipe);
    free(recipe_path);
    run_summary_free(&run);
    return result;
}

int command_show(const struct arguments *arguments)
{
    struct error err = { 0 };
    char *path = run_resolve(arguments->word[0], &err);
    int code = 0;
    if (path == NULL || show(path, arguments->json, &err) == -1) {
        code = output_error(&err);
    }
    free(path);
    return code;
}

/* ---- prune ---------------------------------------------------------------------------------- */

/* Removes one; `removed` (may be NULL) takes its name. */
static int prune_one(const char *path, cJSON *removed, struct error *err)
{
    char *name = xstrdup(path_base(path));
    int result = run_prune(path, err);
    if (result == 0) {
        output_say("removed %s", name);
        cJSON_AddItemToArray(removed, cJSON_CreateString(name));
    }
    free(name);
    return result;
}

static int prune_older(double days, cJSON *removed, struct error *err)
{
    struct run_list list = { 0 };
    int result = run_list_read(&list, err);
    for (size_t i = 0; i < list.count && result == 0; i++) {
        const struct run_summary *run = &list.item[i];
        bool busy = run->status == RUN_RUNNING || run->status == RUN_PAUSED;
        if (!busy && clock_wall() - run->started > days * 86400) {
            result = prune_one(run->path, removed, err);
        }
    }
    run_list_free(&list);
    return result;
}

/* What is removed is named in full: neither "the newest" nor the beginning of a name will do. */
static int prune_named(const char *word, cJSON *removed, struct error *err)
{
    char *path = run_resolve(word, err);
    int result = path == NULL ? -1 : 0;
    if (result == 0 && strchr(word, '/') == NULL && strcmp(word, path_base(path)) != 0) {
        result = fail(err, ERROR_USAGE, "prune wants the whole name of a run, found \"%s\"",
                      text_show(word).text);
        hint(err, "Did you mean %s?", text_show(path_base(path)).text);
    }
    if (result == 0) {
        result = prune_one(path, removed, err);
    }
    free(path);
    return result;
}

int command_prune(const struct arguments *arguments)
{
    struct error err = { 0 };
    double days = -1;
    cJSON *removed = cJSON_CreateArray();
    int result = option_number(arguments, "older", 0, 1e6, &days, &err);
    if (result == 0 && (days >= 0) == (arguments->word_count > 0)) {
        result = fail(&err, ERROR_USAGE, "windrow prune wants either a run or --older DAYS");
        hint(&err, "windrow runs lists them");
    }
    if (result == 0 && days >= 0) {
        result = prune_older(days, removed, &err);
    } else if (result == 0) {
        result = prune_named(arguments->word[0], removed, &err);
    }
    int code = result == -1 ? output_error(&err) : 0;
    if (arguments->json) {
        cJSON *root = cJSON_CreateObject();
        cJSON_AddItemToObject(root, "removed", removed);
        output_json(root);
    } else {
        cJSON_Delete(removed);
    }
    return code;
}
