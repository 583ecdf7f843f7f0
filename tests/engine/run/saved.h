/* A small state that checkpoints can be made of, for the tests of this folder. */
#ifndef WINDROW_TESTS_ENGINE_RUN_SAVED_H
#define WINDROW_TESTS_ENGINE_RUN_SAVED_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/run/checkpoint.h"

extern const struct safetensors_entry weight_entries[2];
extern const struct safetensors_entry state_entries[2];

/* Every byte depends on the step, the entry and its position. */
unsigned char byte_of(int64_t step, size_t index, int64_t position);

/* What read_source reads from: the entries at a step; `fails`: the device is gone. */
struct source {
    int64_t step;
    const struct safetensors_entry *entry;
    bool fails;
};
int read_source(void *context, size_t index, int64_t first, int64_t count, void *out,
                struct error *err);

/* Saves the state of a step; with `fails` its device is gone in the middle. */
int save_step(const char *run, int64_t step, bool fails, struct error *err);

/* The path of a step's checkpoint (xmalloc'd), and whether it is whole. */
char *step_path(const char *run, int64_t step);
bool is_whole(const char *run, int64_t step);

/* Damages a file: 0 flips a bit at `at`, 1 cuts it there, 2 adds a byte, 3 removes it. */
void change_file(const char *path, int how, size_t at);

/* Set-up and tear-down: *state is the path of an empty run directory. */
int make_run(void **state);
int remove_run(void **state);

#endif
