/*
 * The command line that ":" opens: every action by its name, and words that need arguments.
 *
 * One table gives the commands, their completion and their lines in help. A word that is the last
 * part of a live setting's key is short for setting it: "rank 64".
 */
#ifndef WINDROW_APP_COMMAND_LINE_H
#define WINDROW_APP_COMMAND_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/control.h"

struct workbench;

enum { COMMAND_PAST = 32, COMMAND_SIZE = 256, COMMAND_CANDIDATES = 64, COMMAND_WORD = 80 };

struct command_line {
    char past[COMMAND_PAST][COMMAND_SIZE]; /* lines that were entered, oldest first */
    int past_count;
    int recall;      /* how far back the arrow keys went; 0: a new line */
    int64_t set_id;  /* of a setting that was sent from here; 0: none */
    char words[128]; /* and what it was */
};

struct command_row {
    const char *name;
    const char *arguments; /* "" for none */
    const char *help;
};
extern const struct command_row command_rows[];
extern const size_t command_row_count;

void command_open(struct workbench *workbench, const char *text);
/* A key in the line; false if it is one that every field knows. */
bool command_key(struct workbench *workbench, uint32_t key);
/* Carries the line out. */
void command_run(struct workbench *workbench, const char *line);
/* The run's answer to a setting; false if it belongs to something else. */
bool command_reply(struct workbench *workbench, const struct control_reply *reply);

/* Words that the last word of `line` could become. `begin` is where that word begins. */
struct command_candidates {
    char word[COMMAND_CANDIDATES][COMMAND_WORD];
    int count;
    size_t begin;
};
void command_complete(const struct workbench *workbench, const char *line,
                      struct command_candidates *out);

#endif
