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
                    const struct tensor *x, float beta)
{
    op_matmul(pass->be,
              &(struct matmul){
                  .c = y, .a = x, .b = &linear->weight, .transpose_b = true, .beta = beta });
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
}
