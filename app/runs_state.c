/* The list of runs over a screen: choosing, switching, forking, removing. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "app/workbench.h"
#include "engine/base/file.h"

static bool is_running(const struct launcher_run *run)
{
    return strcmp(run->status, "running") == 0 || strcmp(run->status, "paused") == 0;
}

/* Index of the shown run in the list; -1: it is not there. */
static int shown_run(const struct workbench *workbench)
{
    for (int i = 0; i < workbench->launcher.run_count; i++) {
        if (strcmp(workbench->launcher.run[i].name, workbench->run_name) == 0) {
            return i;
        }
    }
    return -1;
}

void runs_open_list(struct workbench *workbench, enum runs_use use)
{
    int shown = shown_run(workbench);
    workbench->overlay = OVERLAY_RUNS;
    workbench->runs.use = use;
    workbench->runs.cursor = shown < 0 ? 0 : shown;
    workbench_push(workbench, EFFECT_LIST_RUNS);
}

static void open_run(struct workbench *workbench, const struct launcher_run *run)
{
    struct effect *effect = workbench_push(workbench, EFFECT_OPEN);
    snprintf(effect->text, sizeof(effect->text), "%s", run->path);
}

static void take(struct workbench *workbench, const struct launcher_run *run)
{
    workbench->overlay = OVERLAY_NONE;
    if (workbench->runs.use == RUNS_FOR_OPEN && run) {
        open_run(workbench, run);
    }
}

static void mark(struct workbench *workbench, const struct launcher_run *run)
{
    if (strcmp(run->name, workbench->run_name) == 0) {
        workbench_say(workbench, STYLE_TEXT, "this run is always there");
    } else {
        compare_toggle(workbench, run->path);
    }
}

static void ask_prune(struct workbench *workbench, const struct launcher_run *run)
{
    if (is_running(run) || strcmp(run->name, workbench->run_name) == 0) {
        workbench_say(workbench, STYLE_WARN, "%s is %s: it stays", run->name,
                      is_running(run) ? "running" : "the one that is shown");
        return;
    }
    runs_prune(workbench, run->path);
}

void runs_prune(struct workbench *workbench, const char *path)
{
    snprintf(workbench->runs.prune, sizeof(workbench->runs.prune), "%s", path);
    workbench_ask(workbench, FIELD_FOR_PRUNE, "");
}

void runs_key(struct workbench *workbench, enum action action)
{
    struct launcher *launcher = &workbench->launcher;
    int *cursor = &workbench->runs.cursor;
    int page = workbench->height > 8 ? workbench->height - 8 : 1;
    const struct launcher_run *run = *cursor < launcher->run_count ? &launcher->run[*cursor] : NULL;
    switch (action) {
    case ACTION_UP:
    case ACTION_PAGE_UP:
        *cursor -= action == ACTION_UP ? 1 : page;
        break;
    case ACTION_DOWN:
    case ACTION_PAGE_DOWN:
        *cursor += action == ACTION_DOWN ? 1 : page;
        break;
    case ACTION_FIRST:
        *cursor = 0;
        break;
    case ACTION_LAST:
        *cursor = launcher->run_count;
        break;
    case ACTION_ENTER:
        take(workbench, run);
        return;
    case ACTION_MARK:
        if (run) {
            mark(workbench, run);
        }
        return;
    case ACTION_PRUNE:
        if (run) {
            ask_prune(workbench, run);
        }
        return;
    case ACTION_BACK:
    case ACTION_INTERRUPT:
        workbench->overlay = OVERLAY_NONE;
        return;
    default:
        return;
    }
    *cursor = *cursor >= launcher->run_count ? launcher->run_count - 1 : *cursor;
    *cursor = *cursor < 0 ? 0 : *cursor;
}

/* ---- switching ---------------------------------------------------------------------------------
 */

static void switch_now(struct workbench *workbench, int by)
{
    const struct launcher *launcher = &workbench->launcher;
    int count = launcher->run_count;
    int at = shown_run(workbench);
    workbench->runs.wanted_steps = 0;
    /* The newest comes first: the next one is the next older. */
    for (int k = 1; k < count + (at < 0); k++) {
        int index = ((at < 0 && by < 0 ? count : at) + by * k) % count;
        index = index < 0 ? index + count : index;
        if (is_running(&launcher->run[index]) && index != at) {
            open_run(workbench, &launcher->run[index]);
            return;
        }
    }
    workbench_say(workbench, STYLE_TEXT, "no other run is running; R lists all of them");
}

void runs_switch(struct workbench *workbench, int by)
{
    workbench->runs.wanted_steps = by;
    workbench_push(workbench, EFFECT_LIST_RUNS);
}

void runs_listed(struct workbench *workbench)
{
    struct runs *runs = &workbench->runs;
    int last = workbench->launcher.run_count - 1;
    if (!runs->known && workbench->overlay == OVERLAY_RUNS) {
        int shown = shown_run(workbench);
        runs->cursor = shown < 0 ? 0 : shown;
    }
    runs->known = true;
    runs->cursor = runs->cursor > last ? (last < 0 ? 0 : last) : runs->cursor;
    if (runs->wanted_steps != 0 && workbench->mode == MODE_RUN) {
        switch_now(workbench, runs->wanted_steps);
    }
}

/* ---- forking and removing ----------------------------------------------------------------------
 */

/* A run that goes on removes its older checkpoints, so only the newest is sure to be there when the
 * words are sent; a recording keeps what it has. */
void runs_fork(struct workbench *workbench, const char *run, const char *settings)
{
    char words[512];
    const struct history *history = &workbench->history;
    bool own = strcmp(path_base(run), workbench->run_name) == 0;
    if (own && history->checkpoint_step < 0) {
        workbench_say(workbench, STYLE_WARN, "there is no checkpoint yet: c saves one%s",
                      workbench_live(workbench) ? "" : " while it runs");
        return;
    }
    if (own && !workbench_live(workbench)) {
        snprintf(words, sizeof(words), "%.80s@%" PRId64 " %.380s", path_base(run),
                 history->checkpoint_step, settings);
    } else {
        snprintf(words, sizeof(words), "%.80s %.380s", path_base(run), settings);
    }
    workbench_ask(workbench, FIELD_FOR_FORK, words);
}

void runs_forked(struct workbench *workbench, const char *words)
{
    struct effect *effect = workbench_push(workbench, EFFECT_FORK);
    snprintf(effect->text, sizeof(effect->text), "%s", words);
    workbench_say(workbench, STYLE_STRONG, "forking ...");
}

void runs_pruned(struct workbench *workbench, const char *typed)
{
    const char *name = path_base(workbench->runs.prune);
    if (strcmp(typed, name) != 0) {
        workbench_say(workbench, STYLE_WARN, "\"%.80s\" is not %.80s: nothing was removed", typed,
                      name);
        return;
    }
    if (compare_has(&workbench->compare, workbench->runs.prune)) {
        compare_toggle(workbench, workbench->runs.prune);
    }
    struct effect *effect = workbench_push(workbench, EFFECT_PRUNE);
    snprintf(effect->text, sizeof(effect->text), "%s", workbench->runs.prune);
    workbench_say(workbench, STYLE_STRONG, "removing %.80s ...", name);
}
