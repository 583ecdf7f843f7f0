/*
 * What the blocks keep between forward and backward.
 *
 * A policy of recomputation is one row of the table in keep.c. model/block.h keeps and makes again
 * what it says.
 */
#ifndef WINDROW_ENGINE_ACTIVATION_POLICY_H
#define WINDROW_ENGINE_ACTIVATION_POLICY_H

#include "engine/model/pass.h"

/* The policy of a recipe's activation.recompute: "none", "norms", "ffn", "block"; from
 * the least recomputed to the most. NULL if it is not built in. */
const struct activation_policy *activation_find(const char *recompute);
/* The names of the table, one by one; NULL past the last. */
const char *activation_name(size_t index);

#endif
