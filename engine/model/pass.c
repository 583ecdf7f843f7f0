/* Placing the values of a pass, and the two directions of a linear layer. */
#include "engine/model/pass.h"

#include <stdio.h>

#include "kernels/ops.h"

const char *const block_value_names[VALUE_COUNT] = {
    "block input", "norm1", "qkv", "attention", "middle", "norm2", "gate_up", "swiglu",
};

struct tensor pass_value(struct pass *pass, enum block_value value, bool kept, enum dtype dtype,
                         int64_t columns)
{
    enum memory_category category = kept ? MEMORY_ACTIVATIONS : MEMORY_WORKSPACE;
    const int64_t dim[2] = { pass_tokens(pass), columns };
    return memory_matrix(pass->memory, category, block_value_names[value], dtype, dim);
}

struct tensor pass_scratch(struct pass *pass, const char *name, enum dtype dtype, int64_t columns)
{
    const int64_t dim[2] = { pass_tokens(pass), columns };
    return memory_matrix(pass->memory, MEMORY_WORKSPACE, name, dtype, dim);
}

void linear_label(const struct linear *linear, char label[LINEAR_LABEL_SIZE])
{
    const char *name = linear->part[0].parameter->name;
    if (linear->part_count == 1) {
        snprintf(label, LINEAR_LABEL_SIZE, "%.79s", name);
    } else {
        snprintf(label, LINEAR_LABEL_SIZE, "%.60s +%d", name, linear->part_count - 1);
    }
}

void linear_forward(struct pass *pass, const struct linear *linear, struct tensor *y,
                    const struct tensor *x, const struct tensor *residual)
{
    bool in_place = residual != NULL && residual->data == y->data;
    op_matmul(pass->be, &(struct matmul){ .c = y,
                                          .a = x,
                                          .b = &linear->weight,
                                          .transpose_b = true,
                                          .beta = in_place ? 1.0f : 0.0f,
                                          .addend = in_place ? NULL : residual });
    const struct linear_hooks *hooks = pass->hooks;
    if (hooks != NULL && hooks->forward != NULL && !linear->idle) {
        hooks->forward(hooks->context, pass, linear, y, x);
    }
}

void linear_backward(struct pass *pass, const struct linear *linear, struct tensor *dx,
                     const struct tensor *dy)
{
    op_matmul(pass->be, &(struct matmul){ .c = dx, .a = dy, .b = &linear->weight });
    const struct linear_hooks *hooks = pass->hooks;
    if (!linear->idle && hooks->input_gradient != NULL) {
        hooks->input_gradient(hooks->context, pass, linear, dx, dy);
    }
}

void linear_weight_gradient(struct pass *pass, const struct linear *linear, const struct tensor *dy,
                            const struct tensor *x)
{
    pass->hooks->weight_gradient(pass->hooks->context, pass, linear, dy, x);
    pass->captured.linear = NULL;
}

/* ---- captured columns ------------------------------------------------------------------------ */

/* A weight gradient from a sample of the tokens wants all columns of theirs. */
static const struct tensor *wanted(const struct pass *pass, const struct linear *linear,
                                   bool *known)
{
    const struct linear_hooks *hooks = pass->hooks;
    bool asks = linear != NULL && !linear->idle && pass->sampler == NULL && hooks != NULL &&
                hooks->columns != NULL;
    return asks ? hooks->columns(hooks->context, linear, known) : NULL;
}

int64_t pass_wanted(const struct pass *pass, const struct linear *linear)
{
    bool known = false;
    const struct tensor *index = wanted(pass, linear, &known);
    return index != NULL ? tensor_count(index) : 0;
}

const struct capture *pass_capture(struct pass *pass, const struct linear *linear,
                                   const struct tensor *room)
{
    bool known = false;
    const struct tensor *index = room->rank > 0 ? wanted(pass, linear, &known) : NULL;
    if (index == NULL || !known) {
        return NULL;
    }
    struct captured *captured = &pass->captured;
    captured->linear = linear;
    captured->out = tensor_as_matrix(room, pass_tokens(pass), tensor_count(index));
    captured->capture = (struct capture){ .out = &captured->out, .index = index };
    return &captured->capture;
}

struct tensor pass_capture_room(struct pass *pass, const struct linear *linear)
{
    bool known = false;
    const struct tensor *index = wanted(pass, linear, &known);
    if (index == NULL) {
        return (struct tensor){ .rank = 0 };
    }
    return pass_scratch(pass, "captured columns", linear->weight.dtype, tensor_count(index));
}

const struct tensor *pass_captured(const struct pass *pass, const struct linear *linear)
{
    return pass->captured.linear == linear ? &pass->captured.out : NULL;
}
