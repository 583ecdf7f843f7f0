/* Reading adapters and merging them; the format is in the header. */
#include "engine/model/adapter.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/file.h"
#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/model/model.h"

static const char prefix[] = "base_model.model.";
static const char weight_ending[] = ".weight";

enum { RANK_MAX = 65536 };

bool adapter_is_directory(const char *directory)
{
    char *path = path_join(directory, ADAPTER_CONFIG);
    bool found = directory[0] != '\0' && file_exists(path);
    free(path);
    return found;
}

char *adapter_tensor_name(const char *parameter, char half)
{
    size_t size = strlen(parameter) - (sizeof weight_ending - 1);
    return xasprintf("%s%.*s.lora_%c.weight", prefix, (int)size, parameter, half);
}

/* ---- the configuration ---------------------------------------------------------------------- */

/* What this reader does not do, by the key that asks for it. Anything but absent, null, false, ""
 * and empty lists asks. */
static const struct {
    const char *key;
    const char *what;
} refused[] = {
    { "use_dora", "DoRA (magnitudes beside the adapter)" },
    { "lora_bias", "adapters with a bias" },
    { "fan_in_fan_out", "transposed weights" },
    { "modules_to_save", "modules trained in full beside the adapter" },
    { "layer_replication", "replicated layers" },
    { "trainable_token_indices", "trained rows of the embedding" },
    { "target_parameters", "adapters on bare parameters" },
    { "alora_invocation_tokens", "adapters that wait for certain tokens" },
    { "use_qalora", "QALoRA" },
};

static bool asks(const cJSON *value)
{
    if (cJSON_IsString(value)) {
        return value->valuestring[0] != '\0';
    }
    if (cJSON_IsArray(value) || cJSON_IsObject(value)) {
        return cJSON_GetArraySize(value) > 0;
    }
    return cJSON_IsTrue(value) || cJSON_IsNumber(value);
}

static int check_config(const cJSON *config, const char *path, struct error *err)
{
    const char *type = NULL;
    const char *bias = NULL;
    const char *file = text_show(path).text;
    if (!cJSON_IsObject(config)) {
        return fail(err, ERROR_DATA, "%s: not a JSON object", file);
    }
    if (json_string(config, "peft_type", "LORA", &type, path, err) != 0 ||
        json_string(config, "bias", "none", &bias, path, err) != 0) {
        return -1;
    }
    if (strcmp(type, "LORA") != 0) {
        return fail(err, ERROR_DATA, "%s: peft_type is \"%s\"; only LORA adapters can be read",
                    file, text_show(type).text);
    }
    if (strcmp(bias, "none") != 0) {
        return fail(err, ERROR_DATA, "%s: bias is \"%s\"; only adapters without bias can be read",
                    file, text_show(bias).text);
    }
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        if (asks(json_get(config, refused[i].key))) {
            fail(err, ERROR_DATA, "%s: %s is set: %s cannot be read", file, refused[i].key,
                 refused[i].what);
            return hint(err, "merge the adapter with the program that made it, and use the merged "
                             "model");
        }
    }
    return 0;
}

/* Whether a key of alpha_pattern means the module: its whole name or the end of it, from a point
 * on; '^' binds it to the beginning. -1: it is a regular expression beyond that. */
static int key_means(const char *key, const char *module)
{
    bool bound = key[0] == '^';
    char plain[160];
    size_t size = 0;
    for (const char *c = bound ? key + 1 : key; *c != '\0'; c++) {
        if (c[0] == '\\' && c[1] == '.') {
            continue;
        }
        if (strchr("*+?()[]{}|\\^", *c) || size + 1 >= sizeof plain || (*c == '$' && c[1])) {
            return -1;
        }
        if (*c != '$') {
            plain[size++] = *c;
        }
    }
    plain[size] = '\0';
    size_t length = strlen(module);
    if (size == 0 || size > length || strcmp(module + length - size, plain) != 0) {
        return 0;
    }
    return size == length || (!bound && module[length - size - 1] == '.');
}

/* lora_alpha, or what alpha_pattern says for the module. */
static int read_alpha(const cJSON *config, const char *path, const char *module, double *alpha,
                      struct error *err)
{
    if (json_number(config, "lora_alpha", 8.0, alpha, path, err) != 0) {
        return -1;
    }
    const cJSON *item;
    cJSON_ArrayForEach (item, json_get(config, "alpha_pattern")) {
        int means = item->string ? key_means(item->string, module) : -1;
        if (means < 0 || !cJSON_IsNumber(item)) {
            return fail(err, ERROR_DATA,
                        "%s: alpha_pattern: \"%s\" is not a module's name with a number",
                        text_show(path).text, text_show(item->string ? item->string : "").text);
        }
        if (means > 0) {
            *alpha = item->valuedouble;
            break;
        }
    }
    return isfinite(*alpha) && fabs(*alpha) <= 1e6
               ? 0
               : fail(err, ERROR_DATA, "%s: alpha of %s is out of range", text_show(path).text,
                      text_show(module).text);
}

/* ---- the tensors ---------------------------------------------------------------------------- */

/* What reading works on. */
struct reading {
    struct adapter *adapter;
    const cJSON *config;
    char *config_path;
    struct safetensors *file;
    bool rslora;
};

static const struct safetensors_tensor *find_half(const struct reading *r, const char *parameter,
                                                  char half)
{
    char *name = adapter_tensor_name(parameter, half);
    const struct safetensors_tensor *found = safetensors_find(r->file, name);
    free(name);
    return found;
}

static int refuse_shape(const struct reading *r, const struct safetensors_tensor *tensor,
                        const struct parameter *p, struct error *err)
{
    return fail(err, ERROR_DATA,
                "%s: tensor \"%s\" is not a float matrix that goes with the %lld x %lld of %s",
                text_show(r->file->path).text, text_show(tensor->name).text, (long long)p->dim[0],
                (long long)p->dim[1], p->name);
}

static int read_values(const struct reading *r, const struct safetensors_tensor *tensor,
                       float **out, struct error *err)
{
    *out = malloc((size_t)tensor->elements * sizeof **out);
    if (*out == NULL) {
        return fail(err, ERROR_RUNTIME, "out of memory for %lld values of an adapter",
                    (long long)tensor->elements);
    }
    if (safetensors_read(r->file, tensor, *out, DTYPE_F32, err) != 0) {
        return -1;
    }
    for (int64_t i = 0; i < tensor->elements; i++) {
        if (!isfinite((*out)[i])) {
            return fail(err, ERROR_DATA, "%s: tensor \"%s\" holds values that are not finite",
                        text_show(r->file->path).text, text_show(tensor->name).text);
        }
    }
    return 0;
}

static bool is_float(const struct safetensors_tensor *t)
{
    return t->readable && t->rank == 2 &&
           (t->dtype == DTYPE_F32 || t->dtype == DTYPE_BF16 || strcmp(t->type, "F16") == 0);
}

static int read_entry(struct reading *r, const struct parameter *p, struct error *err)
{
    const struct safetensors_tensor *a = find_half(r, p->name, 'A');
    const struct safetensors_tensor *b = find_half(r, p->name, 'B');
    if (!a && !b) {
        return 0;
    }
    if (!a || !b) {
        return fail(err, ERROR_DATA, "%s: %s has only one of lora_A and lora_B",
                    text_show(r->file->path).text, p->name);
    }
    if (!is_float(a) || a->dim[0] < 1 || a->dim[0] > RANK_MAX || a->dim[1] != p->dim[1]) {
        return refuse_shape(r, a, p, err);
    }
    if (!is_float(b) || b->dim[0] != p->dim[0] || b->dim[1] != a->dim[0]) {
        return refuse_shape(r, b, p, err);
    }
    struct adapter_entry *entry = &r->adapter->entry[r->adapter->count++];
    *entry = (struct adapter_entry){
        .parameter = xstrdup(p->name), .rank = a->dim[0], .rows = p->dim[0], .columns = p->dim[1]
    };
    double alpha = 0.0;
    char *module = xstrndup(p->name, strlen(p->name) - (sizeof weight_ending - 1));
    int result = read_alpha(r->config, r->config_path, module, &alpha, err);
    free(module);
    entry->scale = alpha / (r->rslora ? sqrt((double)entry->rank) : (double)entry->rank);
    if (result != 0 || read_values(r, a, &entry->a, err) != 0) {
        return -1;
    }
    return read_values(r, b, &entry->b, err);
}

/* A tensor that belongs to no matrix of the model would be lost. */
static int check_all_taken(const struct reading *r, struct error *err)
{
    if (r->file->count == 2 * r->adapter->count && r->adapter->count > 0) {
        return 0;
    }
    for (size_t i = 0; i < r->file->count; i++) {
        const char *name = r->file->tensor[i].name;
        bool known = false;
        for (size_t k = 0; k < r->adapter->count && !known; k++) {
            char *a = adapter_tensor_name(r->adapter->entry[k].parameter, 'A');
            char *b = adapter_tensor_name(r->adapter->entry[k].parameter, 'B');
            known = strcmp(a, name) == 0 || strcmp(b, name) == 0;
            free(a);
            free(b);
        }
        if (!known) {
            fail(err, ERROR_DATA, "%s: tensor \"%s\" is no adapter of a matrix of this model",
                 text_show(r->file->path).text, text_show(name).text);
            return hint(err, "names are such as %smodel.layers.0.self_attn.q_proj.lora_A.weight",
                        prefix);
        }
    }
    return fail(err, ERROR_DATA, "%s holds no adapter", text_show(r->file->path).text);
}

static int read_entries(struct reading *r, const struct model_config *config, struct error *err)
{
    struct model model;
    if (model_init(&model, config, DTYPE_F32, 1, err) != 0) {
        return -1;
    }
    r->adapter->entry = xcalloc((size_t)model.parameter_count, sizeof *r->adapter->entry);
    int result = 0;
    for (int64_t i = 0; result == 0 && i < model.parameter_count; i++) {
        if (model.parameter[i].role == PARAMETER_MATRIX) {
            result = read_entry(r, &model.parameter[i], err);
        }
    }
    model_free(&model);
    return result == 0 ? check_all_taken(r, err) : -1;
}

static int open_files(struct reading *r, const char *directory, struct error *err)
{
    char *path = path_join(directory, ADAPTER_WEIGHTS);
    char *pickle = path_join(directory, "adapter_model.bin");
    int result = 0;
    if (!file_exists(path)) {
        fail(err, ERROR_DATA, "%s has no %s", text_show(directory).text, ADAPTER_WEIGHTS);
        result = hint(err, file_exists(pickle)
                               ? "adapter_model.bin can run programs when it is opened; save it "
                                 "as safetensors"
                               : "an adapter is a directory with it and " ADAPTER_CONFIG);
    } else {
        r->file = safetensors_open(path, err);
        result = r->file ? 0 : -1;
    }
    free(pickle);
    free(path);
    return result;
}

struct adapter *adapter_open(const char *directory, const struct model_config *config,
                             struct error *err)
{
    struct reading r = { .adapter = xcalloc(1, sizeof *r.adapter) };
    r.adapter->directory = xstrdup(directory);
    r.config_path = path_join(directory, ADAPTER_CONFIG);
    cJSON *json = NULL;
    int result = -1;
    if (!file_exists(r.config_path)) {
        fail(err, ERROR_DATA, "%s has no %s", text_show(directory).text, ADAPTER_CONFIG);
        hint(err, "an adapter is a directory with it and " ADAPTER_WEIGHTS);
    } else if ((json = json_read(r.config_path, err))) {
        r.config = json;
        result = check_config(json, r.config_path, err);
    }
    if (result == 0) {
        result = json_bool(json, "use_rslora", false, &r.rslora, r.config_path, err);
    }
    if (result == 0) {
        result = open_files(&r, directory, err);
    }
    if (result == 0) {
        result = read_entries(&r, config, err);
    }
    if (r.file) {
        safetensors_close(r.file);
    }
    cJSON_Delete(json);
    free(r.config_path);
    if (result != 0) {
        adapter_close(r.adapter);
        return NULL;
    }
    return r.adapter;
}

void adapter_close(struct adapter *adapter)
{
    if (adapter == NULL) {
        return;
    }
    for (size_t i = 0; i < adapter->count; i++) {
        free((char *)(uintptr_t)adapter->entry[i].parameter);
        free(adapter->entry[i].a);
        free(adapter->entry[i].b);
    }
    free(adapter->entry);
    free(adapter->directory);
    free(adapter);
}

const struct adapter_entry *adapter_find(const struct adapter *adapter, const char *parameter)
{
    for (size_t i = 0; i < adapter->count; i++) {
        if (strcmp(adapter->entry[i].parameter, parameter) == 0) {
            return &adapter->entry[i];
        }
    }
    return NULL;
}

/* ---- merging -------------------------------------------------------------------------------- */

/* A piece of one row. */
static void merge_row(const struct adapter_entry *entry, int64_t row, int64_t column, int64_t count,
                      float *values)
{
    enum { PIECE = 256 };
    double sum[PIECE];
    for (int64_t at = 0; at < count; at += PIECE) {
        int64_t n = count - at < PIECE ? count - at : PIECE;
        memset(sum, 0, sizeof sum);
        for (int64_t k = 0; k < entry->rank; k++) {
            double b = (double)entry->b[row * entry->rank + k];
            const float *a = &entry->a[k * entry->columns + column + at];
            for (int64_t j = 0; j < n; j++) {
                sum[j] += b * (double)a[j];
            }
        }
        for (int64_t j = 0; j < n; j++) {
            values[at + j] = (float)((double)values[at + j] + entry->scale * sum[j]);
        }
    }
}

void adapter_merge(const struct adapter *adapter, const char *parameter, int64_t first,
                   int64_t count, float *values)
{
    const struct adapter_entry *entry = adapter_find(adapter, parameter);
    for (int64_t done = 0; entry && done < count;) {
        int64_t row = (first + done) / entry->columns;
        int64_t column = (first + done) % entry->columns;
        int64_t n = entry->columns - column;
        n = n < count - done ? n : count - done;
        merge_row(entry, row, column, n, values + done);
        done += n;
    }
}

void adapter_merge_into(const struct adapter *adapter, const char *parameter, int64_t first,
                        int64_t count, const struct adapter_buffer *buffer)
{
    if (!adapter_find(adapter, parameter)) {
        return;
    }
    if (buffer->dtype == DTYPE_F32) {
        adapter_merge(adapter, parameter, first, count, buffer->values);
        return;
    }
    uint16_t *stored = buffer->values;
    for (int64_t i = 0; i < count; i++) {
        buffer->wide[i] = bf16_to_float(stored[i]);
    }
    adapter_merge(adapter, parameter, first, count, buffer->wide);
    for (int64_t i = 0; i < count; i++) {
        stored[i] = bf16_from_float(buffer->wide[i]);
    }
}
