/*
 * Full training: dW += dy^T x, and the rule on the whole packed weight. The baseline that every
 * other method is measured against.
 */
#include "engine/method/full.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/base/xalloc.h"

struct full_layer {
    struct tensor gradient;
    struct rule_state state;
};

static int full_attach(struct method *method, struct error *err)
{
    (void)err;
    struct model *model = method->model;
    struct full_layer *layers = xcalloc((size_t)model->linear_count, sizeof *layers);
    method->state = layers;
    for (int64_t i = 0; i < model->linear_count; i++) {
        const struct linear *linear = &model->linear[i];
        char first[LINEAR_LABEL_SIZE];
        linear_label(linear, first);
        char name[MEMORY_NAME_SIZE];
        snprintf(name, sizeof name, "%.80s gradient", first);
        layers[i].gradient =
            memory_matrix(method->memory, MEMORY_GRADIENTS, name, model->dtype, linear->weight.dim);
        rule_place(method->rule, method->be, method->memory, first, &linear->weight,
                   method->settings.state_dtype, 1, &layers[i].state);
    }
    return 0;
}

static void full_detach(struct method *method)
{
    free(method->state);
    method->state = NULL;
}

static void full_begin_step(struct method *method, int64_t step)
{
    method->step = step;
    method->refreshed = false;
}

static void full_weight_gradient(struct method *method, struct pass *pass,
                                 const struct linear *linear, const struct tensor *dy,
                                 const struct tensor *x)
{
    struct full_layer *layers = method->state;
    op_matmul(pass->be, &(struct matmul){ .c = &layers[linear->index].gradient,
                                          .a = dy,
                                          .b = x,
                                          .transpose_a = true,
                                          .beta = method->micro > 0 ? 1.0f : 0.0f });
}

static void full_add_squares(struct method *method, struct tensor *sum)
{
    struct full_layer *layers = method->state;
    for (int64_t i = 0; i < method->model->linear_count; i++) {
        op_sum_squares(method->be, sum, &layers[i].gradient, true);
    }
}

static void full_update(struct method *method, double lr, const struct rule_settings *settings)
{
    struct full_layer *layers = method->state;
    for (int64_t i = 0; i < method->model->linear_count; i++) {
        struct linear *linear = &method->model->linear[i];
        method->rule->step(
            method->be, settings,
            &(struct rule_target){ .weight = &linear->weight,
                                   .gradient = &layers[i].gradient,
                                   .lr = (float)lr,
                                   .weight_decay = (float)method->settings.weight_decay,
                                   .scale = 1.0f,
                                   .id = linear->part[0].parameter->id },
            &layers[i].state);
    }
}

/* The states of one matrix of a packed layer: rows of the packed states. */
static struct tensor part_view(const struct tensor *packed, const struct linear_part *part)
{
    return tensor_row_range(packed, part->first, part->rows);
}

static void full_each_gradient(struct method *method, const struct gradient_visitor *visitor)
{
    struct full_layer *layers = method->state;
    for (int64_t i = 0; i < method->model->linear_count; i++) {
        const struct linear *linear = &method->model->linear[i];
        for (int p = 0; p < linear->part_count; p++) {
            struct tensor view = part_view(&layers[i].gradient, &linear->part[p]);
            visitor->visit(visitor->context, linear->part[p].parameter->name, &view);
        }
    }
}

static void full_visit(struct method *method, const struct state_visitor *visitor)
{
    struct full_layer *layers = method->state;
    for (int64_t i = 0; i < method->model->linear_count; i++) {
        const struct linear *linear = &method->model->linear[i];
        for (int p = 0; p < linear->part_count; p++) {
            const struct linear_part *part = &linear->part[p];
            for (int s = 0; s < method->rule->slot_count; s++) {
                struct tensor view = part_view(&layers[i].state.slot[s], part);
                state_show(visitor, "optimizer", part->parameter->name, method->rule->slot_name[s],
                           &view, false);
            }
        }
        state_show(visitor, "optimizer", linear->part[0].parameter->name, "age",
                   &layers[i].state.age, false);
    }
}

static int full_restore(struct method *method, const struct state_source *source, struct error *err)
{
    struct full_layer *layers = method->state;
    char name[STATE_NAME_SIZE];
    for (int64_t i = 0; i < method->model->linear_count; i++) {
        const struct linear *linear = &method->model->linear[i];
        for (int p = 0; p < linear->part_count; p++) {
            const struct linear_part *part = &linear->part[p];
            for (int s = 0; s < method->rule->slot_count; s++) {
                struct tensor view = part_view(&layers[i].state.slot[s], part);
                snprintf(name, sizeof name, "optimizer/%s/%s", part->parameter->name,
                         method->rule->slot_name[s]);
                if (method_restore_tensor(method->be, source, name, &view, err) != 0) {
                    return -1;
                }
            }
        }
        snprintf(name, sizeof name, "optimizer/%s/age", linear->part[0].parameter->name);
        if (method_restore_tensor(method->be, source, name, &layers[i].state.age, err) != 0) {
            return -1;
        }
    }
    return 0;
}

static int64_t full_selection_count(const struct method *method)
{
    (void)method;
    return 0;
}

static void full_selection(const struct method *method, int64_t index,
                           struct selection_report *report)
{
    (void)method;
    (void)index;
    (void)report;
}

const struct method_ops full_method = {
    .name = "full",
    .title = "Full training",
    .reference = "Loshchilov, Hutter, \"Decoupled weight decay regularization\", arXiv 1711.05101",
    .attach = full_attach,
    .detach = full_detach,
    .begin_step = full_begin_step,
    .weight_gradient = full_weight_gradient,
    .each_gradient = full_each_gradient,
    .add_squares = full_add_squares,
    .update = full_update,
    .visit = full_visit,
    .restore = full_restore,
    .selection_count = full_selection_count,
    .selection = full_selection,
};
