/* The dashboard: loss, memory against the plan, speed, row selection, events. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/layout.h"
#include "app/plot.h"
#include "app/screen/speed.h"
#include "app/text.h"
#include "app/widget/widget.h"
#include "app/workbench.h"

/* ---- loss
 * --------------------------------------------------------------------------------------*/

/* Which glyph is which, with the newest number of each. */
static void loss_legend(const struct workbench *workbench, struct canvas *canvas, struct rect area)
{
    const struct history *history = &workbench->history;
    uint32_t dots = canvas->glyphs == GLYPHS_ASCII   ? '.'
                    : canvas->glyphs == GLYPHS_BLOCK ? 0x2584
                                                     : 0x2836;
    uint32_t line = canvas->glyphs == GLYPHS_ASCII ? '*' : dots;
    int x = area.x;
    int end = area.x + area.width;
    canvas_put(canvas, x, area.y, dots, STYLE_RAW);
    x += 2 + canvas_printf(canvas, x + 2, area.y, end - x - 2, STYLE_TEXT, "step %s",
                           text_loss((double)series_at(&history->loss, history->step)).text);
    double factor = workbench_smoothings[workbench->smoothing];
    if (factor > 0 && x + 20 < end) {
        canvas_put(canvas, x + 2, area.y, line, STYLE_SERIES_1);
        x += 4 + canvas_printf(canvas, x + 4, area.y, end - x - 4, STYLE_TEXT, "smooth %s",
                               text_loss((double)series_at(&history->smooth, history->step)).text);
    }
    if (history->evaluation_count > 0 && x + 12 < end) {
        const struct history_evaluation *last = &history->evaluation[history->evaluation_count - 1];
        canvas_put(canvas, x + 2, area.y, 'o', STYLE_SERIES_2);
        canvas_printf(canvas, x + 4, area.y, end - x - 4, STYLE_TEXT, "eval %s",
                      text_loss((double)last->loss).text);
    }
}

/* Letters below the chart: R a refresh, T a changed setting, ! a skipped step. */
static void loss_marks(const struct workbench *workbench, struct canvas *canvas,
                       const struct plot *plot, int y)
{
    const struct history *history = &workbench->history;
    int64_t shown = 0;
    for (size_t i = 0; i < history->refresh_count; i++) {
        shown += plot_column(plot, history->refresh[i].step) >= 0;
    }
    /* More refreshes than the axis has room for would say nothing. */
    for (size_t i = 0; shown <= plot->area.width / 4 && i < history->refresh_count; i++) {
        int x = plot_column(plot, history->refresh[i].step);
        if (x >= 0) {
            canvas_put(canvas, x, y, 'R', STYLE_DIM);
        }
    }
    for (size_t i = 0; i < history->setting_count; i++) {
        int x = plot_column(plot, history->setting[i].step);
        if (x >= 0) {
            canvas_put(canvas, x, y, 'T', STYLE_SERIES_2);
        }
    }
    for (size_t i = 0; i < history->skipped_count; i++) {
        int x = plot_column(plot, history->skipped[i]);
        if (x >= 0) {
            canvas_put(canvas, x, y, '!', STYLE_BAD);
        }
    }
}

static void loss_axis(struct canvas *canvas, const struct plot *plot, struct rect area)
{
    int rows = plot->area.height;
    double middle = plot->logarithmic ? sqrt(plot->low * plot->high) : (plot->low + plot->high) / 2;
    canvas_text_right(canvas, area.x, area.y, 6, STYLE_DIM, text_loss(plot->high).text);
    if (rows >= 5) {
        canvas_text_right(canvas, area.x, area.y + rows / 2, 6, STYLE_DIM, text_loss(middle).text);
    }
    canvas_text_right(canvas, area.x, area.y + rows - 1, 6, STYLE_DIM, text_loss(plot->low).text);
    char text[32];
    int y = area.y + rows + 1;
    snprintf(text, sizeof(text), "%" PRId64, plot->first);
    canvas_text(canvas, plot->area.x, y, 12, STYLE_DIM, text);
    snprintf(text, sizeof(text), "step %" PRId64, plot->last);
    canvas_text_right(canvas, plot->area.x, y, plot->area.width, STYLE_DIM, text);
}

static void draw_loss(const struct workbench *workbench, struct canvas *canvas, struct rect area)
{
    const struct history *history = &workbench->history;
    char note[64];
    double factor = workbench_smoothings[workbench->smoothing];
    if (factor > 0) {
        snprintf(note, sizeof(note), "smoothed %.2f  %s", factor,
                 workbench->linear ? "linear" : "log y");
    } else {
        snprintf(note, sizeof(note), "%s", workbench->linear ? "linear" : "log y");
    }
    struct rect inside = widget_box(canvas, area, "loss", note, true);
    struct rect before = canvas_clip(canvas, inside);
    if (history->step == 0) {
        canvas_text(canvas, inside.x + 1, inside.y, inside.width - 1, STYLE_DIM, "no step yet");
        canvas_restore(canvas, before);
        return;
    }
    loss_legend(workbench, canvas, (struct rect){ inside.x + 1, inside.y, inside.width - 2, 1 });
    struct rect chart = { inside.x + 7, inside.y + 1, inside.width - 8, inside.height - 3 };
    struct plot plot;
    int64_t first;
    int64_t last;
    workbench_window(workbench, &first, &last);
    plot_begin(&plot, canvas, chart);
    struct series_range range = series_look(&history->loss, first, last);
    plot_range(&plot, range.minimum, range.maximum, !workbench->linear);
    plot_steps(&plot, first, last);
    plot_band(&plot, &history->loss, STYLE_RAW);
    if (factor > 0) {
        plot_line(&plot, &history->smooth, STYLE_SERIES_1, '*');
    }
    for (size_t i = 0; i < history->evaluation_count; i++) {
        plot_point(&plot, history->evaluation[i].step, (double)history->evaluation[i].loss, 'o',
                   STYLE_SERIES_2);
    }
    if (chart.height > 0) {
        loss_axis(canvas, &plot, (struct rect){ inside.x, chart.y, 6, chart.height });
        loss_marks(workbench, canvas, &plot, chart.y + chart.height);
    }
    plot_end(&plot);
    canvas_restore(canvas, before);
}

/* ---- row selection ------------------------------------------------------------------------------
 */

static double mean_of(double sum, int64_t count)
{
    return count > 0 ? sum / (double)count : (double)NAN;
}

static void share_line(struct canvas *canvas, struct rect area, const char *label, double share)
{
    canvas_text(canvas, area.x, area.y, 16, STYLE_TEXT, label);
    canvas_text_right(canvas, area.x + 16, area.y, 6, STYLE_TEXT, text_percent(share).text);
    if (area.width > 26 && isfinite(share)) {
        widget_bar(canvas, (struct rect){ area.x + 23, area.y, area.width - 23, 1 }, share, -1,
                   STYLE_SERIES_1);
    }
}

static void draw_selection(const struct workbench *workbench, struct canvas *canvas,
                           struct rect area)
{
    const struct history *history = &workbench->history;
    char method[32] = "";
    char text[64];
    history_setting_now(history, "method.name", method, sizeof(method));
    struct rect inside = widget_box(canvas, area, "row selection", method, false);
    struct rect before = canvas_clip(canvas, inside);
    struct rect line = { inside.x + 1, inside.y, inside.width - 2, 1 };
    if (history->refresh_count == 0) {
        canvas_text(canvas, line.x, line.y, line.width, STYLE_DIM,
                    history->step > 0 ? "this method selects no rows" : "no step yet");
        canvas_restore(canvas, before);
        return;
    }
    const struct history_refresh *last = &history->refresh[history->refresh_count - 1];
    share_line(canvas, line, "captured energy", mean_of(last->energy_sum, last->energy_count));
    line.y++;
    share_line(canvas, line, "kept since last", mean_of(last->overlap_sum, last->overlap_count));
    line.y++;
    share_line(canvas, line, "ever selected", mean_of(last->coverage_sum, last->coverage_count));
    line.y++;
    if (history_setting_now(history, "method.rank", text, sizeof(text))) {
        canvas_printf(canvas, line.x, line.y++, line.width, STYLE_TEXT,
                      "rank %s, %" PRId64 " matrices", text, last->matrices);
    }
    int64_t interval = 0;
    if (history_setting_now(history, "method.interval", text, sizeof(text))) {
        interval = (int64_t)fmin(fmax(strtod(text, NULL), 0), 1e12);
        canvas_printf(canvas, line.x, line.y++, line.width, STYLE_TEXT, "refresh every %s", text);
    }
    int64_t next = last->step + interval - history->step;
    if (interval > 0 && next > 0 && !history->stopped) {
        canvas_printf(canvas, line.x, line.y++, line.width, STYLE_TEXT,
                      "next in %" PRId64 ", last %" PRId64, next, last->step);
    } else {
        canvas_printf(canvas, line.x, line.y++, line.width, STYLE_TEXT, "last at step %" PRId64,
                      last->step);
    }
    canvas_restore(canvas, before);
}

/* The matrices whose selected rows hold the smallest share of the gradient. */
static void draw_worst(const struct workbench *workbench, struct canvas *canvas, struct rect area)
{
    const struct history *history = &workbench->history;
    struct rect inside = widget_box(canvas, area, "least captured", "energy", false);
    struct rect before = canvas_clip(canvas, inside);
    double floor = -1;
    size_t floor_index = 0;
    for (int row = 0; row < inside.height; row++) {
        double best = 1e9;
        size_t found = history->matrix_count;
        for (size_t i = 0; i < history->matrix_count; i++) {
            double energy = history->matrix[i].energy;
            bool later = energy > floor || (energy == floor && i > floor_index);
            if (isfinite(energy) && (row == 0 || later) && energy < best) {
                best = energy;
                found = i;
            }
        }
        if (found == history->matrix_count) {
            break;
        }
        floor = best;
        floor_index = found;
        const struct history_matrix *matrix = &history->matrix[found];
        int y = inside.y + row;
        canvas_printf(canvas, inside.x + 1, y, 10, STYLE_TEXT, "L%02d %s", matrix->layer,
                      matrix->kind);
        canvas_text_right(canvas, inside.x + 11, y, 6, STYLE_TEXT, text_percent(best).text);
        widget_bar(canvas, (struct rect){ inside.x + 18, y, inside.width - 19, 1 }, best, -1,
                   STYLE_SERIES_1);
    }
    if (history->matrix_count == 0) {
        canvas_text(canvas, inside.x + 1, inside.y, inside.width - 2, STYLE_DIM,
                    "this method selects no rows");
    }
    canvas_restore(canvas, before);
}

/* ---- events ------------------------------------------------------------------------------------
 */

void screen_events(const struct workbench *workbench, struct canvas *canvas, struct rect area,
                   bool wide)
{
    const struct history *history = &workbench->history;
    struct rect inside = widget_box(canvas, area, "events", "newest first", false);
    struct rect before = canvas_clip(canvas, inside);
    int y = inside.y;
    for (size_t i = 0; y < inside.y + inside.height; i++) {
        const struct history_line *line = history_line_at(history, i);
        if (!line) {
            break;
        }
        struct history_text said = history_line_text(history, line, !wide);
        enum style style = line->kind == EVENT_ERROR     ? STYLE_BAD
                           : line->kind == EVENT_WARNING ? STYLE_WARN
                           : line->kind == EVENT_STEP    ? STYLE_BAD
                           : line->kind == EVENT_SETTING ? STYLE_SERIES_2
                                                         : STYLE_TEXT;
        int x = inside.x + 1;
        if (wide) {
            x += canvas_text(canvas, x, y, 8, STYLE_DIM, text_clock(line->time).text) + 1;
        }
        char step[24] = "";
        if (line->step >= 0) {
            snprintf(step, sizeof(step), "%" PRId64, line->step);
        }
        int columns = wide ? 8 : 5;
        canvas_text_right(canvas, x, y, columns, STYLE_DIM, step);
        canvas_text(canvas, x + columns + 1, y, inside.x + inside.width - x - columns - 2, style,
                    said.text);
        y++;
    }
    canvas_restore(canvas, before);
}

void screen_run(const struct workbench *workbench, struct canvas *canvas, struct rect body)
{
    struct layout_dashboard layout = layout_dashboard(body);
    draw_loss(workbench, canvas, layout.loss);
    screen_memory_table(workbench, canvas, layout.memory);
    screen_speed(workbench, canvas, layout.speed);
    if (layout.gradient.width > 0) {
        screen_gradient(workbench, canvas, layout.gradient);
    }
    draw_selection(workbench, canvas, layout.selection);
    if (layout.worst.width > 0) {
        draw_worst(workbench, canvas, layout.worst);
    }
    screen_events(workbench, canvas, layout.events, layout.events.width > 60);
}
