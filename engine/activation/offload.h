/*
 * Offloading: what a block keeps for its backward leaves the device after its forward and comes
 * back before its backward (SSDTrain: Wu et al., arXiv 2408.10013, with a fixed schedule instead of
 * hooks).
 *
 * The kept values of a block are one stretch of ACTIVATIONS, a span; all blocks' spans have the
 * same layout. The first OFFLOAD_SLOTS blocks have a place each; every later one takes the place of
 * the block OFFLOAD_SLOTS before it, whose span has been put away by then:
 *
 *     forward   block i -> slot i % 3, then put(i)
 *     backward  take(i - 1) into slot (i - 1) % 3 (block i reads the output of i - 1), prefetch
 *               i - 2 and i - 3, then block i
 *
 * The device copies beside its operations: block i + 3 begins after span i has left, and span i - 1
 * begins to come back once block i + 2, whose place it takes, is done: beside block i + 1.
 *
 * Activations on the device therefore do not grow with the number of layers. Spans of the last
 * three blocks that take part are never put: they are still there when the backward comes. The last
 * `resident` blocks do not take part at all. Gradients are bit-identical to those without.
 */
#ifndef WINDROW_ENGINE_ACTIVATION_OFFLOAD_H
#define WINDROW_ENGINE_ACTIVATION_OFFLOAD_H

#include "engine/activation/store.h"
#include "engine/model/pass.h"

enum { OFFLOAD_SLOTS = 3 };

struct offload {
    int64_t layers;
    int64_t resident;
    struct store *store; /* NULL: only the places, for a plan */
    struct block_mover mover;
    struct memory_position begin[OFFLOAD_SLOTS]; /* of the slots */
    struct memory_position end[OFFLOAD_SLOTS];
    bool window;
    int64_t present;      /* the lowest stored span that is back on the device */
    struct error trouble; /* of the store, as it said it; code 0: none */
};

/* Spans that are put away in a micro-batch: blocks 0 .. this - 1. 0 for models too shallow. */
int64_t offload_spans(int64_t layers, int64_t resident);

struct model;
/* Spans have one layout only if all blocks with a backward keep the same: refuses targets and
 * frozen patterns that tell them apart. */
int offload_check(const struct model *model, struct error *err);

/* Makes the mover of a pass. The store, if any, has offload_spans spans. */
void offload_init(struct offload *offload, int64_t layers, int64_t resident, struct store *store);

/* Bytes of a span, after a forward has placed one; 0 before. */
size_t offload_span_bytes(const struct offload *offload);

/* How many last blocks to keep on the device so that writing and the first reading back hide
 * behind the computation: walking the layers in order, the first layer j with
 *     (V_<j + 2 V_j) / (3 T_f - 2 t_<j) > bandwidth
 * and all after it stay (V bytes and t forward seconds of the layers, T_f their sum; the backward
 * takes twice the forward). Here all layers are alike. Returns the number that stay. */
int64_t offload_resident(int64_t layers, double layer_bytes, double layer_seconds,
                         double bytes_per_second);

#endif
