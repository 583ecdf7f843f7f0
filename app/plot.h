/*
 * Charts of dots: 2x4 a cell with braille, 2x2 with block quadrants, 1x1 with ASCII.
 *
 * Series are drawn one after the other; a later one replaces the cells of an earlier one instead of
 * mixing colours in a cell. Values that are not finite leave a gap.
 */
#ifndef WINDROW_APP_PLOT_H
#define WINDROW_APP_PLOT_H

#include "app/canvas.h"
#include "app/series.h"

struct plot {
    struct canvas *canvas;
    struct rect area;
    int dots_x; /* dots a cell */
    int dots_y;
    double low; /* value at the bottom and at the top */
    double high;
    bool logarithmic;
    int64_t first; /* step at the left edge and at the right one */
    int64_t last;
    unsigned char *bits; /* one byte a cell, for the series being drawn */
};

/* Begins a chart; low < high, both positive if logarithmic (else it becomes linear). An empty or
 * not finite range is widened. */
void plot_begin(struct plot *plot, struct canvas *canvas, struct rect area);
void plot_range(struct plot *plot, double low, double high, bool logarithmic);
void plot_steps(struct plot *plot, int64_t first, int64_t last);
void plot_end(struct plot *plot);

/* From the smallest to the largest value of every column. */
void plot_band(struct plot *plot, const struct series *series, enum style style);
/* A line through the means. `ascii` is its glyph in the ASCII set. */
void plot_line(struct plot *plot, const struct series *series, enum style style, char ascii);
/* One glyph at a step and value. */
void plot_point(struct plot *plot, int64_t step, double value, char glyph, enum style style);
/* Column of the canvas for a step; -1 outside. */
int plot_column(const struct plot *plot, int64_t step);

#endif
