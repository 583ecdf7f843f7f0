/* What windrow show says of the ranks of a run: means over all its steps, as its events tell them.
 */
#ifndef WINDROW_APP_COMMANDS_SHOW_RANKS_H
#define WINDROW_APP_COMMANDS_SHOW_RANKS_H

#include <cjson/cJSON.h>

#include "engine/event.h"

struct shown_ranks {
    struct event_ranks mean; /* count 0: nothing was said; times are means, memory the latest */
    double weight;           /* steps in the means */
};

/* Takes an event in. A run that went on with another number of ranks tells of the latest. */
void show_ranks_take(struct shown_ranks *shown, const struct event_ranks *ranks);
void show_ranks_free(struct shown_ranks *shown);

/* A sentence and a table; nothing if nothing was said. */
void show_ranks_print(const struct shown_ranks *shown);
/* Adds "ranks", an array with the keys of the ranks event, to an object. */
void show_ranks_json(const struct shown_ranks *shown, cJSON *root);

#endif
