/*
 * A backend that computes every operation in double, by the plainest loops that say what
 * kernels/ops.h says: the measure of the errors of the others.
 *
 * A tensor of it holds doubles whatever its dtype is, so nothing is ever rounded; where an
 * operation reads back what it stored as bf16 (caches of decoding), that rounding is made.
 * Eight-bit codes and integers are whole numbers. What is no function of the exact values is NaN
 * afterwards: residues, which say how a number was rounded. A tensor that holds copies of rounded
 * numbers gets their dtype.
 */
#ifndef WINDROW_TESTS_GPU_REFERENCE_H
#define WINDROW_TESTS_GPU_REFERENCE_H

#include "kernels/ops.h"

/* Ends the program where there is no memory. */
struct backend *reference_open(void);

static inline double *numbers_of(const struct tensor *t)
{
    return t->data;
}

/* calloc that ends the program where there is no memory. */
double *reference_room(int64_t count);

/* reference_model.c */
void reference_matmul(struct backend *be, const struct matmul *args);
void reference_rmsnorm_forward(struct backend *be, const struct rmsnorm_forward *args);
void reference_rmsnorm_backward(struct backend *be, const struct rmsnorm_backward *args);
void reference_rope(struct backend *be, const struct rope *args);
void reference_swiglu_forward(struct backend *be, struct tensor *y, const struct tensor *gate_up);
void reference_swiglu_backward(struct backend *be, const struct swiglu_backward *args);
void reference_embedding_forward(struct backend *be, struct tensor *y, const struct tensor *table,
                                 const struct tensor *ids);
void reference_embedding_backward(struct backend *be, struct tensor *dtable,
                                  const struct tensor *dy, const struct tensor *ids);
void reference_distinct(struct backend *be, const struct distinct *args);
void reference_cross_entropy(struct backend *be, const struct cross_entropy *args);

/* reference_attention.c */
void reference_attention_forward(struct backend *be, const struct attention_forward *args);
void reference_attention_backward(struct backend *be, const struct attention_backward *args);
void reference_attention_decode(struct backend *be, const struct attention_decode *args);

/* reference_select.c */
void reference_squared_norms(struct backend *be, struct tensor *norms, const struct tensor *x,
                             enum side side);
void reference_select(struct backend *be, const struct select *args);
void reference_gather(struct backend *be, struct tensor *y, const struct tensor *x,
                      const struct tensor *index, enum side side);
void reference_scatter(struct backend *be, struct tensor *x, const struct tensor *y,
                       const struct tensor *index, enum side side);
void reference_scale_side(struct backend *be, struct tensor *x, const struct tensor *scale,
                          enum side side);
void reference_unit_factors(struct backend *be, const struct unit_factors *args);

/* reference_update.c */
void reference_adamw(struct backend *be, const struct adamw *args);
void reference_settle(struct backend *be, const struct settle *args);
void reference_sgd(struct backend *be, const struct sgd *args);
void reference_tradam(struct backend *be, const struct tradam *args);
void reference_quantize(struct backend *be, const struct quantize *args);
void reference_dequantize(struct backend *be, const struct dequantize *args);
void reference_descend(struct backend *be, const struct descend *args);

/* reference_subspace.c */
void reference_orthonormalize(struct backend *be, const struct orthonormalize *args);
void reference_eigenvectors(struct backend *be, struct tensor *vectors,
                            const struct tensor *matrix);
void reference_random_normal(struct backend *be, struct tensor *x, float deviation,
                             struct random_key key);
void reference_random_sign(struct backend *be, struct tensor *x, float magnitude,
                           struct random_key key);

#endif
