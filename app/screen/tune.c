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
        if (i == tune->cursor) {
            canvas_restyle(canvas, (struct rect){ inside.x, y, inside.width, 1 }, STYLE_CURSOR);
        }
    }
    canvas_restore(canvas, before);
}

/* Wrapped text; the next free row. */
static int paragraph(struct canvas *canvas, struct rect area, enum style style, const char *text)
{
    size_t size = strlen(text);
    int y = area.y;
    for (size_t at = 0; at < size && y < area.y + area.height;) {
        size_t next = 0;
        size_t length = text_wrap(text + at, size - at, area.width, &next);
        canvas_text_size(canvas, (struct rect){ area.x, y++, area.width, 1 }, style, text + at,
                         length);
        at += next > 0 ? next : size;
    }
    return y;
}

/* The highest peak measured from step `first` until step `last`; -1 if there is none. */
static int64_t measured_between(const struct history *history, int64_t first, int64_t last)
{
    int64_t bytes = -1;
    for (size_t i = 0; i < history->memories_count; i++) {
        const struct history_memory *memory = &history->memories[i];
        if (memory->step >= first && memory->step <= last && memory->total_bytes > bytes) {
            bytes = memory->total_bytes;
        }
    }
    return bytes;
}

/* Steps from the change before this one to the change after it. */
static void span_of(const struct history *history, int64_t step, int64_t *first, int64_t *last)
{
    *first = 0;
    *last = INT64_MAX;
    for (size_t i = 0; i < history->setting_count; i++) {
        int64_t other = history->setting[i].step;
        *first = other < step && other > *first ? other : *first;
        *last = other > step && other - 1 < *last ? other - 1 : *last;
    }
}

static void signed_bytes(double bytes, char *out, size_t size)
{
    snprintf(out, size, "%s%s", bytes < 0 ? "-" : "+", text_bytes(fabs(bytes)).text);
}

static void staged_effect(const struct tune_row *row, struct canvas *canvas, struct rect *line)
{
    char change[40];
    if (row->refusal[0]) {
        canvas_text(canvas, line->x, line->y++, line->width, STYLE_BAD, "refused:");
        line->y = paragraph(canvas, (struct rect){ line->x, line->y, line->width, 4 }, STYLE_TEXT,
                            row->refusal);
    } else if (row->bytes >= 0) {
        signed_bytes((double)(row->bytes - row->bytes_now), change, sizeof(change));
        canvas_text(canvas, line->x, line->y++, line->width, STYLE_TEXT, "planned memory");
        canvas_printf(canvas, line->x, line->y++, line->width, STYLE_STRONG, "  %s -> %s",
                      text_bytes((double)row->bytes_now).text, text_bytes((double)row->bytes).text);
        canvas_printf(canvas, line->x, line->y++, line->width,
                      row->bytes > row->bytes_now ? STYLE_WARN : STYLE_GOOD, "  %s", change);
    } else if (row->ask_id != 0) {
        canvas_text(canvas, line->x, line->y++, line->width, STYLE_DIM,
                    row->sent ? "waiting for the run ..." : "planning ...");
    }
}

static void applied_effect(const struct workbench *workbench, const struct tune_row *row,
                           struct canvas *canvas, struct rect *line)
{
    const struct history *history = &workbench->history;
    canvas_printf(canvas, line->x, line->y++, line->width, STYLE_GOOD, "applied from step %" PRId64,
                  row->applied_step);
    if (row->applied_bytes >= 0) {
        canvas_printf(canvas, line->x, line->y++, line->width, STYLE_TEXT, "  planned  %s -> %s",
                      text_bytes((double)row->applied_before).text,
                      text_bytes((double)row->applied_bytes).text);
    }
    int64_t first;
    int64_t last;
    span_of(history, row->applied_step, &first, &last);
    int64_t was = measured_between(history, first, row->applied_step - 1);
    int64_t now = measured_between(history, row->applied_step, last);
    if (now >= 0) {
        canvas_printf(canvas, line->x, line->y++, line->width, STYLE_STRONG, "  measured %s -> %s",
                      text_bytes((double)was).text, text_bytes((double)now).text);
    } else {
        canvas_text(canvas, line->x, line->y++, line->width, STYLE_DIM, "  measured: not yet");
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
    line.y = paragraph(canvas, (struct rect){ line.x, line.y, line.width, 4 }, STYLE_DIM,
                       row->field->help) +
             1;
    if (row->staged[0] || row->refusal[0]) {
        staged_effect(row, canvas, &line);
        if (row->staged[0] && !row->sent) {
            canvas_text(canvas, line.x, line.y++, line.width, STYLE_TEXT,
                        "a applies it, Esc drops it");
        }
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

static void draw_changes(const struct workbench *workbench, struct canvas *canvas, struct rect area)
{
    const struct history *history = &workbench->history;
    struct rect inside =
        widget_box(canvas, area, "changes so far", "mean loss of 50 steps before, after", false);
    struct rect before = canvas_clip(canvas, inside);
    int y = inside.y;
    int x = inside.x + 1;
    bool wide = inside.width > 90;
    for (size_t i = history->setting_count; i > 0 && y < inside.y + inside.height; i--) {
        const struct history_setting *setting = &history->setting[i - 1];
        struct series_range earlier =
            series_look(&history->loss, setting->step - 50, setting->step - 1);
        struct series_range later = series_look(&history->loss, setting->step, setting->step + 49);
        canvas_printf(canvas, x, y, 8, STYLE_DIM, "%7" PRId64, setting->step);
        canvas_text(canvas, x + 9, y, 22, STYLE_TEXT, setting->key);
        canvas_printf(canvas, x + 32, y, wide ? 30 : 24, STYLE_STRONG, "%s -> %s", setting->from,
                      setting->to);
        int at = x + (wide ? 63 : 57);
        if (later.count > 0 && earlier.count > 0) {
            canvas_printf(canvas, at, y, 20, STYLE_TEXT, "%s, %s", text_loss(earlier.mean).text,
                          text_loss(later.mean).text);
        }
        if (wide) {
            canvas_printf(canvas, at + 21, y, inside.x + inside.width - at - 22, STYLE_DIM, "by %s",
                          setting->by);
        }
        y++;
    }
    if (history->setting_count == 0) {
        canvas_text(canvas, x, y, inside.width - 2, STYLE_DIM, "nothing was changed in this run");
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
