/* Numbers per step with a min/mean/max pyramid. */
#include "app/series.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/xalloc.h"

enum { STEP_JUMP_MAX = 10000000 };

void series_free(struct series *series)
{
    free(series->value);
    for (int level = 0; level < SERIES_LEVELS; level++) {
        free(series->node[level]);
    }
    memset(series, 0, sizeof(*series));
}

static void node_join(struct series_node *node, const struct series_node *other)
{
    if (other->count == 0) {
        return;
    }
    if (node->count == 0) {
        *node = *other;
        return;
    }
    node->minimum = other->minimum < node->minimum ? other->minimum : node->minimum;
    node->maximum = other->maximum > node->maximum ? other->maximum : node->maximum;
    node->sum += other->sum;
    node->count += other->count;
}

static struct series_node node_of_value(float value)
{
    if (!isfinite(value)) {
        return (struct series_node){ 0 };
    }
    return (struct series_node){ value, value, (double)value, 1 };
}

/* Nodes of a level that lie fully or partly below `count` values. */
static size_t level_count(size_t count, int level)
{
    size_t width = (size_t)1 << (2 * (level + 1));
    return (count + width - 1) / width;
}

static struct series_node child(const struct series *series, int level, size_t index)
{
    if (level < 0) {
        return node_of_value(series->value[index]);
    }
    return series->node[level][index];
}

/* Recomputes the last node of every level from its (at most four) children. */
static void refresh_tail(struct series *series)
{
    size_t below = series->count;
    for (int level = 0; level < SERIES_LEVELS && below > 1; level++) {
        size_t nodes = level_count(series->count, level);
        if (nodes > series->node_capacity[level]) {
            size_t capacity = nodes * 2 + 4;
            series->node[level] =
                xrealloc(series->node[level], capacity * sizeof(struct series_node));
            series->node_capacity[level] = capacity;
        }
        struct series_node node = { 0 };
        for (size_t i = (nodes - 1) * SERIES_FACTOR; i < below; i++) {
            struct series_node part = child(series, level - 1, i);
            node_join(&node, &part);
        }
        series->node[level][nodes - 1] = node;
        below = nodes;
    }
}

static void append(struct series *series, float value)
{
    if (series->count == series->capacity) {
        series->capacity = series->capacity * 2 + 64;
        series->value = xrealloc(series->value, series->capacity * sizeof(float));
    }
    series->value[series->count++] = value;
    refresh_tail(series);
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
        if (series->count > 0) {
            refresh_tail(series);
        }
    }
}

/* Whether the whole node lies inside the values there are: only then are its children complete. */
static void collect(const struct series *series, size_t first, size_t end,
                    struct series_node *total)
{
    while (first < end) {
        int level = -1;
        size_t width = 1;
        while (level + 1 < SERIES_LEVELS && first % (width * SERIES_FACTOR) == 0 &&
               first + width * SERIES_FACTOR <= end && series->node[level + 1]) {
            width *= SERIES_FACTOR;
            level++;
        }
        struct series_node part = child(series, level, first / width);
        node_join(total, &part);
        first += width;
    }
}

struct series_range series_look(const struct series *series, int64_t first, int64_t last)
{
    struct series_node total = { 0 };
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
