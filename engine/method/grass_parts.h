/*
 * What Grass holds: shared by its files (grass.c the step, grass_clock.c when rows are chosen,
 * grass_refresh.c the choice,
 * grass_unselected.c the other rows, grass_head.c the head, grass_residue.c exact rows,
 * grass_state.c saving and restoring).
 *
 * A group takes one product: all parts of a packed layer that select rows, since their chosen
 * columns of dy stand side by side; a part that selects columns is a group of its own.
 */
#ifndef WINDROW_ENGINE_METHOD_GRASS_PARTS_H
#define WINDROW_ENGINE_METHOD_GRASS_PARTS_H

#include "engine/method/method.h"

/* States of an older selection, waiting on the host for the refresh that will sort them in: after a
 * change of rank, or a restore under another rank. */
struct grass_waiting {
    int32_t *index; /* local to the matrix, ascending, -1 in unused slots */
    int32_t *age;
    void *slot[RULE_SLOTS_MAX]; /* in the shape of the old slots */
    int16_t *residue;           /* likewise; NULL: there was none */
    int64_t count;              /* old R */
};

/* One matrix. Tensors are views into its group's. */
struct grass_part {
    const struct linear_part *part;
    enum side side;
    int64_t candidates; /* rows or columns of the matrix */
    int64_t count;      /* R */
    int64_t offset;     /* added to `index` on the device: first row in the packed weight */
    struct tensor index, rho, next_index, next_rho, age, gradient;
    struct tensor slot[RULE_SLOTS_MAX];
    const char *slot_name[RULE_SLOTS_MAX];
    int slot_count;
    struct tensor residue; /* int16, of exact rows only */
    int32_t *chosen;       /* (R) the selection in use, as on the device but without offset */
    int32_t *next;         /* (R) the one being prepared; with offset until it is committed */
    uint8_t *seen;         /* (candidates) */
    struct grass_waiting *waiting;
    struct selection_report report;
    bool refreshing;   /* this step chooses anew: of all parts of a layer, or of none */
    int32_t refreshed; /* the step that chose what is in use; 0: none yet. Staggered only */
    float *sorted;     /* (candidates) scratch of the statistics */
    float *norms;      /* (candidates) squared, of the refresh being prepared */
    int32_t *scratch;  /* (4 R) for a refresh, which takes no memory of its own */
};

struct grass_group {
    const struct linear *linear;
    enum side side;
    int64_t unit; /* number of its layer among those with groups */
    int part_count;
    struct grass_part *part[LINEAR_PARTS_MAX];
    struct tensor index, rho, next_index, next_rho, gradient;
    struct tensor residue; /* in the gradient's shape, of exact rows only */
    struct rule_state state;
    struct tensor
        weight; /* that indices refer to: rows of the packed weight, or columns of the part */
    uint32_t id;
};

struct grass {
    struct grass_group *group;
    int64_t group_count;
    struct grass_part *part;
    int64_t part_count;
    int64_t *first_group; /* (linears + 1): groups of a linear layer */
    int64_t unit_count;   /* linear layers that have groups */
    int64_t *reported;    /* (parts) those that the latest refresh chose anew */
    int64_t reported_count;
    bool refreshing;     /* this step chooses anew, some layer or all */
    bool guarded;        /* this step's guard is decided */
    struct tensor guard; /* (CONTROL_COUNT) may unselected rows move? Placed if they ever do */
    struct tensor guard_sum;
    struct tensor head_dw; /* in the workspace while a micro-batch's dW of the head is formed */
};

/* Length of the selection within its slots: entries before the first -1. */
int64_t grass_used(const int32_t *index, int64_t count);

/* Copies a selection local to the matrix into `index` on the device, where the offset is added. */
void grass_upload_index(struct method *method, struct grass_part *part, const int32_t *local,
                        struct tensor *index);

/* dW of one matrix, micro-batch and rank, in the workspace. */
struct tensor grass_form_gradient(struct method *method, struct pass *pass,
                                  const struct grass_part *part, const struct tensor *dy,
                                  const struct tensor *x);

/* Adds to the compressed gradient of a group. */
void grass_accumulate(struct method *method, struct pass *pass, struct grass_group *group,
                      const struct tensor *dy, const struct tensor *x);

/* The same with the columns of x that a group which selects columns has chosen. */
void grass_accumulate_columns(struct method *method, struct pass *pass, struct grass_group *group,
                              const struct tensor *dy, const struct tensor *thin);

/* Decides which layers choose anew at `step`. A change of rank makes all of them do it at once. */
void grass_begin_step(struct method *method, int64_t step);

/* Whether this step chooses for the group. */
bool grass_group_refreshing(const struct grass_group *group);

/* The step that chose what the group has in use. */
int64_t grass_last_refresh(const struct method *method, const struct grass_group *group);

/* Once the verdict on the step is known: takes the prepared selections into use, or if the step is
 * skipped drops them. False if it is skipped. */
bool grass_settle_refreshes(struct method *method, const struct rule_settings *settings);

/* The selection in use, or the one that the first micro-batch of this step has chosen. */
const struct tensor *grass_index_in_use(const struct grass_group *group);

/* Keeps the selected columns of inputs: grass_inputs.c. */
extern const struct sampler_ops grass_inputs;

/* The head, if the method has it: grass_head.c. */
void grass_head(struct method *method, struct pass *pass, const struct linear *linear, bool begin);
void grass_head_chunk(struct method *method, struct pass *pass, const struct linear *linear,
                      const struct tensor *dy, const struct tensor *x);

/* Whether this step, or this micro-batch of it, moves the rows that are not selected; then, before
 * its first compressed gradient, whether it may (once a step); and doing so for one matrix, whose
 * selection of this step has been made. */
bool grass_step_moves_unselected(const struct method *method);
bool grass_moves_unselected(const struct method *method);
void grass_guard_unselected(struct method *method);
void grass_move_unselected(struct method *method, struct pass *pass, struct grass_part *part,
                           const struct tensor *dy, const struct tensor *x);

/* The refresh of a part, and the move of what it leaves, where dW of all ranks has been formed
 * already. */
void grass_refresh_formed(struct method *method, struct pass *pass, struct grass_part *part,
                          const struct tensor *dw);
void grass_move_formed(struct method *method, struct pass *pass, struct grass_part *part,
                       const struct tensor *dw);

/* Where the ages of the selection in use come to for a refresh; part of `scratch`. */
int32_t *grass_old_age(struct grass_part *part);

/* Forms dW of one matrix, chooses, and leaves the compressed gradient of this micro-batch; with a
 * sketch dW is not formed, and the compressed gradient is left to the caller.
 * What the host wants to know (norms, choice, ages) has come after the next wait. */
void grass_refresh_part(struct method *method, struct pass *pass, struct grass_part *part,
                        const struct tensor *dy, const struct tensor *x);

/* Takes the prepared selection into use: moments and ages of rows that stay are carried (or all
 * restart), statistics are counted. */
void grass_commit_part(struct method *method, struct grass_part *part);

/* map[j] = slot of the old selection that has the candidate of new slot j; left alone where none
 * has. Both ascend. */
void grass_match_slots(const int32_t *next, int64_t next_used, const int32_t *old, int64_t old_used,
                       int32_t *map);

/* Sorts the rows (columns) of a state of `part` anew: slot j takes that of slot map[j], or zeros
 * for -1. On the device through the workspace, or from an older state on the host. */
void grass_carry_on_device(struct method *method, struct grass_part *part, struct tensor *state,
                           const int32_t *map);
void grass_carry_from_host(struct method *method, struct grass_part *part, struct tensor *state,
                           const void *old, const int32_t *map);

/* Takes and gives back what the way on the device takes: a plan knows no other, and must be right.
 */
void grass_carry_room(struct method *method, const struct grass_part *part,
                      const struct tensor *state);

/* Whether selected rows keep what bf16 weights cannot hold. */
bool grass_exact(const struct method *method);
void grass_residue_place(struct method *method, struct grass_group *group, const char *name);

/* Rounds the rows that leave, and sorts the residues of those that stay. Before the new selection
 * is taken into use. */
void grass_residue_commit(struct method *method, struct grass_part *part);

void grass_visit(struct method *method, const struct state_visitor *visitor);
int grass_restore(struct method *method, const struct state_source *source, struct error *err);
void grass_waiting_free(struct grass_waiting *waiting);

#endif
