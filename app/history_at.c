/* The history as it was after an earlier step. */
#include <stdlib.h>
#include <string.h>

#include "app/history_fold.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"

/* Items of a list of `size` bytes each, which begin with their `seen`, that were said up to a
 * step. */
static size_t count_seen(const void *list, size_t count, size_t size, int64_t step)
{
    size_t low = 0;
    size_t high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        int64_t seen;
        memcpy(&seen, (const char *)list + middle * size, sizeof(seen));
        if (seen <= step) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

#define SEEN(view, list, name, step)                                                               \
    ((view)->name##_count =                                                                        \
         count_seen((view)->list, (view)->name##_count, sizeof((view)->list[0]), step))

static void cut_lines(struct history *view, int64_t step)
{
    size_t low = view->line_lost;
    size_t high = view->line_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (view->line[middle % HISTORY_LINES].seen <= step) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    for (size_t i = low; i < view->line_count; i++) {
        const struct history_line *line = &view->line[i % HISTORY_LINES];
        view->errors -= line->kind == EVENT_ERROR;
        view->warnings -= line->kind == EVENT_WARNING;
    }
    view->line_count = low;
}

static void cut_lists(struct history *view, int64_t step)
{
    SEEN(view, evaluation, evaluation, step);
    SEEN(view, memories, memories, step);
    SEEN(view, plans, plan, step);
    SEEN(view, telemetries, telemetry, step);
    SEEN(view, fare, fare, step);
    SEEN(view, states, state, step);
    SEEN(view, checkpoint, checkpoint, step);
    SEEN(view, pause, pause, step);
    SEEN(view, skipped, skipped, step);
    SEEN(view, refresh, refresh, step);
    SEEN(view, setting, setting, step);
    SEEN(view, sample, sample, step);
    cut_lines(view, step);
}

/* The latest of everything, from the lists. */
static void take_latest(struct history *view)
{
    view->planned = view->plan_count > 0;
    memset(&view->plan, 0, sizeof(view->plan));
    if (view->planned) {
        view->plan = view->plans[view->plan_count - 1].told;
    }
    view->memory_step = -1;
    if (view->memories_count > 0) {
        view->memory = view->memories[view->memories_count - 1].told;
        view->memory_step = view->memories[view->memories_count - 1].step;
    }
    view->telemetry_seen = view->telemetry_count > 0;
    if (view->telemetry_seen) {
        view->telemetry = view->telemetries[view->telemetry_count - 1].told;
    }
    memset(view->state, 0, sizeof(view->state));
    if (view->state_count > 0) {
        memcpy(view->state, view->states[view->state_count - 1].state, sizeof(view->state));
    }
    view->checkpoint_step = -1;
    if (view->checkpoint_count > 0) {
        const struct history_checkpoint *last = &view->checkpoint[view->checkpoint_count - 1];
        view->checkpoint_step = last->step;
        view->checkpoint_bytes = last->bytes;
        view->checkpoint_seconds = last->seconds;
    }
    view->start.start.total_steps = view->planned_steps;
    for (size_t i = view->setting_count; i > 0; i--) {
        int64_t total = 0;
        if (strcmp(view->setting[i - 1].key, "train.steps") == 0 &&
            text_to_integer(view->setting[i - 1].to, &total)) {
            view->start.start.total_steps = history_sane(total);
            break;
        }
    }
}

/* Matrices keep the order of their first selection: those that had one are a beginning of the
 * list. */
static void take_matrices(struct history *view)
{
    struct history_matrix *copy = xcalloc(view->matrix_count + 1, sizeof(copy[0]));
    size_t count = 0;
    for (; count < view->matrix_count; count++) {
        struct history_matrix *matrix = &copy[count];
        *matrix = view->matrix[count];
        size_t low = 0;
        size_t high = matrix->choice_count;
        while (low < high) {
            size_t middle = (low + high) / 2;
            if ((size_t)matrix->choice[middle].refresh < view->refresh_count) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        matrix->choice_count = low;
        if (low == 0) {
            break;
        }
        const struct history_choice *latest = &matrix->choice[low - 1];
        history_take_choice(matrix, latest, &view->refresh[latest->refresh]);
    }
    view->matrix = copy;
    view->matrix_count = count;
}

void history_at(const struct history *history, int64_t step, struct history *view)
{
    *view = *history;
    struct series *series[] = { &view->loss, &view->smooth, &view->tokens_per_second,
                                &view->grad_norm, &view->learning_rate };
    /* Steps that were never told are passed over. */
    while (step > 1 && view->steps[step - 1].time == 0) {
        step--;
    }
    for (size_t i = 0; i < sizeof(series) / sizeof(series[0]); i++) {
        series_cut(series[i], step);
    }
    history_take_step(view, step);
    cut_lists(view, step);
    take_latest(view);
    take_matrices(view);
    view->time = view->busy_until = view->step_time;
    view->stopped = false;
    memset(&view->stop, 0, sizeof(view->stop));
}

void history_at_close(struct history *view)
{
    free(view->matrix);
    memset(view, 0, sizeof(*view));
}
