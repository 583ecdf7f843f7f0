/*
 * Keeping a random sample of a linear layer's input for its weight gradient G = sum over tokens t
 * of dy_t x_t^T. The forward and the gradient of x are exact; the expected G is the true one.
 *
 *   crs      k = keep T tokens drawn with replacement, p proportional to |x_t| (|dy_t| is not known
 *            yet); each is weighed 1 / (k p).
 *   wta-crs  the tokens with the largest |x_t| for certain, the others drawn (op_select,
 *            SELECT_WINNERS): Liu et al., "Winner-take-all column row sampling for memory efficient
 *            adaptation of language model", arXiv 2305.15265, without the biased exceptions of the
 *            authors' program. k rows of x and of dy enter G: it costs keep times the FLOPs.
 *   rad      k = keep N of x's columns, the same for all tokens, drawn without replacement and
 *            multiplied by N / k: Oktay et al., "Randomized automatic differentiation", arXiv
 *            2007.10412, section 3. E|G - true|^2 = (N / k - 1) |true|^2, whatever x is.
 *
 * Sampled are the inputs of q, k, v, of gate and up, and of down; that of o is kept for the
 * attention's own backward, so its gradient stays exact. A method that chooses rows or a basis from
 * the gradient chooses from the estimate.
 *
 * Which tokens or columns: a function of (seed, step, micro-batch, layer) and the input, so a
 * resumed run draws the same, and nothing is stored twice.
 */
#ifndef WINDROW_ENGINE_ACTIVATION_SAMPLE_H
#define WINDROW_ENGINE_ACTIVATION_SAMPLE_H

#include "engine/model/pass.h"

/* The sampler of a recipe's activation.sample: "crs", "wta-crs", "rad". NULL for "none" and for
 * what is not built in. */
const struct sampler_ops *sampler_find(const char *name);
/* The values of activation.sample, "none" first; NULL past the last. */
const char *sampler_name(size_t index);

/* How many of `count` tokens or columns a share keeps: rounded down, at least 1. */
int64_t sampler_count(double keep, int64_t count);

#endif
