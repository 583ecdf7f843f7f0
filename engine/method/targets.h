/*
 * Which parameters train: method.targets and method.frozen, as flags of the model.
 *
 * method.targets names the matrices of the blocks that the method acts on; the others are frozen.
 * method.frozen names parameters that stay as they are under every method: matrices, norms,
 * embedding, head. Under a method of adapters (lora) every weight is frozen, and what the two
 * settings decide is where an adapter sits.
 *
 * What is frozen has no gradient, no state and no decay. Below the lowest block in which something
 * trains there is no backward, and nothing is kept for one.
 */
#ifndef WINDROW_ENGINE_METHOD_TARGETS_H
#define WINDROW_ENGINE_METHOD_TARGETS_H

#include "engine/base/error.h"
#include "engine/model/model.h"

struct targets {
    const char *trained;       /* method.targets */
    const char *frozen;        /* method.frozen */
    const char *rank_pattern;  /* checked only */
    const char *alpha_pattern; /* checked only */
    bool adapters;
};

/* Sets the flags of parameters, linear layers and model. A pattern that fits nothing is an error
 * that names the nearest; so is a choice that leaves nothing to train. */
int targets_apply(struct model *model, const struct targets *targets, struct error *err);

#endif
