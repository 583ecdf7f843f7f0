/* The launcher's part of the reducer: cursors, and which plan to ask for next. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/workbench.h"
#include "engine/base/xalloc.h"

const struct launcher_plan *launcher_plan_of(const struct launcher *launcher,
                                             const int choice[LAUNCHER_LISTS])
{
    for (size_t i = 0; i < launcher->plan_count; i++) {
        if (memcmp(launcher->plan[i].choice, choice, sizeof(launcher->plan[i].choice)) == 0) {
            return &launcher->plan[i];
        }
    }
    return NULL;
}

void launcher_forget_plans(struct workbench *workbench)
{
    workbench->launcher.plan_count = 0;
    workbench->dirty = true;
    launcher_want(workbench);
}

void launcher_want(struct workbench *workbench)
{
    struct launcher *launcher = &workbench->launcher;
    if (launcher->planning || launcher->list[LAUNCHER_MODEL].count == 0 ||
        launcher->list[LAUNCHER_DATA].count == 0 || launcher->list[LAUNCHER_METHOD].count == 0) {
        return;
    }
    /* First what the cursor is on, then the other presets for the same model and data, so that the
     * list can show what each of them takes. */
    int choice[LAUNCHER_LISTS];
    memcpy(choice, launcher->cursor, sizeof(choice));
    for (int i = -1; i < launcher->list[LAUNCHER_METHOD].count; i++) {
        choice[LAUNCHER_METHOD] = i < 0 ? launcher->cursor[LAUNCHER_METHOD] : i;
        if (!launcher_plan_of(launcher, choice)) {
            struct effect *effect = workbench_push(workbench, EFFECT_PLAN);
            memcpy(effect->choice, choice, sizeof(choice));
            launcher->planning = true;
            return;
        }
    }
}

void launcher_planned(struct workbench *workbench, const struct launcher_plan *plan)
{
    struct launcher *launcher = &workbench->launcher;
    launcher->planning = false;
    if (!launcher_plan_of(launcher, plan->choice)) {
        if (launcher->plan_count == launcher->plan_capacity) {
            launcher->plan_capacity = launcher->plan_capacity * 2 + 16;
            launcher->plan =
                xrealloc(launcher->plan, launcher->plan_capacity * sizeof(launcher->plan[0]));
        }
        launcher->plan[launcher->plan_count++] = *plan;
    }
    launcher_want(workbench);
}

static void move(struct launcher *launcher, int by)
{
    bool runs = launcher->pane == LAUNCHER_LISTS;
    int *cursor = runs ? &launcher->run_cursor : &launcher->cursor[launcher->pane];
    int count = runs ? launcher->run_count : launcher->list[launcher->pane].count;
    int to = *cursor + by;
    *cursor = to < 0 || count == 0 ? 0 : to >= count ? count - 1 : to;
}

static void start(struct workbench *workbench)
{
    struct launcher *launcher = &workbench->launcher;
    if (launcher->pane == LAUNCHER_LISTS) {
        if (launcher->run_count > 0) {
            struct effect *effect = workbench_push(workbench, EFFECT_OPEN);
            snprintf(effect->text, sizeof(effect->text), "%s",
                     launcher->run[launcher->run_cursor].path);
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
    launcher->starting = true;
    workbench_say(workbench, STYLE_STRONG, "starting ...");
}

void launcher_key(struct workbench *workbench, enum action action)
{
    struct launcher *launcher = &workbench->launcher;
    int panes = LAUNCHER_LISTS + 1;
    switch (action) {
    case ACTION_LEAVE:
    case ACTION_INTERRUPT:
        workbench_push(workbench, EFFECT_QUIT);
        break;
    case ACTION_ENTER:
        start(workbench);
        break;
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
    launcher_want(workbench);
}
