/*
 * The manual page: everything that help knows, in one roff file (man(7) macros).
 *
 * It is made from the tables that the program itself works with: commands and their options,
 * actions and their keys, settings of a recipe and of the workbench. What it adds are the three
 * tables below.
 */
#ifndef WINDROW_APP_COMMANDS_MANUAL_H
#define WINDROW_APP_COMMANDS_MANUAL_H

#include "engine/base/xalloc.h"

/* A name and what it means; NULL ends a table. */
struct manual_fact {
    const char *name;
    const char *text;
};
extern const struct manual_fact manual_exit_codes[];
extern const struct manual_fact manual_environment[];
extern const struct manual_fact manual_files[];

/* The page; the caller frees `out`. */
void manual_write(struct buffer *out);

#endif
