/* Folding the events of several runs into one comparison. */
#include "app/comparison.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "app/history.h"
#include "engine/base/file.h"
#include "engine/base/json.h"

static char *take(char **from)
{
    char *text = *from;
    *from = NULL;
    return text;
}

static void take_start(struct comparison_run *run, struct event_start *start)
{
    free(run->model);
    free(run->data);
    run->model = take(&start->model_name);
    run->data = take(&start->data_name);
    run->total_steps = start->total_steps;
    run->parameters = start->parameters;
    run->trained_parameters = start->trained_parameters;
    if (start->recipe_json != NULL) {
        struct error ignored = { 0 };
        cJSON_Delete(run->recipe);
        run->recipe =
            json_parse(start->recipe_json, strlen(start->recipe_json), "recipe", 1, &ignored);
    }
}

static void take_step(struct comparison_run *run, int64_t step, const struct event_step *done)
{
    /* The run went back to a checkpoint: what came after it did not happen. */
    while (run->count > 0 && run->point[run->count - 1].step >= step) {
        run->count--;
    }
    const struct comparison_point *last = run->count > 0 ? &run->point[run->count - 1] : NULL;
    if (run->count == run->capacity) {
        run->capacity = run->capacity == 0 ? 1024 : run->capacity * 2;
        run->point = xrealloc(run->point, run->capacity * sizeof *run->point);
        last = run->count > 0 ? &run->point[run->count - 1] : NULL;
    }
    double before = last != NULL ? last->seconds : 0.0;
    run->point[run->count++] = (struct comparison_point){
        .step = step,
        .tokens = done->tokens_total == EVENT_UNKNOWN ? (double)NAN : (double)done->tokens_total,
        .seconds = before + (isfinite(done->step_ms) ? done->step_ms * 1e-3 : 0.0),
        .loss = done->skipped ? NAN : done->loss,
    };
}

static void take_event(void *context, struct event *event)
{
    struct comparison_run *run = context;
    switch (event->kind) {
    case EVENT_START:
        take_start(run, &event->start);
        break;
    case EVENT_STEP:
        take_step(run, event->step, &event->step_done);
        break;
    case EVENT_MEMORY:
        for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
            int64_t bytes = event->memory.peak_bytes[c];
            run->peak_bytes[c] = bytes > run->peak_bytes[c] ? bytes : run->peak_bytes[c];
        }
        break;
    case EVENT_EVALUATION:
        run->evaluation_loss = event->evaluation.loss;
        run->evaluation_step = event->step;
        break;
    case EVENT_CHECKPOINT:
        run->checkpoint_bytes = event->checkpoint.bytes;
        break;
    default:
        break;
    }
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Durations of a resumed run begin with an odd one each time: the median does not mind. */
static void take_medians(struct comparison_run *run)
{
    double *ms = xcalloc(run->count + 1, sizeof *ms);
    double *rate = xcalloc(run->count + 1, sizeof *rate);
    size_t n = 0;
    for (size_t i = 1; i < run->count; i++) {
        const struct comparison_point *p = &run->point[i];
        double seconds = p->seconds - p[-1].seconds;
        if (seconds > 0.0 && p->step == p[-1].step + 1) {
            ms[n] = seconds * 1e3;
            rate[n++] = (p->tokens - p[-1].tokens) / seconds;
        }
    }
    if (n > 0) {
        qsort(ms, n, sizeof *ms, ascending);
        qsort(rate, n, sizeof *rate, ascending);
        run->step_ms = ms[n / 2];
        run->tokens_per_second = rate[n / 2];
    }
    free(ms);
    free(rate);
}

static void run_free(struct comparison_run *run)
{
    free(run->label);
    free(run->path);
    free(run->method);
    free(run->model);
    free(run->data);
    cJSON_Delete(run->recipe);
    free(run->point);
}

int comparison_add(struct comparison *comparison, const char *path, const char *label,
                   struct error *err)
{
    struct comparison_run run = {
        .path = xstrdup(path),
        .label = xstrdup(label != NULL ? label : path_base(path)),
        .total_steps = EVENT_UNKNOWN,
        .parameters = EVENT_UNKNOWN,
        .trained_parameters = EVENT_UNKNOWN,
        .checkpoint_bytes = EVENT_UNKNOWN,
        .evaluation_step = EVENT_UNKNOWN,
        .evaluation_loss = NAN,
        .step_ms = (double)NAN,
        .tokens_per_second = (double)NAN,
        .loss_equal_tokens = (double)NAN,
        .loss_equal_seconds = (double)NAN,
    };
    struct run_summary summary = { 0 };
    if (run_summary_read(path, &summary, err) != 0) {
        run_free(&run);
        return -1;
    }
    run.status = summary.status;
    run_summary_free(&summary);
    if (event_file_read(path, take_event, &run, err) != 0) {
        run_free(&run);
        return -1;
    }
    run.method = comparison_setting(&run, "method.name");
    run.peak_total_bytes = history_total(run.peak_bytes);
    take_medians(&run);
    comparison->run = xrealloc(comparison->run, (comparison->count + 1) * sizeof run);
    comparison->run[comparison->count++] = run;
    return 0;
}

double comparison_position(const struct comparison_point *point, enum comparison_axis axis)
{
    switch (axis) {
    case COMPARISON_TOKENS:
        return point->tokens;
    case COMPARISON_SECONDS:
        return point->seconds;
    case COMPARISON_STEPS:
        break;
    }
    return (double)point->step;
}

double comparison_loss(const struct comparison_run *run, enum comparison_axis axis, double position)
{
    size_t end = 0;
    while (end < run->count && comparison_position(&run->point[end], axis) <= position) {
        end++;
    }
    double sum = 0.0;
    int64_t count = 0;
    for (size_t i = end; i > 0; i--) {
        const struct comparison_point *p = &run->point[i - 1];
        if (count > 0 && comparison_position(p, axis) <= position * 0.9) {
            break;
        }
        if (isfinite(p->loss)) {
            sum += (double)p->loss;
            count++;
        }
    }
    return count > 0 ? sum / (double)count : (double)NAN;
}

static double least(const struct comparison *comparison, enum comparison_axis axis)
{
    double found = INFINITY;
    for (size_t i = 0; i < comparison->count; i++) {
        const struct comparison_run *run = &comparison->run[i];
        if (run->count == 0) {
            return (double)NAN;
        }
        found = fmin(found, comparison_position(&run->point[run->count - 1], axis));
    }
    return isfinite(found) ? found : (double)NAN;
}

void comparison_finish(struct comparison *comparison)
{
    comparison->equal_tokens = least(comparison, COMPARISON_TOKENS);
    comparison->equal_seconds = least(comparison, COMPARISON_SECONDS);
    for (size_t i = 0; i < comparison->count; i++) {
        struct comparison_run *run = &comparison->run[i];
        run->loss_equal_tokens = comparison_loss(run, COMPARISON_TOKENS, comparison->equal_tokens);
        run->loss_equal_seconds =
            comparison_loss(run, COMPARISON_SECONDS, comparison->equal_seconds);
    }
}

void comparison_free(struct comparison *comparison)
{
    for (size_t i = 0; i < comparison->count; i++) {
        run_free(&comparison->run[i]);
    }
    free(comparison->run);
    *comparison = (struct comparison){ 0 };
}

/* A dotted key in nested objects. */
static const cJSON *find(const cJSON *object, const char *key)
{
    const char *dot = strchr(key, '.');
    if (dot == NULL) {
        return json_get(object, key);
    }
    char *head = xstrndup(key, (size_t)(dot - key));
    const cJSON *inner = json_get(object, head);
    free(head);
    return cJSON_IsObject(inner) ? find(inner, dot + 1) : NULL;
}

char *comparison_setting(const struct comparison_run *run, const char *key)
{
    const cJSON *value = run->recipe != NULL ? find(run->recipe, key) : NULL;
    if (value == NULL) {
        return xstrdup("-");
    }
    return cJSON_IsString(value) ? xstrdup(value->valuestring) : json_print(value);
}

size_t comparison_differences(const struct comparison *comparison, const char **key, size_t limit)
{
    size_t count = 0;
    for (size_t row = 0; comparison->count > 1 && recipe_fields[row].key != NULL; row++) {
        char *first = comparison_setting(&comparison->run[0], recipe_fields[row].key);
        bool differs = false;
        for (size_t i = 1; i < comparison->count && !differs; i++) {
            char *other = comparison_setting(&comparison->run[i], recipe_fields[row].key);
            differs = strcmp(first, other) != 0;
            free(other);
        }
        free(first);
        if (differs && count < limit) {
            key[count] = recipe_fields[row].key;
        }
        count += differs ? 1 : 0;
    }
    return count;
}
