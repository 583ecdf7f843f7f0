/* Predictions and measurements of live changes. */
#include "app/tune_effect.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/workbench.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"

enum { SPAN_STEPS = 50 };

double tune_energy_at(const double curve[EVENT_CURVE_POINTS], double share)
{
    enum { LAST = EVENT_CURVE_POINTS - 1 };
    if (!isfinite(share) || share <= 0 || !isfinite(curve[LAST])) {
        return (double)NAN;
    }
    /* Point i is at the share 2^(i - LAST). */
    double at = LAST + log2(fmin(share, 1));
    if (at <= 0) {
        return curve[0] * share * 64;
    }
    int below = (int)at < LAST ? (int)at : LAST - 1;
    double part = at - below;
    return curve[below] * (1 - part) + curve[below + 1] * part;
}

static bool number_now(const struct history *history, const char *key, double *out)
{
    char text[TUNE_VALUE_SIZE];
    return history_setting_now(history, key, text, sizeof(text)) && text_to_double(text, out);
}

/* FLOPs of the mean step: one of `interval` steps chooses rows. */
static double mean_flops(double step, double refresh, double interval)
{
    if (step <= 0) {
        return (double)NAN;
    }
    return refresh <= 0 || interval < 1 ? step : step + (refresh - step) / interval;
}

static void predict_speed(const struct history *history, const struct tune_row *row,
                          struct tune_prediction *out)
{
    double interval = 1;
    double after = 1;
    number_now(history, "method.interval", &interval);
    after = interval;
    if (strcmp(row->field->key, "method.interval") == 0) {
        text_to_double(row->staged, &after);
    }
    double now = mean_flops(row->flops_now, row->refresh_flops_now, interval);
    double then = mean_flops(row->flops, row->refresh_flops, after);
    struct series_range recent =
        series_look(&history->tokens_per_second, history->step - SPAN_STEPS + 1, history->step);
    out->speed_now = recent.mean;
    out->speed_then = recent.mean * now / then;
}

/* What the rule that is named would keep of a matrix, from its curve. */
static double matrix_energy(const struct history_matrix *matrix, const char *rule, double share,
                            bool *bounds)
{
    double best = tune_energy_at(matrix->curve, share);
    if (strcmp(rule, "uniform") == 0) {
        return isfinite(best) ? fmin(share, 1) : (double)NAN;
    }
    *bounds |= strcmp(rule, "top") != 0;
    return best;
}

static void predict_energy(const struct history *history, const struct tune_row *row,
                           struct tune_prediction *out)
{
    char rule[TUNE_VALUE_SIZE] = "top";
    double rank = 0;
    double factor = 1;
    history_setting_now(history, "method.selection", rule, sizeof(rule));
    if (strcmp(row->field->key, "method.rank") == 0 && number_now(history, "method.rank", &rank) &&
        rank > 0) {
        double then = rank;
        text_to_double(row->staged, &then);
        factor = then / rank;
    } else if (strcmp(row->field->key, "method.selection") == 0) {
        snprintf(rule, sizeof(rule), "%s", row->staged);
    } else {
        return;
    }
    double now = 0;
    double sum = 0;
    double worst = INFINITY;
    int64_t count = 0;
    for (size_t i = 0; i < history->matrix_count; i++) {
        const struct history_matrix *matrix = &history->matrix[i];
        if (matrix->rows <= 0 || !isfinite(matrix->energy)) {
            continue;
        }
        double share = (double)matrix->selected * factor / (double)matrix->rows;
        double kept = matrix_energy(matrix, rule, share, &out->energy_bounds);
        if (isfinite(kept)) {
            now += matrix->energy;
            sum += kept;
            worst = fmin(worst, kept);
            count++;
        }
    }
    if (count > 0) {
        out->energy_now = now / (double)count;
        out->energy_then = sum / (double)count;
        out->worst_then = worst;
    }
}

void tune_predict(const struct history *history, const struct tune_row *row,
                  struct tune_prediction *out)
{
    *out = (struct tune_prediction){ (double)NAN, (double)NAN, (double)NAN,
                                     (double)NAN, (double)NAN, false };
    predict_speed(history, row, out);
    predict_energy(history, row, out);
}

/* ---- afterwards --------------------------------------------------------------------------------
 */

/* Steps from the change before this one to the change after it, both left out. */
static void span_of(const struct history *history, int64_t step, int64_t *first, int64_t *last)
{
    *first = 1;
    *last = history->step;
    for (size_t i = 0; i < history->setting_count; i++) {
        int64_t other = history->setting[i].step;
        *first = other < step && other > *first ? other : *first;
        *last = other > step && other - 1 < *last ? other - 1 : *last;
    }
}

/* The highest peak measured from step `first` until step `last`; -1 if there is none. */
static int64_t measured_between(const struct history *history, int64_t first, int64_t last)
{
    int64_t bytes = -1;
    for (size_t i = 0; i < history->memories_count; i++) {
        const struct history_memory *memory = &history->memories[i];
        if (memory->step >= first && memory->step <= last && memory->total_bytes > bytes) {
            bytes = memory->total_bytes;
        }
    }
    return bytes;
}

/* Mean captured energy of the refreshes of a span. */
static double energy_between(const struct history *history, int64_t first, int64_t last)
{
    double sum = 0;
    int64_t count = 0;
    for (size_t i = 0; i < history->refresh_count; i++) {
        const struct history_refresh *refresh = &history->refresh[i];
        if (refresh->step >= first && refresh->step <= last) {
            sum += refresh->energy_sum;
            count += refresh->energy_count;
        }
    }
    return count > 0 ? sum / (double)count : (double)NAN;
}

void tune_measure(const struct history *history, int64_t step, struct tune_outcome *out)
{
    int64_t first;
    int64_t last;
    span_of(history, step, &first, &last);
    int64_t begin[2] = { first, step };
    int64_t end[2] = { step - 1, last };
    for (int i = 0; i < 2; i++) {
        /* The steps nearest to the change tell most about it. */
        int64_t from =
            i == 0 && end[0] - SPAN_STEPS + 1 > begin[0] ? end[0] - SPAN_STEPS + 1 : begin[i];
        int64_t to =
            i == 1 && begin[1] + SPAN_STEPS - 1 < end[1] ? begin[1] + SPAN_STEPS - 1 : end[i];
        out->loss[i] = series_look(&history->loss, from, to).mean;
        out->speed[i] = series_look(&history->tokens_per_second, from, to).mean;
        out->energy[i] = energy_between(history, begin[i], end[i]);
        out->bytes[i] = measured_between(history, begin[i], end[i]);
    }
}

int64_t tune_undoable(const struct history *history)
{
    if (history->setting_count == 0) {
        return -1;
    }
    size_t *stack = xcalloc(history->setting_count, sizeof(stack[0]));
    size_t depth = 0;
    for (size_t i = 0; i < history->setting_count; i++) {
        const struct history_setting *now = &history->setting[i];
        const struct history_setting *top = depth > 0 ? &history->setting[stack[depth - 1]] : NULL;
        if (top && strcmp(top->key, now->key) == 0 && strcmp(top->from, now->to) == 0 &&
            strcmp(top->to, now->from) == 0) {
            depth--; /* this one took the one before it back */
        } else {
            stack[depth++] = i;
        }
    }
    int64_t found = depth > 0 ? (int64_t)stack[depth - 1] : -1;
    free(stack);
    return found;
}
