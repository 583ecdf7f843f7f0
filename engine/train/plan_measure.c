/*
 * How long a step would take here, offloading included: measured with one and with three blocks,
 * for all the others look alike, and with the disk's own speed.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/activation/offload.h"
#include "engine/activation/offload_model.h"
#include "engine/base/clock.h"
#include "engine/base/xalloc.h"
#include "engine/dataset.h"
#include "engine/plan.h"

enum { STEPS = 4, FEW = 1, MORE = 3 };
/* The most that is written to measure a disk. */
enum { DISK_BYTES_MAX = 32 << 20 };

/* Seconds of the phases of a step. */
struct watch {
    struct backend *be;
    enum trainer_phase phase;
    double since;
    double seconds[PHASE_COUNT];
};

static void on_phase(void *context, enum trainer_phase phase)
{
    struct watch *watch = context;
    backend_sync(watch->be);
    double now = clock_monotonic();
    watch->seconds[watch->phase] += now - watch->since;
    watch->phase = phase;
    watch->since = now;
}

static int fill(struct batch *batch, const struct recipe *recipe, int64_t vocabulary,
                struct error *err)
{
    if (batch_init(batch, recipe->batch_micro, recipe->data_sequence_length, err) != 0) {
        return -1;
    }
    int64_t tokens = batch->rows * batch->sequence;
    for (int64_t i = 0; i < tokens; i++) {
        batch->ids[i] = (int32_t)(i * 7919 % vocabulary);
        batch->targets[i] = (int32_t)((i + 1) * 7919 % vocabulary);
        batch->positions[i] = (int32_t)(i % batch->sequence);
        batch->starts[i] = 0;
    }
    batch->whole = true;
    batch->trained_tokens = tokens;
    return 0;
}

/* The fastest of a few steps of one micro-batch, after the first, phase by phase. */
static int time_steps(struct trainer *trainer, struct watch *watch, const struct batch *batch,
                      double best[PHASE_COUNT], struct error *err)
{
    for (int step = 1; step <= STEPS; step++) {
        struct step_result result;
        memset(watch->seconds, 0, sizeof watch->seconds);
        watch->phase = PHASE_IDLE;
        watch->since = clock_monotonic();
        if (trainer_step(trainer, step, batch, 1, &result, err) != 0) {
            return -1;
        }
        for (int phase = 0; step > 1 && phase < PHASE_COUNT; phase++) {
            bool first = step == 2;
            best[phase] =
                first || watch->seconds[phase] < best[phase] ? watch->seconds[phase] : best[phase];
        }
    }
    return 0;
}

static int time_depth(const struct recipe *wanted, const struct model_config *whole, int64_t layers,
                      struct backend *be, double best[PHASE_COUNT], struct error *err)
{
    struct recipe recipe;
    struct plan *plan = xcalloc(1, sizeof *plan);
    struct model_config config = *whole;
    struct watch watch = { .be = be, .phase = PHASE_IDLE };
    struct batch batch = { 0 };
    config.layers = layers;
    recipe_init(&recipe);
    recipe_copy(&recipe, wanted);
    recipe.batch_accumulate = 1;
    recipe.model_init = MODEL_RANDOM;
    int rc = recipe_set(&recipe, "activation.offload=none", err) == -1 ||
                     plan_make(&recipe, &config, plan, err) != 0 ||
                     fill(&batch, &recipe, config.vocabulary, err) != 0
                 ? -1
                 : 0;
    struct trainer *trainer = rc != 0
                                  ? NULL
                                  : trainer_open(&(struct trainer_options){ .recipe = &recipe,
                                                                            .config = &config,
                                                                            .be = be,
                                                                            .capacity = plan->bytes,
                                                                            .on_phase = on_phase,
                                                                            .context = &watch },
                                                 err);
    rc = trainer != NULL ? time_steps(trainer, &watch, &batch, best, err) : -1;
    trainer_close(trainer);
    batch_free(&batch);
    recipe_free(&recipe);
    free(plan);
    return rc;
}

static double more_than(double a, double b)
{
    return a > b ? a - b : 0.0;
}

/* From the times with few and with more blocks, and the rates of the disk. */
static void put_together(const struct recipe *recipe, const struct plan *plan,
                         const double few[PHASE_COUNT], const double more[PHASE_COUNT],
                         struct plan_measured *out)
{
    int64_t resident = recipe->activation_resident > 0 ? recipe->activation_resident : 0;
    double scale = 1.0 / (double)(MORE - FEW);
    double micro = (double)recipe->batch_accumulate;
    double span = (double)plan->offload_span_bytes;
    double update = scale * more_than(more[PHASE_UPDATE], few[PHASE_UPDATE]);
    bool ssd = strcmp(recipe->activation_offload, "ssd") == 0;
    struct offload_times times = {
        .layers = out->layers,
        .resident = resident,
        .forward = scale * more_than(more[PHASE_FORWARD], few[PHASE_FORWARD]),
        .backward = scale * more_than(more[PHASE_BACKWARD], few[PHASE_BACKWARD]),
        .copy = out->copy_rate > 0.0 ? span / out->copy_rate : 0.0,
        .write = ssd && out->write_rate > 0.0 ? span / out->write_rate : 0.0,
        .read = ssd && out->read_rate > 0.0 ? span / out->read_rate : 0.0,
    };
    times.between = more_than(few[PHASE_FORWARD] + few[PHASE_BACKWARD],
                              (double)FEW * (times.forward + times.backward));
    double blocks = (double)times.layers * (times.forward + times.backward);
    out->step_seconds = micro * (blocks + times.between) +
                        (more_than(few[PHASE_UPDATE], (double)FEW * update)) +
                        (double)times.layers * update;
    out->offloaded_seconds = out->step_seconds;
    if (plan->offload_spans > 0) {
        struct offload_forecast forecast;
        offload_forecast(&times, &forecast);
        double room = (double)((plan->offload_span_bytes + 4095) / 4096 * 4096);
        out->offloaded_seconds += micro * (forecast.stall + forecast.copying);
        out->stall_seconds = micro * forecast.stall;
        out->copy_seconds = micro * forecast.copying;
        out->written_bytes = micro * room * (double)forecast.written_spans;
        out->read_bytes = micro * room * (double)forecast.read_spans;
    }
}

int plan_measure(const struct recipe *recipe, const struct model_config *config,
                 const struct plan *plan, struct backend *be, const char *directory,
                 struct plan_measured *out, struct error *err)
{
    double few[PHASE_COUNT] = { 0 };
    double more[PHASE_COUNT] = { 0 };
    struct store_rates rates = { 0 };
    size_t bytes = plan->offload_span_bytes;
    memset(out, 0, sizeof *out);
    out->layers = config->layers;
    if (bytes > 0 && strcmp(recipe->activation_offload, "ssd") == 0 &&
        store_measure(directory, bytes < DISK_BYTES_MAX ? bytes : DISK_BYTES_MAX, &rates, err) !=
            0) {
        return -1;
    }
    if (time_depth(recipe, config, FEW, be, few, err) != 0 ||
        time_depth(recipe, config, MORE, be, more, err) != 0) {
        return -1;
    }
    out->write_rate = rates.write;
    out->read_rate = rates.read;
    out->copy_rate = be->facts.asynchronous ? 0.0 : rates.copy; /* beside the operations there */
    put_together(recipe, plan, few, more, out);
    return 0;
}
