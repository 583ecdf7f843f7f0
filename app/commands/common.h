/* Steps that several commands share. */
#ifndef WINDROW_APP_COMMANDS_COMMON_H
#define WINDROW_APP_COMMANDS_COMMON_H

#include "app/commands/command.h"
#include "engine/recipe/recipe.h"

/* RECIPE and its key=value words, checked as a whole. `recipe` was initialised by the caller. */
int recipe_from_words(struct recipe *recipe, const char *name, const struct arguments *arguments,
                      struct error *err);

/* Only the key=value words. */
int recipe_take_settings(struct recipe *recipe, const struct arguments *arguments,
                         struct error *err);

/* "(32, 64)" of dimensions (xmalloc'd). */
char *shape_text(int rank, const int64_t *dim);

#endif
