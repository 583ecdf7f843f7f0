/*
 * The weights of a model directory: model.safetensors, or the shards that
 * model.safetensors.index.json names. Shard names are plain names of files in the directory; links
 * are followed (the Hugging Face cache is made of them) but must end at a regular file.
 *
 * rotary_emb.inv_freq, which old files carry, is not shown. What is missing or too much is for the
 * model to judge.
 */
#ifndef WINDROW_ENGINE_MODEL_WEIGHTS_H
#define WINDROW_ENGINE_MODEL_WEIGHTS_H

#include "engine/model/safetensors.h"

struct weights_source;
struct adapter; /* engine/model/adapter.h */

/* A tensor and the file it lies in; valid until weights_close. */
struct weights_tensor {
    const struct safetensors *file;
    const struct safetensors_tensor *tensor;
    const struct adapter *adapter; /* laid over it, or NULL */
};

struct weights_source *weights_open(const char *directory, struct error *err);
void weights_close(struct weights_source *source);

/* From now on every read gives the weights with the adapter merged into them: in fp32, rounded once
 * to what is asked for. It must outlive the source. */
void weights_lay_adapter(struct weights_source *source, const struct adapter *adapter);

/* All tensors, in the order of the files. */
size_t weights_count(const struct weights_source *source);
struct weights_tensor weights_get(const struct weights_source *source, size_t index);
/* The number of files they lie in. */
size_t weights_file_count(const struct weights_source *source);

/* False if there is none of this name. */
bool weights_find(const struct weights_source *source, const char *name,
                  struct weights_tensor *out);

/* Elements [first, first + count) as F32 or BF16 (safetensors_read_range). */
int weights_read_range(const struct weights_tensor *tensor, int64_t first, int64_t count, void *out,
                       enum dtype want, struct error *err);
/* Finds a tensor that must be there with this shape; the error names both shapes. */
int weights_require(const struct weights_source *source, const char *name, int rank,
                    const int64_t *dim, struct weights_tensor *out, struct error *err);
/* All values of a tensor. */
int weights_read(const struct weights_source *source, const char *name, void *out, enum dtype want,
                 struct error *err);

#endif
