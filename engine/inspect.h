/*
 * Finding and opening what a recipe names: configuration, weights, tokenizer, data. Shared by the
 * run, the plan and the commands that only look.
 */
#ifndef WINDROW_ENGINE_INSPECT_H
#define WINDROW_ENGINE_INSPECT_H

#include "engine/dataset.h"
#include "engine/model/config.h"
#include "engine/model/hf_directory.h"
#include "engine/model/weights.h"
#include "engine/plan.h"
#include "engine/recipe.h"

struct material {
    struct model_config config;
    char *model_name;        /* for screens */
    char *model_directory;   /* "" for a preset with random weights */
    char *adapter_directory; /* of model.adapter, or of an adapter that lies with the model; "" */
    struct tokenizer *tokenizer; /* NULL only if `need_tokenizer` was false and none was found */
    void *tokenizer_bytes;       /* the model file, for export and checkpoints */
    size_t tokenizer_size;
    char *tokenizer_directory; /* where its files lie, "" if it is one file alone */
    char *chat_template;       /* text, or NULL */
    struct dataset *dataset;   /* NULL if not asked for */
};

enum material_parts {
    MATERIAL_CONFIG = 0,
    MATERIAL_TOKENIZER = 1,
    MATERIAL_DATA = 2,
    MATERIAL_BEGINNING = 4 /* with DATA: only about the first half MiB of it, for previews */
};

/* Reads what the recipe names. With MATERIAL_CONFIG alone only config.json or the model preset is
 * read, which is enough for a plan. tokenizer.vocab trains SentencePiece on the training text. The
 * configuration's vocabulary must cover the tokenizer; for a model.preset it becomes the
 * tokenizer's. */
int material_open(const struct recipe *recipe, int parts, const struct dataset_progress *progress,
                  struct material *out, struct error *err);
void material_close(struct material *material);

/* If the recipe goes on with the adapter of model.adapter (method lora): sets its rank, alpha,
 * targets and patterns to what the files hold. Before a plan is made. */
int material_adapter_settings(struct recipe *recipe, const struct material *material,
                              struct error *err);
/* Whether it does. */
bool material_continues_adapter(const struct recipe *recipe);

/* The recipe of MODEL words on the command line: a directory, a name in the Hugging Face cache, a
 * file of presets/models, or a run (its newest checkpoint). Sets model_path or model_preset. */
int material_model(struct recipe *recipe, const char *model, struct error *err);

#endif
