/* config.json to numbers that fit together, and back. Keys as in configuration_llama.py of
 * transformers. */
#include "engine/model/config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/json.h"
#include "engine/base/text.h"

/* The most that is believed. Beyond any model there is, and small enough that products of three
 * stay within 64 bits after config_check. */
enum {
    HIDDEN_MAX = 1 << 20,
    INTERMEDIATE_MAX = 1 << 22,
    LAYERS_MAX = 4096,
    HEADS_MAX = 4096,
    HEAD_SIZE_MAX = 1024,
    VOCABULARY_MAX = 1 << 24,
    POSITIONS_MAX = 1 << 28,
};
static const int64_t parameters_max = (int64_t)1 << 45;

static const struct {
    const char *model_type;
    const char *architecture;
    const char *family;
} model_types[] = {
    { "llama", "LlamaForCausalLM", "llama" },
    { "mistral", "MistralForCausalLM", "llama" },
};
enum { MODEL_TYPES = sizeof model_types / sizeof model_types[0] };

/* A config.json being read. */
struct reading {
    const char *path;
    const cJSON *json;
    struct model_config *config;
    struct error *err;
};

static bool is_set(const cJSON *value)
{
    return value && !cJSON_IsNull(value);
}

static int read_model_type(struct reading *r)
{
    const char *type = NULL;
    if (json_string(r->json, "model_type", NULL, &type, r->path, r->err) != 0) {
        return -1;
    }
    for (size_t i = 0; type && i < MODEL_TYPES; i++) {
        if (strcmp(type, model_types[i].model_type) == 0) {
            strncpy(r->config->model_type, type, sizeof r->config->model_type - 1);
            strncpy(r->config->family, model_types[i].family, sizeof r->config->family - 1);
            return 0;
        }
    }
    fail(r->err, ERROR_DATA, "%s: \"model_type\" must be llama or mistral, found %s",
         text_show(r->path).text, type ? text_show(type).text : "nothing");
    return hint(r->err, "other model families are not supported");
}

static int read_whole(struct reading *r, const char *key, int64_t maximum, int64_t *out)
{
    return json_integer(r->json, key, (struct json_range){ 1, maximum, 0, true }, out, r->path,
                        r->err);
}

static int read_sizes(struct reading *r)
{
    struct model_config *c = r->config;
    if (read_whole(r, "hidden_size", HIDDEN_MAX, &c->hidden_size) != 0 ||
        read_whole(r, "intermediate_size", INTERMEDIATE_MAX, &c->intermediate_size) != 0 ||
        read_whole(r, "num_hidden_layers", LAYERS_MAX, &c->layers) != 0 ||
        read_whole(r, "num_attention_heads", HEADS_MAX, &c->heads) != 0 ||
        read_whole(r, "vocab_size", VOCABULARY_MAX, &c->vocabulary) != 0) {
        return -1;
    }
    struct json_range kv = { 1, HEADS_MAX, c->heads, false };
    struct json_range head = { 1, HEAD_SIZE_MAX, 0, false };
    struct json_range positions = { 1, POSITIONS_MAX, 2048, false };
    if (json_integer(r->json, "num_key_value_heads", kv, &c->kv_heads, r->path, r->err) != 0 ||
        json_integer(r->json, "head_dim", head, &c->head_size, r->path, r->err) != 0 ||
        json_integer(r->json, "max_position_embeddings", positions, &c->max_positions, r->path,
                     r->err) != 0) {
        return -1;
    }
    if (c->head_size == 0) {
        if (c->hidden_size % c->heads != 0) {
            return fail(r->err, ERROR_DATA,
                        "%s: \"hidden_size\" %lld is no multiple of \"num_attention_heads\" %lld, "
                        "and there is no \"head_dim\"",
                        text_show(r->path).text, (long long)c->hidden_size, (long long)c->heads);
        }
        c->head_size = c->hidden_size / c->heads;
    }
    return 0;
}

static int read_number(struct reading *r, const cJSON *object, const char *key, double fallback,
                       double *out)
{
    return json_number(object, key, fallback, out, r->path, r->err);
}

/* What is scaled by `object` (rope_scaling of transformers 4, rope_parameters of 5). */
static int read_scaling(struct reading *r, const cJSON *object)
{
    struct rope_scaling *s = &r->config->rope_scaling;
    const char *type = NULL;
    if (!cJSON_IsObject(object)) {
        return fail(r->err, ERROR_DATA, "%s: \"%s\" must be an object or null",
                    text_show(r->path).text, object->string);
    }
    /* "type" is the older spelling; "rope_type" wins where both stand. */
    if (json_string(object, "type", "default", &type, r->path, r->err) != 0 ||
        json_string(object, "rope_type", type, &type, r->path, r->err) != 0) {
        return -1;
    }
    struct json_range positions = { 1, POSITIONS_MAX, r->config->max_positions, false };
    if (strcmp(type, "default") == 0) {
        s->kind = ROPE_SCALING_NONE;
        return 0;
    }
    if (strcmp(type, "linear") == 0) {
        s->kind = ROPE_SCALING_LINEAR;
        return read_number(r, object, "factor", NAN, &s->factor);
    }
    if (strcmp(type, "llama3") == 0) {
        s->kind = ROPE_SCALING_LLAMA3;
        if (read_number(r, object, "factor", NAN, &s->factor) != 0 ||
            read_number(r, object, "low_freq_factor", NAN, &s->low_frequency_factor) != 0 ||
            read_number(r, object, "high_freq_factor", NAN, &s->high_frequency_factor) != 0) {
            return -1;
        }
        return json_integer(object, "original_max_position_embeddings", positions,
                            &s->original_max_positions, r->path, r->err);
    }
    return fail(r->err, ERROR_DATA,
                "%s: \"%s.rope_type\" must be default, linear or llama3, found %s",
                text_show(r->path).text, object->string, text_show(type).text);
}

static int read_rope(struct reading *r)
{
    const cJSON *old = json_get(r->json, "rope_scaling");
    const cJSON *new = json_get(r->json, "rope_parameters");
    double theta = 10000.0;
    if (read_number(r, r->json, "rope_theta", theta, &theta) != 0) {
        return -1;
    }
    if (is_set(new)) {
        if (read_number(r, new, "rope_theta", theta, &theta) != 0) {
            return -1;
        }
    }
    r->config->rope_theta = theta;
    if (is_set(new)) {
        return read_scaling(r, new);
    }
    return is_set(old) ? read_scaling(r, old) : 0;
}

/* One id: a whole number below the vocabulary, or -1 for none. */
static int read_id(struct reading *r, const char *key, const cJSON *value, int32_t *out)
{
    int64_t limit = r->config->vocabulary;
    double number = cJSON_IsNumber(value) ? value->valuedouble : (double)NAN;
    if (!(number >= -1.0 && number < (double)limit && number == trunc(number))) {
        char *found = json_print(value);
        fail(r->err, ERROR_DATA,
             "%s: \"%s\" must be an id in 0 .. %lld (vocab_size - 1), null or a list, found %s",
             text_show(r->path).text, key, (long long)limit - 1, text_show(found).text);
        free(found);
        return -1;
    }
    *out = (int32_t)number;
    return 0;
}

static int read_eos(struct reading *r)
{
    struct model_config *c = r->config;
    const cJSON *value = json_get(r->json, "eos_token_id");
    if (!value) {
        return 0;
    }
    c->eos = -1;
    c->eos_count = 0;
    int count = cJSON_IsArray(value) ? cJSON_GetArraySize(value) : 1;
    if (count > CONFIG_EOS_MAX) {
        return fail(r->err, ERROR_DATA, "%s: \"eos_token_id\" lists %d ids, at most %d are allowed",
                    text_show(r->path).text, count, CONFIG_EOS_MAX);
    }
    const cJSON *item = cJSON_IsArray(value) ? value->child : value;
    for (int i = 0; i < count && is_set(item); i++, item = item->next) {
        int32_t id = -1;
        if (read_id(r, "eos_token_id", item, &id) != 0) {
            return -1;
        }
        if (id >= 0) {
            c->eos_list[c->eos_count++] = id;
        }
    }
    c->eos = c->eos_count > 0 ? c->eos_list[0] : -1;
    return 0;
}

static int read_bos_and_pad(struct reading *r)
{
    const cJSON *bos = json_get(r->json, "bos_token_id");
    const cJSON *pad = json_get(r->json, "pad_token_id");
    if (bos && cJSON_IsNull(bos)) {
        r->config->bos = -1;
    } else if (bos && read_id(r, "bos_token_id", bos, &r->config->bos) != 0) {
        return -1;
    }
    return is_set(pad) ? read_id(r, "pad_token_id", pad, &r->config->pad) : 0;
}

/* Ids that the file leaves out are those of the first LLaMA: 1 and 2. */
static void set_default_ids(struct model_config *c)
{
    c->bos = c->vocabulary > 1 ? 1 : -1;
    c->eos = c->vocabulary > 2 ? 2 : -1;
    c->eos_list[0] = c->eos;
    c->eos_count = c->eos >= 0;
    c->pad = -1;
}

static int refuse_true(struct reading *r, const char *key)
{
    bool value = false;
    if (json_bool(r->json, key, false, &value, r->path, r->err) != 0) {
        return -1;
    }
    if (value) {
        return fail(r->err, ERROR_DATA, "%s: \"%s\" is true, only false is supported",
                    text_show(r->path).text, key);
    }
    return 0;
}

/* Whatever would change the arithmetic. */
static int refuse_unsupported(struct reading *r)
{
    const char *act = NULL;
    const cJSON *window = json_get(r->json, "sliding_window");
    if (json_string(r->json, "hidden_act", "silu", &act, r->path, r->err) != 0 ||
        refuse_true(r, "attention_bias") != 0 || refuse_true(r, "mlp_bias") != 0) {
        return -1;
    }
    if (strcmp(act, "silu") != 0) {
        return fail(r->err, ERROR_DATA, "%s: \"hidden_act\" must be silu, found %s",
                    text_show(r->path).text, text_show(act).text);
    }
    if (is_set(window)) {
        return fail(r->err, ERROR_DATA,
                    "%s: \"sliding_window\" must be null, attention over windows is not supported",
                    text_show(r->path).text);
    }
    if (!window && strcmp(r->config->model_type, "mistral") == 0) {
        fail(r->err, ERROR_DATA,
             "%s: \"sliding_window\" is missing, and for mistral that means a window of 4096",
             text_show(r->path).text);
        return hint(r->err, "write \"sliding_window\": null if the model was trained without one");
    }
    if (is_set(json_get(r->json, "quantization_config"))) {
        fail(r->err, ERROR_DATA, "%s: \"quantization_config\" says that the weights are quantised",
             text_show(r->path).text);
        return hint(r->err, "use the original weights in bf16, fp16 or fp32");
    }
    return 0;
}

static int read_dtype(struct reading *r)
{
    const char *name = NULL;
    if (json_string(r->json, "torch_dtype", "float32", &name, r->path, r->err) != 0 ||
        json_string(r->json, "dtype", name, &name, r->path, r->err) != 0) {
        return -1;
    }
    r->config->dtype = strcmp(name, "bfloat16") == 0  ? DTYPE_BF16
                       : strcmp(name, "float16") == 0 ? DTYPE_F16
                                                      : DTYPE_F32;
    return 0;
}

int config_parse(const char *path, const cJSON *json, struct model_config *config,
                 struct error *err)
{
    struct model_config c = { 0 };
    struct reading r = { path, json, &c, err };
    if (!cJSON_IsObject(json)) {
        return fail(err, ERROR_DATA, "%s: an object { ... } was expected", text_show(path).text);
    }
    if (read_model_type(&r) != 0 || read_sizes(&r) != 0) {
        return -1;
    }
    set_default_ids(&c);
    if (refuse_unsupported(&r) != 0 || read_rope(&r) != 0 || read_eos(&r) != 0 ||
        read_bos_and_pad(&r) != 0 || read_dtype(&r) != 0 ||
        json_number(json, "rms_norm_eps", 1e-6, &c.rms_norm_eps, path, err) != 0 ||
        json_number(json, "initializer_range", 0.02, &c.initializer_range, path, err) != 0 ||
        json_bool(json, "tie_word_embeddings", false, &c.tied, path, err) != 0) {
        return -1;
    }
    c.auto_map = is_set(json_get(json, "auto_map"));
    if (config_check(path, &c, err) != 0) {
        return -1;
    }
    *config = c;
    return 0;
}

int config_read(const char *path, struct model_config *config, struct error *err)
{
    cJSON *json = json_read(path, err);
    if (!json) {
        return -1;
    }
    int result = config_parse(path, json, config, err);
    cJSON_Delete(json);
    return result;
}

int config_read_generation(const char *path, struct model_config *config, struct error *err)
{
    cJSON *json = json_read(path, err);
    if (!json) {
        return -1;
    }
    struct model_config c = *config;
    struct reading r = { path, json, &c, err };
    int result = -1;
    if (!cJSON_IsObject(json)) {
        fail(err, ERROR_DATA, "%s: an object { ... } was expected", text_show(path).text);
    } else if (read_eos(&r) == 0 && read_bos_and_pad(&r) == 0) {
        *config = c;
        result = 0;
    }
    cJSON_Delete(json);
    return result;
}

struct bound {
    const char *key;
    int64_t value;
    int64_t maximum;
};

static int check_sizes(const char *path, const struct model_config *c, struct error *err)
{
    const struct bound bounds[] = {
        { "hidden_size", c->hidden_size, HIDDEN_MAX },
        { "intermediate_size", c->intermediate_size, INTERMEDIATE_MAX },
        { "num_hidden_layers", c->layers, LAYERS_MAX },
        { "num_attention_heads", c->heads, HEADS_MAX },
        { "num_key_value_heads", c->kv_heads, HEADS_MAX },
        { "head_dim", c->head_size, HEAD_SIZE_MAX },
        { "vocab_size", c->vocabulary, VOCABULARY_MAX },
        { "max_position_embeddings", c->max_positions, POSITIONS_MAX },
    };
    for (size_t i = 0; i < sizeof bounds / sizeof bounds[0]; i++) {
        if (bounds[i].value < 1 || bounds[i].value > bounds[i].maximum) {
            return fail(err, ERROR_DATA, "%s: \"%s\" must be in 1 .. %lld, found %lld",
                        text_show(path).text, bounds[i].key, (long long)bounds[i].maximum,
                        (long long)bounds[i].value);
        }
    }
    if (c->heads % c->kv_heads != 0) {
        return fail(err, ERROR_DATA,
                    "%s: \"num_key_value_heads\" must divide \"num_attention_heads\" %lld, found "
                    "%lld",
                    text_show(path).text, (long long)c->heads, (long long)c->kv_heads);
    }
    if (c->head_size % 2 != 0) {
        return fail(err, ERROR_DATA, "%s: the size of a head must be even, found %lld",
                    text_show(path).text, (long long)c->head_size);
    }
    if (model_config_parameters(c) > parameters_max) {
        return fail(err, ERROR_DATA, "%s: %lld parameters, at most %lld are possible",
                    text_show(path).text, (long long)model_config_parameters(c),
                    (long long)parameters_max);
    }
    return 0;
}

/* A number in (low, high]; NaN is refused, which is also how a missing one looks. */
static int check_number(const char *path, const char *key, double value, double low, double high,
                        struct error *err)
{
    if (value > low && value <= high) {
        return 0;
    }
    if (isnan(value)) {
        return fail(err, ERROR_DATA, "%s: \"%s\" is missing, it must be above %g, at most %g",
                    text_show(path).text, key, low, high);
    }
    return fail(err, ERROR_DATA, "%s: \"%s\" must be above %g, at most %g, found %g",
                text_show(path).text, key, low, high, value);
}

static int check_scaling(const char *path, const struct rope_scaling *s, struct error *err)
{
    if (s->kind == ROPE_SCALING_NONE) {
        return 0;
    }
    if (check_number(path, "rope_scaling.factor", s->factor, 0.0, 1e6, err) != 0) {
        return -1;
    }
    if (s->kind == ROPE_SCALING_LINEAR) {
        return 0;
    }
    if (check_number(path, "rope_scaling.low_freq_factor", s->low_frequency_factor, 0.0, 1e6,
                     err) != 0) {
        return -1;
    }
    /* Equal factors would divide by zero between them. */
    return check_number(path, "rope_scaling.high_freq_factor", s->high_frequency_factor,
                        s->low_frequency_factor, 1e6, err);
}

int config_check(const char *path, const struct model_config *c, struct error *err)
{
    if (check_sizes(path, c, err) != 0 ||
        check_number(path, "rms_norm_eps", c->rms_norm_eps, 0.0, 1.0, err) != 0 ||
        check_number(path, "rope_theta", c->rope_theta, 0.0, 1e15, err) != 0 ||
        check_number(path, "initializer_range", c->initializer_range, 0.0, 100.0, err) != 0) {
        return -1;
    }
    return check_scaling(path, &c->rope_scaling, err);
}

int64_t model_config_parameters(const struct model_config *c)
{
    int64_t attention = 2 * c->heads * c->head_size + 2 * c->kv_heads * c->head_size;
    /* Largest terms after check_sizes: 2^20 * 2^24 a layer, 2^12 layers. */
    int64_t block = c->hidden_size * (attention + 3 * c->intermediate_size + 2);
    int64_t table = c->hidden_size * c->vocabulary;
    return c->layers * block + table * (c->tied ? 1 : 2) + c->hidden_size;
}

/* Written with a point, as Python does: some readers ask for a float. */
static void add_float(cJSON *json, const char *key, double value)
{
    char text[TEXT_NUMBER_SIZE + 2];
    text_from_double(text, value);
    if (!strpbrk(text, ".e")) {
        memcpy(text + strlen(text), ".0", 3);
    }
    cJSON_AddRawToObject(json, key, text);
}

static void add_ids(cJSON *json, const struct model_config *c)
{
    if (c->bos >= 0) {
        cJSON_AddNumberToObject(json, "bos_token_id", c->bos);
    } else {
        cJSON_AddNullToObject(json, "bos_token_id");
    }
    if (c->eos_count > 1) {
        cJSON_AddItemToObject(json, "eos_token_id",
                              cJSON_CreateIntArray(c->eos_list, c->eos_count));
    } else if (c->eos >= 0) {
        cJSON_AddNumberToObject(json, "eos_token_id", c->eos);
    } else {
        cJSON_AddNullToObject(json, "eos_token_id");
    }
}

static void add_scaling(cJSON *json, const struct rope_scaling *s)
{
    if (s->kind == ROPE_SCALING_NONE) {
        cJSON_AddNullToObject(json, "rope_scaling");
        return;
    }
    cJSON *object = cJSON_AddObjectToObject(json, "rope_scaling");
    add_float(object, "factor", s->factor);
    if (s->kind == ROPE_SCALING_LLAMA3) {
        add_float(object, "high_freq_factor", s->high_frequency_factor);
        add_float(object, "low_freq_factor", s->low_frequency_factor);
        cJSON_AddNumberToObject(object, "original_max_position_embeddings",
                                (double)s->original_max_positions);
    }
    const char *type = s->kind == ROPE_SCALING_LINEAR ? "linear" : "llama3";
    cJSON_AddStringToObject(object, "rope_type", type);
    if (s->kind == ROPE_SCALING_LINEAR) {
        /* Tools from before rope_type know only this. */
        cJSON_AddStringToObject(object, "type", type);
    }
}

cJSON *config_to_json(const struct model_config *c, enum dtype dtype)
{
    const char *architecture = model_types[0].architecture;
    for (size_t i = 0; i < MODEL_TYPES; i++) {
        if (strcmp(c->model_type, model_types[i].model_type) == 0) {
            architecture = model_types[i].architecture;
        }
    }
    bool mistral = strcmp(c->model_type, "mistral") == 0;
    cJSON *json = cJSON_CreateObject();
    cJSON_AddItemToObject(json, "architectures", cJSON_CreateStringArray(&architecture, 1));
    if (!mistral) {
        cJSON_AddFalseToObject(json, "attention_bias");
    }
    add_float(json, "attention_dropout", 0.0);
    add_ids(json, c);
    cJSON_AddNumberToObject(json, "head_dim", (double)c->head_size);
    cJSON_AddStringToObject(json, "hidden_act", "silu");
    cJSON_AddNumberToObject(json, "hidden_size", (double)c->hidden_size);
    add_float(json, "initializer_range", c->initializer_range);
    cJSON_AddNumberToObject(json, "intermediate_size", (double)c->intermediate_size);
    cJSON_AddNumberToObject(json, "max_position_embeddings", (double)c->max_positions);
    if (!mistral) {
        cJSON_AddFalseToObject(json, "mlp_bias");
    }
    cJSON_AddStringToObject(json, "model_type", c->model_type[0] ? c->model_type : "llama");
    cJSON_AddNumberToObject(json, "num_attention_heads", (double)c->heads);
    cJSON_AddNumberToObject(json, "num_hidden_layers", (double)c->layers);
    cJSON_AddNumberToObject(json, "num_key_value_heads", (double)c->kv_heads);
    if (c->pad >= 0) {
        cJSON_AddNumberToObject(json, "pad_token_id", c->pad);
    }
    add_float(json, "rms_norm_eps", c->rms_norm_eps);
    add_scaling(json, &c->rope_scaling);
    add_float(json, "rope_theta", c->rope_theta);
    if (mistral) {
        cJSON_AddNullToObject(json, "sliding_window");
    }
    cJSON_AddBoolToObject(json, "tie_word_embeddings", c->tied);
    cJSON_AddStringToObject(json, "torch_dtype",
                            dtype == DTYPE_BF16  ? "bfloat16"
                            : dtype == DTYPE_F16 ? "float16"
                                                 : "float32");
    cJSON_AddTrueToObject(json, "use_cache");
    cJSON_AddNumberToObject(json, "vocab_size", (double)c->vocabulary);
    return json;
}
