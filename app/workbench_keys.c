/* The reducer for keys: what each does where. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/workbench.h"
#include "engine/base/xalloc.h"

void workbench_ask(struct workbench *workbench, enum field_use use, const char *text)
{
    workbench->overlay = OVERLAY_FIELD;
    workbench->field_use = use;
    snprintf(workbench->field, sizeof(workbench->field), "%s", text);
}

/* What it does may open another field. */
static void command_entered(struct workbench *workbench)
{
    char *line = xstrdup(workbench->field);
    command_run(workbench, line);
    free(line);
}

static void save_preset(struct workbench *workbench, const char *text)
{
    struct effect *effect = workbench_push(workbench, EFFECT_PRESET);
    memcpy(effect->choice, workbench->launcher.cursor, sizeof(effect->choice));
    snprintf(effect->text, sizeof(effect->text), "%s", text);
}

static void field_done(struct workbench *workbench)
{
    if (workbench->field_use == FIELD_FOR_FORM && !form_typed(workbench, workbench->field)) {
        return; /* the field stays open and says why */
    }
    workbench->overlay = OVERLAY_NONE;
    if (workbench->field_use == FIELD_FOR_FORM || workbench->field_use == FIELD_FOR_FILTER) {
        return;
    }
    const char *text = workbench->field;
    if (text[0] == '\0' && workbench->field_use != FIELD_FOR_ONLY &&
        workbench->field_use != FIELD_FOR_PROMPT) {
        return;
    }
    switch (workbench->field_use) {
    case FIELD_FOR_TUNE:
        tune_typed(workbench, text);
        return;
    case FIELD_FOR_FORK:
        runs_forked(workbench, text);
        return;
    case FIELD_FOR_PRUNE:
        runs_pruned(workbench, text);
        return;
    case FIELD_FOR_COMMAND:
        command_entered(workbench);
        return;
    case FIELD_FOR_SEARCH:
        log_search(workbench, text);
        return;
    case FIELD_FOR_ONLY:
        log_filter(workbench, text);
        return;
    case FIELD_FOR_PROMPT:
        samples_ask(workbench, text);
        return;
    case FIELD_FOR_RANKS:
        launcher_typed_ranks(workbench, text);
        return;
    case FIELD_FOR_PRESET:
        save_preset(workbench, text);
        return;
    default:
        break;
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
    if (workbench->field_use == FIELD_FOR_COMMAND && command_key(workbench, key)) {
        return;
    }
    if (key == INPUT_ENTER || key == '\n') {
        field_done(workbench);
    } else if (key == INPUT_ESCAPE || key == ('c' & 0x1f)) {
        workbench->overlay = OVERLAY_NONE;
        workbench->field[0] = '\0';
    } else if (key == ('u' & 0x1f)) {
        workbench->field[0] = '\0';
    } else if (key == INPUT_BACKSPACE || key == 0x7f || key == INPUT_DELETE) {
        while (length > 0 && ((unsigned char)workbench->field[--length] & 0xc0) == 0x80) {
        }
        workbench->field[length] = '\0';
    } else if (key >= 0x20 && key < 0x110000 && !(key >= 0x7f && key < 0xa0)) {
        field_add(workbench, key);
    }
    if (workbench->field_use == FIELD_FOR_FILTER) {
        form_filter(workbench, workbench->field);
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
    int page = workbench->height > 8 ? workbench->height - 8 : 1;
    int limit = workbench->screen == SCREEN_LOG ? HISTORY_LINES : 10000;
    int by = action == ACTION_UP          ? -1
             : action == ACTION_DOWN      ? 1
             : action == ACTION_PAGE_UP   ? -page
             : action == ACTION_PAGE_DOWN ? page
             : action == ACTION_FIRST     ? -limit
             : action == ACTION_LAST      ? limit
                                          : 0;
    int to = workbench->scroll + by;
    workbench->scroll = to < 0 ? 0 : to > limit ? limit : to;
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
    if (action >= ACTION_SCREEN_1 && action <= ACTION_SCREEN_7) {
        workbench->screen = (enum screen)(action - ACTION_SCREEN_1);
        workbench->scroll = 0;
        return;
    }
    switch (action) {
    case ACTION_PAUSE:
    case ACTION_SAVE:
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
    case ACTION_RUNS:
        runs_open_list(workbench, RUNS_FOR_OPEN);
        return;
    case ACTION_NEXT_RUN:
    case ACTION_PREVIOUS_RUN:
        runs_switch(workbench, action == ACTION_NEXT_RUN ? 1 : -1);
        return;
    case ACTION_SCALE:
        if (workbench->screen == SCREEN_COMPARE) {
            compare_key(workbench, action);
            return;
        }
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
    case ACTION_EARLIER:
    case ACTION_LATER:
    case ACTION_MUCH_EARLIER:
    case ACTION_MUCH_LATER:
    case ACTION_FOLLOW:
        travel_key(workbench, action);
        return;
    case ACTION_RANKS:
        memory_toggle_ranks(workbench);
        return;
    case ACTION_LEVEL:
        workbench->serious = !workbench->serious;
        workbench->scroll = 0;
        return;
    default:
        break;
    }
    if (workbench->screen == SCREEN_COMPARE) {
        compare_key(workbench, action);
    } else if (workbench->screen == SCREEN_SAMPLES) {
        samples_key(workbench, action);
    } else if (action >= ACTION_SEARCH && action <= ACTION_PREVIOUS_MATCH) {
        log_key(workbench, action);
    } else if (workbench->screen == SCREEN_TUNE) {
        tune_key(workbench, action);
    } else if (workbench->screen == SCREEN_MEMORY) {
        memory_key(workbench, action);
    } else if (workbench->screen == SCREEN_LAYERS) {
        layers_key(workbench, action);
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
    case ACTION_SNAPSHOT:
        workbench_push(workbench, EFFECT_SNAPSHOT);
        return true;
    case ACTION_THEME:
        workbench->theme = (enum theme_name)((workbench->theme + 1) % THEME_COUNT);
        workbench_say(workbench, STYLE_TEXT, "colours: %s", theme_names[workbench->theme]);
        return true;
    case ACTION_MOUSE:
        workbench->mouse = !workbench->mouse;
        workbench_say(workbench, STYLE_TEXT, "%s",
                      workbench->mouse ? "mouse: click and scroll; with Shift the terminal selects"
                                       : "mouse: left to the terminal");
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

/* Keys of the launcher and of its form. */
static void home_key(struct workbench *workbench, enum action action)
{
    bool form = workbench->launcher.form.open;
    if (action == ACTION_ADD) {
        workbench_ask(workbench, FIELD_FOR_ADD, "");
    } else if (action == ACTION_OVERRIDE) {
        workbench_ask(workbench, FIELD_FOR_OVERRIDE, "");
    } else if (action == ACTION_PRESET) {
        workbench_ask(workbench, FIELD_FOR_PRESET, "");
    } else if (action == ACTION_FILTER) {
        workbench_ask(workbench, FIELD_FOR_FILTER, workbench->launcher.form.filter);
    } else if (action == ACTION_COMMAND_LINE) {
        workbench->overlay = OVERLAY_COMMAND;
        launcher_ask_form(workbench);
    } else if (form) {
        form_key(workbench, action);
        launcher_want(workbench);
    } else {
        launcher_key(workbench, action);
    }
}

/* Keys of what lies over the screen; false if nothing does. */
static bool overlay_key(struct workbench *workbench, uint32_t key)
{
    switch (workbench->overlay) {
    case OVERLAY_FIELD:
        field_key(workbench, key);
        return true;
    case OVERLAY_STOP:
        stop_key(workbench, key);
        return true;
    case OVERLAY_REMOVE:
        launcher_remove_key(workbench, key);
        return true;
    case OVERLAY_COMMAND:
        workbench->overlay = OVERLAY_NONE;
        return true;
    default:
        return false;
    }
}

void workbench_action(struct workbench *workbench, enum action action)
{
    if (action == ACTION_NONE || global_key(workbench, action)) {
        return;
    }
    if (action == ACTION_COMMAND) {
        command_open(workbench, "");
    } else if (workbench->overlay == OVERLAY_RUNS) {
        runs_key(workbench, action);
    } else if (workbench->mode == MODE_LAUNCHER) {
        home_key(workbench, action);
    } else if (workbench->screen == SCREEN_TUNE && action == ACTION_ENTER) {
        if (workbench_live(workbench)) {
            workbench_ask(workbench, FIELD_FOR_TUNE,
                          workbench->tune.row[workbench->tune.cursor].staged);
        } else {
            workbench_say(workbench, STYLE_WARN, "nothing is running here, this is a recording");
        }
    } else {
        run_key(workbench, action);
    }
}

void workbench_key(struct workbench *workbench, uint32_t key)
{
    workbench->dirty = true;
    enum action anywhere = keymap_find(IN_ALL, key);
    if (anywhere == ACTION_SUSPEND || anywhere == ACTION_REPAINT) {
        global_key(workbench, anywhere); /* under questions and fields, too */
        return;
    }
    if (overlay_key(workbench, key)) {
        return;
    }
    enum action action = keymap_find(workbench_context(workbench), key);
    if (workbench->overlay == OVERLAY_HELP) {
        if (action == ACTION_DOWN || action == ACTION_PAGE_DOWN) {
            workbench->scroll += workbench->scroll < 200 ? (action == ACTION_DOWN ? 1 : 10) : 0;
        } else if (action == ACTION_UP || action == ACTION_PAGE_UP) {
            workbench->scroll -= action == ACTION_UP ? 1 : 10;
            workbench->scroll = workbench->scroll < 0 ? 0 : workbench->scroll;
        } else if (action == ACTION_SNAPSHOT) {
            workbench_push(workbench, EFFECT_SNAPSHOT);
        } else {
            workbench->overlay = OVERLAY_NONE;
            workbench->scroll = 0;
        }
        return;
    }
    workbench->message[0] = '\0';
    workbench_action(workbench, action);
}
