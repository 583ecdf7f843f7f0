/* AdamW: see struct adamw in kernels/ops.h for the formula. */
#ifndef WINDROW_ENGINE_OPTIMIZER_ADAMW_H
#define WINDROW_ENGINE_OPTIMIZER_ADAMW_H

#include "engine/optimizer/rule.h"

extern const struct rule_ops adamw_rule;

#endif
