/* The part of the history about selected rows: every selection of every matrix, packed. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "app/history_fold.h"
#include "engine/base/xalloc.h"

enum { SHARE_ONE = 65534, SHARE_UNKNOWN = 65535 };

/* "model.layers.12.mlp.gate_proj.weight" -> 12, "gate". */
static void name_matrix(struct history_matrix *matrix)
{
    matrix->layer = -1;
    const char *digits = strstr(matrix->tensor, "layers.");
    if (digits) {
        int layer = 0;
        for (digits += 7; *digits >= '0' && *digits <= '9' && layer < 100000; digits++) {
            layer = layer * 10 + (*digits - '0');
        }
        matrix->layer = layer;
    }
    const char *end = strstr(matrix->tensor, "_proj");
    const char *begin = end ? end : matrix->tensor;
    while (begin > matrix->tensor && begin[-1] != '.') {
        begin--;
    }
    size_t length = end ? (size_t)(end - begin) : strlen(begin);
    if (length >= sizeof(matrix->kind)) {
        length = sizeof(matrix->kind) - 1;
    }
    memcpy(matrix->kind, begin, length);
    matrix->kind[length] = '\0';
}

static struct history_matrix *find_matrix(struct history *history, const char *tensor)
{
    /* They come in the same order at every refresh: the next one is nearly always the right one. */
    for (size_t i = 0; i < history->matrix_count; i++) {
        size_t index = (history->matrix_hint + i) % history->matrix_count;
        if (strcmp(history->matrix[index].tensor, tensor) == 0) {
            history->matrix_hint = index + 1;
            return &history->matrix[index];
        }
    }
    if (history->matrix_count >= HISTORY_MATRICES) {
        return NULL;
    }
    struct history_matrix *matrix = history_grow(&history->matrix, &history->matrix_count,
                                                 &history->matrix_capacity, sizeof(*matrix));
    matrix->tensor = xstrdup(tensor);
    name_matrix(matrix);
    return matrix;
}

static void count_in(double value, double *sum, int64_t *count)
{
    if (isfinite(value)) {
        *sum += value;
        (*count)++;
    }
}

double history_evenness(double entropy, int64_t rows)
{
    return rows > 1 ? entropy / log((double)rows) : (double)NAN;
}

static int32_t small(int64_t value)
{
    return value < 0 || value > INT32_MAX ? -1 : (int32_t)value;
}

static void pack_bins(struct history_choice *choice, const int64_t bins[EVENT_HISTOGRAM_BINS])
{
    int64_t most = 0;
    for (int i = 0; i < EVENT_HISTOGRAM_BINS; i++) {
        most = bins[i] > most ? bins[i] : most;
    }
    choice->most = most > INT32_MAX ? INT32_MAX : (int32_t)most;
    for (int i = 0; i < EVENT_HISTOGRAM_BINS && most > 0; i++) {
        double share = bins[i] > 0 ? (double)bins[i] / (double)most : 0;
        int level = (int)lround(share * HISTORY_LEVELS);
        level = bins[i] > 0 && level == 0 ? 1 : level;
        choice->bins[i / 2] = (uint8_t)(choice->bins[i / 2] | level << (i % 2 * 4));
    }
}

int history_choice_level(const struct history_choice *choice, int bin)
{
    return choice->bins[bin / 2] >> (bin % 2 * 4) & 15;
}

static void pack(struct history_choice *choice, const struct event_selection *from, size_t refresh)
{
    choice->refresh = (int32_t)refresh;
    choice->selected = small(history_sane(from->selected));
    choice->rank = small(from->rank);
    choice->overlap = (float)from->overlap;
    choice->energy = (float)from->captured_energy;
    choice->coverage = (float)from->coverage;
    choice->entropy = (float)from->entropy;
    for (int i = 0; i < EVENT_CURVE_POINTS; i++) {
        /* An unknown curve has only its first point unknown. */
        double share = isfinite(from->curve[0]) ? from->curve[i] : (double)NAN;
        choice->curve[i] = SHARE_UNKNOWN;
        if (isfinite(share)) {
            choice->curve[i] = (uint16_t)lround(fmin(fmax(share, 0), 1) * SHARE_ONE);
        }
    }
    pack_bins(choice, from->histogram);
}

void history_take_choice(struct history_matrix *matrix, const struct history_choice *choice,
                         const struct history_refresh *refresh)
{
    matrix->step = refresh->step;
    matrix->selected = choice->selected;
    matrix->rank = choice->rank;
    matrix->overlap = (double)choice->overlap;
    matrix->energy = (double)choice->energy;
    matrix->coverage = (double)choice->coverage;
    matrix->entropy = (double)choice->entropy;
    matrix->most = choice->most;
    for (int i = 0; i < EVENT_CURVE_POINTS; i++) {
        matrix->curve[i] =
            choice->curve[i] == SHARE_UNKNOWN ? (double)NAN : (double)choice->curve[i] / SHARE_ONE;
    }
    for (int i = 0; i < EVENT_HISTOGRAM_BINS; i++) {
        matrix->level[i] = (uint8_t)history_choice_level(choice, i);
    }
}

bool history_select(struct history *history, const struct event *event)
{
    const struct event_selection *from = &event->selection;
    int64_t step = history_sane(event->step);
    size_t last = history->refresh_count;
    bool begins = last == 0 || history->refresh[last - 1].step != step;
    if (begins) {
        struct history_refresh *fresh = history_grow(&history->refresh, &history->refresh_count,
                                                     &history->refresh_capacity, sizeof(*fresh));
        fresh->seen = history->step;
        fresh->step = step;
    }
    struct history_refresh *refresh = &history->refresh[history->refresh_count - 1];
    int64_t rows = history_sane(from->rows);
    refresh->matrices++;
    count_in(from->captured_energy, &refresh->energy_sum, &refresh->energy_count);
    count_in(from->overlap, &refresh->overlap_sum, &refresh->overlap_count);
    count_in(from->coverage, &refresh->coverage_sum, &refresh->coverage_count);
    count_in(history_evenness(from->entropy, rows), &refresh->entropy_sum, &refresh->entropy_count);
    struct history_matrix *matrix = find_matrix(history, from->tensor ? from->tensor : "?");
    if (matrix) {
        struct history_choice *choice = history_grow(&matrix->choice, &matrix->choice_count,
                                                     &matrix->choice_capacity, sizeof(*choice));
        snprintf(matrix->side, sizeof(matrix->side), "%s", from->side ? from->side : "?");
        matrix->rows = rows;
        pack(choice, from, history->refresh_count - 1);
        history_take_choice(matrix, choice, refresh);
    }
    return begins;
}
