/*
 * Trajectory-regularised Adam: see struct tradam in kernels/ops.h for the formula, its source and
 * what differs from the released code.
 *
 * "TR" stands for trajectory, not for trust region, and nothing is saved: beside the moments it
 * keeps an anchor of the size of the weights, to which the weights are drawn back during
 * anchor_interval steps. What it offers is steadier training with small batches. With the harmonic
 * step of the released code the mean rate is lower than lr (0.29 lr for 10 steps); with a loop of
 * one step it is Adam, bit for bit.
 *
 * Adam forgets the scale of gradients, the pull does not: within a loop a weight moves by a few lr,
 * and 2 * weight * that has to be small beside its gradient. The released 0.1 was chosen for image
 * classifiers; in a language model of a million weights, whose gradients have a norm of about 1.5
 * (0.0015 a weight), it is as large as the gradient and holds the weights where they are
 * (tests/bench/RESULTS.md). The default is a tenth of it.
 */
#ifndef WINDROW_ENGINE_OPTIMIZER_TRADAM_H
#define WINDROW_ENGINE_OPTIMIZER_TRADAM_H

#include "engine/optimizer/rule.h"

extern const struct rule_ops tradam_rule;

#endif
