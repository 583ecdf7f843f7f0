/* Handing states from one trainer to another: see saved_states.h. */
#include "saved_states.h"

#include <stdlib.h>
#include <string.h>

static int64_t states_find(void *context, const char *name, struct state_entry *entry)
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

static int states_read(void *context, int64_t index, int64_t first, int64_t count, void *out,
                       struct error *err)
{
    struct states *states = context;
    return trainer_state_read(states->trainer, index, first, count, out, err);
}

struct state_source states_source(struct states *states, struct trainer *trainer)
{
    *states = (struct states){ .trainer = trainer, .count = trainer_state_count(trainer) };
    return (struct state_source){ .find = states_find, .read = states_read, .context = states };
}

void states_copy(struct trainer *to, struct trainer *from, struct error *err)
{
    struct trainer_counters counters;
    struct states states;
    struct state_source source = states_source(&states, from);
    trainer_counters(from, &counters);
    check(trainer_restore(to, &source, &counters, err), err);
}

void check_resume(const char *const *words, int steps, int at, struct fixture *resumed)
{
    struct fixture whole;
    struct fixture first;
    struct fixture own;
    struct fixture *second = resumed != NULL ? resumed : &own;
    struct error err = { 0 };
    int64_t a = 0;
    int64_t b = 0;
    char expected[DIGEST_TEXT_SIZE];
    char found[DIGEST_TEXT_SIZE];
    fixture_open(&whole, "untied", words);
    fixture_open(&first, "untied", words);
    fixture_open(second, "untied", words);
    while (a < steps) {
        fixture_step(&whole, &a);
    }
    while (b < at) {
        fixture_step(&first, &b);
    }
    states_copy(second->trainer, first.trainer, &err);
    while (b < steps) {
        fixture_step(second, &b);
    }
    fixture_digest(&whole, expected);
    fixture_digest(second, found);
    assert_string_equal(found, expected);
    fixture_close(&whole);
    fixture_close(&first);
    if (resumed == NULL) {
        fixture_close(second);
    }
}

void check_same_states(struct trainer *a, struct trainer *b, const char *except)
{
    struct states own;
    struct states others;
    struct error err = { 0 };
    states_source(&own, a);
    states_source(&others, b);
    for (int64_t i = 0; i < own.count; i++) {
        struct state_entry entry;
        struct state_entry other;
        trainer_state_entry(a, i, &entry);
        if (except != NULL && strcmp(entry.name, except) == 0) {
            continue;
        }
        int64_t at = states_find(&others, entry.name, &other);
        assert_true(at >= 0 && entry.dtype == other.dtype);
        assert_memory_equal(entry.dim, other.dim, sizeof entry.dim);
        int64_t elements = entry.dim[0] * entry.dim[1] * entry.dim[2] * entry.dim[3];
        size_t bytes = (size_t)elements * dtype_size(entry.dtype);
        void *one = malloc(bytes + 1);
        void *two = malloc(bytes + 1);
        check(trainer_state_read(a, i, 0, elements, one, &err), &err);
        check(trainer_state_read(b, at, 0, elements, two, &err), &err);
        if (memcmp(one, two, bytes) != 0) {
            fail_msg("%s differs", entry.name);
        }
        free(one);
        free(two);
    }
}
