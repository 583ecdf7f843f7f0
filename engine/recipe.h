/*
 * A recipe: every setting of a run, resolved, every default included.
 *
 * It is made from defaults, then a preset or recipe file, then key=value words; each step may only
 * name known keys. recipe_fields is the one table behind all of that.
 */
#ifndef WINDROW_ENGINE_RECIPE_H
#define WINDROW_ENGINE_RECIPE_H

#include "engine/base/error.h"
#include "engine/base/field.h"
#include "engine/dataset.h"
#include "kernels/ops.h"

enum model_init { MODEL_PRETRAINED, MODEL_RANDOM };
/* The format that gradients are exchanged in between ranks. */
enum precision_exchange { EXCHANGE_GRADIENT, EXCHANGE_BF16, EXCHANGE_FP32 };
enum method_embedding { METHOD_EMBEDDING_DENSE, METHOD_EMBEDDING_ROWS };
enum method_inputs { METHOD_INPUTS_WHOLE, METHOD_INPUTS_COLUMNS };
enum method_head { METHOD_HEAD_FULL, METHOD_HEAD_ROWS };
enum method_side { METHOD_SIDE_OUT, METHOD_SIDE_IN, METHOD_SIDE_SHORT };
enum method_projection { METHOD_PROJECTION_SUBSPACE, METHOD_PROJECTION_SVD };
enum method_moments { METHOD_MOMENTS_KEEP, METHOD_MOMENTS_ROTATE, METHOD_MOMENTS_RESET };
enum state_format { STATE_FP32, STATE_BF16, STATE_INT8 };
enum anchor_step { ANCHOR_STEP_HARMONIC, ANCHOR_STEP_FULL };
enum schedule_name { SCHEDULE_CONSTANT, SCHEDULE_LINEAR, SCHEDULE_COSINE, SCHEDULE_WSD };

struct recipe {
    char *name;   /* of the file it came from, without extension; "" if made by hand */
    char *intent; /* one sentence, from the key "intent"; "" if none */

    /* model */
    char *model_path;
    char *model_preset;
    int model_init; /* enum model_init */
    char *model_adapter;
    char *tokenizer_path;
    int64_t tokenizer_vocab; /* 0: none is trained */

    /* data */
    char *data_train;
    char *data_validation;
    int data_format; /* enum data_format */
    char *data_template;
    int64_t data_sequence_length;
    bool data_shuffle;
    bool data_pack;
    bool data_train_on_prompt;

    /* method */
    char *method_name; /* known names are checked against the table of methods */
    int64_t method_rank;
    int64_t method_interval;
    int method_selection; /* enum select_rule */
    bool method_replacement;
    bool method_unbiased;
    int method_side;      /* enum method_side */
    int method_inputs;    /* enum method_inputs */
    int method_head;      /* enum method_head */
    int method_embedding; /* enum method_embedding */
    double method_scale;
    bool method_carry;
    int64_t method_refresh_warmup;
    int method_projection; /* enum method_projection */
    int method_moments;    /* enum method_moments */
    bool method_stagger;
    int64_t method_sketch;           /* 0: exact norms */
    int64_t method_unselected_every; /* 0: never */
    double method_unselected_scale;
    bool method_exact_rows;
    char *method_targets;
    char *method_frozen;
    char *method_rank_pattern;
    char *method_alpha_pattern;
    double method_alpha;

    /* activation */
    char *activation_recompute;
    char *activation_sample;
    double activation_keep;
    char *activation_offload;
    char *activation_offload_dir;
    int64_t activation_resident;

    /* optimizer and schedule */
    char *optimizer_name;
    double optimizer_lr;
    double optimizer_beta1;
    double optimizer_beta2;
    double optimizer_eps;
    double optimizer_weight_decay;
    int optimizer_state; /* enum state_format */
    int64_t optimizer_anchor_interval;
    double optimizer_anchor_weight;
    int optimizer_anchor_step; /* enum anchor_step */
    int schedule_name;         /* enum schedule_name */
    int64_t schedule_warmup;
    double schedule_floor;

    /* batch and length */
    int64_t batch_micro;
    int64_t batch_accumulate;
    int64_t train_steps; /* 0: by epochs */
    double train_epochs; /* 0: by steps */
    double train_clip;
    int64_t train_seed;
    int64_t train_eval_every;
    int64_t train_save_every;
    int64_t train_keep;
    bool train_export;
    int64_t train_sample_every;
    char *train_sample_prompt;
    bool train_deterministic;

    /* precision and device */
    int precision_weights;  /* enum dtype: DTYPE_F32 or DTYPE_BF16 */
    int precision_rounding; /* enum rounding */
    int precision_exchange; /* enum precision_exchange */
    char *device;
    int64_t memory_limit; /* bytes; 0: what the device has */
    char *kernel_attention;

    char *compare_methods;
};

/* The table; ends with a row whose key is NULL. */
extern const struct field recipe_fields[];
const struct field *recipe_field(const char *key);

/* Defaults. Release with recipe_free. */
void recipe_init(struct recipe *recipe);
void recipe_free(struct recipe *recipe);
/* `to` was initialised (or is all zero); what it held is released. */
void recipe_copy(struct recipe *to, const struct recipe *from);

/* Lays the keys of a JSON file over the recipe. Relative paths in it (model.path, data.train ...)
 * that exist beside the file are made absolute. A file may name a preset to start from with the key
 * "preset". Unknown keys are errors that name the nearest known one. */
int recipe_load(struct recipe *recipe, const char *path, struct error *err);

/* Finds RECIPE: a path, or a name in presets/recipes, presets/methods or presets/cards, and loads
 * it. */
int recipe_find(struct recipe *recipe, const char *name, struct error *err);

/* One "key=value" word. */
int recipe_set(struct recipe *recipe, const char *assignment, struct error *err);

/* What no single row can see: keys that exclude or need each other, methods, rules, policies and
 * devices that are not built in (by name, with what exists). */
int recipe_check(const struct recipe *recipe, struct error *err);

/* The keys "method..." that the recipe's method reads, joined by ", " (xmalloc'd; "" if unknown).
 */
char *recipe_method_keys(const struct recipe *recipe);

/* What the recipe asks of a backend, for backend_configure. */
struct backend_options recipe_backend_options(const struct recipe *recipe);

/* Whether the run evaluates: there is validation data, and an interval to look at it. */
bool recipe_evaluates(const struct recipe *recipe);

/* Indented JSON of every key, nested by the dots (xmalloc'd). Reading it gives the same recipe. */
char *recipe_json(const struct recipe *recipe);

/* The folder of presets: $WINDROW_PRESETS, else beside the program (share/windrow/presets, or
 * presets of the source tree for a build there). NULL if none is found. Owned by the callee. */
const char *preset_directory(void);

/* The folder of the user's own presets, $XDG_CONFIG_HOME/windrow/presets or
 * ~/.config/windrow/presets, whether it exists or not (xmalloc'd); NULL without a home. A preset in
 * it stands before one of the same name that comes along. */
char *preset_user_directory(void);

/* Names (without .json) and intents in presets/<kind> of both folders, sorted by name; kind:
 * "methods", "models", "recipes", "cards". The list and its strings are freed with
 * preset_list_free. */
struct preset {
    char *name;
    char *path;
    char *intent;
    bool own; /* the user's */
};
struct preset_list {
    struct preset *item;
    size_t count;
};
int preset_list_read(const char *kind, struct preset_list *out, struct error *err);
void preset_list_free(struct preset_list *list);

/* The words "key=value ..." that lead from `base` to `recipe`, quoted for a shell where they must
 * be (xmalloc'd; "" if they are the same). What another word implies is left out. */
char *recipe_words(const struct recipe *recipe, const struct recipe *base);

/* Writes the user's preset recipes/NAME.json: the keys of `recipe` that are no defaults, and
 * `intent`. One of the user's with this name is replaced; the name of one that comes along is
 * refused. Returns the path (xmalloc'd), or NULL. */
char *preset_save(const struct recipe *recipe, const char *name, const char *intent,
                  struct error *err);

#endif
