/*
 * A LLaMA block.
 *
 *   n1 = rmsnorm(x) w1;  qkv = n1 Wqkv^T, rotated;  a = attention(qkv);  m = x + a Wo^T
 *   n2 = rmsnorm(m) w2;  gu = n2 Wgu^T;             s = swiglu(gu);      out = m + s Wdown^T
 *
 * Kept for the backward, elements a token with C hidden, F feed-forward, H = K: x, n1, q, k, v, a,
 * m, n2 = 8C; gate, up, s = 3F; and three fp32 numbers a row.
 */
#include "engine/model/llama.h"

#include <math.h>
#include <stdio.h>

#include "kernels/ops.h"

static struct parameter *declare(struct model *model, int64_t layer, const char *suffix,
                                 const int64_t dim[2])
{
    struct parameter *p = &model->parameter[model->parameter_count];
    snprintf(p->name, sizeof p->name, "model.layers.%lld.%s.weight", (long long)layer, suffix);
    p->role = dim[1] == 0 ? PARAMETER_NORM : PARAMETER_MATRIX;
    p->rank = dim[1] == 0 ? 1 : 2;
    p->dim[0] = dim[0];
    p->dim[1] = dim[1] == 0 ? 1 : dim[1];
    p->id = (uint32_t)model->parameter_count++;
    return p;
}

static void add_part(struct linear *linear, struct parameter *parameter)
{
    int64_t first = 0;
    if (linear->part_count > 0) {
        const struct linear_part *last = &linear->part[linear->part_count - 1];
        first = last->first + last->rows;
    }
    linear->part[linear->part_count++] =
        (struct linear_part){ .parameter = parameter, .first = first, .rows = parameter->dim[0] };
}

static struct linear *new_linear(struct model *model)
{
    struct linear *linear = &model->linear[model->linear_count];
    linear->index = model->linear_count++;
    return linear;
}

static void llama_declare_block(struct model *model, int64_t layer)
{
    const struct model_config *c = &model->config;
    struct block *block = &model->block[layer];
    int64_t q_rows = c->heads * c->head_size;
    int64_t kv_rows = c->kv_heads * c->head_size;
    const int64_t norm[2] = { c->hidden_size, 0 };
    const int64_t q[2] = { q_rows, c->hidden_size };
    const int64_t kv[2] = { kv_rows, c->hidden_size };
    const int64_t o[2] = { c->hidden_size, q_rows };
    const int64_t up[2] = { c->intermediate_size, c->hidden_size };
    const int64_t down[2] = { c->hidden_size, c->intermediate_size };

    block->layer = layer;
    block->norm1 = declare(model, layer, "input_layernorm", norm);
    block->qkv = new_linear(model);
    add_part(block->qkv, declare(model, layer, "self_attn.q_proj", q));
    add_part(block->qkv, declare(model, layer, "self_attn.k_proj", kv));
    add_part(block->qkv, declare(model, layer, "self_attn.v_proj", kv));
    block->o = new_linear(model);
    add_part(block->o, declare(model, layer, "self_attn.o_proj", o));
    block->norm2 = declare(model, layer, "post_attention_layernorm", norm);
    block->gate_up = new_linear(model);
    add_part(block->gate_up, declare(model, layer, "mlp.gate_proj", up));
    add_part(block->gate_up, declare(model, layer, "mlp.up_proj", up));
    block->down = new_linear(model);
    add_part(block->down, declare(model, layer, "mlp.down_proj", down));
}

static void llama_declare_blocks(struct model *model)
{
    for (int64_t layer = 0; layer < model->config.layers; layer++) {
        llama_declare_block(model, layer);
    }
}

/* fp32 numbers of a row that the backward needs. */
static struct tensor row_numbers(struct pass *pass, const char *name, int64_t count)
{
    enum memory_category category = pass->training ? MEMORY_ACTIVATIONS : MEMORY_WORKSPACE;
    return memory_vector(pass->memory, category, name, DTYPE_F32, count);
}

static struct attention_shape attention_shape(const struct model *model, const struct pass *pass)
{
    const struct model_config *c = &model->config;
    return (struct attention_shape){ .batch = pass->batch,
                                     .sequence = pass->sequence,
                                     .heads = c->heads,
                                     .kv_heads = c->kv_heads,
                                     .head_size = c->head_size,
                                     .scale = 1.0f / sqrtf((float)c->head_size) };
}

static void norm(struct model *model, struct pass *pass, const struct parameter *weight,
                 const struct tensor *x, struct tensor *y, struct tensor *rstd)
{
    *rstd = row_numbers(pass, "rstd", pass_tokens(pass));
    op_rmsnorm_forward(pass->be,
                       &(struct rmsnorm_forward){ .y = y,
                                                  .rstd = rstd,
                                                  .x = x,
                                                  .weight = &weight->value,
                                                  .eps = (float)model->config.rms_norm_eps });
}

static void rotate(struct model *model, struct pass *pass, struct tensor *qkv, bool inverse)
{
    const struct model_config *c = &model->config;
    op_rope(pass->be, &(struct rope){ .x = qkv,
                                      .table = &model->rope_table,
                                      .positions = pass->positions,
                                      .heads = c->heads + c->kv_heads,
                                      .head_size = c->head_size,
                                      .inverse = inverse });
}

static void attend(struct model *model, struct pass *pass, struct block *block)
{
    struct tensor *out = &block->value[VALUE_ATTENTION];
    const struct tensor *qkv = &block->value[VALUE_QKV];
    struct attention_shape shape = attention_shape(model, pass);
    if (pass->cache != NULL) {
        op_attention_decode(
            pass->be, &(struct attention_decode){ .out = out,
                                                  .keys = &pass->cache->keys[block->layer],
                                                  .values = &pass->cache->values[block->layer],
                                                  .qkv = qkv,
                                                  .position = pass->cache->position,
                                                  .shape = shape });
        return;
    }
    block->lse = row_numbers(pass, "lse", pass_tokens(pass) * shape.heads);
    op_attention_forward(
        pass->be,
        &(struct attention_forward){
            .out = out, .lse = &block->lse, .qkv = qkv, .starts = pass->starts, .shape = shape });
}

static void llama_block_forward(struct model *model, struct pass *pass, struct block *block,
                                struct tensor *out, const struct tensor *x)
{
    const struct model_config *c = &model->config;
    enum dtype dtype = model->dtype;
    struct tensor *value = block->value;
    struct memory_position mark = memory_mark(pass->memory, MEMORY_WORKSPACE);

    value[VALUE_BLOCK_INPUT] = *x;
    value[VALUE_NORM1] = pass_value(pass, VALUE_NORM1, dtype, c->hidden_size);
    norm(model, pass, block->norm1, x, &value[VALUE_NORM1], &block->rstd1);
    value[VALUE_QKV] = pass_value(pass, VALUE_QKV, dtype, block->qkv->weight.dim[0]);
    linear_forward(pass, block->qkv, &value[VALUE_QKV], &value[VALUE_NORM1], 0.0f);
    rotate(model, pass, &value[VALUE_QKV], false);
    value[VALUE_ATTENTION] = pass_value(pass, VALUE_ATTENTION, dtype, c->heads * c->head_size);
    attend(model, pass, block);

    /* At inference the residual stream is one tensor, updated in place. */
    value[VALUE_MIDDLE] = *out;
    if (pass->training) {
        value[VALUE_MIDDLE] = pass_value(pass, VALUE_MIDDLE, dtype, c->hidden_size);
        op_copy(pass->be, &value[VALUE_MIDDLE], x);
    }
    linear_forward(pass, block->o, &value[VALUE_MIDDLE], &value[VALUE_ATTENTION], 1.0f);

    value[VALUE_NORM2] = pass_value(pass, VALUE_NORM2, dtype, c->hidden_size);
    norm(model, pass, block->norm2, &value[VALUE_MIDDLE], &value[VALUE_NORM2], &block->rstd2);
    value[VALUE_GATE_UP] = pass_value(pass, VALUE_GATE_UP, dtype, 2 * c->intermediate_size);
    linear_forward(pass, block->gate_up, &value[VALUE_GATE_UP], &value[VALUE_NORM2], 0.0f);
    value[VALUE_SWIGLU] = pass_value(pass, VALUE_SWIGLU, dtype, c->intermediate_size);
    op_swiglu_forward(pass->be, &value[VALUE_SWIGLU], &value[VALUE_GATE_UP]);
    if (pass->training) {
        op_copy(pass->be, out, &value[VALUE_MIDDLE]);
    }
    linear_forward(pass, block->down, out, &value[VALUE_SWIGLU], 1.0f);
    memory_release(pass->memory, MEMORY_WORKSPACE, mark);
}

/* dx += gradient of a norm's input; the norm's weight gradient is summed where the pass says. */
static void norm_backward(struct pass *pass, const struct parameter *weight, struct tensor *dx,
                          const struct rmsnorm_backward *inputs)
{
    struct rmsnorm_backward args = *inputs;
    args.dx = dx;
    args.weight = &weight->value;
    args.dweight = pass_gradient(pass, weight);
    op_rmsnorm_backward(pass->be, &args);
}

static void feed_forward_backward(struct model *model, struct pass *pass, struct block *block,
                                  struct tensor *dx)
{
    const struct model_config *c = &model->config;
    struct tensor *value = block->value;
    struct memory_position mark = memory_mark(pass->memory, MEMORY_WORKSPACE);
    struct tensor dact = pass_scratch(pass, "dswiglu", model->dtype, c->intermediate_size);
    linear_backward(pass, block->down, &dact, dx, &value[VALUE_SWIGLU]);
    /* The gates are not needed again: their gradient takes their place. */
    struct tensor *dgate_up = &value[VALUE_GATE_UP];
    op_swiglu_backward(pass->be, &(struct swiglu_backward){ .dgate_up = dgate_up,
                                                            .dy = &dact,
                                                            .gate_up = &value[VALUE_GATE_UP] });
    memory_release(pass->memory, MEMORY_WORKSPACE, mark);

    struct tensor dnorm = pass_scratch(pass, "dnorm2", model->dtype, c->hidden_size);
    linear_backward(pass, block->gate_up, &dnorm, dgate_up, &value[VALUE_NORM2]);
    norm_backward(pass, block->norm2, dx,
                  &(struct rmsnorm_backward){
                      .dy = &dnorm, .x = &value[VALUE_MIDDLE], .rstd = &block->rstd2 });
    memory_release(pass->memory, MEMORY_WORKSPACE, mark);
}

static void attention_part_backward(struct model *model, struct pass *pass, struct block *block,
                                    struct tensor *dx)
{
    const struct model_config *c = &model->config;
    struct tensor *value = block->value;
    struct attention_shape shape = attention_shape(model, pass);
    struct memory_position mark = memory_mark(pass->memory, MEMORY_WORKSPACE);
    struct tensor dqkv = pass_scratch(pass, "dqkv", model->dtype, value[VALUE_QKV].dim[1]);
    struct memory_position inner = memory_mark(pass->memory, MEMORY_WORKSPACE);
    struct tensor dout = pass_scratch(pass, "dattention", model->dtype, c->heads * c->head_size);
    linear_backward(pass, block->o, &dout, dx, &value[VALUE_ATTENTION]);
    struct tensor delta = memory_vector(pass->memory, MEMORY_WORKSPACE, "delta", DTYPE_F32,
                                        pass_tokens(pass) * shape.heads);
    op_attention_backward(pass->be, &(struct attention_backward){ .dqkv = &dqkv,
                                                                  .delta = &delta,
                                                                  .dout = &dout,
                                                                  .out = &value[VALUE_ATTENTION],
                                                                  .lse = &block->lse,
                                                                  .qkv = &value[VALUE_QKV],
                                                                  .starts = pass->starts,
                                                                  .shape = shape });
    memory_release(pass->memory, MEMORY_WORKSPACE, inner);
    rotate(model, pass, &dqkv, true);
    struct tensor dnorm = pass_scratch(pass, "dnorm1", model->dtype, c->hidden_size);
    linear_backward(pass, block->qkv, &dnorm, &dqkv, &value[VALUE_NORM1]);
    norm_backward(pass, block->norm1, dx,
                  &(struct rmsnorm_backward){
                      .dy = &dnorm, .x = &value[VALUE_BLOCK_INPUT], .rstd = &block->rstd1 });
    memory_release(pass->memory, MEMORY_WORKSPACE, mark);
}

static void llama_block_backward(struct model *model, struct pass *pass, struct block *block,
                                 struct tensor *dx)
{
    feed_forward_backward(model, pass, block, dx);
    attention_part_backward(model, pass, block, dx);
}

const struct family_ops llama_family = {
    .name = "llama",
    .declare_blocks = llama_declare_blocks,
    .block_forward = llama_block_forward,
    .block_backward = llama_block_backward,
};
