/* Folding the events of several runs into one comparison. */
#include "app/comparison.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/history.h"
#include "engine/base/file.h"
#include "engine/base/json.h"

const char *const comparison_metric_names[COMPARISON_METRICS] = {
    "training loss", "evaluation loss", "tokens per second",
    "gradient norm", "captured energy", "memory at the peak",
};

static void copy_text(char **to, const char *from)
{
    free(*to);
    *to = from != NULL ? xstrdup(from) : NULL;
}

static void take_start(struct comparison_run *run, const struct event_start *start)
{
    copy_text(&run->model, start->model_name);
    copy_text(&run->data, start->data_name);
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
    if (run->count == run->capacity) {
        run->capacity = run->capacity == 0 ? 1024 : run->capacity * 2;
        run->point = xrealloc(run->point, run->capacity * sizeof *run->point);
    }
    const struct comparison_point none = { 0 };
    const struct comparison_point *last = run->count > 0 ? &run->point[run->count - 1] : &none;
    bool finite = !done->skipped && isfinite(done->loss);
    bool known = isfinite(done->grad_norm);
    run->point[run->count++] = (struct comparison_point){
        .step = step,
        .tokens = done->tokens_total == EVENT_UNKNOWN ? (double)NAN : (double)done->tokens_total,
        .seconds = last->seconds + (isfinite(done->step_ms) ? done->step_ms * 1e-3 : 0.0),
        .loss = done->skipped ? NAN : done->loss,
        .loss_sum = last->loss_sum + (finite ? (double)done->loss : 0.0),
        .norm_sum = last->norm_sum + (finite && known ? (double)done->grad_norm : 0.0),
        .finite = last->finite + (finite ? 1 : 0),
    };
}

/* The mark of a step; those after it did not happen. */
static double *mark(struct comparison_marks *marks, int64_t step)
{
    while (marks->count > 0 && marks->item[marks->count - 1].step > step) {
        marks->count--;
    }
    if (marks->count > 0 && marks->item[marks->count - 1].step == step) {
        return &marks->item[marks->count - 1].value;
    }
    if (marks->count == marks->capacity) {
        marks->capacity = marks->capacity * 2 + 16;
        marks->item = xrealloc(marks->item, marks->capacity * sizeof *marks->item);
    }
    marks->item[marks->count] = (struct comparison_mark){ step, 0.0 };
    return &marks->item[marks->count++].value;
}

static void take_energy(struct comparison_run *run, int64_t step, double energy)
{
    size_t before = run->energies.count;
    if (!isfinite(energy)) {
        return;
    }
    double *mean = mark(&run->energies, step);
    run->energy_matrices = run->energies.count > before ? 1 : run->energy_matrices + 1;
    *mean += (energy - *mean) / (double)run->energy_matrices;
}

static void take_memory(struct comparison_run *run, int64_t step, const struct event_memory *memory)
{
    for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
        int64_t bytes = memory->peak_bytes[c];
        run->peak_bytes[c] = bytes > run->peak_bytes[c] ? bytes : run->peak_bytes[c];
    }
    *mark(&run->peaks, step) = (double)history_total(memory->peak_bytes);
}

/* "/runs/PARENT/checkpoints/step-000100" names the parent of a fork. */
static void take_fork(struct comparison_run *run, const struct event_resume *resume)
{
    const char *path = resume->path;
    const char *end = path != NULL ? strstr(path, "/checkpoints/") : NULL;
    if (run->count > 0 || end == NULL || resume->reason == NULL ||
        strcmp(resume->reason, "forked") != 0 || resume->from_step <= 0) {
        return;
    }
    char *parent = xstrndup(path, (size_t)(end - path));
    copy_text(&run->parent, path_base(parent));
    run->fork_step = resume->from_step;
    free(parent);
}

void comparison_run_take(struct comparison_run *run, const struct event *event)
{
    switch (event->kind) {
    case EVENT_RESUME:
        take_fork(run, &event->resume);
        break;
    case EVENT_START:
        take_start(run, &event->start);
        break;
    case EVENT_STEP:
        take_step(run, event->step, &event->step_done);
        break;
    case EVENT_MEMORY:
        take_memory(run, event->step, &event->memory);
        break;
    case EVENT_SELECTION:
        take_energy(run, event->step, event->selection.captured_energy);
        break;
    case EVENT_EVALUATION:
        run->evaluation_loss = event->evaluation.loss;
        run->evaluation_step = event->step;
        *mark(&run->evaluations, event->step) = (double)event->evaluation.loss;
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
static void take_medians(struct comparison_run *run, size_t steps)
{
    size_t from = steps > 0 && run->count > steps ? run->count - steps : 1;
    double *ms = xcalloc(run->count - (run->count > 0 ? from - 1 : 0) + 1, sizeof *ms);
    double *rate = xcalloc(run->count - (run->count > 0 ? from - 1 : 0) + 1, sizeof *rate);
    size_t n = 0;
    for (size_t i = from; i < run->count; i++) {
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

void comparison_run_open(struct comparison_run *run, const char *path, const char *label)
{
    *run = (struct comparison_run){
        .path = xstrdup(path),
        .label = xstrdup(label),
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
}

void comparison_run_free(struct comparison_run *run)
{
    free(run->label);
    free(run->path);
    free(run->method);
    free(run->parent);
    free(run->model);
    free(run->data);
    cJSON_Delete(run->recipe);
    free(run->point);
    free(run->evaluations.item);
    free(run->energies.item);
    free(run->peaks.item);
    *run = (struct comparison_run){ 0 };
}

void comparison_run_settle(struct comparison_run *run, size_t steps)
{
    free(run->method);
    run->method = comparison_setting(run, "method.name");
    run->peak_total_bytes = history_total(run->peak_bytes);
    take_medians(run, steps);
}

static void take_line(void *context, struct event *event)
{
    comparison_run_take(context, event);
}

int comparison_run_read(struct comparison_run *run, const char *path, const char *label,
                        struct error *err)
{
    struct run_summary summary = { 0 };
    if (run_summary_read(path, &summary, err) != 0) {
        return -1;
    }
    comparison_run_open(run, path, label != NULL ? label : path_base(path));
    run->status = summary.status;
    run_summary_free(&summary);
    if (event_file_read(path, take_line, run, err) != 0) {
        comparison_run_free(run);
        return -1;
    }
    comparison_run_settle(run, 0);
    return 0;
}

int comparison_add(struct comparison *comparison, const char *path, const char *label,
                   struct error *err)
{
    struct comparison_run run;
    if (comparison_run_read(&run, path, label, err) != 0) {
        return -1;
    }
    comparison->run = xrealloc(comparison->run, (comparison->count + 1) * sizeof run);
    comparison->run[comparison->count++] = run;
    return 0;
}

double comparison_position(const struct comparison_run *run, const struct comparison_point *point,
                           enum comparison_axis axis)
{
    switch (axis) {
    case COMPARISON_TOKENS:
        return point->tokens;
    case COMPARISON_SECONDS:
        return run->begin_seconds + point->seconds;
    case COMPARISON_STEPS:
        break;
    }
    return (double)point->step;
}

/* How many points lie at or before a position; an unknown position counts as before. */
static size_t count_until(const struct comparison_run *run, enum comparison_axis axis,
                          double position)
{
    size_t low = 0;
    size_t high = run->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (comparison_position(run, &run->point[middle], axis) > position) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

static int64_t finite_until(const struct comparison_run *run, size_t count)
{
    return count > 0 ? run->point[count - 1].finite : 0;
}

/* Mean of a running sum over the finite steps among points begin .. end - 1. */
static double mean_between(const struct comparison_run *run, size_t begin, size_t end, bool norm)
{
    int64_t steps = finite_until(run, end) - finite_until(run, begin);
    if (steps <= 0) {
        return (double)NAN;
    }
    const struct comparison_point *last = &run->point[end - 1];
    double sum = norm ? last->norm_sum : last->loss_sum;
    if (begin > 0) {
        const struct comparison_point *first = &run->point[begin - 1];
        sum -= norm ? first->norm_sum : first->loss_sum;
    }
    return sum / (double)steps;
}

double comparison_loss(const struct comparison_run *run, enum comparison_axis axis, double position)
{
    size_t end = count_until(run, axis, position);
    size_t begin = count_until(run, axis, position * 0.9);
    /* At least one step that is finite. */
    while (begin > 0 && finite_until(run, end) == finite_until(run, begin)) {
        begin--;
    }
    return mean_between(run, begin < end ? begin : end, end, false);
}

double comparison_end(const struct comparison_run *run, enum comparison_axis axis)
{
    return run->count > 0 ? comparison_position(run, &run->point[run->count - 1], axis) : 0.0;
}

/* The newest number told until the last of `end` points. */
static double newest_mark(const struct comparison_run *run, const struct comparison_marks *marks,
                          size_t end)
{
    int64_t step = run->point[end - 1].step;
    size_t low = 0;
    size_t high = marks->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (marks->item[middle].step > step) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low > 0 ? marks->item[low - 1].value : (double)NAN;
}

double comparison_value(const struct comparison_run *run, enum comparison_metric metric,
                        enum comparison_axis axis, double from, double to)
{
    size_t end = count_until(run, axis, to);
    size_t begin = count_until(run, axis, from);
    if (end == 0 || from >= comparison_end(run, axis)) {
        return (double)NAN;
    }
    begin = begin >= end ? end - 1 : begin;
    switch (metric) {
    case COMPARISON_EVALUATION:
        return newest_mark(run, &run->evaluations, end);
    case COMPARISON_ENERGY:
        return newest_mark(run, &run->energies, end);
    case COMPARISON_MEMORY:
        return newest_mark(run, &run->peaks, end);
    case COMPARISON_SPEED: {
        size_t before = begin > 0 ? begin - 1 : 0;
        double seconds = run->point[end - 1].seconds - run->point[before].seconds;
        double tokens = run->point[end - 1].tokens - run->point[before].tokens;
        return seconds > 0.0 ? tokens / seconds : (double)NAN;
    }
    case COMPARISON_NORM:
    case COMPARISON_LOSS:
    case COMPARISON_METRICS:
        break;
    }
    return mean_between(run, begin, end, metric == COMPARISON_NORM);
}

static double least(const struct comparison *comparison, enum comparison_axis axis)
{
    double found = INFINITY;
    for (size_t i = 0; i < comparison->count; i++) {
        const struct comparison_run *run = &comparison->run[i];
        if (run->count == 0) {
            return (double)NAN;
        }
        found = fmin(found, comparison_position(run, &run->point[run->count - 1], axis));
    }
    return isfinite(found) ? found : (double)NAN;
}

/* The run that a fork was made from, if it is there. */
static const struct comparison_run *parent_of(const struct comparison *comparison,
                                              const struct comparison_run *run)
{
    for (size_t i = 0; run->parent != NULL && i < comparison->count; i++) {
        const struct comparison_run *other = &comparison->run[i];
        const char *name = other->path[0] != '\0' ? path_base(other->path) : other->label;
        if (other != run && strcmp(name, run->parent) == 0) {
            return other;
        }
    }
    return NULL;
}

/* Forks of forks: as many passes as there are runs carry the time down every line of descent. */
static void find_beginnings(struct comparison *comparison)
{
    for (size_t i = 0; i < comparison->count; i++) {
        comparison->run[i].begin_seconds = 0.0;
    }
    for (size_t pass = 0; pass < comparison->count; pass++) {
        for (size_t i = 0; i < comparison->count; i++) {
            struct comparison_run *run = &comparison->run[i];
            const struct comparison_run *parent = parent_of(comparison, run);
            size_t until =
                parent != NULL ? count_until(parent, COMPARISON_STEPS, (double)run->fork_step) : 0;
            if (until > 0) {
                run->begin_seconds =
                    comparison_position(parent, &parent->point[until - 1], COMPARISON_SECONDS);
            }
        }
    }
}

struct comparison_note comparison_fork_note(const struct comparison *comparison,
                                            const char *letters)
{
    struct comparison_note note = { "" };
    char groups[2][32] = { "", "" };
    for (size_t i = 0; i < comparison->count && i < strlen(letters); i++) {
        const struct comparison_run *run = &comparison->run[i];
        if (run->parent != NULL) {
            char *group = groups[run->begin_seconds > 0.0 ? 0 : 1];
            size_t used = strlen(group);
            snprintf(group + used, sizeof groups[0] - used, "%s%c", used > 0 ? ", " : "",
                     letters[i]);
        }
    }
    if (groups[0][0] != '\0') {
        snprintf(note.text, sizeof note.text, "%s after its parent", groups[0]);
    }
    if (groups[1][0] != '\0') {
        size_t used = strlen(note.text);
        snprintf(note.text + used, sizeof note.text - used, "%s%s since its fork",
                 used > 0 ? "; " : "", groups[1]);
    }
    return note;
}

void comparison_finish(struct comparison *comparison)
{
    find_beginnings(comparison);
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
        comparison_run_free(&comparison->run[i]);
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
