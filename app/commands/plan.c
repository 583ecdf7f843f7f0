/* windrow plan: what a recipe would take, before anything runs. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/commands/command.h"
#include "app/commands/common.h"
#include "app/commands/output.h"
#include "app/commands/plan_advice.h"
#include "app/commands/plan_gpus.h"
#include "app/text.h"
#include "engine/base/file.h"
#include "engine/device.h"
#include "engine/inspect.h"
#include "engine/run.h"

enum { PLAN_SHOWN_TENSORS = 10 };

/* Everything that the tables and the JSON are made from. */
struct plan_report {
    const struct recipe *recipe;
    struct plan plan;
    char *model;
    struct device_room room;
    struct plan_advice advice;
    bool measured; /* --measure */
    struct plan_measured times;
    struct plan_gpus gpus; /* --gpus */
};

static bool phase_runs(const struct plan *plan, int phase)
{
    for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
        if (plan->phase_bytes[phase][c] > 0) {
            return phase != PHASE_IDLE;
        }
    }
    return false;
}

static void add_row(struct table *table, const char *name,
                    const size_t bytes[MEMORY_CATEGORY_COUNT])
{
    const char *cell[MEMORY_CATEGORY_COUNT + 2] = { name };
    struct text_number number[MEMORY_CATEGORY_COUNT + 1];
    size_t sum = 0;
    for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
        sum += bytes[c];
        number[c] = text_bytes((double)bytes[c]);
        cell[c + 1] = number[c].text;
    }
    number[MEMORY_CATEGORY_COUNT] = text_bytes((double)sum);
    cell[MEMORY_CATEGORY_COUNT + 1] = number[MEMORY_CATEGORY_COUNT].text;
    table_add(table, cell);
}

static void print_memory(const struct plan *plan)
{
    struct table table;
    const char *head[MEMORY_CATEGORY_COUNT + 2] = { "MEMORY" };
    for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
        head[c + 1] = memory_category_names[c];
    }
    head[MEMORY_CATEGORY_COUNT + 1] = "sum";
    table_open(&table, "lrrrrrr");
    table_add(&table, head);
    for (int phase = 0; phase < PHASE_COUNT; phase++) {
        if (phase_runs(plan, phase)) {
            add_row(&table, trainer_phase_names[phase], plan->phase_bytes[phase]);
        }
    }
    add_row(&table, "taken", plan->bytes);
    table_print(&table);
    output_data("\n%s taken from the device; at most %s alive at one time\n",
                text_bytes((double)plan->total_bytes).text,
                text_bytes((double)plan->peak_bytes).text);
}

/* What a GPU holds beside the plan. */
static void print_room(const struct device_room *room)
{
    if (!room->cuda) {
        return;
    }
    output_data("about %s more for CUDA's context and libraries: an estimate, which a run "
                "measures\n",
                text_bytes((double)PLAN_CONTEXT_BYTES).text);
    if (room->total_bytes > 0) {
        output_data("%s has %s free of %s now; other programs and the driver hold %s\n", room->name,
                    text_bytes((double)room->free_bytes).text,
                    text_bytes((double)room->total_bytes).text,
                    text_bytes((double)room->others_bytes).text);
    }
}

static void print_work(const struct plan *plan)
{
    output_data("%s FLOP a step", text_count(plan->step_flops).text);
    if (plan->refresh_flops > 0) {
        output_data(", %s FLOP with a choice of rows", text_count(plan->refresh_flops).text);
    }
    output_data("; a checkpoint takes %s on disk\n",
                text_bytes((double)plan->checkpoint_bytes).text);
    if (plan->offload_spans > 0) {
        double bytes = (double)plan->offload_spans * (double)plan->offload_span_bytes;
        output_data("%s of activations of %lld blocks leave the device and come back in each "
                    "micro-batch\n",
                    text_bytes(bytes).text, (long long)plan->offload_spans);
    }
    if (plan->host_bytes > 0) {
        output_data("%s of host memory are taken beside it\n",
                    text_bytes((double)plan->host_bytes).text);
    }
    output_data("\n");
}

static void print_largest(const struct plan *plan)
{
    struct table table;
    table_open(&table, "lllr");
    table_add(&table, (const char *[]){ "LARGEST TENSORS", "", "shape", "bytes" });
    for (size_t i = 0; i < plan->largest_count && i < PLAN_SHOWN_TENSORS; i++) {
        const struct memory_record *record = &plan->largest[i];
        char *shape = shape_text(record->rank, record->dim);
        struct text_number bytes = text_bytes((double)record->bytes);
        table_add(&table, (const char *[]){ record->name, memory_category_names[record->category],
                                            shape, bytes.text });
        free(shape);
    }
    table_print(&table);
}

/* Gigabytes an hour, of a step's bytes. */
static double hourly(const struct plan_measured *t, double bytes)
{
    return t->offloaded_seconds > 0.0 ? bytes * 3600.0 / t->offloaded_seconds : 0.0;
}

/* What was timed here, and what offloading makes of it. */
static void print_measured(const struct plan_report *report)
{
    const struct plan_measured *t = &report->times;
    if (!report->measured) {
        return;
    }
    output_data("\na step is predicted to take %s here (measured with one and three blocks)\n",
                text_duration(t->step_seconds).text);
    if (report->plan.offload_spans == 0) {
        return;
    }
    double slower = t->step_seconds > 0.0 ? t->offloaded_seconds / t->step_seconds - 1.0 : 0.0;
    output_data("offloading makes it %s, %.1f %% slower: %s waiting for the disk, %s copying\n",
                text_duration(t->offloaded_seconds).text, 100.0 * slower,
                text_duration(t->stall_seconds).text, text_duration(t->copy_seconds).text);
    if (t->write_rate > 0.0) {
        output_data("a step writes %s and reads %s; the disk was measured at %s/s and %s/s; in an "
                    "hour %s are written\n",
                    text_bytes(t->written_bytes).text, text_bytes(t->read_bytes).text,
                    text_bytes(t->write_rate).text, text_bytes(t->read_rate).text,
                    text_bytes(hourly(t, t->written_bytes)).text);
    }
}

static void print_report(const struct plan_report *report)
{
    const struct recipe *r = report->recipe;
    output_data("%s: %s, %s parameters (%s trained), method %s", r->name[0] ? r->name : "recipe",
                report->model, text_count((double)report->plan.parameters).text,
                text_count((double)report->plan.trained).text, r->method_name);
    if (strcmp(r->method_name, "full") != 0) {
        output_data(" of rank %lld", (long long)r->method_rank);
    }
    output_data(", a step of %lld x %lld rows of %lld tokens%s\n\n", (long long)r->batch_accumulate,
                (long long)r->batch_micro, (long long)r->data_sequence_length,
                report->gpus.asked ? " on each GPU" : "");
    char *keys = recipe_method_keys(r);
    if (keys[0]) {
        output_data("method %s reads %s\n\n", r->method_name, keys);
    }
    free(keys);
    print_memory(&report->plan);
    print_room(&report->room);
    print_work(&report->plan);
    print_largest(&report->plan);
    output_data("\n");
    plan_advice_print(&report->advice);
    plan_gpus_print(&report->gpus);
    print_measured(report);
}

static void json_categories(cJSON *object, const char *key,
                            const size_t bytes[MEMORY_CATEGORY_COUNT])
{
    cJSON *item = json_add_object(object, key);
    for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
        json_add_number(item, memory_category_names[c], (double)bytes[c]);
    }
}

static void json_largest(cJSON *root, const struct plan *plan)
{
    cJSON *list = json_add_array(root, "largest");
    for (size_t i = 0; i < plan->largest_count; i++) {
        const struct memory_record *record = &plan->largest[i];
        cJSON *item = json_append_object(list);
        json_add_text(item, "name", record->name);
        json_add_text(item, "category", memory_category_names[record->category]);
        json_add_text(item, "dtype", dtype_name(record->dtype));
        cJSON *shape = json_add_array(item, "shape");
        for (int d = 0; d < record->rank; d++) {
            cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)record->dim[d]));
        }
        json_add_number(item, "bytes", (double)record->bytes);
    }
}

static void json_measured(cJSON *root, const struct plan_report *report)
{
    const struct plan_measured *t = &report->times;
    if (!report->measured) {
        return;
    }
    cJSON *item = json_add_object(root, "measured");
    json_add_number(item, "step_seconds", t->step_seconds);
    json_add_number(item, "offloaded_step_seconds", t->offloaded_seconds);
    json_add_number(item, "stall_seconds", t->stall_seconds);
    json_add_number(item, "copy_seconds", t->copy_seconds);
    json_add_number(item, "written_bytes", t->written_bytes);
    json_add_number(item, "read_bytes", t->read_bytes);
    json_add_number(item, "write_bytes_per_second", t->write_rate);
    json_add_number(item, "read_bytes_per_second", t->read_rate);
    json_add_number(item, "written_bytes_per_hour", hourly(t, t->written_bytes));
}

static void json_room(cJSON *root, const struct device_room *room)
{
    if (!room->cuda) {
        return;
    }
    json_add_number(root, "context_bytes_estimate", (double)PLAN_CONTEXT_BYTES);
    if (room->total_bytes > 0) {
        json_add_number(root, "device_total_bytes", (double)room->total_bytes);
        json_add_number(root, "device_free_bytes", (double)room->free_bytes);
        json_add_number(root, "others_bytes", (double)room->others_bytes);
    }
}

static void json_report(const struct plan_report *report)
{
    const struct plan *plan = &report->plan;
    cJSON *root = cJSON_CreateObject();
    json_add_text(root, "recipe", report->recipe->name);
    json_add_text(root, "model", report->model);
    json_add_text(root, "method", report->recipe->method_name);
    json_add_number(root, "rank", (double)report->recipe->method_rank);
    json_add_number(root, "parameters", (double)plan->parameters);
    json_add_number(root, "trained_parameters", (double)plan->trained);
    json_categories(root, "planned_bytes", plan->bytes);
    json_add_number(root, "total_bytes", (double)plan->total_bytes);
    json_add_number(root, "peak_bytes", (double)plan->peak_bytes);
    cJSON *phases = json_add_object(root, "phases");
    for (int phase = 0; phase < PHASE_COUNT; phase++) {
        if (phase_runs(plan, phase)) {
            json_categories(phases, trainer_phase_names[phase], plan->phase_bytes[phase]);
        }
    }
    json_add_number(root, "step_flops", plan->step_flops);
    json_add_number(root, "refresh_flops", plan->refresh_flops);
    json_add_number(root, "step_bytes", plan->step_bytes);
    json_add_number(root, "checkpoint_bytes", (double)plan->checkpoint_bytes);
    if (plan->offload_spans > 0) {
        json_add_number(root, "offload_spans", (double)plan->offload_spans);
        json_add_number(root, "offload_span_bytes", (double)plan->offload_span_bytes);
    }
    json_add_number(root, "host_bytes", (double)plan->host_bytes);
    if (report->advice.place.limit_bytes > 0) {
        json_add_number(root, "limit_bytes", (double)report->advice.place.limit_bytes);
    }
    json_room(root, &report->room);
    json_largest(root, plan);
    plan_advice_json(root, &report->advice);
    plan_gpus_json(root, &report->gpus);
    json_measured(root, report);
    output_json(root);
}

/* Times a few steps on the recipe's device. */
static int measure(struct plan_report *report, const struct model_config *config, struct error *err)
{
    const char *given = report->recipe->activation_offload_dir;
    char *root = given[0] != '\0' ? xstrdup(given) : run_root();
    bool ssd = strcmp(report->recipe->activation_offload, "ssd") == 0;
    int result = ssd && given[0] == '\0' ? file_make_directories(root, err) : 0;
    struct backend *be = result == 0 ? device_open(report->recipe, NULL, err) : NULL;
    result = be != NULL ? plan_measure(report->recipe, config, &report->plan, be, root,
                                       &report->times, err)
                        : -1;
    if (be != NULL) {
        device_close(be);
    }
    report->measured = result == 0;
    free(root);
    return result;
}

static int make_report(struct plan_report *report, const struct arguments *arguments,
                       struct recipe *recipe, struct error *err)
{
    if (recipe_from_words(recipe, arguments->word[0], arguments, err) == -1 ||
        plan_advice_take(&report->advice, recipe, arguments, err) == -1 ||
        plan_gpus_take(&report->gpus, arguments, err) == -1) {
        return -1;
    }
    struct material material;
    if (material_open(recipe, MATERIAL_CONFIG, NULL, &material, err) == -1) {
        return -1;
    }
    report->recipe = recipe;
    report->model = xstrdup(material.model_name);
    int result = material_adapter_settings(recipe, &material, err);
    if (result == 0) {
        result = plan_make_ranks(recipe, &material.config, report->gpus.count, &report->plan, err);
    }
    if (result == 0) {
        device_look(recipe, &report->room);
        struct plan_place *place = &report->advice.place;
        bool elsewhere = report->advice.asked || report->gpus.asked;
        place->limit_bytes = elsewhere && recipe->memory_limit > 0 ? recipe->memory_limit
                                                                   : report->room.usable_bytes;
        place->ranks = report->gpus.count;
        place->link = report->gpus.asked ? &report->gpus.link : NULL;
        result = plan_advice_search(&report->advice, recipe, &material.config, &report->plan, err);
    }
    if (result == 0 && report->gpus.asked) {
        plan_gpus_compare(&report->gpus, recipe, &material.config, &report->plan);
    }
    if (result == 0 && option_given(arguments, "measure")) {
        result = measure(report, &material.config, err);
    }
    material_close(&material);
    return result;
}

int command_plan(const struct arguments *arguments)
{
    struct error err = { 0 };
    struct recipe recipe;
    struct plan_report *report = xcalloc(1, sizeof *report);
    int code;
    recipe_init(&recipe);
    if (make_report(report, arguments, &recipe, &err) == -1) {
        code = output_error(&err);
    } else {
        if (arguments->json) {
            json_report(report);
        } else {
            print_report(report);
        }
        code = report->advice.fits ? 0 : ERROR_FIT;
    }
    free(report->model);
    free(report);
    recipe_free(&recipe);
    return code;
}
