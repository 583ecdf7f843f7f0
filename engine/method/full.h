/* Full training: every element of every matrix has a gradient, states and an update. */
#ifndef WINDROW_ENGINE_METHOD_FULL_H
#define WINDROW_ENGINE_METHOD_FULL_H

#include "engine/method/method.h"

extern const struct method_ops full_method;

#endif
