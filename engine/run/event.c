/*
 * Events to and from lines of JSON.
 *
 * One table of rows {kind, key, type, place in struct event} is the format: the writer, the reader
 * and event_free walk it. Every line is an object that begins with "event" (the kind), "time" and,
 * where it applies, "step"; a value that is not known is absent; a flag is there only if it is
 * true.
 */
#include "engine/run/event_rows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/json.h"
#include "engine/base/text.h"

const char *const event_kind_names[EVENT_KIND_COUNT] = {
    "start",   "plan",      "step",    "memory", "selection", "evaluation", "sample", "checkpoint",
    "setting", "telemetry", "warning", "error",  "resume",    "state",      "stop",
};

#define AT(member) offsetof(struct event, member)

const struct event_row event_rows[] = {
    { EVENT_START, "run", ROW_TEXT, AT(start.run) },
    { EVENT_START, "model", ROW_TEXT, AT(start.model_name) },
    { EVENT_START, "family", ROW_TEXT, AT(start.family) },
    { EVENT_START, "parameters", ROW_INTEGER, AT(start.parameters) },
    { EVENT_START, "trained_parameters", ROW_INTEGER, AT(start.trained_parameters) },
    { EVENT_START, "layers", ROW_INTEGER, AT(start.layers) },
    { EVENT_START, "hidden_size", ROW_INTEGER, AT(start.hidden_size) },
    { EVENT_START, "heads", ROW_INTEGER, AT(start.heads) },
    { EVENT_START, "kv_heads", ROW_INTEGER, AT(start.kv_heads) },
    { EVENT_START, "intermediate_size", ROW_INTEGER, AT(start.intermediate_size) },
    { EVENT_START, "vocabulary", ROW_INTEGER, AT(start.vocabulary) },
    { EVENT_START, "data", ROW_TEXT, AT(start.data_name) },
    { EVENT_START, "train_rows", ROW_INTEGER, AT(start.train_rows) },
    { EVENT_START, "train_tokens", ROW_INTEGER, AT(start.train_tokens) },
    { EVENT_START, "validation_rows", ROW_INTEGER, AT(start.validation_rows) },
    { EVENT_START, "total_steps", ROW_INTEGER, AT(start.total_steps) },
    { EVENT_START, "device", ROW_TEXT, AT(start.device) },
    { EVENT_START, "threads", ROW_INTEGER, AT(start.threads) },
    { EVENT_START, "ranks", ROW_INTEGER, AT(start.ranks) },
    { EVENT_START, "device_total_bytes", ROW_INTEGER, AT(start.device_total_bytes) },
    { EVENT_START, "context_bytes", ROW_INTEGER, AT(start.context_bytes) },
    { EVENT_START, "others_bytes", ROW_INTEGER, AT(start.others_bytes) },
    { EVENT_START, "version", ROW_TEXT, AT(start.version) },
    { EVENT_START, "pid", ROW_INTEGER, AT(start.pid) },
    { EVENT_START, "recipe", ROW_OBJECT, AT(start.recipe_json) },

    { EVENT_PLAN, "bytes", ROW_CATEGORIES, AT(plan.planned_bytes) },
    { EVENT_PLAN, "total_bytes", ROW_INTEGER, AT(plan.total_bytes) },
    { EVENT_PLAN, "peak_bytes", ROW_INTEGER, AT(plan.peak_bytes) },
    { EVENT_PLAN, "limit_bytes", ROW_INTEGER, AT(plan.limit_bytes) },
    { EVENT_PLAN, "step_flops", ROW_DOUBLE, AT(plan.step_flops) },
    { EVENT_PLAN, "refresh_flops", ROW_DOUBLE, AT(plan.refresh_flops) },
    { EVENT_PLAN, "checkpoint_bytes", ROW_INTEGER, AT(plan.checkpoint_bytes) },
    { EVENT_PLAN, "phases", ROW_PHASES, AT(plan) },
    { EVENT_PLAN, "largest", ROW_LARGEST, AT(plan) },

    { EVENT_STEP, "loss", ROW_FLOAT, AT(step_done.loss) },
    { EVENT_STEP, "grad_norm", ROW_FLOAT, AT(step_done.grad_norm) },
    { EVENT_STEP, "learning_rate", ROW_DOUBLE, AT(step_done.learning_rate) },
    { EVENT_STEP, "tokens", ROW_INTEGER, AT(step_done.tokens) },
    { EVENT_STEP, "tokens_total", ROW_INTEGER, AT(step_done.tokens_total) },
    { EVENT_STEP, "tokens_per_second", ROW_DOUBLE, AT(step_done.tokens_per_second) },
    { EVENT_STEP, "step_ms", ROW_DOUBLE, AT(step_done.step_ms) },
    { EVENT_STEP, "mfu", ROW_DOUBLE, AT(step_done.mfu) },
    { EVENT_STEP, "forward_ms", ROW_DOUBLE, AT(step_done.forward_ms) },
    { EVENT_STEP, "backward_ms", ROW_DOUBLE, AT(step_done.backward_ms) },
    { EVENT_STEP, "update_ms", ROW_DOUBLE, AT(step_done.update_ms) },
    { EVENT_STEP, "refresh_ms", ROW_DOUBLE, AT(step_done.refresh_ms) },
    { EVENT_STEP, "data_ms", ROW_DOUBLE, AT(step_done.data_ms) },
    { EVENT_STEP, "exchanged_bytes", ROW_INTEGER, AT(step_done.exchanged_bytes) },
    { EVENT_STEP, "offload_written_bytes", ROW_INTEGER, AT(step_done.offload_written_bytes) },
    { EVENT_STEP, "offload_read_bytes", ROW_INTEGER, AT(step_done.offload_read_bytes) },
    { EVENT_STEP, "offload_stall_ms", ROW_DOUBLE, AT(step_done.offload_stall_ms) },
    { EVENT_STEP, "rank", ROW_INTEGER, AT(step_done.rank) },
    { EVENT_STEP, "refreshed", ROW_FLAG, AT(step_done.refreshed) },
    { EVENT_STEP, "skipped", ROW_FLAG, AT(step_done.skipped) },
    { EVENT_STEP, "reason", ROW_TEXT, AT(step_done.reason) },

    { EVENT_MEMORY, "bytes", ROW_CATEGORIES, AT(memory.bytes) },
    { EVENT_MEMORY, "peak_bytes", ROW_CATEGORIES, AT(memory.peak_bytes) },
    { EVENT_MEMORY, "planned_bytes", ROW_CATEGORIES, AT(memory.planned_bytes) },
    { EVENT_MEMORY, "device_used_bytes", ROW_INTEGER, AT(memory.device_used_bytes) },
    { EVENT_MEMORY, "host_bytes", ROW_INTEGER, AT(memory.host_bytes) },

    { EVENT_SELECTION, "tensor", ROW_TEXT, AT(selection.tensor) },
    { EVENT_SELECTION, "side", ROW_TEXT, AT(selection.side) },
    { EVENT_SELECTION, "rank", ROW_INTEGER, AT(selection.rank) },
    { EVENT_SELECTION, "rows", ROW_INTEGER, AT(selection.rows) },
    { EVENT_SELECTION, "selected", ROW_INTEGER, AT(selection.selected) },
    { EVENT_SELECTION, "overlap", ROW_DOUBLE, AT(selection.overlap) },
    { EVENT_SELECTION, "captured_energy", ROW_DOUBLE, AT(selection.captured_energy) },
    { EVENT_SELECTION, "coverage", ROW_DOUBLE, AT(selection.coverage) },
    { EVENT_SELECTION, "entropy", ROW_DOUBLE, AT(selection.entropy) },
    { EVENT_SELECTION, "energy_curve", ROW_CURVE, AT(selection.curve) },
    { EVENT_SELECTION, "histogram", ROW_HISTOGRAM, AT(selection.histogram) },

    { EVENT_EVALUATION, "loss", ROW_FLOAT, AT(evaluation.loss) },
    { EVENT_EVALUATION, "perplexity", ROW_DOUBLE, AT(evaluation.perplexity) },
    { EVENT_EVALUATION, "rows", ROW_INTEGER, AT(evaluation.rows) },
    { EVENT_EVALUATION, "tokens", ROW_INTEGER, AT(evaluation.tokens) },

    { EVENT_SAMPLE, "prompt", ROW_TEXT, AT(sample.prompt) },
    { EVENT_SAMPLE, "text", ROW_TEXT, AT(sample.text) },

    { EVENT_CHECKPOINT, "path", ROW_TEXT, AT(checkpoint.path) },
    { EVENT_CHECKPOINT, "bytes", ROW_INTEGER, AT(checkpoint.bytes) },
    { EVENT_CHECKPOINT, "seconds", ROW_DOUBLE, AT(checkpoint.seconds) },
    { EVENT_CHECKPOINT, "best", ROW_FLAG, AT(checkpoint.best) },

    { EVENT_SETTING, "key", ROW_TEXT, AT(setting.key) },
    { EVENT_SETTING, "from", ROW_TEXT, AT(setting.from) },
    { EVENT_SETTING, "to", ROW_TEXT, AT(setting.to) },
    { EVENT_SETTING, "effective_step", ROW_INTEGER, AT(setting.effective_step) },
    { EVENT_SETTING, "by", ROW_TEXT, AT(setting.by) },

    { EVENT_TELEMETRY, "gpu_util", ROW_DOUBLE, AT(telemetry.gpu_util) },
    { EVENT_TELEMETRY, "power_w", ROW_DOUBLE, AT(telemetry.power_w) },
    { EVENT_TELEMETRY, "temperature_c", ROW_DOUBLE, AT(telemetry.temperature_c) },
    { EVENT_TELEMETRY, "clock_mhz", ROW_DOUBLE, AT(telemetry.clock_mhz) },
    { EVENT_TELEMETRY, "device_used_bytes", ROW_INTEGER, AT(telemetry.device_used_bytes) },
    { EVENT_TELEMETRY, "device_total_bytes", ROW_INTEGER, AT(telemetry.device_total_bytes) },
    { EVENT_TELEMETRY, "host_bytes", ROW_INTEGER, AT(telemetry.host_bytes) },
    { EVENT_TELEMETRY, "cpu_percent", ROW_DOUBLE, AT(telemetry.cpu_percent) },

    { EVENT_WARNING, "text", ROW_TEXT, AT(message.text) },
    { EVENT_WARNING, "hint", ROW_TEXT, AT(message.hint) },
    { EVENT_ERROR, "text", ROW_TEXT, AT(message.text) },
    { EVENT_ERROR, "hint", ROW_TEXT, AT(message.hint) },

    { EVENT_RESUME, "path", ROW_TEXT, AT(resume.path) },
    { EVENT_RESUME, "from_step", ROW_INTEGER, AT(resume.from_step) },
    { EVENT_RESUME, "reason", ROW_TEXT, AT(resume.reason) },

    { EVENT_STATE, "state", ROW_TEXT, AT(state.state) },

    { EVENT_STOP, "reason", ROW_TEXT, AT(stop.reason) },
    { EVENT_STOP, "status", ROW_INTEGER, AT(stop.status) },
    { EVENT_STOP, "steps", ROW_INTEGER, AT(stop.steps) },
    { EVENT_STOP, "tokens_total", ROW_INTEGER, AT(stop.tokens_total) },
    { EVENT_STOP, "seconds", ROW_DOUBLE, AT(stop.seconds) },
    { EVENT_STOP, "loss", ROW_FLOAT, AT(stop.loss) },
};
enum { ROW_COUNT = sizeof event_rows / sizeof event_rows[0] };
const size_t event_row_count = ROW_COUNT;

size_t event_row_first(enum event_kind kind)
{
    size_t low = 0;
    size_t high = ROW_COUNT;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (event_rows[middle].kind < kind) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* Where the row's value lies. Events come from callers' storage, so that the alignment is right. */
static void *place_of(const struct event_row *row, const struct event *event)
{
    return (char *)(uintptr_t)event + row->offset;
}

void event_init(struct event *event, enum event_kind kind)
{
    /* A plan is large; of steps and selections, of which there are many, only their own part is
     * cleared. */
    size_t size = kind == EVENT_STEP        ? AT(step_done) + sizeof(event->step_done)
                  : kind == EVENT_SELECTION ? AT(selection) + sizeof(event->selection)
                                            : sizeof(*event);
    memset(event, 0, size);
    event->kind = kind;
    event->step = EVENT_UNKNOWN;
    for (size_t i = event_row_first(kind); i < ROW_COUNT && event_rows[i].kind == kind; i++) {
        void *place = place_of(&event_rows[i], event);
        if (event_rows[i].type == ROW_FLOAT) {
            *(float *)place = NAN;
        } else if (event_rows[i].type == ROW_DOUBLE || event_rows[i].type == ROW_CURVE) {
            *(double *)place = (double)NAN;
        } else if (event_rows[i].type == ROW_INTEGER || event_rows[i].type == ROW_CATEGORIES ||
                   event_rows[i].type == ROW_HISTOGRAM) {
            *(int64_t *)place = EVENT_UNKNOWN; /* of arrays the first says it for all */
        }
    }
}

void event_free(struct event *event)
{
    enum event_kind kind = event->kind;
    for (size_t i = event_row_first(kind); i < ROW_COUNT && event_rows[i].kind == kind; i++) {
        if (event_rows[i].type == ROW_TEXT || event_rows[i].type == ROW_OBJECT) {
            char **place = place_of(&event_rows[i], event);
            free(*place);
            *place = NULL;
        }
    }
}

/* ---- writing -------------------------------------------------------------------------------- */

static void write_categories(struct buffer *out, const int64_t bytes[MEMORY_CATEGORY_COUNT])
{
    for (int i = 0; i < MEMORY_CATEGORY_COUNT; i++) {
        buffer_printf(out, "%s\"%s\":%lld", i ? "," : "{", memory_category_names[i],
                      (long long)bytes[i]);
    }
    buffer_append(out, "}", 1);
}

static void write_histogram(struct buffer *out, const int64_t *bins)
{
    for (int i = 0; i < EVENT_HISTOGRAM_BINS; i++) {
        buffer_printf(out, "%s%lld", i ? "," : "[", (long long)bins[i]);
    }
    buffer_append(out, "]", 1);
}

static void write_curve(struct buffer *out, const double *points)
{
    for (int i = 0; i < EVENT_CURVE_POINTS; i++) {
        buffer_append(out, i ? "," : "[", 1);
        json_write_double(out, points[i]);
    }
    buffer_append(out, "]", 1);
}

static void write_phases(struct buffer *out, const struct event_plan *plan)
{
    buffer_append(out, "{", 1);
    for (int i = 0; i < plan->phase_count; i++) {
        buffer_append(out, ",", i ? 1 : 0);
        json_write_string(out, plan->phase[i].name, strlen(plan->phase[i].name));
        buffer_append(out, ":", 1);
        write_categories(out, plan->phase[i].bytes);
    }
    buffer_append(out, "}", 1);
}

static void write_largest(struct buffer *out, const struct event_plan *plan)
{
    buffer_append(out, "[", 1);
    for (int i = 0; i < plan->largest_count; i++) {
        const struct memory_record *record = &plan->largest[i];
        buffer_printf(out, "%s{\"name\":", i ? "," : "");
        json_write_string(out, record->name, strlen(record->name));
        buffer_printf(out, ",\"category\":\"%s\",\"dtype\":\"%s\",\"shape\":[",
                      memory_category_names[record->category], dtype_name(record->dtype));
        for (int d = 0; d < record->rank; d++) {
            buffer_printf(out, "%s%lld", d ? "," : "", (long long)record->dim[d]);
        }
        buffer_printf(out, "],\"bytes\":%zu}", record->bytes);
    }
    buffer_append(out, "]", 1);
}

/* JSON in any layout as one line; nothing if it is not JSON. */
static void write_object(struct buffer *out, const char *json)
{
    struct error ignored = { 0 };
    cJSON *value = json_parse(json, strlen(json), "recipe", 1, &ignored);
    char *line = value ? json_print(value) : xstrdup("null");
    buffer_append(out, line, strlen(line));
    free(line);
    cJSON_Delete(value);
}

static bool is_known(const struct event_row *row, const void *place)
{
    switch (row->type) {
    case ROW_TEXT:
    case ROW_OBJECT:
        return *(char *const *)place != NULL;
    case ROW_FLOAT:
        return isfinite(*(const float *)place);
    case ROW_DOUBLE:
    case ROW_CURVE:
        return isfinite(*(const double *)place);
    case ROW_INTEGER:
    case ROW_CATEGORIES:
    case ROW_HISTOGRAM:
        return *(const int64_t *)place != EVENT_UNKNOWN;
    case ROW_FLAG:
        return *(const bool *)place;
    case ROW_PHASES:
        return ((const struct event_plan *)place)->phase_count > 0;
    case ROW_LARGEST:
        return ((const struct event_plan *)place)->largest_count > 0;
    }
    return false;
}

static void write_value(const struct event_row *row, const void *place, struct buffer *out)
{
    switch (row->type) {
    case ROW_TEXT: {
        const char *text = *(char *const *)place;
        json_write_string(out, text, strlen(text));
        break;
    }
    case ROW_OBJECT:
        write_object(out, *(char *const *)place);
        break;
    case ROW_FLOAT:
        json_write_float(out, *(const float *)place);
        break;
    case ROW_DOUBLE:
        json_write_double(out, *(const double *)place);
        break;
    case ROW_INTEGER:
        buffer_printf(out, "%lld", (long long)*(const int64_t *)place);
        break;
    case ROW_FLAG:
        buffer_append(out, "true", 4);
        break;
    case ROW_CATEGORIES:
        write_categories(out, place);
        break;
    case ROW_HISTOGRAM:
        write_histogram(out, place);
        break;
    case ROW_CURVE:
        write_curve(out, place);
        break;
    case ROW_PHASES:
        write_phases(out, place);
        break;
    case ROW_LARGEST:
        write_largest(out, place);
        break;
    }
}

void event_write(const struct event *event, struct buffer *out)
{
    buffer_printf(out, "{\"event\":\"%s\",\"time\":", event_kind_names[event->kind]);
    json_write_double(out, event->time);
    if (event->step != EVENT_UNKNOWN) {
        buffer_printf(out, ",\"step\":%lld", (long long)event->step);
    }
    for (size_t i = 0; i < ROW_COUNT; i++) {
        const void *place = place_of(&event_rows[i], event);
        if (event_rows[i].kind == event->kind && is_known(&event_rows[i], place)) {
            buffer_printf(out, ",\"%s\":", event_rows[i].key);
            write_value(&event_rows[i], place, out);
        }
    }
    buffer_append(out, "}\n", 2);
}

/* ---- reading -------------------------------------------------------------------------------- */

/* A whole number that int64_t and double both hold. */
static bool read_whole(const cJSON *value, int64_t *out)
{
    if (!cJSON_IsNumber(value) || !(fabs(value->valuedouble) <= 0x1p53) ||
        value->valuedouble != trunc(value->valuedouble)) {
        return false;
    }
    *out = (int64_t)value->valuedouble;
    return true;
}

static bool read_categories(const cJSON *value, int64_t *out)
{
    for (int i = 0; i < MEMORY_CATEGORY_COUNT; i++) {
        if (!read_whole(json_get(value, memory_category_names[i]), &out[i])) {
            return false;
        }
    }
    return true;
}

static bool read_histogram(const cJSON *value, int64_t *out)
{
    int64_t bins[EVENT_HISTOGRAM_BINS] = { 0 };
    int count = 0;
    const cJSON *item;
    if (!cJSON_IsArray(value)) {
        return false;
    }
    cJSON_ArrayForEach (item, value) {
        if (count == EVENT_HISTOGRAM_BINS || !read_whole(item, &bins[count])) {
            return false;
        }
        count++;
    }
    memcpy(out, bins, sizeof bins);
    return count == EVENT_HISTOGRAM_BINS;
}

static bool read_curve(const cJSON *value, double *out)
{
    int count = 0;
    const cJSON *item;
    if (!cJSON_IsArray(value) || cJSON_GetArraySize(value) != EVENT_CURVE_POINTS) {
        return false;
    }
    cJSON_ArrayForEach (item, value) {
        if (!cJSON_IsNumber(item)) {
            return false;
        }
        out[count++] = item->valuedouble;
    }
    return true;
}

static bool read_phases(const cJSON *value, struct event_plan *plan)
{
    const cJSON *item;
    if (!cJSON_IsObject(value)) {
        return false;
    }
    cJSON_ArrayForEach (item, value) {
        if (plan->phase_count == EVENT_PHASE_COUNT ||
            strlen(item->string) >= sizeof plan->phase[0].name ||
            !read_categories(item, plan->phase[plan->phase_count].bytes)) {
            return false;
        }
        memcpy(plan->phase[plan->phase_count].name, item->string, strlen(item->string) + 1);
        plan->phase_count++;
    }
    return true;
}

/* Position of the string `value` among names, or -1. */
static int read_name(const cJSON *value, const char *(*name)(int), int count)
{
    for (int i = 0; cJSON_IsString(value) && i < count; i++) {
        if (strcmp(value->valuestring, name(i)) == 0) {
            return i;
        }
    }
    return -1;
}

static const char *category_name(int i)
{
    return memory_category_names[i];
}

static const char *type_name(int i)
{
    return dtype_name((enum dtype)i);
}

static bool read_record(const cJSON *item, struct memory_record *record)
{
    const cJSON *name = json_get(item, "name");
    const cJSON *shape = json_get(item, "shape");
    int category = read_name(json_get(item, "category"), category_name, MEMORY_CATEGORY_COUNT);
    int dtype = read_name(json_get(item, "dtype"), type_name, DTYPE_COUNT);
    int64_t bytes = 0;
    if (!cJSON_IsString(name) || strlen(name->valuestring) >= sizeof record->name ||
        !cJSON_IsArray(shape) || category < 0 || dtype < 0 ||
        !read_whole(json_get(item, "bytes"), &bytes) || bytes < 0) {
        return false;
    }
    const cJSON *dim;
    cJSON_ArrayForEach (dim, shape) {
        if (record->rank == TENSOR_RANK_MAX || !read_whole(dim, &record->dim[record->rank])) {
            return false;
        }
        record->rank++;
    }
    memcpy(record->name, name->valuestring, strlen(name->valuestring) + 1);
    record->category = (enum memory_category)category;
    record->dtype = (enum dtype)dtype;
    record->bytes = (size_t)bytes;
    return true;
}

static bool read_largest(const cJSON *value, struct event_plan *plan)
{
    const cJSON *item;
    if (!cJSON_IsArray(value)) {
        return false;
    }
    cJSON_ArrayForEach (item, value) {
        if (plan->largest_count == EVENT_LARGEST_COUNT ||
            !read_record(item, &plan->largest[plan->largest_count])) {
            return false;
        }
        plan->largest_count++;
    }
    return true;
}

static bool read_value(const struct event_row *row, const cJSON *value, void *place)
{
    switch (row->type) {
    case ROW_TEXT:
        if (!cJSON_IsString(value)) {
            return false;
        }
        *(char **)place = xstrdup(value->valuestring);
        return true;
    case ROW_OBJECT:
        if (!cJSON_IsObject(value)) {
            return false;
        }
        *(char **)place = json_print(value);
        return true;
    case ROW_FLOAT:
    case ROW_DOUBLE:
        if (!cJSON_IsNumber(value)) {
            return false;
        }
        if (row->type == ROW_FLOAT) {
            *(float *)place = (float)value->valuedouble;
        } else {
            *(double *)place = value->valuedouble;
        }
        return true;
    case ROW_INTEGER:
        return read_whole(value, place);
    case ROW_FLAG:
        *(bool *)place = cJSON_IsTrue(value);
        return cJSON_IsBool(value);
    case ROW_CATEGORIES:
        return read_categories(value, place);
    case ROW_HISTOGRAM:
        return read_histogram(value, place);
    case ROW_CURVE:
        return read_curve(value, place);
    case ROW_PHASES:
        return read_phases(value, place);
    case ROW_LARGEST:
        return read_largest(value, place);
    }
    return false;
}

static int read_rows(const cJSON *root, struct event *event, struct error *err)
{
    for (size_t i = 0; i < ROW_COUNT; i++) {
        const cJSON *value =
            event_rows[i].kind == event->kind ? json_get(root, event_rows[i].key) : NULL;
        if (value && !cJSON_IsNull(value) &&
            !read_value(&event_rows[i], value, place_of(&event_rows[i], event))) {
            return fail(err, ERROR_DATA, "event %s: \"%s\" has an unexpected value",
                        event_kind_names[event->kind], event_rows[i].key);
        }
    }
    return 0;
}

static int read_event(const cJSON *root, struct event *event, struct error *err)
{
    const cJSON *name = json_get(root, "event");
    const cJSON *time = json_get(root, "time");
    const cJSON *step = json_get(root, "step");
    int kind = 0;
    if (!cJSON_IsString(name) || !cJSON_IsNumber(time)) {
        return fail(err, ERROR_DATA, "an event needs \"event\" and \"time\"");
    }
    while (kind < EVENT_KIND_COUNT && strcmp(name->valuestring, event_kind_names[kind]) != 0) {
        kind++;
    }
    if (kind == EVENT_KIND_COUNT) {
        return fail(err, ERROR_DATA, "unknown event \"%s\"", text_show(name->valuestring).text);
    }
    event_init(event, (enum event_kind)kind);
    event->time = time->valuedouble;
    if (step && !read_whole(step, &event->step)) {
        return fail(err, ERROR_DATA, "event %s: \"step\" is not a whole number", name->valuestring);
    }
    if (read_rows(root, event, err) != 0) {
        event_free(event);
        return -1;
    }
    return 0;
}

int event_read(const char *line, size_t size, struct event *event, struct error *err)
{
    return event_scan(line, size, event) ? 0 : event_read_any(line, size, event, err);
}

int event_read_any(const char *line, size_t size, struct event *event, struct error *err)
{
    memset(event, 0, sizeof *event);
    cJSON *root = json_parse(line, size, "event", 1, err);
    if (!root) {
        return -1;
    }
    int result = read_event(root, event, err);
    cJSON_Delete(root);
    return result;
}
