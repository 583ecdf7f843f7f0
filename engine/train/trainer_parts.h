/* What a trainer holds: shared by trainer.c (building, changing), step.c (training), look.c
 * (evaluation, generation) and trainer_state.c (saving, restoring). */
#ifndef WINDROW_ENGINE_TRAIN_TRAINER_PARTS_H
#define WINDROW_ENGINE_TRAIN_TRAINER_PARTS_H

#include "engine/activation/offload.h"
#include "engine/activation/policy.h"
#include "engine/activation/sample.h"
#include "engine/comm/comm.h"
#include "engine/method/dense.h"
#include "engine/method/method.h"
#include "engine/train/trainer.h"

struct trainer {
    struct recipe recipe;
    struct backend *be;
    struct memory *memory;
    struct model model;
    struct method method;
    struct dense dense;
    struct dense_gradients dense_gradients;
    struct linear_hooks hooks;
    struct memory_position after_weights; /* where adapters begin in the region of weights */
    const struct activation_policy *policy;
    struct offload offload;
    bool offloads;
    struct input_sampler sampler; /* without ops: inputs are used whole */
    struct comm *comm;
    void (*on_phase)(void *context, enum trainer_phase phase);
    void *context;
    bool inference;
    enum trainer_phase phase;

    /* Inputs of a micro-batch, (B S) int32 each. */
    struct tensor ids, targets, positions, starts;
    bool whole; /* as in struct batch */
    /* Scalars of a step, fp32. */
    struct tensor loss, sum_squares, control;

    /* Generation. */
    struct token_cache cache;
    int64_t cache_length; /* 0: none */
    struct memory_position before_cache;

    /* The list of state tensors, made by trainer_state_count. */
    struct state_item *item;
    int64_t item_count;
    int64_t item_capacity;
    int64_t item_weights;
};

void trainer_enter(struct trainer *trainer, enum trainer_phase phase);

/* A pass over the trainer's model and memory. */
struct pass trainer_pass(struct trainer *trainer, bool training);

/* Checks ids against the vocabulary and uploads the batch. */
int trainer_upload(struct trainer *trainer, const struct batch *batch, struct error *err);

/* A host copy of all states (not of weights), to put back after they were laid out anew. */
struct state_snapshot;
struct state_snapshot *trainer_snapshot(struct trainer *trainer, struct error *err);
struct state_source trainer_snapshot_source(struct state_snapshot *snapshot);
void trainer_snapshot_free(struct state_snapshot *snapshot);

/* The backend's latched error, as an error. */
int trainer_device_error(struct trainer *trainer, struct error *err);

#endif
