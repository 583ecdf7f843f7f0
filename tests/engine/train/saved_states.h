/* All states of one trainer, taken over by another, as a checkpoint would. */
#ifndef WINDROW_TESTS_ENGINE_TRAIN_SAVED_STATES_H
#define WINDROW_TESTS_ENGINE_TRAIN_SAVED_STATES_H

#include <string.h>

#include "fixture.h"

struct states {
    struct trainer *trainer;
    int64_t count;
};

static inline int64_t states_find(void *context, const char *name, struct state_entry *entry)
{
    struct states *states = context;
    for (int64_t i = 0; i < states->count; i++) {
        trainer_state_entry(states->trainer, i, entry);
        if (strcmp(entry->name, name) == 0) {
            return i;
        }
    }
    return -1;
}

static inline int states_read(void *context, int64_t index, int64_t first, int64_t count, void *out,
                              struct error *err)
{
    struct states *states = context;
    return trainer_state_read(states->trainer, index, first, count, out, err);
}

static inline void states_copy(struct trainer *to, struct trainer *from, struct error *err)
{
    struct trainer_counters counters;
    trainer_counters(from, &counters);
    struct states states = { .trainer = from, .count = trainer_state_count(from) };
    struct state_source source = { .find = states_find, .read = states_read, .context = &states };
    check(trainer_restore(to, &source, &counters, err), err);
}

#endif
