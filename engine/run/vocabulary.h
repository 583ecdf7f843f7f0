/* Training a tokenizer on the data of a recipe. */
#ifndef WINDROW_ENGINE_RUN_VOCABULARY_H
#define WINDROW_ENGINE_RUN_VOCABULARY_H

#include <stddef.h>

#include "engine/base/error.h"
#include "engine/recipe.h"

/* Bytes of a SentencePiece model of recipe tokenizer.vocab pieces, trained on the lines of the
 * training text (or the texts in its records), of the first 32 MiB. free(). The same data give the
 * same bytes. */
void *vocabulary_train(const struct recipe *recipe, size_t *size, struct error *err);

/* What data.train means: a path as it is, or the name of a data set that comes with the program.
 * xmalloc'd. */
char *material_data_path(const char *data);

#endif
