/*
 * What all families share: embedding, the loop over blocks, final norm, head and loss.
 */
#include "engine/model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/xalloc.h"
#include "engine/model/llama.h"
#include "engine/model/rope_table.h"
#include "kernels/ops.h"

static const struct family_ops *const families[] = { &llama_family };

/* Logits of at most this many elements exist at a time: enough rows for a full-speed product, and
 * a small share of the memory of any model whose vocabulary makes it matter. */
static const int64_t LOGITS_ELEMENTS = (int64_t)1 << 22;
/* But at least so many tokens in bf16: a chunk reads the whole head and reads and writes its whole
 * gradient, 2 / tokens bytes for a FLOP, and a GPU that does 280 FLOPs in the time of a byte would
 * wait for its memory below 560 tokens. */
static const int64_t LOGITS_ROWS_BF16 = 1024;

const struct family_ops *family_find(const char *name)
{
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        if (strcmp(families[i]->name, name) == 0) {
            return families[i];
        }
    }
    return NULL;
}

static struct parameter *dense_declare(struct model *model, const char *name,
                                       enum parameter_role role)
{
    struct parameter *p = &model->parameter[model->parameter_count];
    snprintf(p->name, sizeof p->name, "%s", name);
    p->role = role;
    p->id = (uint32_t)model->parameter_count++;
    if (role == PARAMETER_NORM) {
        p->rank = 1;
        p->dim[0] = model->config.hidden_size;
        p->dim[1] = 1;
    } else {
        p->rank = 2;
        p->dim[0] = model->config.vocabulary;
        p->dim[1] = model->config.hidden_size;
    }
    return p;
}

static void list_dense(struct model *model)
{
    for (int64_t i = 0; i < model->parameter_count; i++) {
        if (model->parameter[i].role != PARAMETER_MATRIX) {
            model->dense[model->dense_count++] = &model->parameter[i];
        }
    }
}

int model_init(struct model *model, const struct model_config *config, enum dtype dtype,
               int64_t positions, struct error *err)
{
    memset(model, 0, sizeof *model);
    model->config = *config;
    model->dtype = dtype;
    model->positions = positions;
    model->family = family_find(config->family);
    if (model->family == NULL) {
        return fail(err, ERROR_DATA, "config.json: model_type: family '%s' is not known",
                    config->family);
    }
    size_t layers = (size_t)config->layers;
    model->parameter = calloc(layers * 9 + 3, sizeof *model->parameter);
    model->linear = calloc(layers * BLOCK_LINEARS + 1, sizeof *model->linear);
    model->block = calloc(layers, sizeof *model->block);
    model->dense = calloc(layers * 9 + 3, sizeof(struct parameter *));
    if (model->parameter == NULL || model->linear == NULL || model->block == NULL ||
        model->dense == NULL) {
        model_free(model);
        return fail(err, ERROR_RUNTIME, "out of memory for the description of %zu layers", layers);
    }
    model->embedding = dense_declare(model, "model.embed_tokens.weight", PARAMETER_EMBEDDING);
    model->family->declare_blocks(model);
    model->final_norm = dense_declare(model, "model.norm.weight", PARAMETER_NORM);
    model->head =
        config->tied ? model->embedding : dense_declare(model, "lm_head.weight", PARAMETER_HEAD);
    list_dense(model);
    return 0;
}

void model_free(struct model *model)
{
    free(model->parameter);
    free(model->linear);
    free(model->block);
    free(model->dense);
    memset(model, 0, sizeof *model);
}

static void place_linear(struct model *model, struct memory *memory, struct linear *linear)
{
    const struct linear_part *last = &linear->part[linear->part_count - 1];
    const int64_t dim[2] = { last->first + last->rows, last->parameter->dim[1] };
    char label[LINEAR_LABEL_SIZE];
    linear_label(linear, label);
    linear->weight = memory_matrix(memory, MEMORY_WEIGHTS, label, model->dtype, dim);
    for (int i = 0; i < linear->part_count; i++) {
        struct linear_part *part = &linear->part[i];
        part->parameter->value = tensor_row_range(&linear->weight, part->first, part->rows);
        part->parameter->value.name = part->parameter->name;
    }
}

static void place_dense(struct model *model, struct memory *memory, struct parameter *p)
{
    struct memory_shape shape = { .dtype = model->dtype,
                                  .rank = p->rank,
                                  .dim = { p->dim[0], p->dim[1] } };
    p->value = memory_tensor(memory, MEMORY_WEIGHTS, p->name, shape);
}

void model_place(struct model *model, struct backend *be, struct memory *memory)
{
    struct parameter *dense;
    for (int64_t i = 0; (dense = model_dense_parameter(model, i)) != NULL; i++) {
        place_dense(model, memory, dense);
    }
    for (int64_t i = 0; i < model->linear_count; i++) {
        place_linear(model, memory, &model->linear[i]);
    }
    model_place_table(model, be, memory);
}

void model_place_table(struct model *model, struct backend *be, struct memory *memory)
{
    const int64_t dim[2] = { model->positions, model->config.head_size };
    model->rope_table = memory_matrix(memory, MEMORY_ACTIVATIONS, "rope table", DTYPE_F32, dim);
    rope_table_upload(&model->config, be, &model->rope_table);
}

void model_give_head(struct model *model)
{
    if (model->head_linear != NULL) {
        return;
    }
    struct linear *linear = &model->linear[model->linear_count];
    struct parameter *head = model->head;
    *linear = (struct linear){ .weight = head->value,
                               .part_count = 1,
                               .part = { { .parameter = head, .rows = head->dim[0] } },
                               .index = model->linear_count,
                               .idle = head->idle };
    model->linear_count++;
    model->head_linear = linear;
}

static void set_ones(struct backend *be, const struct tensor *value)
{
    size_t count = (size_t)tensor_count(value);
    size_t bytes = tensor_bytes(value);
    void *host = xmalloc(bytes);
    for (size_t i = 0; i < count; i++) {
        if (value->dtype == DTYPE_F32) {
            ((float *)host)[i] = 1.0f;
        } else {
            ((uint16_t *)host)[i] = bf16_from_float(1.0f);
        }
    }
    backend_upload(be, value->data, host, bytes);
    free(host);
}

void model_randomize(struct model *model, struct backend *be, uint64_t seed)
{
    for (int64_t i = 0; i < model->parameter_count; i++) {
        struct parameter *p = &model->parameter[i];
        if (p->role == PARAMETER_NORM) {
            set_ones(be, &p->value);
            continue;
        }
        struct random_key key = { .seed = seed, .purpose = RANDOM_INIT, .tensor = p->id };
        op_random_normal(be, &p->value, (float)model->config.initializer_range, key);
    }
}

int64_t model_size(const struct model *model)
{
    int64_t size = 0;
    for (int64_t i = 0; i < model->parameter_count; i++) {
        size += parameter_count(&model->parameter[i]);
    }
    return size;
}

struct parameter *model_dense_parameter(const struct model *model, int64_t index)
{
    return index < model->dense_count ? model->dense[index] : NULL;
}

/* ---- forward ----------------------------------------------------------------------------------
 */

static void notify(struct pass *pass, int64_t layer, bool backward)
{
    if (pass->on_layer != NULL) {
        pass->on_layer(pass->context, layer, backward);
    }
}

static struct tensor residual_stream(struct model *model, struct pass *pass)
{
    return pass_value(pass, VALUE_BLOCK_INPUT, pass->training, model->dtype,
                      model->config.hidden_size);
}

/* Rows of logits that exist at a time. */
static int64_t logits_rows(const struct model *model, const struct pass *pass)
{
    int64_t rows = LOGITS_ELEMENTS / model->config.vocabulary;
    int64_t least = model->dtype == DTYPE_BF16 ? LOGITS_ROWS_BF16 : 16;
    rows = rows < least ? least : rows;
    return rows > pass_tokens(pass) ? pass_tokens(pass) : rows;
}

/* True if the last block's values can wait in the workspace for free: between its forward and its
 * backward the logits are there, and with them a loss for each token; a backward takes a gradient
 * of the feed-forward's width beside the block's values. */
static bool last_waits(const struct model *model, const struct pass *pass)
{
    size_t element = dtype_size(model->dtype);
    size_t logits = (size_t)(logits_rows(model, pass) * model->config.vocabulary) * element;
    size_t losses = (size_t)pass_tokens(pass) * sizeof(float);
    size_t gradient = (size_t)(pass_tokens(pass) * model->config.intermediate_size) * element;
    if (model->head_linear != NULL) { /* its gradient may be formed beside the logits */
        logits += (size_t)parameter_count(model->head) * element;
    }
    return model->config.layers - model->first_trained > 1 &&
           logits + losses + 2 * (size_t)MEMORY_ALIGNMENT <= gradient;
}

static struct tensor blocks_forward(struct model *model, struct pass *pass)
{
    struct tensor x = residual_stream(model, pass);
    op_embedding_forward(pass->be, &x, &model->embedding->value, pass->ids);
    for (int64_t i = 0; i < model->config.layers; i++) {
        struct block *block = &model->block[i];
        notify(pass, i, false);
        block->kept = memory_mark(pass->memory, MEMORY_ACTIVATIONS);
        block->waiting = memory_mark(pass->memory, MEMORY_WORKSPACE);
        /* A block without backward keeps nothing. */
        struct pass here = *pass;
        here.training = pass->training && i >= model->first_trained;
        block->waits = here.training && i == model->config.layers - 1 && last_waits(model, pass);
        const struct block_mover *mover = here.training ? pass->mover : NULL;
        if (mover != NULL) {
            mover->before_forward(mover->context, pass, i - model->first_trained);
        }
        struct tensor next = here.training ? residual_stream(model, pass) : x;
        model->family->block_forward(model, &here, block, &next, &x);
        x = next;
        if (mover != NULL) {
            mover->after_forward(mover->context, pass, i - model->first_trained);
        }
    }
    return x;
}

/* Room for the columns that the method wants of the gradient of the residual stream: of one layer
 * at a time. */
static struct tensor residual_room(struct model *model, struct pass *pass)
{
    const struct linear *widest = NULL;
    int64_t most = 0;
    for (int64_t i = model->first_trained; i < model->config.layers; i++) {
        const struct linear *readers[] = { model->block[i].o, model->block[i].down };
        for (int k = 0; k < 2; k++) {
            int64_t count = pass_wanted(pass, readers[k]);
            widest = count > most ? readers[k] : widest;
            most = count > most ? count : most;
        }
    }
    return pass_capture_room(pass, widest);
}

void model_forward(struct model *model, struct pass *pass, struct model_forward *out)
{
    /* Below everything that the blocks take and give back. */
    out->rstd =
        memory_vector(pass->memory, MEMORY_WORKSPACE, "final rstd", DTYPE_F32, pass_tokens(pass));
    out->hidden = pass_scratch(pass, "hidden", model->dtype, model->config.hidden_size);
    if (pass->training) {
        out->dx = pass_scratch(pass, "dx", model->dtype, model->config.hidden_size);
        pass->residual_room = residual_room(model, pass);
    }
    out->last = blocks_forward(model, pass);
    op_rmsnorm_forward(pass->be,
                       &(struct rmsnorm_forward){ .y = &out->hidden,
                                                  .rstd = &out->rstd,
                                                  .x = &out->last,
                                                  .weight = &model->final_norm->value,
                                                  .eps = (float)model->config.rms_norm_eps });
}

void model_logits(struct model *model, struct pass *pass, struct tensor *logits,
                  const struct tensor *hidden)
{
    op_matmul(pass->be,
              &(struct matmul){
                  .c = logits, .a = hidden, .b = &model->head->value, .transpose_b = true });
}

/* The head's weight gradient of a chunk: the method's, or summed with the dense ones. */
static void head_gradient(struct model *model, const struct pass *pass, const struct tensor *logits,
                          const struct tensor *h)
{
    if (model->head_linear != NULL) {
        struct pass chunk = *pass;
        chunk.batch = 1;
        chunk.sequence = tensor_rows(h);
        linear_weight_gradient(&chunk, model->head_linear, logits, h);
    } else if (!model->head->frozen) {
        op_matmul(pass->be, &(struct matmul){ .c = &pass->dense->tensor[model->head->id],
                                              .a = logits,
                                              .b = h,
                                              .transpose_a = true,
                                              .beta = 1.0f });
    }
}

/* Tells the method that has the head where its chunks begin and end. */
static void head_bounds(struct model *model, struct pass *pass, bool begin)
{
    if (model->head_linear != NULL) {
        pass->hooks->head(pass->hooks->context, pass, model->head_linear, begin);
    }
}

void model_loss(struct model *model, struct pass *pass, const struct tensor *hidden,
                const struct model_loss *args)
{
    struct backend *be = pass->be;
    int64_t tokens = pass_tokens(pass);
    int64_t chunk = logits_rows(model, pass);
    struct memory_position mark = memory_mark(pass->memory, MEMORY_WORKSPACE);
    const int64_t dim[2] = { chunk, model->config.vocabulary };
    if (args->dhidden != NULL) {
        head_bounds(model, pass, true);
    }
    struct tensor buffer =
        memory_matrix(pass->memory, MEMORY_WORKSPACE, "logits", model->dtype, dim);
    struct tensor losses =
        memory_vector(pass->memory, MEMORY_WORKSPACE, "losses", DTYPE_F32, tokens);
    struct tensor losses_column = tensor_as_matrix(&losses, tokens, 1);
    struct tensor targets_column = tensor_as_matrix(pass->targets, tokens, 1);
    for (int64_t first = 0; first < tokens; first += chunk) {
        int64_t rows = tokens - first < chunk ? tokens - first : chunk;
        struct tensor logits = tensor_row_range(&buffer, 0, rows);
        struct tensor h = tensor_row_range(hidden, first, rows);
        struct tensor loss = tensor_row_range(&losses_column, first, rows);
        struct tensor target = tensor_row_range(&targets_column, first, rows);
        model_logits(model, pass, &logits, &h);
        op_cross_entropy(be, &(struct cross_entropy){ .losses = &loss,
                                                      .logits = &logits,
                                                      .targets = &target,
                                                      .factor = args->scale,
                                                      .scale = 1.0f,
                                                      .gradient = args->dhidden != NULL });
        if (args->dhidden != NULL) {
            head_gradient(model, pass, &logits, &h);
        }
        if (args->dhidden != NULL) { /* may be `hidden`, whose rows are done with now */
            struct tensor dh = tensor_row_range(args->dhidden, first, rows);
            op_matmul(be, &(struct matmul){ .c = &dh, .a = &logits, .b = &model->head->value });
        }
    }
    op_sum(be, args->loss_sum, &losses, true);
    if (args->dhidden != NULL) {
        head_bounds(model, pass, false);
    }
    memory_release(pass->memory, MEMORY_WORKSPACE, mark);
}

/* ---- backward ---------------------------------------------------------------------------------
 */

void model_backward(struct model *model, struct pass *pass, struct model_forward *forward,
                    const struct tensor *dhidden)
{
    struct backend *be = pass->be;
    struct tensor *dx = &forward->dx;
    int64_t layers = model->config.layers;
    const struct linear *last =
        layers > model->first_trained ? model->block[layers - 1].down : NULL;
    op_zero(be, dx);
    op_rmsnorm_backward(be, &(struct rmsnorm_backward){
                                .dx = dx,
                                .dweight = pass_gradient(pass, model->final_norm),
                                .dy = dhidden,
                                .x = &forward->last,
                                .weight = &model->final_norm->value,
                                .rstd = &forward->rstd,
                                .capture = pass_capture(pass, last, &pass->residual_room) });
    for (int64_t i = model->config.layers - 1; i >= model->first_trained; i--) {
        struct block *block = &model->block[i];
        int64_t number = i - model->first_trained;
        const struct block_mover *mover = pass->mover;
        notify(pass, i, true);
        if (mover != NULL) {
            mover->before_backward(mover->context, pass, number);
        }
        model->family->block_backward(model, pass, block, dx);
        if (mover == NULL || !mover->shares_place(mover->context, number)) {
            memory_release(pass->memory, MEMORY_ACTIVATIONS, block->kept);
        }
        if (block->waits) {
            memory_release(pass->memory, MEMORY_WORKSPACE, block->waiting);
        }
        block->present = 0;
    }
    struct tensor *dembedding = pass_gradient(pass, model->embedding);
    if (dembedding != NULL) {
        op_embedding_backward(be, dembedding, dx, pass->slots != NULL ? pass->slots : pass->ids);
    }
}
