/* Numbers per step with a min/mean/max pyramid. */
#include "app/series.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/xalloc.h"

enum { STEP_JUMP_MAX = 2000000 };

void series_free(struct series *series)
{
    free(series->value);
    for (int level = 0; level < SERIES_LEVELS; level++) {
        free(series->node[level]);
    }
    memset(series, 0, sizeof(*series));
}

/* A range while it is summed up. */
struct summary {
    float minimum;
    float maximum;
    double sum;
    int64_t count;
};

static void take_value(struct summary *summary, float value)
{
    if (!isfinite(value)) {
        return;
    }
    if (summary->count == 0 || value < summary->minimum) {
        summary->minimum = value;
    }
    if (summary->count == 0 || value > summary->maximum) {
        summary->maximum = value;
    }
    summary->sum += (double)value;
    summary->count++;
}

static void take_node(struct summary *summary, const struct series_node *node)
{
    if (node->count == 0) {
        return;
    }
    if (summary->count == 0 || node->minimum < summary->minimum) {
        summary->minimum = node->minimum;
    }
    if (summary->count == 0 || node->maximum > summary->maximum) {
        summary->maximum = node->maximum;
    }
    summary->sum += (double)node->mean * (double)node->count;
    summary->count += node->count;
}

/* Makes the node of a level whose last value has just arrived. */
static void complete(struct series *series, int level, size_t index)
{
    struct summary summary = { 0 };
    if (index >= series->node_capacity[level]) {
        size_t capacity = index * 2 + 4;
        series->node[level] = xrealloc(series->node[level], capacity * sizeof(struct series_node));
        series->node_capacity[level] = capacity;
    }
    if (level == 0) {
        for (size_t i = index * SERIES_LEAF; i < (index + 1) * SERIES_LEAF; i++) {
            take_value(&summary, series->value[i]);
        }
    } else {
        for (size_t i = index * SERIES_FACTOR; i < (index + 1) * SERIES_FACTOR; i++) {
            take_node(&summary, &series->node[level - 1][i]);
        }
    }
    series->node[level][index] = (struct series_node){
        .minimum = summary.minimum,
        .maximum = summary.maximum,
        .mean = summary.count > 0 ? (float)(summary.sum / (double)summary.count) : 0,
        .count = (uint32_t)summary.count,
    };
}

static void append(struct series *series, float value)
{
    if (series->count == series->capacity) {
        series->capacity = series->capacity * 2 + 64;
        series->value = xrealloc(series->value, series->capacity * sizeof(float));
    }
    series->value[series->count++] = value;
    size_t width = SERIES_LEAF;
    for (int level = 0; level < SERIES_LEVELS && series->count % width == 0; level++) {
        complete(series, level, series->count / width - 1);
        width *= SERIES_FACTOR;
    }
}

bool series_set(struct series *series, int64_t step, float value)
{
    if (step < 1 || step - (int64_t)series->count > STEP_JUMP_MAX) {
        return false;
    }
    if (step <= (int64_t)series->count) {
        series_cut(series, step - 1);
    }
    while ((int64_t)series->count < step - 1) {
        append(series, NAN);
    }
    append(series, value);
    return true;
}

void series_cut(struct series *series, int64_t step)
{
    if (step < 0) {
        step = 0;
    }
    if (step < (int64_t)series->count) {
        series->count = (size_t)step;
    }
}

/* Values first .. end - 1, by the largest nodes that lie fully inside. */
static void collect(const struct series *series, size_t first, size_t end, struct summary *total)
{
    while (first < end) {
        int level = -1;
        size_t width = 1;
        size_t wider = SERIES_LEAF;
        while (level + 1 < SERIES_LEVELS && first % wider == 0 && first + wider <= end) {
            level++;
            width = wider;
            wider *= SERIES_FACTOR;
        }
        if (level < 0) {
            take_value(total, series->value[first]);
        } else {
            take_node(total, &series->node[level][first / width]);
        }
        first += width;
    }
}

struct series_range series_look(const struct series *series, int64_t first, int64_t last)
{
    struct summary total = { 0 };
    first = first < 1 ? 1 : first;
    last = last > (int64_t)series->count ? (int64_t)series->count : last;
    if (first <= last) {
        collect(series, (size_t)(first - 1), (size_t)last, &total);
    }
    if (total.count == 0) {
        return (struct series_range){ NAN, NAN, NAN, 0 };
    }
    return (struct series_range){ (double)total.minimum, total.sum / (double)total.count,
                                  (double)total.maximum, total.count };
}

float series_at(const struct series *series, int64_t step)
{
    return step >= 1 && step <= (int64_t)series->count ? series->value[step - 1] : NAN;
}
