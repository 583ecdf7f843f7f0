/* The steps of a run. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/clock.h"
#include "engine/generate.h"
#include "engine/run/parts.h"

enum { EVALUATION_BATCHES = 64, ANNOUNCED_BATCHES = 32, SAMPLE_TOKENS = 160 };
#define SAMPLE_TEMPERATURE 0.8
#define SAMPLE_TOP_P       0.95
#define TELEMETRY_EVERY_S  1.0

static bool due(int64_t step, int64_t every)
{
    return every > 0 && step % every == 0;
}

static bool is_last(const struct run *run)
{
    return run->state.step >= run->effective.train_steps;
}

/* ---- evaluation ----------------------------------------------------------------------------- */

/* The endless sequence starts again after the last row; rows taken twice carry no loss. */
static void hide_repeated(struct batch *batch, int64_t first, int64_t rows)
{
    for (int64_t row = 0; row < batch->rows; row++) {
        if (first + row < rows) {
            continue;
        }
        int32_t *target = batch->targets + row * batch->sequence;
        for (int64_t i = 0; i < batch->sequence; i++) {
            batch->trained_tokens -= target[i] != -1 ? 1 : 0;
            target[i] = -1;
        }
    }
}

static int evaluate(struct run *run, struct error *err)
{
    int64_t rows = dataset_facts(run->material.dataset)->rows[DATA_VALIDATION];
    int64_t micro = run->recipe.batch_micro;
    int64_t batches = (rows + micro - 1) / micro;
    double loss = 0.0;
    int64_t tokens = 0;
    if (!is_last(run) && batches > EVALUATION_BATCHES) {
        batches = EVALUATION_BATCHES;
    }
    if (batches >= ANNOUNCED_BATCHES) {
        run_report_state(run, "evaluating");
    }
    for (int64_t i = 0; i < batches; i++) {
        double part = 0.0;
        int64_t count = 0;
        dataset_fill(run->material.dataset, DATA_VALIDATION, i * micro, &run->look);
        hide_repeated(&run->look, i * micro, rows);
        if (run->look.trained_tokens > 0 &&
            trainer_evaluate(run->trainer, &run->look, &part, &count, err) != 0) {
            return fail_within(err, "evaluation after step %lld", (long long)run->state.step);
        }
        loss += part;
        tokens += count;
    }
    if (batches >= ANNOUNCED_BATCHES) {
        run_report_state(run, "running");
    }
    if (tokens == 0) {
        return 0;
    }
    run->evaluated_loss = loss / (double)tokens;
    run->evaluated_step = run->state.step;
    struct event event;
    event_init(&event, EVENT_EVALUATION);
    event.step = run->state.step;
    event.evaluation.loss = (float)run->evaluated_loss;
    event.evaluation.perplexity = exp(run->evaluated_loss);
    event.evaluation.rows = batches * micro < rows ? batches * micro : rows;
    event.evaluation.tokens = tokens;
    run_emit(run, &event);
    return 0;
}

/* ---- samples -------------------------------------------------------------------------------- */

int run_sample(struct run *run, const char *prompt, struct error *err)
{
    prompt = prompt ? prompt : run->recipe.train_sample_prompt;
    struct generate_options options = {
        .prompt = prompt,
        .max_tokens = SAMPLE_TOKENS,
        .temperature = SAMPLE_TEMPERATURE,
        .top_p = SAMPLE_TOP_P,
        .seed = (uint64_t)run->recipe.train_seed + (uint64_t)run->state.step,
    };
    char *text = generate_text(run->trainer, run->material.tokenizer, &options, err);
    if (!text) {
        return -1;
    }
    struct event event;
    event_init(&event, EVENT_SAMPLE);
    event.step = run->state.step;
    event.sample.prompt = xstrdup(prompt);
    event.sample.text = xstrdup(text);
    free(text);
    run_emit(run, &event);
    return 0;
}

/* ---- going back ----------------------------------------------------------------------------- */

/* Takes the state of the newest whole checkpoint (or what this run began from); steps and data go
 * on, past those that led here. */
static int go_back(struct run *run, struct error *err)
{
    struct checkpoint_list list;
    const char *path = NULL;
    int64_t step = run->begin_step;
    if (checkpoint_list_read(run->directory.path, &list, err) != 0) {
        return -1;
    }
    for (size_t i = 0; i < list.count && !path; i++) {
        struct error why = { 0 };
        if (checkpoint_verify(list.item[i].path, true, &why) == 0) {
            path = list.item[i].path;
            step = list.item[i].step;
        } else {
            run_warn(run, &why);
        }
    }
    path = path ? path : run->resume_path;
    run_order_back(run, path);
    int result = run_build(run, path, err);
    if (result == 0) {
        run->state.skipped_in_row = 0;
        run->state.returns++;
        run_report_resume(run, path, step, "three steps in a row were not finite");
    }
    checkpoint_list_free(&list);
    return result;
}

static int check_finite(struct run *run, struct error *err)
{
    if (run->state.skipped_in_row < SKIPS_UNTIL_RETURN) {
        return 0;
    }
    if (run->state.returns < RETURNS_MAX) {
        return go_back(run, err);
    }
    run->diverged = true;
    fail(err, ERROR_DIVERGED,
         "the run diverged: step %lld is not finite, after %d returns to an earlier state",
         (long long)run->state.step, RETURNS_MAX);
    return hint(err, "lower optimizer.lr, set train.clip=1, or add schedule.warmup");
}

/* ---- a step --------------------------------------------------------------------------------- */

/* Block j * ranks + p of the sequence is micro-batch j of rank p. */
int run_step(struct run *run, struct step_result *result, struct error *err)
{
    const struct recipe *recipe = &run->effective;
    int64_t ranks = run->comm->ranks;
    double began = clock_monotonic();
    for (int64_t i = 0; i < recipe->batch_accumulate; i++) {
        int64_t block = i * ranks + run->comm->rank;
        dataset_fill(run->material.dataset, DATA_TRAIN,
                     run->state.rows + block * recipe->batch_micro, &run->batch[i]);
    }
    run->filled_s = clock_monotonic();
    run_tell_ranks(run);
    if (trainer_step(run->trainer, run->state.step + 1, run->batch, recipe->batch_accumulate,
                     result, err) != 0) {
        return fail_within(err, "step %lld", (long long)(run->state.step + 1));
    }
    run_note_fare(run, clock_monotonic() - began, 1e-3 * result->exchange_ms);
    run->state.step++;
    run->state.rows += ranks * recipe->batch_accumulate * recipe->batch_micro;
    return 0;
}

static int do_step(struct run *run, struct step_result *result, struct error *err)
{
    double began = clock_monotonic();
    run_order_step(run);
    run->stepping = true;
    if (run_step(run, result, err) != 0) {
        return -1;
    }
    run->stepping = false;
    double ended = clock_monotonic();
    run->state.tokens_total += result->positions;
    run->state.seconds = run->seconds_before + ended - run->began_s;
    if (result->skipped) {
        run->state.skipped++;
        run->state.skipped_in_row += result->tokens > 0 ? 1 : 0; /* nothing to train is no harm */
    } else {
        run->state.skipped_in_row = 0;
        run->state.loss = result->loss;
    }
    run->steps_here++;
    run_report_step(run, result, run->filled_s - began, ended - began);
    return 0;
}

static void report_around(struct run *run, const struct step_result *result)
{
    if (result->refreshed) {
        run_report_selection(run);
    }
    if (run->be->host_solver[0] != '\0' && !run->told_solver) {
        run->told_solver = true;
        run_notice(run, "bases are found on the processor, not the device: %s",
                   run->be->host_solver);
    }
    if (run->steps_here <= 2 || result->refreshed || is_last(run)) {
        run_report_memory(run);
    }
    double now = clock_monotonic();
    if (now - run->telemetry_s >= TELEMETRY_EVERY_S || is_last(run)) {
        run->telemetry_s = now;
        run_report_telemetry(run);
    }
    run_report_ranks(run, is_last(run));
}

/* A sample or a save that fails is told, and training goes on; without a device it cannot. */
static int may_go_on(const struct run *run, const char *what, const struct error *why,
                     struct error *err)
{
    if (!run->be->failed) {
        return 0;
    }
    *err = *why;
    return fail_within(err, "%s after step %lld", what, (long long)run->state.step);
}

/* What is due after a step, in the order that lets a checkpoint know its evaluation. */
static int do_due(struct run *run, struct error *err)
{
    const struct recipe *recipe = &run->recipe;
    int64_t step = run->state.step;
    bool last = is_last(run);
    bool validates = dataset_facts(run->material.dataset)->rows[DATA_VALIDATION] > 0;
    if (validates && recipe->train_eval_every > 0 &&
        (last || due(step, recipe->train_eval_every)) && evaluate(run, err) != 0) {
        return -1;
    }
    if (recipe->train_sample_every > 0 && (last || due(step, recipe->train_sample_every))) {
        struct error why = { 0 };
        if (run_sample(run, NULL, &why) != 0) {
            run_warn(run, &why);
            if (may_go_on(run, "sample", &why, err) != 0) {
                return -1;
            }
        }
    }
    if (recipe->train_save_every > 0 && (last || due(step, recipe->train_save_every))) {
        struct error why = { 0 };
        if (run_save(run, &why) != 0 && may_go_on(run, "checkpoint", &why, err) != 0) {
            return -1;
        }
    }
    return 0;
}

void run_open_sampler(struct run *run)
{
    if (run->be->facts.bus_id[0] != '\0') {
        run->sampler = sampler_open(run->be->facts.bus_id, NULL);
    }
}

int run_loop(struct run *run, struct error *err)
{
    run->began_s = clock_monotonic();
    telemetry_cpu_percent(&run->telemetry);
    run->telemetry_s = run->began_s;
    run_open_sampler(run);
    while (!is_last(run) && !run->stop_asked && run_signal() == 0) {
        struct step_result result;
        if (do_step(run, &result, err) != 0) {
            return -1;
        }
        report_around(run, &result);
        if (check_finite(run, err) != 0 || do_due(run, err) != 0 || run_safe_point(run, err) != 0) {
            return -1;
        }
    }
    return 0;
}
