/* The launcher's part of the reducer: cursors, and which plan and preview to ask for next. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/workbench.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"

void launcher_close(struct launcher *launcher)
{
    for (int i = 0; i < LAUNCHER_LISTS; i++) {
        for (int k = 0; k < launcher->list[i].count; k++) {
            free(launcher->list[i].item[k].name);
            free(launcher->list[i].item[k].note);
            free(launcher->list[i].item[k].about);
        }
        free(launcher->list[i].item);
    }
    form_facts_free(&launcher->form.facts);
    free(launcher->preview);
    free(launcher->plan);
    free(launcher->run);
}

static struct launcher_plan *find_plan(const struct launcher *launcher,
                                       const int choice[LAUNCHER_LISTS])
{
    for (size_t i = 0; i < launcher->plan_count; i++) {
        if (memcmp(launcher->plan[i].choice, choice, sizeof(launcher->plan[i].choice)) == 0) {
            return &launcher->plan[i];
        }
    }
    return NULL;
}

const struct launcher_plan *launcher_plan_of(const struct launcher *launcher,
                                             const int choice[LAUNCHER_LISTS])
{
    return find_plan(launcher, choice);
}

const struct launcher_preview *launcher_preview_now(const struct launcher *launcher)
{
    const struct launcher_preview *preview = launcher->preview;
    bool same = preview && preview->choice[LAUNCHER_MODEL] == launcher->cursor[LAUNCHER_MODEL] &&
                preview->choice[LAUNCHER_DATA] == launcher->cursor[LAUNCHER_DATA];
    return same ? preview : NULL;
}

void launcher_forget_plans(struct workbench *workbench)
{
    workbench->launcher.plan_count = 0;
    workbench->launcher.plan_outdated = workbench->launcher.planning;
    workbench->launcher.preview_outdated = workbench->launcher.previewing;
    free(workbench->launcher.preview);
    workbench->launcher.preview = NULL;
    workbench->dirty = true;
    launcher_want(workbench);
}

static bool complete(const struct launcher *launcher)
{
    for (int i = 0; i < LAUNCHER_LISTS; i++) {
        if (launcher->list[i].count == 0) {
            return false;
        }
    }
    return true;
}

static void ask_plan(struct workbench *workbench, const int choice[LAUNCHER_LISTS], bool detailed)
{
    struct effect *effect = workbench_push(workbench, EFFECT_PLAN);
    memcpy(effect->choice, choice, sizeof(effect->choice));
    effect->id = detailed;
    effect->ranks = workbench->launcher.ranks;
    workbench->launcher.planning = true;
}

static void want_plan(struct workbench *workbench)
{
    struct launcher *launcher = &workbench->launcher;
    /* First what the cursor is on, then the other presets for the same model and data, so that the
     * list can show what each of them takes; those that bring their own are left alone. */
    const struct launcher_list *methods = &launcher->list[LAUNCHER_METHOD];
    int choice[LAUNCHER_LISTS];
    memcpy(choice, launcher->cursor, sizeof(choice));
    const struct launcher_plan *plan = launcher_plan_of(launcher, choice);
    if (plan && !plan->ok && plan->total_bytes > 0 && !plan->detailed) {
        ask_plan(workbench, choice, true);
        return;
    }
    for (int i = -1; i < methods->count; i++) {
        choice[LAUNCHER_METHOD] = i < 0 ? launcher->cursor[LAUNCHER_METHOD] : i;
        if (i >= 0 && methods->item[i].model >= 0) {
            continue;
        }
        if (!launcher_plan_of(launcher, choice)) {
            ask_plan(workbench, choice, false);
            return;
        }
    }
}

void launcher_want(struct workbench *workbench)
{
    struct launcher *launcher = &workbench->launcher;
    if (!complete(launcher)) {
        return;
    }
    if (!launcher->planning) {
        want_plan(workbench);
    }
    if (!launcher->previewing && !launcher_preview_now(launcher)) {
        struct effect *effect = workbench_push(workbench, EFFECT_PREVIEW);
        memcpy(effect->choice, launcher->cursor, sizeof(effect->choice));
        launcher->previewing = true;
    }
}

void launcher_planned(struct workbench *workbench, const struct launcher_plan *plan)
{
    struct launcher *launcher = &workbench->launcher;
    struct launcher_plan *known = find_plan(launcher, plan->choice);
    launcher->planning = false;
    launcher->gpus = plan->total_bytes > 0 ? plan->gpus : launcher->gpus;
    if (launcher->plan_outdated) {
        /* It was made for settings that are no longer those. */
        launcher->plan_outdated = false;
        launcher_want(workbench);
        return;
    }
    if (known) {
        *known = *plan;
    } else {
        if (launcher->plan_count == launcher->plan_capacity) {
            launcher->plan_capacity = launcher->plan_capacity * 2 + 16;
            launcher->plan =
                xrealloc(launcher->plan, launcher->plan_capacity * sizeof(launcher->plan[0]));
        }
        launcher->plan[launcher->plan_count++] = *plan;
    }
    launcher_want(workbench);
}

void launcher_previewed(struct workbench *workbench, struct launcher_preview *preview)
{
    struct launcher *launcher = &workbench->launcher;
    free(launcher->preview_outdated ? preview : launcher->preview);
    launcher->preview = launcher->preview_outdated ? NULL : preview;
    launcher->preview_outdated = false;
    launcher->previewing = false;
    launcher_want(workbench);
}

/* ---- keys -------------------------------------------------------------------------------------
 */

/* A preset that names a model and data takes the other cursors along. */
static void follow_preset(struct launcher *launcher)
{
    const struct launcher_list *list = &launcher->list[LAUNCHER_METHOD];
    const struct launcher_item *item = &list->item[launcher->cursor[LAUNCHER_METHOD]];
    if (item->model >= 0 && item->model < launcher->list[LAUNCHER_MODEL].count) {
        launcher->cursor[LAUNCHER_MODEL] = item->model;
    }
    if (item->data >= 0 && item->data < launcher->list[LAUNCHER_DATA].count) {
        launcher->cursor[LAUNCHER_DATA] = item->data;
    }
}

static void move(struct launcher *launcher, int by)
{
    bool runs = launcher->pane == LAUNCHER_LISTS;
    int *cursor = runs ? &launcher->run_cursor : &launcher->cursor[launcher->pane];
    int count = runs ? launcher->run_count : launcher->list[launcher->pane].count;
    int to = *cursor + by;
    *cursor = to < 0 || count == 0 ? 0 : to >= count ? count - 1 : to;
    if (launcher->pane == LAUNCHER_METHOD && count > 0) {
        follow_preset(launcher);
    }
}

void launcher_point(struct workbench *workbench, int pane, int index)
{
    struct launcher *launcher = &workbench->launcher;
    launcher->pane = pane;
    if (index >= 0) {
        int now = pane == LAUNCHER_LISTS ? launcher->run_cursor : launcher->cursor[pane];
        move(launcher, index - now);
    }
    launcher_want(workbench);
}

/* The run of the cursor, if the runs have the keys; else says how to get there. */
static const struct launcher_run *chosen_run(struct workbench *workbench, const char *what)
{
    const struct launcher *launcher = &workbench->launcher;
    if (launcher->pane == LAUNCHER_LISTS && launcher->run_count > 0) {
        return &launcher->run[launcher->run_cursor];
    }
    workbench_say(workbench, STYLE_WARN, "%s: first choose a run in the lowest pane (Tab)", what);
    return NULL;
}

static void push_run(struct workbench *workbench, enum effect_kind kind,
                     const struct launcher_run *run)
{
    struct effect *effect = workbench_push(workbench, kind);
    effect->ranks = run->ranks;
    snprintf(effect->text, sizeof(effect->text), "%s", run->path);
}

static bool is_running(const struct launcher_run *run)
{
    return strcmp(run->status, "running") == 0 || strcmp(run->status, "paused") == 0;
}

static void resume(struct workbench *workbench)
{
    const struct launcher *launcher = &workbench->launcher;
    const struct launcher_run *run = chosen_run(workbench, "resume");
    if (!run) {
        return;
    }
    if (is_running(run)) {
        workbench_say(workbench, STYLE_WARN, "%s is running; Enter shows it", run->name);
    } else if (run->total_steps > 0 && run->step >= run->total_steps) {
        workbench_say(workbench, STYLE_WARN,
                      "all its steps are done; windrow train --resume %.60s train.steps=N goes on",
                      run->name);
    } else if (run->ranks > 1 && launcher->gpus > 0 && run->ranks > launcher->gpus) {
        workbench_say(workbench, STYLE_WARN,
                      "it was trained by %d ranks, here are %d GPUs: windrow train --resume %.60s "
                      "--gpus %d",
                      run->ranks, launcher->gpus, run->name, launcher->gpus);
    } else {
        push_run(workbench, EFFECT_RESUME, run);
        if (run->ranks > 1) {
            workbench_say(workbench, STYLE_STRONG, "resuming %d ranks ...", run->ranks);
        } else {
            workbench_say(workbench, STYLE_STRONG, "resuming ...");
        }
    }
}

static void remove_run(struct workbench *workbench)
{
    const struct launcher_run *run = chosen_run(workbench, "remove");
    if (run && is_running(run)) {
        workbench_say(workbench, STYLE_WARN, "%s is running: open it and stop it first", run->name);
    } else if (run) {
        workbench->overlay = OVERLAY_REMOVE;
    }
}

void launcher_remove_key(struct workbench *workbench, uint32_t key)
{
    workbench->overlay = OVERLAY_NONE;
    if (key == 'y') {
        const struct launcher_run *run = chosen_run(workbench, "remove");
        if (run && !is_running(run)) {
            push_run(workbench, EFFECT_PRUNE, run);
        }
    }
}

static void start(struct workbench *workbench)
{
    struct launcher *launcher = &workbench->launcher;
    if (launcher->pane == LAUNCHER_LISTS) {
        if (launcher->run_count > 0) {
            push_run(workbench, EFFECT_OPEN, &launcher->run[launcher->run_cursor]);
        }
        return;
    }
    if (launcher->starting) {
        return;
    }
    const struct launcher_plan *plan = launcher_plan_of(launcher, launcher->cursor);
    if (plan && !plan->ok) {
        workbench_say(workbench, STYLE_BAD, "not started: %s", plan->message);
        return;
    }
    struct effect *effect = workbench_push(workbench, EFFECT_START);
    memcpy(effect->choice, launcher->cursor, sizeof(effect->choice));
    effect->ranks = launcher->ranks;
    launcher->starting = true;
    if (launcher->ranks > 1) {
        workbench_say(workbench, STYLE_STRONG, "starting %d ranks ...", launcher->ranks);
    } else {
        workbench_say(workbench, STYLE_STRONG, "starting ...");
    }
}

/* The cheapest change that fits. */
static void make_fit(struct workbench *workbench)
{
    struct launcher *launcher = &workbench->launcher;
    const struct launcher_plan *plan = launcher_plan_of(launcher, launcher->cursor);
    if (!plan || plan->total_bytes <= 0) {
        workbench_say(workbench, STYLE_WARN, "there is no plan yet");
    } else if (plan->ok) {
        workbench_say(workbench, STYLE_TEXT, "it fits as it is");
    } else if (plan->change_count == 0) {
        workbench_say(workbench, STYLE_WARN, "%s",
                      plan->detailed ? "no single change makes it fit: try a smaller model"
                                     : "still looking for a change that fits ...");
    } else {
        struct effect *effect = workbench_push(workbench, EFFECT_OVERRIDE);
        snprintf(effect->text, sizeof(effect->text), "%s", plan->change[0].words);
        memcpy(effect->choice, launcher->cursor, sizeof(effect->choice));
        effect->id = 1;
        workbench_say(workbench, STYLE_STRONG, "set %s", plan->change[0].words);
    }
}

static void ask_ranks(struct workbench *workbench)
{
    char now[16];
    snprintf(now, sizeof(now), "%d", workbench->launcher.ranks > 1 ? workbench->launcher.ranks : 1);
    workbench_ask(workbench, FIELD_FOR_RANKS, now);
}

void launcher_typed_ranks(struct workbench *workbench, const char *text)
{
    struct launcher *launcher = &workbench->launcher;
    int64_t count = 0;
    if (!text_to_integer(text, &count) || count < 1 || count > LAUNCHER_RANKS_MAX) {
        workbench_say(workbench, STYLE_BAD, "GPUs: found \"%.40s\", allowed are 1 to %d", text,
                      LAUNCHER_RANKS_MAX);
        return;
    }
    launcher->ranks = (int)count;
    if (launcher->gpus > 0 && count > launcher->gpus) {
        workbench_say(workbench, STYLE_WARN,
                      "this machine has %d GPU%s: so many ranks start only with device=cpu",
                      launcher->gpus, launcher->gpus == 1 ? "" : "s");
    }
    launcher_forget_plans(workbench);
    if (launcher->form.open) {
        launcher_ask_form(workbench);
    }
}

void launcher_ask_form(struct workbench *workbench)
{
    struct effect *effect = workbench_push(workbench, EFFECT_FORM);
    memcpy(effect->choice, workbench->launcher.cursor, sizeof(effect->choice));
    effect->ranks = workbench->launcher.ranks;
}

static void pane_key(struct launcher *launcher, enum action action)
{
    int panes = LAUNCHER_LISTS + 1;
    switch (action) {
    case ACTION_NEXT_PANE:
    case ACTION_RIGHT:
        launcher->pane = (launcher->pane + 1) % panes;
        break;
    case ACTION_PREVIOUS_PANE:
    case ACTION_LEFT:
        launcher->pane = (launcher->pane + panes - 1) % panes;
        break;
    case ACTION_UP:
        move(launcher, -1);
        break;
    case ACTION_DOWN:
        move(launcher, 1);
        break;
    case ACTION_PAGE_UP:
        move(launcher, -10);
        break;
    case ACTION_PAGE_DOWN:
        move(launcher, 10);
        break;
    case ACTION_FIRST:
        move(launcher, -100000);
        break;
    case ACTION_LAST:
        move(launcher, 100000);
        break;
    default:
        break;
    }
}

void launcher_key(struct workbench *workbench, enum action action)
{
    struct launcher *launcher = &workbench->launcher;
    switch (action) {
    case ACTION_LEAVE:
    case ACTION_INTERRUPT:
        workbench_push(workbench, EFFECT_QUIT);
        break;
    case ACTION_ENTER:
        start(workbench);
        break;
    case ACTION_FIT:
        make_fit(workbench);
        break;
    case ACTION_FORM:
        launcher->form.open = true;
        launcher->form.error[0] = '\0';
        launcher_ask_form(workbench);
        break;
    case ACTION_RANKS:
        ask_ranks(workbench);
        break;
    case ACTION_RESUME:
        resume(workbench);
        break;
    case ACTION_REMOVE:
        remove_run(workbench);
        break;
    default:
        pane_key(launcher, action);
        break;
    }
    launcher_want(workbench);
}
