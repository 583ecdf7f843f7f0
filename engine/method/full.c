/*
 * Full training: dW += dy^T x, and the rule on the whole packed weight. The baseline that every
 * other method is measured against. With several ranks the states are split over them by rows of
 * the packed weight (owned_rows.h), and the sum of a layer's gradient is asked for in the backward
 * of the last micro-batch, as soon as it is complete.
 */
#include "engine/method/full.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/base/xalloc.h"
#include "engine/method/owned_rows.h"

/* Parts of a packed layer that lie side by side and train: one product, one update. */
struct full_piece {
    const struct linear *linear;
    int first_part;
    int part_count;
    struct tensor weight; /* (rows, N) view of the packed weight */
    int64_t first_row;
    struct tensor gradient;
    struct owned_rows owned; /* its states */
    bool asked;              /* for the sum of this step's gradient */
};

struct full {
    struct full_piece *piece;
    int64_t piece_count;
    int64_t *first_piece; /* (linears + 1): pieces of a linear layer */
};

static void piece_place(struct method *method, struct full_piece *piece)
{
    const struct linear *linear = piece->linear;
    const struct linear_part *first = &linear->part[piece->first_part];
    const struct linear_part *last = first + piece->part_count - 1;
    piece->first_row = first->first;
    piece->weight =
        tensor_row_range(&linear->weight, first->first, last->first + last->rows - first->first);
    char label[LINEAR_LABEL_SIZE];
    if (piece->part_count == linear->part_count) {
        linear_label(linear, label);
    } else {
        snprintf(label, sizeof label, "%.79s", first->parameter->name);
    }
    char name[MEMORY_NAME_SIZE];
    snprintf(name, sizeof name, "%.80s gradient", label);
    piece->gradient = memory_matrix(method->memory, MEMORY_GRADIENTS, name, method->model->dtype,
                                    piece->weight.dim);
    owned_rows_place(&piece->owned, method,
                     &(struct rule_layout){ .name = label,
                                            .like = &piece->weight,
                                            .whole = tensor_count(&piece->weight),
                                            .dtype = method->settings.state_dtype,
                                            .ages = 1 });
}

static int full_attach(struct method *method, struct error *err)
{
    (void)err;
    struct model *model = method->model;
    size_t layers = (size_t)model->linear_count;
    struct full *full = xcalloc(1, sizeof *full);
    full->piece = xcalloc(layers * LINEAR_PARTS_MAX, sizeof *full->piece);
    full->first_piece = xcalloc(layers + 1, sizeof *full->first_piece);
    method->state = full;
    for (int64_t i = 0; i < model->linear_count; i++) {
        const struct linear *linear = &model->linear[i];
        for (int p = 0; p < linear->part_count; p++) {
            if (linear->part[p].parameter->idle) {
                continue;
            }
            struct full_piece *piece = &full->piece[full->piece_count++];
            *piece = (struct full_piece){ .linear = linear, .first_part = p };
            while (p < linear->part_count && !linear->part[p].parameter->idle) {
                piece->part_count++;
                p++;
            }
            piece_place(method, piece);
        }
        full->first_piece[i + 1] = full->piece_count;
    }
    return 0;
}

static void full_detach(struct method *method)
{
    struct full *full = method->state;
    if (full != NULL) {
        free(full->piece);
        free(full->first_piece);
        free(full);
        method->state = NULL;
    }
}

static void full_begin_step(struct method *method, int64_t step)
{
    struct full *full = method->state;
    for (int64_t i = 0; i < full->piece_count; i++) {
        full->piece[i].asked = false;
    }
    method->step = step;
    method->refreshed = false;
}

static bool full_replayable(const struct method *method)
{
    (void)method;
    return true;
}

static void full_weight_gradient(struct method *method, struct pass *pass,
                                 const struct linear *linear, const struct tensor *dy,
                                 const struct tensor *x)
{
    struct full *full = method->state;
    for (int64_t i = full->first_piece[linear->index]; i < full->first_piece[linear->index + 1];
         i++) {
        struct full_piece *piece = &full->piece[i];
        bool whole = piece->part_count == linear->part_count;
        op_matmul(pass->be, &(struct matmul){ .c = &piece->gradient,
                                              .a = dy,
                                              .b = x,
                                              .transpose_a = true,
                                              .a_first = whole ? 0 : piece->first_row,
                                              .a_columns = whole ? 0 : piece->gradient.dim[0],
                                              .beta = method->micro > 0 ? 1.0f : 0.0f });
        if (method->early) {
            piece->asked = true;
            owned_rows_ask_sum(&piece->owned, &piece->gradient);
        }
    }
}

static void full_ask_sums(struct method *method)
{
    struct full *full = method->state;
    for (int64_t i = 0; i < full->piece_count; i++) {
        struct full_piece *piece = &full->piece[i];
        if (!piece->asked) {
            owned_rows_ask_sum(&piece->owned, &piece->gradient);
        }
    }
}

static void full_take_sums(struct method *method)
{
    struct full *full = method->state;
    for (int64_t i = 0; i < full->piece_count; i++) {
        owned_rows_take_sum(&full->piece[i].owned, &full->piece[i].gradient);
    }
}

static void full_add_squares(struct method *method, struct tensor *sum)
{
    struct full *full = method->state;
    for (int64_t i = 0; i < full->piece_count; i++) {
        if (!full->piece[i].owned.split) {
            owned_rows_add_squares(&full->piece[i].owned, &full->piece[i].gradient, sum);
        }
    }
}

static bool full_add_own_squares(struct method *method, struct tensor *sum)
{
    struct full *full = method->state;
    bool any = false;
    for (int64_t i = 0; i < full->piece_count; i++) {
        if (full->piece[i].owned.split) {
            any = true;
            owned_rows_add_squares(&full->piece[i].owned, &full->piece[i].gradient, sum);
        }
    }
    return any;
}

static void full_update(struct method *method, double lr, const struct rule_settings *settings)
{
    struct full *full = method->state;
    for (int64_t i = 0; i < full->piece_count; i++) {
        struct full_piece *piece = &full->piece[i];
        owned_rows_step(
            &piece->owned, method->rule, settings,
            &(struct rule_target){ .weight = &piece->weight,
                                   .gradient = &piece->gradient,
                                   .lr = (float)lr,
                                   .weight_decay = (float)method->settings.weight_decay,
                                   .scale = 1.0f,
                                   .id = piece->linear->part[piece->first_part].parameter->id });
    }
}

/* The rows of one matrix in what a piece holds. */
static struct tensor part_view(const struct full_piece *piece, const struct tensor *packed,
                               int part)
{
    const struct linear_part *p = &piece->linear->part[piece->first_part + part];
    return tensor_row_range(packed, p->first - piece->first_row, p->rows);
}

static const char *part_name(const struct full_piece *piece, int part)
{
    return piece->linear->part[piece->first_part + part].parameter->name;
}

static void full_each_gradient(struct method *method, const struct gradient_visitor *visitor)
{
    struct full *full = method->state;
    for (int64_t i = 0; i < full->piece_count; i++) {
        struct full_piece *piece = &full->piece[i];
        for (int p = 0; p < piece->part_count; p++) {
            struct tensor view = part_view(piece, &piece->gradient, p);
            visitor->visit(visitor->context, part_name(piece, p), &view);
        }
    }
}

static struct owned_part owned_part_of(const struct full_piece *piece, int part)
{
    const struct linear_part *p = &piece->linear->part[piece->first_part + part];
    return (struct owned_part){ .parameter = p->parameter->name,
                                .first = p->first - piece->first_row,
                                .count = p->rows };
}

static void full_visit(struct method *method, const struct state_visitor *visitor)
{
    struct full *full = method->state;
    for (int64_t i = 0; i < full->piece_count; i++) {
        struct full_piece *piece = &full->piece[i];
        for (int p = 0; p < piece->part_count; p++) {
            struct owned_part part = owned_part_of(piece, p);
            owned_rows_show(&piece->owned, visitor, &part);
        }
        owned_rows_show_age(&piece->owned, visitor, part_name(piece, 0));
    }
}

static int full_restore(struct method *method, const struct state_source *source, struct error *err)
{
    struct full *full = method->state;
    for (int64_t i = 0; i < full->piece_count; i++) {
        struct full_piece *piece = &full->piece[i];
        for (int p = 0; p < piece->part_count; p++) {
            struct owned_part part = owned_part_of(piece, p);
            if (owned_rows_restore(&piece->owned, source, &part, err) != 0) {
                return -1;
            }
        }
        if (owned_rows_restore_age(&piece->owned, source, part_name(piece, 0), err) != 0) {
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

static const char *const full_keys[] = { "method.frozen", "method.embedding", "method.targets",
                                         NULL };

const struct method_ops full_method = {
    .name = "full",
    .title = "Full training",
    .reference = "Loshchilov, Hutter, \"Decoupled weight decay regularization\", arXiv 1711.05101",
    .keys = full_keys,
    .attach = full_attach,
    .detach = full_detach,
    .begin_step = full_begin_step,
    .replayable = full_replayable,
    .weight_gradient = full_weight_gradient,
    .each_gradient = full_each_gradient,
    .ask_sums = full_ask_sums,
    .take_sums = full_take_sums,
    .asks_early = true,
    .add_squares = full_add_squares,
    .add_own_squares = full_add_own_squares,
    .update = full_update,
    .visit = full_visit,
    .restore = full_restore,
    .selection_count = full_selection_count,
    .selection = full_selection,
};
