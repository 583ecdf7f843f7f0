/* One optimizer step. */
#include <math.h>
#include <string.h>

#include "engine/optimizer/schedule.h"
#include "engine/train/trainer_parts.h"

struct pass trainer_pass(struct trainer *trainer, int inputs, bool training)
{
    struct trainer_inputs *input = &trainer->input[inputs];
    return (struct pass){ .be = trainer->be,
                          .memory = trainer->memory,
                          .batch = trainer->recipe.batch_micro,
                          .sequence = trainer->recipe.data_sequence_length,
                          .training = training,
                          .policy = trainer->policy,
                          .mover = trainer->offloads && training ? &trainer->offload.mover : NULL,
                          .sampler =
                              training && trainer->sampler.ops != NULL ? &trainer->sampler : NULL,
                          .hooks = &trainer->hooks,
                          .dense = &trainer->dense_gradients,
                          .ids = &input->ids,
                          .targets = &input->targets,
                          .positions = &input->positions,
                          .starts = input->whole ? NULL : &input->starts };
}

/* Everything that an operation will use as an index is checked here, on the host. */
int trainer_check_batch(const struct trainer *trainer, const struct batch *batch, struct error *err)
{
    int64_t vocabulary = trainer->model.config.vocabulary;
    if (batch->rows != trainer->recipe.batch_micro ||
        batch->sequence != trainer->recipe.data_sequence_length) {
        return fail(err, ERROR_RUNTIME, "batch of %lld x %lld tokens, the recipe says %lld x %lld",
                    (long long)batch->rows, (long long)batch->sequence,
                    (long long)trainer->recipe.batch_micro,
                    (long long)trainer->recipe.data_sequence_length);
    }
    if (trainer->be->facts.imaginary) {
        return 0; /* a plan has no data, only their sizes */
    }
    for (int64_t i = 0; i < batch->rows * batch->sequence; i++) {
        int64_t s = i % batch->sequence;
        if (batch->ids[i] < 0 || batch->ids[i] >= vocabulary || batch->targets[i] < -1 ||
            batch->targets[i] >= vocabulary) {
            return fail(err, ERROR_DATA,
                        "token id %d (target %d) is outside the model's "
                        "vocabulary of %lld",
                        (int)batch->ids[i], (int)batch->targets[i], (long long)vocabulary);
        }
        if (batch->positions[i] < 0 || batch->positions[i] >= trainer->model.positions ||
            batch->starts[i] < 0 || batch->starts[i] > s) {
            return fail(err, ERROR_RUNTIME,
                        "position %d or record start %d of token %lld is "
                        "outside its row",
                        (int)batch->positions[i], (int)batch->starts[i], (long long)s);
        }
    }
    return 0;
}

void trainer_feed(struct trainer *trainer, int index, const struct batch *batch, float scale)
{
    struct trainer_inputs *input = &trainer->input[index];
    const char *first = input->ids.data;
    size_t bytes = (size_t)(batch->rows * batch->sequence) * sizeof(int32_t);
    const struct {
        const struct tensor *tensor;
        const void *host;
        size_t bytes;
    } parts[] = {
        { &input->ids, batch->ids, bytes },
        { &input->targets, batch->targets, bytes },
        { &input->positions, batch->positions, bytes },
        { &input->starts, batch->starts, bytes },
        { &input->scale, &scale, sizeof scale },
    };
    size_t used = 0;
    input->whole = batch->whole;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        size_t at = (size_t)((uintptr_t)parts[i].tensor->data - (uintptr_t)first);
        if (!trainer->be->facts.imaginary) {
            memcpy((char *)trainer->packed + at, parts[i].host, parts[i].bytes);
        }
        used = at + parts[i].bytes;
    }
    backend_feed(trainer->be, input->ids.data, trainer->packed, used);
}

/* Where only rows of the embedding have a gradient, the ids of all micro-batches of all ranks
 * decide which: in the order of ranks, so that every rank finds the same rows. */
static int begin_dense(struct trainer *trainer, const struct batch *batches, int64_t count,
                       struct error *err)
{
    int64_t tokens = trainer->recipe.batch_micro * trainer->recipe.data_sequence_length;
    int64_t ranks = trainer->comm->ranks;
    struct tensor *ids = &trainer->dense.rows.ids;
    if (!trainer->dense.by_rows) {
        dense_begin_step(&trainer->dense, NULL, 0);
        return 0;
    }
    if (ranks * count * tokens > tensor_count(ids)) {
        return fail(err, ERROR_RUNTIME, "%lld micro-batches, the recipe says %lld",
                    (long long)count, (long long)trainer->recipe.batch_accumulate);
    }
    int32_t *mine = trainer->step_ids + tensor_count(ids);
    for (int64_t i = 0; i < count && !trainer->be->facts.imaginary; i++) {
        memcpy(mine + i * tokens, batches[i].ids, (size_t)tokens * sizeof *mine);
    }
    size_t bytes = (size_t)(count * tokens) * sizeof *mine;
    comm_all_gather_bytes(trainer->comm, "token ids", mine, trainer->step_ids, bytes);
    backend_upload(trainer->be, ids->data, trainer->step_ids, (size_t)ranks * bytes);
    dense_begin_step(&trainer->dense, trainer->step_ids, ranks * count * tokens);
    return 0;
}

/* One micro-batch, as backend_replay wants it. */
struct micro_batch {
    struct trainer *trainer;
    int inputs;
};

static void micro_batch(void *context)
{
    const struct micro_batch *micro = context;
    struct trainer *trainer = micro->trainer;
    struct model *model = &trainer->model;
    struct memory *memory = trainer->memory;
    struct memory_position activations = memory_mark(memory, MEMORY_ACTIVATIONS);
    struct memory_position workspace = memory_mark(memory, MEMORY_WORKSPACE);
    struct pass pass = trainer_pass(trainer, micro->inputs, true);
    int64_t before = trainer->comm->rank * trainer->method.micro_count + trainer->method.micro;
    struct tensor slots =
        dense_slots(&trainer->dense, before * pass_tokens(&pass), pass_tokens(&pass));
    pass.slots = slots.rank > 0 ? &slots : NULL;
    struct model_forward forward;
    trainer_enter(trainer, PHASE_FORWARD);
    model_forward(model, &pass, &forward);
    model_loss(model, &pass, &forward.hidden,
               &(struct model_loss){ .loss_sum = &trainer->loss,
                                     .dhidden = &forward.hidden,
                                     .scale = &trainer->input[micro->inputs].scale });
    if (trainer->method.early) {
        dense_ask_head(&trainer->dense);
    }
    trainer_enter(trainer, PHASE_BACKWARD);
    model_backward(model, &pass, &forward, &forward.hidden);
    memory_release(memory, MEMORY_ACTIVATIONS, activations);
    memory_release(memory, MEMORY_WORKSPACE, workspace);
}

/* What decides, beside the slot, where the tensors of a micro-batch lie. */
static uint64_t replay_key(const struct trainer *trainer)
{
    uint64_t numbers[] = { trainer->layout, memory_mark(trainer->memory, MEMORY_ACTIVATIONS).bytes,
                           memory_mark(trainer->memory, MEMORY_WORKSPACE).bytes };
    uint64_t key = 0xcbf29ce484222325u;
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        key = (key ^ numbers[i]) * 0x100000001b3u;
    }
    return key;
}

/* Whether sums over the ranks are asked for within this micro-batch. Not where activations move:
 * the host then waits for the device, in ways that cannot be given up when a rank is lost. */
static bool asks_early(const struct trainer *trainer, int64_t index)
{
    const struct method *method = &trainer->method;
    return trainer->comm->ranks > 1 && index == method->micro_count - 1 &&
           method->ops->asks_early && !trainer->offloads;
}

/* The first micro-batch of a step begins the gradients, the others add to them; each set of inputs
 * has its own record, and so have batches whose rows are one record each. What moves activations
 * between device and host needs the host each time, a sample is drawn anew in every step, and what
 * is sent cannot be recorded. */
static void run_micro_batch(struct trainer *trainer, int64_t index, int inputs)
{
    struct method *method = &trainer->method;
    struct micro_batch micro = { .trainer = trainer, .inputs = inputs };
    bool drawn = trainer->sampler.ops != NULL && !trainer->sampler.ops->replayable;
    bool same = !trainer->offloads && !drawn && trainer->policy->replayable &&
                method->ops->replayable != NULL && method->ops->replayable(method);
    /* The rows of the embedding's gradient lie elsewhere for each micro-batch: three are recorded.
     */
    same = same && (!trainer->dense.by_rows || index < 3);
    method->micro = index;
    method->early = asks_early(trainer, index);
    same = same && !method->early;
    trainer->sampler.micro = index * trainer->comm->ranks + trainer->comm->rank;
    if (same) {
        int slot = (index == 0 ? 0 : 1 + inputs) + (trainer->input[inputs].whole ? 3 : 0);
        trainer_enter(trainer, PHASE_FORWARD);
        backend_replay(trainer->be, slot, replay_key(trainer), micro_batch, &micro);
    } else {
        micro_batch(&micro);
    }
}

static void run_micro_batches(struct trainer *trainer, const struct batch *batches, int64_t count,
                              float scale)
{
    bool ahead = trainer->inputs > 1;
    const struct comm_counts before = trainer->comm->counts;
    trainer_feed(trainer, 0, &batches[0], scale);
    backend_join(trainer->be);
    for (int64_t i = 0; i < count; i++) {
        int next = ahead ? (int)((i + 1) % 2) : 0;
        if (ahead && i + 1 < count) {
            trainer_feed(trainer, next, &batches[i + 1], scale);
        }
        run_micro_batch(trainer, i, ahead ? (int)(i % 2) : 0);
        if (!ahead && i + 1 < count) {
            trainer_feed(trainer, next, &batches[i + 1], scale);
        }
        backend_join(trainer->be);
    }
    const struct comm_counts *now = &trainer->comm->counts;
    trainer->early =
        (struct comm_counts){ .calls = now->calls - before.calls,
                              .payload_bytes = now->payload_bytes - before.payload_bytes,
                              .wire_bytes = now->wire_bytes - before.wire_bytes,
                              .hops = now->hops - before.hops };
}

static double learning_rate(const struct trainer *trainer, int64_t step)
{
    const struct recipe *recipe = &trainer->recipe;
    static const enum schedule_shape shapes[] = {
        [SCHEDULE_CONSTANT] = SCHEDULE_SHAPE_CONSTANT,
        [SCHEDULE_LINEAR] = SCHEDULE_SHAPE_LINEAR,
        [SCHEDULE_COSINE] = SCHEDULE_SHAPE_COSINE,
        [SCHEDULE_WSD] = SCHEDULE_SHAPE_WSD,
    };
    struct schedule schedule = { .shape = shapes[recipe->schedule_name],
                                 .lr = recipe->optimizer_lr,
                                 .warmup = recipe->schedule_warmup,
                                 .steps = recipe->train_steps,
                                 .floor = recipe->schedule_floor };
    return schedule_rate(&schedule, step);
}

static void reduce_gradient(void *context, const char *parameter, struct tensor *gradient)
{
    struct trainer *trainer = context;
    gradient->name = parameter;
    exchange_ask(&trainer->exchange, gradient, (struct exchange_rows){ .split = false });
}

static void take_gradient(void *context, const char *parameter, struct tensor *gradient)
{
    struct trainer *trainer = context;
    (void)parameter;
    exchange_take(&trainer->exchange, gradient, (struct exchange_rows){ .split = false });
}

/* Sums loss and gradients over the ranks. */
static void reduce(struct trainer *trainer)
{
    struct gradient_visitor visitor = { .visit = reduce_gradient, .context = trainer };
    struct method *method = &trainer->method;
    comm_ask_all_reduce(trainer->comm, trainer->be, &trainer->loss);
    dense_ask_sums(&trainer->dense);
    if (method->ops->ask_sums != NULL) {
        method->ops->ask_sums(method);
    } else {
        method->ops->each_gradient(method, &visitor);
    }
    comm_wait(trainer->comm, trainer->be); /* from here on the host may wait for the device */
    dense_take_sums(&trainer->dense);
    if (method->ops->take_sums != NULL) {
        method->ops->take_sums(method);
    } else {
        visitor.visit = take_gradient;
        method->ops->each_gradient(method, &visitor);
    }
}

static struct rule_settings rule_settings_of(const struct trainer *trainer, int64_t step)
{
    const struct recipe *recipe = &trainer->recipe;
    return (struct rule_settings){ .beta1 = (float)recipe->optimizer_beta1,
                                   .beta2 = (float)recipe->optimizer_beta2,
                                   .eps = (float)recipe->optimizer_eps,
                                   .rounding = (enum rounding)recipe->precision_rounding,
                                   .seed = (uint64_t)recipe->train_seed,
                                   .step = (uint32_t)step,
                                   .anchor_interval = recipe->optimizer_anchor_interval,
                                   .anchor_pull = (float)recipe->optimizer_anchor_weight,
                                   .anchor_harmonic =
                                       recipe->optimizer_anchor_step == ANCHOR_STEP_HARMONIC,
                                   .control = &trainer->control };
}

/* The squares of all gradients: of those that are split each rank has its own rows, the others are
 * whole on every rank and count once. */
static void sum_squares(struct trainer *trainer)
{
    struct method *method = &trainer->method;
    struct tensor *sum = &trainer->sum_squares;
    op_zero(trainer->be, sum);
    bool split = dense_add_own_squares(&trainer->dense, sum);
    if (method->ops->add_own_squares != NULL) {
        split = method->ops->add_own_squares(method, sum) || split;
    }
    if (split) {
        comm_all_reduce(trainer->comm, trainer->be, sum);
    }
    dense_add_squares(&trainer->dense, sum);
    method->ops->add_squares(method, sum);
}

static void update(struct trainer *trainer, double lr, const struct rule_settings *settings)
{
    struct method *method = &trainer->method;
    trainer_enter(trainer, PHASE_UPDATE);
    sum_squares(trainer);
    op_clip(trainer->be, &trainer->control, &trainer->sum_squares, &trainer->loss,
            (float)trainer->recipe.train_clip);
    dense_update(&trainer->dense, lr, settings);
    method->ops->update(method, lr, settings);
    comm_wait(trainer->comm, trainer->be); /* for the rows that other ranks have updated */
    dense_take_weights(&trainer->dense);
}

/* What the device found, once it is done: the one time in a step that the host waits. */
static int read_back(struct trainer *trainer, struct step_result *result, struct error *err)
{
    float answer[STEP_ANSWER];
    backend_download(trainer->be, answer, trainer->answer.data, sizeof answer);
    if (trainer->be->failed) {
        return trainer_device_error(trainer, err);
    }
    if (comm_check(trainer->comm, err) != 0) {
        return -1;
    }
    result->loss = answer[ANSWER_LOSS];
    result->grad_norm = answer[ANSWER_CONTROL + CONTROL_NORM];
    result->skipped = answer[ANSWER_CONTROL + CONTROL_SKIP] != 0.0f;
    result->refreshed = trainer->method.refreshed;
    if (result->skipped) {
        result->reason =
            isfinite(result->loss) ? "the gradient is not finite" : "the loss is not finite";
    }
    return 0;
}

/* After a wait; `waited_s`: that the host stood in collectives of its own. */
static void read_times(struct trainer *trainer, double waited_s, struct step_result *result)
{
    _Static_assert((int)PHASE_COUNT <= (int)BACKEND_PART_EXCHANGE, "the backend tells parts apart");
    double ms[BACKEND_PARTS];
    bool told = backend_time_read(trainer->be, ms);
    for (int phase = 0; phase < PHASE_COUNT; phase++) {
        result->phase_ms[phase] = told ? ms[phase] : (double)NAN;
    }
    result->exchange_ms = told ? ms[BACKEND_PART_EXCHANGE] + 1e3 * waited_s : (double)NAN;
}

const struct comm_counts *trainer_sent_early(const struct trainer *trainer)
{
    return &trainer->early;
}

void trainer_tell_ranks(struct trainer *trainer, const struct rank_report *mine)
{
    trainer->told = *mine;
}

const struct rank_report *trainer_rank_reports(const struct trainer *trainer)
{
    return trainer->reports;
}

/* Tokens of all ranks, who tell how they fare in the same breath. */
static int64_t gather_reports(struct trainer *trainer, int64_t tokens)
{
    struct comm *comm = trainer->comm;
    int64_t sum = 0;
    trainer->told.tokens = tokens;
    comm_all_gather_bytes(comm, "counts", &trainer->told, trainer->reports, sizeof trainer->told);
    for (int p = 0; p < comm->ranks; p++) {
        sum += trainer->reports[p].tokens;
    }
    /* Ranks that nobody plays have as much as this one. */
    return comm->imaginary ? tokens * comm->ranks : sum;
}

int trainer_step(struct trainer *trainer, int64_t step, const struct batch *batches, int64_t count,
                 struct step_result *result, struct error *err)
{
    double waited_s = trainer->comm->counts.wait_seconds;
    memset(result, 0, sizeof *result);
    result->exchange_ms = (double)NAN;
    for (int phase = 0; phase < PHASE_COUNT; phase++) {
        result->phase_ms[phase] = (double)NAN;
    }
    int64_t tokens = 0;
    for (int64_t i = 0; i < count; i++) {
        if (trainer_check_batch(trainer, &batches[i], err) != 0) {
            return -1;
        }
        tokens += batches[i].trained_tokens;
        result->positions += trainer->comm->ranks * batches[i].rows * batches[i].sequence;
    }
    result->tokens = gather_reports(trainer, tokens);
    if (comm_check(trainer->comm, err) != 0) {
        return -1;
    }
    result->learning_rate = learning_rate(trainer, step);
    if (result->tokens == 0) {
        result->loss = NAN;
        result->grad_norm = NAN;
        result->skipped = true;
        result->reason = "no token of the batch is trained";
        result->exchange_ms = 1e3 * (trainer->comm->counts.wait_seconds - waited_s);
        return 0;
    }
    struct method *method = &trainer->method;
    float scale = (float)(1.0 / (double)result->tokens);
    double flops = backend_total(trainer->be).flops;
    struct rule_settings settings = rule_settings_of(trainer, step);
    method->micro_count = count;
    method->lr = result->learning_rate;
    method->rule_settings = &settings;
    method->loss = &trainer->loss;
    backend_time_begin(trainer->be);
    backend_time_part(trainer->be, PHASE_IDLE);
    method->ops->begin_step(method, step);
    op_zero(trainer->be, &trainer->loss);
    if (begin_dense(trainer, batches, count, err) != 0) {
        return -1;
    }
    trainer->sampler.step = step;
    run_micro_batches(trainer, batches, count, scale);
    op_scale(trainer->be, &trainer->loss, scale);
    reduce(trainer);
    update(trainer, result->learning_rate, &settings);
    method->rule_settings = NULL;
    backend_time_part(trainer->be, PHASE_IDLE); /* the end of the last part, before the wait */
    int rc = read_back(trainer, result, err);
    read_times(trainer, trainer->comm->counts.wait_seconds - waited_s, result);
    result->flops = backend_total(trainer->be).flops - flops;
    trainer_enter(trainer, PHASE_IDLE);
    return rc;
}
