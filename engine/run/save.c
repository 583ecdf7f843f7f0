/* Checkpoints of a run, and the model it leaves behind. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"
#include "engine/model/adapter.h"
#include "engine/model/export.h"
#include "engine/run/parts.h"

/* Saves above SLOW_BYTES are announced as they begin. */
enum { COMPANION_LIMIT = 64 << 20, SLOW_BYTES = 256 << 20 };

/* What makes the directory of a checkpoint a model that other tools load; copied byte for byte from
 * where the tokenizer came from. */
static const char *const companions[] = { "tokenizer_config.json", "special_tokens_map.json",
                                          "added_tokens.json",     "tokenizer.json",
                                          "chat_template.jinja",   "generation_config.json" };
enum { COMPANIONS = sizeof companions / sizeof companions[0], BLOBS_MAX = COMPANIONS + 5 };

/* Where a companion lies, xmalloc'd; NULL if there is none. */
static char *companion_path(const struct run *run, size_t i)
{
    bool of_model = strcmp(companions[i], "generation_config.json") == 0;
    const char *directory =
        of_model ? run->material.model_directory : run->material.tokenizer_directory;
    char *path = directory[0] ? path_join(directory, companions[i]) : NULL;
    struct stat facts;
    if (path && stat(path, &facts) == 0 && S_ISREG(facts.st_mode) &&
        facts.st_size <= COMPANION_LIMIT) {
        return path;
    }
    free(path);
    return NULL;
}

/* Everything of an export but its tensors. */
static struct model_export describe_model(const struct run *run)
{
    const struct material *material = &run->material;
    const struct tokenizer_facts *facts = tokenizer_facts(material->tokenizer);
    return (struct model_export){
        .config = &material->config,
        .source_directory = material->model_directory,
        .tokenizer_directory = material->tokenizer_directory,
        .tokenizer_bytes = material->tokenizer_bytes,
        .tokenizer_size = material->tokenizer_size,
        .bos_piece = tokenizer_piece(material->tokenizer, facts->bos),
        .eos_piece = tokenizer_piece(material->tokenizer, facts->eos),
        .unk_piece = tokenizer_piece(material->tokenizer, facts->unk),
    };
}

/* ---- tensors -------------------------------------------------------------------------------- */

/* The trainer's list from `first` on, as entries of a file. */
struct tensor_range {
    struct trainer *trainer;
    size_t first;
    struct safetensors_entry *entry;
    size_t count;
};

static int read_range(void *context, size_t index, int64_t first, int64_t count, void *out,
                      struct error *err)
{
    const struct tensor_range *range = context;
    return trainer_state_read(range->trainer, (int64_t)(range->first + index), first, count, out,
                              err);
}

static void add_entry(struct tensor_range *range, const struct state_entry *state)
{
    struct safetensors_entry *entry = &range->entry[range->count++];
    *entry = (struct safetensors_entry){ .name = state->name,
                                         .dtype = state->dtype,
                                         .rank = state->rank };
    memcpy(entry->dim, state->dim, sizeof entry->dim);
}

/* Weights come first in the trainer's list. Free both `entry`. */
static void list_tensors(struct trainer *trainer, struct tensor_range *weights,
                         struct tensor_range *state)
{
    int64_t count = trainer_state_count(trainer);
    *weights = (struct tensor_range){ .trainer = trainer };
    *state = (struct tensor_range){ .trainer = trainer };
    weights->entry = xcalloc((size_t)count + 1, sizeof *weights->entry);
    state->entry = xcalloc((size_t)count + 1, sizeof *state->entry);
    for (int64_t i = 0; i < count; i++) {
        struct state_entry entry;
        trainer_state_entry(trainer, i, &entry);
        add_entry(entry.weight ? weights : state, &entry);
    }
    state->first = weights->count;
}

/* The adapters of the trainer, as tensors of a file in peft's names, as positions in the trainer's
 * list, and as their description. */
struct adapter_set {
    struct trainer *trainer;
    struct adapter_entry *adapter; /* without values */
    size_t adapter_count;
    struct safetensors_entry *entry; /* two an adapter, A first; their names are owned */
    int64_t *position;
    size_t count;
};

/* The state tensor "method/<parameter>/lora_A" or _B. */
static void add_half(struct adapter_set *set, const struct adapter_entry *adapter, char half)
{
    char *wanted = xasprintf("method/%s/lora_%c", adapter->parameter, half);
    int64_t count = trainer_state_count(set->trainer);
    for (int64_t i = 0; i < count; i++) {
        struct state_entry state;
        trainer_state_entry(set->trainer, i, &state);
        if (strcmp(state.name, wanted) == 0) {
            set->position[set->count] = i;
            set->entry[set->count++] = (struct safetensors_entry){
                .name = adapter_tensor_name(adapter->parameter, half),
                .dtype = state.dtype,
                .rank = state.rank,
                .dim = { state.dim[0], state.dim[1] },
            };
            break;
        }
    }
    free(wanted);
}

static void list_adapters(struct trainer *trainer, struct adapter_set *set)
{
    int64_t count = trainer_adapter_count(trainer);
    *set = (struct adapter_set){ .trainer = trainer, .adapter_count = (size_t)count };
    set->adapter = xcalloc((size_t)count + 1, sizeof *set->adapter);
    set->entry = xcalloc(2 * (size_t)count + 1, sizeof *set->entry);
    set->position = xcalloc(2 * (size_t)count + 1, sizeof *set->position);
    for (int64_t i = 0; i < count; i++) {
        trainer_adapter(trainer, i, &set->adapter[i]);
        add_half(set, &set->adapter[i], 'A');
        add_half(set, &set->adapter[i], 'B');
    }
}

static void free_adapters(struct adapter_set *set)
{
    for (size_t i = 0; i < set->count; i++) {
        free((char *)(uintptr_t)set->entry[i].name);
    }
    free(set->adapter);
    free(set->entry);
    free(set->position);
}

static int read_adapter(void *context, size_t index, int64_t first, int64_t count, void *out,
                        struct error *err)
{
    const struct adapter_set *set = context;
    return trainer_state_read(set->trainer, set->position[index], first, count, out, err);
}

/* What the adapters are laid over, for adapter_config.json. */
static const char *base_name(const struct run *run)
{
    const struct recipe *recipe = &run->recipe;
    return recipe->model_path[0] ? recipe->model_path : recipe->model_preset;
}

/* ---- small files ---------------------------------------------------------------------------- */

struct blobs {
    struct checkpoint_blob blob[BLOBS_MAX];
    char *owned[BLOBS_MAX];
    size_t count;
};

static void add_blob(struct blobs *blobs, const char *name, char *text, size_t size)
{
    blobs->blob[blobs->count] = (struct checkpoint_blob){ name, text, size };
    blobs->owned[blobs->count++] = text;
}

static void add_companions(const struct run *run, struct blobs *blobs)
{
    for (size_t i = 0; i < COMPANIONS; i++) {
        char *path = companion_path(run, i);
        struct error ignored = { 0 };
        size_t size = 0;
        char *text = path ? file_read_all(path, COMPANION_LIMIT, &size, &ignored) : NULL;
        if (text) {
            add_blob(blobs, companions[i], text, size);
        }
        free(path);
    }
    if (!run->material.tokenizer_directory[0]) {
        struct model_export model = describe_model(run);
        cJSON *json = model_export_tokenizer_config(&model);
        char *text = json_print_pretty(json);
        char *line = xasprintf("%s\n", text);
        cJSON_Delete(json);
        free(text);
        add_blob(blobs, "tokenizer_config.json", line, strlen(line));
    }
}

static void gather_blobs(const struct run *run, const struct adapter_set *adapters,
                         struct blobs *blobs)
{
    char *state = run_state_text(run);
    cJSON *json = config_to_json(&run->material.config, (enum dtype)run->recipe.precision_weights);
    char *config = json_print_pretty(json);
    cJSON_Delete(json);
    *blobs = (struct blobs){ 0 };
    add_blob(blobs, "state.json", state, strlen(state));
    add_blob(blobs, "config.json", config, strlen(config));
    add_companions(run, blobs);
    if (adapters->adapter_count > 0) {
        json = adapter_config(adapters->adapter, adapters->adapter_count, base_name(run));
        char *adapter = json_print_pretty(json);
        cJSON_Delete(json);
        add_blob(blobs, ADAPTER_CONFIG, adapter, strlen(adapter));
    }
    blobs->blob[blobs->count++] =
        (struct checkpoint_blob){ "tokenizer.model", run->material.tokenizer_bytes,
                                  run->material.tokenizer_size };
}

static void free_blobs(struct blobs *blobs)
{
    for (size_t i = 0; i < BLOBS_MAX; i++) {
        free(blobs->owned[i]);
    }
}

/* ---- saving --------------------------------------------------------------------------------- */

int64_t run_need_bytes(const struct run *run)
{
    enum { STATE_AND_CONFIG = 3600 };
    int64_t bytes =
        run->plan.checkpoint_bytes + (int64_t)run->material.tokenizer_size + STATE_AND_CONFIG;
    for (size_t i = 0; i < COMPANIONS; i++) {
        char *path = companion_path(run, i);
        struct stat facts;
        if (path && stat(path, &facts) == 0) {
            bytes += facts.st_size;
        }
        free(path);
    }
    return bytes;
}

static int write_checkpoint(struct run *run, int64_t best_step, char **path, int64_t *bytes,
                            struct error *err)
{
    int64_t pinned[] = { best_step, run->resume_step };
    struct tensor_range weights;
    struct tensor_range state;
    struct blobs blobs;
    struct adapter_set adapters;
    list_adapters(run->trainer, &adapters);
    gather_blobs(run, &adapters, &blobs);
    list_tensors(run->trainer, &weights, &state);
    struct checkpoint_save save = {
        .run = run->directory.path,
        .step = run->state.step,
        .weights = { weights.entry, weights.count, read_range, &weights },
        .state = { state.entry, state.count, read_range, &state },
        .adapter = { adapters.entry, adapters.count, read_adapter, &adapters },
        .blob = blobs.blob,
        .blob_count = blobs.count,
        .pinned = pinned,
        .pinned_count = 2,
    };
    int result = checkpoint_save(&save, path, bytes, err);
    free(weights.entry);
    free(state.entry);
    free_adapters(&adapters);
    free_blobs(&blobs);
    return result;
}

/* What must be true before anything is written. */
static int check_ready(struct run *run, struct error *err)
{
    const char *bad = NULL;
    bool finite = trainer_state_finite(run->trainer, &bad);
    if (run->be->failed) {
        return fail(err, ERROR_RUNTIME, "not saved, %s cannot be read: %s", text_show(bad).text,
                    run->be->error);
    }
    if (!finite) {
        return fail(err, ERROR_DIVERGED,
                    "checkpoint of step %lld: not saved, %s holds values that are not finite",
                    (long long)run->state.step, text_show(bad).text);
    }
    if (run->backlog.size > 0) {
        return fail(err, ERROR_RUNTIME,
                    "checkpoint of step %lld: not saved, events.jsonl cannot be written",
                    (long long)run->state.step);
    }
    return run_directory_sync(&run->directory, err);
}

static void report_saved(struct run *run, const char *path, int64_t bytes, double seconds,
                         bool best)
{
    struct event event;
    event_init(&event, EVENT_CHECKPOINT);
    event.step = run->state.step;
    event.checkpoint.path = xstrdup(path);
    event.checkpoint.bytes = bytes;
    event.checkpoint.seconds = seconds;
    event.checkpoint.best = best;
    run_emit(run, &event);
}

/* After the checkpoint is durable: what fails here is only told. */
static void tidy(struct run *run, bool best)
{
    struct error err = { 0 };
    const char *path = run->directory.path;
    int64_t pinned[] = { run->state.best_step, run->resume_step };
    int failed = checkpoint_link(path, "latest", run->state.step, &err);
    if (best) {
        failed |= checkpoint_link(path, "best", run->state.step, &err);
    }
    failed |= checkpoint_prune(path, run->recipe.train_keep, pinned, 2, &err);
    if (failed != 0) {
        run_warn(run, &err);
    }
}

static int save(struct run *run, struct error *err)
{
    double began = clock_monotonic();
    struct run_state before = run->state;
    char *path = NULL;
    int64_t bytes = 0;
    bool best = run->evaluated_step == run->state.step && isfinite(run->evaluated_loss) &&
                !(run->evaluated_loss >= run->state.best_loss);
    if (best) {
        run->state.best_loss = run->evaluated_loss;
        run->state.best_step = run->state.step;
    }
    bool slow = run_need_bytes(run) > SLOW_BYTES;
    if (slow) {
        run_report_state(run, "saving");
    }
    trainer_counters(run->trainer, &run->state.counters);
    run->state.events_bytes = run->directory.bytes;
    int result = check_ready(run, err);
    if (result == 0) {
        result = write_checkpoint(run, before.best_step, &path, &bytes, err);
    }
    if (slow) {
        run_report_state(run, run->paused ? "paused" : "running");
    }
    run->save_failed = result != 0;
    if (result != 0) {
        run->state = before;
        run_warn(run, err);
        return -1;
    }
    report_saved(run, path, bytes, clock_monotonic() - began, best);
    tidy(run, best);
    checkpoint_unpin(run->pin);
    run->pin = -1;
    free(path);
    return 0;
}

int run_save(struct run *run, struct error *err)
{
    run->showing = true; /* others may take longer to look through what they have */
    run_order_show(run);
    int result = save(run, err);
    trainer_show_end(run->trainer);
    run->showing = false;
    return result;
}

/* ---- the model at the end ------------------------------------------------------------------- */

/* The trainer's adapters with their values, to be merged. NULL: there are none, or (with an error)
 * no memory. */
static struct adapter *take_adapters(struct trainer *trainer, struct error *err)
{
    struct adapter_set set;
    if (trainer_adapter_count(trainer) == 0) {
        return NULL;
    }
    list_adapters(trainer, &set);
    struct adapter *adapter = xcalloc(1, sizeof *adapter);
    adapter->entry = xcalloc(set.adapter_count, sizeof *adapter->entry);
    int result = 0;
    for (size_t i = 0; i < set.adapter_count && result == 0; i++) {
        struct adapter_entry *entry = &adapter->entry[adapter->count++];
        *entry = set.adapter[i];
        entry->parameter = xstrdup(entry->parameter);
        int64_t count[] = { entry->rank * entry->columns, entry->rows * entry->rank };
        entry->a = malloc((size_t)count[0] * sizeof *entry->a);
        entry->b = malloc((size_t)count[1] * sizeof *entry->b);
        if (!entry->a || !entry->b) {
            result = fail(err, ERROR_RUNTIME, "out of memory for a copy of the adapters");
        } else if (read_adapter(&set, 2 * i, 0, count[0], entry->a, err) != 0 ||
                   read_adapter(&set, 2 * i + 1, 0, count[1], entry->b, err) != 0) {
            result = -1;
        }
    }
    free_adapters(&set);
    if (result != 0) {
        adapter_close(adapter);
        return NULL;
    }
    return adapter;
}

/* Weights of the trainer with the adapters merged into them. */
struct merged_range {
    struct tensor_range *weights;
    const struct adapter *adapter;
    float *wide; /* 1 MiB of values at a time, as fp32 */
};
enum { MERGED_VALUES = 1 << 19 };

static int read_merged(void *context, size_t index, int64_t first, int64_t count, void *out,
                       struct error *err)
{
    const struct merged_range *merged = context;
    const struct safetensors_entry *entry = &merged->weights->entry[index];
    if (read_range(merged->weights, index, first, count, out, err) != 0) {
        return -1;
    }
    if (count <= MERGED_VALUES) {
        adapter_merge_into(merged->adapter, entry->name, first, count,
                           &(struct adapter_buffer){ out, entry->dtype, merged->wide });
    }
    return 0;
}

int run_write_model(struct run *run, struct error *err)
{
    struct adapter *adapter = take_adapters(run->trainer, err);
    if (!adapter && trainer_adapter_count(run->trainer) > 0) {
        return -1;
    }
    struct tensor_range weights;
    struct tensor_range state;
    char *target = path_join(run->directory.path, "model");
    list_tensors(run->trainer, &weights, &state);
    struct model_export args = describe_model(run);
    args.target = target;
    args.entry = weights.entry;
    args.entry_count = weights.count;
    args.read = read_range;
    args.context = &weights;
    struct merged_range merged = { .weights = &weights, .adapter = adapter };
    if (adapter) {
        merged.wide = xmalloc(MERGED_VALUES * sizeof *merged.wide);
        args.read = read_merged;
        args.context = &merged;
    }
    /* One that an earlier end of this run left is replaced. */
    int result = file_exists(target) ? file_remove_tree(target, err) : 0;
    if (result == 0) {
        result = model_export(&args, err);
    }
    free(merged.wide);
    adapter_close(adapter);
    free(weights.entry);
    free(state.entry);
    free(target);
    return result;
}
