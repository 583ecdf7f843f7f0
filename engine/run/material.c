/* Opening what a recipe names. Only what is asked for is read: a plan needs the configuration
 * alone. */
#include <stdlib.h>
#include <string.h>

#include "engine/base/file.h"
#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"
#include "engine/inspect.h"
#include "engine/method/method.h"
#include "engine/model/adapter.h"
#include "engine/model/hf_directory.h"
#include "engine/recipe/load.h"
#include "engine/run.h"
#include "engine/run/directory.h"
#include "engine/run/vocabulary.h"

enum { PREVIEW_BYTES = 1 << 19 };

enum { TOKENIZER_LIMIT = 256 << 20, TEMPLATE_LIMIT = 4 << 20 };

static bool is_file(const char *path)
{
    return file_exists(path) && !file_is_directory(path);
}

/* ---- the model ------------------------------------------------------------------------------ */

static int open_directory(const struct recipe *recipe, struct material *out, struct error *err)
{
    char *notice = NULL;
    char *directory = hf_directory_resolve(recipe->model_path, &notice, err);
    free(notice);
    if (!directory) {
        return -1;
    }
    char *config = path_join(directory, "config.json");
    char *generation = path_join(directory, "generation_config.json");
    int result = config_read(config, &out->config, err);
    if (result == 0 && file_exists(generation)) {
        result = config_read_generation(generation, &out->config, err);
    }
    free(config);
    free(generation);
    free(out->model_directory);
    out->model_directory = directory;
    char *trimmed = xstrdup(recipe->model_path);
    for (size_t size = strlen(trimmed); size > 1 && trimmed[size - 1] == '/'; size--) {
        trimmed[size - 1] = '\0';
    }
    bool given = file_is_directory(recipe->model_path);
    out->model_name = xstrdup(given ? path_base(trimmed) : trimmed);
    free(trimmed);
    return result;
}

static int open_preset(const struct recipe *recipe, struct material *out, struct error *err)
{
    const char *name = recipe->model_preset;
    char *path = is_file(name) ? xstrdup(name) : preset_path("models", name);
    if (!path) {
        const char *folder = preset_directory();
        if (!folder) {
            fail(err, ERROR_USAGE,
                 "model preset \"%s\": the folder of presets was not found beside "
                 "the program",
                 text_show(name).text);
            return hint(err, "set WINDROW_PRESETS to it");
        }
        fail(err, ERROR_USAGE, "there is no model preset \"%s\" in %s/models", text_show(name).text,
             text_show(folder).text);
        return hint(err, "windrow models lists them");
    }
    int result = config_read(path, &out->config, err);
    const char *base = path_base(path);
    size_t size = strlen(base);
    out->model_name =
        xstrndup(base, size > 5 && strcmp(base + size - 5, ".json") == 0 ? size - 5 : size);
    free(path);
    return result;
}

/* ---- the tokenizer -------------------------------------------------------------------------- */

/* The tokenizer.model file that the recipe means: given, in the given directory, a preset, or
 * beside the model. xmalloc'd; NULL if there is none. */
static char *find_tokenizer(const struct recipe *recipe, const struct material *material)
{
    const char *given = recipe->tokenizer_path;
    if (given[0] && is_file(given)) {
        return xstrdup(given);
    }
    if (given[0] && !file_exists(given)) {
        const char *root = preset_directory();
        char *path = root && !strchr(given, '/') ? xasprintf("%s/tokenizers/%s.model", root, given)
                                                 : xstrdup(given);
        return path;
    }
    const char *directory = given[0] ? given : material->model_directory;
    if (!directory[0]) {
        return NULL;
    }
    return path_join(directory, "tokenizer.model");
}

static int refuse_missing(const char *path, struct error *err)
{
    fail(err, ERROR_DATA, "there is no tokenizer %s", text_show(path).text);
    return hint(err, "a SentencePiece model (tokenizer.model) is needed; name it with "
                     "tokenizer.path");
}

static int open_tokenizer_bytes(struct material *out, const char *name, struct error *err)
{
    char why[512] = "";
    out->tokenizer = tokenizer_open(out->tokenizer_bytes, out->tokenizer_size, why, sizeof why);
    if (!out->tokenizer) {
        return fail(err, ERROR_DATA, "%s: %s", text_show(name).text, why);
    }
    return 0;
}

static int open_tokenizer(const struct recipe *recipe, struct material *out, struct error *err)
{
    if (recipe->tokenizer_vocab > 0) {
        out->tokenizer_bytes = vocabulary_train(recipe, &out->tokenizer_size, err);
        return out->tokenizer_bytes ? open_tokenizer_bytes(out, "the trained tokenizer", err) : -1;
    }
    char *path = find_tokenizer(recipe, out);
    if (!path) {
        fail(err, ERROR_USAGE, "model.preset=%s comes without a tokenizer",
             text_show(recipe->model_preset).text);
        return hint(err, "set tokenizer.path, or tokenizer.vocab=1024 to train one on the data");
    }
    int result = -1;
    if (!is_file(path)) {
        refuse_missing(path, err);
    } else if ((out->tokenizer_bytes =
                    file_read_all(path, TOKENIZER_LIMIT, &out->tokenizer_size, err))) {
        result = open_tokenizer_bytes(out, path, err);
    }
    /* What lies beside a file of another name may belong to another tokenizer. */
    const char *base = path_base(path);
    if (strcmp(base, "tokenizer.model") == 0) {
        free(out->tokenizer_directory);
        out->tokenizer_directory =
            base == path ? xstrdup(".") : xstrndup(path, (size_t)(base - path) - (base - path > 1));
    }
    free(path);
    return result;
}

/* "chat_template" of tokenizer_config.json: a text, or a list of named ones. */
static char *template_of_config(const char *path)
{
    struct error ignored = { 0 };
    cJSON *root = json_read(path, &ignored);
    const cJSON *value = json_get(root, "chat_template");
    const cJSON *item;
    cJSON_ArrayForEach (item, value) {
        const cJSON *name = json_get(item, "name");
        if (cJSON_IsString(name) && strcmp(name->valuestring, "default") == 0) {
            value = json_get(item, "template");
            break;
        }
    }
    char *text = cJSON_IsString(value) ? xstrdup(value->valuestring) : NULL;
    cJSON_Delete(root);
    return text;
}

static char *find_template(const char *directory)
{
    struct error ignored = { 0 };
    size_t size = 0;
    char *text = NULL;
    if (!directory[0]) {
        return NULL;
    }
    char *file = path_join(directory, "chat_template.jinja");
    char *config = path_join(directory, "tokenizer_config.json");
    if (is_file(file)) {
        text = file_read_all(file, TEMPLATE_LIMIT, &size, &ignored);
    }
    if (!text && is_file(config)) {
        text = template_of_config(config);
    }
    free(file);
    free(config);
    return text;
}

/* ---- fitting together ----------------------------------------------------------------------- */

static void take_vocabulary(struct model_config *config, const struct tokenizer_facts *facts)
{
    config->vocabulary = facts->vocabulary;
    config->bos = facts->bos;
    config->eos = facts->eos;
    config->pad = facts->pad;
    config->eos_count = facts->eos >= 0 ? 1 : 0;
    config->eos_list[0] = facts->eos;
}

static int check_fit(const struct recipe *recipe, struct material *out, struct error *err)
{
    struct model_config *config = &out->config;
    int64_t pieces = out->tokenizer ? tokenizer_facts(out->tokenizer)->vocabulary : 0;
    if (recipe->model_preset[0]) {
        if (out->tokenizer) {
            take_vocabulary(config, tokenizer_facts(out->tokenizer));
        } else if (recipe->tokenizer_vocab > 0) {
            config->vocabulary = recipe->tokenizer_vocab;
        }
    } else if (pieces > config->vocabulary) {
        fail(err, ERROR_DATA, "the tokenizer has %lld pieces, the model %s only %lld embeddings",
             (long long)pieces, text_show(out->model_name).text, (long long)config->vocabulary);
        return hint(err, "tokenizer and model do not belong together; see tokenizer.path");
    }
    if (recipe->data_sequence_length > config->max_positions) {
        if (recipe->model_init == MODEL_RANDOM) {
            config->max_positions = recipe->data_sequence_length;
            return 0;
        }
        fail(err, ERROR_USAGE, "data.sequence_length=%lld is more than the %lld positions of %s",
             (long long)recipe->data_sequence_length, (long long)config->max_positions,
             text_show(out->model_name).text);
        return hint(err, "set data.sequence_length=%lld or less", (long long)config->max_positions);
    }
    return 0;
}

/* ---- the data ------------------------------------------------------------------------------- */

char *material_data_path(const char *data)
{
    static const char *const endings[] = { "", ".txt", ".jsonl" };
    const char *root = preset_directory();
    if (file_exists(data) || !root || strchr(data, '/')) {
        return xstrdup(data);
    }
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        char *path = xasprintf("%s/data/%s%s", root, data, endings[i]);
        if (is_file(path)) {
            return path;
        }
        free(path);
    }
    return xstrdup(data);
}

static int open_data(const struct recipe *recipe, bool beginning,
                     const struct dataset_progress *progress, struct material *out,
                     struct error *err)
{
    int64_t limit_bytes = beginning ? PREVIEW_BYTES + 16 * recipe->data_sequence_length : 0;
    if (!recipe->data_train[0]) {
        fail(err, ERROR_USAGE, "the recipe names no data: data.train is empty");
        return hint(err, "add data.train=PATH (windrow datasets lists what is there)");
    }
    char *train = material_data_path(recipe->data_train);
    struct dataset_options options = {
        .train = train,
        .validation = recipe->data_validation,
        .format = (enum data_format)recipe->data_format,
        .template_name = recipe->data_template,
        .chat_template = out->chat_template,
        .sequence_length = recipe->data_sequence_length,
        .shuffle = recipe->data_shuffle,
        .pack = recipe->data_pack,
        .train_on_prompt = recipe->data_train_on_prompt,
        .seed = (uint64_t)recipe->train_seed,
        .limit_bytes = limit_bytes,
    };
    out->dataset = dataset_open(&options, out->tokenizer, progress, err);
    free(train);
    return out->dataset ? 0 : -1;
}

/* ---- adapters ------------------------------------------------------------------------------- */

static void find_adapter(const struct recipe *recipe, struct material *out)
{
    const char *directory = recipe->model_adapter;
    bool beside = recipe->model_init == MODEL_PRETRAINED && out->model_directory[0] &&
                  adapter_is_directory(out->model_directory);
    if (!directory[0] && beside) {
        directory = out->model_directory;
    }
    free(out->adapter_directory);
    out->adapter_directory = xstrdup(directory);
}

bool material_continues_adapter(const struct recipe *recipe)
{
    const struct method_ops *method = method_find(recipe->method_name);
    return method != NULL && method->adapters && recipe->model_adapter[0] != '\0';
}

int material_adapter_settings(struct recipe *recipe, const struct material *material,
                              struct error *err)
{
    if (!material_continues_adapter(recipe)) {
        return 0;
    }
    struct adapter *adapter = adapter_open(material->adapter_directory, &material->config, err);
    if (!adapter) {
        return -1;
    }
    struct adapter_settings settings;
    adapter_settings(adapter, &material->config, &settings);
    const struct {
        const char *key;
        const char *value;
    } rows[] = {
        { "method.rank", settings.rank },
        { "method.alpha", settings.alpha },
        { "method.targets", settings.targets },
        { "method.rank_pattern", settings.rank_pattern },
        { "method.alpha_pattern", settings.alpha_pattern },
    };
    int result = 0;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0] && result == 0; i++) {
        result = recipe_assign(recipe, recipe_field(rows[i].key), rows[i].value, NULL, err);
    }
    adapter_settings_free(&settings);
    adapter_close(adapter);
    return result;
}

/* ---- all of it ------------------------------------------------------------------------------ */

int material_open(const struct recipe *recipe, int parts, const struct dataset_progress *progress,
                  struct material *out, struct error *err)
{
    *out = (struct material){ .model_directory = xstrdup(""),
                              .adapter_directory = xstrdup(""),
                              .tokenizer_directory = xstrdup("") };
    int result = 0;
    if (recipe->model_path[0]) {
        result = open_directory(recipe, out, err);
    } else if (recipe->model_preset[0]) {
        result = open_preset(recipe, out, err);
    } else {
        fail(err, ERROR_USAGE, "the recipe names no model: model.path and model.preset are empty");
        result = hint(err, "add model.path=DIRECTORY, or model.preset=NAME (windrow models)");
    }
    if (result == 0) {
        find_adapter(recipe, out);
    }
    /* A preset takes the size of the vocabulary from a tokenizer that exists already. */
    bool sized = recipe->model_preset[0] && recipe->tokenizer_path[0];
    if (result == 0 && ((parts & (MATERIAL_TOKENIZER | MATERIAL_DATA)) || sized)) {
        result = open_tokenizer(recipe, out, err);
    }
    if (result == 0) {
        result = check_fit(recipe, out, err);
    }
    if (result == 0 && out->tokenizer) {
        out->chat_template = find_template(out->tokenizer_directory);
        if (!out->chat_template) {
            out->chat_template = find_template(out->model_directory);
        }
    }
    if (result == 0 && (parts & MATERIAL_DATA)) {
        result = open_data(recipe, (parts & MATERIAL_BEGINNING) != 0, progress, out, err);
    }
    if (result != 0) {
        material_close(out);
    }
    return result;
}

void material_close(struct material *material)
{
    if (material->dataset) {
        dataset_close(material->dataset);
    }
    if (material->tokenizer) {
        tokenizer_close(material->tokenizer);
    }
    free(material->model_name);
    free(material->model_directory);
    free(material->adapter_directory);
    free(material->tokenizer_bytes);
    free(material->tokenizer_directory);
    free(material->chat_template);
    *material = (struct material){ 0 };
}

/* ---- MODEL words ---------------------------------------------------------------------------- */

static int set_path(struct recipe *recipe, const char *key, const char *value, struct error *err)
{
    return recipe_assign(recipe, recipe_field(key), value, NULL, err);
}

static int model_of_run(struct recipe *recipe, const char *run, struct error *err)
{
    int64_t step = 0;
    char *path = run_latest_checkpoint(run, &step, NULL, NULL, err);
    int result = path ? set_path(recipe, "model.path", path, err) : -1;
    free(path);
    return result;
}

/* The directory of a run of this name, xmalloc'd, or NULL. */
static char *run_of_name(const char *name)
{
    char *root = run_root();
    char *path = strchr(name, '/') ? xstrdup(name) : path_join(root, name);
    free(root);
    if (!run_is_run(path)) {
        free(path);
        return NULL;
    }
    return path;
}

int material_model(struct recipe *recipe, const char *model, struct error *err)
{
    size_t size = strlen(model);
    bool json = size > 5 && strcmp(model + size - 5, ".json") == 0;
    char *config = path_join(model, "config.json");
    bool directory = file_exists(config);
    free(config);
    if (directory) {
        return set_path(recipe, "model.path", model, err);
    }
    if (file_is_directory(model) && run_is_run(model)) {
        return model_of_run(recipe, model, err);
    }
    char *preset = preset_path("models", model);
    bool is_preset = preset || (json && is_file(model));
    free(preset);
    if (is_preset) {
        return set_path(recipe, "model.preset", model, err);
    }
    char *run = run_of_name(model);
    if (run) {
        int result = model_of_run(recipe, run, err);
        free(run);
        return result;
    }
    char *notice = NULL;
    char *found = hf_directory_resolve(model, &notice, err);
    int result = found ? set_path(recipe, "model.path", found, err) : -1;
    free(notice);
    free(found);
    return result;
}
