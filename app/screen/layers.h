/* What the map of all matrices and the page of one matrix share. */
#ifndef WINDROW_APP_SCREEN_LAYERS_H
#define WINDROW_APP_SCREEN_LAYERS_H

#include "app/workbench.h"

/* Index of the matrix under the cursor. */
size_t layers_chosen(const struct workbench *workbench);
/* A glyph for level 0 .. 4; darker is more. */
uint32_t layers_shade(const struct canvas *canvas, int level);
/* How often rows of each bin were selected so far, as a share of the bin selected most. */
void layers_often(const struct history_matrix *matrix, double share[EVENT_HISTOGRAM_BINS]);
/* Share of the energy that the best `rows` rows could hold, between the points of the curve on a
 * logarithmic axis; NaN if the run tells no curve or `rows` is below its first point. */
double layers_best(const struct history_matrix *matrix, int64_t rows);

/* The page of the chosen matrix, and the pane of its numbers. */
void screen_matrix(const struct workbench *workbench, struct canvas *canvas, struct rect body);
void screen_matrix_numbers(const struct workbench *workbench, struct canvas *canvas,
                           struct rect area);

#endif
