/* What a trainer holds: shared by trainer.c (building), trainer_change.c (live settings), step.c
 * (training), look.c (evaluation, generation), trainer_state.c and state_show.c (saving,
 * restoring). */
#ifndef WINDROW_ENGINE_TRAIN_TRAINER_PARTS_H
#define WINDROW_ENGINE_TRAIN_TRAINER_PARTS_H

#include "engine/activation/offload.h"
#include "engine/activation/policy.h"
#include "engine/activation/sample.h"
#include "engine/comm/comm.h"
#include "engine/method/dense.h"
#include "engine/method/method.h"
#include "engine/train/trainer.h"
#include "kernels/ops.h"

/* Inputs of a micro-batch, one after the other in memory: (B S) int32 each, and what every gradient
 * of a logit is multiplied by, (1) fp32: 1 / trained tokens of the step. */
struct trainer_inputs {
    struct tensor ids, targets, positions, starts, scale;
    bool whole; /* as in struct batch */
};

/* `answer` (STEP_ANSWER) fp32. */
enum { ANSWER_LOSS, ANSWER_SQUARES, ANSWER_CONTROL, STEP_ANSWER = ANSWER_CONTROL + CONTROL_COUNT };

struct trainer {
    struct recipe recipe;
    struct backend *be;
    struct memory *memory;
    struct model model;
    struct method method;
    struct dense dense;
    struct exchange exchange; /* of gradients, with other ranks */
    struct dense_gradients dense_gradients;
    struct linear_hooks hooks;
    struct memory_position after_weights; /* where adapters begin in the region of weights */
    const struct activation_policy *policy;
    struct offload offload;
    bool offloads;
    struct input_sampler sampler; /* without ops: inputs are used whole */
    struct comm *comm;
    struct comm_counts early;    /* sent while the micro-batches of the last step ran */
    struct comm *alone;          /* the same, if the trainer opened it */
    struct rank_report told;     /* by this rank, with the next step */
    struct rank_report *reports; /* of all ranks */
    void (*on_phase)(void *context, enum trainer_phase phase);
    void *context;
    bool inference;
    bool lost; /* see trainer_lost */
    enum trainer_phase phase;

    /* Inputs of the micro-batch that runs, and of the next one if the device takes inputs ahead. */
    struct trainer_inputs input[2];
    int inputs;        /* how many of them */
    void *packed;      /* one of them on the host */
    int32_t *step_ids; /* the ids of a step: of all ranks, then of this one; NULL: not asked for */
    uint64_t layout;   /* counts how often memory was laid out anew */
    /* Scalars of a step, fp32: views of `answer`, which comes back to the host in one piece. */
    struct tensor loss, sum_squares, control;
    struct tensor answer;

    /* Generation. */
    struct token_cache cache;
    int64_t cache_length; /* 0: none */
    struct memory_position before_cache;

    /* The list of state tensors, made by trainer_state_count. */
    struct state_item *item;
    int64_t item_count;
    int64_t item_capacity;
    int64_t item_weights;
    bool shown; /* on rank 0: the other ranks answer (state_show.c) */
};

void trainer_enter(struct trainer *trainer, enum trainer_phase phase);

/* The method's settings, from the trainer's recipe. */
void trainer_take_settings(struct trainer *trainer);
/* Places gradients and states of everything that trains. */
int trainer_attach(struct trainer *trainer, struct error *err);
/* Places inputs and answer of a step; a device that takes inputs ahead has room for those of the
 * next micro-batch. */
void trainer_place_step(struct trainer *trainer);

/* A pass over the trainer's model and memory, with inputs 0 or 1. */
struct pass trainer_pass(struct trainer *trainer, int inputs, bool training);

/* Checks ids against the vocabulary. */
int trainer_check_batch(const struct trainer *trainer, const struct batch *batch,
                        struct error *err);
/* Feeds a batch to inputs `index` (0 or, if there are two, 1); backend_join follows. */
void trainer_feed(struct trainer *trainer, int index, const struct batch *batch, float scale);

/* Elements of what is here of an item. */
int trainer_read_here(struct trainer *trainer, const struct state_item *item, int64_t first,
                      int64_t count, void *out, struct error *err);
/* Elements of a whole item that is split, on rank 0. */
int trainer_read_split(struct trainer *trainer, int64_t index, int64_t first, int64_t count,
                       void *out, struct error *err);
/* The first item of the list of which something here is not finite, or cannot be read; or -1. */
int64_t trainer_first_bad(struct trainer *trainer);

/* A host copy of all states (not of weights), to put back after they were laid out anew. */
struct state_snapshot;
struct state_snapshot *trainer_snapshot(struct trainer *trainer, struct error *err);
struct state_source trainer_snapshot_source(struct state_snapshot *snapshot);
void trainer_snapshot_free(struct state_snapshot *snapshot);

/* The backend's latched error, as an error. */
int trainer_device_error(struct trainer *trainer, struct error *err);

#endif
