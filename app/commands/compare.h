/* windrow compare, in three parts: words (compare.c), training (compare_train.c), tables and
 * charts (compare_print.c). */
#ifndef WINDROW_APP_COMMANDS_COMPARE_H
#define WINDROW_APP_COMMANDS_COMPARE_H

#include "app/commands/command.h"
#include "app/comparison.h"
#include "engine/recipe.h"

/* One method of --methods: NAME[:key=value ...], NAME being a preset of presets/methods. */
struct contestant {
    char *label;  /* as it was written */
    char *folder; /* its run directory */
    struct recipe recipe;
};
struct contest {
    struct contestant *item;
    size_t count;
    char *folder; /* holds the run directories */
};

/* Makes the recipes: `name` with the words of the command line, and over it each method's preset
 * and settings; `methods` NULL: those of the recipe's compare.methods. All are checked before any
 * trains. Free with contest_free also after a failure. */
int contest_open(struct contest *contest, const struct arguments *arguments, const char *name,
                 const char *methods, struct error *err);
void contest_free(struct contest *contest);

/* Trains what is not finished yet, one after the other, each in a process of its own. Returns 0,
 * or the exit code of the first that did not end well (later ones are still trained unless the user
 * interrupted). */
int contest_train(const struct contest *contest, struct error *err);

enum compare_format { COMPARE_TEXT, COMPARE_MARKDOWN, COMPARE_CSV, COMPARE_JSON };

void compare_print(const struct comparison *comparison, enum compare_format format,
                   enum comparison_axis axis);

#endif
