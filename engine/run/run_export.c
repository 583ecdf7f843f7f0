/* A model, or an adapter, out of a checkpoint. */
#include <stdlib.h>
#include <string.h>

#include "engine/base/file.h"
#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"
#include "engine/model/adapter.h"
#include "engine/model/export.h"
#include "engine/run.h"
#include "engine/run/checkpoint.h"

/* The tensors of a file, with an adapter merged into them if there is one. */
struct exported {
    const struct safetensors *file;
    const struct adapter *adapter;
    float *wide;
};
enum { WIDE_VALUES = 1 << 19 };

static int read_saved(void *context, size_t index, int64_t first, int64_t count, void *out,
                      struct error *err)
{
    const struct exported *exported = context;
    const struct safetensors_tensor *tensor = &exported->file->tensor[index];
    if (safetensors_read_range(exported->file, tensor, first, count, out, tensor->dtype, err) !=
        0) {
        return -1;
    }
    if (exported->adapter && count <= WIDE_VALUES) {
        adapter_merge_into(exported->adapter, tensor->name, first, count,
                           &(struct adapter_buffer){ out, tensor->dtype, exported->wide });
    }
    return 0;
}

/* All tensors of the file go to `args`. */
static int export_file(struct exported *exported, struct model_export *args, struct error *err)
{
    const struct safetensors *file = exported->file;
    struct safetensors_entry *entry = xcalloc(file->count + 1, sizeof *entry);
    for (size_t i = 0; i < file->count; i++) {
        const struct safetensors_tensor *tensor = &file->tensor[i];
        entry[i] = (struct safetensors_entry){ .name = tensor->name,
                                               .dtype = tensor->dtype,
                                               .rank = tensor->rank };
        memcpy(entry[i].dim, tensor->dim, sizeof entry[i].dim);
    }
    exported->wide = xmalloc(WIDE_VALUES * sizeof *exported->wide);
    args->entry = entry;
    args->entry_count = file->count;
    args->read = read_saved;
    args->context = exported;
    int result = model_export(args, err);
    free(exported->wide);
    free(entry);
    return result;
}

static int export_adapter(const struct checkpoint *checkpoint, const struct model_config *config,
                          const char *target, struct error *err)
{
    char *weights = path_join(checkpoint->path, ADAPTER_WEIGHTS);
    char *description = path_join(checkpoint->path, ADAPTER_CONFIG);
    int result = -1;
    if (!adapter_is_directory(checkpoint->path)) {
        fail(err, ERROR_USAGE, "%s holds no adapter: it was not trained with method.name=lora",
             text_show(checkpoint->path).text);
        hint(err, "without --adapter the whole model is exported");
    } else {
        struct safetensors *file = safetensors_open(weights, err);
        cJSON *json = file ? json_read(description, err) : NULL;
        if (json) {
            struct exported exported = { .file = file };
            struct model_export args = { .target = target, .config = config, .adapter = json };
            result = export_file(&exported, &args, err);
        }
        cJSON_Delete(json);
        if (file) {
            safetensors_close(file);
        }
    }
    free(weights);
    free(description);
    return result;
}

static int export_model(const struct checkpoint *checkpoint, const struct model_config *config,
                        const char *target, struct error *err)
{
    if (!checkpoint->file[0]) {
        return fail(err, ERROR_DATA, "%s holds no weights", text_show(checkpoint->path).text);
    }
    bool adapted = adapter_is_directory(checkpoint->path);
    struct adapter *adapter = adapted ? adapter_open(checkpoint->path, config, err) : NULL;
    if (adapted && !adapter) {
        return -1;
    }
    struct exported exported = { .file = checkpoint->file[0], .adapter = adapter };
    struct model_export args = { .target = target,
                                 .config = config,
                                 .source_directory = checkpoint->path };
    int result = export_file(&exported, &args, err);
    adapter_close(adapter);
    return result;
}

int run_export(const char *run, int64_t step, bool adapter, const char *target, struct error *err)
{
    char *path = step > 0 ? xasprintf("%s/checkpoints/step-%06lld", run, (long long)step)
                          : run_latest_checkpoint(run, &step, NULL, NULL, err);
    struct checkpoint checkpoint;
    if (!path) {
        return -1;
    }
    int result = -1;
    if (!file_is_directory(path)) {
        fail(err, ERROR_USAGE, "%s has no checkpoint of step %lld", text_show(run).text,
             (long long)step);
        hint(err, "windrow show lists its checkpoints; without a step the newest is exported");
    } else if (checkpoint_open(path, &checkpoint, err) == 0) {
        struct model_config config;
        char *name = path_join(path, "config.json");
        result = config_read(name, &config, err);
        free(name);
        if (result == 0) {
            result = adapter ? export_adapter(&checkpoint, &config, target, err)
                             : export_model(&checkpoint, &config, target, err);
        }
        checkpoint_close(&checkpoint);
    }
    free(path);
    return result;
}
