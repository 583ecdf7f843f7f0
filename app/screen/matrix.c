/* One matrix: energy against rank, where the selected rows lie, and all its refreshes. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "app/layout.h"
#include "app/plot.h"
#include "app/screen/layers.h"
#include "app/text.h"
#include "app/widget/widget.h"

double layers_best(const struct history_matrix *matrix, int64_t rows)
{
    if (rows <= 0 || matrix->rows <= 0) {
        return (double)NAN;
    }
    /* Point i of the curve is at 2^(i - 6) of the rows. */
    double at = log2((double)rows / (double)matrix->rows) + EVENT_CURVE_POINTS - 1;
    if (at < 0) {
        return (double)NAN;
    }
    int below = at >= EVENT_CURVE_POINTS - 1 ? EVENT_CURVE_POINTS - 2 : (int)at;
    double part = fmin(at - below, 1);
    return matrix->curve[below] * (1 - part) + matrix->curve[below + 1] * part;
}

static const char *unit(const struct history_matrix *matrix)
{
    return strcmp(matrix->side, "in") == 0 ? "columns" : "rows";
}

/* ---- energy against rank
 * -------------------------------------------------------------------------
 */

static void curve_line(struct canvas *canvas, struct rect line, int64_t rows, double share,
                       bool current)
{
    char text[24];
    snprintf(text, sizeof(text), "%" PRId64, rows);
    enum style style = current ? STYLE_STRONG : STYLE_TEXT;
    canvas_text(canvas, line.x, line.y, 1, style, current ? ">" : " ");
    canvas_text_right(canvas, line.x + 1, line.y, 6, style, text);
    canvas_text_right(canvas, line.x + 8, line.y, 6, style, text_percent(share).text);
    widget_bar(canvas, (struct rect){ line.x + 15, line.y, line.width - 15, 1 }, share, -1,
               current ? STYLE_SERIES_2 : STYLE_SERIES_1);
}

static void draw_curve(const struct history_matrix *matrix, struct canvas *canvas, struct rect area)
{
    char note[48];
    snprintf(note, sizeof(note), "> %s now", unit(matrix));
    struct rect inside = widget_box(canvas, area, "energy against rank", note, true);
    struct rect before = canvas_clip(canvas, inside);
    struct rect line = { inside.x + 1, inside.y, inside.width - 2, 1 };
    if (!isfinite(matrix->curve[0])) {
        curve_line(canvas, line, matrix->selected, matrix->energy, true);
        line.y += 2;
        canvas_text(canvas, line.x, line.y, line.width, STYLE_DIM, "this run tells no curve");
        canvas_restore(canvas, before);
        return;
    }
    bool shown = false;
    for (int i = 0; i < EVENT_CURVE_POINTS; i++) {
        int64_t rows = matrix->rows >> (EVENT_CURVE_POINTS - 1 - i);
        if (!shown && matrix->selected <= rows) {
            curve_line(canvas, line, matrix->selected, matrix->energy, true);
            line.y++;
            shown = true;
        }
        /* The same number of rows is not said twice where there is little room. */
        if (rows != matrix->selected || inside.height > EVENT_CURVE_POINTS) {
            curve_line(canvas, line, rows, matrix->curve[i], false);
            line.y++;
        }
    }
    if (line.y + 1 < inside.y + inside.height) {
        line.y++;
        canvas_printf(canvas, line.x, line.y, line.width, STYLE_DIM,
                      "the %" PRId64 " largest would hold %s", matrix->selected,
                      text_percent(layers_best(matrix, matrix->selected)).text);
    }
    canvas_restore(canvas, before);
}

/* ---- where the rows lie
 * --------------------------------------------------------------------------
 */

/* Upright bars, one for every bin or for several. */
static void draw_bars(struct canvas *canvas, struct rect area,
                      const double share[EVENT_HISTOGRAM_BINS], enum style style)
{
    int width = area.width < EVENT_HISTOGRAM_BINS ? area.width : EVENT_HISTOGRAM_BINS;
    for (int x = 0; x < width; x++) {
        double most = 0;
        int end = (x + 1) * EVENT_HISTOGRAM_BINS / width;
        for (int bin = x * EVENT_HISTOGRAM_BINS / width; bin < end; bin++) {
            most = fmax(most, share[bin]);
        }
        int eighths = (int)ceil(fmin(most, 1) * area.height * 8);
        for (int y = 0; y < area.height; y++) {
            int here = eighths - (area.height - 1 - y) * 8;
            uint32_t code = here >= 8 ? 0x2588 : 0x2580u + (uint32_t)(here < 0 ? 0 : here);
            if (canvas->glyphs == GLYPHS_ASCII) {
                code = here >= 4 ? '#' : here > 0 ? '.' : ' ';
            }
            canvas_put(canvas, area.x + x, area.y + y, here > 0 ? code : ' ', style);
        }
    }
}

static void draw_rows(const struct history_matrix *matrix, struct canvas *canvas, struct rect area)
{
    struct rect inside = widget_box(canvas, area, "where the selected lie", unit(matrix), false);
    struct rect before = canvas_clip(canvas, inside);
    int width = inside.width - 2;
    int bars = (inside.height - 3) / 2;
    int shown = width < EVENT_HISTOGRAM_BINS ? width : EVENT_HISTOGRAM_BINS;
    double share[EVENT_HISTOGRAM_BINS];
    int x = inside.x + 1;
    int y = inside.y;
    char last[24];
    for (int bin = 0; bin < EVENT_HISTOGRAM_BINS; bin++) {
        share[bin] = (double)matrix->level[bin] / HISTORY_LEVELS;
    }
    canvas_printf(canvas, x, y++, width, STYLE_DIM, "now: at most %" PRId64 " of %" PRId64 " a bin",
                  matrix->most, (matrix->rows + EVENT_HISTOGRAM_BINS - 1) / EVENT_HISTOGRAM_BINS);
    draw_bars(canvas, (struct rect){ x, y, width, bars }, share, STYLE_SERIES_1);
    y += bars;
    layers_often(matrix, share);
    canvas_printf(canvas, x, y++, width, STYLE_DIM,
                  "so far, over %zu refreshes:", matrix->choice_count);
    draw_bars(canvas, (struct rect){ x, y, width, bars }, share, STYLE_SERIES_2);
    y += bars;
    snprintf(last, sizeof(last), "%" PRId64, matrix->rows - 1);
    canvas_text(canvas, x, y, 1, STYLE_DIM, "0");
    canvas_text_right(canvas, x, y, shown, STYLE_DIM, last);
    canvas_restore(canvas, before);
}

/* ---- all refreshes
 * -------------------------------------------------------------------------------
 */

static float number_of(const struct history_choice *choice, int which)
{
    return which == 0 ? choice->energy : which == 1 ? choice->overlap : choice->coverage;
}

static void draw_refreshes(const struct history *history, const struct history_matrix *matrix,
                           struct canvas *canvas, struct rect area)
{
    static const struct {
        const char *label;
        char glyph;
        enum style style;
    } lines[3] = { { "energy", 'e', STYLE_SERIES_1 },
                   { "kept", 'k', STYLE_SERIES_2 },
                   { "ever", 'v', STYLE_SERIES_3 } };
    struct rect inside = widget_box(canvas, area, "over its refreshes", "0 to 100%", false);
    struct rect before = canvas_clip(canvas, inside);
    struct rect chart = { inside.x + 1, inside.y + 1, inside.width - 2, inside.height - 2 };
    int64_t count = (int64_t)matrix->choice_count;
    int x = inside.x + 1;
    struct plot plot;
    plot_begin(&plot, canvas, chart);
    plot_range(&plot, 0, 1, false);
    plot_steps(&plot, 1, count);
    for (int i = 2; i >= 0; i--) {
        struct series series = { 0 };
        for (int64_t k = 0; k < count; k++) {
            series_set(&series, k + 1, number_of(&matrix->choice[k], i));
        }
        plot_line(&plot, &series, lines[i].style, lines[i].glyph);
        series_free(&series);
    }
    plot_end(&plot);
    for (int i = 0; i < 3; i++) {
        double now = (double)number_of(&matrix->choice[count - 1], i);
        canvas_put(canvas, x, inside.y,
                   canvas->glyphs == GLYPHS_ASCII ? (uint32_t)(unsigned char)lines[i].glyph
                                                  : 0x25a0,
                   lines[i].style);
        x += 3 + canvas_printf(canvas, x + 2, inside.y, inside.x + inside.width - x - 2, STYLE_TEXT,
                               "%s %.0f%%", lines[i].label, isfinite(now) ? 100 * now : 0);
    }
    char text[40];
    int y = inside.y + inside.height - 1;
    snprintf(text, sizeof(text), "step %" PRId64, history->refresh[matrix->choice[0].refresh].step);
    canvas_text(canvas, inside.x + 1, y, inside.width - 2, STYLE_DIM, text);
    snprintf(text, sizeof(text), "step %" PRId64, matrix->step);
    canvas_text_right(canvas, inside.x + 1, y, inside.width - 2, STYLE_DIM, text);
    canvas_restore(canvas, before);
}

/* ---- numbers
 * -------------------------------------------------------------------------------------
 */

static void draw_strip(const struct history_matrix *matrix, struct canvas *canvas, struct rect line)
{
    int width = line.width < EVENT_HISTOGRAM_BINS ? line.width : EVENT_HISTOGRAM_BINS;
    for (int x = 0; x < width; x++) {
        int most = 0;
        int end = (x + 1) * EVENT_HISTOGRAM_BINS / width;
        for (int bin = x * EVENT_HISTOGRAM_BINS / width; bin < end; bin++) {
            most = matrix->level[bin] > most ? matrix->level[bin] : most;
        }
        canvas_put(canvas, line.x + x, line.y, layers_shade(canvas, (most * 4 + 14) / 15),
                   STYLE_SERIES_1);
    }
}

/* Its place among all matrices; 1 holds the largest share. */
static int place_of(const struct history *history, const struct history_matrix *matrix)
{
    int place = 1;
    for (size_t i = 0; i < history->matrix_count; i++) {
        place += history->matrix[i].energy > matrix->energy;
    }
    return place;
}

void screen_matrix_numbers(const struct workbench *workbench, struct canvas *canvas,
                           struct rect area)
{
    const struct history *history = &workbench->history;
    struct rect inside = widget_box(canvas, area, "matrix", NULL, false);
    struct rect before = canvas_clip(canvas, inside);
    struct rect line = { inside.x + 1, inside.y, inside.width - 2, 1 };
    if (history->matrix_count == 0) {
        canvas_restore(canvas, before);
        return;
    }
    const struct history_matrix *matrix = &history->matrix[layers_chosen(workbench)];
    bool tall = inside.height >= 16;
    canvas_printf(canvas, line.x, line.y++, line.width, STYLE_STRONG, "layer %d, %s", matrix->layer,
                  matrix->kind);
    canvas_text(canvas, line.x, line.y++, line.width, STYLE_DIM, matrix->tensor);
    line.y += tall;
    struct {
        const char *label;
        double share;
    } rows[] = { { "captured energy", matrix->energy },
                 { "best for as many", layers_best(matrix, matrix->selected) },
                 { "kept since last", matrix->overlap },
                 { "ever selected", matrix->coverage },
                 { "evenness of norms", history_evenness(matrix->entropy, matrix->rows) } };
    for (int i = 0; i < 5; i++) {
        canvas_text(canvas, line.x, line.y, 17, STYLE_TEXT, rows[i].label);
        canvas_text_right(canvas, line.x + 17, line.y++, 6, STYLE_STRONG,
                          text_percent(rows[i].share).text);
    }
    line.y += tall;
    canvas_printf(canvas, line.x, line.y++, line.width, STYLE_TEXT,
                  "%" PRId64 " of %" PRId64 " %s selected", matrix->selected, matrix->rows,
                  unit(matrix));
    canvas_printf(canvas, line.x, line.y++, line.width, STYLE_TEXT, "at step %" PRId64 ", rank %s",
                  matrix->step, matrix->rank >= 0 ? text_count((double)matrix->rank).text : "-");
    if (isfinite(matrix->energy)) {
        canvas_printf(canvas, line.x, line.y++, line.width, STYLE_TEXT, "place %d of %zu by energy",
                      place_of(history, matrix), history->matrix_count);
    }
    line.y += tall;
    canvas_text(canvas, line.x, line.y++, line.width, STYLE_DIM, "where they lie:");
    draw_strip(matrix, canvas, line);
    line.y++;
    char last[32];
    snprintf(last, sizeof(last), "%" PRId64, matrix->rows - 1);
    int width = line.width < EVENT_HISTOGRAM_BINS ? line.width : EVENT_HISTOGRAM_BINS;
    canvas_text(canvas, line.x, line.y, 1, STYLE_DIM, "0");
    canvas_text_right(canvas, line.x, line.y, width, STYLE_DIM, last);
    canvas_restore(canvas, before);
}

void screen_matrix(const struct workbench *workbench, struct canvas *canvas, struct rect body)
{
    const struct history *history = &workbench->history;
    const struct history_matrix *matrix = &history->matrix[layers_chosen(workbench)];
    struct rect rows[2];
    struct rect upper[2];
    struct rect lower[2];
    layout_rows(body, 50, rows);
    layout_columns(rows[0], 50, upper);
    layout_columns(rows[1], 50, lower);
    draw_curve(matrix, canvas, upper[0]);
    draw_rows(matrix, canvas, upper[1]);
    draw_refreshes(history, matrix, canvas, lower[0]);
    screen_matrix_numbers(workbench, canvas, lower[1]);
}
