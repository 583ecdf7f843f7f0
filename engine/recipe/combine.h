/*
 * Settings that are fine alone and make no sense together.
 *
 * One table: each line says which recipes it refuses, why in a sentence, and what to do instead.
 */
#ifndef WINDROW_ENGINE_RECIPE_COMBINE_H
#define WINDROW_ENGINE_RECIPE_COMBINE_H

#include "engine/recipe.h"

/* 0, or -1 with the sentence and the hint of the first line that refuses the recipe. */
int combine_check(const struct recipe *recipe, struct error *err);

/* The sentences of the table, one by one; NULL past the last. */
const char *combine_sentence(size_t index);

#endif
