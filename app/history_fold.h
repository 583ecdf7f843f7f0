/* What the files that fold events into a history share; nothing for screens. */
#ifndef WINDROW_APP_HISTORY_FOLD_H
#define WINDROW_APP_HISTORY_FOLD_H

#include "app/history.h"

/* Counts and steps from a file: unknown or absurd ones become 0, so that sums cannot overflow. */
int64_t history_sane(int64_t value);

/* Makes room for one more item in the list at `list` (a pointer to its pointer) and returns it
 * zeroed. */
void *history_grow(void *list, size_t *count, size_t *capacity, size_t size);

/* Sets last_step, step and step_time from what is kept of a step. */
void history_take_step(struct history *history, int64_t number);

/* Takes a ranks event in; and the memory of all of them. */
void history_add_ranks(struct history *history, const struct event *event);
void history_free_ranks(struct history *history);

/* Takes a selection event in; true if it begins a new refresh. */
bool history_select(struct history *history, const struct event *event);

/* Sets the latest values of a matrix from one of its selections. */
void history_take_choice(struct history_matrix *matrix, const struct history_choice *choice,
                         const struct history_refresh *refresh);

#endif
