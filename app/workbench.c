/* The reducer: events in, state and effects out. */
#include "app/workbench.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/xalloc.h"

const char *const screen_names[SCREEN_COUNT] = { "Run",     "Layers",  "Memory", "Tune",
                                                 "Compare", "Samples", "Log" };
const double workbench_smoothings[] = { 0.94, 0.98, 0, 0.9 };

void workbench_open(struct workbench *workbench)
{
    memset(workbench, 0, sizeof(*workbench));
    workbench->width = 80;
    workbench->height = 24;
    workbench->next_id = 1;
    workbench->dirty = true;
    workbench->launcher.pane = LAUNCHER_METHOD;
    history_open(&workbench->history);
    tune_open(&workbench->tune);
    compare_show_run(&workbench->compare, "");
}

void workbench_close(struct workbench *workbench)
{
    launcher_close(&workbench->launcher);
    history_close(&workbench->history);
    compare_free(&workbench->compare);
    memset(workbench, 0, sizeof(*workbench));
}

void workbench_show_run(struct workbench *workbench, const char *name, enum connection connection)
{
    history_close(&workbench->history);
    history_open(&workbench->history);
    history_smooth(&workbench->history, workbench_smoothings[workbench->smoothing]);
    tune_open(&workbench->tune);
    snprintf(workbench->run_name, sizeof(workbench->run_name), "%s", name);
    compare_show_run(&workbench->compare, workbench->run_name);
    workbench->connection = connection;
    workbench->run_status[0] = '\0';
    workbench->mode = MODE_RUN;
    workbench->screen = SCREEN_RUN;
    workbench->overlay = OVERLAY_NONE;
    workbench->launcher.starting = false;
    workbench->zoom = workbench->scroll = workbench->cursor = 0;
    workbench->at = 0;
    workbench->prompt = workbench->generation = 0;
    workbench->line.set_id = 0;
    workbench->detail = workbench->asked = workbench->ranks = false;
    memset(&workbench->whatif, 0, sizeof(workbench->whatif));
    workbench->message[0] = '\0';
    workbench->dirty = true;
}

void workbench_say(struct workbench *workbench, enum style style, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(workbench->message, sizeof(workbench->message), format, list);
    va_end(list);
    workbench->message_style = style;
    workbench->dirty = true;
}

struct effect *workbench_push(struct workbench *workbench, enum effect_kind kind)
{
    enum { QUEUE = sizeof(workbench->effect) / sizeof(workbench->effect[0]) };
    if (workbench->effect_count == QUEUE) {
        /* Nobody takes effects: forget the oldest rather than grow without end. */
        memmove(&workbench->effect[0], &workbench->effect[1],
                (QUEUE - 1) * sizeof(workbench->effect[0]));
        workbench->effect_count--;
    }
    struct effect *effect = &workbench->effect[workbench->effect_count++];
    memset(effect, 0, sizeof(*effect));
    effect->kind = kind;
    return effect;
}

bool workbench_effect(struct workbench *workbench, struct effect *effect)
{
    if (workbench->effect_count == 0) {
        return false;
    }
    *effect = workbench->effect[0];
    workbench->effect_count--;
    memmove(&workbench->effect[0], &workbench->effect[1],
            (size_t)workbench->effect_count * sizeof(workbench->effect[0]));
    return true;
}

int64_t workbench_send(struct workbench *workbench, const char *command, const char *key,
                       const char *value)
{
    struct effect *effect = workbench_push(workbench, EFFECT_SEND);
    effect->id = workbench->next_id++;
    snprintf(effect->command, sizeof(effect->command), "%s", command);
    snprintf(effect->key, sizeof(effect->key), "%s", key ? key : "");
    snprintf(effect->value, sizeof(effect->value), "%s", value ? value : "");
    return effect->id;
}

bool workbench_live(const struct workbench *workbench)
{
    return workbench->mode == MODE_RUN && workbench->connection == CONNECTION_LIVE &&
           !workbench->history.stopped;
}

unsigned workbench_context(const struct workbench *workbench)
{
    static const unsigned contexts[SCREEN_COUNT] = { IN_DASHBOARD, IN_LAYERS,  IN_MEMORY, IN_TUNE,
                                                     IN_COMPARE,   IN_SAMPLES, IN_LOG };
    if (workbench->overlay == OVERLAY_RUNS) {
        return IN_LIST;
    }
    if (workbench->mode == MODE_LAUNCHER && workbench->launcher.form.open) {
        return IN_FORM;
    }
    return workbench->mode == MODE_LAUNCHER ? (unsigned)IN_LAUNCHER : contexts[workbench->screen];
}

static bool stalled(const struct workbench *workbench)
{
    double usual = history_step_seconds(&workbench->history);
    double limit = isfinite(usual) ? fmax(30, 10 * usual) : 120;
    return workbench->now > 0 && workbench->history.time > 0 &&
           workbench->now - workbench->history.time > limit;
}

const char *workbench_state(const struct workbench *workbench, enum style *style)
{
    const struct history *history = &workbench->history;
    static const struct {
        const char *state;
        const char *word;
    } words[] = { { "paused", "PAUSED" },     { "evaluating", "EVALUATING" },
                  { "saving", "SAVING" },     { "sampling", "SAMPLING" },
                  { "stopping", "STOPPING" }, { "loading", "LOADING" } };
    *style = STYLE_STRONG;
    if (workbench->at > 0) {
        *style = STYLE_WARN;
        return "AS OF";
    }
    if (workbench->connection == CONNECTION_LOADING) {
        return "READING";
    }
    if (history->stopped) {
        const char *reason = history->stop.reason ? history->stop.reason : "";
        *style = history->stop.status == 0 ? STYLE_GOOD : STYLE_BAD;
        return strcmp(reason, "done") == 0          ? "DONE"
               : strcmp(reason, "stopped") == 0     ? "STOPPED"
               : strcmp(reason, "interrupted") == 0 ? "INTERRUPTED"
               : strcmp(reason, "diverged") == 0    ? "DIVERGED"
               : history->stop.status == 0          ? "DONE"
                                                    : "FAILED";
    }
    if (workbench->connection == CONNECTION_NONE) {
        *style = STYLE_BAD;
        return strcmp(workbench->run_status, "crashed") == 0 ? "CRASHED" : "NOT RUNNING";
    }
    if (workbench->connection == CONNECTION_STARTING || history->step == 0) {
        return "STARTING";
    }
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcmp(history->state, words[i].state) == 0) {
            *style = i == 0 ? STYLE_WARN : STYLE_STRONG;
            return words[i].word;
        }
    }
    if (stalled(workbench)) {
        *style = STYLE_BAD;
        return "STALLED";
    }
    return "RUNNING";
}

void workbench_window(const struct workbench *workbench, int64_t *first, int64_t *last)
{
    *last = workbench->history.step < 1 ? 1 : workbench->history.step;
    int64_t steps = *last >> workbench->zoom;
    *first = *last - (steps < 1 ? 1 : steps) + 1;
    *first = *first < 1 ? 1 : *first;
}

/* ---- everything else --------------------------------------------------------------------------
 */

static void on_reply(struct workbench *workbench, const struct control_reply *reply)
{
    if (memory_reply(workbench, reply)) {
        return;
    }
    if (command_reply(workbench, reply) && reply->ok) {
        return;
    }
    tune_reply(workbench, reply);
    if (!reply->ok && workbench->message_style != STYLE_BAD) {
        workbench_say(workbench, STYLE_BAD, "%s%s%.100s", reply->error, reply->hint[0] ? " - " : "",
                      reply->hint);
    }
}

static void on_connection(struct workbench *workbench, enum connection connection,
                          const char *status)
{
    workbench->connection = connection;
    if (connection != CONNECTION_LIVE) {
        tune_lost(&workbench->tune);
    }
    snprintf(workbench->run_status, sizeof(workbench->run_status), "%s", status ? status : "");
}

static void on_runs(struct workbench *workbench, struct launcher_run *item, int count)
{
    struct launcher *launcher = &workbench->launcher;
    free(launcher->run);
    launcher->run = item;
    launcher->run_count = count;
    if (launcher->run_cursor >= count) {
        launcher->run_cursor = count > 0 ? count - 1 : 0;
    }
}

void workbench_event(struct workbench *workbench, const struct workbench_event *event)
{
    switch (event->kind) {
    case WORKBENCH_KEY:
        workbench_key(workbench, event->key);
        break;
    case WORKBENCH_MOUSE:
        workbench_mouse(workbench, event->mouse.button, event->mouse.spot);
        break;
    case WORKBENCH_RESIZE:
        workbench->width = event->size.width;
        workbench->height = event->size.height;
        workbench->dirty = true;
        break;
    case WORKBENCH_TICK: {
        bool before = stalled(workbench);
        workbench->now = event->now;
        workbench->dirty |= before != stalled(workbench);
        if (workbench->mode == MODE_LAUNCHER) {
            launcher_want(workbench);
        } else {
            compare_tick(workbench);
        }
        break;
    }
    case WORKBENCH_RECORD:
        history_add(&workbench->history, event->record);
        comparison_run_take(&workbench->compare.own, event->record);
        if (event->record->kind == EVENT_STOP && workbench->message_style != STYLE_WARN) {
            workbench->message[0] = '\0'; /* what was asked for has happened */
        }
        if (event->record->kind == EVENT_SETTING) {
            tune_setting(workbench, event->record);
        }
        workbench->dirty = true;
        break;
    case WORKBENCH_REPLY:
        on_reply(workbench, event->reply);
        workbench->dirty = true;
        break;
    case WORKBENCH_CONNECTION:
        on_connection(workbench, event->link.connection, event->link.status);
        workbench->dirty = true;
        break;
    case WORKBENCH_PLANNED:
        launcher_planned(workbench, event->plan);
        workbench->dirty = true;
        break;
    case WORKBENCH_COMPARED:
        compare_read(workbench, event->compared.path, event->compared.run, event->compared.trouble);
        break;
    case WORKBENCH_PREVIEWED:
        launcher_previewed(workbench, event->preview);
        workbench->dirty = true;
        break;
    case WORKBENCH_FORM:
        form_take(workbench, event->form);
        workbench->dirty = true;
        break;
    case WORKBENCH_RUNS:
        on_runs(workbench, event->runs.item, event->runs.count);
        runs_listed(workbench);
        workbench->dirty = true;
        break;
    case WORKBENCH_NOTICE:
        workbench->launcher.starting = false;
        workbench_say(workbench, event->notice.bad ? STYLE_BAD : STYLE_TEXT, "%s",
                      event->notice.text);
        break;
    }
}
