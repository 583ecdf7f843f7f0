/* What the loop does for the workbench: runs, the launcher, and every effect. */
#include "app/loop_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"
#include "engine/run.h"

static const char first_recipe[] = "stories";
enum { RUNS_SHOWN = 200 };

void loop_notice(struct loop *loop, bool bad, const struct error *err)
{
    char text[1600];
    snprintf(text, sizeof(text), "%s%s%s", err->message, err->hint[0] ? " - " : "", err->hint);
    struct workbench_event event = { .kind = WORKBENCH_NOTICE, .notice = { text, bad } };
    workbench_event(&loop->workbench, &event);
}

/* ---- the run ------------------------------------------------------------------------------------
 */

static void on_event(void *context, const struct event *record)
{
    struct loop *loop = context;
    struct workbench_event event = { .kind = WORKBENCH_RECORD, .record = record };
    workbench_event(&loop->workbench, &event);
}

static void on_reply(void *context, const struct control_reply *reply)
{
    struct loop *loop = context;
    struct workbench_event event = { .kind = WORKBENCH_REPLY, .reply = reply };
    workbench_event(&loop->workbench, &event);
}

static void on_reset(void *context)
{
    struct loop *loop = context;
    char name[sizeof(loop->workbench.run_name)];
    snprintf(name, sizeof(name), "%s", loop->workbench.run_name);
    enum screen screen = loop->workbench.screen;
    workbench_show_run(&loop->workbench, name, CONNECTION_LOADING);
    loop->workbench.screen = screen;
}

void loop_open_run(struct loop *loop, const char *directory, bool starting)
{
    struct client_handler handler = { on_event, on_reply, on_reset, loop };
    char *shown = xstrdup(directory);
    free(loop->directory);
    loop->directory = shown;
    client_close(loop->client);
    loop->client = client_open(shown, &handler);
    loop->client_state = starting ? CLIENT_WAITING : CLIENT_READING;
    workbench_show_run(&loop->workbench, path_base(shown),
                       starting ? CONNECTION_STARTING : CONNECTION_LOADING);
    loop->next_tick = 0;
}

/* Reads what the run says and tells the workbench how it is connected. */
void loop_pump_run(struct loop *loop)
{
    static const enum connection connections[] = {
        [CLIENT_WAITING] = CONNECTION_STARTING, [CLIENT_READING] = CONNECTION_LOADING,
        [CLIENT_LIVE] = CONNECTION_LIVE,        [CLIENT_POLLING] = CONNECTION_FOLLOW,
        [CLIENT_ENDED] = CONNECTION_NONE,
    };
    if (!loop->client) {
        return;
    }
    loop->client_state = client_pump(loop->client);
    if (loop->client_state != CLIENT_WAITING) {
        starter_settle(&loop->starter);
    }
    enum connection now = connections[loop->client_state];
    if (now != loop->workbench.connection || loop->client_state == CLIENT_ENDED) {
        struct workbench_event event = { .kind = WORKBENCH_CONNECTION,
                                         .link = { now, client_status(loop->client) } };
        if (now != loop->workbench.connection) {
            workbench_event(&loop->workbench, &event);
        }
    }
}

/* ---- the launcher -------------------------------------------------------------------------------
 */

static void show_run(struct launcher_run *to, const struct run_summary *from)
{
    snprintf(to->name, sizeof(to->name), "%s", from->name);
    snprintf(to->path, sizeof(to->path), "%s", from->path);
    snprintf(to->status, sizeof(to->status), "%s", run_status_names[from->status]);
    snprintf(to->what, sizeof(to->what), "%.24s, %.24s, %.24s", from->method ? from->method : "?",
             from->model ? from->model : "?", from->data ? path_base(from->data) : "?");
    to->step = from->step;
    to->total_steps = from->total_steps;
    to->loss = (double)from->loss;
    to->tokens_per_second = from->tokens_per_second;
    to->peak_bytes = from->peak_bytes;
}

void loop_show_runs(struct loop *loop, struct run_list *list)
{
    int count = list->count > RUNS_SHOWN ? RUNS_SHOWN : (int)list->count;
    struct launcher_run *item = xcalloc((size_t)count + 1, sizeof(item[0]));
    for (int i = 0; i < count; i++) {
        show_run(&item[i], &list->item[i]);
    }
    run_list_free(list);
    const struct launcher *launcher = &loop->workbench.launcher;
    bool same = count == launcher->run_count && launcher->run &&
                memcmp(item, launcher->run, (size_t)count * sizeof(item[0])) == 0;
    if (same && loop->workbench.mode == MODE_LAUNCHER) {
        free(item);
        return;
    }
    struct workbench_event event = { .kind = WORKBENCH_RUNS, .runs = { item, count } };
    workbench_event(&loop->workbench, &event);
}

void loop_scan_runs(struct loop *loop)
{
    struct run_list list = { 0 };
    struct error err = { 0 };
    if (run_list_read(&list, &err) == 0) {
        loop_show_runs(loop, &list);
    }
}

static int open_catalog(struct loop *loop, struct error *err)
{
    if (loop->catalog_open) {
        return 0;
    }
    if (catalog_open(&loop->catalog, first_recipe, err) != 0) {
        return -1;
    }
    loop->catalog_open = true;
    loop->planner = planner_open();
    catalog_show(&loop->catalog, &loop->workbench.launcher);
    loop->workbench.launcher.cursor[LAUNCHER_METHOD] = loop->catalog.first_method;
    return 0;
}

void loop_go_home(struct loop *loop)
{
    struct error err = { 0 };
    client_close(loop->client);
    loop->client = NULL;
    starter_free(&loop->starter);
    loop->workbench.mode = MODE_LAUNCHER;
    loop->workbench.overlay = OVERLAY_NONE;
    loop->workbench.message[0] = '\0';
    loop->workbench.dirty = true;
    if (open_catalog(loop, &err) != 0) {
        loop_notice(loop, true, &err);
    }
    loop_scan_runs(loop);
    launcher_want(&loop->workbench);
    loop->next_tick = 0;
}

static void refuse_plan(struct loop *loop, const struct error *err)
{
    struct launcher_plan plan;
    planner_refusal(err, loop->plan_choice, &plan);
    struct workbench_event event = { .kind = WORKBENCH_PLANNED, .plan = &plan };
    workbench_event(&loop->workbench, &event);
}

void loop_ask_plan(struct loop *loop)
{
    struct error err = { 0 };
    struct recipe recipe;
    recipe_init(&recipe);
    loop->plan_due = false;
    if (catalog_recipe(&loop->catalog, loop->plan_choice, &recipe, &err) != 0) {
        refuse_plan(loop, &err);
    } else {
        planner_ask(loop->planner, &recipe, loop->plan_choice);
    }
    recipe_free(&recipe);
}

void loop_take_plan(struct loop *loop)
{
    struct launcher_plan plan;
    if (planner_take(loop->planner, &plan)) {
        struct workbench_event event = { .kind = WORKBENCH_PLANNED, .plan = &plan };
        workbench_event(&loop->workbench, &event);
    }
}

static void start_run(struct loop *loop, const int choice[LAUNCHER_LISTS])
{
    struct error err = { 0 };
    struct recipe recipe;
    recipe_init(&recipe);
    starter_free(&loop->starter);
    if (catalog_recipe(&loop->catalog, choice, &recipe, &err) != 0 ||
        starter_start(&loop->starter, &recipe, NULL, &err) != 0) {
        loop_notice(loop, true, &err);
    } else {
        loop_open_run(loop, loop->starter.directory, true);
    }
    recipe_free(&recipe);
}

/* ---- effects ------------------------------------------------------------------------------------
 */

static void add_or_override(struct loop *loop, const struct effect *effect)
{
    struct error err = { 0 };
    struct launcher *launcher = &loop->workbench.launcher;
    if (effect->kind == EFFECT_OVERRIDE) {
        if (catalog_override(&loop->catalog, effect->text, &err) != 0) {
            loop_notice(loop, true, &err);
            return;
        }
    } else {
        int list = effect->choice[0] < LAUNCHER_LISTS ? effect->choice[0] : LAUNCHER_DATA;
        int index = catalog_add(&loop->catalog, list, effect->text, &err);
        if (index < 0) {
            loop_notice(loop, true, &err);
            return;
        }
        launcher->cursor[list] = index;
    }
    catalog_show(&loop->catalog, launcher);
    launcher_forget_plans(&loop->workbench);
}

static void send_command(struct loop *loop, const struct effect *effect)
{
    struct error err = { 0 };
    if (!loop->client || client_send(loop->client, effect->id, effect->command, effect->key,
                                     effect->value, &err) != 0) {
        loop_notice(loop, true, &err);
    }
}

/* From a run to another one the screen stays the same. */
static void switch_run(struct loop *loop, const char *directory)
{
    bool from_run = loop->workbench.mode == MODE_RUN;
    enum screen screen = loop->workbench.screen;
    starter_free(&loop->starter);
    loop_open_run(loop, directory, false);
    if (from_run) {
        loop->workbench.screen = screen;
    }
}

void loop_do_effect(struct loop *loop, const struct effect *effect)
{
    switch (effect->kind) {
    case EFFECT_QUIT:
        loop->leaving = true;
        break;
    case EFFECT_SEND:
        send_command(loop, effect);
        break;
    case EFFECT_START:
        start_run(loop, effect->choice);
        break;
    case EFFECT_OPEN:
        switch_run(loop, effect->text);
        break;
    case EFFECT_LIST_RUNS:
        loop_read_runs(loop, NULL);
        break;
    case EFFECT_READ_RUN:
        loop_read_runs(loop, effect->text);
        break;
    case EFFECT_FORK:
        loop_fork(loop, effect->text);
        break;
    case EFFECT_PRUNE:
        loop_prune(loop, effect->text);
        break;
    case EFFECT_PLAN:
        /* A moment of rest first: a key held down passes many combinations. */
        memcpy(loop->plan_choice, effect->choice, sizeof(loop->plan_choice));
        loop->plan_due = true;
        loop->plan_time = clock_monotonic() + 0.05;
        break;
    case EFFECT_ADD:
    case EFFECT_OVERRIDE:
        add_or_override(loop, effect);
        break;
    case EFFECT_HOME:
        loop_go_home(loop);
        break;
    case EFFECT_REPAINT:
        term_repaint(loop->terminal);
        break;
    case EFFECT_SUSPEND:
        term_suspend(loop->terminal);
        loop->workbench.dirty = true;
        break;
    case EFFECT_NONE:
        break;
    }
}
