/*
 * The linear layer, where every training method and activation policy meets the model.
 *
 *   forward   y = x W^T                 x (T, N), W (M, N), y (T, M)
 *             a method may add to y, in training and wherever else the model is used
 *   backward  dx = dy W                 2 M N T FLOPs, like the forward; a method may add to dx
 *             the weight gradient dW = dy^T x is the method's business: it may keep all of it, a
 *             part, or a projection, and is given dy and what was kept of x
 *
 * A layer may be packed: q, k and v (or gate and up) read the same x, so their matrices lie one
 * after the other in one weight and take one product. A part is one matrix with its own name, its
 * own row selection and its own statistics.
 */
#ifndef WINDROW_ENGINE_MODEL_LINEAR_H
#define WINDROW_ENGINE_MODEL_LINEAR_H

#include "engine/model/parameter.h"

enum { LINEAR_PARTS_MAX = 3 };

struct linear_part {
    struct parameter *parameter;
    int64_t first; /* its first row in the packed weight */
    int64_t rows;
};

struct linear {
    struct tensor weight; /* (M, N), all parts */
    int part_count;
    struct linear_part part[LINEAR_PARTS_MAX];
    int64_t index; /* number in the model */
    bool idle;     /* the method acts on none of its parts */
};

/* The name of a layer's tensors in memory records: of its matrix, or "... q_proj.weight +2" where
 * others are packed behind it. */
enum { LINEAR_LABEL_SIZE = 80 };
void linear_label(const struct linear *linear, char label[LINEAR_LABEL_SIZE]);

struct pass;

/* What a training method does at a linear layer that is not idle. In the backward of every
 * micro-batch weight_gradient gets dy (T, M) and x (T, N), which may be overwritten afterwards. The
 * others may be NULL. Where the activation policy recomputes, `forward` runs again in the
 * backward of its block, with the same x, before the layer's weight_gradient. */
struct linear_hooks {
    /* y (T, M) holds x W^T (and what was there before): adds to it. In every pass, without training
     * too; keeps nothing of x. */
    void (*forward)(void *context, struct pass *pass, const struct linear *linear, struct tensor *y,
                    const struct tensor *x);
    /* dx (T, N) holds dy W: adds to it. */
    void (*input_gradient)(void *context, struct pass *pass, const struct linear *linear,
                           struct tensor *dx, const struct tensor *dy);
    /* Where columns of dy were captured, pass_captured has them. */
    void (*weight_gradient)(void *context, struct pass *pass, const struct linear *linear,
                            const struct tensor *dy, const struct tensor *x);
    /* Before the first (`begin`) and after the last chunk of the head's weight gradient in a
     * micro-batch, if the method has the head (model_give_head): the hook above then sees dy and x
     * of a chunk of tokens each time. What is placed in the workspace in between, at the beginning,
     * stays there until the end. */
    void (*head)(void *context, struct pass *pass, const struct linear *linear, bool begin);
    /* Asked before the dy of the layer is produced: the columns that weight_gradient wants of it
     * (int32 on the device, rows of the packed weight, -1 for none), or NULL for all. *known is
     * false while they have still to be chosen: all are wanted then, but room is taken as always,
     * since a plan must not depend on which steps choose. */
    const struct tensor *(*columns)(void *context, const struct linear *linear, bool *known);
    void *context;
};

/* y = x W^T + residual, and the method's share. residual: NULL for nothing; may be y itself.
 *
 * The residual stream x + f(x) is written by the product. Bytes a token in bf16 for that and for
 * the norm which follows: a copy (4C), a product that adds to it (4C) and the norm (4C) are 12C; a
 * product (2C) and a norm that also adds (8C) are 10C and round twice; a product that reads one
 * tensor and writes another (4C) and the norm (4C) are 8C, with one rounding and no kernel more. */
void linear_forward(struct pass *pass, const struct linear *linear, struct tensor *y,
                    const struct tensor *x, const struct tensor *residual);

/* dx = dy W, and the method's share. */
void linear_backward(struct pass *pass, const struct linear *linear, struct tensor *dx,
                     const struct tensor *dy);

/* The method's hook with dy and x. */
void linear_weight_gradient(struct pass *pass, const struct linear *linear, const struct tensor *dy,
                            const struct tensor *x);

#endif
