/*
 * The configuration of a model: config.json of Hugging Face, read strictly.
 *
 * What would change the arithmetic and is not supported (biases, sliding windows, other
 * activations, quantised weights, unknown rotary scalings) is refused, never ignored. Keys of
 * transformers 4 (rope_theta, rope_scaling, torch_dtype) and 5 (rope_parameters, dtype) are read;
 * those of 4 are written, which both read.
 */
#ifndef WINDROW_ENGINE_MODEL_CONFIG_H
#define WINDROW_ENGINE_MODEL_CONFIG_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/base/error.h"
#include "kernels/dtype.h"

enum rope_scaling_kind { ROPE_SCALING_NONE, ROPE_SCALING_LINEAR, ROPE_SCALING_LLAMA3 };

/* Stretching of the rotary positions. LINEAR uses `factor`, LLAMA3 all of it. */
struct rope_scaling {
    enum rope_scaling_kind kind;
    double factor;
    double low_frequency_factor;
    double high_frequency_factor;
    int64_t original_max_positions;
};

enum { CONFIG_EOS_MAX = 8 };

struct model_config {
    char family[16];     /* the code that runs it: "llama" */
    char model_type[16]; /* as the file says: "llama" or "mistral" */
    int64_t hidden_size;
    int64_t intermediate_size;
    int64_t layers;
    int64_t heads;
    int64_t kv_heads;  /* divides heads */
    int64_t head_size; /* even; heads * head_size need not be hidden_size */
    int64_t vocabulary;
    int64_t max_positions;
    double rms_norm_eps;
    double rope_theta;
    struct rope_scaling rope_scaling;
    bool tied;   /* the head is the embedding */
    int32_t bos; /* -1: none, as for eos and pad */
    int32_t eos; /* the first of eos_list */
    int32_t pad;
    int32_t eos_list[CONFIG_EOS_MAX]; /* more than 8 are refused */
    int eos_count;
    double initializer_range; /* standard deviation of random weights */
    enum dtype dtype;         /* of the weights as they are stored: F32, BF16 or F16 */
    bool auto_map;            /* the file names code of its own; it is not run: say so */
};

/* Reads a parsed config.json; `path` is for messages. */
int config_parse(const char *path, const cJSON *json, struct model_config *config,
                 struct error *err);

/* Reads a file. */
int config_read(const char *path, struct model_config *config, struct error *err);

/* Reads the ids of generation_config.json, which go before those of config.json, into `config`. */
int config_read_generation(const char *path, struct model_config *config, struct error *err);

/* Ranges, products and relations: for configurations put together by hand. */
int config_check(const char *path, const struct model_config *config, struct error *err);

/* config.json as transformers 4 writes it, with weights of `dtype`. The caller deletes it. */
cJSON *config_to_json(const struct model_config *config, enum dtype dtype);

/* Elements of all parameters. */
int64_t model_config_parameters(const struct model_config *config);

#endif
