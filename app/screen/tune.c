/* Tune: what can change while training, what a change would take, and what earlier ones did. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/layout.h"
#include "app/text.h"
#include "app/widget/widget.h"
#include "app/workbench.h"

static void now_text(const struct workbench *workbench, const struct field *field, char *out,
                     size_t size)
{
    if (!history_setting_now(&workbench->history, field->key, out, size)) {
        snprintf(out, size, "%s", workbench->history.started ? field->default_text : "-");
    }
}

static void draw_settings(const struct workbench *workbench, struct canvas *canvas,
                          struct rect area)
{
    const struct tune *tune = &workbench->tune;
    struct rect inside = widget_box(canvas, area, "live settings", "* staged", true);
    struct rect before = canvas_clip(canvas, inside);
    bool wide = inside.width > 58;
    int key = wide ? 24 : 23;
    int x = inside.x + 1;
    canvas_text(canvas, x, inside.y, key, STYLE_DIM, "setting");
    canvas_text_right(canvas, x + key, inside.y, 8, STYLE_DIM, "now");
    canvas_text_right(canvas, x + key + 9, inside.y, 10, STYLE_DIM, "staged");
    canvas_text(canvas, x + key + 21, inside.y, 20, STYLE_DIM, wide ? "allowed" : "");
    int rows = inside.height - 1;
    int first = widget_scroll(tune->cursor, tune->count, rows);
    for (int i = first; i < tune->count && i - first < rows; i++) {
        const struct tune_row *row = &tune->row[i];
        int y = inside.y + 1 + i - first;
        char now[TUNE_VALUE_SIZE] = "";
        now_text(workbench, row->field, now, sizeof(now));
        canvas_text(canvas, x, y, key, STYLE_TEXT, row->field->key);
        canvas_text_right(canvas, x + key, y, 8, STYLE_TEXT, now);
        if (row->staged[0]) {
            canvas_put(canvas, x + key + 9, y, '*', STYLE_WARN);
            canvas_text_right(canvas, x + key + 10, y, 9, STYLE_STRONG, row->staged);
        }
        if (wide) {
            char *range = field_range(row->field);
            canvas_text(canvas, x + key + 21, y, inside.x + inside.width - x - key - 22, STYLE_DIM,
                        range);
            free(range);
        }
        canvas_spot(canvas, (struct rect){ inside.x, y, inside.width, 1 }, TARGET_TUNE, i);
        if (i == tune->cursor) {
            canvas_restyle(canvas, (struct rect){ inside.x, y, inside.width, 1 }, STYLE_CURSOR);
        }
    }
    canvas_restore(canvas, before);
}

/* Wrapped text, cut with a sign where it has no room; the next free row. */
static int paragraph(struct canvas *canvas, struct rect area, enum style style, const char *text)
{
    size_t size = strlen(text);
    int y = area.y;
    for (size_t at = 0; at < size && y < area.y + area.height;) {
        size_t next = 0;
        size_t length = text_wrap(text + at, size - at, area.width, &next);
        bool last = y == area.y + area.height - 1;
        canvas_text_size(canvas, (struct rect){ area.x, y++, area.width, 1 }, style, text + at,
                         last ? size - at : length);
        at += next > 0 ? next : size;
    }
    return y;
}

static void signed_bytes(double bytes, char *out, size_t size)
{
    snprintf(out, size, "%s%s", bytes < 0 ? "-" : "+", text_bytes(fabs(bytes)).text);
}

/* "label   before -> after   note"; the note is left out where it has no room. */
struct effect_line {
    const char *label;
    const char *before;
    const char *after;
    const char *note;
    enum style style; /* of the note */
};

static void effect_line(struct canvas *canvas, struct rect *line, const struct effect_line *what)
{
    int y = line->y++;
    int x = line->x;
    canvas_text(canvas, x, y, 9, STYLE_DIM, what->label);
    int used = 9 + canvas_printf(canvas, x + 9, y, line->width - 9, STYLE_STRONG, "%s -> %s",
                                 what->before, what->after);
    if (what->note && used + 2 + text_columns(what->note) <= line->width) {
        canvas_text(canvas, x + used + 2, y, line->width - used - 2, what->style, what->note);
    }
}

static void predicted_memory(const struct tune_row *row, struct canvas *canvas, struct rect *line)
{
    char change[40];
    signed_bytes((double)(row->bytes - row->bytes_now), change, sizeof(change));
    struct text_number before = text_bytes((double)row->bytes_now);
    struct text_number after = text_bytes((double)row->bytes);
    bool more = row->bytes > row->bytes_now;
    effect_line(canvas, line,
                &(struct effect_line){ "memory", before.text, after.text,
                                       row->bytes == row->bytes_now ? "the same" : change,
                                       more ? STYLE_WARN : STYLE_GOOD });
}

static void predicted_rest(const struct workbench *workbench, const struct tune_row *row,
                           struct canvas *canvas, struct rect *line)
{
    struct tune_prediction guess;
    tune_predict(&workbench->history, row, &guess);
    if (isfinite(guess.speed_then) && guess.speed_now > 0) {
        char note[32];
        double percent = 100 * (guess.speed_then / guess.speed_now - 1);
        snprintf(note, sizeof(note), "%+.1f%%", percent);
        struct text_number before = text_count(guess.speed_now);
        struct text_number after = text_count(guess.speed_then);
        effect_line(canvas, line,
                    &(struct effect_line){ "tokens/s", before.text, after.text, note,
                                           percent < -0.05 ? STYLE_WARN : STYLE_GOOD });
    }
    if (isfinite(guess.energy_then)) {
        char note[48];
        snprintf(note, sizeof(note), guess.energy_bounds ? "at most" : "worst %s",
                 text_percent(guess.worst_then).text);
        struct text_number before = text_percent(guess.energy_now);
        struct text_number after = text_percent(guess.energy_then);
        effect_line(canvas, line,
                    &(struct effect_line){ "energy", before.text, after.text, note, STYLE_DIM });
    }
}

static void staged_effect(const struct workbench *workbench, const struct tune_row *row,
                          struct canvas *canvas, struct rect *line)
{
    if (row->bytes >= 0) {
        predicted_memory(row, canvas, line);
        predicted_rest(workbench, row, canvas, line);
    } else if (row->ask_id != 0) {
        canvas_text(canvas, line->x, line->y++, line->width, STYLE_DIM,
                    row->sent ? "waiting for the run ..." : "planning ...");
    }
    if (row->refusal[0]) {
        canvas_text(canvas, line->x, line->y++, line->width, STYLE_BAD,
                    row->unfit ? "would be refused:" : "refused:");
        line->y = paragraph(canvas, (struct rect){ line->x, line->y, line->width, 4 }, STYLE_TEXT,
                            row->refusal);
    } else if (row->staged[0] && !row->sent) {
        canvas_text(canvas, line->x, line->y++, line->width, STYLE_TEXT,
                    "from the next step; a applies");
    }
}

static void measured_pair(struct canvas *canvas, struct rect *line, const char *label,
                          const struct text_number pair[2])
{
    effect_line(canvas, line,
                &(struct effect_line){ label, pair[0].text, pair[1].text, NULL, STYLE_DIM });
}

static void applied_effect(const struct workbench *workbench, const struct tune_row *row,
                           struct canvas *canvas, struct rect *line)
{
    struct tune_outcome found;
    tune_measure(&workbench->history, row->applied_step, &found);
    canvas_printf(canvas, line->x, line->y++, line->width, STYLE_GOOD, "applied from step %" PRId64,
                  row->applied_step);
    if (row->applied_bytes >= 0) {
        measured_pair(canvas, line, "planned",
                      (struct text_number[2]){ text_bytes((double)row->applied_before),
                                               text_bytes((double)row->applied_bytes) });
    }
    if (found.bytes[1] < 0 && !isfinite(found.loss[1])) {
        canvas_text(canvas, line->x, line->y++, line->width, STYLE_DIM, "measured: not yet");
        return;
    }
    if (found.bytes[1] >= 0) {
        measured_pair(canvas, line, "measured",
                      (struct text_number[2]){ text_bytes((double)found.bytes[0]),
                                               text_bytes((double)found.bytes[1]) });
    }
    if (isfinite(found.speed[1])) {
        measured_pair(
            canvas, line, "tokens/s",
            (struct text_number[2]){ text_count(found.speed[0]), text_count(found.speed[1]) });
    }
    if (isfinite(found.energy[1])) {
        measured_pair(canvas, line, "energy",
                      (struct text_number[2]){ text_percent(found.energy[0]),
                                               text_percent(found.energy[1]) });
    }
    if (isfinite(found.loss[1])) {
        measured_pair(
            canvas, line, "loss",
            (struct text_number[2]){ text_loss(found.loss[0]), text_loss(found.loss[1]) });
    }
}

static void draw_effect(const struct workbench *workbench, struct canvas *canvas, struct rect area)
{
    const struct tune *tune = &workbench->tune;
    struct rect inside = widget_box(canvas, area, "effect", NULL, false);
    struct rect before = canvas_clip(canvas, inside);
    struct rect line = { inside.x + 1, inside.y, inside.width - 2, inside.height };
    if (tune->count == 0) {
        canvas_restore(canvas, before);
        return;
    }
    const struct tune_row *row = &tune->row[tune->cursor];
    canvas_text(canvas, line.x, line.y++, line.width, STYLE_STRONG, row->field->key);
    /* The more there is to say about the change, the less the setting is explained. */
    int words = inside.height > 12 || !(row->staged[0] || row->applied_step >= 0) ? 4
                : row->staged[0] && !row->refusal[0] && inside.height > 9         ? 3
                                                                                  : 1;
    line.y = paragraph(canvas, (struct rect){ line.x, line.y, line.width, words }, STYLE_DIM,
                       row->field->help) +
             (inside.height > 9);
    if (row->staged[0] || row->refusal[0]) {
        staged_effect(workbench, row, canvas, &line);
    } else if (row->applied_step >= 0) {
        applied_effect(workbench, row, canvas, &line);
    } else if (workbench_live(workbench)) {
        paragraph(canvas, (struct rect){ line.x, line.y, line.width, 3 }, STYLE_TEXT,
                  "Left and Right halve or double it, Enter types a value. Nothing is sent "
                  "before a.");
    } else {
        paragraph(canvas, (struct rect){ line.x, line.y, line.width, 3 }, STYLE_TEXT,
                  "Nothing is running here, so nothing can be changed.");
    }
    canvas_restore(canvas, before);
}

/* Columns of a change: its numbers before and after it, as many as have room. */
static void draw_outcome(const struct workbench *workbench, struct canvas *canvas, struct rect row,
                         const struct history_setting *setting)
{
    struct tune_outcome found;
    tune_measure(&workbench->history, setting->step, &found);
    struct text_number pair[4][2];
    for (int i = 0; i < 2; i++) {
        pair[0][i] = text_loss(found.loss[i]);
        pair[1][i] = text_count(found.speed[i]);
        pair[2][i] = text_percent(found.energy[i]);
        pair[3][i] = text_bytes((double)found.bytes[i]);
    }
    int x = row.x;
    for (int k = 0; k < 4; k++) {
        int width = k == 3 ? 22 : 16;
        if (x + width > row.x + row.width) {
            break;
        }
        canvas_printf(canvas, x, row.y, width - 1, STYLE_TEXT, "%s, %s", pair[k][0].text,
                      pair[k][1].text);
        x += width;
    }
    if (row.x + row.width - x >= 10) {
        canvas_text(canvas, x, row.y, row.x + row.width - x, STYLE_DIM, setting->by);
    }
}

static void draw_changes(const struct workbench *workbench, struct canvas *canvas, struct rect area)
{
    static const char *const titles[] = { "loss", "tokens/s", "energy", "memory" };
    const struct history *history = &workbench->history;
    struct rect inside = widget_box(canvas, area, "changes so far", "before, after", false);
    struct rect before = canvas_clip(canvas, inside);
    int x = inside.x + 1;
    int y = inside.y;
    int right = x + 57;
    int64_t undoable = tune_undoable(history);
    if (history->setting_count == 0) {
        canvas_text(canvas, x, y, inside.width - 2, STYLE_DIM, "nothing was changed in this run");
    } else {
        canvas_text(canvas, x, y, 56, STYLE_DIM, "   step  setting");
        for (int k = 0, at = right; k < 4 && at + (k == 3 ? 22 : 16) <= inside.x + inside.width;
             at += 16, k++) {
            canvas_text(canvas, at, y, 15, STYLE_DIM, titles[k]);
        }
        y++;
    }
    for (size_t i = history->setting_count; i > 0 && y < inside.y + inside.height; i--, y++) {
        const struct history_setting *setting = &history->setting[i - 1];
        canvas_printf(canvas, x, y, 8, STYLE_DIM, "%7" PRId64, setting->step);
        canvas_text(canvas, x + 9, y, 22, STYLE_TEXT, setting->key);
        canvas_printf(canvas, x + 32, y, 24, STYLE_STRONG, "%s -> %s%s", setting->from, setting->to,
                      (int64_t)i - 1 == undoable && workbench_live(workbench) ? "  (u)" : "");
        draw_outcome(workbench, canvas,
                     (struct rect){ right, y, inside.x + inside.width - right, 1 }, setting);
    }
    canvas_restore(canvas, before);
}

void screen_tune(const struct workbench *workbench, struct canvas *canvas, struct rect body)
{
    struct layout_tune layout = layout_tune(body);
    draw_settings(workbench, canvas, layout.settings);
    draw_effect(workbench, canvas, layout.effect);
    draw_changes(workbench, canvas, layout.changes);
}
