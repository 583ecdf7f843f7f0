/* The Compare screen's part of the reducer. */
#include "app/compare_state.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/workbench.h"
#include "engine/base/xalloc.h"

enum { SETTLE_STEPS = 1000 };
static const double reread_seconds = 10;

void compare_show_run(struct compare *compare, const char *name)
{
    comparison_run_free(&compare->own);
    comparison_run_open(&compare->own, "", name);
    compare->cursor = 0;
    compare->hide = 0;
}

void compare_free(struct compare *compare)
{
    comparison_run_free(&compare->own);
    for (int i = 0; i < compare->count; i++) {
        comparison_run_free(&compare->other[i].run);
    }
    memset(compare, 0, sizeof(*compare));
}

static int find(const struct compare *compare, const char *path)
{
    for (int i = 0; i < compare->count; i++) {
        if (strcmp(compare->other[i].path, path) == 0) {
            return i;
        }
    }
    return -1;
}

bool compare_has(const struct compare *compare, const char *path)
{
    return find(compare, path) >= 0;
}

static void ask(struct workbench *workbench, struct compare_other *other)
{
    other->asked = workbench->now;
    struct effect *effect = workbench_push(workbench, EFFECT_READ_RUN);
    snprintf(effect->text, sizeof(effect->text), "%s", other->path);
}

static void remove_other(struct compare *compare, int index)
{
    comparison_run_free(&compare->other[index].run);
    compare->count--;
    memmove(&compare->other[index], &compare->other[index + 1],
            (size_t)(compare->count - index) * sizeof(compare->other[0]));
    /* The bits of the rows after it move down with them. */
    unsigned below = (1u << (index + 1)) - 1;
    compare->hide = (compare->hide & below) | ((compare->hide >> 1) & ~below);
    if (compare->cursor > compare->count) {
        compare->cursor = compare->count;
    }
}

void compare_toggle(struct workbench *workbench, const char *path)
{
    struct compare *compare = &workbench->compare;
    int index = find(compare, path);
    if (index >= 0) {
        remove_other(compare, index);
    } else if (compare->count == COMPARE_OTHERS) {
        workbench_say(workbench, STYLE_WARN, "at most %d others at a time: take one away first",
                      (int)COMPARE_OTHERS);
    } else if (strlen(path) >= COMPARE_PATH) {
        workbench_say(workbench, STYLE_BAD, "the path of this run is too long");
    } else {
        struct compare_other *other = &compare->other[compare->count++];
        memset(other, 0, sizeof(*other));
        snprintf(other->path, sizeof(other->path), "%s", path);
        compare->hide &= ~(1u << compare->count);
        ask(workbench, other);
    }
    workbench->dirty = true;
}

void compare_read(struct workbench *workbench, const char *path, struct comparison_run *run,
                  const char *trouble)
{
    struct compare *compare = &workbench->compare;
    int index = find(compare, path);
    if (index < 0) {
        comparison_run_free(run); /* it was taken away meanwhile */
        return;
    }
    struct compare_other *other = &compare->other[index];
    other->failed = trouble != NULL;
    snprintf(other->trouble, sizeof(other->trouble), "%.150s", trouble ? trouble : "");
    if (!trouble) {
        comparison_run_free(&other->run);
        other->run = *run;
        *run = (struct comparison_run){ 0 };
        other->loaded = true;
    }
    workbench->dirty = true;
}

void compare_tick(struct workbench *workbench)
{
    struct compare *compare = &workbench->compare;
    for (int i = 0; i < compare->count; i++) {
        struct compare_other *other = &compare->other[i];
        bool running = other->run.status == RUN_RUNNING || other->run.status == RUN_PAUSED;
        if (other->loaded && running && workbench->now - other->asked > reread_seconds) {
            ask(workbench, other);
        }
    }
}

/* Puts the cursor's run into the command line of a fork. */
static void fork_row(struct workbench *workbench)
{
    const struct compare *compare = &workbench->compare;
    if (compare->cursor == 0) {
        runs_fork(workbench, workbench->run_name, "");
    } else {
        runs_fork(workbench, compare->other[compare->cursor - 1].path, "");
    }
}

void compare_key(struct workbench *workbench, enum action action)
{
    struct compare *compare = &workbench->compare;
    switch (action) {
    case ACTION_UP:
    case ACTION_DOWN:
    case ACTION_FIRST:
    case ACTION_LAST: {
        int to = action == ACTION_UP      ? compare->cursor - 1
                 : action == ACTION_DOWN  ? compare->cursor + 1
                 : action == ACTION_FIRST ? 0
                                          : compare->count;
        compare->cursor = to < 0 ? 0 : to > compare->count ? compare->count : to;
        break;
    }
    case ACTION_AXIS:
        compare->axis = (enum comparison_axis)((compare->axis + 1) % 3);
        break;
    case ACTION_METRIC:
        compare->metric = (enum comparison_metric)((compare->metric + 1) % COMPARISON_METRICS);
        break;
    case ACTION_SCALE:
        compare->linear = !compare->linear;
        break;
    case ACTION_MARK:
        compare->hide ^= 1u << compare->cursor;
        break;
    case ACTION_NEXT_PANE:
    case ACTION_PREVIOUS_PANE:
        compare->pane = (enum compare_pane)((compare->pane + 1) % COMPARE_PANES);
        break;
    case ACTION_ENTER:
        runs_open_list(workbench, RUNS_FOR_COMPARE);
        break;
    case ACTION_FORK:
        fork_row(workbench);
        break;
    default:
        break;
    }
}

static void add_row(struct compare_view *view, const struct comparison_run *run, int row)
{
    struct comparison_run copy = *run;
    copy.method = NULL;
    comparison_run_settle(&copy, SETTLE_STEPS);
    view->row[view->all.count] = row;
    view->all.run[view->all.count++] = copy;
}

void compare_view_open(const struct compare *compare, struct compare_view *view)
{
    memset(view, 0, sizeof(*view));
    view->all.run = xcalloc(COMPARE_OTHERS + 1, sizeof(view->all.run[0]));
    add_row(view, &compare->own, 0);
    for (int i = 0; i < compare->count; i++) {
        if (compare->other[i].loaded) {
            add_row(view, &compare->other[i].run, i + 1);
        }
    }
    comparison_finish(&view->all);
}

void compare_view_free(struct compare_view *view)
{
    for (size_t i = 0; i < view->all.count; i++) {
        free(view->all.run[i].method); /* the rest belongs to those they are copies of */
    }
    free(view->all.run);
}

char compare_letter(int row)
{
    return (char)('a' + (row < 26 ? row : 25));
}
