/*
 * What a live change does: predicted before it is applied, measured after it.
 *
 * Memory and FLOPs of a change come from the run's own plan. Speed is what was measured lately,
 * scaled by the FLOPs of the mean step (refreshes counted in), so it is an upper bound where memory
 * traffic and not arithmetic takes the time. The captured energy comes from the curves of the
 * latest refresh: the share of the squared gradient norm that a share of the rows can hold.
 */
#ifndef WINDROW_APP_TUNE_EFFECT_H
#define WINDROW_APP_TUNE_EFFECT_H

#include "app/history.h"

struct tune_row;

/* NaN: unknown. */
struct tune_prediction {
    double speed_now; /* tokens per second */
    double speed_then;
    double energy_now; /* shares */
    double energy_then;
    double worst_then;  /* the matrix that would keep least */
    bool energy_bounds; /* energy_then is what the best rows could hold, not what is expected */
};
void tune_predict(const struct history *history, const struct tune_row *row,
                  struct tune_prediction *out);

/* Before a change and after it: up to 50 steps each, never across another change. */
struct tune_outcome {
    double loss[2];
    double speed[2];
    double energy[2];
    int64_t bytes[2]; /* highest measured peak; -1: none */
};
void tune_measure(const struct history *history, int64_t step, struct tune_outcome *out);

/* The newest change that was not taken back since: index into history->setting, -1: none. */
int64_t tune_undoable(const struct history *history);

/* The share that the best `share` of the rows hold, between the points of a curve (1/64, 1/32 ...
 * 1/2, all) by the logarithm of the share; NaN without a curve. */
double tune_energy_at(const double curve[EVENT_CURVE_POINTS], double share);

#endif
