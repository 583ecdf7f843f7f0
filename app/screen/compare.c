/* Compare: runs overlaid in one chart, their numbers, and the settings in which they differ. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/layout.h"
#include "app/plot.h"
#include "app/text.h"
#include "app/widget/widget.h"
#include "app/workbench.h"

enum { DIFFERENCES_MAX = 96 };
static const char *const axis_names[] = { "steps", "tokens", "time" };
static const enum style row_styles[] = { STYLE_SERIES_1, STYLE_SERIES_2, STYLE_SERIES_3,
                                         STYLE_SERIES_4, STYLE_STRONG,   STYLE_TEXT };
/* Losses are the mean of this share of the axis: a single step is mostly noise of its batch. */
static const double smoothing_share = 0.02;

static enum style row_style(int row)
{
    return row_styles[row % (int)(sizeof(row_styles) / sizeof(row_styles[0]))];
}

static struct text_number metric_text(enum comparison_metric metric, double value)
{
    switch (metric) {
    case COMPARISON_SPEED:
        return text_count(value);
    case COMPARISON_ENERGY:
        return text_percent(value);
    case COMPARISON_MEMORY:
        return text_bytes(value);
    case COMPARISON_NORM:
        return text_value(value);
    default:
        return text_loss(value);
    }
}

static struct text_number axis_text(enum comparison_axis axis, double value)
{
    return axis == COMPARISON_SECONDS ? text_duration(value) : text_count(value);
}

static bool hidden(const struct compare *compare, int row)
{
    return (compare->hide >> row) & 1;
}

/* ---- the chart ---------------------------------------------------------------------------------
 */

/* The metric of a run in `buckets` equal parts of the axis. */
static void resample(const struct compare *compare, const struct comparison_run *run, double end,
                     int buckets, struct series *out)
{
    double width = end / buckets;
    for (int i = 0; i < buckets; i++) {
        double to = width * (i + 1);
        double from = fmin(width * i, to - end * smoothing_share);
        double value = width * i < comparison_end(run, compare->axis)
                           ? comparison_value(run, compare->metric, compare->axis, from, to)
                           : (double)NAN;
        series_set(out, i + 1, (float)value);
    }
}

static void draw_line(struct plot *plot, const struct series *series, int row)
{
    char letter = compare_letter(row);
    plot_line(plot, series, row_style(row), letter);
    for (int64_t i = (int64_t)series->count; i > 0; i--) {
        if (isfinite(series_at(series, i))) {
            plot_point(plot, i, (double)series_at(series, i), letter, STYLE_STRONG);
            break;
        }
    }
}

static void draw_axes(const struct compare *compare, struct canvas *canvas, struct rect inside,
                      const struct plot *plot, double end)
{
    canvas_text_right(canvas, inside.x, inside.y, 8, STYLE_DIM,
                      metric_text(compare->metric, plot->high).text);
    canvas_text_right(canvas, inside.x, inside.y + inside.height - 2, 8, STYLE_DIM,
                      metric_text(compare->metric, plot->low).text);
    int y = inside.y + inside.height - 1;
    canvas_text(canvas, inside.x + 9, y, 8, STYLE_DIM, "0");
    char right[64];
    snprintf(right, sizeof(right), "%s %s", axis_text(compare->axis, end).text,
             compare->axis == COMPARISON_SECONDS ? "of training" : axis_names[compare->axis]);
    canvas_text_right(canvas, inside.x + 9, y, inside.width - 10, STYLE_DIM, right);
}

static void draw_chart(const struct workbench *workbench, struct canvas *canvas, struct rect area,
                       const struct compare_view *view)
{
    const struct compare *compare = &workbench->compare;
    char note[160];
    char letters[COMPARE_OTHERS + 2] = "";
    for (size_t i = 0; i < view->all.count; i++) {
        letters[i] = compare_letter(view->row[i]);
    }
    struct comparison_note forks = comparison_fork_note(&view->all, letters);
    bool told = compare->axis == COMPARISON_SECONDS && forks.text[0];
    snprintf(note, sizeof(note), "by %s%s%s%s%s", axis_names[compare->axis], told ? " (" : "",
             told ? forks.text : "", told ? ")" : "", compare->linear ? "" : ", log");
    struct rect inside =
        widget_box(canvas, area, comparison_metric_names[compare->metric], note, true);
    struct rect before = canvas_clip(canvas, inside);
    struct rect field = { inside.x + 9, inside.y, inside.width - 10, inside.height - 1 };
    struct series series[COMPARE_OTHERS + 1];
    double end = 0;
    double low = INFINITY;
    double high = -INFINITY;
    memset(series, 0, sizeof(series));
    for (size_t i = 0; i < view->all.count; i++) {
        end = fmax(end, comparison_end(&view->all.run[i], compare->axis));
    }
    struct plot plot;
    plot_begin(&plot, canvas, field);
    int buckets = field.width > 0 ? field.width * plot.dots_x : 0;
    for (size_t i = 0; i < view->all.count && end > 0 && buckets > 0; i++) {
        if (!hidden(compare, view->row[i])) {
            resample(compare, &view->all.run[i], end, buckets, &series[i]);
            struct series_range range = series_look(&series[i], 1, buckets);
            low = range.count > 0 ? fmin(low, range.minimum) : low;
            high = range.count > 0 ? fmax(high, range.maximum) : high;
        }
    }
    if (low <= high) {
        plot_range(&plot, low, high, !compare->linear);
        plot_steps(&plot, 1, buckets);
        for (size_t i = 0; i < view->all.count; i++) {
            draw_line(&plot, &series[i], view->row[i]);
        }
        draw_axes(compare, canvas, inside, &plot, end);
    } else {
        canvas_text(canvas, inside.x + 1, inside.y, inside.width - 2, STYLE_DIM,
                    "nothing to show of this yet");
    }
    plot_end(&plot);
    for (size_t i = 0; i < view->all.count; i++) {
        series_free(&series[i]);
    }
    canvas_restore(canvas, before);
}

/* ---- the numbers -------------------------------------------------------------------------------
 */

static const char *run_name_of(const struct compare *compare, int row)
{
    if (row == 0) {
        return compare->own.label;
    }
    const struct compare_other *other = &compare->other[row - 1];
    const char *slash = strrchr(other->path, '/');
    return slash ? slash + 1 : other->path;
}

enum { COLUMNS = 7 };
static const char *const column_names[COLUMNS] = { "steps", "=tokens", "=time", "eval",
                                                   "tok/s", "memory",  "time" };
static const int column_widths[COLUMNS] = { 7, 8, 8, 8, 8, 10, 10 };

static void draw_headings(struct canvas *canvas, struct rect row, int names)
{
    int x = row.x + names;
    for (size_t i = 0; i < COLUMNS && x + column_widths[i] <= row.x + row.width; i++) {
        canvas_text_right(canvas, x, row.y, column_widths[i] - 1, STYLE_DIM, column_names[i]);
        x += column_widths[i];
    }
}

static void draw_numbers_row(struct canvas *canvas, struct rect row, int names,
                             const struct comparison_run *run)
{
    struct text_number cells[] = {
        run->count > 0 ? text_count((double)run->point[run->count - 1].step) : text_count(0),
        text_loss(run->loss_equal_tokens),
        text_loss(run->loss_equal_seconds),
        text_loss((double)run->evaluation_loss),
        text_count(run->tokens_per_second),
        text_bytes((double)(run->peak_total_bytes > 0 ? run->peak_total_bytes : -1)),
        text_duration(comparison_end(run, COMPARISON_SECONDS)),
    };
    int x = row.x + names;
    for (size_t i = 0; i < COLUMNS && x + column_widths[i] <= row.x + row.width; i++) {
        bool unknown = strcmp(cells[i].text, "nan") == 0;
        canvas_text_right(canvas, x, row.y, column_widths[i] - 1, STYLE_TEXT,
                          unknown ? "-" : cells[i].text);
        x += column_widths[i];
    }
}

/* "+0.050", "1.25x"; "-" where a side of it is not known. */
static void write_figure(char out[16], bool ratio, double value)
{
    if (!isfinite(value)) {
        snprintf(out, 16, "-");
    } else if (ratio) {
        snprintf(out, 16, "%.2fx", value);
    } else {
        snprintf(out, 16, "%+.3f", value);
    }
}

/* "a against b: loss +0.05 after the same tokens, 3.6x the memory, 1.5x the speed". */
static void draw_verdict(const struct compare_view *view, struct canvas *canvas, struct rect line,
                         int row)
{
    const struct comparison_run *own = &view->all.run[0];
    const struct comparison_run *other = NULL;
    for (size_t i = 1; i < view->all.count; i++) {
        if (row == view->row[i] || (row == 0 && !other)) {
            other = &view->all.run[i];
            row = view->row[i];
        }
    }
    if (!other) {
        return;
    }
    char tokens[16];
    char time[16];
    char memory[16];
    char speed[16];
    write_figure(tokens, false, own->loss_equal_tokens - other->loss_equal_tokens);
    write_figure(time, false, own->loss_equal_seconds - other->loss_equal_seconds);
    write_figure(memory, true, (double)own->peak_total_bytes / (double)other->peak_total_bytes);
    write_figure(speed, true, own->tokens_per_second / other->tokens_per_second);
    canvas_printf(canvas, line.x, line.y, line.width, STYLE_TEXT,
                  line.width < 80 ? "a to %c: loss %s =tokens, %s =time, %s memory, %s speed"
                                  : "a against %c: loss %s at =tokens, %s at =time, %s memory, %s "
                                    "speed",
                  compare_letter(row), tokens, time, memory, speed);
}

static void draw_numbers(const struct workbench *workbench, struct canvas *canvas, struct rect area,
                         const struct compare_view *view)
{
    const struct compare *compare = &workbench->compare;
    char title[96];
    snprintf(title, sizeof(title), "up to %s tokens, %s of training",
             text_count(view->all.equal_tokens).text, text_duration(view->all.equal_seconds).text);
    struct rect inside = widget_box(canvas, area, title, "Tab: settings", false);
    struct rect before = canvas_clip(canvas, inside);
    struct rect line = { inside.x + 1, inside.y, inside.width - 2, 1 };
    int names = inside.width > 100 ? 44 : inside.width - 2 - 49;
    names = names < 16 ? 16 : names;
    draw_headings(canvas, line, names);
    for (int row = 0; row <= compare->count; row++) {
        line.y++;
        canvas_printf(canvas, line.x, line.y, names - 1, STYLE_TEXT, "%c %c %s",
                      hidden(compare, row) ? '-' : '*', compare_letter(row),
                      run_name_of(compare, row));
        canvas_restyle(canvas, (struct rect){ line.x + 2, line.y, 1, 1 }, row_style(row));
        bool shown = false;
        for (size_t i = 0; i < view->all.count; i++) {
            if (view->row[i] == row) {
                draw_numbers_row(canvas, line, names, &view->all.run[i]);
                shown = true;
            }
        }
        if (!shown) {
            const struct compare_other *other = &compare->other[row - 1];
            canvas_text(canvas, line.x + names, line.y, line.width - names,
                        other->failed ? STYLE_BAD : STYLE_DIM,
                        other->failed ? other->trouble : "reading ...");
        }
        if (row == compare->cursor) {
            canvas_restyle(canvas, (struct rect){ inside.x, line.y, inside.width, 1 },
                           STYLE_CURSOR);
        }
    }
    line.y++;
    if (compare->count == 0) {
        canvas_text(canvas, line.x, line.y, line.width, STYLE_DIM,
                    "Enter chooses runs to put beside this one");
    } else {
        draw_verdict(view, canvas, line, compare->cursor);
    }
    canvas_restore(canvas, before);
}

/* ---- the settings ------------------------------------------------------------------------------
 */

static void draw_settings(const struct workbench *workbench, struct canvas *canvas,
                          struct rect area, const struct compare_view *view)
{
    const char *keys[DIFFERENCES_MAX];
    size_t count = comparison_differences(&view->all, keys, DIFFERENCES_MAX);
    count = count > DIFFERENCES_MAX ? DIFFERENCES_MAX : count;
    struct rect inside = widget_box(canvas, area, "settings that differ", NULL, false);
    struct rect before = canvas_clip(canvas, inside);
    int columns = (int)view->all.count;
    int names = inside.width > 60 ? 28 : inside.width * 4 / 10;
    int width = (inside.width - 2 - names) / (columns > 0 ? columns : 1);
    width = width > 16 ? 16 : width;
    int x = inside.x + 1;
    for (int i = 0; i < columns; i++) {
        char letter[2] = { compare_letter(view->row[i]), '\0' };
        canvas_text_right(canvas, x + names + i * width, inside.y, width - 1, STYLE_STRONG, letter);
    }
    if (count == 0) {
        canvas_text(canvas, x, inside.y, names + 20, STYLE_DIM,
                    columns > 1 ? "none" : "no other run is there");
    }
    for (size_t k = 0; k < count && (int)k + 1 < inside.height; k++) {
        int y = inside.y + 1 + (int)k;
        canvas_text(canvas, x, y, names - 1, STYLE_TEXT, keys[k]);
        for (int i = 0; i < columns; i++) {
            char *value = comparison_setting(&view->all.run[i], keys[k]);
            int used = text_columns(value);
            if (used < width) {
                canvas_text_right(canvas, x + names + i * width, y, width - 1, STYLE_TEXT, value);
            } else {
                canvas_text(canvas, x + names + i * width + 1, y, width - 2, STYLE_TEXT, value);
            }
            free(value);
        }
    }
    canvas_restore(canvas, before);
    (void)workbench;
}

void screen_compare(const struct workbench *workbench, struct canvas *canvas, struct rect body)
{
    struct layout_compare layout = layout_compare(body);
    struct compare_view view;
    compare_view_open(&workbench->compare, &view);
    draw_chart(workbench, canvas, layout.chart, &view);
    bool both = layout.settings.width > 0;
    if (both) {
        draw_settings(workbench, canvas, layout.settings, &view);
    }
    if (!both && workbench->compare.pane == COMPARE_SETTINGS) {
        draw_settings(workbench, canvas, layout.numbers, &view);
    } else {
        draw_numbers(workbench, canvas, layout.numbers, &view);
    }
    compare_view_free(&view);
}
