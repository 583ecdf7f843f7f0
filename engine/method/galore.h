/*
 * GaLore: gradient low-rank projection (Zhao, Zhang, Chen, Wang, Anandkumar, Tian, arXiv
 * 2403.03507), in a form that never forms a weight gradient.
 *
 * Of every matrix W (m, n) of the blocks the smaller side gets a basis of r = min(method.rank, its
 * size) orthonormal columns; gradient and states live on the larger side, (max(m, n), r):
 *   m >= n   Q (n, r)   R = dW Q     = dy^T (x Q)      dW is approximated by R Q^T
 *   m <  n   P (m, r)   R = dW^T P   = x^T (dy P)      dW is approximated by P R^T
 * R is summed over the micro-batches and is what the gradient norm is taken of (a lower bound of
 * that of dW). The rule makes of it a step N in place of a weight (section 4.1 of the paper):
 *   W -= lr (method.scale * back(N) + weight_decay * W),  back(N) = N Q^T or P N^T
 * A bf16 weight is rounded once. back(N) exists for GALORE_TILE elements at a time, N for one
 * matrix, both in the workspace, in fp32.
 *
 * Refresh: at the first step and every method.interval steps (refresh_clock.h; staggered over
 * layers by method.stagger), from the first micro-batch, the new basis being used from that very
 * micro-batch on. method.projection:
 *   subspace   block power iteration, each half being orthonormalised (op_orthonormalize):
 *                Z = dW Q = dy^T (x Q);  Q = dW^T Z = x^T (dy Z)
 *              once from the basis in use, at the first refresh twice from a random start. Costs
 *              2 T r (m + n) FLOPs a product; no m n elements.
 *   svd        the leading singular vectors of dW as eigenvectors of dW^T dW (or dW dW^T), by
 *              cuSOLVER on a GPU that has it, else by LAPACK on the host (op_eigenvectors); forms
 *              dW of one matrix in the workspace
 * A refresh is prepared in the backward and committed in the update, when it is known that the step
 * is not skipped: until then the old basis waits in host memory. A skipped step changes nothing.
 *
 * At a commit the moments, whose columns belong to the old basis, are (method.moments)
 *   keep       left as they are: what the authors' code does
 *   rotate     turned into the new basis: with C = Q_new^T Q_old, M C^T, and V (C.C)^T for the
 *              second moment, which stays positive
 *   reset      zero, and their age with them
 *
 * One report a refreshed matrix (of several ranks: by the first one's tokens): captured_energy is
 * ||R||^2 / (||R||^2 + what lies outside), the latter estimated from GALORE_PROBES random
 * directions, E ||dW (I - Q Q^T) w||^2 for normal w; overlap is ||C||^2 / r; the rest has no
 * meaning here and is absent.
 */
#ifndef WINDROW_ENGINE_METHOD_GALORE_H
#define WINDROW_ENGINE_METHOD_GALORE_H

#include "engine/method/method.h"

extern const struct method_ops galore_method;

#endif
