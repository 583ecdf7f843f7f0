/* Comparing the names and shapes of files with those that a configuration asks for. */
#include "engine/model/model_weights.h"

#include <string.h>

#include "engine/base/text.h"

static bool is_known(const struct model *model, const char *name)
{
    if (model->config.tied && strcmp(name, "lm_head.weight") == 0) {
        return true;
    }
    for (int64_t i = 0; i < model->parameter_count; i++) {
        if (strcmp(name, model->parameter[i].name) == 0) {
            return true;
        }
    }
    return false;
}

/* A tensor that the model does not know means that the model is another one: training on would
 * lose it. */
static int check_extra(const struct model *model, const struct weights_source *source,
                       struct error *err)
{
    if (weights_count(source) == (size_t)model->parameter_count) {
        return 0; /* names are distinct, and all of the model's were found */
    }
    for (size_t i = 0; i < weights_count(source); i++) {
        struct weights_tensor tensor = weights_get(source, i);
        if (!is_known(model, tensor.tensor->name)) {
            fail(err, ERROR_DATA, "%s: tensor \"%s\" is not part of a %s model with %lld layers",
                 text_show(tensor.file->path).text, text_show(tensor.tensor->name).text,
                 model->config.family, (long long)model->config.layers);
            return hint(err, "config.json and the weights must belong together");
        }
    }
    return 0;
}

int model_check_weights(const struct model_config *config, const struct weights_source *source,
                        struct error *err)
{
    struct model model;
    if (model_init(&model, config, DTYPE_F32, 1, err) != 0) {
        return -1;
    }
    int result = 0;
    for (int64_t i = 0; result == 0 && i < model.parameter_count; i++) {
        const struct parameter *p = &model.parameter[i];
        struct weights_tensor tensor;
        result = weights_require(source, p->name, p->rank, p->dim, &tensor, err);
    }
    if (result == 0) {
        result = check_extra(&model, source, err);
    }
    model_free(&model);
    return result;
}
