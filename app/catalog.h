/* What the launcher offers: models, data sets and methods, and the recipe of a combination. */
#ifndef WINDROW_APP_CATALOG_H
#define WINDROW_APP_CATALOG_H

#include "app/workbench.h"
#include "engine/recipe.h"

enum { CATALOG_WORDS = 6 };

/* An entry is a set of key=value words laid over the base recipe, and for methods a preset. */
struct catalog_entry {
    char *name;
    char *note;
    char *identity;            /* to find doubles: the path or preset name */
    char *word[CATALOG_WORDS]; /* NULL where unused */
    char *preset;              /* path, or NULL */
};
struct catalog_list {
    struct catalog_entry *entry;
    int count;
};
struct catalog {
    struct recipe base;
    struct catalog_list list[LAUNCHER_LISTS];
    char *override[16]; /* key=value, in the order they were typed */
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

/* Adds a path typed by the user to a list; returns its index, or -1. */
int catalog_add(struct catalog *catalog, int list, const char *path, struct error *err);

/* Adds a key=value word to all combinations (a later word for the same key replaces it). */
int catalog_override(struct catalog *catalog, const char *word, struct error *err);

/* Shows the lists in the launcher. */
void catalog_show(const struct catalog *catalog, struct launcher *launcher);

#endif
