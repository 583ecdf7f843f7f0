/*
 * The command line: one table of commands drives parsing, errors and help.
 *
 * Options are written --name value or --name=value and may stand anywhere; "--" ends them. Words
 * with '=' after the first are settings (key=value). Human text goes to stderr, data to stdout.
 */
#ifndef WINDROW_APP_COMMANDS_COMMAND_H
#define WINDROW_APP_COMMANDS_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/error.h"

struct option {
    const char *name;  /* without the dashes; a row with NULL ends the list */
    const char *value; /* what its value is called in help; NULL: takes none */
    const char *help;
};

struct arguments;

/* A row of the table. */
struct command {
    const char *name;
    const char *synopsis; /* what follows the name: "RECIPE [key=value ...]" */
    const char *summary;  /* one line */
    const char *help;     /* the rest; may be NULL */
    const struct option *options;
    int minimum; /* words that are no settings */
    int maximum;
    bool settings; /* takes key=value words */
    /* Returns the exit code. */
    int (*run)(const struct arguments *arguments);
};
extern const struct command command_table[];         /* ends with name NULL */
extern const struct option command_common_options[]; /* what every command has; ends so, too */

struct option_value {
    const struct option *option;
    const char *value; /* NULL if it takes none */
};

struct arguments {
    const struct command *command;
    const char **word; /* not settings */
    size_t word_count;
    const char **setting; /* key=value */
    size_t setting_count;
    struct option_value *option;
    size_t option_count;
    bool json;
};

/* Runs the words of the program. Returns the exit code. */
int command_main(int count, char **words);

/* Reads words (without the program's and the command's name) as the command wants them. Release
 * with arguments_free, after a failure too. */
int arguments_parse(const struct command *command, size_t count, const char *const *words,
                    struct arguments *out, struct error *err);
void arguments_free(struct arguments *arguments);

/* Whether an option was given; its value, or NULL (the last one if given more than once). */
bool option_given(const struct arguments *arguments, const char *name);
const char *option_text(const struct arguments *arguments, const char *name);
/* Numbers, checked against a range. Untouched if the option was not given. */
int option_integer(const struct arguments *arguments, const char *name, int64_t minimum,
                   int64_t maximum, int64_t *out, struct error *err);
int option_number(const struct arguments *arguments, const char *name, double minimum,
                  double maximum, double *out, struct error *err);

const struct command *command_find(const char *name);

/* The functions behind the table. */
int command_train(const struct arguments *arguments);
int command_fork(const struct arguments *arguments);
int command_compare(const struct arguments *arguments);
int command_snapshot(const struct arguments *arguments);
int command_plan(const struct arguments *arguments);
int command_attach(const struct arguments *arguments);
int command_runs(const struct arguments *arguments);
int command_show(const struct arguments *arguments);
int command_prune(const struct arguments *arguments);
int command_control(const struct arguments *arguments);
int command_eval(const struct arguments *arguments);
int command_generate(const struct arguments *arguments);
int command_inspect(const struct arguments *arguments);
int command_export(const struct arguments *arguments);
int command_models(const struct arguments *arguments);
int command_datasets(const struct arguments *arguments);
int command_presets(const struct arguments *arguments);
int command_doctor(const struct arguments *arguments);
int command_help(const struct arguments *arguments);
/* No words at all: the launcher, or the embedded default where stdout is no terminal. */
int command_start(void);

#endif
