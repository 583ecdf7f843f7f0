/* GaLore, the step: where its tensors lie, the projected gradient, the update. See galore.h. */
#include "engine/method/galore.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/base/xalloc.h"
#include "engine/method/galore_parts.h"
#include "engine/method/refresh_clock.h"

struct tensor galore_scratch(struct memory *memory, const char *name, enum dtype dtype,
                             int64_t rows, int64_t columns)
{
    const int64_t dim[2] = { rows, columns };
    return memory_matrix(memory, MEMORY_WORKSPACE, name, dtype, dim);
}

struct galore_operands galore_operands_of(const struct galore_part *part, const struct tensor *dy,
                                          const struct tensor *x)
{
    struct galore_operand outputs = { dy, part->part->first, part->part->rows };
    struct galore_operand inputs = { x, 0, tensor_columns(x) };
    return part->right ? (struct galore_operands){ .small = inputs, .large = outputs }
                       : (struct galore_operands){ .small = outputs, .large = inputs };
}

void galore_thin(struct backend *be, struct tensor *thin, const struct galore_operand *operand,
                 const struct tensor *basis)
{
    op_matmul(be, &(struct matmul){ .c = thin,
                                    .a = operand->tensor,
                                    .b = basis,
                                    .a_first = operand->first,
                                    .a_columns = operand->columns });
}

void galore_wide(struct backend *be, struct tensor *wide, const struct galore_operand *operand,
                 const struct tensor *thin, float beta)
{
    op_matmul(be, &(struct matmul){ .c = wide,
                                    .a = operand->tensor,
                                    .b = thin,
                                    .transpose_a = true,
                                    .a_first = operand->first,
                                    .a_columns = operand->columns,
                                    .beta = beta });
}

static void part_place(struct method *method, struct galore_part *p)
{
    const struct parameter *parameter = p->part->parameter;
    enum dtype dtype = method->model->dtype;
    int64_t columns = p->linear->weight.dim[1];
    p->right = p->part->rows >= columns;
    p->small = p->right ? columns : p->part->rows;
    p->large = p->right ? p->part->rows : columns;
    p->rank = method->settings.rank < p->small ? method->settings.rank : p->small;
    p->refreshed = GALORE_NEVER;
    const int64_t wide[2] = { p->large, p->rank };
    const int64_t narrow[2] = { p->small, p->rank };
    char label[MEMORY_NAME_SIZE];
    snprintf(label, sizeof label, "%.70s projected gradient", parameter->name);
    p->gradient = memory_matrix(method->memory, MEMORY_GRADIENTS, label, dtype, wide);
    snprintf(label, sizeof label, "%.80s basis", parameter->name);
    p->basis = memory_matrix(method->memory, MEMORY_OPTIMIZER, label, dtype, narrow);
    op_zero(method->be, &p->basis);
    /* Blocks of eight-bit states lie down the columns: a block never mixes two directions of the
     * basis, whose gradients differ in size by design. */
    rule_place(method->rule, method->be, method->memory,
               &(struct rule_layout){ .name = parameter->name,
                                      .like = &p->gradient,
                                      .whole = p->part->rows * columns,
                                      .dtype = method->settings.state_dtype,
                                      .side = SIDE_COLUMNS,
                                      .ages = 1 },
               &p->state);
    if (!method->be->facts.imaginary) {
        p->before = xcalloc(1, tensor_bytes(&p->basis));
    }
    p->report = (struct selection_report){ .tensor = parameter->name,
                                           .side = p->right ? SIDE_COLUMNS : SIDE_ROWS,
                                           .candidates = p->small,
                                           .selected = p->rank,
                                           .coverage = (double)NAN,
                                           .entropy = (double)NAN };
}

static void galore_detach(struct method *method)
{
    struct galore *galore = method->state;
    if (galore == NULL) {
        return;
    }
    for (int64_t i = 0; i < galore->part_count; i++) {
        free(galore->part[i].before);
    }
    free(galore->part);
    free(galore->first_part);
    free(galore->reported);
    free(galore);
    method->state = NULL;
}

static int galore_attach(struct method *method, struct error *err)
{
    (void)err;
    struct model *model = method->model;
    size_t layers = (size_t)model->linear_count;
    struct galore *galore = xcalloc(1, sizeof *galore);
    method->state = galore;
    galore->part = xcalloc(layers * LINEAR_PARTS_MAX, sizeof *galore->part);
    galore->reported = xcalloc(layers * LINEAR_PARTS_MAX, sizeof *galore->reported);
    galore->first_part = xcalloc(layers + 1, sizeof *galore->first_part);
    galore->tile = GALORE_TILE;
    for (int64_t i = 0; i < model->linear_count; i++) {
        const struct linear *linear = &model->linear[i];
        for (int p = 0; p < linear->part_count; p++) {
            if (linear->part[p].parameter->idle) {
                continue;
            }
            struct galore_part *part = &galore->part[galore->part_count++];
            part->linear = linear;
            part->part = &linear->part[p];
            part_place(method, part);
        }
        galore->first_part[i + 1] = galore->part_count;
    }
    return 0;
}

static void galore_begin_step(struct method *method, int64_t step)
{
    struct galore *galore = method->state;
    method->step = step;
    method->refreshed = false;
    for (int64_t i = 0; i < galore->part_count; i++) {
        struct galore_part *part = &galore->part[i];
        part->refreshing =
            refresh_due(step, part->refreshed, method->settings.interval, method->settings.stagger,
                        part->linear->index, method->model->linear_count);
    }
}

/* R += dy^T (x Q), or x^T (dy P). */
static void accumulate(struct method *method, struct pass *pass, struct galore_part *part,
                       const struct galore_operands *operands)
{
    struct memory_position mark = memory_mark(pass->memory, MEMORY_WORKSPACE);
    const struct tensor *from = operands->small.tensor;
    struct tensor thin =
        galore_scratch(pass->memory, "projected side", from->dtype, tensor_rows(from), part->rank);
    galore_thin(pass->be, &thin, &operands->small, &part->basis);
    galore_wide(pass->be, &part->gradient, &operands->large, &thin,
                method->micro > 0 ? 1.0f : 0.0f);
    memory_release(pass->memory, MEMORY_WORKSPACE, mark);
}

/* Bases lie on the device; a step that chooses one needs the host. */
static bool galore_replayable(const struct method *method)
{
    const struct galore *galore = method->state;
    for (int64_t i = 0; i < galore->part_count; i++) {
        if (galore->part[i].refreshing) {
            return false;
        }
    }
    return true;
}

static void galore_weight_gradient(struct method *method, struct pass *pass,
                                   const struct linear *linear, const struct tensor *dy,
                                   const struct tensor *x)
{
    struct galore *galore = method->state;
    for (int64_t i = galore->first_part[linear->index]; i < galore->first_part[linear->index + 1];
         i++) {
        struct galore_part *part = &galore->part[i];
        struct galore_operands operands = galore_operands_of(part, dy, x);
        bool choose = part->refreshing && method->micro == 0;
        if (choose) {
            galore_refresh_part(method, pass, part, dy, x);
        }
        accumulate(method, pass, part, &operands);
        if (choose) {
            galore_measure_part(method, pass, part, dy, x);
        }
    }
}

static void galore_each_gradient(struct method *method, const struct gradient_visitor *visitor)
{
    struct galore *galore = method->state;
    for (int64_t i = 0; i < galore->part_count; i++) {
        struct galore_part *part = &galore->part[i];
        visitor->visit(visitor->context, part->part->parameter->name, &part->gradient);
    }
}

static void galore_add_squares(struct method *method, struct tensor *sum)
{
    struct galore *galore = method->state;
    for (int64_t i = 0; i < galore->part_count; i++) {
        op_sum_squares(method->be, sum, &galore->part[i].gradient, true);
    }
}

/* A refresh needs the host anyway, so here the verdict on the step is waited for. */
static bool step_is_skipped(struct method *method, const struct rule_settings *settings)
{
    float control[CONTROL_COUNT] = { 0 };
    backend_download(method->be, control, settings->control->data, sizeof control);
    return control[CONTROL_SKIP] != 0.0f;
}

/* Takes the refreshes of this step into use, or back. False if the step is skipped. */
static bool settle_refreshes(struct method *method, const struct rule_settings *settings)
{
    struct galore *galore = method->state;
    bool any = false;
    for (int64_t i = 0; i < galore->part_count; i++) {
        any = any || galore->part[i].refreshing;
    }
    if (!any) {
        return true;
    }
    bool skipped = step_is_skipped(method, settings);
    int64_t reported = 0;
    for (int64_t i = 0; i < galore->part_count; i++) {
        struct galore_part *part = &galore->part[i];
        if (part->refreshing && skipped) {
            galore_revert_part(method, part);
        } else if (part->refreshing) {
            galore_commit_part(method, part);
            galore->reported[reported++] = i;
        }
        part->refreshing = false;
    }
    if (!skipped) {
        galore->reported_count = reported;
        method->refreshed = true;
        method->counters.last_refresh = method->step;
        method->counters.refresh_count++;
    }
    return !skipped;
}

/* W -= lr (scale * left right^T + weight_decay * W), a block of rows at a time. */
static void descend(struct method *method, struct galore_part *part,
                    const struct rule_settings *settings, double lr, const struct tensor *step)
{
    struct tensor basis = part->basis;
    struct memory *memory = method->memory;
    struct tensor *weight = &part->part->parameter->value;
    int64_t rows = part->part->rows;
    int64_t columns = tensor_columns(weight);
    int64_t most = ((const struct galore *)method->state)->tile / columns;
    most = most < 1 ? 1 : most > rows ? rows : most;
    if (basis.dtype != DTYPE_F32) {
        basis = galore_scratch(memory, "basis in fp32", DTYPE_F32, part->small, part->rank);
        op_copy(method->be, &basis, &part->basis);
    }
    const struct tensor *left = part->right ? step : &basis;
    const struct tensor *right = part->right ? &basis : step;
    struct tensor tile = galore_scratch(memory, "update", DTYPE_F32, most, columns);
    for (int64_t first = 0; first < rows; first += most) {
        int64_t count = rows - first < most ? rows - first : most;
        struct tensor some = tensor_row_range(left, first, count);
        struct tensor update = tensor_row_range(&tile, 0, count);
        struct tensor block = tensor_row_range(weight, first, count);
        op_matmul(method->be,
                  &(struct matmul){ .c = &update, .a = &some, .b = right, .transpose_b = true });
        op_descend(method->be,
                   &(struct descend){ .weight = &block,
                                      .step = &update,
                                      .control = settings->control,
                                      .lr = (float)lr,
                                      .scale = (float)method->settings.scale,
                                      .weight_decay = (float)method->settings.weight_decay,
                                      .rounding = settings->rounding,
                                      .first = first * columns,
                                      .key = { .seed = settings->seed,
                                               .tensor = part->part->parameter->id,
                                               .step = settings->step } });
    }
}

/* The rule thinks that it updates a weight; that one begins at 0 and its learning rate is -1, so it
 * ends as the step N. */
static void update_part(struct method *method, struct galore_part *part, double lr,
                        const struct rule_settings *settings)
{
    int64_t warmup = method->settings.refresh_warmup;
    int64_t k = method->step - part->refreshed + 1;
    if (k < warmup) {
        lr *= (double)k / (double)warmup;
    }
    struct memory_position mark = memory_mark(method->memory, MEMORY_WORKSPACE);
    struct tensor step =
        galore_scratch(method->memory, "step in the subspace", DTYPE_F32, part->large, part->rank);
    op_zero(method->be, &step);
    method->rule->step(method->be, settings,
                       &(struct rule_target){ .weight = &step,
                                              .gradient = &part->gradient,
                                              .lr = -1.0f,
                                              .scale = 1.0f,
                                              .id = part->part->parameter->id },
                       &part->state);
    descend(method, part, settings, lr, &step);
    memory_release(method->memory, MEMORY_WORKSPACE, mark);
}

static void galore_update(struct method *method, double lr, const struct rule_settings *settings)
{
    struct galore *galore = method->state;
    if (!settle_refreshes(method, settings)) {
        return;
    }
    for (int64_t i = 0; i < galore->part_count; i++) {
        update_part(method, &galore->part[i], lr, settings);
    }
}

static int64_t galore_selection_count(const struct method *method)
{
    return ((const struct galore *)method->state)->reported_count;
}

static void galore_selection(const struct method *method, int64_t index,
                             struct selection_report *report)
{
    const struct galore *galore = method->state;
    *report = galore->part[galore->reported[index]].report;
}

/* The bases that refreshes replace, until it is known whether the step counts. */
static size_t galore_host_bytes(const struct method *method)
{
    const struct galore *galore = method->state;
    size_t bytes = 0;
    for (int64_t i = 0; i < galore->part_count; i++) {
        bytes += tensor_bytes(&galore->part[i].basis);
    }
    return bytes;
}

static const char *const galore_keys[] = {
    "method.rank",
    "method.interval",
    "method.scale",
    "method.projection",
    "method.moments",
    "method.stagger",
    "method.refresh_warmup",
    "method.embedding",
    "method.targets",
    "method.frozen",
    NULL,
};

const struct method_ops galore_method = {
    .name = "galore",
    .title = "GaLore: gradient low-rank projection",
    .reference = "Zhao, Zhang, Chen, Wang, Anandkumar, Tian, arXiv 2403.03507",
    .keys = galore_keys,
    .attach = galore_attach,
    .detach = galore_detach,
    .begin_step = galore_begin_step,
    .replayable = galore_replayable,
    .weight_gradient = galore_weight_gradient,
    .each_gradient = galore_each_gradient,
    .add_squares = galore_add_squares,
    .update = galore_update,
    .visit = galore_visit,
    .restore = galore_restore,
    .selection_count = galore_selection_count,
    .selection = galore_selection,
    .host_bytes = galore_host_bytes,
};
