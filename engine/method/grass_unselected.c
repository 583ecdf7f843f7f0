/*
 * Grass, the rows that are not selected: every few steps they move too, without any state.
 *
 *   w_i -= lr (unselected_scale g_i / rms(g_i) + weight_decay w_i)      for every row i not
 * selected
 *
 * (columns where columns are selected). Rows of one length suit every scale of gradient, as Adam
 * would, and need neither moments nor clipping. The full gradient that this takes is formed matrix
 * by matrix in the workspace, as at a refresh, in the backward of the step's last micro-batch, and
 * applied at once: nothing of that size waits for the end of the backward. By then every loss of
 * the step is known, and the gradients of its earlier micro-batches; where one of them is not
 * finite, nothing moves, as in every skipped step. A gradient that first loses its finiteness
 * within this very backward comes too late for the matrices above: their rows have taken one
 * bounded step.
 *
 * It is done at step 1 and every `unselected_every` steps after it: a function of the step alone,
 * so that a resumed run does the same.
 */
#include "engine/method/grass_parts.h"

bool grass_step_moves_unselected(const struct method *method)
{
    int64_t every = method->settings.unselected_every;
    return every > 0 && (method->step - 1) % every == 0;
}

bool grass_moves_unselected(const struct method *method)
{
    return grass_step_moves_unselected(method) && method->micro + 1 == method->micro_count;
}

void grass_guard_unselected(struct method *method)
{
    struct grass *grass = method->state;
    if (grass->guarded) {
        return;
    }
    grass->guarded = true;
    op_zero(method->be, &grass->guard_sum);
    for (int64_t g = 0; g < grass->group_count; g++) {
        bool chunked = grass->group[g].linear == method->model->head_linear;
        if (method->micro == 0 && !chunked) {
            op_zero(method->be, &grass->group[g].gradient); /* of an older step */
        }
        op_sum_squares(method->be, &grass->guard_sum, &grass->group[g].gradient, true);
    }
    /* Of the losses too: what one rank finds, all must know. */
    op_sum_squares(method->be, &grass->guard_sum, method->loss, true);
    comm_all_reduce(method->comm, method->be, &grass->guard_sum);
    op_clip(method->be, &grass->guard, &grass->guard_sum, &grass->guard_sum, 0.0f);
}

void grass_move_formed(struct method *method, struct pass *pass, struct grass_part *part,
                       const struct tensor *dw)
{
    struct grass *grass = method->state;
    const struct rule_settings *rule = method->rule_settings;
    bool rows = part->side == SIDE_ROWS;
    struct memory_position mark = memory_mark(pass->memory, MEMORY_WORKSPACE);
    struct tensor norms =
        memory_vector(pass->memory, MEMORY_WORKSPACE, "row norms", DTYPE_F32, part->candidates);
    struct tensor factors =
        memory_vector(pass->memory, MEMORY_WORKSPACE, "row factors", DTYPE_F32, part->candidates);
    op_squared_norms(pass->be, &norms, dw, part->side);
    op_unit_factors(pass->be, &(struct unit_factors){ .factors = &factors,
                                                      .norms = &norms,
                                                      .index = part->refreshing ? &part->next_index
                                                                                : &part->index,
                                                      .offset = part->offset,
                                                      .length = rows ? dw->dim[1] : dw->dim[0] });
    op_sgd(pass->be, &(struct sgd){ .weight = &part->part->parameter->value,
                                    .gradient = dw,
                                    .rho = &factors,
                                    .control = &grass->guard,
                                    .side = part->side,
                                    .lr = (float)method->lr,
                                    .weight_decay = (float)method->settings.weight_decay,
                                    .scale = (float)method->settings.unselected_scale,
                                    .rounding = rule->rounding,
                                    .key = { .seed = rule->seed,
                                             .tensor = part->part->parameter->id,
                                             .step = rule->step } });
    memory_release(pass->memory, MEMORY_WORKSPACE, mark);
}

void grass_move_unselected(struct method *method, struct pass *pass, struct grass_part *part,
                           const struct tensor *dy, const struct tensor *x)
{
    struct memory_position mark = memory_mark(pass->memory, MEMORY_WORKSPACE);
    struct tensor dw = grass_form_gradient(method, pass, part, dy, x);
    exchange_now(method->exchange, &dw);
    grass_move_formed(method, pass, part, &dw);
    memory_release(pass->memory, MEMORY_WORKSPACE, mark);
}
