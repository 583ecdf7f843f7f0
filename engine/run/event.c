/*
 * Events as lines of JSON: the format and the writer.
 *
 * One table of rows {kind, key, type, place in struct event} is the format: the writer, the reader
 * (event_read.c) and event_free walk it. Every line is an object that begins with "event" (the
 * kind), "time" and, where it applies, "step"; a value that is not known is absent; a flag is there
 * only if it is true.
 */
#include "engine/run/event_rows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/json.h"
#include "engine/base/text.h"

const char *const event_kind_names[EVENT_KIND_COUNT] = {
    "start",   "plan",      "step",    "memory", "selection", "evaluation", "sample", "checkpoint",
    "setting", "telemetry", "warning", "error",  "resume",    "state",      "stop",   "ranks",
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
    { EVENT_STEP, "exchange_ms", ROW_DOUBLE, AT(step_done.exchange_ms) },
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

    { EVENT_RANKS, "steps", ROW_INTEGER, AT(ranks.steps) },
    { EVENT_RANKS, "slowest", ROW_INTEGER, AT(ranks.slowest) },
    { EVENT_RANKS, "ranks", ROW_RANKS, AT(ranks) },
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

void *event_row_place(const struct event_row *row, const struct event *event)
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
        void *place = event_row_place(&event_rows[i], event);
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
            char **place = event_row_place(&event_rows[i], event);
            free(*place);
            *place = NULL;
        } else if (event_rows[i].type == ROW_RANKS) {
            free(event->ranks.item);
            event->ranks.item = NULL;
            event->ranks.count = 0;
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
    case ROW_RANKS:
        return ((const struct event_ranks *)place)->count > 0;
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
    case ROW_RANKS:
        event_ranks_write(place, out);
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
        const void *place = event_row_place(&event_rows[i], event);
        if (event_rows[i].kind == event->kind && is_known(&event_rows[i], place)) {
            buffer_printf(out, ",\"%s\":", event_rows[i].key);
            write_value(&event_rows[i], place, out);
        }
    }
    buffer_append(out, "}\n", 2);
}
