/* Steps that several commands share. */
#include "app/commands/common.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/commands/output.h"
#include "engine/base/file.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"
#include "engine/device.h"
#include "engine/generate.h"
#include "engine/inspect.h"

int recipe_take_settings(struct recipe *recipe, const struct arguments *arguments,
                         struct error *err)
{
    for (size_t i = 0; i < arguments->setting_count; i++) {
        if (recipe_set(recipe, arguments->setting[i], err) == -1) {
            return -1;
        }
    }
    return 0;
}

int recipe_from_words(struct recipe *recipe, const char *name, const struct arguments *arguments,
                      struct error *err)
{
    if (recipe_find(recipe, name, err) == -1 ||
        recipe_take_settings(recipe, arguments, err) == -1) {
        return -1;
    }
    return recipe_check(recipe, err);
}

int recipe_take_model(struct recipe *recipe, const char *word, struct error *err)
{
    const char *root = preset_directory();
    char *shipped = root == NULL || strchr(word, '/') != NULL || word[0] == '\0' || word[0] == '.'
                        ? NULL
                        : xasprintf("%s/checkpoints/%s", root, word);
    bool use = shipped != NULL && !file_exists(word) && file_is_directory(shipped);
    int result = material_model(recipe, use ? shipped : word, err);
    free(shipped);
    return result;
}

int recipe_take_adapter(struct recipe *recipe, const struct arguments *arguments, struct error *err)
{
    const char *directory = option_text(arguments, "adapter");
    return directory == NULL ? 0 : recipe_set_text(recipe, "model.adapter", directory, err);
}

int recipe_set_text(struct recipe *recipe, const char *key, const char *value, struct error *err)
{
    char *assignment = xasprintf("%s=%s", key, value);
    int result = recipe_set(recipe, assignment, err);
    free(assignment);
    return result;
}

int recipe_set_integer(struct recipe *recipe, const char *key, int64_t value, struct error *err)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)value);
    return recipe_set_text(recipe, key, text, err);
}

int recipe_fit_length(struct recipe *recipe, struct error *err)
{
    enum { LENGTH_MAX = 512 };
    struct material material;
    /* The length is not known yet; one token fits any model. */
    if (recipe_set_integer(recipe, "data.sequence_length", 1, err) == -1 ||
        material_open(recipe, MATERIAL_CONFIG, NULL, &material, err) == -1) {
        return -1;
    }
    int64_t positions = material.config.max_positions;
    material_close(&material);
    return recipe_set_integer(recipe, "data.sequence_length",
                              positions < LENGTH_MAX ? positions : LENGTH_MAX, err);
}

static void tell(void *context, const char *text)
{
    (void)context;
    output_say("%s", text);
}

int looker_open(struct looker *looker, const struct recipe *recipe, const struct material *material,
                int64_t positions, struct error *err)
{
    *looker =
        (struct looker){ .be = device_open(recipe, &(struct device_listener){ tell, NULL }, err) };
    if (looker->be == NULL) {
        return -1;
    }
    bool trained = material->model_directory[0] != '\0';
    struct adapter *adapter = NULL;
    struct weights_source *source = trained ? weights_open(material->model_directory, err) : NULL;
    bool found = !trained || source != NULL;
    if (found && material->adapter_directory[0] != '\0') {
        adapter = adapter_open(material->adapter_directory, &material->config, err);
        found = adapter != NULL;
    }
    if (found && adapter != NULL) {
        weights_lay_adapter(source, adapter);
    }
    if (found) {
        looker->trainer = inference_open(&(struct inference_options){ .recipe = recipe,
                                                                      .config = &material->config,
                                                                      .be = looker->be,
                                                                      .source = source,
                                                                      .positions = positions },
                                         err);
    }
    weights_close(source);
    adapter_close(adapter);
    if (looker->trainer == NULL) {
        looker_close(looker);
        return -1;
    }
    return 0;
}

void looker_close(struct looker *looker)
{
    trainer_close(looker->trainer);
    if (looker->be != NULL) {
        device_close(looker->be);
    }
    *looker = (struct looker){ 0 };
}

char *shape_text(int rank, const int64_t *dim)
{
    struct buffer out = { 0 };
    buffer_printf(&out, "(");
    for (int i = 0; i < rank; i++) {
        buffer_printf(&out, "%s%lld", i == 0 ? "" : ", ", (long long)dim[i]);
    }
    buffer_printf(&out, ")");
    return out.text;
}
