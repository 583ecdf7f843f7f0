/* What every screen has around it: header, tabs, message line, footer, dialogs. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/layout.h"
#include "app/screen/speed.h"
#include "app/text.h"
#include "app/widget/widget.h"
#include "app/workbench.h"
#include "engine/base/file.h"
#include "engine/base/xalloc.h"

static void run_header(const struct workbench *workbench, struct canvas *canvas, struct rect area)
{
    const struct history *history = &workbench->history;
    const struct event_start *start = &history->start.start;
    enum style style;
    const char *state = workbench_state(workbench, &style);
    char right[160] = "";
    int64_t total = start->total_steps;
    if (history->started && total > 0) {
        snprintf(right, sizeof(right), " %" PRId64 "/%" PRId64 " %.0f%%", history->step, total,
                 100.0 * (double)history->step / (double)total);
        double remaining = history_remaining(history);
        if (isfinite(remaining)) {
            size_t used = strlen(right);
            snprintf(right + used, sizeof(right) - used, "  %s left",
                     text_duration(remaining).text);
        }
    } else if (history->step > 0) {
        snprintf(right, sizeof(right), " step %" PRId64, history->step);
    }
    int columns = text_columns(right);
    int word = (int)strlen(state);
    int at = area.width - columns - word - 1;
    canvas_text(canvas, at, area.y, word, style, state);
    canvas_text(canvas, at + word, area.y, columns, STYLE_TEXT, right);
    char method[32] = "";
    history_setting_now(history, "method.name", method, sizeof(method));
    if (history->started) {
        canvas_printf(canvas, 1, area.y, at - 3, STYLE_STRONG, "%s | %s | %s | %s",
                      workbench->run_name, start->model_name ? start->model_name : "?",
                      start->data_name ? start->data_name : "?", method);
    } else {
        canvas_text(canvas, 1, area.y, at - 3, STYLE_STRONG, workbench->run_name);
    }
}

static void draw_header(const struct workbench *workbench, struct canvas *canvas, struct rect area)
{
    if (workbench->mode == MODE_RUN) {
        run_header(workbench, canvas, area);
        return;
    }
    bool form = workbench->launcher.form.open;
    canvas_text(canvas, 1, area.y, area.width - 2, STYLE_STRONG, "Windrow " WINDROW_VERSION);
    canvas_text(canvas, 16, area.y, area.width - 17, STYLE_DIM,
                form ? "every setting of what is chosen; Esc goes back"
                     : "choose a model, data and a preset; Enter trains");
}

static void draw_tabs(const struct workbench *workbench, struct canvas *canvas, struct rect area)
{
    int x = 1;
    for (int i = 0; i < SCREEN_COUNT; i++) {
        bool current = workbench->screen == (enum screen)i;
        int from = x;
        x += canvas_printf(canvas, x, area.y, area.width - x, current ? STYLE_TAB : STYLE_TEXT,
                           current ? "[%d %s]" : " %d %s ", i + 1, screen_names[i]);
        canvas_spot(canvas, (struct rect){ from, area.y, x - from, 1 }, TARGET_KEY, '1' + i);
        x += area.width >= 90;
    }
    if (x + 8 < area.width) {
        canvas_text(canvas, area.width - 7, area.y, 7, STYLE_TEXT, "0 Home");
        canvas_spot(canvas, (struct rect){ area.width - 7, area.y, 6, 1 }, TARGET_KEY, '0');
    }
}

/* What a key is called here and now; NULL if it is not offered. */
static const char *footer_label(const struct workbench *workbench, const struct action_row *row)
{
    if (!row->label || !(row->context & workbench_context(workbench)) ||
        (row->engine && !workbench_live(workbench)) || row->action == ACTION_HELP) {
        return NULL;
    }
    bool several = workbench->mode == MODE_LAUNCHER
                       ? workbench->launcher.gpus > 1 || workbench->launcher.ranks > 1
                       : memory_ranks(workbench) > 0;
    if (row->action == ACTION_RANKS && !several) {
        return NULL;
    }
    if (strcmp(row->name, "order") == 0 && !workbench->ranks) {
        return NULL;
    }
    if (row->action == ACTION_RANKS && workbench->mode == MODE_RUN &&
        workbench->screen == SCREEN_MEMORY && workbench->ranks) {
        return "memory";
    }
    if (row->action == ACTION_PAUSE && strcmp(workbench->history.state, "paused") == 0) {
        return "go on";
    }
    if (row->action == ACTION_ENTER && workbench->mode == MODE_LAUNCHER &&
        workbench->launcher.pane == LAUNCHER_LISTS) {
        return "open run";
    }
    if (row->action == ACTION_ENTER && workbench->screen == SCREEN_LAYERS && workbench->detail &&
        workbench->mode == MODE_RUN) {
        return "all matrices";
    }
    return row->label;
}

static int footer_key(struct canvas *canvas, int x, int y, const struct action_row *row,
                      const char *label)
{
    char key[16];
    keymap_key_name(row->key[0], key, sizeof(key));
    canvas_spot(canvas, (struct rect){ x, y, (int)(strlen(key) + strlen(label)) + 1, 1 },
                TARGET_KEY, (int)row->key[0]);
    x += canvas_text(canvas, x, y, 16, STYLE_KEY, key) + 1;
    return x + canvas_text(canvas, x, y, 40, STYLE_TEXT, label) + 2;
}

static int footer_width(const struct action_row *row, const char *label)
{
    char key[16];
    keymap_key_name(row->key[0], key, sizeof(key));
    return (int)(strlen(key) + strlen(label)) + 1;
}

/* Offers what the keys do here and now: those of this screen first, then those of every screen,
 * each in the order of the table. The way out and help always stand at the right. */
static void draw_footer(const struct workbench *workbench, struct canvas *canvas, struct rect area)
{
    const struct action_row *out = NULL;
    const struct action_row *help = keymap_row(ACTION_HELP);
    int room = area.width - footer_width(help, help->label) - 1;
    for (size_t i = 0; i < keymap_count && !out; i++) {
        bool leaves = keymap_rows[i].key[0] == 'q';
        out = leaves && footer_label(workbench, &keymap_rows[i]) ? &keymap_rows[i] : NULL;
    }
    footer_key(canvas, room, area.y, help, help->label);
    if (out) {
        room -= footer_width(out, out->label) + 2;
        footer_key(canvas, room, area.y, out, out->label);
    }
    int x = 1;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < keymap_count; i++) {
            const struct action_row *row = &keymap_rows[i];
            const char *label = footer_label(workbench, row);
            bool wide = (row->context & IN_RUN) == IN_RUN;
            if (!label || row == out || wide != (pass == 1)) {
                continue;
            }
            if (x + footer_width(row, label) > room - 2) {
                return;
            }
            x = footer_key(canvas, x, area.y, row, label);
        }
    }
}

/* Without an answer to show, the line says what goes on. */
static void default_message(const struct workbench *workbench, char *out, size_t size)
{
    const struct history *history = &workbench->history;
    if (workbench->mode == MODE_LAUNCHER) {
        snprintf(out, size, "%s", workbench->launcher.overrides[0] ? "settings changed: " : "");
        size_t used = strlen(out);
        snprintf(out + used, size - used, "%s", workbench->launcher.overrides);
        return;
    }
    if (workbench->at > 0) {
        snprintf(out, size,
                 "looking back: this is the run as it was after step %" PRId64
                 "; ] later, f the newest",
                 history->step);
        return;
    }
    char staged[200];
    if (workbench->screen == SCREEN_TUNE &&
        tune_staged(&workbench->tune, staged, sizeof(staged)) > 0) {
        snprintf(out, size, "staged: %s - a sends it, Esc drops it", staged);
        return;
    }
    bool running =
        workbench->connection == CONNECTION_LIVE || workbench->connection == CONNECTION_FOLLOW;
    if (running && workbench->screen == SCREEN_RUN && screen_now(workbench, out, size)) {
        return;
    }
    switch (workbench->connection) {
    case CONNECTION_LIVE:
        snprintf(out, size,
                 history->stopped ? "the run has ended"
                                  : "attached; leaving with q does not stop the run");
        break;
    case CONNECTION_FOLLOW:
        snprintf(out, size, "the run is running, but its socket cannot be reached: only watching");
        break;
    case CONNECTION_LOADING:
        snprintf(out, size, "reading what happened so far ...");
        break;
    case CONNECTION_STARTING:
        snprintf(out, size, "starting: loading the model and the data ...");
        break;
    case CONNECTION_NONE:
        snprintf(out, size, "a recording: nothing is running (%s)",
                 workbench->run_status[0] ? workbench->run_status : "ended");
        break;
    }
}

/* The command line, and below it what the word could become. */
static void draw_command(const struct workbench *workbench, struct canvas *canvas,
                         const struct layout_frame *frame)
{
    struct command_candidates *all = xcalloc(1, sizeof(*all));
    command_complete(workbench, workbench->field, all);
    canvas_fill(canvas, frame->message, ' ', STYLE_TEXT);
    canvas_fill(canvas, frame->footer, ' ', STYLE_TEXT);
    int y = frame->message.y;
    int width = frame->message.width;
    canvas_put(canvas, 0, y, ':', STYLE_KEY);
    const char *shown = workbench->field;
    while (*shown && text_columns(shown) > width - 3) {
        do {
            shown++;
        } while (((unsigned char)*shown & 0xc0) == 0x80);
    }
    int used = canvas_text(canvas, 1, y, width - 2, STYLE_STRONG, shown);
    canvas_put(canvas, 1 + used, y, '_', STYLE_STRONG);
    int x = 1;
    for (int i = 0; i < all->count && x < width - 12; i++) {
        x += canvas_text(canvas, x, frame->footer.y, width - 1 - x, STYLE_DIM, all->word[i]) + 2;
    }
    if (all->count == 0) {
        canvas_text(canvas, 1, frame->footer.y, width - 2, STYLE_DIM,
                    "Enter carries it out, Esc drops it, Up recalls earlier lines");
    }
    free(all);
}

static void draw_message(const struct workbench *workbench, struct canvas *canvas, struct rect area)
{
    char text[256];
    if (workbench->message[0]) {
        canvas_text(canvas, 1, area.y, area.width - 2, workbench->message_style,
                    workbench->message);
        return;
    }
    default_message(workbench, text, sizeof(text));
    canvas_text(canvas, 1, area.y, area.width - 2, STYLE_DIM, text);
}

static void draw_stop(const struct workbench *workbench, struct canvas *canvas)
{
    const struct history *history = &workbench->history;
    char step[96];
    char lost[96] = "No checkpoint was saved yet.";
    bool live = workbench_live(workbench);
    snprintf(step, sizeof(step), "%s at step %" PRId64 " of %" PRId64 ".",
             live ? "Training" : "Not running:", history->step, history->start.start.total_steps);
    if (history->checkpoint_step >= 0) {
        snprintf(lost, sizeof(lost), "The last checkpoint is of step %" PRId64 ".",
                 history->checkpoint_step);
    }
    const char *lines[] = { step, lost };
    const char *choices[] = { "[Esc] go on", "[d]   leave; the run goes on",
                              "[s]   save a checkpoint and stop the run" };
    struct widget_dialog dialog = { live ? "stop the run?" : "leave?", lines, 2, choices,
                                    live ? 3 : 2 };
    widget_dialog(canvas, &dialog);
}

static void draw_remove(const struct workbench *workbench, struct canvas *canvas)
{
    const struct launcher *launcher = &workbench->launcher;
    char name[96] = "";
    char steps[96] = "";
    if (launcher->run_cursor < launcher->run_count) {
        const struct launcher_run *run = &launcher->run[launcher->run_cursor];
        snprintf(name, sizeof(name), "%s", run->name);
        snprintf(steps, sizeof(steps), "%s after %" PRId64 " of %" PRId64 " steps", run->status,
                 run->step, run->total_steps);
    }
    const char *lines[] = { name, steps, "Its checkpoints, its log and its model go with it." };
    const char *choices[] = { "[Esc] keep it", "[y]   remove it for good" };
    struct widget_dialog dialog = { "remove the run?", lines, 3, choices, 2 };
    widget_dialog(canvas, &dialog);
}

static void draw_field(const struct workbench *workbench, struct canvas *canvas)
{
    static const char *const lists[] = { "model directory", "data file or directory",
                                         "recipe or preset file", "path" };
    char title[128];
    char hint[192];
    if (workbench->field_use == FIELD_FOR_TUNE) {
        const struct field *field = workbench->tune.row[workbench->tune.cursor].field;
        char *range = field_range(field);
        snprintf(title, sizeof(title), "%s", field->key);
        snprintf(hint, sizeof(hint), "allowed: %.100s   Enter stages, Esc cancels", range);
        free(range);
    } else if (workbench->field_use == FIELD_FOR_FORK) {
        snprintf(title, sizeof(title), "fork: RUN[@STEP] key=value ...");
        snprintf(hint, sizeof(hint), "without @STEP from its newest checkpoint; Enter starts it");
    } else if (workbench->field_use == FIELD_FOR_PRUNE) {
        snprintf(title, sizeof(title), "remove %.80s from the disk?",
                 path_base(workbench->runs.prune));
        snprintf(hint, sizeof(hint), "type its whole name and Enter; Esc keeps it");
    } else if (workbench->field_use == FIELD_FOR_PROMPT) {
        snprintf(title, sizeof(title), "prompt");
        snprintf(hint, sizeof(hint), "Enter lets the model go on from it, after the current step");
    } else if (workbench->field_use == FIELD_FOR_SEARCH) {
        snprintf(title, sizeof(title), "search the log");
        snprintf(hint, sizeof(hint), "n and N go to the next older and newer match");
    } else if (workbench->field_use == FIELD_FOR_ONLY) {
        snprintf(title, sizeof(title), "show only lines with");
        snprintf(hint, sizeof(hint), "empty shows all; Enter filters, Esc leaves it as it was");
    } else if (workbench->field_use == FIELD_FOR_ADD) {
        snprintf(title, sizeof(title), "add a %s", lists[workbench->launcher.pane & 3]);
        snprintf(hint, sizeof(hint), "Enter adds it to the list, Esc cancels");
    } else if (workbench->field_use == FIELD_FOR_RANKS) {
        snprintf(title, sizeof(title), "how many GPUs train together");
        if (workbench->launcher.gpus > 0) {
            snprintf(hint, sizeof(hint), "this machine has %d; Enter plans for them, Esc cancels",
                     workbench->launcher.gpus);
        } else {
            snprintf(hint, sizeof(hint),
                     "no GPU is here: on so many processes; Enter plans, Esc cancels");
        }
    } else if (workbench->field_use == FIELD_FOR_PRESET) {
        snprintf(title, sizeof(title), "save as a preset");
        snprintf(hint, sizeof(hint), "a name, then a sentence that says what it is for");
    } else {
        snprintf(title, sizeof(title), "change a setting");
        snprintf(hint, sizeof(hint), "key=value, as train.steps=200; Enter applies, Esc cancels");
    }
    widget_field(canvas, title, workbench->field, hint);
}

static void draw_body(const struct workbench *workbench, struct canvas *canvas, struct rect body)
{
    if (workbench->mode == MODE_LAUNCHER) {
        if (workbench->launcher.form.open) {
            screen_form(workbench, canvas, body);
        } else {
            screen_launcher(workbench, canvas, body);
        }
        return;
    }
    switch (workbench->screen) {
    case SCREEN_RUN:
        screen_run(workbench, canvas, body);
        break;
    case SCREEN_LAYERS:
        screen_layers(workbench, canvas, body);
        break;
    case SCREEN_MEMORY:
        screen_memory(workbench, canvas, body);
        break;
    case SCREEN_TUNE:
        screen_tune(workbench, canvas, body);
        break;
    case SCREEN_COMPARE:
        screen_compare(workbench, canvas, body);
        break;
    case SCREEN_SAMPLES:
        screen_samples(workbench, canvas, body);
        break;
    case SCREEN_LOG:
        screen_log(workbench, canvas, body);
        break;
    case SCREEN_COUNT:
        break;
    }
}

static void draw_all(const struct workbench *workbench, struct canvas *canvas)
{
    canvas_clear(canvas);
    if (layout_is_compact(canvas->width, canvas->height)) {
        screen_compact(workbench, canvas);
        return;
    }
    bool tabs = workbench->mode == MODE_RUN;
    struct layout_frame frame = layout_frame(canvas->width, canvas->height, tabs);
    draw_header(workbench, canvas, frame.header);
    if (tabs) {
        draw_tabs(workbench, canvas, frame.tabs);
    }
    struct rect all = canvas_clip(canvas, frame.body);
    draw_body(workbench, canvas, frame.body);
    canvas_restore(canvas, all);
    draw_message(workbench, canvas, frame.message);
    draw_footer(workbench, canvas, frame.footer);
    if (workbench->overlay != OVERLAY_NONE) {
        /* What lies below cannot be clicked. */
        canvas_spot(canvas, (struct rect){ 0, 0, canvas->width, canvas->height }, TARGET_NONE, 0);
    }
    if (workbench->overlay == OVERLAY_HELP) {
        screen_help(workbench, canvas);
    } else if (workbench->overlay == OVERLAY_STOP) {
        draw_stop(workbench, canvas);
    } else if (workbench->overlay == OVERLAY_FIELD && workbench->field_use == FIELD_FOR_COMMAND) {
        draw_command(workbench, canvas, &frame);
    } else if (workbench->overlay == OVERLAY_REMOVE) {
        draw_remove(workbench, canvas);
    } else if (workbench->overlay == OVERLAY_COMMAND) {
        screen_command(workbench, canvas);
    } else if (workbench->overlay == OVERLAY_FIELD && workbench->field_use == FIELD_FOR_FORM) {
        screen_form_field(workbench, canvas);
    } else if (workbench->overlay == OVERLAY_FIELD && workbench->field_use != FIELD_FOR_FILTER) {
        draw_field(workbench, canvas);
    } else if (workbench->overlay == OVERLAY_RUNS) {
        screen_runs(workbench, canvas);
    }
}

void workbench_draw(const struct workbench *workbench, struct canvas *canvas)
{
    /* Compare shows whole runs. */
    bool travels = workbench->mode == MODE_RUN && workbench->screen != SCREEN_COMPARE;
    int64_t at = travels ? workbench_at(workbench) : 0;
    struct workbench shown = *workbench;
    shown.at = at;
    if (at > 0) {
        history_at(&workbench->history, at, &shown.history);
    }
    draw_all(&shown, canvas);
    if (at > 0) {
        history_at_close(&shown.history);
    }
}
