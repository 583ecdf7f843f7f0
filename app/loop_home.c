/* What the loop does for the launcher: its lists, plans, previews, settings and runs. */
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
    to->ranks = from->ranks > 1 && from->ranks <= LAUNCHER_RANKS_MAX ? (int)from->ranks : 1;
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
    struct launcher *launcher = &loop->workbench.launcher;
    if (loop->catalog_open) {
        return 0;
    }
    const char *wanted = loop->settings.recipe[0] ? loop->settings.recipe : first_recipe;
    if (catalog_open(&loop->catalog, wanted, err) != 0) {
        struct error other = { 0 };
        if (wanted == first_recipe || catalog_open(&loop->catalog, first_recipe, &other) != 0) {
            return -1;
        }
        loop_notice(loop, true, err); /* of the configuration: go on with the default */
    }
    loop->catalog_open = true;
    loop->planner = planner_open();
    loop->previewer = previewer_open();
    catalog_show(&loop->catalog, launcher);
    launcher->cursor[LAUNCHER_METHOD] = loop->catalog.first_method;
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

/* ---- plans and previews -------------------------------------------------------------------------
 */

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
        planner_ask(loop->planner, &recipe, loop->plan_choice, loop->plan_ranks,
                    loop->plan_detailed);
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

static void show_preview(struct loop *loop, struct launcher_preview *preview)
{
    struct workbench_event event = { .kind = WORKBENCH_PREVIEWED, .preview = preview };
    workbench_event(&loop->workbench, &event);
}

static void ask_preview(struct loop *loop, const int choice[LAUNCHER_LISTS])
{
    struct error err = { 0 };
    struct recipe recipe;
    recipe_init(&recipe);
    /* The data can be looked at whatever else is wrong with the combination. */
    if (catalog_recipe(&loop->catalog, choice, &recipe, &err) != 0 && !recipe.data_train[0]) {
        struct launcher_preview *refusal = xcalloc(1, sizeof(*refusal));
        memcpy(refusal->choice, choice, sizeof(refusal->choice));
        preview_refuse(&err, refusal);
        show_preview(loop, refusal);
    } else {
        previewer_ask(loop->previewer, &recipe, choice);
    }
    recipe_free(&recipe);
}

void loop_take_preview(struct loop *loop)
{
    struct launcher_preview *preview = previewer_take(loop->previewer);
    if (preview) {
        show_preview(loop, preview);
    }
}

/* ---- the choice ---------------------------------------------------------------------------------
 */

static void show_form(struct loop *loop, const int choice[LAUNCHER_LISTS])
{
    struct form_facts facts;
    int ranks = loop->workbench.launcher.ranks;
    catalog_form(&loop->catalog, choice, &facts);
    if (ranks > 1) {
        char *whole = xasprintf("%s --gpus %d", facts.command, ranks);
        free(facts.command);
        facts.command = whole;
    }
    struct workbench_event event = { .kind = WORKBENCH_FORM, .form = &facts };
    workbench_event(&loop->workbench, &event);
}

/* The lists or what was typed have changed. */
static void show_catalog(struct loop *loop)
{
    struct launcher *launcher = &loop->workbench.launcher;
    catalog_show(&loop->catalog, launcher);
    launcher_forget_plans(&loop->workbench);
    if (launcher->form.open) {
        show_form(loop, launcher->cursor);
    }
}

static void add_path(struct loop *loop, const struct effect *effect)
{
    struct error err = { 0 };
    int list = effect->choice[0] < LAUNCHER_LISTS ? effect->choice[0] : LAUNCHER_DATA;
    int index = catalog_add(&loop->catalog, list, effect->text, &err);
    if (index < 0) {
        loop_notice(loop, true, &err);
        return;
    }
    loop->workbench.launcher.cursor[list] = index;
    show_catalog(loop);
}

static void override(struct loop *loop, const struct effect *effect)
{
    struct error err = { 0 };
    int result = effect->id == 1 ? catalog_override_all(&loop->catalog, effect->text, &err)
                                 : catalog_override(&loop->catalog, effect->text, &err);
    if (result != 0) {
        loop_notice(loop, true, &err);
    }
    show_catalog(loop);
}

static void save_preset(struct loop *loop, const struct effect *effect)
{
    struct error err = { 0 };
    int place = catalog_save(&loop->catalog, effect->choice, effect->text, &err);
    if (place < 0) {
        loop_notice(loop, true, &err);
        return;
    }
    struct launcher *launcher = &loop->workbench.launcher;
    const struct catalog_entry *entry = &loop->catalog.list[LAUNCHER_METHOD].entry[place];
    launcher->cursor[LAUNCHER_METHOD] = place;
    launcher->cursor[LAUNCHER_MODEL] = entry->model >= 0 ? entry->model : 0;
    launcher->cursor[LAUNCHER_DATA] = entry->data >= 0 ? entry->data : 0;
    show_catalog(loop);
    workbench_say(&loop->workbench, STYLE_GOOD, "saved as %.180s", entry->preset);
}

/* ---- runs ---------------------------------------------------------------------------------------
 */

static void start_run(struct loop *loop, const int choice[LAUNCHER_LISTS], int ranks)
{
    struct error err = { 0 };
    struct recipe recipe;
    recipe_init(&recipe);
    starter_free(&loop->starter);
    if (catalog_recipe(&loop->catalog, choice, &recipe, &err) != 0 ||
        starter_start(&loop->starter, &recipe, NULL, ranks, &err) != 0) {
        loop_notice(loop, true, &err);
    } else {
        loop_open_run(loop, loop->starter.directory, true);
    }
    recipe_free(&recipe);
}

/* The run goes on in a process of its own; until it says so, its recording is shown. */
static void resume_run(struct loop *loop, const char *path, int ranks)
{
    struct error err = { 0 };
    starter_free(&loop->starter);
    if (starter_resume(&loop->starter, path, ranks, &err) != 0) {
        loop_notice(loop, true, &err);
        return;
    }
    loop_open_run(loop, path, true);
    client_expect_resume(loop->client);
}

void loop_do_home(struct loop *loop, const struct effect *effect)
{
    if (!loop->catalog_open && effect->kind != EFFECT_RESUME) {
        struct error err = { 0 };
        fail(&err, ERROR_USAGE, "the presets were not found, so there is nothing to choose from");
        hint(&err, "WINDROW_PRESETS names their folder");
        loop_notice(loop, true, &err);
        return;
    }
    switch (effect->kind) {
    case EFFECT_START:
        start_run(loop, effect->choice, effect->ranks);
        break;
    case EFFECT_PLAN:
        /* A moment of rest first: a key held down passes many combinations. */
        memcpy(loop->plan_choice, effect->choice, sizeof(loop->plan_choice));
        loop->plan_detailed = effect->id == 1;
        loop->plan_ranks = effect->ranks > 1 ? effect->ranks : 1;
        loop->plan_due = true;
        loop->plan_time = clock_monotonic() + 0.05;
        break;
    case EFFECT_PREVIEW:
        ask_preview(loop, effect->choice);
        break;
    case EFFECT_FORM:
        show_form(loop, effect->choice);
        break;
    case EFFECT_ADD:
        add_path(loop, effect);
        break;
    case EFFECT_OVERRIDE:
        override(loop, effect);
        break;
    case EFFECT_RESET:
        catalog_reset(&loop->catalog, effect->text);
        show_catalog(loop);
        break;
    case EFFECT_PRESET:
        save_preset(loop, effect);
        break;
    case EFFECT_RESUME:
        resume_run(loop, effect->text, effect->ranks);
        break;
    default:
        break;
    }
}
