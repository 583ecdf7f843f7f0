/*
 * Trajectory-regularised Adam: see struct tradam in kernels/ops.h for the formula, its source and
 * what differs from the released code.
 *
 * "TR" stands for trajectory, not for trust region, and nothing is saved: beside the moments it
 * keeps an anchor of the size of the weights, to which the weights are drawn back during
 * anchor_interval steps. What it offers is steadier training with small batches. With the harmonic
 * step of the released code the mean rate is lower than lr (0.29 lr for 10 steps); with a loop of
 * one step it is Adam, bit for bit.
 */
#ifndef WINDROW_ENGINE_OPTIMIZER_TRADAM_H
#define WINDROW_ENGINE_OPTIMIZER_TRADAM_H

#include "engine/optimizer/rule.h"

extern const struct rule_ops tradam_rule;

#endif
