/* Layers: for every matrix, how much of its gradient the selected rows hold. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "app/layout.h"
#include "app/text.h"
#include "app/widget/widget.h"
#include "app/workbench.h"

static const char *const kinds[] = { "q", "k", "v", "o", "gate", "up", "down" };
static const char *const views[] = { "captured energy", "kept since the last refresh",
                                     "ever selected" };
enum { KINDS = 7 };

static double value_of(const struct history_matrix *matrix, int view)
{
    return view == 0 ? matrix->energy : view == 1 ? matrix->overlap : matrix->coverage;
}

static int kind_column(const struct history_matrix *matrix)
{
    for (int i = 0; i < KINDS; i++) {
        if (strcmp(matrix->kind, kinds[i]) == 0) {
            return i;
        }
    }
    return -1;
}

/* Two digits and, where there is room, a shade: darker is more. */
static void heat_cell(struct canvas *canvas, int x, int y, int width, double value)
{
    static const uint32_t shades[2][5] = { { ' ', '.', ':', '*', '#' },
                                           { ' ', 0x2591, 0x2592, 0x2593, 0x2588 } };
    if (!isfinite(value)) {
        canvas_text_right(canvas, x, y, 3, STYLE_DIM, "-");
        return;
    }
    int level = (int)(value * 5);
    level = level < 0 ? 0 : level > 4 ? 4 : level;
    enum style style = (enum style)(STYLE_HEAT_0 + level);
    char text[16];
    snprintf(text, sizeof(text), "%.0f", fmin(fmax(value, -9), 9.99) * 100);
    canvas_text_right(canvas, x, y, 3, style, text);
    for (int i = 0; i < width - 5; i++) {
        canvas_put(canvas, x + 4 + i, y, shades[canvas->glyphs != GLYPHS_ASCII][level], style);
    }
}

static void draw_map(const struct workbench *workbench, struct canvas *canvas, struct rect area)
{
    const struct history *history = &workbench->history;
    char title[64];
    snprintf(title, sizeof(title), "%s, %%", views[workbench->view % 3]);
    struct rect inside = widget_box(canvas, area, title, "v changes", true);
    struct rect before = canvas_clip(canvas, inside);
    if (history->matrix_count == 0) {
        canvas_text(canvas, inside.x + 1, inside.y, inside.width - 2, STYLE_DIM,
                    history->step > 0 ? "this method selects no rows" : "no refresh yet");
        canvas_restore(canvas, before);
        return;
    }
    int width = (inside.width - 7) / KINDS;
    width = width > 10 ? 10 : width;
    for (int i = 0; i < KINDS; i++) {
        canvas_text(canvas, inside.x + 7 + i * width, inside.y, width - 1, STYLE_DIM, kinds[i]);
    }
    int chosen = workbench->cursor < (int)history->matrix_count ? workbench->cursor : 0;
    int layers = 0;
    for (size_t i = 0; i < history->matrix_count; i++) {
        layers = history->matrix[i].layer >= layers ? history->matrix[i].layer + 1 : layers;
    }
    int rows = inside.height - 1;
    int first = widget_scroll(history->matrix[chosen].layer, layers, rows);
    for (size_t i = 0; i < history->matrix_count; i++) {
        const struct history_matrix *matrix = &history->matrix[i];
        int row = matrix->layer - first;
        int column = kind_column(matrix);
        if (matrix->layer < 0 || column < 0 || row < 0 || row >= rows) {
            continue;
        }
        int x = inside.x + 6 + column * width;
        int y = inside.y + 1 + row;
        canvas_printf(canvas, inside.x + 1, y, 5, STYLE_DIM, "L%02d", matrix->layer);
        heat_cell(canvas, x, y, width, value_of(matrix, workbench->view % 3));
        if ((int)i == chosen) {
            canvas_restyle(canvas, (struct rect){ x, y, width - 1, 1 }, STYLE_CURSOR);
        }
    }
    canvas_restore(canvas, before);
}

/* Where in the matrix the selected rows lie: one column a bin. */
static void draw_histogram(const struct history_matrix *matrix, struct canvas *canvas,
                           struct rect line)
{
    static const uint32_t shades[2][5] = { { '.', ':', '+', '*', '#' },
                                           { 0x2591, 0x2592, 0x2593, 0x2593, 0x2588 } };
    int64_t most = 1;
    for (int i = 0; i < EVENT_HISTOGRAM_BINS; i++) {
        most = matrix->level[i] > most ? matrix->level[i] : most;
    }
    int width = line.width < EVENT_HISTOGRAM_BINS ? line.width : EVENT_HISTOGRAM_BINS;
    for (int x = 0; x < width; x++) {
        int64_t count = 0;
        int end = (x + 1) * EVENT_HISTOGRAM_BINS / width;
        for (int bin = x * EVENT_HISTOGRAM_BINS / width; bin < end; bin++) {
            count = matrix->level[bin] > count ? matrix->level[bin] : count;
        }
        double share = (double)count / (double)most;
        int level = share > 0.8 ? 4 : share > 0.6 ? 3 : share > 0.4 ? 2 : share > 0.2 ? 1 : 0;
        if (count > 0) {
            canvas_put(canvas, line.x + x, line.y, shades[canvas->glyphs != GLYPHS_ASCII][level],
                       STYLE_SERIES_1);
        }
    }
}

static void draw_detail(const struct workbench *workbench, struct canvas *canvas, struct rect area)
{
    const struct history *history = &workbench->history;
    struct rect inside = widget_box(canvas, area, "matrix", NULL, false);
    struct rect before = canvas_clip(canvas, inside);
    struct rect line = { inside.x + 1, inside.y, inside.width - 2, 1 };
    if (history->matrix_count == 0) {
        canvas_restore(canvas, before);
        return;
    }
    size_t chosen = workbench->cursor < (int)history->matrix_count ? (size_t)workbench->cursor : 0;
    const struct history_matrix *matrix = &history->matrix[chosen];
    canvas_printf(canvas, line.x, line.y++, line.width, STYLE_STRONG, "layer %d, %s", matrix->layer,
                  matrix->kind);
    canvas_text(canvas, line.x, line.y++, line.width, STYLE_DIM, matrix->tensor);
    line.y++;
    struct {
        const char *label;
        double share;
    } rows[] = { { "captured energy", matrix->energy },
                 { "kept since last", matrix->overlap },
                 { "ever selected", matrix->coverage } };
    for (int i = 0; i < 3; i++) {
        canvas_text(canvas, line.x, line.y, 16, STYLE_TEXT, rows[i].label);
        canvas_text_right(canvas, line.x + 16, line.y++, 7, STYLE_STRONG,
                          text_percent(rows[i].share).text);
    }
    line.y++;
    canvas_printf(canvas, line.x, line.y++, line.width, STYLE_TEXT,
                  "%" PRId64 " of %" PRId64 " %s selected", matrix->selected, matrix->rows,
                  strcmp(matrix->side, "in") == 0 ? "columns" : "rows");
    canvas_printf(canvas, line.x, line.y++, line.width, STYLE_TEXT, "entropy of norms %s nats",
                  text_loss(matrix->entropy).text);
    canvas_printf(canvas, line.x, line.y++, line.width, STYLE_TEXT, "chosen at step %" PRId64,
                  matrix->step);
    line.y++;
    canvas_text(canvas, line.x, line.y++, line.width, STYLE_DIM, "where they lie:");
    draw_histogram(matrix, canvas, line);
    line.y++;
    char last[32];
    snprintf(last, sizeof(last), "%" PRId64, matrix->rows - 1);
    int width = line.width < EVENT_HISTOGRAM_BINS ? line.width : EVENT_HISTOGRAM_BINS;
    canvas_text(canvas, line.x, line.y, 1, STYLE_DIM, "0");
    canvas_text_right(canvas, line.x, line.y, width, STYLE_DIM, last);
    canvas_restore(canvas, before);
}

void screen_layers(const struct workbench *workbench, struct canvas *canvas, struct rect body)
{
    struct rect columns[2];
    layout_columns(body, 66, columns);
    draw_map(workbench, canvas, columns[0]);
    draw_detail(workbench, canvas, columns[1]);
}
