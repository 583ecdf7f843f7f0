/*
 * Adapter directories in peft's format: adapter_config.json and adapter_model.safetensors.
 *
 * A tensor of the file is named "base_model.model." + the module in the base model +
 * ".lora_A.weight" (rank, in) or ".lora_B.weight" (out, rank). What an adapter adds to a weight is
 * scale * B A, where scale = lora_alpha / rank, or lora_alpha / sqrt(rank) with use_rslora;
 * rank_pattern and alpha_pattern name the modules that differ. Ranks are read from the tensors.
 *
 * Read: LoRA on matrices of blocks, without bias, DoRA and other additions, which are refused by
 * name. Keys that are not known do not matter.
 */
#ifndef WINDROW_ENGINE_MODEL_ADAPTER_H
#define WINDROW_ENGINE_MODEL_ADAPTER_H

#include <cjson/cJSON.h>

#include "engine/model/config.h"
#include "engine/model/safetensors.h"

#define ADAPTER_CONFIG  "adapter_config.json"
#define ADAPTER_WEIGHTS "adapter_model.safetensors"

/* One adapted matrix (rows, columns) of the model. */
struct adapter_entry {
    const char *parameter; /* "model.layers.0.self_attn.q_proj.weight" */
    int64_t rank;
    int64_t rows;
    int64_t columns;
    double scale;
    float *a; /* (rank, columns) */
    float *b; /* (rows, rank) */
};

struct adapter {
    char *directory;
    struct adapter_entry *entry; /* in the order of the model; they own their names and values */
    size_t count;
};

/* Whether the directory holds an adapter. */
bool adapter_is_directory(const char *directory);

/* Reads and checks it against the model; NULL on failure. */
struct adapter *adapter_open(const char *directory, const struct model_config *config,
                             struct error *err);
void adapter_close(struct adapter *adapter); /* NULL is fine */

const struct adapter_entry *adapter_find(const struct adapter *adapter, const char *parameter);

/* values[i] += scale (B A) of elements [first, first + count) of the parameter, summed in double
 * and rounded once to fp32. Nothing if it is not adapted. */
void adapter_merge(const struct adapter *adapter, const char *parameter, int64_t first,
                   int64_t count, float *values);

/* The same on `count` stored values of fp32 or bf16, rounded once to their dtype; `wide` has room
 * for as many. */
struct adapter_buffer {
    void *values;
    enum dtype dtype;
    float *wide;
};
void adapter_merge_into(const struct adapter *adapter, const char *parameter, int64_t first,
                        int64_t count, const struct adapter_buffer *buffer);

/* adapter_config.json for such entries (values are not read). `base`: name or path of the model. */
cJSON *adapter_config(const struct adapter_entry *entry, size_t count, const char *base);

/* The names of an entry's two tensors in the file, xmalloc'd. */
char *adapter_tensor_name(const char *parameter, char half);

/* The settings of a recipe that make the same adapters: rank, alpha, targets and patterns,
 * xmalloc'd texts. */
struct adapter_settings {
    char *rank;
    char *alpha;
    char *targets;
    char *rank_pattern;
    char *alpha_pattern;
};
void adapter_settings(const struct adapter *adapter, const struct model_config *config,
                      struct adapter_settings *out);
void adapter_settings_free(struct adapter_settings *settings);

#endif
