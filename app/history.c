/* Folds events into what screens show. */
#include "app/history.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/text.h"
#include "engine/base/json.h"
#include "engine/base/xalloc.h"

void history_open(struct history *history)
{
    memset(history, 0, sizeof(*history));
    history->line = xcalloc(HISTORY_LINES, sizeof(history->line[0]));
    history->memory_step = -1;
    history->checkpoint_step = -1;
    history->smoothing = 0.94;
    event_init(&history->start, EVENT_START);
}

void history_close(struct history *history)
{
    event_free(&history->start);
    struct series *series[] = { &history->loss, &history->smooth, &history->tokens_per_second,
                                &history->grad_norm, &history->learning_rate };
    for (size_t i = 0; i < sizeof(series) / sizeof(series[0]); i++) {
        series_free(series[i]);
    }
    for (size_t i = 0; i < history->matrix_count; i++) {
        free(history->matrix[i].tensor);
    }
    for (size_t i = 0; i < history->sample_count; i++) {
        free(history->sample[i].prompt);
        free(history->sample[i].text);
    }
    free(history->stop.reason);
    free(history->evaluation);
    free(history->memories);
    free(history->refresh);
    free(history->matrix);
    free(history->setting);
    free(history->line);
    memset(history, 0, sizeof(*history));
}

/* Makes room for one more item and returns it zeroed. */
static void *grow(void *list, size_t *count, size_t *capacity, size_t size)
{
    char **items = list;
    if (*count == *capacity) {
        *capacity = *capacity * 2 + 16;
        *items = xrealloc(*items, *capacity * size);
    }
    void *item = *items + (*count)++ * size;
    memset(item, 0, size);
    return item;
}

static struct history_line *add_line(struct history *history, const struct event *event)
{
    struct history_line *line = &history->line[history->line_count++ % HISTORY_LINES];
    memset(line, 0, sizeof(*line));
    line->kind = event->kind;
    line->time = event->time;
    line->step = event->step == EVENT_UNKNOWN ? -1 : event->step;
    line->refresh = -1;
    return line;
}

#define SAY(line, ...) snprintf((line)->text, sizeof((line)->text), __VA_ARGS__)

static const char *shown(const char *text)
{
    return text ? text : "?";
}

/* Counts and steps from a file: unknown or absurd ones become 0, so that sums cannot overflow. */
static int64_t sane(int64_t value)
{
    return value < 0 || value > ((int64_t)1 << 53) ? 0 : value;
}

/* ---- the smoothed loss ------------------------------------------------------------------------
 */

/* An exponential mean with its bias removed: the first value counts fully. */
static void smooth_one(struct history *history, int64_t step, float loss)
{
    if (!isfinite(loss)) {
        series_set(&history->smooth, step, NAN);
        return;
    }
    double keep = history->smoothing;
    history->smooth_state = keep * history->smooth_state + (1 - keep) * (double)loss;
    history->smooth_weight = keep * history->smooth_weight + (1 - keep);
    series_set(&history->smooth, step, (float)(history->smooth_state / history->smooth_weight));
}

void history_smooth(struct history *history, double factor)
{
    history->smoothing = factor;
    history->smooth_state = 0;
    history->smooth_weight = 0;
    series_cut(&history->smooth, 0);
    for (size_t i = 0; i < history->loss.count; i++) {
        smooth_one(history, (int64_t)i + 1, history->loss.value[i]);
    }
}

/* ---- one function per kind of event -----------------------------------------------------------
 */

static void copy_string(char **to, const char *from)
{
    free(*to);
    *to = from ? xstrdup(from) : NULL;
}

static void add_start(struct history *history, const struct event *event)
{
    struct event_start *to = &history->start.start;
    const struct event_start *from = &event->start;
    char **mine[] = { &to->run,       &to->recipe_json, &to->model_name, &to->family,
                      &to->data_name, &to->device,      &to->version };
    char *const theirs[] = { from->run,       from->recipe_json, from->model_name, from->family,
                             from->data_name, from->device,      from->version };
    enum { STRINGS = sizeof(mine) / sizeof(mine[0]) };
    char *copies[STRINGS];
    for (int i = 0; i < STRINGS; i++) {
        copy_string(mine[i], theirs[i]);
        copies[i] = *mine[i];
    }
    *to = *from;
    for (int i = 0; i < STRINGS; i++) {
        *mine[i] = copies[i];
    }
    to->total_steps = sane(from->total_steps);
    history->start.time = event->time;
    history->started = true;
    struct history_line *line = add_line(history, event);
    SAY(line, "start: %s, %s parameters, on %s", shown(from->model_name),
        text_count((double)from->parameters).text, shown(from->device));
}

/* After a return to a checkpoint the steps behind it are told again. */
static void cut_back(struct history *history, int64_t step)
{
    series_cut(&history->loss, step);
    series_cut(&history->tokens_per_second, step);
    series_cut(&history->grad_norm, step);
    series_cut(&history->learning_rate, step);
    while (history->evaluation_count > 0 &&
           history->evaluation[history->evaluation_count - 1].step > step) {
        history->evaluation_count--;
    }
    while (history->memories_count > 0 &&
           history->memories[history->memories_count - 1].step > step) {
        history->memories_count--;
    }
    history->step = step;
    history->steps_seen = 0;
    history_smooth(history, history->smoothing);
}

static void add_step(struct history *history, const struct event *event)
{
    const struct event_step *step = &event->step_done;
    if (event->step < 1) {
        return;
    }
    if (event->step <= history->step) {
        cut_back(history, event->step - 1);
    }
    if (!series_set(&history->loss, event->step, step->loss)) {
        return;
    }
    series_set(&history->tokens_per_second, event->step, (float)step->tokens_per_second);
    series_set(&history->grad_norm, event->step, step->grad_norm);
    series_set(&history->learning_rate, event->step, (float)step->learning_rate);
    while ((int64_t)history->smooth.count < event->step - 1) {
        series_set(&history->smooth, (int64_t)history->smooth.count + 1, NAN);
    }
    smooth_one(history, event->step, step->loss);
    history->last_step = *step;
    history->last_step.reason = NULL;
    history->step = event->step;
    history->step_time = event->time;
    history->recent_time[history->steps_seen % 32] = event->time;
    history->recent_step[history->steps_seen % 32] = event->step;
    history->steps_seen++;
    history->stopped = false;
    if (step->skipped) {
        history->skipped_steps++;
        SAY(add_line(history, event), "skipped: %s", shown(step->reason));
    }
}

static void add_memory(struct history *history, const struct event *event)
{
    history->memory = event->memory;
    history->memory_step = sane(event->step);
    struct history_memory *item = grow(&history->memories, &history->memories_count,
                                       &history->memories_capacity, sizeof(*item));
    item->step = history->memory_step;
    memcpy(item->peak_bytes, event->memory.peak_bytes, sizeof(item->peak_bytes));
    item->total_bytes = history_total(item->peak_bytes);
}

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
    struct history_matrix *matrix =
        grow(&history->matrix, &history->matrix_count, &history->matrix_capacity, sizeof(*matrix));
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

static void add_selection(struct history *history, const struct event *event)
{
    const struct event_selection *from = &event->selection;
    size_t last = history->refresh_count;
    if (last == 0 || history->refresh[last - 1].step != sane(event->step)) {
        struct history_refresh *fresh = grow(&history->refresh, &history->refresh_count,
                                             &history->refresh_capacity, sizeof(*fresh));
        fresh->step = sane(event->step);
        add_line(history, event)->refresh = (int64_t)last;
    }
    struct history_refresh *refresh = &history->refresh[history->refresh_count - 1];
    refresh->matrices++;
    count_in(from->captured_energy, &refresh->energy_sum, &refresh->energy_count);
    count_in(from->overlap, &refresh->overlap_sum, &refresh->overlap_count);
    count_in(from->coverage, &refresh->coverage_sum, &refresh->coverage_count);
    struct history_matrix *matrix = find_matrix(history, shown(from->tensor));
    if (matrix) {
        snprintf(matrix->side, sizeof(matrix->side), "%s", shown(from->side));
        matrix->step = sane(event->step);
        matrix->rows = sane(from->rows);
        matrix->selected = sane(from->selected);
        matrix->overlap = from->overlap;
        matrix->energy = from->captured_energy;
        matrix->coverage = from->coverage;
        matrix->entropy = from->entropy;
        memcpy(matrix->histogram, from->histogram, sizeof(matrix->histogram));
    }
}

static void add_evaluation(struct history *history, const struct event *event)
{
    struct history_evaluation *item = grow(&history->evaluation, &history->evaluation_count,
                                           &history->evaluation_capacity, sizeof(*item));
    item->step = event->step == EVENT_UNKNOWN ? history->step : sane(event->step);
    item->loss = event->evaluation.loss;
    item->perplexity = event->evaluation.perplexity;
    SAY(add_line(history, event), "evaluation: loss %s, perplexity %s",
        text_loss((double)item->loss).text, text_loss(item->perplexity).text);
}

static void add_sample(struct history *history, const struct event *event)
{
    if (history->sample_count == HISTORY_SAMPLES) {
        free(history->sample[0].prompt);
        free(history->sample[0].text);
        memmove(&history->sample[0], &history->sample[1],
                (HISTORY_SAMPLES - 1) * sizeof(history->sample[0]));
        history->sample_count--;
    }
    struct history_sample *sample = &history->sample[history->sample_count++];
    sample->step = event->step == EVENT_UNKNOWN ? history->step : sane(event->step);
    sample->prompt = xstrdup(event->sample.prompt ? event->sample.prompt : "");
    sample->text = xstrdup(event->sample.text ? event->sample.text : "");
    SAY(add_line(history, event), "sample: %.100s", sample->text);
}

static void add_setting(struct history *history, const struct event *event)
{
    const struct event_setting *from = &event->setting;
    struct history_setting *to =
        grow(&history->setting, &history->setting_count, &history->setting_capacity, sizeof(*to));
    to->time = event->time;
    to->step = from->effective_step == EVENT_UNKNOWN ? history->step : sane(from->effective_step);
    snprintf(to->key, sizeof(to->key), "%s", shown(from->key));
    snprintf(to->from, sizeof(to->from), "%s", shown(from->from));
    snprintf(to->to, sizeof(to->to), "%s", shown(from->to));
    snprintf(to->by, sizeof(to->by), "%s", from->by ? from->by : "");
    SAY(add_line(history, event), "%s %s -> %s, from step %" PRId64 " on%s%s", to->key, to->from,
        to->to, to->step, to->by[0] ? ", by " : "", to->by);
}

static void add_checkpoint(struct history *history, const struct event *event)
{
    history->checkpoint_step = event->step == EVENT_UNKNOWN ? history->step : sane(event->step);
    history->checkpoint_bytes = event->checkpoint.bytes;
    history->checkpoint_seconds = event->checkpoint.seconds;
    SAY(add_line(history, event), "checkpoint saved: %s in %.1f s%s",
        text_bytes((double)event->checkpoint.bytes).text, event->checkpoint.seconds,
        event->checkpoint.best ? ", best so far" : "");
}

static void add_stop(struct history *history, const struct event *event)
{
    char *reason = event->stop.reason ? xstrdup(event->stop.reason) : NULL;
    free(history->stop.reason);
    history->stop = event->stop;
    history->stop.reason = reason;
    history->stopped = true;
    SAY(add_line(history, event), "stop: %s after %" PRId64 " steps, loss %s", shown(reason),
        event->stop.steps, text_loss((double)event->stop.loss).text);
}

static void add_message(struct history *history, const struct event *event)
{
    const struct event_message *message = &event->message;
    if (event->kind == EVENT_ERROR) {
        history->errors++;
    } else {
        history->warnings++;
    }
    SAY(add_line(history, event), "%s: %s%s%s", event->kind == EVENT_ERROR ? "ERROR" : "warning",
        shown(message->text), message->hint ? " - " : "", message->hint ? message->hint : "");
}

void history_add(struct history *history, const struct event *event)
{
    if (isfinite(event->time)) {
        history->time = event->time;
    }
    switch (event->kind) {
    case EVENT_START:
        add_start(history, event);
        break;
    case EVENT_PLAN:
        history->plan = event->plan;
        history->planned = true;
        break;
    case EVENT_STEP:
        add_step(history, event);
        break;
    case EVENT_MEMORY:
        add_memory(history, event);
        break;
    case EVENT_SELECTION:
        add_selection(history, event);
        break;
    case EVENT_EVALUATION:
        add_evaluation(history, event);
        break;
    case EVENT_SAMPLE:
        add_sample(history, event);
        break;
    case EVENT_CHECKPOINT:
        add_checkpoint(history, event);
        break;
    case EVENT_SETTING:
        add_setting(history, event);
        break;
    case EVENT_TELEMETRY:
        history->telemetry = event->telemetry;
        history->telemetry_seen = true;
        break;
    case EVENT_WARNING:
    case EVENT_ERROR:
        add_message(history, event);
        break;
    case EVENT_RESUME:
        history->stopped = false;
        if (event->resume.from_step >= 0 && event->resume.from_step < history->step) {
            cut_back(history, event->resume.from_step);
        }
        SAY(add_line(history, event), "resume from step %" PRId64 "%s%s", event->resume.from_step,
            event->resume.reason ? ": " : "", event->resume.reason ? event->resume.reason : "");
        break;
    case EVENT_STATE:
        snprintf(history->state, sizeof(history->state), "%s", shown(event->state.state));
        break;
    case EVENT_STOP:
        add_stop(history, event);
        break;
    case EVENT_KIND_COUNT:
        break;
    }
}

/* ---- questions --------------------------------------------------------------------------------
 */

const struct history_line *history_line_at(const struct history *history, size_t newest)
{
    if (newest >= history->line_count || newest >= HISTORY_LINES) {
        return NULL;
    }
    return &history->line[(history->line_count - 1 - newest) % HISTORY_LINES];
}

static double mean_of(double sum, int64_t count)
{
    return count > 0 ? sum / (double)count : (double)NAN;
}

struct history_text history_line_text(const struct history *history,
                                      const struct history_line *line, bool brief)
{
    struct history_text out;
    if (line->refresh < 0 || (size_t)line->refresh >= history->refresh_count) {
        snprintf(out.text, sizeof(out.text), "%s", line->text);
        return out;
    }
    const struct history_refresh *refresh = &history->refresh[line->refresh];
    double energy = mean_of(refresh->energy_sum, refresh->energy_count);
    double overlap = mean_of(refresh->overlap_sum, refresh->overlap_count);
    if (brief) {
        snprintf(out.text, sizeof(out.text), "refresh: energy %s", text_percent(energy).text);
    } else if (isfinite(overlap)) {
        snprintf(out.text, sizeof(out.text),
                 "refresh: energy %s, kept %s of the rows before, %" PRId64 " matrices",
                 text_percent(energy).text, text_percent(overlap).text, refresh->matrices);
    } else {
        snprintf(out.text, sizeof(out.text), "refresh: energy %s, %" PRId64 " matrices",
                 text_percent(energy).text, refresh->matrices);
    }
    return out;
}

double history_step_seconds(const struct history *history)
{
    int64_t known = history->steps_seen < 32 ? history->steps_seen : 32;
    if (known >= 2) {
        size_t last = (size_t)((history->steps_seen - 1) % 32);
        size_t first = (size_t)((history->steps_seen - known) % 32);
        int64_t steps = history->recent_step[last] - history->recent_step[first];
        double seconds = history->recent_time[last] - history->recent_time[first];
        if (steps > 0 && seconds > 0) {
            return seconds / (double)steps;
        }
    }
    if (history->step > 0 && history->last_step.step_ms > 0) {
        return history->last_step.step_ms / 1e3;
    }
    return (double)NAN;
}

double history_remaining(const struct history *history)
{
    int64_t total = history->start.start.total_steps;
    if (!history->started || history->stopped || total <= history->step) {
        return (double)NAN;
    }
    return history_step_seconds(history) * (double)(total - history->step);
}

bool history_setting_now(const struct history *history, const char *key, char *out, size_t size)
{
    for (size_t i = history->setting_count; i > 0; i--) {
        if (strcmp(history->setting[i - 1].key, key) == 0) {
            snprintf(out, size, "%s", history->setting[i - 1].to);
            return true;
        }
    }
    const char *json = history->start.start.recipe_json;
    cJSON *root = json ? cJSON_Parse(json) : NULL;
    const cJSON *at = root;
    for (const char *part = key; at && *part;) {
        size_t length = strcspn(part, ".");
        char name[64];
        snprintf(name, sizeof(name), "%.*s", (int)length, part);
        at = cJSON_GetObjectItemCaseSensitive(at, name);
        part += length + (part[length] == '.');
    }
    bool known = false;
    if (cJSON_IsString(at)) {
        snprintf(out, size, "%s", at->valuestring);
        known = true;
    } else if (cJSON_IsNumber(at)) {
        snprintf(out, size, "%.10g", at->valuedouble);
        known = true;
    } else if (cJSON_IsBool(at)) {
        snprintf(out, size, "%s", cJSON_IsTrue(at) ? "true" : "false");
        known = true;
    }
    cJSON_Delete(root);
    return known;
}

int64_t history_total(const int64_t bytes[MEMORY_CATEGORY_COUNT])
{
    int64_t total = 0;
    for (int i = 0; i < MEMORY_CATEGORY_COUNT; i++) {
        if (bytes[i] > 0 && total <= INT64_MAX - bytes[i]) {
            total += bytes[i];
        }
    }
    return total;
}
