/* Grass, the step: where its tensors lie, the compressed gradient, the update. See grass.h. */
#include "engine/method/grass.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/xalloc.h"
#include "engine/method/grass_parts.h"

static enum side part_side(const struct method *method, const struct linear_part *part,
                           int64_t columns)
{
    switch (method->settings.side) {
    case SELECTION_IN:
        return SIDE_COLUMNS;
    case SELECTION_SHORT:
        return part->rows <= columns ? SIDE_ROWS : SIDE_COLUMNS;
    case SELECTION_OUT:
        break;
    }
    return SIDE_ROWS;
}

static void part_init(struct method *method, struct grass_part *p, const struct linear_part *part,
                      int64_t columns)
{
    const struct method_settings *s = &method->settings;
    p->part = part;
    p->side = part_side(method, part, columns);
    p->candidates = p->side == SIDE_ROWS ? part->rows : columns;
    p->offset = p->side == SIDE_ROWS ? part->first : 0;
    p->count = s->side == SELECTION_SHORT
                   ? (s->rank < p->candidates ? s->rank : p->candidates)
                   : selection_share(s->rank, p->candidates, method->model->config.hidden_size);
    p->chosen = xmalloc((size_t)p->count * sizeof *p->chosen);
    p->next = xmalloc((size_t)p->count * sizeof *p->next);
    p->norms = xcalloc((size_t)p->candidates, sizeof *p->norms);
    p->sorted = xcalloc((size_t)p->candidates, sizeof *p->sorted);
    p->seen = xcalloc((size_t)p->candidates, 1);
    p->scratch = xmalloc((size_t)(4 * p->count) * sizeof *p->scratch);
    for (int64_t i = 0; i < p->count; i++) {
        p->chosen[i] = -1;
        p->next[i] = -1;
    }
    p->report.tensor = part->parameter->name;
    p->report.side = p->side;
    p->report.candidates = p->candidates;
}

static struct tensor place_vector(struct method *method, const char *name, const char *what,
                                  enum dtype dtype, int64_t count)
{
    char label[MEMORY_NAME_SIZE];
    snprintf(label, sizeof label, "%.76s %s", name, what);
    return memory_vector(method->memory, MEMORY_OPTIMIZER, label, dtype, count);
}

/* A view of slots [first, first + count) of a vector. */
static struct tensor vector_range(const struct tensor *t, int64_t first, int64_t count)
{
    struct tensor column = tensor_as_matrix(t, tensor_count(t), 1);
    struct tensor view = tensor_row_range(&column, first, count);
    view.rank = 1;
    return view;
}

static void clear_index(struct method *method, struct tensor *index, int64_t count)
{
    int32_t *unused = xmalloc((size_t)count * sizeof *unused);
    for (int64_t i = 0; i < count; i++) {
        unused[i] = -1;
    }
    backend_upload(method->be, index->data, unused, (size_t)count * sizeof *unused);
    free(unused);
}

static void group_views(struct grass_group *group)
{
    int64_t first = 0;
    for (int i = 0; i < group->part_count; i++) {
        struct grass_part *p = group->part[i];
        p->index = vector_range(&group->index, first, p->count);
        p->rho = vector_range(&group->rho, first, p->count);
        p->next_index = vector_range(&group->next_index, first, p->count);
        p->next_rho = vector_range(&group->next_rho, first, p->count);
        p->age = vector_range(&group->state.age, first, p->count);
        bool rows = group->side == SIDE_ROWS;
        if (group->residue.rank > 0) {
            p->residue = rows ? tensor_row_range(&group->residue, first, p->count) : group->residue;
        }
        p->gradient = rows ? tensor_row_range(&group->gradient, first, p->count) : group->gradient;
        p->slot_count = group->state.slot_count;
        for (int s = 0; s < p->slot_count; s++) {
            p->slot_name[s] = group->state.slot_name[s];
            p->slot[s] = rows ? tensor_row_range(&group->state.slot[s], first, p->count)
                              : group->state.slot[s];
        }
        first += p->count;
    }
}

static void group_place(struct method *method, struct grass_group *group)
{
    char name[LINEAR_LABEL_SIZE];
    if (group->part_count > 1 && group->part_count == group->linear->part_count) {
        linear_label(group->linear, name);
    } else {
        snprintf(name, sizeof name, "%.79s", group->part[0]->part->parameter->name);
    }
    int64_t count = 0;
    for (int i = 0; i < group->part_count; i++) {
        count += group->part[i]->count;
    }
    bool rows = group->side == SIDE_ROWS;
    const int64_t dim[2] = { rows ? count : group->weight.dim[0],
                             rows ? group->weight.dim[1] : count };
    char label[MEMORY_NAME_SIZE];
    snprintf(label, sizeof label, "%.70s selected gradient", name);
    group->gradient =
        memory_matrix(method->memory, MEMORY_GRADIENTS, label, method->model->dtype, dim);
    rule_place(method->rule, method->be, method->memory,
               &(struct rule_layout){ .name = name,
                                      .like = &group->gradient,
                                      .whole = tensor_count(&group->weight),
                                      .dtype = method->settings.state_dtype,
                                      .side = group->side,
                                      .ages = count },
               &group->state);
    grass_residue_place(method, group, name);
    group->index = place_vector(method, name, "index", DTYPE_I32, count);
    group->rho = place_vector(method, name, "rho", DTYPE_F32, count);
    group->next_index = place_vector(method, name, "next index", DTYPE_I32, count);
    group->next_rho = place_vector(method, name, "next rho", DTYPE_F32, count);
    clear_index(method, &group->index, count);
    clear_index(method, &group->next_index, count);
    op_zero(method->be, &group->rho);
    op_zero(method->be, &group->next_rho);
    group_views(group);
}

/* Sorts `count` parts of a layer into groups; returns how many. */
static int64_t layer_groups(struct grass *grass, const struct linear *linear,
                            struct grass_part *parts, int count)
{
    bool all_rows = count > 0;
    for (int i = 0; i < count; i++) {
        all_rows = all_rows && parts[i].side == SIDE_ROWS;
    }
    struct grass_group *group = &grass->group[grass->group_count];
    int64_t groups = all_rows ? 1 : count;
    for (int i = 0; i < count; i++) {
        struct grass_group *g = all_rows ? group : group + i;
        g->part[g->part_count++] = &parts[i];
        g->linear = linear;
        g->side = parts[i].side;
    }
    for (int64_t i = 0; i < groups; i++) {
        const struct grass_part *first = group[i].part[0];
        group[i].id = first->part->parameter->id;
        bool rows = first->side == SIDE_ROWS;
        group[i].weight = rows ? linear->weight : first->part->parameter->value;
    }
    return groups;
}

static void grass_detach(struct method *method)
{
    struct grass *grass = method->state;
    if (grass == NULL) {
        return;
    }
    for (int64_t i = 0; i < grass->part_count; i++) {
        free(grass->part[i].chosen);
        free(grass->part[i].next);
        free(grass->part[i].norms);
        free(grass->part[i].sorted);
        free(grass->part[i].seen);
        free(grass->part[i].scratch);
        grass_waiting_free(grass->part[i].waiting);
    }
    free(grass->part);
    free(grass->group);
    free(grass->first_group);
    free(grass->reported);
    free(grass);
    method->state = NULL;
}

static int grass_attach(struct method *method, struct error *err)
{
    struct model *model = method->model;
    int64_t hidden = model->config.hidden_size;
    if (method->settings.rank < 1 || method->settings.rank > hidden) {
        fail(err, ERROR_USAGE, "method.rank: %lld is outside 1 .. %lld, the model's hidden size",
             (long long)method->settings.rank, (long long)hidden);
        return hint(err, "set method.rank=%lld or less", (long long)hidden);
    }
    size_t layers = (size_t)model->linear_count;
    struct grass *grass = xcalloc(1, sizeof *grass);
    method->state = grass;
    grass->part = xcalloc(layers * LINEAR_PARTS_MAX, sizeof *grass->part);
    grass->group = xcalloc(layers * LINEAR_PARTS_MAX, sizeof *grass->group);
    grass->reported = xcalloc(layers * LINEAR_PARTS_MAX, sizeof *grass->reported);
    grass->first_group = xcalloc(layers + 1, sizeof *grass->first_group);
    for (int64_t i = 0; i < model->linear_count; i++) {
        const struct linear *linear = &model->linear[i];
        struct grass_part *parts = &grass->part[grass->part_count];
        int count = 0;
        for (int p = 0; p < linear->part_count; p++) {
            if (!linear->part[p].parameter->idle) {
                part_init(method, &parts[count++], &linear->part[p], linear->weight.dim[1]);
            }
        }
        grass->part_count += count;
        int64_t groups = layer_groups(grass, linear, parts, count);
        for (int64_t g = 0; g < groups; g++) {
            grass->group[grass->group_count + g].unit = grass->unit_count;
            group_place(method, &grass->group[grass->group_count + g]);
        }
        grass->group_count += groups;
        grass->unit_count += groups > 0;
        grass->first_group[i + 1] = grass->group_count;
    }
    if (method->settings.unselected_every > 0) {
        grass->guard = place_vector(method, "unselected rows", "guard", DTYPE_F32, CONTROL_COUNT);
        grass->guard_sum = place_vector(method, "unselected rows", "guard sum", DTYPE_F32, 1);
    }
    return 0;
}

/* Rows of the layer, if all of its gradient goes through one selection. */
static const struct tensor *grass_columns(struct method *method, const struct linear *linear,
                                          bool *known)
{
    const struct grass *grass = method->state;
    int64_t first = grass->first_group[linear->index];
    const struct grass_group *group = &grass->group[first];
    bool one = grass->first_group[linear->index + 1] == first + 1;
    *known = !grass_group_refreshing(group) || method->micro > 0;
    return one && group->side == SIDE_ROWS ? grass_index_in_use(group) : NULL;
}

/* What is there of the gradient counts from the second micro-batch on; of the head, which comes in
 * chunks and begins at zero, always. */
static float keeps(const struct method *method, const struct grass_group *group)
{
    return method->micro > 0 || group->linear == method->model->head_linear ? 1.0f : 0.0f;
}

/* (dy[:, sigma])^T x */
static void accumulate_rows(struct method *method, struct pass *pass, struct grass_group *group,
                            const struct tensor *thin, const struct tensor *x)
{
    op_matmul(pass->be, &(struct matmul){ .c = &group->gradient,
                                          .a = thin,
                                          .b = x,
                                          .transpose_a = true,
                                          .beta = keeps(method, group) });
}

void grass_accumulate_columns(struct method *method, struct pass *pass, struct grass_group *group,
                              const struct tensor *dy, const struct tensor *thin)
{
    const struct linear_part *part = group->part[0]->part;
    op_matmul(pass->be, &(struct matmul){ .c = &group->gradient,
                                          .a = dy,
                                          .b = thin,
                                          .transpose_a = true,
                                          .a_first = part->first,
                                          .a_columns = part->rows,
                                          .beta = keeps(method, group) });
}

/* The compressed gradient of one micro-batch: (dy[:, sigma])^T x, or dy^T x[:, sigma]; of the head,
 * of one chunk. The columns of dy are gathered only where they were not captured when it was
 * produced. */
void grass_accumulate(struct method *method, struct pass *pass, struct grass_group *group,
                      const struct tensor *dy, const struct tensor *x)
{
    const struct tensor *index = grass_index_in_use(group);
    const struct tensor *captured = pass_captured(pass, group->linear);
    if (captured != NULL) {
        accumulate_rows(method, pass, group, captured, x);
        return;
    }
    struct memory_position mark = memory_mark(pass->memory, MEMORY_WORKSPACE);
    struct tensor thin = pass_scratch(pass, "selected columns", x->dtype, tensor_count(index));
    if (group->side == SIDE_ROWS) {
        op_gather(pass->be, &thin, dy, index, SIDE_COLUMNS);
        accumulate_rows(method, pass, group, &thin, x);
    } else {
        op_gather(pass->be, &thin, x, index, SIDE_COLUMNS);
        grass_accumulate_columns(method, pass, group, dy, &thin);
    }
    memory_release(pass->memory, MEMORY_WORKSPACE, mark);
}

/* The chosen rows lie on the device; a step that chooses needs the host, and one that moves other
 * rows has a learning rate and a rounding of its own in the backward. */
static bool grass_replayable(const struct method *method)
{
    const struct grass *grass = method->state;
    return !grass->refreshing && !grass_step_moves_unselected(method);
}

static void grass_weight_gradient(struct method *method, struct pass *pass,
                                  const struct linear *linear, const struct tensor *dy,
                                  const struct tensor *x)
{
    struct grass *grass = method->state;
    if (linear == method->model->head_linear) {
        grass_head_chunk(method, pass, linear, dy, x);
        return;
    }
    bool move = grass_moves_unselected(method);
    if (move) {
        grass_guard_unselected(method);
    }
    for (int64_t g = grass->first_group[linear->index]; g < grass->first_group[linear->index + 1];
         g++) {
        struct grass_group *group = &grass->group[g];
        if (!grass_group_refreshing(group) || method->micro > 0) {
            grass_accumulate(method, pass, group, dy, x);
            continue;
        }
        for (int p = 0; p < group->part_count; p++) {
            grass_refresh_part(method, pass, group->part[p], dy, x);
        }
        if (method->settings.sketch > 0) {
            grass_accumulate(method, pass, group, dy, x);
        }
    }
    for (int64_t g = grass->first_group[linear->index];
         move && g < grass->first_group[linear->index + 1]; g++) {
        for (int p = 0; p < grass->group[g].part_count; p++) {
            grass_move_unselected(method, pass, grass->group[g].part[p], dy, x);
        }
    }
}

static void grass_each_gradient(struct method *method, const struct gradient_visitor *visitor)
{
    struct grass *grass = method->state;
    for (int64_t i = 0; i < grass->part_count; i++) {
        struct grass_part *part = &grass->part[i];
        visitor->visit(visitor->context, part->part->parameter->name, &part->gradient);
    }
}

static void grass_add_squares(struct method *method, struct tensor *sum)
{
    struct grass *grass = method->state;
    for (int64_t g = 0; g < grass->group_count; g++) {
        struct grass_group *group = &grass->group[g];
        if (method->settings.unbiased) {
            const struct tensor *rho =
                grass_group_refreshing(group) ? &group->next_rho : &group->rho;
            op_scale_side(method->be, &group->gradient, rho, group->side);
        }
        op_sum_squares(method->be, sum, &group->gradient, true);
    }
}

/* What is left of the learning rate so soon after a refresh. */
static double warmth(const struct method *method, const struct grass_group *group)
{
    int64_t warmup = method->settings.refresh_warmup;
    int64_t k = method->step - grass_last_refresh(method, group) + 1;
    return k < warmup ? (double)k / (double)warmup : 1.0;
}

static void grass_update(struct method *method, double lr, const struct rule_settings *settings)
{
    struct grass *grass = method->state;
    if (!grass_settle_refreshes(method, settings)) {
        return;
    }
    for (int64_t g = 0; g < grass->group_count; g++) {
        struct grass_group *group = &grass->group[g];
        double rate = lr * warmth(method, group);
        method->rule->step(
            method->be, settings,
            &(struct rule_target){ .weight = &group->weight,
                                   .gradient = &group->gradient,
                                   .index = &group->index,
                                   .rho = method->settings.unbiased ? &group->rho : NULL,
                                   .residue = grass_exact(method) ? &group->residue : NULL,
                                   .side = group->side,
                                   .lr = (float)rate,
                                   .weight_decay = (float)method->settings.weight_decay,
                                   .scale = (float)method->settings.scale,
                                   .id = group->id },
            &group->state);
    }
}

static int64_t grass_selection_count(const struct method *method)
{
    return ((const struct grass *)method->state)->reported_count;
}

static void grass_selection(const struct method *method, int64_t index,
                            struct selection_report *report)
{
    const struct grass *grass = method->state;
    *report = grass->part[grass->reported[index]].report;
}

static const char *const grass_keys[] = {
    "method.rank",
    "method.interval",
    "method.selection",
    "method.replacement",
    "method.unbiased",
    "method.side",
    "method.scale",
    "method.stagger",
    "method.carry",
    "method.refresh_warmup",
    "method.sketch",
    "method.unselected_every",
    "method.unselected_scale",
    "method.inputs",
    "method.head",
    "method.embedding",
    "method.exact_rows",
    "method.targets",
    "method.frozen",
    NULL,
};

const struct method_ops grass_method = {
    .name = "grass",
    .title = "Grass: structured sparse gradients",
    .reference = "Muhamed, Li, Woodruff, Diab, Smith, arXiv 2406.17660",
    .keys = grass_keys,
    .attach = grass_attach,
    .detach = grass_detach,
    .begin_step = grass_begin_step,
    .replayable = grass_replayable,
    .weight_gradient = grass_weight_gradient,
    .head = grass_head,
    .columns = grass_columns,
    .inputs = &grass_inputs,
    .each_gradient = grass_each_gradient,
    .add_squares = grass_add_squares,
    .update = grass_update,
    .visit = grass_visit,
    .restore = grass_restore,
    .selection_count = grass_selection_count,
    .selection = grass_selection,
};
