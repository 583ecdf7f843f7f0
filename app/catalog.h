/* What the launcher offers: models, data sets and methods, and the recipe of a combination. */
#ifndef WINDROW_APP_CATALOG_H
#define WINDROW_APP_CATALOG_H

#include "app/workbench.h"
#include "engine/recipe.h"

enum { CATALOG_WORDS = 6, CATALOG_OVERRIDES = 128 };

/* An entry is a set of key=value words laid over the base recipe, and for methods a preset. */
struct catalog_entry {
    char *name;
    char *note;
    char *identity;            /* to find doubles: the path or preset name */
    char *word[CATALOG_WORDS]; /* NULL where unused */
    char *preset;              /* path, or NULL */
    char *about;               /* a sentence or a path */
    bool whole;                /* the preset is a recipe: it names its model and data */
    int model;                 /* where these are in their lists, -1 where they are none */
    int data;
};
struct catalog_list {
    struct catalog_entry *entry;
    int count;
};
struct catalog {
    struct recipe base;
    char *base_name; /* as it was asked for */
    struct catalog_list list[LAUNCHER_LISTS];
    char *override[CATALOG_OVERRIDES]; /* key=value, in the order they were typed */
    int override_count;
    int first_method; /* the one of the base recipe */
};

/* Reads the recipe `name` and the presets, and looks for models in the Hugging Face cache. What
 * cannot be read is left out; only a base recipe that cannot be read is an error. */
int catalog_open(struct catalog *catalog, const char *name, struct error *err);
void catalog_close(struct catalog *catalog);

/* The recipe of a combination, checked. */
int catalog_recipe(const struct catalog *catalog, const int choice[LAUNCHER_LISTS],
                   struct recipe *recipe, struct error *err);

/* A recipe is made in layers, of which each is laid over those before. */
enum catalog_layer { LAYER_BASE, LAYER_RECIPE, LAYER_MODEL, LAYER_DATA, LAYER_METHOD, LAYER_YOU };
int catalog_lay(const struct catalog *catalog, const int choice[LAUNCHER_LISTS],
                enum catalog_layer layer, struct recipe *recipe, struct error *err);

/* Every setting of a combination with where it came from, and its command line. What cannot be laid
 * over is left out: the plan says why. */
void catalog_form(const struct catalog *catalog, const int choice[LAUNCHER_LISTS],
                  struct form_facts *out);

/* Saves the combination as a preset of the user's: `words` is a name, then a sentence. The settings
 * that were typed become part of it. Returns its place among the methods, or -1. */
int catalog_save(struct catalog *catalog, const int choice[LAUNCHER_LISTS], const char *words,
                 struct error *err);

/* Adds a recipe file to the methods, or finds it there again; its place. */
int catalog_add_recipe(struct catalog *catalog, const struct preset *preset);

/* Adds a path typed by the user to a list; returns its index, or -1. */
int catalog_add(struct catalog *catalog, int list, const char *path, struct error *err);

/* Adds a key=value word to all combinations (a later word for the same key replaces it). */
int catalog_override(struct catalog *catalog, const char *word, struct error *err);

/* Several words with blanks between them. */
int catalog_override_all(struct catalog *catalog, const char *words, struct error *err);

/* Forgets what was typed for a key; NULL: for all. */
void catalog_reset(struct catalog *catalog, const char *key);

/* Shows the lists in the launcher. */
void catalog_show(const struct catalog *catalog, struct launcher *launcher);

#endif
