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

/* Settings that may differ when a run goes on: how long, how often, where; not what is learned. */
static const char *const free_keys[] = {
    "train.steps",         "train.epochs",
    "train.eval_every",    "train.save_every",
    "train.sample_every",  "train.sample_prompt",
    "train.keep",          "train.export",
    "memory.limit",        "device",
    "method.interval",     "method.rank",
    "method.selection",    "method.scale",
    "optimizer.lr",        "optimizer.weight_decay",
    "train.clip",          "compare.methods",
    "activation.offload",  "activation.offload_dir",
    "activation.resident",
};

static bool is_accepted(const struct run *run, const char *key)
{
    if (run->options->fork) {
        return true; /* a new run may differ in everything */
    }
    for (size_t i = 0; i < sizeof free_keys / sizeof free_keys[0]; i++) {
        if (strcmp(free_keys[i], key) == 0) {
            return true;
        }
    }
    for (size_t i = 0; i < run->options->accepted_count; i++) {
        if (strcmp(run->options->accepted[i], key) == 0) {
            return true;
        }
    }
    return false;
}

/* ---- the recipe of a resumed run ------------------------------------------------------------ */

static int lay_change(struct run *run, const char *change, struct error *err)
{
    const char *equals = strchr(change, '=');
    char *key = xstrndup(change, equals ? (size_t)(equals - change) : strlen(change));
    const struct field *field = recipe_field(key);
    char *before = field ? field_text(field, &run->recipe) : NULL;
    int result = recipe_set(&run->recipe, change, err);
    char *after = result == 0 ? field_text(field, &run->recipe) : NULL;
    if (result == 0 && strcmp(before, after) != 0 && !is_accepted(run, key)) {
        fail(err, ERROR_USAGE, "%s was %s in this run, now it is %s", key, text_show(before).text,
             text_show(after).text);
        result = hint(err, "add --accept-change %s if that is meant", key);
    }
    free(before);
    free(after);
    free(key);
    return result;
}

static int check_accepted(const struct run *run, struct error *err)
{
    for (size_t i = 0; i < run->options->accepted_count; i++) {
        if (!recipe_field(run->options->accepted[i])) {
            return recipe_refuse_key(run->options->accepted[i], err);
        }
    }
    return 0;
}

/* Takes state and recipe of a whole checkpoint. 1 if it is not whole, which was told; GONE if its
 * run has removed it since it was listed. */
enum { GONE = 2 };
static int take_checkpoint(struct run *run, const char *path, struct error *err)
{
    struct checkpoint checkpoint;
    struct error why = { 0 };
    if (run->options->fork) {
        run->pin = checkpoint_pin(path);
        if (run->pin < 0) {
            return GONE;
        }
    }
    if (checkpoint_open(path, &checkpoint, &why) != 0) {
        checkpoint_unpin(run->pin);
        run->pin = -1;
        run_notice(run, "checkpoint refused: %s; the one before is tried", why.message);
        return 1;
    }
    run->resume_path = xstrdup(path);
    run->resume_step = checkpoint.step;
    run->begin_step = checkpoint.step;
    int result = run_state_read(checkpoint.state, path, &run->state, err);
    if (result == 0) {
        result = recipe_parse(&run->recipe, json_get(checkpoint.state, "recipe"), path, err);
    }
    checkpoint_close(&checkpoint);
    return result;
}

static int refuse_step(const struct checkpoint_list *list, const char *path, int64_t step,
                       struct error *err)
{
    struct buffer steps = { 0 };
    for (size_t i = list->count; i > 0; i--) {
        buffer_printf(&steps, "%s%lld", steps.size > 0 ? ", " : "",
                      (long long)list->item[i - 1].step);
    }
    fail(err, ERROR_USAGE, "%s has no checkpoint of step %lld", text_show(path).text,
         (long long)step);
    if (list->count > 0) {
        hint(err, "there are those of steps %s", steps.text);
    }
    buffer_free(&steps);
    return -1;
}

/* One round of the search below; GONE: the list is out of date. */
static int search_checkpoints(struct run *run, const char *path, int64_t step, struct error *err)
{
    struct checkpoint_list list;
    if (checkpoint_list_read(path, &list, err) != 0) {
        return -1;
    }
    int result = 1;
    bool met = step == 0;
    for (size_t i = 0; i < list.count && result == 1; i++) {
        if (step == 0 || list.item[i].step == step) {
            met = true;
            result = take_checkpoint(run, list.item[i].path, err);
        }
    }
    if (!met) {
        result = refuse_step(&list, path, step, err);
    } else if (result == 1 && step > 0) {
        result = fail(err, ERROR_DATA, "the checkpoint of step %lld of %s is not whole",
                      (long long)step, text_show(path).text);
    } else if (result == 1 && list.count > 0) {
        fail(err, ERROR_DATA, "none of the %zu checkpoints of %s is whole", list.count,
             text_show(path).text);
        result = hint(err, "start again with windrow train and the recipe.json of this run");
    }
    checkpoint_list_free(&list);
    return result == 1 ? 0 : result;
}

/* The newest whole checkpoint of the run at `path`, or (step > 0) that of one step. None at all is
 * no error. A run that is running saves and removes in the meantime: it is listed anew. */
static int find_checkpoint(struct run *run, const char *path, int64_t step, struct error *err)
{
    enum { ROUNDS = 100 };
    int result = GONE;
    for (int i = 0; i < ROUNDS && result == GONE; i++) {
        result = search_checkpoints(run, path, step, err);
    }
    if (result == GONE) {
        fail(err, ERROR_RUNTIME, "the checkpoints of %s are removed faster than they can be taken",
             text_show(path).text);
        return hint(err, "pause the run (windrow pause), fork it, and let it go on");
    }
    return result;
}

static int lay_changes(struct run *run, struct error *err)
{
    for (size_t i = 0; i < run->options->change_count; i++) {
        if (lay_change(run, run->options->changes[i], err) != 0) {
            return -1;
        }
    }
    return 0;
}

static int open_resumed(struct run *run, struct error *err)
{
    char *path = run_resolve(run->options->resume, err);
    if (!path) {
        return -1;
    }
    run->resuming = true;
    int result = run_directory_open(path, &run->directory, err);
    free(path);
    if (result != 0 || checkpoint_clean(run->directory.path, err) != 0 ||
        check_accepted(run, err) != 0 || find_checkpoint(run, run->directory.path, 0, err) != 0) {
        return -1;
    }
    if (!run->resume_path) {
        char *recipe = path_join(run->directory.path, "recipe.json");
        result = recipe_load(&run->recipe, recipe, err);
        free(recipe);
        run_notice(run, "no checkpoint yet: the run begins anew");
    }
    return result == 0 ? lay_changes(run, err) : result;
}

/* A new run that begins with the state of another one's checkpoint: RUN or RUN@STEP. */
static int open_forked(struct run *run, struct error *err)
{
    int64_t step = 0;
    const char *at = strrchr(run->options->fork, '@');
    bool numbered = at && text_to_integer(at + 1, &step) && step > 0;
    size_t size = numbered ? (size_t)(at - run->options->fork) : strlen(run->options->fork);
    char *name = xstrndup(run->options->fork, size);
    char *path = run_resolve(name, err);
    int result = path ? find_checkpoint(run, path, numbered ? step : 0, err) : -1;
    if (result == 0 && !run->resume_path) {
        result = fail(err, ERROR_DATA, "%s has no checkpoint to begin from", text_show(path).text);
    }
    free(path);
    free(name);
    run->resume_step = 0; /* it lies in another run: nothing to keep here */
    run->state.best_step = 0;
    run->state.best_loss = (double)NAN;
    run->state.returns = 0;
    return result == 0 ? lay_changes(run, err) : result;
}

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
        if (strcmp(rows[i].before, rows[i].now) != 0 && !is_accepted(run, rows[i].key)) {
            fail(err, ERROR_DATA, "%s: %s changed since the checkpoint of step %lld (%s, was %s)",
                 rows[i].key, rows[i].what, (long long)run->state.step, rows[i].now,
                 rows[i].before);
            return hint(err, "add --accept-change %s if that is meant", rows[i].key);
        }
    }
    return 0;
}

/* Whether the tokenizer was trained for the checkpoint that the run begins with, and stays. */
static bool has_own_tokenizer(const struct run *run)
{
    static const char key[] = "tokenizer.";
    bool changed = false;
    for (size_t i = 0; i < run->options->change_count; i++) {
        changed = changed || strncmp(run->options->changes[i], key, sizeof key - 1) == 0;
    }
    return run->resume_path && run->recipe.tokenizer_vocab > 0 && !changed;
}

/* A trained tokenizer belongs to the weights: the checkpoint's own is used, never trained anew. */
static int open_parts(struct run *run, int parts, struct error *err)
{
    struct dataset_progress progress = { tell_progress, run };
    if (!has_own_tokenizer(run)) {
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
    if (run->resume_path && check_world(run, &found, err) != 0) {
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
    return write_recipe(run, err);
}

/* What is to be trained, and from where on; the other ranks are told. */
static int resolve(struct run *run, struct error *err)
{
    if (run_follows(run)) {
        return 0;
    }
    if (run->options->resume) {
        return open_resumed(run, err);
    }
    if (run->options->fork) {
        return open_forked(run, err);
    }
    recipe_copy(&run->recipe, run->options->recipe);
    return 0;
}

int run_prepare(struct run *run, struct error *err)
{
    run->state.loss = NAN;
    run->state.best_loss = (double)NAN;
    run->evaluated_loss = (double)NAN;
    run->pin = -1;
    recipe_init(&run->recipe);
    recipe_init(&run->effective);
    if (resolve(run, err) != 0 || run_share_start(run, err) != 0 ||
        recipe_check(&run->recipe, err) != 0 || open_material(run, err) != 0) {
        return -1;
    }
    if (run->resume_path && run->state.step >= run->effective.train_steps) {
        run->finished = true;
        return 0;
    }
    if (run_make_plan(run, err) != 0 || make_batches(run, err) != 0) {
        return -1;
    }
    run->ceiling_flops = run_measure_ceiling(run->be, (enum dtype)run->recipe.precision_weights);
    if (run_open_store(run, err) != 0 || run_build(run, run->resume_path, err) != 0) {
        return -1;
    }
    run->seconds_before = run->state.seconds;
    run->telemetry_s = 0.0;
    if (run_check_ranks(run, err) != 0) {
        return -1;
    }
    return run_follows(run) ? 0 : open_directory(run, err);
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
    recipe_free(&run->recipe);
    recipe_free(&run->effective);
}
