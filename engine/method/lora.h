/*
 * LoRA: low-rank adapters beside frozen weights (Hu et al., arXiv 2106.09685), as peft defines
 * them.
 *
 *   y = x W^T + s (x A^T) B^T        A (r, N), B (M, r), s = alpha / r
 *   dB = s dy^T (x A^T);  dA = s (dy B)^T x;  dx = dy W + s (dy B) A;  dW does not exist
 *
 * A begins uniform in +-1 / sqrt(N) (Kaiming's bound for a slope of sqrt(5)), B as zero, so that
 * the first forward is that of the base. A and B are fp32 whatever the weights are; products use
 * copies in the model's dtype. x A^T is computed again in the backward: it costs r / M of the
 * product it stands beside, and nothing has to be kept for it under any activation policy.
 *
 * Packed layers take one pass: the A of all parts lie one below the other, (R, N), and the copies
 * of their B, times s, on the diagonal of one (M, R). Parts without adapter are rows of zeros.
 */
#ifndef WINDROW_ENGINE_METHOD_LORA_H
#define WINDROW_ENGINE_METHOD_LORA_H

#include "engine/method/method.h"

extern const struct method_ops lora_method;

#endif
