/*
 * The values of a block: where they lie, and when they are made.
 *
 * Every value is made by one function of the family (family_ops.produce), in the forward and, where
 * the activation policy kept nothing of it, again in the backward: a recomputed value is the same
 * to the bit because there is no second way to compute it.
 *
 *   block_need     the value, made now if it is not there
 *   block_open ... block_close
 *                  what was made in between and is not kept is gone afterwards; kept values stay
 *
 * Values that the pass keeps lie in ACTIVATIONS, from their forward until the block's backward is
 * over; all others in WORKSPACE until the scope that made them closes. In front of a value its
 * inputs are made in a scope of their own, so that they give way to it.
 */
#ifndef WINDROW_ENGINE_MODEL_BLOCK_H
#define WINDROW_ENGINE_MODEL_BLOCK_H

#include "engine/model/model.h"

struct block_scope block_open(const struct pass *pass, const struct block *block);
void block_close(struct pass *pass, struct block *block, struct block_scope scope);

/* The value as it is after its producer; what it is made of must be in reach: the block's input is
 * always there, everything else is made if it must. */
struct tensor *block_need(struct model *model, struct pass *pass, struct block *block,
                          enum block_value value);

/* Says that the value has been overwritten with something else. */
void block_spoil(struct block *block, enum block_value value);

/* True if the pass keeps the value whole until the block's backward: if the policy says so, and
 * unless only a weight gradient would want it, for which a sample is kept or which nobody asks
 * for. */
bool block_keeps(const struct pass *pass, const struct block *block, enum block_value value);

/* y = x W^T + residual, where x is a value of the block (linear_forward). */
void block_linear_forward(struct model *model, struct pass *pass, struct block *block,
                          const struct linear *linear, struct tensor *y, enum block_value x,
                          const struct tensor *residual);

/* dx = dy W, and the method's hook with dy and the value x, which is there only that long. x is not
 * asked for if the method does nothing at this layer; where the pass samples inputs, the hook gets
 * an estimate's dy and x instead. */
void block_linear_backward(struct model *model, struct pass *pass, struct block *block,
                           const struct linear *linear, struct tensor *dx, const struct tensor *dy,
                           enum block_value x);

#endif
