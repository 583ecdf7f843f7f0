/* What no single row of the table can see. */
#include <stdlib.h>
#include <string.h>

#include "engine/activation/policy.h"
#include "engine/activation/sample.h"
#include "engine/base/file.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"
#include "engine/method/method.h"
#include "engine/optimizer/rule.h"
#include "engine/recipe/combine.h"
#include "engine/recipe/load.h"
#include "kernels/backend.h"

/* A setting whose values are names: a list, or as the room that holds them tells them one by one.
 */
struct known {
    const char *key;
    const char *(*built_at)(size_t index);
    const char *const *built;
};
enum { NAMES_MAX = 16 };

static const char *const built_offload[] = { "none", "host", "ssd", NULL };
static const char *const built_attention[] = { "auto", "own", "cudnn", NULL };

static const struct known known_names[] = {
    { "method.name", method_name, NULL },        { "activation.recompute", activation_name, NULL },
    { "activation.sample", sampler_name, NULL }, { "activation.offload", NULL, built_offload },
    { "optimizer.name", rule_name, NULL },       { "kernel.attention", NULL, built_attention },
};

static bool contains(const char *const *names, const char *name)
{
    for (size_t i = 0; names[i]; i++) {
        if (strcmp(names[i], name) == 0) {
            return true;
        }
    }
    return false;
}

/* The names that are built in, ended by NULL; how many. */
static size_t built_names(const struct known *known, const char *names[NAMES_MAX])
{
    size_t count = 0;
    for (const char *name; count + 1 < NAMES_MAX; names[count++] = name) {
        name = known->built_at ? known->built_at(count) : known->built[count];
        if (!name) {
            break;
        }
    }
    names[count] = NULL;
    return count;
}

static int check_name(const struct known *known, const char *value, struct error *err)
{
    const char *built[NAMES_MAX];
    size_t count = built_names(known, built);
    if (contains(built, value)) {
        return 0;
    }
    struct buffer list = { 0 };
    for (size_t i = 0; i < count; i++) {
        buffer_printf(&list, "%s%s", i ? ", " : "", built[i]);
    }
    fail(err, ERROR_USAGE, "%s=\"%s\" is unknown; available: %s", known->key, text_show(value).text,
         list.text);
    const char *near = nearest_name(value, built, count);
    if (near) {
        hint(err, "did you mean %s?", near);
    }
    buffer_free(&list);
    return -1;
}

static int check_model(const struct recipe *recipe, struct error *err)
{
    if (!recipe->model_path[0] && !recipe->model_preset[0]) {
        fail(err, ERROR_USAGE, "the recipe names no model: model.path and model.preset are empty");
        return hint(err, "add model.path=DIRECTORY, or model.preset=NAME (`windrow models`)");
    }
    if (recipe->model_preset[0] && recipe->model_init == MODEL_PRETRAINED) {
        fail(err, ERROR_USAGE,
             "model.init=pretrained does not go with model.preset=%s, which has "
             "no weights",
             text_show(recipe->model_preset).text);
        return hint(err, "use model.init=random, or model.path=DIRECTORY");
    }
    if (recipe->model_adapter[0] && recipe->model_init == MODEL_RANDOM) {
        fail(err, ERROR_USAGE,
             "model.adapter does not go with random weights: an adapter belongs "
             "to the weights it was trained on");
        return hint(err, "use model.path=DIRECTORY with the adapter's base model");
    }
    if (recipe->tokenizer_vocab > 0 && recipe->model_path[0] &&
        recipe->model_init == MODEL_PRETRAINED) {
        fail(err, ERROR_USAGE,
             "tokenizer.vocab=%lld does not go with the pretrained weights of "
             "model.path",
             (long long)recipe->tokenizer_vocab);
        return hint(err, "leave tokenizer.vocab at 0: the model's own tokenizer is used");
    }
    return 0;
}

static int check_length(const struct recipe *recipe, struct error *err)
{
    if (recipe->train_steps == 0 && recipe->train_epochs <= 0.0) {
        fail(err, ERROR_USAGE, "train.steps and train.epochs are both 0: there is nothing to do");
        return hint(err, "set one of them, for example train.steps=1000");
    }
    int64_t positions = recipe->batch_micro * recipe->data_sequence_length;
    if (positions > INT32_MAX) {
        fail(err, ERROR_USAGE,
             "batch.micro=%lld times data.sequence_length=%lld is %lld tokens, "
             "more than %d",
             (long long)recipe->batch_micro, (long long)recipe->data_sequence_length,
             (long long)positions, INT32_MAX);
        return hint(err, "lower batch.micro and raise batch.accumulate");
    }
    double fraction = 0.0;
    if (text_to_double(recipe->data_validation, &fraction) &&
        !(fraction >= 0.0 && fraction < 1.0)) {
        fail(err, ERROR_USAGE,
             "data.validation must be a path or a fraction below 1, "
             "found \"%s\"",
             text_show(recipe->data_validation).text);
        return hint(err, "leave it empty for no validation");
    }
    return 0;
}

static int check_method(const struct recipe *recipe, struct error *err)
{
    bool grass = strcmp(recipe->method_name, "grass") == 0;
    if (grass && recipe->method_selection == SELECT_TOP &&
        (recipe->method_unbiased || recipe->method_replacement)) {
        fail(err, ERROR_USAGE,
             "method.%s=true does not go with method.selection=top, which "
             "chooses nothing at random",
             recipe->method_unbiased ? "unbiased" : "replacement");
        return hint(err, "use method.selection=norm, norm2 or uniform");
    }
    if (recipe->method_targets[0] == '\0') {
        fail(err, ERROR_USAGE, "method.targets is empty");
        return hint(err, "use all, or patterns such as q_proj,v_proj");
    }
    if (strcmp(recipe->method_name, "galore") == 0 &&
        recipe->method_projection == METHOD_PROJECTION_SVD && !op_eigenvectors_built()) {
        fail(err, ERROR_USAGE,
             "method.projection=svd is not built into this program: LAPACK was not found");
        return hint(err, "use method.projection=subspace, or install liblapack-dev and build anew");
    }
    return combine_check(recipe, err);
}

static int check_device(const struct recipe *recipe, struct error *err)
{
    const char *device = recipe->device;
    if (strcmp(device, "auto") == 0 || strcmp(device, "cpu") == 0) {
        return 0;
    }
    int64_t index = 0;
    bool cuda = strcmp(device, "cuda") == 0;
    if (!cuda && strncmp(device, "cuda:", 5) == 0) {
        cuda = text_to_integer(device + 5, &index) && index >= 0 && index < 1024;
    }
    if (!cuda) {
        return fail(err, ERROR_USAGE, "device must be auto, cpu, cuda or cuda:N, found \"%s\"",
                    text_show(device).text);
    }
    char why[256] = "";
    if (backend_find("cuda", (int)index, why, sizeof why) != 0) {
        fail(err, ERROR_USAGE, "device=%s cannot be used: %s", device, why);
        return hint(err, "use device=cpu, or device=auto");
    }
    return 0;
}

struct backend_options recipe_backend_options(const struct recipe *recipe)
{
    const char *name = recipe->kernel_attention;
    return (struct backend_options){ .attention = strcmp(name, "cudnn") == 0 ? ATTENTION_CUDNN
                                                  : strcmp(name, "own") == 0 ? ATTENTION_OWN
                                                                             : ATTENTION_AUTO,
                                     .deterministic = recipe->train_deterministic };
}

int recipe_check(const struct recipe *recipe, struct error *err)
{
    for (size_t i = 0; i < sizeof known_names / sizeof known_names[0]; i++) {
        char *value = field_text(recipe_field(known_names[i].key), recipe);
        int result = check_name(&known_names[i], value, err);
        free(value);
        if (result != 0) {
            return -1;
        }
    }
    if (check_method(recipe, err) != 0 || check_model(recipe, err) != 0 ||
        check_length(recipe, err) != 0) {
        return -1;
    }
    return check_device(recipe, err);
}

char *recipe_method_keys(const struct recipe *recipe)
{
    const struct method_ops *method = method_find(recipe->method_name);
    struct buffer list = { 0 };
    for (size_t i = 0; method && method->keys && method->keys[i]; i++) {
        buffer_printf(&list, "%s%s", i ? ", " : "", method->keys[i]);
    }
    return list.text ? list.text : xstrdup("");
}

bool recipe_evaluates(const struct recipe *recipe)
{
    double fraction;
    bool none = recipe->data_validation[0] == '\0' ||
                (text_to_double(recipe->data_validation, &fraction) && fraction == 0.0);
    return !none && recipe->train_eval_every > 0;
}
