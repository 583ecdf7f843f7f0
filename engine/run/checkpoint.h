/*
 * Checkpoints: a directory that is there whole or not at all, and is checked before it is used.
 *
 * Layout of RUN/checkpoints/step-000100/
 *   model.safetensors   weights under their Hugging Face names: any tool can load them
 *   state.safetensors   "optimizer/..." and "method/..." tensors
 *   config.json, tokenizer.model and the like: with them the directory is a Hugging Face model
 *   adapter_model.safetensors, adapter_config.json   of a method of adapters (lora), in peft's
 *                       format; the model is then the weights, which are the base's, and these
 *   state.json          everything that is not a tensor (state.h)
 *   manifest.json       {"format": "windrow-checkpoint", "version": 1, "step": 100, "files":
 *                       [{"name", "bytes", "digest"}, ...], "self": DIGEST}, where DIGEST is that
 * of all bytes of the manifest before `"self"` While it is written its name is .tmp-..., while it
 * is removed .del-...; neither is ever read.
 *
 * Writing: make .tmp-, write and sync every file, the manifest last, sync the directory, rename,
 * sync the parent. Only then is the save announced. A sync that failed is never tried again: the
 * system may have dropped the pages and would report success the second time.
 */
#ifndef WINDROW_ENGINE_RUN_CHECKPOINT_H
#define WINDROW_ENGINE_RUN_CHECKPOINT_H

#include <cjson/cJSON.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/error.h"
#include "engine/model/safetensors.h"

#define CHECKPOINT_WEIGHTS "model.safetensors"
#define CHECKPOINT_STATE   "state.safetensors"
#define CHECKPOINT_ADAPTER "adapter_model.safetensors"

/* ---- writing -------------------------------------------------------------------------------- */

/* Tensors that become one safetensors file. `read` puts elements [first, first + count) of entry
 * `index` into `out`, in the entry's dtype; it is asked in order, at most 1 MiB at a time. */
struct checkpoint_tensors {
    const struct safetensors_entry *entry;
    size_t count; /* 0: the file is left out */
    int (*read)(void *context, size_t index, int64_t first, int64_t count, void *out,
                struct error *err);
    void *context;
};

/* A small file given as bytes. */
struct checkpoint_blob {
    const char *name;
    const void *bytes;
    size_t size;
};

struct checkpoint_save {
    const char *run; /* directory of the run */
    int64_t step;
    struct checkpoint_tensors weights;
    struct checkpoint_tensors state;
    struct checkpoint_tensors adapter;
    const struct checkpoint_blob *blob;
    size_t blob_count;
    const int64_t *pinned; /* steps that are not removed to make room */
    size_t pinned_count;
};

/* Room left free beside a checkpoint, so that the events of the run can still be written. */
enum { CHECKPOINT_SPARE_BYTES = 1 << 20 };

/* Bytes that the checkpoint will take on disk, manifest included (estimated within 1 KiB). */
int64_t checkpoint_size(const struct checkpoint_save *save);

/* Writes it. On return it is durable, `path` (xmalloc'd) and `bytes` are set. If the disk
 * has too little room, older checkpoints are removed first, the oldest one first, as long as it
 * helps; the newest whole one (its digests are read for this), what is newer and the pinned ones
 * stay. On failure nothing else that was there before has changed, and what was written is removed.
 */
int checkpoint_save(const struct checkpoint_save *save, char **path, int64_t *bytes,
                    struct error *err);

/* Points RUN/<name> ("latest", "best") at a checkpoint: for people, the program never reads it. */
int checkpoint_link(const char *run, const char *name, int64_t step, struct error *err);

/* Removes checkpoints but the newest `keep` whole ones, the pinned steps, and what another process
 * has pinned. What is not whole does
 * not count. The newest whole one always stays. */
int checkpoint_prune(const char *run, int64_t keep, const int64_t *pinned, size_t pinned_count,
                     struct error *err);

/* Keeps the checkpoint from being removed by its own run's saves, until it is unpinned or this
 * process ends. -1: it is gone, or going. */
int checkpoint_pin(const char *path);
void checkpoint_unpin(int pin); /* -1: nothing */

/* The right to remove it, to be closed afterwards (if not below 0), or CHECKPOINT_PINNED. */
enum { CHECKPOINT_PINNED = -2 };
int checkpoint_claim(const char *path);

/* Removes what an interrupted save or removal left. Call it holding the run's lock. */
int checkpoint_clean(const char *run, struct error *err);

/* ---- reading -------------------------------------------------------------------------------- */

struct checkpoint_name {
    int64_t step;
    char *path;
};
struct checkpoint_list {
    struct checkpoint_name *item; /* newest first */
    size_t count;
};
/* All directories named step-N, whole or not. No folder of checkpoints is an empty list; one that
 * cannot be listed is an error. */
int checkpoint_list_read(const char *run, struct checkpoint_list *out, struct error *err);
void checkpoint_list_free(struct checkpoint_list *list);

/* Whether it is whole: manifest, names, sizes, and, if `deep`, the digests of all files. */
int checkpoint_verify(const char *path, bool deep, struct error *err);

/* An opened one. Tensors are numbered through both files. */
struct checkpoint {
    char *path;
    int64_t step;
    cJSON *state; /* state.json */
    struct safetensors *file[2];
};
/* Verifies (deep) and opens. */
int checkpoint_open(const char *path, struct checkpoint *out, struct error *err);
void checkpoint_close(struct checkpoint *checkpoint);

/* The tensor of this name and the file it is in, or NULL. */
const struct safetensors_tensor *checkpoint_find(const struct checkpoint *checkpoint,
                                                 const char *name, const struct safetensors **file);

#endif
