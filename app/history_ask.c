/* Questions to a history: lines, time left, settings, sums. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/history.h"
#include "app/text.h"
#include "engine/base/json.h"
#include "engine/base/text.h"

const struct history_line *history_line_at(const struct history *history, size_t newest)
{
    if (newest >= history->line_count - history->line_lost) {
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
        snprintf(out.text, sizeof(out.text), "%s", line->text ? line->text : "");
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

/* ---- time ---------------------------------------------------------------------------------------
 */

enum { RECENT = 100, RECENT_PAUSES = 5 };

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *value, int count)
{
    if (count == 0) {
        return (double)NAN;
    }
    qsort(value, (size_t)count, sizeof(value[0]), by_size);
    return value[count / 2];
}

/* What the last steps took, from the end of one to the end of the next. */
struct pace {
    double all;     /* median */
    double plain;   /* of those without a refresh */
    double refresh; /* of those with one */
    double share;   /* of steps with one */
};

static struct pace pace_of(const struct history *history)
{
    double all[RECENT];
    double plain[RECENT];
    double refreshed[RECENT];
    int count = 0;
    int plains = 0;
    int refreshes = 0;
    for (int64_t step = history->step; step >= 2 && count < RECENT; step--) {
        const struct history_step *now = &history->steps[step - 1];
        double seconds = now->time - history->steps[step - 2].time;
        if (history->steps[step - 2].time == 0 || !(seconds >= 0) || isinf(seconds)) {
            break; /* not told, or the clock was put back */
        }
        all[count++] = seconds;
        if (now->refreshed) {
            refreshed[refreshes++] = seconds;
        } else {
            plain[plains++] = seconds;
        }
    }
    struct pace pace = { .share = count > 0 ? (double)refreshes / count : 0 };
    pace.all = median(all, count);
    pace.plain = median(plain, plains);
    pace.refresh = median(refreshed, refreshes);
    return pace;
}

double history_step_seconds(const struct history *history)
{
    double seconds = pace_of(history).all;
    if (seconds > 0) {
        return seconds;
    }
    return history->step > 0 && history->last_step.step_ms > 0 ? history->last_step.step_ms / 1e3
                                                               : (double)NAN;
}

double history_pause_seconds(const struct history *history, enum event_kind kind)
{
    double seconds[RECENT_PAUSES];
    int count = 0;
    for (size_t i = history->pause_count; i > 0 && count < RECENT_PAUSES; i--) {
        if (history->pause[i - 1].kind == kind) {
            seconds[count++] = history->pause[i - 1].seconds;
        }
    }
    return median(seconds, count);
}

static int64_t interval_of(const struct history *history, enum event_kind kind)
{
    const char *key = kind == EVENT_EVALUATION   ? "train.eval_every"
                      : kind == EVENT_SAMPLE     ? "train.sample_every"
                      : kind == EVENT_CHECKPOINT ? "train.save_every"
                                                 : "method.interval";
    char text[32];
    int64_t every = 0;
    return history_setting_now(history, key, text, sizeof(text)) && text_to_integer(text, &every) &&
                   every > 0
               ? every
               : 0;
}

/* An interval after the matrix that has waited longest: refreshes may be staggered. */
static int64_t next_choice(const struct history *history, int64_t every)
{
    int64_t oldest = history->refresh[history->refresh_count - 1].step;
    for (size_t i = 0; i < history->matrix_count; i++) {
        int64_t step = history->matrix[i].step;
        oldest = step < oldest ? step : oldest;
    }
    return oldest + every;
}

int64_t history_next(const struct history *history, enum event_kind kind)
{
    int64_t total = history->start.start.total_steps;
    int64_t every = interval_of(history, kind);
    if (every == 0 || history->stopped || history->step >= total) {
        return 0;
    }
    if (kind == EVENT_SELECTION) {
        if (history->refresh_count == 0) {
            return 0;
        }
        int64_t next = next_choice(history, every);
        return next > history->step && next <= total ? next : 0;
    }
    int64_t next = every > total ? total : (history->step / every + 1) * every;
    return next > total ? total : next; /* the last step has one too */
}

/* How many of a kind are still to come. */
static int64_t still_due(const struct history *history, enum event_kind kind)
{
    int64_t total = history->start.start.total_steps;
    int64_t every = interval_of(history, kind);
    if (every == 0) {
        return 0;
    }
    return total / every - history->step / every + (total % every != 0);
}

double history_remaining(const struct history *history)
{
    static const enum event_kind kinds[] = { EVENT_EVALUATION, EVENT_SAMPLE, EVENT_CHECKPOINT };
    int64_t total = history->start.start.total_steps;
    if (!history->started || history->stopped || total <= history->step) {
        return (double)NAN;
    }
    struct pace pace = pace_of(history);
    double one = history_step_seconds(history);
    if (isfinite(pace.plain) && isfinite(pace.refresh)) {
        one = (1 - pace.share) * pace.plain + pace.share * pace.refresh;
    }
    double seconds = one * (double)(total - history->step);
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        double cost = history_pause_seconds(history, kinds[i]);
        if (isfinite(cost)) {
            seconds += cost * (double)still_due(history, kinds[i]);
        }
    }
    return seconds;
}

/* ---- settings and sums --------------------------------------------------------------------------
 */

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
