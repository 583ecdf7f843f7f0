/*
 * Where models lie: directories, and the Hugging Face cache, which is only read.
 *
 * The cache is $HF_HUB_CACHE, else $HUGGINGFACE_HUB_CACHE, else $HF_HOME/hub, else
 * ${XDG_CACHE_HOME:-~/.cache}/huggingface/hub. A model ORG/NAME lies in models--ORG--NAME/;
 * refs/REVISION holds a commit, snapshots/COMMIT/ its files (links into blobs/).
 */
#ifndef WINDROW_ENGINE_MODEL_HF_DIRECTORY_H
#define WINDROW_ENGINE_MODEL_HF_DIRECTORY_H

#include <stddef.h>

#include "engine/base/error.h"

/* The directory of a model: a directory with a config.json, or ORG/NAME[@REVISION] in the cache
 * (revision: a branch or tag that was fetched, or a commit; "main" if none is given, and then the
 * newest snapshot if there is no main, with a sentence in `notice`). Returned and notice are
 * xmalloc'd; notice is NULL if there is nothing to say. NULL with an error that says where was
 * looked. */
char *hf_directory_resolve(const char *name, char **notice, struct error *err);

/* The root of the cache (xmalloc'd), whether it exists or not; NULL if no home is known. */
char *hf_directory_cache(void);

/* Names ORG/NAME of the models in the cache that have a snapshot with a config.json, sorted. Frees:
 * each and the list with free(). An absent cache is an empty list. */
int hf_directory_list(char ***names, size_t *count, struct error *err);

#endif
