/* Evaluation and generation: the weights are read, never written. */
#include <math.h>
#include <stdlib.h>

#include "engine/base/xalloc.h"
#include "engine/train/trainer_parts.h"

int trainer_evaluate(struct trainer *trainer, const struct batch *batch, double *loss_sum,
                     int64_t *tokens, struct error *err)
{
    struct memory *memory = trainer->memory;
    if (!trainer->inference && !recipe_evaluates(&trainer->recipe)) {
        fail(err, ERROR_USAGE, "this run has no memory planned for an evaluation");
        return hint(err, "set data.validation and train.eval_every");
    }
    if (trainer_check_batch(trainer, batch, err) != 0) {
        return -1;
    }
    trainer_feed(trainer, 0, batch, 1.0f);
    backend_join(trainer->be);
    trainer_enter(trainer, PHASE_EVALUATE);
    struct memory_position mark = memory_mark(memory, MEMORY_WORKSPACE);
    struct pass pass = trainer_pass(trainer, 0, false);
    struct model_forward forward;
    op_zero(trainer->be, &trainer->loss);
    model_forward(&trainer->model, &pass, &forward);
    model_loss(&trainer->model, &pass, &forward.hidden,
               &(struct model_loss){ .loss_sum = &trainer->loss });
    memory_release(memory, MEMORY_WORKSPACE, mark);
    float sum = 0.0f;
    backend_download(trainer->be, &sum, trainer->loss.data, sizeof sum);
    trainer_enter(trainer, PHASE_IDLE);
    if (backend_sync(trainer->be) != 0) {
        return trainer_device_error(trainer, err);
    }
    *loss_sum = (double)sum;
    *tokens = batch->trained_tokens;
    return 0;
}

int trainer_generate_begin(struct trainer *trainer, int64_t length, struct error *err)
{
    const struct model_config *config = &trainer->model.config;
    struct token_cache *cache = &trainer->cache;
    if (!trainer->inference && trainer->recipe.train_sample_every == 0) {
        fail(err, ERROR_USAGE, "this run has no memory planned for samples");
        return hint(err, "set train.sample_every to more than 0 first");
    }
    if (length < 1 || length > trainer->model.positions) {
        return fail(err, ERROR_USAGE, "generation of %lld tokens: at most %lld fit here",
                    (long long)length, (long long)trainer->model.positions);
    }
    if (trainer->cache_length != 0) {
        trainer_generate_end(trainer);
    }
    trainer->before_cache = memory_mark(trainer->memory, MEMORY_WORKSPACE);
    /* Places for the whole length that was planned, so that every sample takes the same. */
    int64_t places = trainer->inference ? length : trainer->recipe.data_sequence_length;
    struct memory_shape shape = { .dtype = trainer->model.dtype,
                                  .rank = 3,
                                  .dim = { 1, places, config->kv_heads * config->head_size } };
    cache->keys = xcalloc((size_t)config->layers, sizeof *cache->keys);
    cache->values = xcalloc((size_t)config->layers, sizeof *cache->values);
    for (int64_t i = 0; i < config->layers; i++) {
        cache->keys[i] = memory_tensor(trainer->memory, MEMORY_WORKSPACE, "cached keys", shape);
        cache->values[i] = memory_tensor(trainer->memory, MEMORY_WORKSPACE, "cached values", shape);
    }
    cache->position = 0;
    trainer->cache_length = length;
    return backend_sync(trainer->be) == 0 ? 0 : trainer_device_error(trainer, err);
}

void trainer_generate_end(struct trainer *trainer)
{
    if (trainer->cache_length != 0) {
        memory_release(trainer->memory, MEMORY_WORKSPACE, trainer->before_cache);
        free(trainer->cache.keys);
        free(trainer->cache.values);
        trainer->cache = (struct token_cache){ 0 };
        trainer->cache_length = 0;
    }
}

static void download_logits(struct trainer *trainer, const struct tensor *tensor, float *logits)
{
    size_t count = (size_t)tensor_count(tensor);
    if (tensor->dtype == DTYPE_F32) {
        backend_download(trainer->be, logits, tensor->data, count * sizeof(float));
        return;
    }
    uint16_t *raw = xmalloc(count * sizeof *raw);
    backend_download(trainer->be, raw, tensor->data, count * sizeof *raw);
    for (size_t i = 0; i < count; i++) {
        logits[i] = bf16_to_float(raw[i]);
    }
    free(raw);
}

int trainer_generate_feed(struct trainer *trainer, int32_t token, float *logits, struct error *err)
{
    struct model *model = &trainer->model;
    if (token < 0 || token >= model->config.vocabulary) {
        return fail(err, ERROR_DATA, "token id %d is outside the model's vocabulary of %lld",
                    (int)token, (long long)model->config.vocabulary);
    }
    if (trainer->cache.position >= trainer->cache_length) {
        return fail(err, ERROR_USAGE, "generation: no place for more than %lld tokens",
                    (long long)trainer->cache_length);
    }
    trainer_enter(trainer, PHASE_SAMPLE);
    int32_t position = (int32_t)trainer->cache.position;
    backend_upload(trainer->be, trainer->input[0].ids.data, &token, sizeof token);
    backend_upload(trainer->be, trainer->input[0].positions.data, &position, sizeof position);
    struct tensor ids = trainer->input[0].ids;
    struct tensor positions = trainer->input[0].positions;
    ids.dim[0] = 1;
    positions.dim[0] = 1;
    struct pass pass = trainer_pass(trainer, 0, false);
    pass.batch = 1;
    pass.sequence = 1;
    pass.ids = &ids;
    pass.positions = &positions;
    pass.cache = &trainer->cache;
    struct memory_position mark = memory_mark(trainer->memory, MEMORY_WORKSPACE);
    struct model_forward forward;
    model_forward(model, &pass, &forward);
    struct tensor out = pass_scratch(&pass, "next logits", model->dtype, model->config.vocabulary);
    if (logits != NULL) {
        model_logits(model, &pass, &out, &forward.hidden);
        download_logits(trainer, &out, logits);
    }
    memory_release(trainer->memory, MEMORY_WORKSPACE, mark);
    trainer->cache.position++;
    trainer_enter(trainer, PHASE_IDLE);
    return backend_sync(trainer->be) == 0 ? 0 : trainer_device_error(trainer, err);
}
