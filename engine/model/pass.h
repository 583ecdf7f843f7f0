/*
 * One pass of a micro-batch through the model: its inputs, the memory it uses, and who listens.
 *
 * Values that the backward needs are placed in ACTIVATIONS and released block by block as the
 * backward has used them; everything else lives in WORKSPACE until the end of its block. The
 * activation policy says which is which.
 */
#ifndef WINDROW_ENGINE_MODEL_PASS_H
#define WINDROW_ENGINE_MODEL_PASS_H

#include "engine/memory/memory.h"
#include "engine/model/linear.h"
#include "kernels/ops.h"

/* The values of a block that a backward wants, each made from the one before it (the middle also
 * from the block's input). */
enum block_value {
    VALUE_BLOCK_INPUT,
    VALUE_NORM1,     /* input of q, k, v */
    VALUE_QKV,       /* rotated queries and keys, values */
    VALUE_ATTENTION, /* input of o */
    VALUE_MIDDLE,    /* the residual stream between attention and feed-forward */
    VALUE_NORM2,     /* input of gate and up */
    VALUE_GATE_UP,
    VALUE_SWIGLU, /* input of down */
    VALUE_COUNT
};
extern const char *const block_value_names[VALUE_COUNT];

/* Which values a training pass keeps whole between forward and backward; the others are made again
 * in the backward. The block's input is always kept. */
struct activation_policy {
    const char *name;
    bool replayable; /* it asks for the same operations in every step: nothing drawn at random by a
                        key of the step */
    bool keeps[VALUE_COUNT];
};

/* Who moves what blocks keep, around each block of a training pass; layers count
 * from 0, the first that has a backward. */
struct block_mover {
    void (*before_forward)(void *context, struct pass *pass, int64_t layer);
    void (*after_forward)(void *context, struct pass *pass, int64_t layer);
    /* What the block and the one before it kept must be in its place when this returns. */
    void (*before_backward)(void *context, struct pass *pass, int64_t layer);
    /* True where the block's place in ACTIVATIONS belongs to an earlier block. */
    bool (*shares_place)(void *context, int64_t layer);
    void *context;
};

/* What is kept of a linear layer's input in place of all of it: engine/activation/sample.h. */
struct input_sample {
    struct tensor x;
    struct tensor index;
    struct tensor scale;
};

/* Keeps a random sample of the inputs that only a weight gradient wants, so that the expected
 * gradient is the true one. Where the policy makes such an input again, the sample is taken then;
 * it is the same, being a function of the keys and of the input. */
struct input_sampler {
    const struct sampler_ops *ops;
    void *context; /* of a sampler that belongs to a method */
    double keep;   /* share that is kept, below 1 */
    uint64_t seed;
    int64_t step;
    int64_t micro;
};

struct pass;
struct linear;
struct sampler_ops {
    const char *name;
    bool replayable; /* nothing is drawn by a key of the step; what `whole` depends on is the
                        method's own, which then cannot be replayed */
    /* False: the layer's input is kept whole. NULL: none is. */
    bool (*applies)(const struct input_sampler *sampler, const struct linear *linear);
    /* True: the layer's weight gradient of this micro-batch sees whole inputs, which the backward
     * makes again; what take places is not used. NULL: none ever does. */
    bool (*whole)(const struct input_sampler *sampler, const struct linear *linear);
    /* Places a sample of x (T, N) in `category`. */
    void (*take)(const struct input_sampler *sampler, struct pass *pass,
                 const struct linear *linear, const struct tensor *x, enum memory_category category,
                 struct input_sample *out);
    /* Calls linear_weight_gradient with what estimates it. */
    void (*weight_gradient)(const struct input_sampler *sampler, struct pass *pass,
                            const struct linear *linear, const struct tensor *dy,
                            const struct input_sample *sample);
};

/* Keys and values of the tokens so far, for generation. */
struct token_cache {
    struct tensor *keys; /* one (B, P, K D) a block */
    struct tensor *values;
    int64_t position; /* of the token that is being fed */
};

/* Where the gradients of the dense parameters (embedding, head, norms) are summed: by parameter
 * number, empty for matrices. */
struct dense_gradients {
    struct tensor *tensor;
};

/* Columns of the gradient of a linear layer's output, stored side by side by the operation that
 * produced it. There is never more than one that waits for its weight gradient. */
struct captured {
    const struct linear *linear; /* NULL: nothing waits */
    struct tensor out;           /* (T, R) */
    struct capture capture;      /* for the operation */
};

struct pass {
    struct backend *be;
    struct memory *memory;
    int64_t batch;    /* B */
    int64_t sequence; /* S */
    bool training;
    const struct activation_policy *policy;
    const struct block_mover *mover;     /* NULL: everything stays where it is */
    const struct input_sampler *sampler; /* NULL: inputs are used whole */
    const struct linear_hooks *hooks;    /* NULL: none, if the pass does not train */
    const struct dense_gradients *dense; /* training only */
    struct token_cache *cache;           /* generation only: S is 1 */
    const struct tensor *ids;            /* (T) int32 */
    const struct tensor *slots;     /* (T) int32: rows of the embedding's gradient; NULL: ids */
    const struct tensor *targets;   /* (T) int32 */
    const struct tensor *positions; /* (T) int32 */
    const struct tensor *starts;    /* (T) int32; NULL: every row is one run of text */
    struct captured captured;       /* training only */
    struct tensor residual_room; /* for columns of the residual stream's gradient: produced in one
                                    block, used in another, so below all of them */
    void (*on_layer)(void *context, int64_t layer, bool backward); /* may be NULL */
    void *context;
};

static inline int64_t pass_tokens(const struct pass *pass)
{
    return pass->batch * pass->sequence;
}

/* Where the gradient of a dense parameter is summed, or NULL: it is frozen, or nobody asks. */
static inline struct tensor *pass_gradient(const struct pass *pass, const struct parameter *p)
{
    return pass->dense == NULL || p->frozen ? NULL : &pass->dense->tensor[p->id];
}

/* Places (T, columns) in ACTIVATIONS if it is kept for the backward, else in WORKSPACE. */
struct tensor pass_value(struct pass *pass, enum block_value value, bool kept, enum dtype dtype,
                         int64_t columns);

/* Before the gradient of the output of `linear` (NULL: of none) is produced: what to hand to the
 * operation so that it captures the columns that the method wants into `room`; NULL if it wants
 * none. The layer before must have had its weight gradient. */
const struct capture *pass_capture(struct pass *pass, const struct linear *linear,
                                   const struct tensor *room);

/* How many columns the method wants of a layer; 0: all. */
int64_t pass_wanted(const struct pass *pass, const struct linear *linear);

/* Places that room in the workspace; of rank 0 if nothing is wanted. */
struct tensor pass_capture_room(struct pass *pass, const struct linear *linear);

/* In weight_gradient: the captured columns of dy, or NULL. */
const struct tensor *pass_captured(const struct pass *pass, const struct linear *linear);

/* Places (T, columns) in the workspace. */
struct tensor pass_scratch(struct pass *pass, const char *name, enum dtype dtype, int64_t columns);

#endif
