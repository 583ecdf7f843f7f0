/*
 * Where a run begins: with a recipe, with a checkpoint of its own, or with that of another run.
 *
 * A fork has no checkpoint of its own before its first save. So that it can be resumed until then,
 * its directory names what it began from, in forked.json, one JSON object:
 *
 *   checkpoint   absolute path of the directory
 *   step         of that checkpoint
 *
 * The file is there before recipe.json, and stays.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/file.h"
#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"
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

bool run_may_change(const struct run *run, const char *key)
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

/* ---- changes --------------------------------------------------------------------------------- */

static int lay_change(struct run *run, const char *change, struct error *err)
{
    const char *equals = strchr(change, '=');
    char *key = xstrndup(change, equals ? (size_t)(equals - change) : strlen(change));
    const struct field *field = recipe_field(key);
    char *before = field ? field_text(field, &run->recipe) : NULL;
    int result = recipe_set(&run->recipe, change, err);
    char *after = result == 0 ? field_text(field, &run->recipe) : NULL;
    if (result == 0 && strcmp(before, after) != 0 && !run_may_change(run, key)) {
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

/* The keys tokenizer.*, as text (xmalloc'd). */
static char *tokenizer_text(const struct recipe *recipe)
{
    static const char section[] = "tokenizer.";
    struct buffer text = { 0 };
    for (const struct field *field = recipe_fields; field->key; field++) {
        if (strncmp(field->key, section, sizeof section - 1) == 0) {
            char *value = field_text(field, recipe);
            buffer_printf(&text, "%s=%s\n", field->key, value);
            free(value);
        }
    }
    return text.text;
}

/* Takes state and recipe of a whole checkpoint. 1 if it is not whole, which was told; GONE if its
 * run has removed it since it was listed. */
enum { GONE = 2 };
static int take_checkpoint(struct run *run, const char *path, struct error *err)
{
    struct checkpoint checkpoint;
    struct error why = { 0 };
    if (run->forked) {
        run->pin = checkpoint_pin(path);
        if (run->pin < 0) {
            return GONE;
        }
    }
    if (checkpoint_open(path, &checkpoint, &why) != 0) {
        checkpoint_unpin(run->pin);
        run->pin = -1;
        run_notice(run, "checkpoint refused: %s", why.message);
        return 1;
    }
    run->resume_path = xstrdup(path);
    run->resume_step = checkpoint.step;
    run->begin_step = checkpoint.step;
    int result = run_state_read(checkpoint.state, path, &run->state, err);
    if (result == 0) {
        result = recipe_parse(&run->recipe, json_get(checkpoint.state, "recipe"), path, err);
    }
    if (result == 0) {
        run->saved_tokenizer = tokenizer_text(&run->recipe);
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

/* What belongs to the other run, whose checkpoint this one begins with, is left there. */
static void leave_behind(struct run *run)
{
    run->resume_step = 0; /* it lies in another run: nothing to keep here */
    run->state.best_step = 0;
    run->state.best_loss = (double)NAN;
    run->state.returns = 0;
    run->state.events_bytes = 0;
}

/* Begins once more where the fork began that this run is; there must be its forked.json. */
static int begin_as_fork(struct run *run, const char *origin, struct error *err)
{
    const char *path = NULL;
    cJSON *root = json_read(origin, err);
    int result = root ? json_string(root, "checkpoint", NULL, &path, origin, err) : -1;
    if (result == 0 && !path) {
        result = fail(err, ERROR_DATA, "%s names no checkpoint", text_show(origin).text);
    }
    if (result == 0) {
        run->forked = true;
        result = take_checkpoint(run, path, err);
    }
    if (result > 0) {
        fail(err, ERROR_DATA,
             "%s has no checkpoint of its own, and what it was forked from is %s: %s",
             text_show(run->directory.name).text, result == GONE ? "gone" : "not whole",
             text_show(path).text);
        result = hint(err, "begin another one: windrow fork RUN[@STEP]; windrow runs lists them");
    }
    leave_behind(run);
    cJSON_Delete(root);
    return result;
}

/* A run that has saved nothing yet. */
static int begin_anew(struct run *run, struct error *err)
{
    char *recipe = path_join(run->directory.path, "recipe.json");
    char *origin = path_join(run->directory.path, "forked.json");
    bool forked = file_exists(origin);
    int result = forked ? begin_as_fork(run, origin, err) : 0;
    if (result == 0) {
        recipe_free(&run->recipe);
        recipe_init(&run->recipe);
        result = recipe_load(&run->recipe, recipe, err);
    }
    if (result == 0) {
        run_notice(run, "no checkpoint yet: the run begins %s",
                   forked ? "where it was forked" : "anew");
    }
    free(recipe);
    free(origin);
    return result;
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
        result = begin_anew(run, err);
    }
    return result == 0 ? lay_changes(run, err) : result;
}

/* A new run that begins with the state of another one's checkpoint: RUN or RUN@STEP. */
static int open_forked(struct run *run, struct error *err)
{
    run->forked = true;
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
    leave_behind(run);
    return result == 0 ? lay_changes(run, err) : result;
}

/* ---- all of it ------------------------------------------------------------------------------ */

int run_find_origin(struct run *run, struct error *err)
{
    if (run_follows(run)) {
        return 0;
    }
    int result = 0;
    if (run->options->resume) {
        result = open_resumed(run, err);
    } else if (run->options->fork) {
        result = open_forked(run, err);
    } else {
        recipe_copy(&run->recipe, run->options->recipe);
    }
    if (result == 0 && run->resume_path && run->recipe.tokenizer_vocab > 0) {
        char *now = tokenizer_text(&run->recipe);
        run->own_tokenizer = strcmp(now, run->saved_tokenizer) == 0;
        free(now);
    }
    return result;
}

int run_write_origin(const struct run *run, struct error *err)
{
    if (!run->forked || run->resuming) {
        return 0;
    }
    char *real = realpath(run->resume_path, NULL);
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "checkpoint", real ? real : run->resume_path);
    cJSON_AddNumberToObject(root, "step", (double)run->begin_step);
    char *text = json_print_pretty(root);
    char *path = path_join(run->directory.path, "forked.json");
    int result = file_replace(path, text, strlen(text), err);
    cJSON_Delete(root);
    free(path);
    free(text);
    free(real);
    return result;
}
