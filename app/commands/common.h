/* Steps that several commands share. */
#ifndef WINDROW_APP_COMMANDS_COMMON_H
#define WINDROW_APP_COMMANDS_COMMON_H

#include "app/commands/command.h"
#include "engine/inspect.h"
#include "engine/recipe.h"

/* RECIPE and its key=value words, checked as a whole. `recipe` was initialised by the caller. */
int recipe_from_words(struct recipe *recipe, const char *name, const struct arguments *arguments,
                      struct error *err);

/* Only the key=value words. */
int recipe_take_settings(struct recipe *recipe, const struct arguments *arguments,
                         struct error *err);

/* MODEL of the command line; the models that come along are known by their names too. */
int recipe_take_model(struct recipe *recipe, const char *word, struct error *err);

/* --adapter DIR. */
int recipe_take_adapter(struct recipe *recipe, const struct arguments *arguments,
                        struct error *err);

/* One key with a value that is no text yet, or may hold anything. */
int recipe_set_integer(struct recipe *recipe, const char *key, int64_t value, struct error *err);
int recipe_set_text(struct recipe *recipe, const char *key, const char *value, struct error *err);

/* data.sequence_length: as long as the model was made for, but at most 512 tokens. */
int recipe_fit_length(struct recipe *recipe, struct error *err);

/* A trainer that only looks, with the weights of a model that material_open has found (random ones
 * for a preset). Close with looker_close. */
struct looker {
    struct backend *be;
    struct trainer *trainer;
};
int looker_open(struct looker *looker, const struct recipe *recipe, const struct material *material,
                int64_t positions, struct error *err);
void looker_close(struct looker *looker);

/* "(32, 64)" of dimensions (xmalloc'd). */
char *shape_text(int rank, const int64_t *dim);

#endif
