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

enum { RULE_KINDS_MAX = 3, RULE_SLOTS_MAX = 2 * RULE_KINDS_MAX };

/* What a slot of a rule holds, which decides how it can be stored. */
enum rule_slot {
    RULE_SLOT_SIGNED, /* a first moment */
    RULE_SLOT_SQUARE, /* a second moment */
    RULE_SLOT_WEIGHT, /* copies of weights: in the weight's own format */
};

/*
 * State of one target: a list of named tensors that belong together, and `age`, which counts
 * updates (1, or one a selected row: int32).
 *
 * The rule's own slots come first and have the gradient's shape. Where moments have eight bits, the
 * magnitudes of their blocks follow as slots of their own ("m_absmax"; op_quantize), in the same
 * order. Blocks lie along the rows (SIDE_ROWS) or down the columns (SIDE_COLUMNS) of the gradient,
 * so that a row (column) of every slot is all that belongs to a row (column): whoever saves,
 * restores or moves rows treats all slots alike.
 */
struct rule_state {
    struct tensor slot[RULE_SLOTS_MAX];
    const char *slot_name[RULE_SLOTS_MAX];
    int slot_count;
    struct tensor age;
    enum side side;
};

/* What an update needs beside the state. Fields as in struct adamw of kernels/ops.h. */
struct rule_target {
    struct tensor *weight;
    const struct tensor *gradient;
    const struct tensor *index;
    const struct tensor *rho;
    struct tensor *residue; /* NULL, or for adamw on bf16 weights */
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
    /* Of tradam: see struct tradam of kernels/ops.h. */
    int64_t anchor_interval;
    float anchor_pull;
    bool anchor_harmonic;
};

struct rule_ops {
    const char *name; /* "adamw" */
    int slot_count;
    const char *slot_name[RULE_KINDS_MAX];
    const char *absmax_name[RULE_KINDS_MAX]; /* NULL: never stored in eight bits */
    enum rule_slot slot[RULE_KINDS_MAX];
    void (*step)(struct backend *be, const struct rule_settings *settings,
                 const struct rule_target *target, struct rule_state *state);
};

const struct rule_ops *rule_find(const char *name);
/* The names of the table, one by one; NULL past the last. */
const char *rule_name(size_t index);

/* Below this, a tensor's moments are fp32 where eight bits are asked for; those of vectors (norms)
 * always are (arXiv 2110.02861, section 2.3). */
enum { RULE_SMALL_COUNT = 4096 };

struct rule_layout {
    const char *name;          /* of the parameter */
    const struct tensor *like; /* the gradient: shape, and the dtype of weights */
    int64_t whole;    /* elements of the weight that it belongs to: the same for every rank */
    enum dtype dtype; /* of moments; DTYPE_U8: eight bits */
    enum side side;   /* direction of their blocks */
    int64_t ages;
};

/* Places the slots in OPTIMIZER, zeroed. */
void rule_place(const struct rule_ops *rule, struct backend *be, struct memory *memory,
                const struct rule_layout *layout, struct rule_state *state);

#endif
