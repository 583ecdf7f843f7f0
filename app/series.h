/*
 * A number per step, with a pyramid over it: the lowest level summarises 16 values a node, each
 * higher one four nodes of the level below, so that the smallest, the mean and the largest value of
 * any range of steps are found in a few dozen look-ups, and a single spike among a million steps is
 * never lost on a chart 100 columns wide. Values that are not finite are gaps: they are kept and
 * never enter a summary.
 *
 * A node is made when the last of its values arrives and never read before: 5.4 bytes a value in
 * all. A copy of the struct with a smaller `count` is the series as it was then.
 */
#ifndef WINDROW_APP_SERIES_H
#define WINDROW_APP_SERIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SERIES_LEAF = 16, SERIES_FACTOR = 4, SERIES_LEVELS = 12 };

struct series_node {
    float minimum;
    float maximum;
    float mean;
    uint32_t count; /* finite values below; 0: the rest means nothing */
};

struct series {
    float *value; /* of steps 1 .. count */
    size_t count;
    size_t capacity;
    struct series_node *node[SERIES_LEVELS];
    size_t node_capacity[SERIES_LEVELS];
};

/* What a range of steps holds. */
struct series_range {
    double minimum;
    double mean;
    double maximum;
    int64_t count; /* finite values; 0: nothing to show */
};

void series_free(struct series *series);

/* Sets the value of `step` (from 1). Steps in between are gaps; an earlier step cuts the series
 * back to it first (the run went back to a checkpoint). Steps far beyond the end (more than two
 * million) are refused: returns false. */
bool series_set(struct series *series, int64_t step, float value);

/* Forgets everything after `step`. */
void series_cut(struct series *series, int64_t step);

/* Steps first .. last, both included. */
struct series_range series_look(const struct series *series, int64_t first, int64_t last);

/* NaN outside. */
float series_at(const struct series *series, int64_t step);

#endif
