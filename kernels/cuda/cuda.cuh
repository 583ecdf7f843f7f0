/* Entries of the table of the cuda backend (formulas and shapes: kernels/ops.h). */
#ifndef WINDROW_KERNELS_CUDA_CUDA_CUH
#define WINDROW_KERNELS_CUDA_CUDA_CUH

#include "kernels/ops.h"

/* transfer.cu */
extern "C" const struct transfer_ops cuda_transfers;

/* elementwise.cu */
void cuda_zero(struct backend *be, struct tensor *y);
void cuda_copy(struct backend *be, struct tensor *y, const struct tensor *x);
void cuda_add(struct backend *be, struct tensor *y, const struct tensor *x);
void cuda_scale(struct backend *be, struct tensor *y, float s);
void cuda_sum(struct backend *be, struct tensor *sum, const struct tensor *x, bool accumulate);
void cuda_sum_squares(struct backend *be, struct tensor *sum, const struct tensor *x,
                      bool accumulate);
void cuda_clip(struct backend *be, struct tensor *control, const struct tensor *sum_squares,
               const struct tensor *loss, float clip);

/* matmul.cu */
void cuda_matmul(struct backend *be, const struct matmul *args);

/* norm.cu */
void cuda_rmsnorm_forward(struct backend *be, const struct rmsnorm_forward *args);
void cuda_rmsnorm_backward(struct backend *be, const struct rmsnorm_backward *args);

/* rope.cu */
void cuda_rope(struct backend *be, const struct rope *args);

/* attention.cu */
int cuda_configure(struct backend *be, const struct backend_options *options, char *why,
                   size_t why_size);
void cuda_attention_forward(struct backend *be, const struct attention_forward *args);
void cuda_attention_backward(struct backend *be, const struct attention_backward *args);

/* decode.cu */
void cuda_attention_decode(struct backend *be, const struct attention_decode *args);

/* activation.cu */
void cuda_swiglu_forward(struct backend *be, struct tensor *y, const struct tensor *gate_up);
void cuda_swiglu_backward(struct backend *be, const struct swiglu_backward *args);

/* embedding.cu */
void cuda_embedding_forward(struct backend *be, struct tensor *y, const struct tensor *table,
                            const struct tensor *ids);
void cuda_embedding_backward(struct backend *be, struct tensor *dtable, const struct tensor *dy,
                             const struct tensor *ids);
void cuda_distinct(struct backend *be, const struct distinct *args);

/* loss.cu */
void cuda_cross_entropy(struct backend *be, const struct cross_entropy *args);

/* squared_norms.cu */
void cuda_squared_norms(struct backend *be, struct tensor *norms, const struct tensor *x,
                        enum side side);

/* select.cu */
void cuda_select(struct backend *be, const struct select *args);

/* project.cu */
void cuda_gather(struct backend *be, struct tensor *y, const struct tensor *x,
                 const struct tensor *index, enum side side);
void cuda_scatter(struct backend *be, struct tensor *x, const struct tensor *y,
                  const struct tensor *index, enum side side);
void cuda_scale_side(struct backend *be, struct tensor *x, const struct tensor *scale,
                     enum side side);

/* optimizer.cu */
void cuda_adamw(struct backend *be, const struct adamw *args);
void cuda_settle(struct backend *be, const struct settle *args);

/* rules.cu */
void cuda_sgd(struct backend *be, const struct sgd *args);
void cuda_unit_factors(struct backend *be, const struct unit_factors *args);
void cuda_tradam(struct backend *be, const struct tradam *args);

/* int8.cu */
void cuda_adamw_int8(struct backend *be, const struct adamw *args);
void cuda_quantize(struct backend *be, const struct quantize *args);
void cuda_dequantize(struct backend *be, const struct dequantize *args);

/* random.cu */
void cuda_random_sign(struct backend *be, struct tensor *x, float magnitude, struct random_key key);
void cuda_random_normal(struct backend *be, struct tensor *x, float deviation,
                        struct random_key key);

/* eigen.cu */
void cuda_eigenvectors(struct backend *be, struct tensor *vectors, const struct tensor *matrix);

/* subspace.cu */
void cuda_orthonormalize(struct backend *be, const struct orthonormalize *args);
void cuda_square(struct backend *be, struct tensor *y);
void cuda_descend(struct backend *be, const struct descend *args);

#endif
