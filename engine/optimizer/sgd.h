/* Gradient descent: see struct sgd in kernels/ops.h for the formula. No state at all, neither
 * momentum: the least memory that training can take, and the baseline that a state has to beat. */
#ifndef WINDROW_ENGINE_OPTIMIZER_SGD_H
#define WINDROW_ENGINE_OPTIMIZER_SGD_H

#include "engine/optimizer/rule.h"

extern const struct rule_ops sgd_rule;

#endif
