/*
 * Grass, the head of an untied model: rows are words of the vocabulary.
 *
 * The logits' gradient exists for a chunk of tokens at a time and is gone after it, so the head is
 * taken chunk by chunk: G_C = sum over chunks of (dlogits[:, sigma])^T h. At a refresh the choice
 * needs all of the first micro-batch before any row of it can be kept. So dW of the head, (V, C),
 * is formed in the workspace over the chunks, gives norms and compressed gradient at their end, and
 * is dropped. It is so with a sketch too: by the time that a sketch of all chunks is complete, the
 * gradient of the first ones, whose chosen columns would then be wanted, cannot be had any more.
 */
#include "engine/method/grass_parts.h"

static struct grass_group *head_group(struct method *method, const struct linear *linear)
{
    struct grass *grass = method->state;
    return &grass->group[grass->first_group[linear->index]];
}

static bool chooses(const struct method *method, const struct grass_group *group)
{
    return group->part[0]->refreshing && method->micro == 0;
}

void grass_head(struct method *method, struct pass *pass, const struct linear *linear, bool begin)
{
    struct grass *grass = method->state;
    struct grass_group *group = head_group(method, linear);
    bool choose = chooses(method, group);
    bool move = grass_moves_unselected(method);
    if (begin) {
        if (method->micro == 0) {
            op_zero(pass->be, &group->gradient);
        }
        if (choose || move) {
            grass->head_dw = memory_matrix(pass->memory, MEMORY_WORKSPACE, "head dW",
                                           method->model->dtype, linear->weight.dim);
            op_zero(pass->be, &grass->head_dw);
        }
        return;
    }
    if (choose || move) {
        exchange_now(method->exchange, &grass->head_dw);
    }
    if (choose) {
        grass_refresh_formed(method, pass, group->part[0], &grass->head_dw);
    }
    if (move) {
        grass_guard_unselected(method);
        grass_move_formed(method, pass, group->part[0], &grass->head_dw);
    }
}

/* The room of a step that moves rows and chooses none, which takes most: a step that chooses has it
 * too, since among those that a plan goes through there may be no such step. */
static void reserve(struct method *method, struct pass *pass, const struct grass_group *group)
{
    if (method->settings.unselected_every > 0) {
        struct memory_position mark = memory_mark(pass->memory, MEMORY_WORKSPACE);
        pass_scratch(pass, "selected columns", method->model->dtype, tensor_count(&group->index));
        memory_release(pass->memory, MEMORY_WORKSPACE, mark);
    }
}

void grass_head_chunk(struct method *method, struct pass *pass, const struct linear *linear,
                      const struct tensor *dy, const struct tensor *x)
{
    struct grass *grass = method->state;
    struct grass_group *group = head_group(method, linear);
    bool choose = chooses(method, group);
    if (choose || grass_moves_unselected(method)) {
        op_matmul(pass->be,
                  &(struct matmul){
                      .c = &grass->head_dw, .a = dy, .b = x, .transpose_a = true, .beta = 1.0f });
    }
    if (choose) {
        reserve(method, pass, group);
    } else {
        grass_accumulate(method, pass, group, dy, x);
    }
}
