/* Events of a run: made, stamped, written, told. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/device.h"
#include "engine/run/parts.h"

enum { BACKLOG_LIMIT = 16 << 20 };

void run_notice(struct run *run, const char *format, ...)
{
    char line[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (run->options->on_notice && !run_follows(run)) {
        run->options->on_notice(run->options->context, line);
    }
}

/* Writes the line, after those that could not be written before it. A disk that is full does not
 * stop training: lines wait here, and the run says so once. */
static void append(struct run *run, const char *line, size_t size)
{
    struct error err = { 0 };
    bool waiting = run->backlog.size > 0;
    if (waiting || run_directory_append(&run->directory, line, size, &err) != 0) {
        if (run->backlog.size + size <= BACKLOG_LIMIT) {
            buffer_append(&run->backlog, line, size);
        }
        if (!waiting) {
            run_notice(run, "%s; training goes on, events are kept in memory", err.message);
            return;
        }
        if (run_directory_append(&run->directory, run->backlog.text, run->backlog.size, &err) ==
            0) {
            run->backlog.size = 0;
        }
    }
}

void run_emit(struct run *run, struct event *event)
{
    if (run_follows(run)) {
        event_free(event);
        return;
    }
    struct buffer line = { 0 };
    event->time = clock_wall();
    event_write(event, &line);
    append(run, line.text, line.size);
    if (run->options->on_line) {
        run->options->on_line(run->options->context, line.text, line.size);
    }
    if (run->server) {
        server_announce(run->server, run->directory.bytes, run->state.step);
    }
    buffer_free(&line);
    event_free(event);
}

void run_warn(struct run *run, const struct error *err)
{
    struct event event;
    event_init(&event, EVENT_WARNING);
    event.step = run->state.step;
    event.message.text = xstrdup(err->message);
    event.message.hint = err->hint[0] ? xstrdup(err->hint) : NULL;
    run_emit(run, &event);
}

/* What a GPU holds beside the tensors of this run. */
static void tell_device(const struct backend *be, struct event_start *start)
{
    const struct backend_facts *facts = &be->facts;
    if (!device_is_cuda(be)) {
        return;
    }
    start->device_total_bytes = (int64_t)facts->memory_bytes;
    if (facts->context_bytes > 0) {
        start->context_bytes = (int64_t)facts->context_bytes;
        start->others_bytes = (int64_t)facts->found_used_bytes;
    }
}

void run_report_start(struct run *run)
{
    const struct model_config *config = &run->material.config;
    const struct dataset_facts *data = dataset_facts(run->material.dataset);
    struct event event;
    event_init(&event, EVENT_START);
    struct event_start *start = &event.start;
    start->run = xstrdup(run->directory.name);
    start->recipe_json = recipe_json(&run->recipe);
    start->model_name = xstrdup(run->material.model_name);
    start->family = xstrdup(config->family);
    start->parameters = run->plan.parameters;
    start->trained_parameters = run->plan.trained;
    start->layers = config->layers;
    start->hidden_size = config->hidden_size;
    start->heads = config->heads;
    start->kv_heads = config->kv_heads;
    start->intermediate_size = config->intermediate_size;
    start->vocabulary = config->vocabulary;
    start->data_name = xstrdup(path_base(run->recipe.data_train));
    start->train_rows = data->rows[DATA_TRAIN];
    start->train_tokens = data->tokens[DATA_TRAIN];
    start->validation_rows = data->rows[DATA_VALIDATION];
    start->total_steps = run->effective.train_steps;
    start->device = xstrdup(run->be->facts.device);
    start->threads = run->be->facts.threads;
    start->ranks = run->comm->ranks;
    tell_device(run->be, start);
    start->version = xstrdup(WINDROW_VERSION);
    start->pid = getpid();
    run_emit(run, &event);
}

static void add_phase(struct event_plan *out, const struct plan *plan, int phase)
{
    size_t sum = 0;
    for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
        sum += plan->phase_bytes[phase][c];
    }
    if (sum == 0 || phase == PHASE_IDLE || out->phase_count == EVENT_PHASE_COUNT) {
        return;
    }
    int at = out->phase_count++;
    snprintf(out->phase[at].name, sizeof out->phase[at].name, "%s", trainer_phase_names[phase]);
    for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
        out->phase[at].bytes[c] = (int64_t)plan->phase_bytes[phase][c];
    }
}

void run_report_plan(struct run *run)
{
    const struct plan *plan = &run->plan;
    struct event event;
    event_init(&event, EVENT_PLAN);
    if (run->state.step > 0) {
        event.step = run->state.step;
    }
    for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
        event.plan.planned_bytes[c] = (int64_t)plan->bytes[c];
    }
    event.plan.total_bytes = (int64_t)plan->total_bytes;
    event.plan.peak_bytes = (int64_t)plan->peak_bytes;
    event.plan.limit_bytes = run->limit_bytes;
    event.plan.step_flops = plan->step_flops;
    event.plan.refresh_flops = plan->refresh_flops;
    event.plan.checkpoint_bytes = run_need_bytes(run);
    for (int phase = 0; phase < PHASE_COUNT; phase++) {
        add_phase(&event.plan, plan, phase);
    }
    for (size_t i = 0; i < plan->largest_count && i < EVENT_LARGEST_COUNT; i++) {
        event.plan.largest[event.plan.largest_count++] = plan->largest[i];
    }
    run_emit(run, &event);
}

void run_report_step(struct run *run, const struct step_result *result, double data_s, double all_s)
{
    struct trainer_counters counters;
    trainer_counters(run->trainer, &counters);
    bool selects = counters.refresh_count > 0;
    struct event event;
    event_init(&event, EVENT_STEP);
    event.step = run->state.step;
    struct event_step *step = &event.step_done;
    if (!result->skipped) {
        step->loss = result->loss;
    }
    step->grad_norm = result->grad_norm;
    step->learning_rate = result->learning_rate;
    step->tokens = result->tokens;
    step->tokens_total = run->state.tokens_total;
    step->tokens_per_second = all_s > 0.0 ? (double)result->positions / all_s : (double)NAN;
    step->step_ms = 1e3 * all_s;
    double flops = result->flops;
    if (run->ceiling_flops > 0.0 && all_s > 0.0) {
        step->mfu = flops / all_s / run->ceiling_flops;
    }
    step->forward_ms = result->phase_ms[PHASE_FORWARD];
    step->backward_ms = result->phase_ms[PHASE_BACKWARD];
    step->update_ms = result->phase_ms[PHASE_UPDATE];
    step->refresh_ms = selects ? result->phase_ms[PHASE_REFRESH] : (double)NAN;
    step->data_ms = 1e3 * data_s;
    step->rank = selects ? run->effective.method_rank : EVENT_UNKNOWN;
    step->refreshed = result->refreshed;
    step->skipped = result->skipped;
    run_report_offload(run, step);
    if (run->comm->ranks > 1) {
        step->exchange_ms = result->exchange_ms;
        double exchanged = run->comm->counts.payload_bytes;
        step->exchanged_bytes = (int64_t)(exchanged - run->exchanged_bytes);
        run->exchanged_bytes = exchanged;
    }
    step->reason = result->skipped && result->reason ? xstrdup(result->reason) : NULL;
    run_emit(run, &event);
}

/* Bytes of a sample as an event has them. */
static int64_t known(int64_t bytes)
{
    return bytes >= 0 ? bytes : EVENT_UNKNOWN;
}

/* By everybody: of the last sample, or as CUDA tells, which a step must not wait for but a report
 * may. `taken`: what the regions take, which is all that there is to tell of a processor. */
static int64_t device_used(struct run *run, int64_t taken)
{
    struct nvml_sample sample;
    size_t free_bytes = 0;
    size_t total_bytes = 0;
    sampler_read(run->sampler, &sample);
    if (!device_is_cuda(run->be)) {
        return taken;
    }
    if (sample.used_bytes < 0 && backend_memory(run->be, &free_bytes, &total_bytes) == 0) {
        return (int64_t)(total_bytes - free_bytes);
    }
    return known(sample.used_bytes);
}

void run_report_memory(struct run *run)
{
    const struct memory *memory = trainer_memory(run->trainer);
    struct event event;
    int64_t taken = 0;
    event_init(&event, EVENT_MEMORY);
    event.step = run->state.step;
    for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
        event.memory.bytes[c] = (int64_t)memory_live(memory, (enum memory_category)c);
        event.memory.peak_bytes[c] = (int64_t)memory_peak(memory, (enum memory_category)c);
        event.memory.planned_bytes[c] = (int64_t)run->plan.bytes[c];
        taken += (int64_t)memory_capacity(memory, (enum memory_category)c);
    }
    event.memory.device_used_bytes = device_used(run, taken);
    int64_t host = telemetry_host_bytes();
    event.memory.host_bytes = host >= 0 ? host : EVENT_UNKNOWN;
    run_emit(run, &event);
}

void run_report_selection(struct run *run)
{
    struct selection_report report;
    int64_t count = trainer_selection_count(run->trainer);
    for (int64_t i = 0; i < count; i++) {
        if (trainer_selection(run->trainer, i, &report) != 0) {
            continue;
        }
        struct event event;
        event_init(&event, EVENT_SELECTION);
        event.step = run->state.step;
        event.selection.tensor = xstrdup(report.tensor);
        event.selection.side = xstrdup(report.side == SIDE_ROWS ? "out" : "in");
        event.selection.rank = run->effective.method_rank;
        event.selection.rows = report.candidates;
        event.selection.selected = report.selected;
        event.selection.overlap = report.overlap;
        event.selection.captured_energy = report.captured_energy;
        event.selection.coverage = report.coverage;
        event.selection.entropy = report.entropy;
        memcpy(event.selection.curve, report.curve, sizeof event.selection.curve);
        for (int bin = 0; bin < EVENT_HISTOGRAM_BINS; bin++) {
            event.selection.histogram[bin] = report.histogram[bin];
        }
        run_emit(run, &event);
    }
}

void run_report_telemetry(struct run *run)
{
    struct event event;
    struct nvml_sample sample;
    char why[256];
    if (sampler_trouble(run->sampler, why, sizeof why)) {
        struct error err = { 0 };
        fail(&err, ERROR_RUNTIME, "%s", why);
        hint(&err, "training is not affected; windrow doctor tells what is there");
        run_warn(run, &err);
    }
    sampler_read(run->sampler, &sample);
    event_init(&event, EVENT_TELEMETRY);
    event.telemetry.gpu_util = sample.gpu_util;
    event.telemetry.power_w = sample.power_w;
    event.telemetry.temperature_c = sample.temperature_c;
    event.telemetry.clock_mhz = sample.clock_mhz;
    event.telemetry.device_used_bytes = known(sample.used_bytes);
    event.telemetry.device_total_bytes = known(sample.total_bytes);
    event.step = run->state.step;
    int64_t host = telemetry_host_bytes();
    event.telemetry.host_bytes = host >= 0 ? host : EVENT_UNKNOWN;
    event.telemetry.cpu_percent = telemetry_cpu_percent(&run->telemetry);
    run_emit(run, &event);
}

void run_report_state(struct run *run, const char *state)
{
    struct event event;
    event_init(&event, EVENT_STATE);
    event.step = run->state.step;
    event.state.state = xstrdup(state);
    run_emit(run, &event);
}

void run_report_resume(struct run *run, const char *path, int64_t from_step, const char *reason)
{
    struct event event;
    event_init(&event, EVENT_RESUME);
    event.step = run->state.step;
    event.resume.path = path ? xstrdup(path) : NULL;
    event.resume.from_step = from_step;
    event.resume.reason = xstrdup(reason);
    run_emit(run, &event);
}

void run_report_stop(struct run *run, const char *reason, int64_t status)
{
    struct event event;
    event_init(&event, EVENT_STOP);
    event.step = run->state.step;
    event.stop.reason = xstrdup(reason);
    event.stop.status = status;
    event.stop.steps = run->state.step;
    event.stop.tokens_total = run->state.tokens_total;
    event.stop.seconds = run->state.seconds;
    event.stop.loss = run->state.loss;
    run_emit(run, &event);
}
