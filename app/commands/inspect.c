/* windrow inspect: what a model or a data set is, before anything is trained with it. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/commands/command.h"
#include "app/commands/common.h"
#include "app/commands/output.h"
#include "app/text.h"
#include "engine/base/file.h"
#include "engine/inspect.h"
#include "engine/run.h"

enum { INSPECT_TOKENS_MAX = 400 }; /* of a record */

/* ---- models --------------------------------------------------------------------------------- */

static void print_config(const struct material *material)
{
    const struct model_config *c = &material->config;
    output_data("model          %s (%s)\n", material->model_name, c->model_type);
    output_data("parameters     %s in %lld layers%s\n",
                text_count((double)model_config_parameters(c)).text, (long long)c->layers,
                c->tied ? ", head and embedding are one" : "");
    output_data("hidden         %lld, feed-forward %lld\n", (long long)c->hidden_size,
                (long long)c->intermediate_size);
    output_data("heads          %lld of %lld, %lld for keys and values\n", (long long)c->heads,
                (long long)c->head_size, (long long)c->kv_heads);
    output_data("vocabulary     %lld\npositions      %lld, rope theta %s\n",
                (long long)c->vocabulary, (long long)c->max_positions,
                text_value(c->rope_theta).text);
    output_data("stored as      %s\n", dtype_name(c->dtype));
    if (c->auto_map) {
        output_say("the model's files name code of their own; it is not run");
    }
}

static void print_tokenizer(const struct material *material)
{
    if (material->tokenizer == NULL) {
        return;
    }
    const struct tokenizer_facts *facts = tokenizer_facts(material->tokenizer);
    output_data("tokenizer      %d pieces, bos %d, eos %d%s\n", facts->vocabulary, facts->bos,
                facts->eos, facts->byte_fallback ? ", any bytes" : "");
    if (material->chat_template != NULL) {
        output_data("chat template  %s\n", material->chat_template);
    }
}

static void json_config(cJSON *root, const struct material *material)
{
    const struct model_config *c = &material->config;
    json_add_text(root, "kind", "model");
    json_add_text(root, "name", material->model_name);
    json_add_text(root, "path", material->model_directory);
    json_add_number(root, "parameters", (double)model_config_parameters(c));
    cJSON_AddItemToObject(root, "config", config_to_json(c, c->dtype));
    if (material->tokenizer != NULL) {
        const struct tokenizer_facts *facts = tokenizer_facts(material->tokenizer);
        cJSON *item = json_add_object(root, "tokenizer");
        json_add_number(item, "vocabulary", facts->vocabulary);
        json_add_number(item, "bos", facts->bos);
        json_add_number(item, "eos", facts->eos);
        json_add_bool(item, "byte_fallback", facts->byte_fallback);
    }
    json_add_text(root, "chat_template", material->chat_template);
}

static void list_tensors(const struct weights_source *source, cJSON *root, bool json)
{
    struct table table;
    cJSON *list = json_add_array(root, "tensors");
    table_open(&table, "lllr");
    table_add(&table, (const char *[]){ "TENSOR", "type", "shape", "bytes" });
    for (size_t i = 0; i < weights_count(source); i++) {
        const struct safetensors_tensor *tensor = weights_get(source, i).tensor;
        int shown = tensor->rank < SAFETENSORS_RANK_MAX ? tensor->rank : SAFETENSORS_RANK_MAX;
        char *shape = shape_text(shown, tensor->dim);
        struct text_number bytes = text_bytes((double)tensor->bytes);
        table_add(&table, (const char *[]){ tensor->name, tensor->type, shape, bytes.text });
        cJSON *item = json_append_object(list);
        json_add_text(item, "name", tensor->name);
        json_add_text(item, "dtype", tensor->type);
        cJSON *dims = json_add_array(item, "shape");
        for (int d = 0; d < shown; d++) {
            cJSON_AddItemToArray(dims, cJSON_CreateNumber((double)tensor->dim[d]));
        }
        json_add_number(item, "bytes", (double)tensor->bytes);
        free(shape);
    }
    if (json) {
        table_free(&table);
    } else {
        output_data("\n");
        table_print(&table);
    }
}

static int inspect_model(struct recipe *recipe, bool json, struct error *err)
{
    struct material material;
    struct error no_tokenizer = { 0 };
    if (material_open(recipe, MATERIAL_TOKENIZER, NULL, &material, &no_tokenizer) == -1) {
        if (material_open(recipe, MATERIAL_CONFIG, NULL, &material, err) == -1) {
            return -1;
        }
        output_say("no tokenizer: %s", no_tokenizer.message);
    }
    cJSON *root = cJSON_CreateObject();
    json_config(root, &material);
    if (!json) {
        print_config(&material);
        print_tokenizer(&material);
    }
    int result = 0;
    if (material.model_directory[0] != '\0') {
        struct weights_source *source = weights_open(material.model_directory, err);
        result = source == NULL ? -1 : 0;
        if (source != NULL) {
            list_tensors(source, root, json);
            weights_close(source);
        }
    } else if (!json) {
        output_data("weights        random: nothing on disk\n");
    }
    if (json && result == 0) {
        output_json(root);
    } else {
        cJSON_Delete(root);
    }
    material_close(&material);
    return result;
}

/* ---- data ----------------------------------------------------------------------------------- */

static void print_facts(const struct recipe *recipe, const struct dataset_facts *facts)
{
    output_data("data           %s (%s", recipe->data_train, data_format_names[facts->format]);
    if (facts->template_name[0] != '\0') {
        output_data(", template %s", facts->template_name);
    }
    output_data(")\nrecords        %lld read, %lld skipped, %lld cut\n",
                (long long)facts->documents, (long long)facts->skipped, (long long)facts->cut);
    output_data("rows           %lld of %lld tokens\ntokens         %lld, %lld of them trained\n",
                (long long)facts->rows[DATA_TRAIN], (long long)recipe->data_sequence_length,
                (long long)facts->tokens[DATA_TRAIN], (long long)facts->trained_tokens[DATA_TRAIN]);
}

static void json_facts(cJSON *root, const struct recipe *recipe, const struct dataset_facts *facts)
{
    json_add_text(root, "kind", "data");
    json_add_text(root, "path", recipe->data_train);
    json_add_text(root, "format", data_format_names[facts->format]);
    json_add_text(root, "template", facts->template_name);
    json_add_number(root, "records", (double)facts->documents);
    json_add_number(root, "skipped", (double)facts->skipped);
    json_add_number(root, "cut", (double)facts->cut);
    json_add_number(root, "sequence_length", (double)recipe->data_sequence_length);
    json_add_number(root, "rows", (double)facts->rows[DATA_TRAIN]);
    json_add_number(root, "tokens", (double)facts->tokens[DATA_TRAIN]);
    json_add_number(root, "trained_tokens", (double)facts->trained_tokens[DATA_TRAIN]);
    json_add_text(root, "digest", facts->digest);
}

/* One record: what is trained stands between brackets. Control pieces show their names. */
static void print_record(const struct tokenizer *tokenizer, const int32_t *ids, const uint8_t *mask,
                         size_t count)
{
    bool colored = output_has_color(STDOUT_FILENO);
    size_t shown = count < INSPECT_TOKENS_MAX ? count : INSPECT_TOKENS_MAX;
    for (size_t i = 0; i < shown;) {
        size_t end = i + 1;
        bool control = tokenizer_is_control(tokenizer, ids[i]);
        while (end < shown && !control && mask[end] == mask[i] &&
               !tokenizer_is_control(tokenizer, ids[end])) {
            end++;
        }
        char why[256];
        char *text =
            control ? NULL : tokenizer_decode(tokenizer, ids + i, end - i, NULL, why, sizeof why);
        const char *piece = control ? tokenizer_piece(tokenizer, ids[i]) : text;
        if (colored) {
            output_bytes(mask[i] ? "\033[1;32m" : "\033[2m", mask[i] ? 7 : 4);
        }
        output_data(mask[i] ? "[%s]" : "%s", piece == NULL ? "?" : piece);
        if (colored) {
            output_bytes("\033[0m", 4);
        }
        free(text);
        i = end;
    }
    if (shown < count) {
        output_data(" ... and %zu tokens more", count - shown);
    }
    output_data("\n");
}

static void json_record(cJSON *list, const struct tokenizer *tokenizer, const int32_t *ids,
                        const uint8_t *mask, size_t count)
{
    cJSON *tokens = json_add_array(json_append_object(list), "tokens");
    for (size_t i = 0; i < count && i < INSPECT_TOKENS_MAX; i++) {
        cJSON *item = json_append_object(tokens);
        json_add_number(item, "id", ids[i]);
        json_add_text(item, "piece", tokenizer_piece(tokenizer, ids[i]));
        json_add_bool(item, "trained", mask[i] != 0);
    }
}

static void show_data(const struct recipe *recipe, const struct material *material, int64_t rows,
                      bool json)
{
    const struct dataset_facts *facts = dataset_facts(material->dataset);
    const char *notice;
    cJSON *root = cJSON_CreateObject();
    json_facts(root, recipe, facts);
    if (!json) {
        print_facts(recipe, facts);
    }
    for (int i = 0; (notice = dataset_notice(material->dataset, i)) != NULL; i++) {
        output_warning(notice);
    }
    cJSON *list = json_add_array(root, "records_shown");
    for (int64_t i = 0; i < rows; i++) {
        const int32_t *ids;
        const uint8_t *mask;
        size_t count;
        if (dataset_preview(material->dataset, i, &ids, &mask, &count) == -1) {
            break;
        }
        if (json) {
            json_record(list, material->tokenizer, ids, mask, count);
        } else {
            output_data("\n--- record %lld: %zu tokens\n", (long long)i + 1, count);
            print_record(material->tokenizer, ids, mask, count);
        }
    }
    if (json) {
        output_json(root);
    } else {
        cJSON_Delete(root);
    }
}

/* Without a model there is no tokenizer to read data with: the one that comes along takes any
 * bytes, in more pieces than a larger one. */
static int default_tokenizer(struct recipe *recipe, struct error *err)
{
    const char *root = preset_directory();
    char *assignment =
        xasprintf("tokenizer.path=%s/tokenizers/stories.model", root == NULL ? "." : root);
    int result = recipe_set(recipe, "model.preset=llama-tiny", err);
    if (result == 0) {
        result = recipe_set(recipe, assignment, err);
        output_say("no --model given: read with the small tokenizer that comes along");
    }
    free(assignment);
    return result;
}

static int inspect_data(struct recipe *recipe, const char *path, const struct arguments *arguments,
                        struct error *err)
{
    const char *model = option_text(arguments, "model");
    int64_t rows = 3;
    int result = option_integer(arguments, "rows", 0, 1000000, &rows, err);
    if (result == 0) {
        result = recipe_set_text(recipe, "data.train", path, err);
    }
    if (result == 0) {
        result =
            model != NULL ? recipe_take_model(recipe, model, err) : default_tokenizer(recipe, err);
    }
    if (result == 0) {
        result = recipe_fit_length(recipe, err);
    }
    if (result == 0) {
        result = recipe_take_settings(recipe, arguments, err);
    }
    struct material material;
    if (result == -1 ||
        material_open(recipe, MATERIAL_TOKENIZER | MATERIAL_DATA, NULL, &material, err) == -1) {
        return -1;
    }
    show_data(recipe, &material, rows, arguments->json);
    material_close(&material);
    return 0;
}

/* A directory with config.json or recipe.json, or no path at all, is a model or a run; a JSON file
 * with a configuration is a model too; what else exists is data. */
static bool is_model(const char *word)
{
    static const char *const marks[] = { "config.json", "recipe.json" };
    struct model_config config;
    struct error ignored = { 0 };
    if (!file_exists(word)) {
        return true;
    }
    for (size_t i = 0; i < 2 && file_is_directory(word); i++) {
        char *path = path_join(word, marks[i]);
        bool found = file_exists(path);
        free(path);
        if (found) {
            return true;
        }
    }
    return !file_is_directory(word) && config_read(word, &config, &ignored) == 0;
}

int command_inspect(const struct arguments *arguments)
{
    struct error err = { 0 };
    struct recipe recipe;
    const char *word = arguments->word[0];
    const char *root = preset_directory();
    char *shipped = root == NULL ? NULL : xasprintf("%s/data/%s", root, word);
    int result;
    recipe_init(&recipe);
    if (!file_exists(word) && shipped != NULL && file_exists(shipped)) {
        result = inspect_data(&recipe, shipped, arguments, &err);
    } else if (!is_model(word)) {
        result = inspect_data(&recipe, word, arguments, &err);
    } else {
        result = recipe_take_model(&recipe, word, &err);
        if (result == 0) {
            result = recipe_fit_length(&recipe, &err);
        }
        if (result == 0) {
            result = recipe_take_settings(&recipe, arguments, &err);
        }
        if (result == 0) {
            result = inspect_model(&recipe, arguments->json, &err);
        }
    }
    int code = result == -1 ? output_error(&err) : 0;
    free(shipped);
    recipe_free(&recipe);
    return code;
}
