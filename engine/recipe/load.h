/* Between the files of this room. */
#ifndef WINDROW_ENGINE_RECIPE_LOAD_H
#define WINDROW_ENGINE_RECIPE_LOAD_H

#include <cjson/cJSON.h>

#include "engine/recipe.h"

enum { RECIPE_FIELD_LIMIT = 128 };

/* The value of a key as it is written into a file. */
cJSON *recipe_value(const struct field *field, const struct recipe *recipe);

/* Sets one key and undoes what it excludes: model.path and model.preset, tokenizer.path and
 * tokenizer.vocab, train.steps and train.epochs; the one set last wins. `folder` (may be NULL: the
 * current one) is where relative paths start. */
int recipe_assign(struct recipe *recipe, const struct field *field, const char *text,
                  const char *folder, struct error *err);

/* An error that names the nearest known key. Always -1. */
int recipe_refuse_key(const char *key, struct error *err);

/* "presets/<kind>/<name>.json" if that is a file (xmalloc'd), or NULL. */
char *preset_path(const char *kind, const char *name);

/* Lays a parsed recipe over this one; `path` is where it came from. */
int recipe_parse(struct recipe *recipe, const cJSON *root, const char *path, struct error *err);

#endif
