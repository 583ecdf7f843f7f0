/* Running the step where nothing is computed, and reading what it took. */
#include "engine/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/xalloc.h"
#include "engine/comm/comm.h"

/* Watches a trainer: the peak of every phase, and what was alive at the highest. */
struct watch {
    struct trainer *trainer; /* NULL until it is built */
    struct plan *plan;
    enum trainer_phase phase;
    const struct backend *be;
    struct op_count begun[OP_FAMILY_COUNT];    /* counts when the backward began */
    struct op_count backward[OP_FAMILY_COUNT]; /* of all backwards since it was cleared */
};

static void collect(struct watch *watch)
{
    struct plan *plan = watch->plan;
    struct memory *memory = trainer_memory(watch->trainer);
    for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
        size_t peak = memory_peak(memory, (enum memory_category)c);
        size_t *phase = &plan->phase_bytes[watch->phase][c];
        *phase = peak > *phase ? peak : *phase;
        plan->bytes[c] = peak > plan->bytes[c] ? peak : plan->bytes[c];
    }
    size_t total = memory_peak_total(memory);
    if (total > plan->peak_bytes) {
        plan->peak_bytes = total;
        plan->largest_count = memory_peak_records(memory, plan->largest, PLAN_LARGEST_COUNT);
    }
    memory_reset_peak(memory);
}

/* out += a - b */
static void add_difference(struct op_count *out, const struct op_count *a, const struct op_count *b)
{
    for (int f = 0; f < OP_FAMILY_COUNT; f++) {
        out[f].calls += a[f].calls - b[f].calls;
        out[f].flops += a[f].flops - b[f].flops;
        out[f].bytes += a[f].bytes - b[f].bytes;
    }
}

static void on_phase(void *context, enum trainer_phase phase)
{
    struct watch *watch = context;
    if (watch->trainer != NULL) {
        collect(watch);
    }
    if (watch->phase == PHASE_BACKWARD) {
        add_difference(watch->backward, watch->be->count, watch->begun);
    }
    memcpy(watch->begun, watch->be->count, sizeof watch->begun);
    watch->phase = phase;
}

/* What is run to find out costs. */
struct rehearsal {
    struct trainer *trainer;
    const struct backend *be;
    const struct comm *comm;
    struct watch *watch;
    struct batch batch[2]; /* the same twice: sizes do not depend on the data */
};

struct step_cost {
    struct op_count count[OP_FAMILY_COUNT];
    struct op_count backward[OP_FAMILY_COUNT]; /* of all its micro-batches */
    double payload_bytes, wire_bytes, hops;
    double early_wire_bytes, early_hops;
    int64_t calls;
    bool refreshed;
};

/* What one step of `count` micro-batches asks for. */
static int measure_step(struct rehearsal *run, int64_t step, int64_t count, struct step_cost *cost,
                        struct error *err)
{
    struct step_result result;
    struct op_count before[OP_FAMILY_COUNT];
    struct comm_counts sent = run->comm->counts;
    memcpy(before, run->be->count, sizeof before);
    memset(run->watch->backward, 0, sizeof run->watch->backward);
    int rc = trainer_step(run->trainer, step, run->batch, count, &result, err);
    *cost = (struct step_cost){
        .refreshed = rc == 0 && result.refreshed,
        .payload_bytes = run->comm->counts.payload_bytes - sent.payload_bytes,
        .wire_bytes = run->comm->counts.wire_bytes - sent.wire_bytes,
        .hops = (double)(run->comm->counts.hops - sent.hops),
        .calls = run->comm->counts.calls - sent.calls,
        .early_wire_bytes = trainer_sent_early(run->trainer)->wire_bytes,
        .early_hops = (double)trainer_sent_early(run->trainer)->hops,
    };
    memcpy(cost->backward, run->watch->backward, sizeof cost->backward);
    add_difference(cost->count, run->be->count, before);
    return rc;
}

/* `cost` of a step with two micro-batches, and `rest` times what the second one added: `plain` of
 * two less `single` of one. */
static void add_rest(const struct step_cost *cost, const struct step_cost *plain,
                     const struct step_cost *single, double rest, struct op_count *out)
{
    for (int f = 0; f < OP_FAMILY_COUNT; f++) {
        const struct op_count *two = &plain->count[f];
        const struct op_count *one = &single->count[f];
        out[f].calls = cost->count[f].calls + (int64_t)rest * (two->calls - one->calls);
        out[f].flops = cost->count[f].flops + rest * (two->flops - one->flops);
        out[f].bytes = cost->count[f].bytes + rest * (two->bytes - one->bytes);
    }
}

static void sum_counts(struct plan *plan)
{
    for (int f = 0; f < OP_FAMILY_COUNT; f++) {
        plan->step_flops += plan->step_count[f].flops;
        plan->step_bytes += plan->step_count[f].bytes;
        plan->refresh_flops += plan->refresh_count[f].flops;
    }
}

/* Sizes without data: the null backend reads none. */
static struct batch plan_batch(const struct recipe *recipe)
{
    return (struct batch){ .rows = recipe->batch_micro,
                           .sequence = recipe->data_sequence_length,
                           .trained_tokens = 1 };
}

/* What steps of one kind cost. `due` chooses anew; nothing is due at `plain`, and `single` is it
 * with one micro-batch. */
struct kind_cost {
    struct step_cost due, plain, single;
};

/* The same step again is one at which nothing is due any more. */
static int measure_kind(struct rehearsal *run, int64_t step, int64_t count, bool refreshes,
                        struct kind_cost *cost, struct error *err)
{
    if (refreshes && measure_step(run, step, count, &cost->due, err) != 0) {
        return -1;
    }
    if (measure_step(run, step, count, &cost->plain, err) != 0) {
        return -1;
    }
    bool more = count < trainer_recipe(run->trainer)->batch_accumulate;
    return more ? measure_step(run, step, 1, &cost->single, err) : 0;
}

/* Takes one step of `every` to cost `other`. */
static void mix_costs(struct step_cost *cost, const struct step_cost *other, int64_t every)
{
    double share = 1.0 / (double)every;
    for (int f = 0; f < OP_FAMILY_COUNT; f++) {
        struct op_count *count = &cost->count[f];
        const struct op_count *dear = &other->count[f];
        count->calls += (int64_t)(share * (double)(dear->calls - count->calls));
        count->flops += share * (dear->flops - count->flops);
        count->bytes += share * (dear->bytes - count->bytes);
    }
    cost->payload_bytes += share * (other->payload_bytes - cost->payload_bytes);
    cost->wire_bytes += share * (other->wire_bytes - cost->wire_bytes);
    cost->hops += share * (other->hops - cost->hops);
}

/* The first step of one kind from `step` on: those at which unselected rows move, or the others. */
static int64_t step_of_kind(int64_t step, int64_t every, bool moves)
{
    while (((step - 1) % every == 0) != moves) {
        step++;
    }
    return step;
}

/* From the second micro-batch on each costs the same and takes the same memory: two are run, and a
 * step of one tells what the others add. A method's first refresh may cost more than the later
 * ones: a step by which all are due tells what those cost. Where unselected rows move every so many
 * steps, one of each kind is run. */
static int plan_steps(struct rehearsal *run, struct plan *plan, struct error *err)
{
    const struct recipe *recipe = trainer_recipe(run->trainer);
    const int64_t interval = recipe->method_interval;
    const int64_t every = recipe->method_unselected_every;
    struct batch batch = plan_batch(recipe);
    struct step_cost first;
    struct kind_cost usual = { 0 };
    struct kind_cost moving = { 0 };
    run->batch[0] = batch;
    run->batch[1] = batch;
    int64_t count = recipe->batch_accumulate < 2 ? recipe->batch_accumulate : 2;
    double rest = (double)(recipe->batch_accumulate - count);
    if (measure_step(run, 1, count, &first, err) != 0) {
        return -1;
    }
    bool kinds = every > 1;
    bool refreshes = first.refreshed;
    int64_t step = refreshes ? 2 + interval : 2;
    step = kinds ? step_of_kind(step, every, false) : step;
    if (refreshes && measure_step(run, 2, count, &usual.plain, err) != 0) {
        return -1;
    }
    if (measure_kind(run, step, count, refreshes, &usual, err) != 0) {
        return -1;
    }
    if (kinds && measure_kind(run, step_of_kind(step + interval, every, true), count, refreshes,
                              &moving, err) != 0) {
        return -1;
    }
    double loss;
    int64_t tokens;
    if (recipe_evaluates(recipe) &&
        trainer_evaluate(run->trainer, &batch, &loss, &tokens, err) != 0) {
        return -1;
    }
    struct step_cost mean = usual.plain;
    if (kinds) {
        mix_costs(&mean, &moving.plain, every);
        mix_costs(&usual.due, &moving.due, every);
    }
    add_rest(&mean, &usual.plain, &usual.single, rest, plan->step_count);
    if (refreshes) {
        add_rest(&usual.due, &usual.plain, &usual.single, rest, plan->refresh_count);
    }
    /* What ranks exchange is as linear in the micro-batches. That a larger tensor sent a bucket
     * earlier is nothing that goes on so: each tensor does it once. */
    double more_payload = rest * (usual.plain.payload_bytes - usual.single.payload_bytes);
    double more_wire = rest * (usual.plain.wire_bytes - usual.single.wire_bytes);
    bool more_calls = usual.plain.calls > usual.single.calls;
    double more_hops = more_calls ? rest * (usual.plain.hops - usual.single.hops) : 0.0;
    plan->step_payload_bytes = mean.payload_bytes + more_payload;
    plan->step_wire_bytes = mean.wire_bytes + more_wire;
    plan->step_hops = mean.hops + more_hops;
    if (refreshes) {
        plan->refresh_payload_bytes = usual.due.payload_bytes + more_payload;
        plan->refresh_wire_bytes = usual.due.wire_bytes + more_wire;
        plan->refresh_hops = usual.due.hops + more_hops;
    }
    plan->early_wire_bytes = usual.plain.early_wire_bytes;
    plan->early_hops = usual.plain.early_hops;
    for (int f = 0; f < OP_FAMILY_COUNT; f++) {
        plan->backward_count[f].flops = usual.plain.backward[f].flops / (double)count;
        plan->backward_count[f].bytes = usual.plain.backward[f].bytes / (double)count;
    }
    sum_counts(plan);
    return 0;
}

static int plan_sample(struct trainer *trainer, int64_t length, struct error *err)
{
    float *logits = xmalloc((size_t)trainer_config(trainer)->vocabulary * sizeof *logits);
    int rc = trainer_generate_begin(trainer, length, err);
    if (rc == 0) {
        rc = trainer_generate_feed(trainer, 0, logits, err);
    }
    trainer_generate_end(trainer);
    free(logits);
    return rc;
}

/* Bytes of the files that hold adapters once more, in the format of others. */
static int64_t adapter_bytes(const struct trainer *trainer)
{
    enum { HEADER = 2 * 150, DESCRIPTION = 40 };
    int64_t bytes = 0;
    for (int64_t i = 0; i < trainer_adapter_count(trainer); i++) {
        struct adapter_entry adapter;
        trainer_adapter(trainer, i, &adapter);
        bytes += adapter.rank * (adapter.rows + adapter.columns) * (int64_t)sizeof(float);
        bytes += HEADER + DESCRIPTION;
    }
    return bytes;
}

/* Bytes of safetensors files with these tensors: data, and a header of about this text. */
static int64_t checkpoint_size(struct trainer *trainer)
{
    char line[512];
    int64_t bytes = 0;
    int64_t count = trainer_state_count(trainer);
    for (int64_t i = 0; i < count; i++) {
        struct state_entry entry;
        trainer_state_entry(trainer, i, &entry);
        int64_t elements = 1;
        for (int d = 0; d < entry.rank; d++) {
            elements *= entry.dim[d];
        }
        int64_t size = elements * (int64_t)dtype_size(entry.dtype);
        bytes += size;
        bytes += snprintf(line, sizeof line,
                          "\"%s\":{\"dtype\":\"F32\",\"shape\":[%lld,%lld],"
                          "\"data_offsets\":[%lld,%lld]},",
                          entry.name, (long long)entry.dim[0], (long long)entry.dim[1],
                          (long long)bytes, (long long)(bytes + size));
    }
    return bytes + adapter_bytes(trainer);
}

bool plan_takes_cuda(const struct recipe *recipe)
{
    if (strcmp(recipe->device, "auto") == 0) {
        return backend_device_count("cuda") > 0;
    }
    return strncmp(recipe->device, "cuda", 4) == 0;
}

static struct backend *open_null(const struct recipe *recipe, struct error *err)
{
    char why[256];
    const char *name = plan_takes_cuda(recipe) ? "null-cuda" : "null";
    struct backend *be = backend_open(name, 0, why, sizeof why);
    struct backend_options options = recipe_backend_options(recipe);
    if (be == NULL || backend_configure(be, &options, why, sizeof why) != 0) {
        fail(err, ERROR_RUNTIME, "cannot plan: %s", why);
        backend_close(be);
        return NULL;
    }
    return be;
}

int plan_make(const struct recipe *recipe, const struct model_config *config, struct plan *plan,
              struct error *err)
{
    return plan_make_ranks(recipe, config, 1, plan, err);
}

int plan_make_ranks(const struct recipe *recipe, const struct model_config *config, int ranks,
                    struct plan *plan, struct error *err)
{
    memset(plan, 0, sizeof *plan);
    plan->ranks = ranks;
    struct watch watch = { .plan = plan, .phase = PHASE_IDLE };
    struct backend *be = open_null(recipe, err);
    if (be == NULL) {
        return -1;
    }
    watch.be = be;
    struct comm *comm = comm_open_imaginary(0, ranks);
    struct trainer *trainer = trainer_open(&(struct trainer_options){ .recipe = recipe,
                                                                      .config = config,
                                                                      .be = be,
                                                                      .comm = comm,
                                                                      .on_phase = on_phase,
                                                                      .context = &watch },
                                           err);
    if (trainer == NULL) {
        comm_close(comm);
        backend_close(be);
        return -1;
    }
    watch.trainer = trainer;
    int rc = plan_steps(
        &(struct rehearsal){ .trainer = trainer, .be = be, .comm = comm, .watch = &watch }, plan,
        err);
    if (rc == 0 && recipe->train_sample_every > 0) {
        rc = plan_sample(trainer, recipe->data_sequence_length, err);
    }
    if (rc == 0) {
        collect(&watch);
        for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
            plan->total_bytes += plan->bytes[c];
        }
        plan->checkpoint_bytes = checkpoint_size(trainer);
        plan->offload_spans = trainer_offload_spans(trainer);
        plan->offload_span_bytes = trainer_offload_bytes(trainer);
        plan->host_bytes = trainer_host_bytes(trainer);
        plan->parameters = trainer_parameter_count(trainer);
        plan->trained = trainer_trained_count(trainer);
    }
    trainer_close(trainer);
    comm_close(comm);
    backend_close(be);
    return rc;
}

int plan_inference(const struct trainer_options *wanted, size_t capacity[MEMORY_CATEGORY_COUNT],
                   struct error *err)
{
    struct trainer_options options = *wanted;
    struct batch batch = plan_batch(wanted->recipe);
    struct backend *be = open_null(wanted->recipe, err);
    if (be == NULL) {
        return -1;
    }
    options.be = be;
    options.capacity = NULL;
    options.on_phase = NULL;
    struct trainer *trainer = trainer_open(&options, err);
    int rc = -1;
    if (trainer != NULL) {
        double loss;
        int64_t tokens;
        rc = trainer_evaluate(trainer, &batch, &loss, &tokens, err);
    }
    if (rc == 0) {
        rc = plan_sample(trainer, trainer_positions(trainer), err);
    }
    for (int c = 0; rc == 0 && c < MEMORY_CATEGORY_COUNT; c++) {
        capacity[c] = memory_peak(trainer_memory(trainer), (enum memory_category)c);
    }
    trainer_close(trainer);
    backend_close(be);
    return rc;
}
