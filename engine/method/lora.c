/*
 * LoRA, the method. See lora.h.
 *
 * Saved for each adapted matrix: "method/<parameter>/lora_A" and "lora_B" in fp32, and the rule's
 * slots and age of both as "optimizer/<parameter>/lora_A.<slot>" and so on.
 */
#include "engine/method/lora.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/base/xalloc.h"
#include "engine/model/pattern.h"

/* One matrix of an adapter, A or B. */
struct lora_half {
    struct tensor value;    /* fp32 */
    struct tensor gradient; /* fp32 */
    struct rule_state state;
    uint32_t id;
};

enum { HALF_A, HALF_B, HALVES };
static const char *const half_name[HALVES] = { "lora_A", "lora_B" };

/* The adapter of one matrix. A and its gradient are rows of the layer's. */
struct lora_part {
    const struct linear_part *part;
    int64_t rank;
    int64_t first; /* its first row in the layer's A */
    double scale;
    struct lora_half half[HALVES];
    struct tensor index; /* (rank) int32: first, first + 1 ... */
};

struct lora_layer {
    const struct linear *linear;
    int part_count;
    struct lora_part part[LINEAR_PARTS_MAX];
    int64_t rank;              /* R: of all parts */
    struct tensor a, gradient; /* (R, N) fp32 */
    struct tensor a_product;   /* (R, N) in the model's dtype; `a` itself if that is fp32 */
    struct tensor b_product;   /* (M, R) */
};

struct lora {
    struct lora_layer *layer; /* by number of the linear layer; without parts where idle */
    int64_t adapter_count;
};

/* ---- where it lies -------------------------------------------------------------------------- */

static struct tensor place(struct method *method, enum memory_category category, const char *name,
                           const char *what, enum dtype dtype, const int64_t dim[2])
{
    char label[MEMORY_NAME_SIZE];
    snprintf(label, sizeof label, "%.72s %s", name, what);
    return memory_matrix(method->memory, category, label, dtype, dim);
}

static void part_init(struct method *method, struct lora_layer *layer,
                      const struct linear_part *part)
{
    const struct method_settings *s = &method->settings;
    const char *name = part->parameter->name;
    struct lora_part *p = &layer->part[layer->part_count++];
    p->part = part;
    p->rank = (int64_t)pattern_list_number(s->rank_pattern, name, (double)s->rank);
    p->scale = pattern_list_number(s->alpha_pattern, name, s->alpha) / (double)p->rank;
    p->first = layer->rank;
    p->half[HALF_A].id = ((uint32_t)1 << 20) + 2 * part->parameter->id;
    p->half[HALF_B].id = p->half[HALF_A].id + 1;
    layer->rank += p->rank;
}

static void upload_index(struct method *method, struct lora_part *p)
{
    int32_t *index = xmalloc((size_t)p->rank * sizeof *index);
    for (int64_t i = 0; i < p->rank; i++) {
        index[i] = (int32_t)(p->first + i);
    }
    backend_upload(method->be, p->index.data, index, (size_t)p->rank * sizeof *index);
    free(index);
}

/* A uniform within the bound; B is zero. */
static void initialise(struct method *method, struct lora_part *p)
{
    struct tensor *a = &p->half[HALF_A].value;
    int64_t count = tensor_count(a);
    float bound = 1.0f / sqrtf((float)a->dim[1]);
    op_zero(method->be, &p->half[HALF_B].value);
    if (method->be->facts.imaginary) {
        return;
    }
    struct random_key key = { .seed = method->settings.seed,
                              .purpose = RANDOM_INIT,
                              .tensor = p->half[HALF_A].id };
    float *host = xmalloc((size_t)count * sizeof *host);
    for (int64_t i = 0; i < count; i++) {
        host[i] = bound * (2.0f * random_uniform(&key, (uint64_t)i) - 1.0f);
    }
    backend_upload(method->be, a->data, host, (size_t)count * sizeof *host);
    free(host);
}

static void part_place(struct method *method, struct lora_layer *layer, struct lora_part *p)
{
    const char *name = p->part->parameter->name;
    char label[MEMORY_NAME_SIZE];
    const int64_t dim[2] = { p->part->rows, p->rank };
    struct lora_half *a = &p->half[HALF_A];
    struct lora_half *b = &p->half[HALF_B];
    a->value = tensor_row_range(&layer->a, p->first, p->rank);
    a->gradient = tensor_row_range(&layer->gradient, p->first, p->rank);
    b->value = place(method, MEMORY_WEIGHTS, name, "lora_B", DTYPE_F32, dim);
    b->gradient = place(method, MEMORY_GRADIENTS, name, "lora_B gradient", DTYPE_F32, dim);
    for (int h = 0; h < HALVES; h++) {
        snprintf(label, sizeof label, "%.72s %s", name, half_name[h]);
        rule_place(method->rule, method->be, method->memory,
                   &(struct rule_layout){ .name = label,
                                          .like = &p->half[h].value,
                                          .whole = tensor_count(&p->half[h].value),
                                          .dtype = method->settings.state_dtype,
                                          .ages = 1 },
                   &p->half[h].state);
    }
    snprintf(label, sizeof label, "%.72s lora index", name);
    p->index = memory_vector(method->memory, MEMORY_OPTIMIZER, label, DTYPE_I32, p->rank);
    upload_index(method, p);
    initialise(method, p);
}

/* The copies that products use, after A and B have changed. */
static void renew_products(struct method *method, struct lora_layer *layer)
{
    struct backend *be = method->be;
    if (layer->a_product.data != layer->a.data) {
        op_copy(be, &layer->a_product, &layer->a);
    }
    for (int i = 0; i < layer->part_count; i++) {
        struct lora_part *p = &layer->part[i];
        struct tensor rows = tensor_row_range(&layer->b_product, p->part->first, p->part->rows);
        if (p->rank == layer->rank) {
            op_copy(be, &rows, &p->half[HALF_B].value);
        } else {
            op_scatter(be, &rows, &p->half[HALF_B].value, &p->index, SIDE_COLUMNS);
        }
        op_scale(be, &rows, (float)p->scale);
    }
}

static void layer_place(struct method *method, struct lora_layer *layer)
{
    const struct linear *linear = layer->linear;
    enum dtype dtype = method->model->dtype;
    char name[LINEAR_LABEL_SIZE];
    if (layer->part_count > 1) {
        linear_label(linear, name);
    } else {
        snprintf(name, sizeof name, "%.79s", layer->part[0].part->parameter->name);
    }
    const int64_t a_dim[2] = { layer->rank, linear->weight.dim[1] };
    const int64_t b_dim[2] = { linear->weight.dim[0], layer->rank };
    layer->a = place(method, MEMORY_WEIGHTS, name, "lora_A", DTYPE_F32, a_dim);
    layer->gradient = place(method, MEMORY_GRADIENTS, name, "lora_A gradient", DTYPE_F32, a_dim);
    layer->a_product = layer->a;
    if (dtype != DTYPE_F32) {
        layer->a_product = place(method, MEMORY_WEIGHTS, name, "lora_A copy", dtype, a_dim);
    }
    layer->b_product = place(method, MEMORY_WEIGHTS, name, "lora_B copy", dtype, b_dim);
    op_zero(method->be, &layer->b_product);
    for (int i = 0; i < layer->part_count; i++) {
        part_place(method, layer, &layer->part[i]);
    }
    renew_products(method, layer);
}

static int lora_attach(struct method *method, struct error *err)
{
    (void)err;
    struct model *model = method->model;
    struct lora *lora = xcalloc(1, sizeof *lora);
    method->state = lora;
    lora->layer = xcalloc((size_t)model->linear_count, sizeof *lora->layer);
    for (int64_t i = 0; i < model->linear_count; i++) {
        struct lora_layer *layer = &lora->layer[i];
        layer->linear = &model->linear[i];
        for (int p = 0; p < layer->linear->part_count; p++) {
            if (!layer->linear->part[p].parameter->idle) {
                part_init(method, layer, &layer->linear->part[p]);
            }
        }
        lora->adapter_count += layer->part_count;
        if (layer->part_count > 0) {
            layer_place(method, layer);
        }
    }
    return 0;
}

static void lora_detach(struct method *method)
{
    struct lora *lora = method->state;
    if (lora != NULL) {
        free(lora->layer);
        free(lora);
        method->state = NULL;
    }
}

static struct lora_layer *layer_of(const struct method *method, const struct linear *linear)
{
    struct lora *lora = method->state;
    return &lora->layer[linear->index];
}

/* ---- the pass ------------------------------------------------------------------------------- */

/* (T, R) of the tokens of `like`. */
static struct tensor narrow(struct pass *pass, const char *name, const struct tensor *like,
                            int64_t rank)
{
    const int64_t dim[2] = { like->dim[0], rank };
    return memory_matrix(pass->memory, MEMORY_WORKSPACE, name, like->dtype, dim);
}

static void lora_forward(struct method *method, struct pass *pass, const struct linear *linear,
                         struct tensor *y, const struct tensor *x)
{
    struct lora_layer *layer = layer_of(method, linear);
    struct memory_position mark = memory_mark(pass->memory, MEMORY_WORKSPACE);
    struct tensor h = narrow(pass, "lora h", x, layer->rank);
    op_matmul(pass->be,
              &(struct matmul){ .c = &h, .a = x, .b = &layer->a_product, .transpose_b = true });
    op_matmul(pass->be,
              &(struct matmul){
                  .c = y, .a = &h, .b = &layer->b_product, .transpose_b = true, .beta = 1.0f });
    memory_release(pass->memory, MEMORY_WORKSPACE, mark);
}

static void lora_input_gradient(struct method *method, struct pass *pass,
                                const struct linear *linear, struct tensor *dx,
                                const struct tensor *dy)
{
    struct lora_layer *layer = layer_of(method, linear);
    struct memory_position mark = memory_mark(pass->memory, MEMORY_WORKSPACE);
    struct tensor dh = narrow(pass, "lora dh", dy, layer->rank);
    op_matmul(pass->be, &(struct matmul){ .c = &dh, .a = dy, .b = &layer->b_product });
    op_matmul(pass->be,
              &(struct matmul){ .c = dx, .a = &dh, .b = &layer->a_product, .beta = 1.0f });
    memory_release(pass->memory, MEMORY_WORKSPACE, mark);
}

/* dB += dy^T (s h), with the part's columns of dy and of h. */
static void gradient_of_b(struct method *method, struct pass *pass, struct lora_layer *layer,
                          const struct tensor *dy, struct tensor *h)
{
    float beta = method->micro > 0 ? 1.0f : 0.0f;
    bool whole = layer->linear->part_count == 1;
    for (int i = 0; i < layer->part_count; i++) {
        struct lora_part *p = &layer->part[i];
        struct memory_position mark = memory_mark(pass->memory, MEMORY_WORKSPACE);
        struct tensor own = *h;
        if (p->rank != layer->rank) {
            own = narrow(pass, "lora h of a part", h, p->rank);
            op_gather(pass->be, &own, h, &p->index, SIDE_COLUMNS);
        }
        op_scale(pass->be, &own, (float)p->scale);
        op_matmul(pass->be, &(struct matmul){ .c = &p->half[HALF_B].gradient,
                                              .a = dy,
                                              .b = &own,
                                              .transpose_a = true,
                                              .a_first = whole ? 0 : p->part->first,
                                              .a_columns = whole ? 0 : p->part->rows,
                                              .beta = beta });
        memory_release(pass->memory, MEMORY_WORKSPACE, mark);
    }
}

/* Adapters lie where they lie, and nothing is ever chosen. */
static bool lora_replayable(const struct method *method)
{
    (void)method;
    return true;
}

static void lora_weight_gradient(struct method *method, struct pass *pass,
                                 const struct linear *linear, const struct tensor *dy,
                                 const struct tensor *x)
{
    struct lora_layer *layer = layer_of(method, linear);
    struct memory_position mark = memory_mark(pass->memory, MEMORY_WORKSPACE);
    struct tensor h = narrow(pass, "lora h", x, layer->rank);
    op_matmul(pass->be,
              &(struct matmul){ .c = &h, .a = x, .b = &layer->a_product, .transpose_b = true });
    gradient_of_b(method, pass, layer, dy, &h);
    struct tensor *dh = &h; /* h has done its work */
    op_matmul(pass->be, &(struct matmul){ .c = dh, .a = dy, .b = &layer->b_product });
    op_matmul(pass->be, &(struct matmul){ .c = &layer->gradient,
                                          .a = dh,
                                          .b = x,
                                          .transpose_a = true,
                                          .beta = method->micro > 0 ? 1.0f : 0.0f });
    memory_release(pass->memory, MEMORY_WORKSPACE, mark);
}

/* ---- the step ------------------------------------------------------------------------------- */

/* Calls `visit` with every adapter, in the order of the model. */
static void each_part(struct method *method,
                      void (*visit)(struct method *method, struct lora_part *part, void *context),
                      void *context)
{
    struct lora *lora = method->state;
    for (int64_t i = 0; i < method->model->linear_count; i++) {
        for (int p = 0; p < lora->layer[i].part_count; p++) {
            visit(method, &lora->layer[i].part[p], context);
        }
    }
}

static void renew_all(struct method *method)
{
    struct lora *lora = method->state;
    for (int64_t i = 0; i < method->model->linear_count; i++) {
        if (lora->layer[i].part_count > 0) {
            renew_products(method, &lora->layer[i]);
        }
    }
}

static void lora_begin_step(struct method *method, int64_t step)
{
    method->step = step;
    method->refreshed = false;
}

static void show_gradient(struct method *method, struct lora_part *part, void *context)
{
    (void)method;
    const struct gradient_visitor *visitor = context;
    for (int h = 0; h < HALVES; h++) {
        char name[STATE_NAME_SIZE];
        snprintf(name, sizeof name, "%.96s/%s", part->part->parameter->name, half_name[h]);
        visitor->visit(visitor->context, name, &part->half[h].gradient);
    }
}

static void lora_each_gradient(struct method *method, const struct gradient_visitor *visitor)
{
    struct gradient_visitor copy = *visitor;
    each_part(method, show_gradient, &copy);
}

static void add_part_squares(struct method *method, struct lora_part *part, void *context)
{
    for (int h = 0; h < HALVES; h++) {
        op_sum_squares(method->be, context, &part->half[h].gradient, true);
    }
}

static void lora_add_squares(struct method *method, struct tensor *sum)
{
    each_part(method, add_part_squares, sum);
}

struct lora_update {
    double lr;
    const struct rule_settings *settings;
};

static void update_part(struct method *method, struct lora_part *part, void *context)
{
    const struct lora_update *update = context;
    for (int h = 0; h < HALVES; h++) {
        struct lora_half *half = &part->half[h];
        method->rule->step(
            method->be, update->settings,
            &(struct rule_target){ .weight = &half->value,
                                   .gradient = &half->gradient,
                                   .lr = (float)update->lr,
                                   .weight_decay = (float)method->settings.weight_decay,
                                   .scale = 1.0f,
                                   .id = half->id },
            &half->state);
    }
}

static void lora_update(struct method *method, double lr, const struct rule_settings *settings)
{
    struct lora_update update = { lr, settings };
    each_part(method, update_part, &update);
    renew_all(method);
}

/* ---- saving --------------------------------------------------------------------------------- */

static void show_part(struct method *method, struct lora_part *part, void *context)
{
    (void)method;
    const struct state_visitor *visitor = context;
    const char *name = part->part->parameter->name;
    char what[32];
    for (int h = 0; h < HALVES; h++) {
        struct lora_half *half = &part->half[h];
        state_show(visitor, "method", name, half_name[h], &half->value, false);
        for (int s = 0; s < half->state.slot_count; s++) {
            snprintf(what, sizeof what, "%s.%s", half_name[h], half->state.slot_name[s]);
            state_show(visitor, "optimizer", name, what, &half->state.slot[s], false);
        }
        snprintf(what, sizeof what, "%s.age", half_name[h]);
        state_show(visitor, "optimizer", name, what, &half->state.age, false);
    }
}

static void lora_visit(struct method *method, const struct state_visitor *visitor)
{
    struct state_visitor copy = *visitor;
    each_part(method, show_part, &copy);
}

struct lora_restore {
    struct method *method;
    const struct state_source *source;
    struct error *err;
    int result;
};

/* Puts back the tensors that show_part shows. */
static void restore_item(void *context, const struct state_item *item)
{
    struct lora_restore *restore = context;
    struct tensor tensor = item->tensor;
    if (restore->result == 0) {
        restore->result = method_restore_tensor(restore->method->be, restore->source, item->name,
                                                &tensor, restore->err);
    }
}

static int lora_restore(struct method *method, const struct state_source *source, struct error *err)
{
    struct lora_restore restore = { .method = method, .source = source, .err = err };
    lora_visit(method, &(struct state_visitor){ .visit = restore_item, .context = &restore });
    renew_all(method);
    return restore.result;
}

/* ---- facts ---------------------------------------------------------------------------------- */

static int64_t lora_selection_count(const struct method *method)
{
    (void)method;
    return 0;
}

static void lora_selection(const struct method *method, int64_t index,
                           struct selection_report *report)
{
    (void)method;
    (void)index;
    (void)report;
}

static int64_t lora_adapter_count(const struct method *method)
{
    const struct lora *lora = method->state;
    return lora->adapter_count;
}

static void lora_adapter(const struct method *method, int64_t index, struct method_adapter *out)
{
    const struct lora *lora = method->state;
    const struct lora_layer *layer = lora->layer;
    while (index >= layer->part_count) {
        index -= layer->part_count;
        layer++;
    }
    const struct lora_part *part = &layer->part[index];
    *out = (struct method_adapter){ .parameter = part->part->parameter,
                                    .rank = part->rank,
                                    .scale = part->scale,
                                    .a = part->half[HALF_A].value,
                                    .b = part->half[HALF_B].value };
}

static const char *const lora_keys[] = {
    "method.rank",
    "method.alpha",
    "method.rank_pattern",
    "method.alpha_pattern",
    "method.frozen",
    "method.targets",
    NULL,
};

const struct method_ops lora_method = {
    .name = "lora",
    .title = "LoRA: low-rank adapters beside frozen weights",
    .reference = "Hu et al., arXiv 2106.09685",
    .adapters = true,
    .keys = lora_keys,
    .attach = lora_attach,
    .detach = lora_detach,
    .begin_step = lora_begin_step,
    .forward = lora_forward,
    .input_gradient = lora_input_gradient,
    .replayable = lora_replayable,
    .weight_gradient = lora_weight_gradient,
    .each_gradient = lora_each_gradient,
    .add_squares = lora_add_squares,
    .update = lora_update,
    .visit = lora_visit,
    .restore = lora_restore,
    .selection_count = lora_selection_count,
    .selection = lora_selection,
    .adapter_count = lora_adapter_count,
    .adapter = lora_adapter,
    .renew = renew_all,
};
