/* All states of one trainer, taken over by another, as a checkpoint would. */
#ifndef WINDROW_TESTS_ENGINE_TRAIN_SAVED_STATES_H
#define WINDROW_TESTS_ENGINE_TRAIN_SAVED_STATES_H

#include "fixture.h"

struct states {
    struct trainer *trainer;
    int64_t count;
};

/* What trainer_restore reads, over the trainer in `states`. */
struct state_source states_source(struct states *states, struct trainer *trainer);

void states_copy(struct trainer *to, struct trainer *from, struct error *err);

/* Trains `steps` steps at one go, and with a save and a restore into a fresh trainer after `at` of
 * them: the same states to the bit. With `resumed` the second trainer stays open, for the caller to
 * close; it has taken `steps` steps. */
void check_resume(const char *const *words, int steps, int at, struct fixture *resumed);

/* Every state of `a` but `except` (NULL: none) is in `b` too, with the same bits; `b` may have
 * others beside. */
void check_same_states(struct trainer *a, struct trainer *b, const char *except);

#endif
