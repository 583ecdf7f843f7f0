/* From patterns to flags. */
#include "engine/method/targets.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/field.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"
#include "engine/model/pattern.h"

/* A list of patterns and what it may name. */
struct list {
    const char *key;
    const char *text;
    bool matrices; /* only matrices of blocks */
    double most;   /* > 0: each pattern has a number of 1 .. most (above 0 for alpha) */
};

static bool is_named(const struct list *list, const struct parameter *p)
{
    return !list->matrices || p->role == PARAMETER_MATRIX;
}

static bool is_number(const char *word)
{
    return word[0] != '\0' && strspn(word, "0123456789") == strlen(word);
}

/* The word of a parameter's name that is nearest to the last word of the pattern, in `near`. */
static bool nearest_word(const struct model *model, const struct list *list, const char *pattern,
                         char near[96])
{
    enum { WORDS_MAX = 32 };
    char words[WORDS_MAX][96];
    const char *names[WORDS_MAX];
    size_t count = 0;
    for (int64_t i = 0; i < model->parameter_count; i++) {
        const char *at = model->parameter[i].name;
        while (is_named(list, &model->parameter[i]) && at[0] != '\0' && count < WORDS_MAX) {
            size_t size = strcspn(at, ".");
            snprintf(words[count], sizeof words[count], "%.*s", (int)size, at);
            bool known = is_number(words[count]) || strcmp(words[count], "weight") == 0;
            for (size_t k = 0; k < count && !known; k++) {
                known = strcmp(words[k], words[count]) == 0;
            }
            if (!known) {
                names[count] = words[count];
                count++;
            }
            at += at[size] == '.' ? size + 1 : size;
        }
    }
    const char *last = strrchr(pattern, '.');
    const char *found = nearest_name(last ? last + 1 : pattern, names, count);
    if (!found) {
        char first[96];
        snprintf(first, sizeof first, "%.*s", (int)strcspn(pattern, "."), pattern);
        found = nearest_name(first, names, count);
    }
    if (found) {
        snprintf(near, 96, "%s", found);
    }
    return found != NULL;
}

static int refuse(const struct model *model, const struct list *list, const char *pattern,
                  struct error *err)
{
    char near[96];
    fail(err, ERROR_USAGE, "%s: \"%s\" fits no %s of this model of %lld blocks", list->key,
         text_show(pattern).text, list->matrices ? "matrix" : "parameter",
         (long long)model->config.layers);
    if (model->config.tied && strstr(pattern, "lm_head")) {
        return hint(err, "the head of this model is its embedding: embed_tokens");
    }
    if (nearest_word(model, list, pattern, near) && !strstr(pattern, near)) {
        return hint(err, "did you mean %s?", near);
    }
    return hint(err, "patterns are such as q_proj, mlp, layers.0-%lld or layers.*.down_proj",
                (long long)(model->config.layers - 1));
}

static int check_number(const struct list *list, const struct pattern *pattern, struct error *err)
{
    char text[40];
    double value = 0.0;
    bool rank = strcmp(list->key, "method.rank_pattern") == 0;
    bool good = pattern->value != NULL && pattern->value_size < sizeof text;
    if (good) {
        memcpy(text, pattern->value, pattern->value_size);
        text[pattern->value_size] = '\0';
        good = text_to_double(text, &value) && value > 0.0 && value <= list->most &&
               (!rank || (value >= 1.0 && value == (double)(int64_t)value));
    }
    if (good) {
        return 0;
    }
    fail(err, ERROR_USAGE, "%s: \"%.*s\" must be followed by '=' and a %s", list->key,
         (int)(pattern->size < 80 ? pattern->size : 80), pattern->text,
         rank ? "whole number of 1 or more" : "number above 0");
    return hint(err, "for example %s=q_proj=16,layers.0=4", list->key);
}

static int check_list(const struct model *model, const struct list *list, struct error *err)
{
    struct pattern pattern;
    const char *rest = list->text;
    while (pattern_next(&rest, &pattern)) {
        bool fits = false;
        for (int64_t i = 0; i < model->parameter_count && !fits; i++) {
            const struct parameter *p = &model->parameter[i];
            fits = is_named(list, p) && pattern_fits(&pattern, p->name);
        }
        if (!fits) {
            char *text = xstrndup(pattern.text, pattern.size);
            refuse(model, list, text, err);
            free(text);
            return -1;
        }
        if (list->most > 0.0 && check_number(list, &pattern, err) != 0) {
            return -1;
        }
        if (list->most == 0.0 && pattern.value) {
            return fail(err, ERROR_USAGE, "%s: \"%.60s\": numbers do not belong here", list->key,
                        pattern.text);
        }
    }
    return 0;
}

/* The lowest block whose backward is wanted. */
static int64_t first_trained(const struct model *model)
{
    if (!model->embedding->frozen) {
        return 0;
    }
    for (int64_t i = 0; i < model->config.layers; i++) {
        const struct block *block = &model->block[i];
        if (!block->norm1->frozen || !block->norm2->frozen || !block->qkv->idle ||
            !block->o->idle || !block->gate_up->idle || !block->down->idle) {
            return i;
        }
    }
    return model->config.layers;
}

int targets_apply(struct model *model, const struct targets *targets, struct error *err)
{
    const struct list lists[] = {
        { "method.targets", targets->trained, true, 0.0 },
        { "method.frozen", targets->frozen, false, 0.0 },
        { "method.rank_pattern", targets->rank_pattern, true, 65536.0 },
        { "method.alpha_pattern", targets->alpha_pattern, true, 1e6 },
    };
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        if (check_list(model, &lists[i], err) != 0) {
            return -1;
        }
    }
    bool any = false;
    for (int64_t i = 0; i < model->parameter_count; i++) {
        struct parameter *p = &model->parameter[i];
        bool matrix = p->role == PARAMETER_MATRIX;
        p->idle = pattern_list_fits(targets->frozen, p->name) ||
                  (matrix ? !pattern_list_fits(targets->trained, p->name) : targets->adapters);
        p->frozen = p->idle || targets->adapters;
        any = any || !p->idle;
    }
    for (int64_t i = 0; i < model->linear_count; i++) {
        struct linear *linear = &model->linear[i];
        linear->idle = true;
        for (int k = 0; k < linear->part_count; k++) {
            linear->idle = linear->idle && linear->part[k].parameter->idle;
        }
    }
    if (!any) {
        fail(err, ERROR_USAGE, "method.targets and method.frozen leave nothing to train");
        return hint(err, "name fewer parameters in method.frozen");
    }
    model->first_trained = first_trained(model);
    return 0;
}
