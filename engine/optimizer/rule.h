/*
 * Update rules: state slots and arithmetic for one tensor.
 *
 * A rule does not know which tensor it updates: a whole parameter, or the rows that a method
 * selected. That is why Grass or LoRA are methods, not rules.
 */
#ifndef WINDROW_ENGINE_OPTIMIZER_RULE_H
#define WINDROW_ENGINE_OPTIMIZER_RULE_H

#include "engine/memory/memory.h"
#include "kernels/ops.h"

enum { RULE_SLOTS_MAX = 2 };

/* State of one target: `slot` has the gradient's shape, `age` counts updates (1, or one a selected
 * row: int32). */
struct rule_state {
    struct tensor slot[RULE_SLOTS_MAX];
    struct tensor age;
};

/* What an update needs beside the state. Fields as in struct adamw of kernels/ops.h. */
struct rule_target {
    struct tensor *weight;
    const struct tensor *gradient;
    const struct tensor *index;
    const struct tensor *rho;
    enum side side;
    float lr;
    float weight_decay;
    float scale;
    uint32_t id; /* of the parameter, keys random numbers */
};

/* What is the same for all tensors of a step. */
struct rule_settings {
    float beta1;
    float beta2;
    float eps;
    enum rounding rounding;
    uint64_t seed;
    uint32_t step;
    const struct tensor *control; /* (CONTROL_COUNT) from op_clip */
};

struct rule_ops {
    const char *name; /* "adamw" */
    int slot_count;
    const char *slot_name[RULE_SLOTS_MAX];
    void (*step)(struct backend *be, const struct rule_settings *settings,
                 const struct rule_target *target, struct rule_state *state);
};

const struct rule_ops *rule_find(const char *name);
/* The names of the table, one by one; NULL past the last. */
const char *rule_name(size_t index);

/* Places the slots for a gradient of the shape of `like` in OPTIMIZER, zeroed, in `dtype`, and
 * `ages` counters. `name` is the parameter's. */
void rule_place(const struct rule_ops *rule, struct backend *be, struct memory *memory,
                const char *name, const struct tensor *like, enum dtype dtype, int64_t ages,
                struct rule_state *state);

#endif
