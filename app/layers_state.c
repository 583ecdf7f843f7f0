/* The Layers screen's part of the reducer: which matrix, which view of it. */
#include <math.h>
#include <string.h>

#include "app/workbench.h"

double layers_value(const struct history_matrix *matrix, enum layers_view view)
{
    switch (view) {
    case LAYERS_OVERLAP:
        return matrix->overlap;
    case LAYERS_COVERAGE:
        return matrix->coverage;
    case LAYERS_ENTROPY:
        return history_evenness(matrix->entropy, matrix->rows);
    case LAYERS_ENERGY:
    case LAYERS_ROWS:
    case LAYERS_OFTEN:
    case LAYERS_VIEWS:
        break;
    }
    return matrix->energy;
}

/* The matrix of the same kind that is `layers` layers away, as far as there is one. */
static int other_layer(const struct history *history, int from, int layers)
{
    const struct history_matrix *here = &history->matrix[from];
    int target = here->layer + layers;
    int best = from;
    for (size_t i = 0; i < history->matrix_count; i++) {
        const struct history_matrix *matrix = &history->matrix[i];
        bool ahead = layers > 0 ? matrix->layer > here->layer && matrix->layer <= target
                                : matrix->layer < here->layer && matrix->layer >= target;
        int far = history->matrix[best].layer - here->layer;
        int way = matrix->layer - here->layer;
        if (ahead && strcmp(matrix->kind, here->kind) == 0 &&
            (layers > 0 ? way > far : way < far)) {
            best = (int)i;
        }
    }
    return best;
}

/* The next one after the cursor from the smallest value on; after the largest the smallest. */
static int next_worst(const struct history *history, int from, enum layers_view view)
{
    double here = layers_value(&history->matrix[from], view);
    int next = -1;
    int first = -1;
    for (int i = 0; i < (int)history->matrix_count; i++) {
        double value = layers_value(&history->matrix[i], view);
        if (!isfinite(value)) {
            continue;
        }
        if (first < 0 || value < layers_value(&history->matrix[first], view)) {
            first = i;
        }
        bool after = value > here || (value == here && i > from);
        if (after && (next < 0 || value < layers_value(&history->matrix[next], view))) {
            next = i;
        }
    }
    return next >= 0 ? next : first >= 0 ? first : from;
}

void layers_key(struct workbench *workbench, enum action action)
{
    const struct history *history = &workbench->history;
    int count = (int)history->matrix_count;
    int page = workbench->height > 10 ? workbench->height - 8 : 2;
    int at = workbench->cursor < count ? workbench->cursor : 0;
    if (action == ACTION_VIEW) {
        workbench->view = (workbench->view + 1) % LAYERS_VIEWS;
        return;
    }
    if (action == ACTION_BACK) {
        workbench->detail = false;
        return;
    }
    if (count == 0) {
        return;
    }
    switch (action) {
    case ACTION_ENTER:
        workbench->detail = !workbench->detail;
        break;
    case ACTION_UP:
        at = other_layer(history, at, -1);
        break;
    case ACTION_DOWN:
        at = other_layer(history, at, 1);
        break;
    case ACTION_PAGE_UP:
        at = other_layer(history, at, -page);
        break;
    case ACTION_PAGE_DOWN:
        at = other_layer(history, at, page);
        break;
    case ACTION_LEFT:
        at -= at > 0;
        break;
    case ACTION_RIGHT:
        at += at < count - 1;
        break;
    case ACTION_FIRST:
        at = 0;
        break;
    case ACTION_LAST:
        at = count - 1;
        break;
    case ACTION_WORST:
        at = next_worst(history, at, (enum layers_view)workbench->view);
        break;
    default:
        break;
    }
    workbench->cursor = at;
}
