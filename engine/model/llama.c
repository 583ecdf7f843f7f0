/*
 * A LLaMA block.
 *
 *   n1 = rmsnorm(x) w1;  qkv = n1 Wqkv^T, rotated;  a = attention(qkv);  m = x + a Wo^T
 *   n2 = rmsnorm(m) w2;  gu = n2 Wgu^T;             s = swiglu(gu);      out = m + s Wdown^T
 *
 * What the backward uses, elements a token with C hidden, F feed-forward, H = K: x, n1, q, k, v, a,
 * m, n2 = 8C; gate, up, s = 3F; and fp32 numbers: two a token, one a token and head. The activation
 * policy says what of it is kept; the rest is made again by llama_produce, just before it is used.
 * The last product and sum are never made again: nothing in the block's backward reads them.
 */
#include "engine/model/llama.h"

#include <math.h>
#include <stdio.h>

#include "engine/model/block.h"
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
    op_rmsnorm_forward(pass->be,
                       &(struct rmsnorm_forward){ .y = y,
                                                  .rstd = rstd,
                                                  .x = x,
                                                  .weight = &weight->value,
                                                  .eps = (float)model->config.rms_norm_eps });
}

static void rotate(struct model *model, struct pass *pass, struct tensor *qkv, bool inverse,
                   const struct capture *capture)
{
    const struct model_config *c = &model->config;
    op_rope(pass->be, &(struct rope){ .x = qkv,
                                      .table = &model->rope_table,
                                      .positions = pass->positions,
                                      .heads = c->heads + c->kv_heads,
                                      .head_size = c->head_size,
                                      .inverse = inverse,
                                      .capture = capture });
}

static void attend(struct model *model, struct pass *pass, struct block *block,
                   const struct tensor *qkv)
{
    struct tensor *out = &block->value[VALUE_ATTENTION];
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
    op_attention_forward(
        pass->be,
        &(struct attention_forward){
            .out = out, .lse = &block->lse, .qkv = qkv, .starts = pass->starts, .shape = shape });
}

/* ---- values -----------------------------------------------------------------------------------
 */

static int64_t llama_columns(const struct model *model, enum block_value value)
{
    const struct model_config *c = &model->config;
    switch (value) {
    case VALUE_QKV:
        return (c->heads + 2 * c->kv_heads) * c->head_size;
    case VALUE_ATTENTION:
        return c->heads * c->head_size;
    case VALUE_GATE_UP:
        return 2 * c->intermediate_size;
    case VALUE_SWIGLU:
        return c->intermediate_size;
    default:
        return c->hidden_size;
    }
}

/* x + a Wo^T. At inference the residual stream is one tensor, updated in place. */
static void make_middle(struct model *model, struct pass *pass, struct block *block)
{
    struct tensor *middle = &block->value[VALUE_MIDDLE];
    const struct tensor *x = pass->training ? &block->value[VALUE_BLOCK_INPUT] : middle;
    block_linear_forward(model, pass, block, block->o, middle, VALUE_ATTENTION, x);
}

static void llama_produce(struct model *model, struct pass *pass, struct block *block,
                          enum block_value value)
{
    struct tensor *out = &block->value[value];
    switch (value) {
    case VALUE_NORM1:
        norm(model, pass, block->norm1, &block->value[VALUE_BLOCK_INPUT], out, &block->rstd1);
        break;
    case VALUE_QKV:
        block_linear_forward(model, pass, block, block->qkv, out, VALUE_NORM1, NULL);
        rotate(model, pass, out, false, NULL);
        break;
    case VALUE_ATTENTION:
        attend(model, pass, block, block_need(model, pass, block, VALUE_QKV));
        break;
    case VALUE_MIDDLE:
        make_middle(model, pass, block);
        break;
    case VALUE_NORM2:
        norm(model, pass, block->norm2, block_need(model, pass, block, VALUE_MIDDLE), out,
             &block->rstd2);
        break;
    case VALUE_GATE_UP:
        block_linear_forward(model, pass, block, block->gate_up, out, VALUE_NORM2, NULL);
        break;
    case VALUE_SWIGLU:
        op_swiglu_forward(pass->be, out, block_need(model, pass, block, VALUE_GATE_UP));
        break;
    default:
        break; /* the block's input is given */
    }
}

/* ---- forward ----------------------------------------------------------------------------------
 */

static void place_row_numbers(struct model *model, struct pass *pass, struct block *block)
{
    enum memory_category category = pass->training ? MEMORY_ACTIVATIONS : MEMORY_WORKSPACE;
    int64_t tokens = pass_tokens(pass);
    block->rstd1 = memory_vector(pass->memory, category, "rstd1", DTYPE_F32, tokens);
    block->rstd2 = memory_vector(pass->memory, category, "rstd2", DTYPE_F32, tokens);
    block->lse =
        memory_vector(pass->memory, category, "lse", DTYPE_F32, tokens * model->config.heads);
}

static void llama_block_forward(struct model *model, struct pass *pass, struct block *block,
                                struct tensor *out, const struct tensor *x)
{
    struct block_scope scope = block_open(pass, block);
    block->value[VALUE_BLOCK_INPUT] = *x;
    block->present = 1u << VALUE_BLOCK_INPUT;
    block->sampled = 0;
    place_row_numbers(model, pass, block);
    if (pass->training) {
        if (block->waits) {
            block_need(model, pass, block, VALUE_QKV);
            block_need(model, pass, block, VALUE_ATTENTION);
            block->attention = block_open(pass, block);
        }
        block_need(model, pass, block, VALUE_MIDDLE);
        if (block->waits) {
            block_need(model, pass, block, VALUE_GATE_UP);
        }
        block_need(model, pass, block, VALUE_SWIGLU);
    } else {
        struct block_scope attention = block_open(pass, block);
        block->value[VALUE_MIDDLE] = *out;
        make_middle(model, pass, block);
        block_close(pass, block, attention);
        block->present |= 1u << VALUE_MIDDLE;
    }
    block_linear_forward(model, pass, block, block->down, out, VALUE_SWIGLU,
                         pass->training ? &block->value[VALUE_MIDDLE] : out);
    if (!block->waits) {
        block_close(pass, block, scope);
    }
}

/* ---- backward ---------------------------------------------------------------------------------
 */

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
    struct block_scope scope = block_open(pass, block);
    block_need(model, pass, block, VALUE_MIDDLE);
    struct tensor *gate_up = block_need(model, pass, block, VALUE_GATE_UP);
    struct tensor room = pass_capture_room(pass, block->gate_up);
    struct memory_position mark = memory_mark(pass->memory, MEMORY_WORKSPACE);
    struct tensor dact = pass_scratch(pass, "dswiglu", model->dtype, c->intermediate_size);
    block_linear_backward(model, pass, block, block->down, &dact, dx, VALUE_SWIGLU);
    /* The gates are not needed again: their gradient takes their place. */
    op_swiglu_backward(pass->be, &(struct swiglu_backward){
                                     .dgate_up = gate_up,
                                     .dy = &dact,
                                     .gate_up = gate_up,
                                     .capture = pass_capture(pass, block->gate_up, &room) });
    block_spoil(block, VALUE_GATE_UP);
    memory_release(pass->memory, MEMORY_WORKSPACE, mark);

    struct tensor dnorm = pass_scratch(pass, "dnorm2", model->dtype, c->hidden_size);
    block_linear_backward(model, pass, block, block->gate_up, &dnorm, gate_up, VALUE_NORM2);
    norm_backward(pass, block->norm2, dx,
                  &(struct rmsnorm_backward){
                      .dy = &dnorm,
                      .x = &block->value[VALUE_MIDDLE],
                      .rstd = &block->rstd2,
                      .capture = pass_capture(pass, block->o, &pass->residual_room) });
    block_close(pass, block, scope);
}

/* The layer that reads the gradient of this block's input: the last one of the block below, if that
 * one trains. */
static const struct linear *below(const struct model *model, const struct block *block)
{
    return block->layer > model->first_trained ? model->block[block->layer - 1].down : NULL;
}

static void attention_part_backward(struct model *model, struct pass *pass, struct block *block,
                                    struct tensor *dx)
{
    const struct model_config *c = &model->config;
    struct tensor *value = block->value;
    struct attention_shape shape = attention_shape(model, pass);
    struct memory_position mark = memory_mark(pass->memory, MEMORY_WORKSPACE);
    struct tensor dqkv = pass_scratch(pass, "dqkv", model->dtype, llama_columns(model, VALUE_QKV));
    struct memory_position inner = memory_mark(pass->memory, MEMORY_WORKSPACE);
    struct tensor dout = pass_scratch(pass, "dattention", model->dtype, c->heads * c->head_size);
    block_linear_backward(model, pass, block, block->o, &dout, dx, VALUE_ATTENTION);
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
    struct tensor room = pass_capture_room(pass, block->qkv);
    rotate(model, pass, &dqkv, true, pass_capture(pass, block->qkv, &room));
    struct tensor dnorm = pass_scratch(pass, "dnorm1", model->dtype, c->hidden_size);
    block_linear_backward(model, pass, block, block->qkv, &dnorm, &dqkv, VALUE_NORM1);
    norm_backward(pass, block->norm1, dx,
                  &(struct rmsnorm_backward){
                      .dy = &dnorm,
                      .x = &value[VALUE_BLOCK_INPUT],
                      .rstd = &block->rstd1,
                      .capture = pass_capture(pass, below(model, block), &pass->residual_room) });
    memory_release(pass->memory, MEMORY_WORKSPACE, mark);
}

static void llama_block_backward(struct model *model, struct pass *pass, struct block *block,
                                 struct tensor *dx)
{
    /* The attention's part comes last but what it needs is made first: the feed-forward's values
     * are computed from it. */
    struct block_scope scope = block_open(pass, block);
    block_need(model, pass, block, VALUE_QKV);
    block_need(model, pass, block, VALUE_ATTENTION);
    struct block_scope attention = block->waits ? block->attention : block_open(pass, block);
    feed_forward_backward(model, pass, block, dx);
    block_close(pass, block, attention);
    attention_part_backward(model, pass, block, dx);
    if (!block->waits) {
        block_close(pass, block, scope);
    }
}

const struct family_ops llama_family = {
    .name = "llama",
    .declare_blocks = llama_declare_blocks,
    .block_forward = llama_block_forward,
    .block_backward = llama_block_backward,
    .columns = llama_columns,
    .produce = llama_produce,
};
