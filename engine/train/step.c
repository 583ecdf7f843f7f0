/* One optimizer step. */
#include <math.h>
#include <string.h>

#include "engine/optimizer/schedule.h"
#include "engine/train/trainer_parts.h"

struct pass trainer_pass(struct trainer *trainer, bool training)
{
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
                          .ids = &trainer->ids,
                          .targets = &trainer->targets,
                          .positions = &trainer->positions,
                          .starts = trainer->whole ? NULL : &trainer->starts };
}

/* Everything that an operation will use as an index is checked here, on the host. */
static int check_batch(const struct trainer *trainer, const struct batch *batch, struct error *err)
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

int trainer_upload(struct trainer *trainer, const struct batch *batch, struct error *err)
{
    if (check_batch(trainer, batch, err) != 0) {
        return -1;
    }
    size_t bytes = (size_t)(batch->rows * batch->sequence) * sizeof(int32_t);
    trainer->whole = batch->whole;
    backend_upload(trainer->be, trainer->ids.data, batch->ids, bytes);
    backend_upload(trainer->be, trainer->targets.data, batch->targets, bytes);
    backend_upload(trainer->be, trainer->positions.data, batch->positions, bytes);
    backend_upload(trainer->be, trainer->starts.data, batch->starts, bytes);
    return 0;
}

/* Where only rows of the embedding have a gradient, the ids of all micro-batches decide which. */
static int begin_dense(struct trainer *trainer, const struct batch *batches, int64_t count,
                       struct error *err)
{
    int64_t tokens = trainer->recipe.batch_micro * trainer->recipe.data_sequence_length;
    struct tensor *ids = &trainer->dense.rows.ids;
    if (trainer->dense.by_rows && count * tokens > tensor_count(ids)) {
        return fail(err, ERROR_RUNTIME, "%lld micro-batches, the recipe says %lld",
                    (long long)count, (long long)trainer->recipe.batch_accumulate);
    }
    size_t bytes = (size_t)tokens * sizeof(int32_t);
    for (int64_t i = 0; trainer->dense.by_rows && i < count; i++) {
        if (check_batch(trainer, &batches[i], err) != 0) {
            return -1;
        }
        backend_upload(trainer->be, (char *)ids->data + (size_t)i * bytes, batches[i].ids, bytes);
    }
    dense_begin_step(&trainer->dense, count * tokens);
    return 0;
}

static void micro_batch(struct trainer *trainer, float scale)
{
    struct model *model = &trainer->model;
    struct memory *memory = trainer->memory;
    struct memory_position activations = memory_mark(memory, MEMORY_ACTIVATIONS);
    struct memory_position workspace = memory_mark(memory, MEMORY_WORKSPACE);
    struct pass pass = trainer_pass(trainer, true);
    struct tensor slots = dense_slots(&trainer->dense, trainer->method.micro * pass_tokens(&pass),
                                      pass_tokens(&pass));
    pass.slots = slots.rank > 0 ? &slots : NULL;
    struct model_forward forward;
    trainer_enter(trainer, PHASE_FORWARD);
    model_forward(model, &pass, &forward);
    model_loss(model, &pass, &forward.hidden,
               &(struct model_loss){
                   .loss_sum = &trainer->loss, .dhidden = &forward.hidden, .scale = scale });
    trainer_enter(trainer, PHASE_BACKWARD);
    model_backward(model, &pass, &forward, &forward.hidden);
    memory_release(memory, MEMORY_ACTIVATIONS, activations);
    memory_release(memory, MEMORY_WORKSPACE, workspace);
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
    (void)parameter;
    struct trainer *trainer = context;
    trainer->comm->ops->all_reduce(trainer->comm, trainer->be, gradient);
}

/* Sums loss and gradients over the ranks. */
static void reduce(struct trainer *trainer)
{
    struct gradient_visitor visitor = { .visit = reduce_gradient, .context = trainer };
    trainer->comm->ops->all_reduce(trainer->comm, trainer->be, &trainer->loss);
    dense_each_gradient(&trainer->dense, &visitor);
    trainer->method.ops->each_gradient(&trainer->method, &visitor);
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

static void update(struct trainer *trainer, double lr, const struct rule_settings *settings)
{
    struct method *method = &trainer->method;
    trainer_enter(trainer, PHASE_UPDATE);
    op_zero(trainer->be, &trainer->sum_squares);
    dense_add_squares(&trainer->dense, &trainer->sum_squares);
    method->ops->add_squares(method, &trainer->sum_squares);
    op_clip(trainer->be, &trainer->control, &trainer->sum_squares, &trainer->loss,
            (float)trainer->recipe.train_clip);
    dense_update(&trainer->dense, lr, settings);
    method->ops->update(method, lr, settings);
}

/* What the device found, once it is done. */
static int read_back(struct trainer *trainer, struct step_result *result, struct error *err)
{
    float control[CONTROL_COUNT];
    backend_download(trainer->be, &result->loss, trainer->loss.data, sizeof result->loss);
    backend_download(trainer->be, control, trainer->control.data, sizeof control);
    if (backend_sync(trainer->be) != 0) {
        return trainer_device_error(trainer, err);
    }
    result->grad_norm = control[CONTROL_NORM];
    result->skipped = control[CONTROL_SKIP] != 0.0f;
    result->refreshed = trainer->method.refreshed;
    if (result->skipped) {
        result->reason =
            isfinite(result->loss) ? "the gradient is not finite" : "the loss is not finite";
    }
    return 0;
}

int trainer_step(struct trainer *trainer, int64_t step, const struct batch *batches, int64_t count,
                 struct step_result *result, struct error *err)
{
    memset(result, 0, sizeof *result);
    int64_t tokens = 0;
    for (int64_t i = 0; i < count; i++) {
        tokens += batches[i].trained_tokens;
        result->positions += batches[i].rows * batches[i].sequence;
    }
    result->tokens = trainer->comm->ops->sum_count(trainer->comm, tokens);
    result->learning_rate = learning_rate(trainer, step);
    if (result->tokens == 0) {
        result->loss = NAN;
        result->grad_norm = NAN;
        result->skipped = true;
        result->reason = "no token of the batch is trained";
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
    method->ops->begin_step(method, step);
    op_zero(trainer->be, &trainer->loss);
    if (begin_dense(trainer, batches, count, err) != 0) {
        return -1;
    }
    for (int64_t i = 0; i < count; i++) {
        method->micro = i;
        trainer->sampler.step = step;
        trainer->sampler.micro = i;
        if (trainer_upload(trainer, &batches[i], err) != 0) {
            return -1;
        }
        micro_batch(trainer, scale);
    }
    op_scale(trainer->be, &trainer->loss, scale);
    reduce(trainer);
    update(trainer, result->learning_rate, &settings);
    method->rule_settings = NULL;
    int rc = read_back(trainer, result, err);
    result->flops = backend_total(trainer->be).flops - flops;
    trainer_enter(trainer, PHASE_IDLE);
    return rc;
}
