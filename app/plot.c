/* Charts of dots. */
#include "app/plot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/xalloc.h"

/* Braille dot numbers of a cell by (y, x), as bits above U+2800. */
static const unsigned char braille_bits[4][2] = {
    { 0x01, 0x08 }, { 0x02, 0x10 }, { 0x04, 0x20 }, { 0x40, 0x80 }
};

/* Quadrant glyphs by bits: 1 upper left, 2 upper right, 4 lower left, 8 lower right. */
static const uint32_t quadrants[16] = { ' ',    0x2598, 0x259d, 0x2580, 0x2596, 0x258c,
                                        0x259e, 0x259b, 0x2597, 0x259a, 0x2590, 0x259c,
                                        0x2584, 0x2599, 0x259f, 0x2588 };

void plot_begin(struct plot *plot, struct canvas *canvas, struct rect area)
{
    memset(plot, 0, sizeof(*plot));
    plot->canvas = canvas;
    plot->area = area;
    plot->dots_x = canvas->glyphs == GLYPHS_ASCII ? 1 : 2;
    plot->dots_y = canvas->glyphs == GLYPHS_BRAILLE ? 4 : canvas->glyphs == GLYPHS_BLOCK ? 2 : 1;
    plot->high = 1;
    plot->first = 1;
    plot->last = 1;
    if (area.width > 0 && area.height > 0) {
        plot->bits = xcalloc((size_t)area.width * (size_t)area.height, 1);
    }
}

void plot_end(struct plot *plot)
{
    free(plot->bits);
    plot->bits = NULL;
}

void plot_range(struct plot *plot, double low, double high, bool logarithmic)
{
    if (!isfinite(low) || !isfinite(high)) {
        low = 0;
        high = 1;
    }
    if (low > high) {
        double other = low;
        low = high;
        high = other;
    }
    if (high - low <= fabs(high) * 1e-9) {
        double margin = high == 0 ? 1 : fabs(high) * 0.05;
        low -= margin;
        high += margin;
    }
    plot->logarithmic = logarithmic && low > 0;
    plot->low = low;
    plot->high = high;
}

void plot_steps(struct plot *plot, int64_t first, int64_t last)
{
    plot->first = first < 1 ? 1 : first;
    plot->last = last < plot->first ? plot->first : last;
}

/* Row of dots from the top; values outside the range are held at its edge. NaN: -1. */
static int dot_row(const struct plot *plot, double value)
{
    int rows = plot->area.height * plot->dots_y;
    if (!isfinite(value)) {
        return -1;
    }
    double share = plot->logarithmic ? (log(fmax(value, 1e-300)) - log(plot->low)) /
                                           (log(plot->high) - log(plot->low))
                                     : (value - plot->low) / (plot->high - plot->low);
    share = share < 0 ? 0 : share > 1 ? 1 : share;
    int row = (int)lround((1 - share) * (double)(rows - 1));
    return row;
}

static void set_dots(struct plot *plot, int dot_x, int from, int to)
{
    if (from > to) {
        int other = from;
        from = to;
        to = other;
    }
    int column = dot_x / plot->dots_x;
    int right = dot_x % plot->dots_x;
    for (int dot_y = from; dot_y <= to; dot_y++) {
        int row = dot_y / plot->dots_y;
        int below = dot_y % plot->dots_y;
        unsigned bit = 1;
        if (plot->dots_y == 4) {
            bit = braille_bits[below][right];
        } else if (plot->dots_y == 2) {
            bit = 1u << (below * 2 + right);
        }
        size_t index = (size_t)row * (size_t)plot->area.width + (size_t)column;
        plot->bits[index] = (unsigned char)(plot->bits[index] | bit);
    }
}

/* Steps that fall on a column of dots; false if it lies between two steps and has none. */
static bool column_steps(const struct plot *plot, int dot_x, int64_t *first, int64_t *last)
{
    double columns = (double)plot->area.width * plot->dots_x;
    double steps = (double)(plot->last - plot->first + 1);
    double begin = (double)dot_x * steps / columns;
    double end = (double)(dot_x + 1) * steps / columns;
    *first = plot->first + (int64_t)ceil(begin - 1e-9);
    *last = plot->first + (int64_t)ceil(end - 1e-9) - 1;
    return *last >= *first;
}

/* Writes the collected dots as glyphs and forgets them. */
static void flush(struct plot *plot, enum style style, char ascii)
{
    for (int y = 0; y < plot->area.height; y++) {
        for (int x = 0; x < plot->area.width; x++) {
            size_t index = (size_t)y * (size_t)plot->area.width + (size_t)x;
            unsigned char bits = plot->bits[index];
            plot->bits[index] = 0;
            if (bits == 0) {
                continue;
            }
            uint32_t code = plot->dots_y == 4   ? 0x2800u + bits
                            : plot->dots_y == 2 ? quadrants[bits & 15]
                                                : (uint32_t)(unsigned char)ascii;
            canvas_put(plot->canvas, plot->area.x + x, plot->area.y + y, code, style);
        }
    }
}

void plot_band(struct plot *plot, const struct series *series, enum style style)
{
    if (!plot->bits) {
        return;
    }
    for (int x = 0; x < plot->area.width * plot->dots_x; x++) {
        int64_t first;
        int64_t last;
        if (!column_steps(plot, x, &first, &last)) {
            continue;
        }
        struct series_range range = series_look(series, first, last);
        if (range.count > 0) {
            set_dots(plot, x, dot_row(plot, range.maximum), dot_row(plot, range.minimum));
        }
    }
    flush(plot, style, '.');
}

void plot_line(struct plot *plot, const struct series *series, enum style style, char ascii)
{
    int before = -1;
    int before_x = -1;
    if (!plot->bits) {
        return;
    }
    for (int x = 0; x < plot->area.width * plot->dots_x; x++) {
        int64_t first;
        int64_t last;
        if (!column_steps(plot, x, &first, &last)) {
            continue;
        }
        struct series_range range = series_look(series, first, last);
        int row = range.count > 0 ? dot_row(plot, range.mean) : -1;
        if (row >= 0 && before >= 0) {
            /* Straight dots between two columns; with one dot a cell only the points themselves. */
            int steps = x - before_x;
            for (int i = 1; i <= steps; i++) {
                int from = before + (row - before) * (i - 1) / steps;
                int to = before + (row - before) * i / steps;
                if (to != from) {
                    from += to > from ? 1 : -1;
                }
                set_dots(plot, before_x + i, from, to);
            }
        } else if (row >= 0) {
            set_dots(plot, x, row, row);
        }
        before = row;
        before_x = x;
    }
    flush(plot, style, ascii);
}

int plot_column(const struct plot *plot, int64_t step)
{
    if (step < plot->first || step > plot->last || plot->area.width < 1) {
        return -1;
    }
    double share = (double)(step - plot->first) / (double)(plot->last - plot->first + 1);
    return plot->area.x + (int)(share * plot->area.width);
}

void plot_point(struct plot *plot, int64_t step, double value, char glyph, enum style style)
{
    int x = plot_column(plot, step);
    int row = dot_row(plot, value);
    if (x >= 0 && row >= 0 && plot->area.height > 0) {
        canvas_put(plot->canvas, x, plot->area.y + row / plot->dots_y,
                   (uint32_t)(unsigned char)glyph, style);
    }
}
