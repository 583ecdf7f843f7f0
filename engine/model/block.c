/* Making the values of a block, and forgetting them. See block.h. */
#include "engine/model/block.h"

static unsigned bit(enum block_value value)
{
    return 1u << (unsigned)value;
}

/* The layer whose weight gradient is all that the backward wants the value for, or NULL. */
static const struct linear *only_reader(const struct block *block, enum block_value value)
{
    switch (value) {
    case VALUE_NORM1:
        return block->qkv;
    case VALUE_NORM2:
        return block->gate_up;
    case VALUE_SWIGLU:
        return block->down;
    default:
        return NULL;
    }
}

/* True if a sample of the value stands for it in the weight gradient. */
static bool is_sampled(const struct pass *pass, const struct block *block, enum block_value value)
{
    const struct linear *reader = only_reader(block, value);
    const struct input_sampler *sampler = pass->sampler;
    return pass->training && sampler != NULL && reader != NULL && !reader->idle &&
           (sampler->ops->applies == NULL || sampler->ops->applies(sampler, reader));
}

bool block_keeps(const struct pass *pass, const struct block *block, enum block_value value)
{
    const struct linear *reader = only_reader(block, value);
    bool wanted = reader == NULL || (!reader->idle && !is_sampled(pass, block, value));
    return pass->training && wanted && pass->policy->keeps[value];
}

/* Takes the sample that will wait for the backward, once. */
static void keep_sample(struct pass *pass, struct block *block, const struct linear *linear,
                        enum block_value value)
{
    bool keep = is_sampled(pass, block, value) && pass->policy->keeps[value] && !linear->idle;
    if (keep && (block->sampled & bit(value)) == 0) {
        pass->sampler->ops->take(pass->sampler, pass, linear, &block->value[value],
                                 MEMORY_ACTIVATIONS, &block->sample[value]);
        block->sampled |= bit(value);
    }
}

/* The weight gradient from a sample: the one that was kept, or one of the value made again. */
static void sampled_weight_gradient(struct model *model, struct pass *pass, struct block *block,
                                    const struct linear *linear, const struct tensor *dy,
                                    enum block_value value)
{
    const struct input_sampler *sampler = pass->sampler;
    if (sampler->ops->whole != NULL && sampler->ops->whole(sampler, linear)) {
        linear_weight_gradient(pass, linear, dy, block_need(model, pass, block, value));
        return;
    }
    if ((block->sampled & bit(value)) != 0) {
        sampler->ops->weight_gradient(sampler, pass, linear, dy, &block->sample[value]);
        return;
    }
    struct input_sample sample;
    const struct tensor *x = block_need(model, pass, block, value);
    sampler->ops->take(sampler, pass, linear, x, MEMORY_WORKSPACE, &sample);
    sampler->ops->weight_gradient(sampler, pass, linear, dy, &sample);
}

struct block_scope block_open(const struct pass *pass, const struct block *block)
{
    return (struct block_scope){ .workspace = memory_mark(pass->memory, MEMORY_WORKSPACE),
                                 .present = block->present };
}

void block_close(struct pass *pass, struct block *block, struct block_scope scope)
{
    unsigned stays = scope.present;
    for (int v = 0; v < VALUE_COUNT; v++) {
        stays |= block_keeps(pass, block, (enum block_value)v) ? bit((enum block_value)v) : 0u;
    }
    block->present &= stays;
    memory_release(pass->memory, MEMORY_WORKSPACE, scope.workspace);
}

void block_spoil(struct block *block, enum block_value value)
{
    block->present &= ~bit(value);
}

struct tensor *block_need(struct model *model, struct pass *pass, struct block *block,
                          enum block_value value)
{
    struct tensor *tensor = &block->value[value];
    if ((block->present & bit(value)) != 0) {
        return tensor;
    }
    *tensor = pass_value(pass, value, block_keeps(pass, block, value), model->dtype,
                         model->family->columns(model, value));
    struct block_scope inputs = block_open(pass, block);
    model->family->produce(model, pass, block, value);
    block_close(pass, block, inputs);
    block->present |= bit(value);
    return tensor;
}

void block_linear_forward(struct model *model, struct pass *pass, struct block *block,
                          const struct linear *linear, struct tensor *y, enum block_value x,
                          const struct tensor *residual)
{
    linear_forward(pass, linear, y, block_need(model, pass, block, x), residual);
    keep_sample(pass, block, linear, x);
}

void block_linear_backward(struct model *model, struct pass *pass, struct block *block,
                           const struct linear *linear, struct tensor *dx, const struct tensor *dy,
                           enum block_value x)
{
    linear_backward(pass, linear, dx, dy);
    if (linear->idle) {
        return;
    }
    struct block_scope scope = block_open(pass, block);
    if (is_sampled(pass, block, x)) {
        sampled_weight_gradient(model, pass, block, linear, dy, x);
    } else {
        linear_weight_gradient(pass, linear, dy, block_need(model, pass, block, x));
    }
    block_close(pass, block, scope);
}
