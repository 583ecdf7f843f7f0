/*
 * The launcher: what to train, on what, how; what that takes; and the runs there are.
 *
 * Everything the screen shows lies in struct launcher. It changes by keys and by what comes from
 * outside: plans and previews are made by threads, the rows of the form come from the catalog.
 */
#ifndef WINDROW_APP_LAUNCHER_H
#define WINDROW_APP_LAUNCHER_H

#include "engine/event.h"
#include "engine/recipe.h"

enum { LAUNCHER_MODEL, LAUNCHER_DATA, LAUNCHER_METHOD, LAUNCHER_LISTS };

struct launcher_item {
    char *name;
    char *note;  /* right column, "" for none */
    char *about; /* a sentence or a path, "" for none */
    /* Presets that name a model and data: where these are in their lists; -1: they name none. */
    int model;
    int data;
};
struct launcher_list {
    struct launcher_item *item;
    int count;
};

/* A change of the recipe that makes it fit. */
enum { LAUNCHER_CHANGES = 3 };
struct launcher_change {
    char words[256]; /* key=value ... */
    char sentence[256];
    int64_t total_bytes;
    double time_factor; /* of the time per token; 1: none */
};

/* The plan of one combination. */
struct launcher_plan {
    int choice[LAUNCHER_LISTS];
    bool ok;
    int64_t bytes[MEMORY_CATEGORY_COUNT];
    int64_t total_bytes;
    int64_t limit_bytes; /* 0: unknown */
    int64_t parameters;
    int64_t trained;
    int64_t checkpoint_bytes;
    double step_flops;
    int ranks;              /* that train together, each with these bytes */
    int gpus;               /* in this machine */
    double exchanged_bytes; /* a step; 0: there is one rank */
    char device[64];
    char shape[96];    /* "batch 8 x 2, sequence 256, 1000 steps" */
    char message[256]; /* why there is none, or why it does not fit */
    char hint[256];
    bool detailed; /* the changes were looked for */
    struct launcher_change change[LAUNCHER_CHANGES];
    int change_count;
};

/* The beginning of a data set as the model of the choice would see it. */
enum { PREVIEW_TEXT_SIZE = 4096 };
struct launcher_preview {
    int choice[LAUNCHER_LISTS]; /* the method does not matter */
    bool ok;
    char format[16];
    char template_name[32]; /* "" for plain text */
    bool stand_in;          /* read with the tokenizer that comes along */
    int64_t total_bytes;
    int64_t read_bytes; /* the counts are of these */
    int64_t documents;
    int64_t skipped;
    int64_t rows;
    int64_t tokens;
    int64_t trained_tokens;
    int64_t sequence;
    char notice[256];  /* the first, "" for none */
    char message[256]; /* why there is none */
    char hint[256];
    /* The first record: its text, and for each byte whether the model trains on it. */
    int64_t sample_tokens;
    int64_t sample_trained;
    size_t text_size;
    bool text_cut;
    char text[PREVIEW_TEXT_SIZE];
    uint8_t trained[PREVIEW_TEXT_SIZE];
};

/* ---- the form ---------------------------------------------------------------------------------
 */

/* Where a value came from. */
enum form_source {
    FORM_DEFAULT,
    FORM_RECIPE,
    FORM_MODEL,
    FORM_DATA,
    FORM_PRESET,
    FORM_YOU,
    FORM_SOURCE_COUNT
};
extern const char *const form_source_names[FORM_SOURCE_COUNT];

struct form_row {
    const struct field *field;
    char *value;
    enum form_source source;
};
/* All settings of a choice. */
struct form_facts {
    struct form_row *row;
    int count;
    char *command; /* that does the same: "windrow train stories method.rank=32" */
};
struct form {
    bool open;
    struct form_facts facts;
    int cursor; /* among the rows that are shown */
    char filter[64];
    bool changed_only;
    char error[256]; /* about what was typed, "" for none */
};
void form_facts_free(struct form_facts *facts);

/* ---- all --------------------------------------------------------------------------------------
 */

struct launcher_run {
    char name[80];
    char path[512];
    char status[16];
    char what[80]; /* "grass, tiny-llama on wiki" */
    int64_t step;
    int64_t total_steps;
    double loss;
    double tokens_per_second;
    int64_t peak_bytes;
    int ranks;
};

struct launcher {
    struct launcher_list list[LAUNCHER_LISTS];
    int cursor[LAUNCHER_LISTS];
    int pane; /* LAUNCHER_MODEL .. METHOD, LAUNCHER_LISTS: the runs */
    struct launcher_plan *plan;
    size_t plan_count, plan_capacity;
    bool planning;                    /* one is being made */
    bool plan_outdated;               /* for settings that have changed since */
    struct launcher_preview *preview; /* the latest, or NULL */
    bool previewing;
    bool preview_outdated;
    struct form form;
    struct launcher_run *run;
    int run_count;
    int run_cursor;
    bool starting;
    int ranks;           /* that are to train together; 0 and 1: one */
    int gpus;            /* in this machine, as the latest plan told */
    char overrides[256]; /* for the screen: "train.steps=50 optimizer.lr=1e-4" */
};

enum { LAUNCHER_RANKS_MAX = 1024 };
void launcher_close(struct launcher *launcher);

/* The plan of a choice, or NULL if it is not known. */
const struct launcher_plan *launcher_plan_of(const struct launcher *launcher,
                                             const int choice[LAUNCHER_LISTS]);
/* The preview of the choice, or NULL. */
const struct launcher_preview *launcher_preview_now(const struct launcher *launcher);

/* Rows of the form that the filter lets through; `row` (may be NULL) takes the n-th of them. */
int form_shown(const struct form *form, int n, const struct form_row **row);

#endif
