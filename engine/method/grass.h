/*
 * Grass: structured sparse gradients (Muhamed, Li, Woodruff, Diab, Smith, arXiv 2406.17660).
 *
 * Of every matrix W (M, N) only R rows (or columns) sigma have a gradient, states and an update:
 *   G_C = P^T dW = rho (dy[:, sigma])^T x          2 R N T FLOPs instead of 2 M N T
 *   W[sigma] -= lr (scale rho adam(G_C) + weight_decay W[sigma])
 * Choosing columns of dy before the product means that dW never exists between refreshes. At a
 * refresh one matrix's dW at a time is formed in the workspace from the first micro-batch, gives
 * the norms that decide (op_select) and the first compressed gradient, and is dropped.
 *
 * Layers are refreshed all at one step, or each at a step of its own (method.stagger), so that the
 * work lies evenly over an interval (refresh_clock.h); the parts of a packed layer always go
 * together, since one product serves them. After a change of rank, and at the first step, all of
 * them choose at once, whatever the clock says.
 *
 * A refresh is prepared in the backward and committed in the update, when it is known that the step
 * is not skipped: a skipped step leaves rows, moments and counters as they were.
 */
#ifndef WINDROW_ENGINE_METHOD_GRASS_H
#define WINDROW_ENGINE_METHOD_GRASS_H

#include "engine/method/method.h"

extern const struct method_ops grass_method;

#endif
