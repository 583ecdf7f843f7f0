/* The reducer: events in, state and effects out. */
#include "app/workbench.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/xalloc.h"

const char *const screen_names[SCREEN_COUNT] = {
    "Run", "Layers", "Memory", "Tune", "Samples", "Log"
};
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
}

void workbench_close(struct workbench *workbench)
{
    struct launcher *launcher = &workbench->launcher;
    for (int i = 0; i < LAUNCHER_LISTS; i++) {
        for (int k = 0; k < launcher->list[i].count; k++) {
            free(launcher->list[i].item[k].name);
            free(launcher->list[i].item[k].note);
        }
        free(launcher->list[i].item);
    }
    free(launcher->plan);
    free(launcher->run);
    history_close(&workbench->history);
    memset(workbench, 0, sizeof(*workbench));
}

void workbench_show_run(struct workbench *workbench, const char *name, enum connection connection)
{
    history_close(&workbench->history);
    history_open(&workbench->history);
    history_smooth(&workbench->history, workbench_smoothings[workbench->smoothing]);
    tune_open(&workbench->tune);
    snprintf(workbench->run_name, sizeof(workbench->run_name), "%s", name);
    workbench->connection = connection;
    workbench->run_status[0] = '\0';
    workbench->mode = MODE_RUN;
    workbench->screen = SCREEN_RUN;
    workbench->overlay = OVERLAY_NONE;
    workbench->launcher.starting = false;
    workbench->zoom = workbench->scroll = workbench->cursor = 0;
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
    static const unsigned contexts[SCREEN_COUNT] = { IN_DASHBOARD, IN_LAYERS,  IN_MEMORY,
                                                     IN_TUNE,      IN_SAMPLES, IN_LOG };
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

/* ---- keys -------------------------------------------------------------------------------------
 */

static void open_field(struct workbench *workbench, enum field_use use, const char *text)
{
    workbench->overlay = OVERLAY_FIELD;
    workbench->field_use = use;
    snprintf(workbench->field, sizeof(workbench->field), "%s", text);
}

static void field_done(struct workbench *workbench)
{
    workbench->overlay = OVERLAY_NONE;
    if (workbench->field[0] == '\0') {
        return;
    }
    if (workbench->field_use == FIELD_FOR_TUNE) {
        tune_typed(workbench, workbench->field);
        return;
    }
    struct effect *effect = workbench_push(
        workbench, workbench->field_use == FIELD_FOR_ADD ? EFFECT_ADD : EFFECT_OVERRIDE);
    effect->choice[0] = workbench->launcher.pane;
    snprintf(effect->text, sizeof(effect->text), "%s", workbench->field);
}

/* Adds a code point as UTF-8. */
static void field_add(struct workbench *workbench, uint32_t code)
{
    char bytes[5] = { 0 };
    if (code < 0x80) {
        bytes[0] = (char)code;
    } else if (code < 0x800) {
        bytes[0] = (char)(0xc0 | (code >> 6));
        bytes[1] = (char)(0x80 | (code & 0x3f));
    } else if (code < 0x10000) {
        bytes[0] = (char)(0xe0 | (code >> 12));
        bytes[1] = (char)(0x80 | ((code >> 6) & 0x3f));
        bytes[2] = (char)(0x80 | (code & 0x3f));
    } else {
        bytes[0] = (char)(0xf0 | (code >> 18));
        bytes[1] = (char)(0x80 | ((code >> 12) & 0x3f));
        bytes[2] = (char)(0x80 | ((code >> 6) & 0x3f));
        bytes[3] = (char)(0x80 | (code & 0x3f));
    }
    size_t length = strlen(workbench->field);
    size_t added = strlen(bytes);
    if (length + added < sizeof(workbench->field)) {
        memcpy(workbench->field + length, bytes, added + 1);
    }
}

static void field_key(struct workbench *workbench, uint32_t key)
{
    size_t length = strlen(workbench->field);
    if (key == INPUT_ENTER || key == '\n') {
        field_done(workbench);
    } else if (key == INPUT_ESCAPE || key == ('c' & 0x1f)) {
        workbench->overlay = OVERLAY_NONE;
    } else if (key == ('u' & 0x1f)) {
        workbench->field[0] = '\0';
    } else if (key == INPUT_BACKSPACE || key == 0x7f || key == INPUT_DELETE) {
        while (length > 0 && ((unsigned char)workbench->field[--length] & 0xc0) == 0x80) {
        }
        workbench->field[length] = '\0';
    } else if (key >= 0x20 && key < 0x110000 && !(key >= 0x7f && key < 0xa0)) {
        field_add(workbench, key);
    }
}

static void leave(struct workbench *workbench)
{
    workbench_push(workbench, EFFECT_QUIT);
}

static void stop_key(struct workbench *workbench, uint32_t key)
{
    workbench->overlay = OVERLAY_NONE;
    if (key == 's' && workbench_live(workbench)) {
        workbench_send(workbench, "stop", NULL, NULL);
        workbench_say(workbench, STYLE_STRONG, "asked the run to save and stop");
    } else if (key == 'd' || key == 'q') {
        leave(workbench);
    }
}

static void move(struct workbench *workbench, enum action action)
{
    int *value = workbench->screen == SCREEN_LAYERS ? &workbench->cursor : &workbench->scroll;
    int page = workbench->height > 8 ? workbench->height - 8 : 1;
    int limit = workbench->screen == SCREEN_LAYERS ? (int)workbench->history.matrix_count - 1
                : workbench->screen == SCREEN_LOG  ? HISTORY_LINES
                                                   : 10000;
    int by = action == ACTION_UP          ? -1
             : action == ACTION_DOWN      ? 1
             : action == ACTION_PAGE_UP   ? -page
             : action == ACTION_PAGE_DOWN ? page
             : action == ACTION_FIRST     ? -limit
             : action == ACTION_LAST      ? limit
                                          : 0;
    if (workbench->screen == SCREEN_LAYERS && (by == 1 || by == -1)) {
        by *= 7; /* a row of the map holds the matrices of one layer */
    }
    if (action == ACTION_LEFT || action == ACTION_RIGHT) {
        by = action == ACTION_LEFT ? -1 : 1;
    }
    int to = *value + by;
    *value = to < 0 ? 0 : to > limit ? (limit < 0 ? 0 : limit) : to;
}

static void run_command(struct workbench *workbench, enum action action)
{
    if (action == ACTION_PAUSE) {
        bool paused = strcmp(workbench->history.state, "paused") == 0;
        workbench_send(workbench, paused ? "resume" : "pause", NULL, NULL);
        workbench_say(workbench, STYLE_STRONG, "%s",
                      paused ? "asked the run to go on" : "asked the run to pause after this step");
    } else if (action == ACTION_SAVE) {
        workbench_send(workbench, "save", NULL, NULL);
        workbench_say(workbench, STYLE_STRONG, "asked for a checkpoint");
    } else if (action == ACTION_SAMPLE) {
        workbench_send(workbench, "sample", NULL, NULL);
        workbench_say(workbench, STYLE_STRONG, "asked for a sample");
    }
}

static void run_key(struct workbench *workbench, enum action action)
{
    const struct action_row *row = keymap_row(action);
    if (row && row->engine && !workbench_live(workbench)) {
        workbench_say(workbench, STYLE_WARN, "%s: nothing is running here, this is a recording",
                      row->name);
        return;
    }
    if (action >= ACTION_SCREEN_1 && action <= ACTION_SCREEN_6) {
        workbench->screen = (enum screen)(action - ACTION_SCREEN_1);
        workbench->scroll = 0;
        return;
    }
    switch (action) {
    case ACTION_PAUSE:
    case ACTION_SAVE:
    case ACTION_SAMPLE:
        run_command(workbench, action);
        return;
    case ACTION_STOP:
    case ACTION_INTERRUPT:
        workbench->overlay = OVERLAY_STOP;
        return;
    case ACTION_DETACH:
        leave(workbench);
        return;
    case ACTION_HOME:
        workbench_push(workbench, EFFECT_HOME);
        return;
    case ACTION_SCALE:
        workbench->linear = !workbench->linear;
        return;
    case ACTION_SMOOTH:
        workbench->smoothing = (workbench->smoothing + 1) % 4;
        history_smooth(&workbench->history, workbench_smoothings[workbench->smoothing]);
        return;
    case ACTION_ZOOM_IN:
        workbench->zoom += workbench->zoom < 20 && (workbench->history.step >> workbench->zoom) > 8;
        return;
    case ACTION_ZOOM_OUT:
        workbench->zoom -= workbench->zoom > 0;
        return;
    case ACTION_VIEW:
        workbench->view = (workbench->view + 1) % 3;
        return;
    case ACTION_LEVEL:
        workbench->serious = !workbench->serious;
        workbench->scroll = 0;
        return;
    default:
        break;
    }
    if (workbench->screen == SCREEN_TUNE) {
        tune_key(workbench, action);
    } else {
        move(workbench, action);
    }
}

/* The same everywhere. False if it was none of these. */
static bool global_key(struct workbench *workbench, enum action action)
{
    switch (action) {
    case ACTION_HELP:
        workbench->overlay = OVERLAY_HELP;
        workbench->scroll = 0;
        return true;
    case ACTION_GLYPHS:
        workbench->glyphs = (enum glyph_set)((workbench->glyphs + 1) % GLYPHS_COUNT);
        workbench_say(workbench, STYLE_TEXT, "charts of %s", glyph_set_names[workbench->glyphs]);
        return true;
    case ACTION_REPAINT:
        workbench_push(workbench, EFFECT_REPAINT);
        return true;
    case ACTION_SUSPEND:
        workbench_push(workbench, EFFECT_SUSPEND);
        return true;
    default:
        return false;
    }
}

static void on_key(struct workbench *workbench, uint32_t key)
{
    workbench->dirty = true;
    if (workbench->overlay == OVERLAY_FIELD) {
        field_key(workbench, key);
        return;
    }
    if (workbench->overlay == OVERLAY_STOP) {
        stop_key(workbench, key);
        return;
    }
    enum action action = keymap_find(workbench_context(workbench), key);
    if (workbench->overlay == OVERLAY_HELP) {
        if (action == ACTION_DOWN || action == ACTION_PAGE_DOWN) {
            workbench->scroll += workbench->scroll < 200 ? (action == ACTION_DOWN ? 1 : 10) : 0;
        } else if (action == ACTION_UP || action == ACTION_PAGE_UP) {
            workbench->scroll -= action == ACTION_UP ? 1 : 10;
            workbench->scroll = workbench->scroll < 0 ? 0 : workbench->scroll;
        } else {
            workbench->overlay = OVERLAY_NONE;
            workbench->scroll = 0;
        }
        return;
    }
    workbench->message[0] = '\0';
    if (action == ACTION_NONE || global_key(workbench, action)) {
        return;
    }
    if (action == ACTION_ADD || action == ACTION_OVERRIDE) {
        open_field(workbench, action == ACTION_ADD ? FIELD_FOR_ADD : FIELD_FOR_OVERRIDE, "");
    } else if (workbench->mode == MODE_LAUNCHER) {
        launcher_key(workbench, action);
    } else if (workbench->screen == SCREEN_TUNE && action == ACTION_ENTER) {
        if (workbench_live(workbench)) {
            open_field(workbench, FIELD_FOR_TUNE,
                       workbench->tune.row[workbench->tune.cursor].staged);
        } else {
            workbench_say(workbench, STYLE_WARN, "nothing is running here, this is a recording");
        }
    } else {
        run_key(workbench, action);
    }
}

/* ---- everything else --------------------------------------------------------------------------
 */

static void on_reply(struct workbench *workbench, const struct control_reply *reply)
{
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
        on_key(workbench, event->key);
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
        }
        break;
    }
    case WORKBENCH_RECORD:
        history_add(&workbench->history, event->record);
        if (event->record->kind == EVENT_STOP) {
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
    case WORKBENCH_RUNS:
        on_runs(workbench, event->runs.item, event->runs.count);
        workbench->dirty = true;
        break;
    case WORKBENCH_NOTICE:
        workbench->launcher.starting = false;
        workbench_say(workbench, event->notice.bad ? STYLE_BAD : STYLE_TEXT, "%s",
                      event->notice.text);
        break;
    }
}
