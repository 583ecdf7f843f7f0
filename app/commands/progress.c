/* A headless run told to people: at most one line a second, the rare events, and a summary. */
#include "app/commands/progress.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/commands/output.h"
#include "app/fare.h"
#include "app/text.h"
#include "engine/base/clock.h"
#include "engine/event.h"

void progress_init(struct progress *progress, bool json)
{
    *progress = (struct progress){ .json = json,
                                   .first_loss = NAN,
                                   .loss = NAN,
                                   .best_evaluation = NAN,
                                   .last_tokens_total = -1 };
}

void progress_free(struct progress *progress)
{
    free(progress->run);
    progress->run = NULL;
    show_ranks_free(&progress->ranks);
}

static void tell_start(struct progress *p, const struct event_start *start)
{
    free(p->run);
    p->run = xstrdup(start->run == NULL ? "" : start->run);
    p->total_steps = start->total_steps == EVENT_UNKNOWN ? 0 : start->total_steps;
    const char *device = start->device == NULL ? "?" : start->device;
    if (start->ranks > 1) {
        output_say("run %s on %lld ranks, the first on %s", p->run, (long long)start->ranks,
                   device);
    } else {
        output_say("run %s on %s", p->run, device);
    }
    output_say("model %s: %s parameters, %s of them trained", start->model_name,
               text_count((double)start->parameters).text,
               text_count((double)start->trained_parameters).text);
    output_say("data %s: %lld rows, %s tokens", start->data_name, (long long)start->train_rows,
               text_count((double)start->train_tokens).text);
}

static void tell_plan(struct progress *p, const struct event_plan *plan)
{
    struct buffer line = { 0 };
    for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
        buffer_printf(&line, "%s%s %s", c == 0 ? "" : ", ", memory_category_names[c],
                      text_bytes((double)plan->planned_bytes[c]).text);
    }
    output_say("memory %s planned: %s", text_bytes((double)plan->total_bytes).text, line.text);
    buffer_free(&line);
    /* The peak is that of the whole run: it is compared with the largest plan in force. */
    p->planned_bytes = plan->total_bytes > p->planned_bytes ? plan->total_bytes : p->planned_bytes;
}

static void print_step(struct progress *p, int64_t step, const struct event_step *done)
{
    struct buffer line = { 0 };
    if (p->total_steps > 0) {
        buffer_printf(&line, "step %lld/%lld", (long long)step, (long long)p->total_steps);
    } else {
        buffer_printf(&line, "step %lld", (long long)step);
    }
    if (done->skipped) {
        buffer_printf(&line, "  skipped: %s", done->reason == NULL ? "not finite" : done->reason);
    } else {
        buffer_printf(&line, "  loss %s", text_loss((double)done->loss).text);
    }
    buffer_printf(&line, "  lr %s  %s tok/s", text_value(done->learning_rate).text,
                  text_count(done->tokens_per_second).text);
    if (p->peak_bytes > 0) {
        buffer_printf(&line, "  memory %s", text_bytes((double)p->peak_bytes).text);
    }
    if (p->total_steps > step) {
        double left = (double)(p->total_steps - step) * p->step_seconds;
        buffer_printf(&line, "  left %s", text_duration(left).text);
    }
    output_say("%s", line.text);
    buffer_free(&line);
}

static void take_step(struct progress *p, int64_t step, const struct event_step *done)
{
    double seconds = done->step_ms / 1000;
    if (p->first_step == 0) {
        p->first_step = step;
    }
    p->step = step;
    if (!done->skipped && isfinite(done->loss)) {
        p->loss = done->loss;
        p->first_loss = isnan(p->first_loss) ? done->loss : p->first_loss;
    }
    p->skipped += done->skipped ? 1 : 0;
    if (isfinite(seconds) && seconds > 0) {
        p->working_seconds += seconds;
        p->step_seconds = p->step_seconds > 0 ? 0.95 * p->step_seconds + 0.05 * seconds : seconds;
        if (isfinite(done->tokens_per_second)) {
            p->positions += (int64_t)llround(done->tokens_per_second * seconds);
        }
    }
    double now = clock_monotonic();
    bool last = p->total_steps > 0 && step == p->total_steps;
    if (p->printed == 0 || now - p->printed >= 1 || last) {
        print_step(p, step, done);
        p->printed = now;
    }
}

static void take_memory(struct progress *p, const struct event_memory *memory)
{
    int64_t sum = 0;
    for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
        if (memory->peak_bytes[c] == EVENT_UNKNOWN) {
            return;
        }
        sum += memory->peak_bytes[c];
    }
    p->peak_bytes = sum > p->peak_bytes ? sum : p->peak_bytes;
}

static void tell_evaluation(struct progress *p, int64_t step, const struct event_evaluation *found)
{
    output_say("step %lld: evaluation loss %s, perplexity %s", (long long)step,
               text_loss((double)found->loss).text, text_value(found->perplexity).text);
    if (isnan(p->best_evaluation) || found->loss < p->best_evaluation) {
        p->best_evaluation = found->loss;
        p->best_step = step;
    }
}

static void tell_stop(const struct progress *p, const struct event_stop *stop)
{
    output_say("\n%s after step %lld, %s", stop->reason == NULL ? "ended" : stop->reason,
               (long long)stop->steps, text_duration(stop->seconds).text);
    if (!isnan(p->loss)) {
        output_say("  loss          %s at step %lld, now %s", text_loss((double)p->first_loss).text,
                   (long long)p->first_step, text_loss((double)p->loss).text);
    }
    if (!isnan(p->best_evaluation)) {
        output_say("  evaluation    best loss %s at step %lld",
                   text_loss((double)p->best_evaluation).text, (long long)p->best_step);
    }
    if (p->working_seconds > 0) {
        output_say("  speed         %s tok/s, %s ms a step",
                   text_count((double)p->positions / p->working_seconds).text,
                   text_value(p->step_seconds * 1000).text);
    }
    if (p->ranks.mean.count > 0) {
        char sentence[192];
        fare_sentence(&p->ranks.mean, 160, sentence, sizeof sentence);
        output_say("  ranks         %s", sentence);
    }
    if (p->peak_bytes > 0) {
        output_say("  memory        %s at most, %s planned", text_bytes((double)p->peak_bytes).text,
                   text_bytes((double)p->planned_bytes).text);
    }
    if (p->skipped > 0) {
        output_say("  skipped       %lld steps that were not finite", (long long)p->skipped);
    }
    if (p->run != NULL && p->run[0] != '\0') {
        output_say("  look again    windrow attach %s", p->run);
    }
    if (p->run != NULL && p->run[0] != '\0' && stop->reason && strcmp(stop->reason, "done") != 0) {
        char gpus[32] = "";
        if (p->ranks.mean.count > 0) {
            snprintf(gpus, sizeof gpus, " --gpus %d", p->ranks.mean.count);
        }
        output_say("  go on         windrow train --resume %s%s", p->run, gpus);
    }
}

static void tell_message(const struct event *event)
{
    const struct event_message *message = &event->message;
    char *text = message->hint == NULL || message->hint[0] == '\0'
                     ? xstrdup(message->text == NULL ? "" : message->text)
                     : xasprintf("%s (%s)", message->text, message->hint);
    if (event->kind == EVENT_WARNING) {
        output_warning(text);
    } else {
        output_say("error: %s", text);
    }
    free(text);
}

static void tell(struct progress *p, const struct event *event)
{
    long long step = event->step == EVENT_UNKNOWN ? 0 : (long long)event->step;
    const char *why = event->kind == EVENT_RESUME ? event->resume.reason : NULL;
    switch (event->kind) {
    case EVENT_START:
        tell_start(p, &event->start);
        break;
    case EVENT_PLAN:
        tell_plan(p, &event->plan);
        break;
    case EVENT_STEP:
        take_step(p, event->step, &event->step_done);
        break;
    case EVENT_MEMORY:
        take_memory(p, &event->memory);
        break;
    case EVENT_EVALUATION:
        tell_evaluation(p, event->step, &event->evaluation);
        break;
    case EVENT_SAMPLE:
        output_say("step %lld: sample: %s%s", step, event->sample.prompt, event->sample.text);
        break;
    case EVENT_CHECKPOINT:
        output_say("step %lld: saved %s (%s, %s s)", step, event->checkpoint.path,
                   text_bytes((double)event->checkpoint.bytes).text,
                   text_value(event->checkpoint.seconds).text);
        break;
    case EVENT_SETTING:
        output_say("step %lld: %s = %s (was %s) by %s", (long long)event->setting.effective_step,
                   event->setting.key, event->setting.to, event->setting.from, event->setting.by);
        break;
    case EVENT_RESUME:
        if (event->resume.path == NULL) {
            output_say("begins anew (%s)", why == NULL ? "no checkpoint" : why);
        } else {
            output_say("continues after step %lld from %s (%s)", (long long)event->resume.from_step,
                       event->resume.path, why == NULL ? "resumed" : why);
        }
        break;
    case EVENT_STATE:
        if (event->state.state != NULL && strcmp(event->state.state, "paused") == 0) {
            output_say("paused after step %lld", (long long)p->step);
        }
        break;
    case EVENT_STOP:
        tell_stop(p, &event->stop);
        break;
    case EVENT_WARNING:
    case EVENT_ERROR:
        tell_message(event);
        break;
    case EVENT_RANKS:
        show_ranks_take(&p->ranks, &event->ranks);
        break;
    case EVENT_SELECTION:
    case EVENT_TELEMETRY:
    case EVENT_KIND_COUNT:
        break;
    }
}

void progress_on_line(void *context, const char *line, size_t size)
{
    struct progress *p = context;
    if (p->json && !p->output_gone) {
        output_bytes(line, size);
        if (fflush(stdout) != 0 && errno == EPIPE) {
            p->output_gone = true; /* the reader has left; the run goes on */
            clearerr(stdout);
        }
    }
    struct event event;
    struct error ignored = { 0 };
    if (event_read(line, size, &event, &ignored) == 0) {
        tell(p, &event);
        event_free(&event);
    }
}
