/* Describing adapters: adapter_config.json, and the settings of a recipe. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/file.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"
#include "engine/model/adapter.h"

/* "model.layers.0.self_attn.q_proj", xmalloc'd. */
static char *module_of(const struct adapter_entry *entry)
{
    return xstrndup(entry->parameter, strlen(entry->parameter) - strlen(".weight"));
}

/* The last word of the module: "q_proj", xmalloc'd. */
static char *kind_of(const struct adapter_entry *entry)
{
    char *module = module_of(entry);
    const char *point = strrchr(module, '.');
    char *kind = xstrdup(point ? point + 1 : module);
    free(module);
    return kind;
}

static double alpha_of(const struct adapter_entry *entry)
{
    /* Scales come as floats of alpha / rank: this finds the alpha that was meant. */
    double alpha = entry->scale * (double)entry->rank;
    char text[TEXT_NUMBER_SIZE];
    double found = alpha;
    text_from_float(text, (float)alpha);
    return text_to_double(text, &found) ? found : alpha;
}

/* Kinds that are adapted, distinct, in the order of the model; how many. */
static size_t list_kinds(const struct adapter_entry *entry, size_t count, char *kinds[16])
{
    size_t kind_count = 0;
    for (size_t i = 0; i < count; i++) {
        char *kind = kind_of(&entry[i]);
        bool known = false;
        for (size_t k = 0; k < kind_count; k++) {
            known = known || strcmp(kinds[k], kind) == 0;
        }
        if (known || kind_count == 16) {
            free(kind);
        } else {
            kinds[kind_count++] = kind;
        }
    }
    return kind_count;
}

/* Whether every kind is adapted in the same number of blocks as any other, and in the blocks
 * 0 .. last without a hole. */
static int64_t blocks_of(const struct adapter_entry *entry, size_t count, size_t kinds)
{
    int64_t last = -1;
    for (size_t i = 0; i < count; i++) {
        long long layer = -1;
        if (sscanf(entry[i].parameter, "model.layers.%lld.", &layer) == 1 && layer > last) {
            last = (int64_t)layer;
        }
    }
    return kinds > 0 && count == kinds * (size_t)(last + 1) ? last + 1 : -1;
}

static void add_patterns(cJSON *ranks, cJSON *alphas, const struct adapter_entry *entry,
                         const struct adapter_entry *usual)
{
    char *module = module_of(entry);
    if (entry->rank != usual->rank) {
        cJSON_AddNumberToObject(ranks, module, (double)entry->rank);
    }
    if (alpha_of(entry) != alpha_of(usual)) {
        cJSON_AddNumberToObject(alphas, module, alpha_of(entry));
    }
    free(module);
}

/* Only keys that every peft since 0.6 knows: older ones refuse what they do not know, newer ones
 * take what is absent (use_dora, use_rslora) as false. */
cJSON *adapter_config(const struct adapter_entry *entry, size_t count, const char *base)
{
    char *kinds[16];
    size_t kind_count = list_kinds(entry, count, kinds);
    bool regular = blocks_of(entry, count, kind_count) > 0;
    cJSON *json = cJSON_CreateObject();
    cJSON *targets = cJSON_CreateArray();
    cJSON *ranks = cJSON_CreateObject();
    cJSON *alphas = cJSON_CreateObject();
    for (size_t i = 0; i < kind_count; i++) {
        if (regular) {
            cJSON_AddItemToArray(targets, cJSON_CreateString(kinds[i]));
        }
        free(kinds[i]);
    }
    for (size_t i = 0; i < count; i++) {
        char *module = module_of(&entry[i]);
        if (!regular) {
            cJSON_AddItemToArray(targets, cJSON_CreateString(module));
        }
        add_patterns(ranks, alphas, &entry[i], &entry[0]);
        free(module);
    }
    cJSON_AddItemToObject(json, "alpha_pattern", alphas);
    cJSON_AddStringToObject(json, "base_model_name_or_path", base);
    cJSON_AddStringToObject(json, "bias", "none");
    cJSON_AddFalseToObject(json, "fan_in_fan_out");
    cJSON_AddTrueToObject(json, "inference_mode");
    cJSON_AddTrueToObject(json, "init_lora_weights");
    cJSON_AddNullToObject(json, "layers_to_transform");
    cJSON_AddNumberToObject(json, "lora_alpha", alpha_of(&entry[0]));
    cJSON_AddNumberToObject(json, "lora_dropout", 0.0);
    cJSON_AddNullToObject(json, "modules_to_save");
    cJSON_AddStringToObject(json, "peft_type", "LORA");
    cJSON_AddNumberToObject(json, "r", (double)entry[0].rank);
    cJSON_AddItemToObject(json, "rank_pattern", ranks);
    cJSON_AddNullToObject(json, "revision");
    cJSON_AddItemToObject(json, "target_modules", targets);
    cJSON_AddStringToObject(json, "task_type", "CAUSAL_LM");
    return json;
}

/* ---- as settings ---------------------------------------------------------------------------- */

static char *number_text(double value)
{
    char text[TEXT_NUMBER_SIZE];
    text_from_double(text, value);
    return xstrdup(text);
}

static void add_item(struct buffer *list, const char *name, const char *value)
{
    buffer_printf(list, "%s%s%s%s", list->size > 0 ? "," : "", name, value ? "=" : "",
                  value ? value : "");
}

static char *taken(struct buffer *list)
{
    return list->text ? list->text : xstrdup("");
}

void adapter_settings(const struct adapter *adapter, const struct model_config *config,
                      struct adapter_settings *out)
{
    char *kinds[16];
    const struct adapter_entry *usual = &adapter->entry[0];
    size_t kind_count = list_kinds(adapter->entry, adapter->count, kinds);
    bool regular = blocks_of(adapter->entry, adapter->count, kind_count) == config->layers;
    struct buffer targets = { 0 };
    struct buffer ranks = { 0 };
    struct buffer alphas = { 0 };
    for (size_t i = 0; i < kind_count; i++) {
        if (regular) {
            add_item(&targets, kinds[i], NULL);
        }
        free(kinds[i]);
    }
    for (size_t i = 0; i < adapter->count; i++) {
        const struct adapter_entry *entry = &adapter->entry[i];
        char *module = module_of(entry);
        char *alpha = number_text(entry->scale * (double)entry->rank);
        char *rank = number_text((double)entry->rank);
        if (!regular) {
            add_item(&targets, module, NULL);
        }
        if (entry->rank != usual->rank) {
            add_item(&ranks, module, rank);
        }
        if (entry->scale * (double)entry->rank != usual->scale * (double)usual->rank) {
            add_item(&alphas, module, alpha);
        }
        free(module);
        free(alpha);
        free(rank);
    }
    *out = (struct adapter_settings){ .rank = number_text((double)usual->rank),
                                      .alpha = number_text(usual->scale * (double)usual->rank),
                                      .targets = taken(&targets),
                                      .rank_pattern = taken(&ranks),
                                      .alpha_pattern = taken(&alphas) };
}

void adapter_settings_free(struct adapter_settings *settings)
{
    free(settings->rank);
    free(settings->alpha);
    free(settings->targets);
    free(settings->rank_pattern);
    free(settings->alpha_pattern);
}
