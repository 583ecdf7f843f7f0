/* The state of a checkpoint, handed to the trainer. */
#include "engine/base/text.h"
#include "engine/run/parts.h"

/* Tensors of an opened checkpoint, as the trainer asks for them. */
struct saved {
    const struct checkpoint *checkpoint;
    const struct safetensors *file;
    const struct safetensors_tensor *tensor; /* found last */
};

static int64_t find_saved(void *context, const char *name, struct state_entry *entry)
{
    struct saved *saved = context;
    for (int i = 0; i < 2; i++) {
        const struct safetensors *file = saved->checkpoint->file[i];
        const struct safetensors_tensor *tensor = file ? safetensors_find(file, name) : NULL;
        if (tensor && tensor->readable && tensor->rank <= TENSOR_RANK_MAX) {
            *entry = (struct state_entry){
                .name = tensor->name, .dtype = tensor->dtype, .rank = tensor->rank, .weight = i == 0
            };
            for (int d = 0; d < tensor->rank; d++) {
                entry->dim[d] = tensor->dim[d];
            }
            return ((int64_t)(tensor - file->tensor) << 1) | i;
        }
    }
    return -1;
}

static int read_saved(void *context, int64_t index, int64_t first, int64_t count, void *out,
                      struct error *err)
{
    const struct saved *saved = context;
    const struct safetensors *file = saved->checkpoint->file[index & 1];
    const struct safetensors_tensor *tensor = &file->tensor[index >> 1];
    return safetensors_read_range(file, tensor, first, count, out, tensor->dtype, err);
}

int run_restore(struct run *run, const char *path, struct error *err)
{
    struct checkpoint checkpoint;
    struct run_state state;
    if (checkpoint_open(path, &checkpoint, err) != 0) {
        return -1;
    }
    struct saved saved = { .checkpoint = &checkpoint };
    struct state_source source = { find_saved, read_saved, &saved };
    int result = run_state_read(checkpoint.state, path, &state, err);
    if (result == 0) {
        result = trainer_restore(run->trainer, &source, &state.counters, err);
    }
    checkpoint_close(&checkpoint);
    return result == 0 ? 0 : fail_within(err, "%s", text_show(path).text);
}
