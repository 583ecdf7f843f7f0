/*
 * A model: parameters, linear layers, and the loop over its blocks.
 *
 * A family (llama ...) says which parameters exist under which Hugging Face names and how a block
 * goes forward and backward. Embedding, final norm, head and loss are the same for all of them and
 * are written once, in model.c, as is the loop that keeps and releases activations.
 */
#ifndef WINDROW_ENGINE_MODEL_MODEL_H
#define WINDROW_ENGINE_MODEL_MODEL_H

#include "engine/model/config.h"
#include "engine/model/pass.h"

struct model;
struct block;

struct family_ops {
    const char *name; /* "llama": model_type of config.json */
    /* Declares parameters and linear layers of all blocks, in the order of the file. */
    void (*declare_blocks)(struct model *model);
    /* out = block(x); at inference out and x may be one tensor. */
    void (*block_forward)(struct model *model, struct pass *pass, struct block *block,
                          struct tensor *out, const struct tensor *x);
    /* dx holds the gradient of out and becomes that of x. Uses what the forward kept in `block`,
     * and makes the rest again. */
    void (*block_backward)(struct model *model, struct pass *pass, struct block *block,
                           struct tensor *dx);
    /* Elements a token of a value. */
    int64_t (*columns)(const struct model *model, enum block_value value);
    /* Computes block->value[value], which is placed. Called by block_need (model/block.h), through
     * which it asks for its inputs. The only way to compute that value, in either direction. */
    void (*produce)(struct model *model, struct pass *pass, struct block *block,
                    enum block_value value);
};
const struct family_ops *family_find(const char *name);

enum { BLOCK_LINEARS = 4 };

/* What was there of a block at some point: model/block.h. */
struct block_scope {
    struct memory_position workspace;
    unsigned present;
};

/* One transformer block: its layers, and what its forward kept for its backward. */
struct block {
    int64_t layer;
    struct parameter *norm1;
    struct parameter *norm2;
    struct linear *qkv, *o, *gate_up, *down;
    struct tensor value[VALUE_COUNT];
    unsigned present; /* bits of the values that are there now: model/block.h */
    /* Of the values whose bits are set, samples lie in ACTIVATIONS. */
    unsigned sampled;
    struct input_sample sample[VALUE_COUNT];
    /* fp32 numbers of the rows, always kept: recomputing writes the same ones again. */
    struct tensor rstd1, rstd2, lse;
    struct memory_position kept; /* activations before this block */
    /* Nothing of this block is made twice: its values wait in the workspace, from this mark on;
     * those after the attention, from the second. */
    bool waits;
    struct memory_position waiting;
    struct block_scope attention;
};

struct model {
    struct model_config config;
    const struct family_ops *family;
    enum dtype dtype; /* of weights, activations and gradients */
    struct parameter *parameter;
    int64_t parameter_count;
    struct linear *linear;
    int64_t linear_count;
    struct block *block;
    struct parameter **dense; /* embedding, head and norms, in the order of the file */
    int64_t dense_count;
    struct parameter *embedding;
    struct parameter *final_norm;
    struct parameter *head;     /* the embedding if tied */
    struct linear *head_linear; /* NULL unless model_give_head was called */
    struct tensor rope_table;   /* (P, D) */
    int64_t positions;          /* P */
    int64_t first_trained;      /* below this block nothing trains, nor does the embedding */
};

/* Declares everything; takes no device memory. `positions`: longest sequence of any pass. */
int model_init(struct model *model, const struct model_config *config, enum dtype dtype,
               int64_t positions, struct error *err);
void model_free(struct model *model);

/* Places the weights and the table of rotations. */
void model_place(struct model *model, struct backend *be, struct memory *memory);
/* Of these only the table of rotations, in ACTIVATIONS, where that region was taken anew. */
void model_place_table(struct model *model, struct backend *be, struct memory *memory);

/* Gives the head of an untied model to the method like a layer of a block: as the last of
 * model->linear. Its weight gradient is then not summed in pass->dense: between two calls of
 * hooks->head the hook weight_gradient sees the logits' gradient chunk by chunk. May be called
 * again. */
void model_give_head(struct model *model);

/* Random weights: normal with the configuration's initializer_range; norms are 1. */
void model_randomize(struct model *model, struct backend *be, uint64_t seed);

/* Elements of all parameters. */
int64_t model_size(const struct model *model);

/* Parameters that are not part of a block's linear layer, by number; NULL past the last. */
struct parameter *model_dense_parameter(const struct model *model, int64_t index);

/* Forward through the blocks: hidden (T, C), normalised, in the workspace of the caller. A training
 * pass keeps what its backward needs.
 *
 * The last block's backward follows its forward at once but for the logits. Where these are no
 * larger than what a backward takes beside the values of its block, those of the last block wait in
 * the workspace instead of being made again, since the other blocks' backward takes that room
 * anyway. */
struct model_forward {
    struct tensor hidden; /* after the final norm */
    struct tensor last;   /* before it (kept) */
    struct tensor rstd;
    struct tensor dx; /* training: where the gradient of the residual stream will be */
};
void model_forward(struct model *model, struct pass *pass, struct model_forward *out);

/* Losses of the pass's targets, added to loss_sum (1). If dhidden (T, C) is not NULL it gets the
 * gradient of hidden, and may be hidden itself; the head's gradient is added to pass->dense.
 * `scale` multiplies gradients, not losses. The logits exist for a chunk of tokens at a time and
 * become their own gradient in place. */
struct model_loss {
    struct tensor *loss_sum;
    struct tensor *dhidden;
    const struct tensor *scale;
};
void model_loss(struct model *model, struct pass *pass, const struct tensor *hidden,
                const struct model_loss *args);

/* Backward from dhidden through final norm, blocks and embedding. */
void model_backward(struct model *model, struct pass *pass, struct model_forward *forward,
                    const struct tensor *dhidden);

/* Logits (B, V) of a pass over one token a row. */
void model_logits(struct model *model, struct pass *pass, struct tensor *logits,
                  const struct tensor *hidden);

#endif
