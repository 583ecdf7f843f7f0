/* From options to a trainer that holds the weights. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"
#include "engine/comm/watch.h"
#include "engine/device.h"
#include "engine/method/method.h"
#include "engine/model/adapter.h"
#include "engine/model/model_weights.h"
#include "engine/recipe/load.h"
#include "engine/run/parts.h"

/* ---- model and data ------------------------------------------------------------------------- */

static void tell_progress(void *context, int64_t done_bytes, int64_t total_bytes)
{
    struct run *run = context;
    double now = clock_monotonic();
    if (now - run->telemetry_s >= 1.0) { /* not in use yet: paces these lines */
        run->telemetry_s = now;
        run_notice(run, "reading data: %.0f%%",
                   total_bytes > 0 ? 100.0 * (double)done_bytes / (double)total_bytes : 0.0);
    }
}

int run_check_rank(const struct recipe *recipe, const struct model_config *config,
                   struct error *err)
{
    const struct method_ops *method = method_find(recipe->method_name);
    bool ranked = method != NULL && method_reads(method, "method.rank");
    if (ranked && recipe->method_rank > config->hidden_size) {
        fail(err, ERROR_USAGE, "method.rank=%lld is more than the model's hidden size of %lld",
             (long long)recipe->method_rank, (long long)config->hidden_size);
        return hint(err, "set method.rank to %lld or less", (long long)config->hidden_size);
    }
    return 0;
}

int64_t run_count_steps(const struct recipe *recipe, int64_t rows, int ranks)
{
    if (recipe->train_steps > 0) {
        return recipe->train_steps;
    }
    double a_step = (double)recipe->batch_micro * (double)recipe->batch_accumulate * (double)ranks;
    double steps = ceil(recipe->train_epochs * (double)rows / a_step - 1e-9);
    return steps < 1.0 ? 1 : steps > 1e15 ? (int64_t)1e15 : (int64_t)steps;
}

static int check_world(const struct run *run, const struct run_digests *found, struct error *err)
{
    const struct run_digests *saved = &run->state.digests;
    const struct {
        const char *key;
        const char *what;
        const char *before;
        const char *now;
    } rows[] = {
        { "data.train", "the data", saved->data, found->data },
        { "tokenizer.path", "the tokenizer", saved->tokenizer, found->tokenizer },
        { "model.path", "the model", saved->model, found->model },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (strcmp(rows[i].before, rows[i].now) != 0 && !run_may_change(run, rows[i].key)) {
            fail(err, ERROR_DATA, "%s: %s changed since the checkpoint of step %lld (%s, was %s)",
                 rows[i].key, rows[i].what, (long long)run->state.step, rows[i].now,
                 rows[i].before);
            return hint(err, "add --accept-change %s if that is meant", rows[i].key);
        }
    }
    return 0;
}

/* A trained tokenizer belongs to the weights: the checkpoint's own is used, never trained anew. */
static int open_parts(struct run *run, int parts, struct error *err)
{
    struct dataset_progress progress = { tell_progress, run };
    if (!run->own_tokenizer) {
        return material_open(&run->recipe, parts, &progress, &run->material, err);
    }
    struct recipe recipe;
    char *path = path_join(run->resume_path, "tokenizer.model");
    recipe_init(&recipe);
    recipe_copy(&recipe, &run->recipe);
    int result = recipe_assign(&recipe, recipe_field("tokenizer.path"), path, NULL, err);
    if (result == 0) {
        result = material_open(&recipe, parts, &progress, &run->material, err);
    }
    if (result == 0) { /* what lies beside it is written anew; the checkpoint may be removed */
        run->material.tokenizer_directory[0] = '\0';
    }
    recipe_free(&recipe);
    free(path);
    return result;
}

static int open_material(struct run *run, struct error *err)
{
    struct run_digests found;
    if (open_parts(run, MATERIAL_TOKENIZER | MATERIAL_DATA, err) != 0) {
        return -1;
    }
    /* A checkpoint's recipe has them already, and its adapter. */
    if (!run->resume_path && material_adapter_settings(&run->recipe, &run->material, err) != 0) {
        return -1;
    }
    if (run_check_rank(&run->recipe, &run->material.config, err) != 0) {
        return -1;
    }
    const char *notice;
    for (int i = 0; (notice = dataset_notice(run->material.dataset, i)); i++) {
        run_notice(run, "%s", notice);
    }
    run_digest(run, &found);
    if (run->resume_path && !run->forked && check_world(run, &found, err) != 0) {
        return -1;
    }
    run->state.digests = found;
    recipe_copy(&run->effective, &run->recipe);
    run->effective.train_steps = run_count_steps(
        &run->recipe, dataset_facts(run->material.dataset)->rows[DATA_TRAIN], run->comm->ranks);
    return 0;
}

/* ---- the trainer ---------------------------------------------------------------------------- */

/* The weights that the run begins with; they are compared with config.json before memory is taken
 * by what config.json says. An adapter is merged into them, unless it goes on training. */
static struct weights_source *open_weights(const struct run *run, struct adapter **adapter,
                                           struct error *err)
{
    struct weights_source *source = weights_open(run->material.model_directory, err);
    if (source && model_check_weights(&run->material.config, source, err) != 0) {
        weights_close(source);
        return NULL;
    }
    const char *directory = run->material.adapter_directory;
    if (source && directory[0]) {
        *adapter = adapter_open(directory, &run->material.config, err);
        if (!*adapter) {
            weights_close(source);
            return NULL;
        }
        if (!material_continues_adapter(&run->recipe)) {
            weights_lay_adapter(source, *adapter);
        }
    }
    return source;
}

int run_build(struct run *run, const char *checkpoint, struct error *err)
{
    bool pretrained = !checkpoint && run->recipe.model_init == MODEL_PRETRAINED;
    struct adapter *adapter = NULL;
    struct weights_source *source = pretrained ? open_weights(run, &adapter, err) : NULL;
    if (pretrained && !source) {
        return -1;
    }
    trainer_close(run->trainer);
    struct trainer_options options = {
        .recipe = &run->effective,
        .config = &run->material.config,
        .be = run->be,
        .comm = run->comm,
        .capacity = run->plan.bytes,
        .store = run->store,
    };
    run->trainer = trainer_open(&options, err);
    int result = run->trainer ? 0 : -1;
    if (result != 0 && err->code == ERROR_FIT && device_is_cuda(run->be)) {
        run_refuse_memory(run, err);
    }
    if (result == 0 && checkpoint) {
        result = run_restore(run, checkpoint, err);
    }
    if (result == 0 && source) {
        result = trainer_load_weights(run->trainer, source, err);
    }
    if (result == 0 && adapter && material_continues_adapter(&run->recipe)) {
        result = trainer_load_adapter(run->trainer, adapter, err);
    }
    weights_close(source);
    adapter_close(adapter);
    return result;
}

/* ---- batches and the directory -------------------------------------------------------------- */

static int make_batches(struct run *run, struct error *err)
{
    int64_t rows = run->recipe.batch_micro;
    int64_t sequence = run->recipe.data_sequence_length;
    size_t count = (size_t)run->recipe.batch_accumulate;
    run->batch = xcalloc(count, sizeof *run->batch);
    for (size_t i = 0; i < count; i++) {
        if (batch_init(&run->batch[i], rows, sequence, err) != 0) {
            return -1;
        }
    }
    return batch_init(&run->look, rows, sequence, err);
}

static int write_recipe(const struct run *run, struct error *err)
{
    char *path = path_join(run->directory.path, "recipe.json");
    char *text = recipe_json(&run->recipe);
    int result = file_replace(path, text, strlen(text), err);
    free(text);
    free(path);
    return result;
}

static int open_directory(struct run *run, struct error *err)
{
    if (run->resuming) {
        if (run_directory_cut(&run->directory, run->resume_path ? run->state.events_bytes : 0,
                              err) != 0) {
            return -1;
        }
    } else if (run_directory_make(run->options->directory, run->recipe.name, &run->directory,
                                  err) != 0) {
        return -1;
    }
    return run_write_origin(run, err) == 0 ? write_recipe(run, err) : -1;
}

int run_prepare(struct run *run, struct error *err)
{
    run->state.loss = NAN;
    run->state.best_loss = (double)NAN;
    run->evaluated_loss = (double)NAN;
    run->pin = -1;
    recipe_init(&run->recipe);
    recipe_init(&run->effective);
    if (run_agree(run, run_find_origin(run, err), err) != 0) {
        return -1;
    }
    int result = run_share_start(run, err);
    if (result == 0) {
        result = recipe_check(&run->recipe, err) == 0 ? open_material(run, err) : -1;
    }
    if (run_agree(run, result, err) != 0) {
        return -1;
    }
    if (run->resume_path && run->state.step >= run->effective.train_steps) {
        run->finished = true;
        return 0;
    }
    result = run_make_plan(run, err) == 0 ? make_batches(run, err) : -1;
    if (run_agree(run, result, err) != 0) {
        return -1;
    }
    run->ceiling_flops = run_measure_ceiling(run->be, (enum dtype)run->recipe.precision_weights);
    result = run_open_store(run, err) == 0 ? run_build(run, run->resume_path, err) : -1;
    if (run_agree(run, result, err) != 0) {
        return -1;
    }
    run->seconds_before = run->state.seconds;
    run->telemetry_s = 0.0;
    result = run_check_ranks(run, err);
    if (result == 0 && !run_follows(run)) {
        result = open_directory(run, err);
    }
    return run_agree(run, result, err);
}

void run_release(struct run *run)
{
    if (run->server) {
        server_close(run->server, 2.0);
    }
    sampler_close(run->sampler);
    comm_leave_device(run->comm); /* what it has there would keep the device from ending */
    trainer_close(run->trainer);
    store_close(run->store);
    for (int64_t i = 0; run->batch && i < run->recipe.batch_accumulate; i++) {
        batch_free(&run->batch[i]);
    }
    free(run->batch);
    batch_free(&run->look);
    device_close(run->be);
    if (run->material.model_directory) {
        material_close(&run->material);
    }
    if (run->directory.path) {
        run_directory_close(&run->directory);
    }
    watch_close(run->watch, run->comm->failed);
    comm_close(run->comm);
    buffer_free(&run->backlog);
    run_free_fare(run);
    checkpoint_unpin(run->pin);
    free(run->resume_path);
    free(run->saved_tokenizer);
    recipe_free(&run->recipe);
    recipe_free(&run->effective);
}
