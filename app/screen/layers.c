/* Layers: for every matrix, how much of its gradient the selected rows hold, whether they stay, and
 * where they lie. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "app/layout.h"
#include "app/screen/layers.h"
#include "app/text.h"
#include "app/widget/widget.h"

static const char *const kinds[] = { "q", "k", "v", "o", "gate", "up", "down" };
static const char *const views[LAYERS_VIEWS] = { "captured energy", "kept since the last refresh",
                                                 "ever selected",   "evenness of norms",
                                                 "rows now",        "rows so far" };
enum { KINDS = 7 };

static int kind_column(const struct history_matrix *matrix)
{
    for (int i = 0; i < KINDS; i++) {
        if (strcmp(matrix->kind, kinds[i]) == 0) {
            return i;
        }
    }
    return -1;
}

size_t layers_chosen(const struct workbench *workbench)
{
    size_t count = workbench->history.matrix_count;
    return workbench->cursor >= 0 && (size_t)workbench->cursor < count ? (size_t)workbench->cursor
                                                                       : 0;
}

uint32_t layers_shade(const struct canvas *canvas, int level)
{
    static const uint32_t shades[2][5] = { { ' ', '.', ':', '*', '#' },
                                           { ' ', 0x2591, 0x2592, 0x2593, 0x2588 } };
    return shades[canvas->glyphs != GLYPHS_ASCII][level < 0 ? 0 : level > 4 ? 4 : level];
}

/* Two digits and, where there is room, a shade: darker is more. */
static void heat_cell(struct canvas *canvas, int x, int y, int width, double value)
{
    if (!isfinite(value)) {
        canvas_text_right(canvas, x, y, 3, STYLE_DIM, "-");
        return;
    }
    int level = (int)(fmin(fmax(value, 0), 1) * 5);
    level = level > 4 ? 4 : level;
    enum style style = (enum style)(STYLE_HEAT_0 + level);
    char text[16];
    snprintf(text, sizeof(text), "%.0f", fmin(fmax(value, -9), 9.99) * 100);
    canvas_text_right(canvas, x, y, 3, style, text);
    for (int i = 0; i < width - 5; i++) {
        canvas_put(canvas, x + 4 + i, y, layers_shade(canvas, level), style);
    }
}

static int layer_count(const struct history *history)
{
    int layers = 0;
    for (size_t i = 0; i < history->matrix_count; i++) {
        layers = history->matrix[i].layer >= layers ? history->matrix[i].layer + 1 : layers;
    }
    return layers;
}

/* The mean of every kind, below its column. */
static void draw_means(const struct history *history, struct canvas *canvas, struct rect line,
                       int width, enum layers_view view)
{
    canvas_text(canvas, line.x, line.y, 5, STYLE_DIM, "mean");
    for (int column = 0; column < KINDS; column++) {
        double sum = 0;
        int count = 0;
        for (size_t i = 0; i < history->matrix_count; i++) {
            double value = layers_value(&history->matrix[i], view);
            if (kind_column(&history->matrix[i]) == column && isfinite(value)) {
                sum += value;
                count++;
            }
        }
        if (count > 0) {
            heat_cell(canvas, line.x + 5 + column * width, line.y, width, sum / count);
        }
    }
}

static void draw_map(const struct workbench *workbench, struct canvas *canvas, struct rect inside,
                     enum layers_view view)
{
    const struct history *history = &workbench->history;
    int width = (inside.width - 7) / KINDS;
    width = width > 10 ? 10 : width;
    for (int i = 0; i < KINDS; i++) {
        canvas_text(canvas, inside.x + 7 + i * width, inside.y, width - 1, STYLE_DIM, kinds[i]);
    }
    size_t chosen = layers_chosen(workbench);
    int layers = layer_count(history);
    int rows = inside.height - 1;
    if (layers > 1 && rows > 4) {
        rows--;
        int y = layers < rows ? inside.y + 1 + layers : inside.y + inside.height - 1;
        draw_means(history, canvas, (struct rect){ inside.x + 1, y, inside.width - 2, 1 }, width,
                   view);
    }
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
        heat_cell(canvas, x, y, width, layers_value(matrix, view));
        canvas_spot(canvas, (struct rect){ x, y, width, 1 }, TARGET_MATRIX, (int)i);
        if (i == chosen) {
            canvas_restyle(canvas, (struct rect){ x, y, width - 1, 1 }, STYLE_CURSOR);
        }
    }
}

void layers_often(const struct history_matrix *matrix, double share[EVENT_HISTOGRAM_BINS])
{
    double most = 0;
    memset(share, 0, EVENT_HISTOGRAM_BINS * sizeof(share[0]));
    for (size_t i = 0; i < matrix->choice_count; i++) {
        const struct history_choice *choice = &matrix->choice[i];
        for (int bin = 0; bin < EVENT_HISTOGRAM_BINS; bin++) {
            share[bin] += (double)choice->most * history_choice_level(choice, bin);
            most = fmax(most, share[bin]);
        }
    }
    for (int bin = 0; bin < EVENT_HISTOGRAM_BINS && most > 0; bin++) {
        share[bin] /= most;
    }
}

/* Where the selected rows of one kind of matrix lie, a line for every layer. */
static void draw_places(const struct workbench *workbench, struct canvas *canvas,
                        struct rect inside, enum layers_view view)
{
    const struct history *history = &workbench->history;
    size_t chosen = layers_chosen(workbench);
    const struct history_matrix *here = &history->matrix[chosen];
    int width = inside.width - 8 < EVENT_HISTOGRAM_BINS ? inside.width - 8 : EVENT_HISTOGRAM_BINS;
    int rows = inside.height - 1;
    int first = widget_scroll(here->layer, layer_count(history), rows);
    char last[24];
    snprintf(last, sizeof(last), "%" PRId64, here->rows - 1);
    canvas_printf(canvas, inside.x + 1, inside.y, 5, STYLE_STRONG, "%s", here->kind);
    canvas_text(canvas, inside.x + 7, inside.y, 1, STYLE_DIM, "0");
    canvas_text_right(canvas, inside.x + 7, inside.y, width, STYLE_DIM, last);
    for (size_t i = 0; i < history->matrix_count && width > 0; i++) {
        const struct history_matrix *matrix = &history->matrix[i];
        int y = inside.y + 1 + matrix->layer - first;
        if (strcmp(matrix->kind, here->kind) != 0 || matrix->layer < first ||
            matrix->layer >= first + rows) {
            continue;
        }
        double share[EVENT_HISTOGRAM_BINS];
        if (view == LAYERS_OFTEN) {
            layers_often(matrix, share);
        } else {
            for (int bin = 0; bin < EVENT_HISTOGRAM_BINS; bin++) {
                share[bin] = (double)matrix->level[bin] / HISTORY_LEVELS;
            }
        }
        canvas_printf(canvas, inside.x + 1, y, 5, i == chosen ? STYLE_CURSOR : STYLE_DIM, "L%02d",
                      matrix->layer);
        for (int x = 0; x < width; x++) {
            double most = 0;
            int end = (x + 1) * EVENT_HISTOGRAM_BINS / width;
            for (int bin = x * EVENT_HISTOGRAM_BINS / width; bin < end; bin++) {
                most = fmax(most, share[bin]);
            }
            int level = (int)ceil(most * 4);
            canvas_put(canvas, inside.x + 7 + x, y, layers_shade(canvas, level),
                       (enum style)(STYLE_HEAT_0 + level));
        }
    }
}

static void draw_view(const struct workbench *workbench, struct canvas *canvas, struct rect area,
                      enum layers_view view, bool focus)
{
    const struct history *history = &workbench->history;
    bool places = view == LAYERS_ROWS || view == LAYERS_OFTEN;
    char title[64];
    char note[64] = "";
    snprintf(title, sizeof(title), "%s%s", views[view], places ? "" : ", %");
    if (history->refresh_count > 0) {
        snprintf(note, sizeof(note), "refresh %zu, step %" PRId64, history->refresh_count,
                 history->refresh[history->refresh_count - 1].step);
    }
    struct rect inside = widget_box(canvas, area, title, note, focus);
    struct rect before = canvas_clip(canvas, inside);
    if (history->matrix_count == 0) {
        canvas_text(canvas, inside.x + 1, inside.y, inside.width - 2, STYLE_DIM,
                    history->step > 0 ? "this method selects no rows" : "no refresh yet");
    } else if (places) {
        draw_places(workbench, canvas, inside, view);
    } else {
        draw_map(workbench, canvas, inside, view);
    }
    canvas_restore(canvas, before);
}

/* ---- all matrices in a few sentences
 * -------------------------------------------------------------
 */

static double mean_of(double sum, int64_t count)
{
    return count > 0 ? sum / (double)count : (double)NAN;
}

static void draw_summary(const struct workbench *workbench, struct canvas *canvas, struct rect area)
{
    const struct history *history = &workbench->history;
    struct rect inside = widget_box(canvas, area, "all matrices", NULL, false);
    struct rect before = canvas_clip(canvas, inside);
    struct rect line = { inside.x + 1, inside.y, inside.width - 2, 1 };
    if (history->refresh_count > 0) {
        const struct history_refresh *first = &history->refresh[0];
        const struct history_refresh *last = &history->refresh[history->refresh_count - 1];
        canvas_printf(canvas, line.x, line.y++, line.width, STYLE_TEXT,
                      "mean captured energy %s (first refresh %s), kept %s, evenness %s",
                      text_percent(mean_of(last->energy_sum, last->energy_count)).text,
                      text_percent(mean_of(first->energy_sum, first->energy_count)).text,
                      text_percent(mean_of(last->overlap_sum, last->overlap_count)).text,
                      text_percent(mean_of(last->entropy_sum, last->entropy_count)).text);
        canvas_printf(canvas, line.x, line.y++, line.width, STYLE_TEXT,
                      "%s of all rows were never selected",
                      text_percent(1 - mean_of(last->coverage_sum, last->coverage_count)).text);
    }
    int low = 0;
    int64_t more = 0;
    for (size_t i = 0; i < history->matrix_count; i++) {
        const struct history_matrix *matrix = &history->matrix[i];
        low += matrix->energy < 0.7;
        more += isfinite(layers_best(matrix, 2 * matrix->selected)) &&
                layers_best(matrix, 2 * matrix->selected) - matrix->energy > 0.1;
    }
    canvas_printf(canvas, line.x, line.y++, line.width, STYLE_TEXT,
                  "%d of %zu matrices hold less than 70%%: o walks from the worst one up", low,
                  history->matrix_count);
    if (more > 0) {
        canvas_printf(canvas, line.x, line.y++, line.width, STYLE_TEXT,
                      "with twice the rows %" PRId64 " of them would hold over 10 points more",
                      more);
    }
    canvas_restore(canvas, before);
}

void screen_layers(const struct workbench *workbench, struct canvas *canvas, struct rect body)
{
    const struct history *history = &workbench->history;
    enum layers_view view = (enum layers_view)(workbench->view % LAYERS_VIEWS);
    if (workbench->detail && history->matrix_count > 0) {
        screen_matrix(workbench, canvas, body);
        return;
    }
    if (body.height >= 28 && history->matrix_count > 0) {
        struct rect below = { body.x, body.y + body.height - 6, body.width, 6 };
        draw_summary(workbench, canvas, below);
        body.height -= 6;
    }
    struct rect columns[2];
    layout_columns(body, 66, columns);
    if (columns[0].width >= 120) {
        /* Room for two maps: the chosen view, and the one that v shows next. */
        struct rect maps[2];
        layout_split(columns[0], 2, maps);
        draw_view(workbench, canvas, maps[0], view, true);
        draw_view(workbench, canvas, maps[1], (enum layers_view)((view + 1) % LAYERS_VIEWS), false);
    } else {
        draw_view(workbench, canvas, columns[0], view, true);
    }
    screen_matrix_numbers(workbench, canvas, columns[1]);
}
