/* Folds events into what screens show. */
#include "app/history.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/history_fold.h"
#include "app/text.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"

void history_open(struct history *history)
{
    memset(history, 0, sizeof(*history));
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
        free(history->matrix[i].choice);
    }
    for (size_t i = 0; i < history->sample_count; i++) {
        free(history->sample[i].prompt);
        free(history->sample[i].text);
    }
    for (size_t i = history->line_lost; i < history->line_count; i++) {
        free(history->line[i % HISTORY_LINES].text);
    }
    history_free_ranks(history);
    void *lists[] = { history->steps,       history->evaluation,  history->memories,
                      history->plans,       history->telemetries, history->states,
                      history->checkpoint,  history->pause,       history->skipped,
                      history->refresh,     history->matrix,      history->setting,
                      history->stop.reason, history->line };
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        free(lists[i]);
    }
    memset(history, 0, sizeof(*history));
}

static struct history_line *add_line(struct history *history, const struct event *event)
{
    size_t at = history->line_count++ % HISTORY_LINES;
    if (at >= history->line_capacity) {
        history->line_capacity = at * 2 + 64;
        history->line = xrealloc(history->line, history->line_capacity * sizeof(history->line[0]));
    }
    struct history_line *line = &history->line[at];
    if (history->line_count > HISTORY_LINES) {
        free(line->text);
        history->line_lost++;
    }
    memset(line, 0, sizeof(*line));
    line->seen = history->step;
    line->kind = event->kind;
    line->time = event->time;
    line->step = event->step == EVENT_UNKNOWN ? -1 : event->step;
    line->refresh = -1;
    return line;
}

static void say(struct history *history, const struct event *event, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void say(struct history *history, const struct event *event, const char *format, ...)
{
    char text[sizeof(((struct history_text *)NULL)->text)];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof(text), format, list);
    va_end(list);
    add_line(history, event)->text = xstrdup(text);
}

static const char *shown(const char *text)
{
    return text ? text : "?";
}

int64_t history_sane(int64_t value)
{
    return value < 0 || value > ((int64_t)1 << 53) ? 0 : value;
}

void *history_grow(void *list, size_t *count, size_t *capacity, size_t size)
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

#define GROW(history, list, name)                                                                  \
    history_grow(&(history)->list, &(history)->name##_count, &(history)->name##_capacity,          \
                 sizeof((history)->list[0]))

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
    to->total_steps = history_sane(from->total_steps);
    history->start.time = event->time;
    history->started = true;
    history->planned_steps = to->total_steps;
    say(history, event, "start: %s, %s parameters, on %s", shown(from->model_name),
        text_count((double)from->parameters).text, shown(from->device));
}

/* What was said after `step` counts as said there. */
#define CLAMP(list, count, step)                                                                   \
    do {                                                                                           \
        for (size_t i_ = (count); i_ > 0 && (list)[i_ - 1].seen > (step); i_--) {                  \
            (list)[i_ - 1].seen = (step);                                                          \
        }                                                                                          \
    } while (0)

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
    CLAMP(history->evaluation, history->evaluation_count, step);
    CLAMP(history->memories, history->memories_count, step);
    CLAMP(history->plans, history->plan_count, step);
    CLAMP(history->telemetries, history->telemetry_count, step);
    CLAMP(history->fare, history->fare_count, step);
    CLAMP(history->states, history->state_count, step);
    CLAMP(history->checkpoint, history->checkpoint_count, step);
    CLAMP(history->pause, history->pause_count, step);
    CLAMP(history->refresh, history->refresh_count, step);
    CLAMP(history->setting, history->setting_count, step);
    CLAMP(history->sample, history->sample_count, step);
    for (size_t i = history->line_count; i > history->line_lost; i--) {
        struct history_line *line = &history->line[(i - 1) % HISTORY_LINES];
        line->seen = line->seen > step ? step : line->seen;
    }
    while (history->skipped_count > 0 && history->skipped[history->skipped_count - 1] > step) {
        history->skipped_count--;
    }
    history->step = step;
    history_smooth(history, history->smoothing);
}

/* Small whole numbers; -1 for what is unknown or too large. */
static int32_t small(int64_t value)
{
    return value < 0 || value > INT32_MAX ? -1 : (int32_t)value;
}

static void keep_step(struct history *history, const struct event *event)
{
    const struct event_step *step = &event->step_done;
    size_t count = history->loss.count;
    size_t before = (size_t)history->step;
    if (count > history->steps_capacity) {
        history->steps_capacity = count * 3 / 2 + 64;
        history->steps =
            xrealloc(history->steps, history->steps_capacity * sizeof(history->steps[0]));
    }
    if (count - 1 > before) {
        memset(&history->steps[before], 0, (count - 1 - before) * sizeof(history->steps[0]));
    }
    history->steps[count - 1] = (struct history_step){
        .time = isfinite(event->time) && event->time > 0 ? event->time : 1,
        .tokens_total = step->tokens_total < 0 ? -1 : step->tokens_total,
        .step_ms = (float)step->step_ms,
        .forward_ms = (float)step->forward_ms,
        .backward_ms = (float)step->backward_ms,
        .update_ms = (float)step->update_ms,
        .refresh_ms = (float)step->refresh_ms,
        .data_ms = (float)step->data_ms,
        .stall_ms = (float)step->offload_stall_ms,
        .exchange_ms = (float)step->exchange_ms,
        .mfu = (float)step->mfu,
        .tokens = small(step->tokens),
        .rank = small(step->rank),
        .refreshed = step->refreshed,
        .skipped = step->skipped,
    };
}

void history_take_step(struct history *history, int64_t number)
{
    const struct history_step *from = &history->steps[number - 1];
    history->last_step = (struct event_step){
        .loss = series_at(&history->loss, number),
        .grad_norm = series_at(&history->grad_norm, number),
        .learning_rate = (double)series_at(&history->learning_rate, number),
        .tokens = from->tokens < 0 ? EVENT_UNKNOWN : from->tokens,
        .tokens_total = from->tokens_total < 0 ? EVENT_UNKNOWN : from->tokens_total,
        .tokens_per_second = (double)series_at(&history->tokens_per_second, number),
        .mfu = (double)from->mfu,
        .step_ms = (double)from->step_ms,
        .forward_ms = (double)from->forward_ms,
        .backward_ms = (double)from->backward_ms,
        .update_ms = (double)from->update_ms,
        .refresh_ms = (double)from->refresh_ms,
        .data_ms = (double)from->data_ms,
        .exchange_ms = (double)from->exchange_ms,
        .exchanged_bytes = EVENT_UNKNOWN,
        .offload_written_bytes = EVENT_UNKNOWN,
        .offload_read_bytes = EVENT_UNKNOWN,
        .offload_stall_ms = (double)from->stall_ms,
        .rank = from->rank < 0 ? EVENT_UNKNOWN : from->rank,
        .refreshed = from->refreshed,
        .skipped = from->skipped,
    };
    history->step = number;
    history->step_time = from->time;
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
    keep_step(history, event);
    series_set(&history->tokens_per_second, event->step, (float)step->tokens_per_second);
    series_set(&history->grad_norm, event->step, step->grad_norm);
    series_set(&history->learning_rate, event->step, (float)step->learning_rate);
    while ((int64_t)history->smooth.count < event->step - 1) {
        series_set(&history->smooth, (int64_t)history->smooth.count + 1, NAN);
    }
    smooth_one(history, event->step, step->loss);
    history_take_step(history, event->step);
    history->busy_until = history->step_time;
    history->stopped = false;
    if (step->skipped) {
        *(int64_t *)GROW(history, skipped, skipped) = event->step;
        say(history, event, "skipped: %s", shown(step->reason));
    }
}

static void add_memory(struct history *history, const struct event *event)
{
    history->memory = event->memory;
    history->memory_step = history_sane(event->step);
    struct history_memory *item = GROW(history, memories, memories);
    item->seen = history->step;
    item->step = history->memory_step;
    item->told = event->memory;
    item->total_bytes = history_total(item->told.peak_bytes);
}

static void add_selection(struct history *history, const struct event *event)
{
    if (history_select(history, event)) {
        add_line(history, event)->refresh = (int64_t)history->refresh_count - 1;
    }
}

/* The time since the last thing that was finished went into this one. */
static void add_pause(struct history *history, const struct event *event)
{
    double seconds = event->time - history->busy_until;
    if (history->busy_until > 0 && seconds >= 0 && isfinite(seconds)) {
        struct history_pause *pause = GROW(history, pause, pause);
        pause->seen = history->step;
        pause->kind = event->kind;
        pause->seconds = seconds;
    }
    if (isfinite(event->time)) {
        history->busy_until = event->time;
    }
}

static void add_evaluation(struct history *history, const struct event *event)
{
    struct history_evaluation *item = GROW(history, evaluation, evaluation);
    add_pause(history, event);
    item->seen = history->step;
    item->step = event->step == EVENT_UNKNOWN ? history->step : history_sane(event->step);
    item->loss = event->evaluation.loss;
    item->perplexity = event->evaluation.perplexity;
    say(history, event, "evaluation: loss %s, perplexity %s", text_loss((double)item->loss).text,
        text_loss(item->perplexity).text);
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
    add_pause(history, event);
    sample->seen = history->step;
    sample->step = event->step == EVENT_UNKNOWN ? history->step : history_sane(event->step);
    sample->prompt = xstrdup(event->sample.prompt ? event->sample.prompt : "");
    sample->text = xstrdup(event->sample.text ? event->sample.text : "");
    char line[101];
    snprintf(line, sizeof(line), "%s", sample->text);
    for (char *c = line; *c; c++) {
        *c = *c == '\n' || *c == '\t' ? ' ' : *c;
    }
    say(history, event, "sample: %s", line);
}

static void add_setting(struct history *history, const struct event *event)
{
    const struct event_setting *from = &event->setting;
    struct history_setting *to = GROW(history, setting, setting);
    int64_t total = 0;
    to->seen = history->step;
    to->time = event->time;
    to->step =
        from->effective_step == EVENT_UNKNOWN ? history->step : history_sane(from->effective_step);
    snprintf(to->key, sizeof(to->key), "%s", shown(from->key));
    snprintf(to->from, sizeof(to->from), "%s", shown(from->from));
    snprintf(to->to, sizeof(to->to), "%s", shown(from->to));
    snprintf(to->by, sizeof(to->by), "%s", from->by ? from->by : "");
    if (strcmp(to->key, "train.steps") == 0 && text_to_integer(to->to, &total)) {
        history->start.start.total_steps = history_sane(total);
    }
    say(history, event, "%s %s -> %s, from step %" PRId64 " on%s%s", to->key, to->from, to->to,
        to->step, to->by[0] ? ", by " : "", to->by);
}

static void add_checkpoint(struct history *history, const struct event *event)
{
    struct history_checkpoint *item = GROW(history, checkpoint, checkpoint);
    add_pause(history, event);
    item->seen = history->step;
    item->step = event->step == EVENT_UNKNOWN ? history->step : history_sane(event->step);
    item->bytes = event->checkpoint.bytes;
    item->seconds = event->checkpoint.seconds;
    item->best = event->checkpoint.best;
    history->checkpoint_step = item->step;
    history->checkpoint_bytes = item->bytes;
    history->checkpoint_seconds = item->seconds;
    say(history, event, "checkpoint saved: %s in %.1f s%s",
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
    say(history, event, "stop: %s after %" PRId64 " steps, loss %s", shown(reason),
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
    say(history, event, "%s: %s%s%s", event->kind == EVENT_ERROR ? "ERROR" : "warning",
        shown(message->text), message->hint ? " - " : "", message->hint ? message->hint : "");
}

static void add_plan(struct history *history, const struct event *event)
{
    struct history_plan *item = GROW(history, plans, plan);
    item->seen = history->step;
    item->told = event->plan;
    history->plan = event->plan;
    history->planned = true;
}

static void add_telemetry(struct history *history, const struct event *event)
{
    struct history_telemetry *item = GROW(history, telemetries, telemetry);
    item->seen = history->step;
    item->told = event->telemetry;
    history->telemetry = event->telemetry;
    history->telemetry_seen = true;
}

static void add_state(struct history *history, const struct event *event)
{
    struct history_state *item = GROW(history, states, state);
    item->seen = history->step;
    item->time = event->time;
    snprintf(item->state, sizeof(item->state), "%s", shown(event->state.state));
    memcpy(history->state, item->state, sizeof(history->state));
}

static void add_resume(struct history *history, const struct event *event)
{
    history->stopped = false;
    if (event->resume.from_step >= 0 && event->resume.from_step < history->step) {
        cut_back(history, event->resume.from_step);
    }
    say(history, event, "resume from step %" PRId64 "%s%s", event->resume.from_step,
        event->resume.reason ? ": " : "", event->resume.reason ? event->resume.reason : "");
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
        add_plan(history, event);
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
        add_telemetry(history, event);
        break;
    case EVENT_WARNING:
    case EVENT_ERROR:
        add_message(history, event);
        break;
    case EVENT_RESUME:
        add_resume(history, event);
        break;
    case EVENT_STATE:
        add_state(history, event);
        break;
    case EVENT_STOP:
        add_stop(history, event);
        break;
    case EVENT_RANKS:
        history_add_ranks(history, event);
        break;
    case EVENT_KIND_COUNT:
        break;
    }
}
