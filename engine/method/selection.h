/* Statistics of a choice of rows (or columns) of one matrix. */
#ifndef WINDROW_ENGINE_METHOD_SELECTION_H
#define WINDROW_ENGINE_METHOD_SELECTION_H

#include <stdint.h>

#include "kernels/ops.h"

enum { SELECTION_BINS = 64, SELECTION_CURVE = 7 };

struct selection_report {
    const char *tensor; /* Hugging Face name */
    enum side side;
    int64_t candidates;     /* rows (or columns) of the matrix: n */
    int64_t selected;       /* distinct ones chosen */
    double overlap;         /* |old and new| / |old or new|; NaN at the first choice */
    double captured_energy; /* sum of chosen squared norms / sum of all; NaN if all are 0 */
    double coverage;        /* share of candidates chosen at least once so far */
    double entropy;         /* -sum p ln p, p = squared norm / sum; NaN if all are 0 */
    /* What a rank of 1/64, 1/32 ... 1/2, all of the candidates could hold at best: the share of the
     * squared norms in so many of the largest. NaN if all are 0. */
    double curve[SELECTION_CURVE];
    int64_t histogram[SELECTION_BINS]; /* chosen ones; candidate i falls into bin i * 64 / n */
};

/* `rank * dimension / hidden_size` rounded half up, at least 1, at most all. */
int64_t selection_share(int64_t rank, int64_t dimension, int64_t hidden_size);

/* Fills overlap, energy, coverage, entropy, curve, histogram and selected. `chosen` and `before`
 * are ascending, `before_count` 0 at the first choice; `seen` (candidates) flags are set. */
struct selection_input {
    const float *squared_norms; /* (candidates) */
    int64_t candidates;
    const int32_t *chosen;
    int64_t chosen_count;
    const int32_t *before;
    int64_t before_count;
    uint8_t *seen;
    float *sorted; /* (candidates) scratch, of undefined contents afterwards; NULL: no curve */
};
void selection_measure(const struct selection_input *input, struct selection_report *report);

#endif
