/*
 * Grass that selects columns: between forward and backward only the selected columns of a layer's
 * input are kept, since dy^T x[:, sigma] wants no others. Seen from a block it is a sampler of
 * inputs (model/pass.h) whose sample is exact.
 *
 * Each matrix of a packed layer has columns of its own, so a layer keeps the sum of their ranks for
 * every token; where that is no fewer than all columns, the input is kept whole. A micro-batch that
 * chooses columns, or that moves those which are not selected, wants the whole input: it keeps
 * nothing of it, and the backward makes it again from what the block keeps anyway, as under
 * activation.recompute=norms. A refresh takes no more memory for it than any other step.
 *
 * Elements a token that a layer of C hidden and F feed-forward keeps at rank r: 6C + 2F + 5r +
 * rF/C, against 8C + 3F whole, and 6C + 2F under recompute=norms, which is smaller still, but makes
 * norms and SwiGLU again in every step.
 */
#include "engine/method/grass_parts.h"

/* The range of groups of a layer. */
static void groups_of(const struct grass *grass, const struct linear *linear, int64_t *first,
                      int64_t *last)
{
    *first = grass->first_group[linear->index];
    *last = grass->first_group[linear->index + 1];
}

static int64_t columns_of(const struct grass *grass, const struct linear *linear)
{
    int64_t first;
    int64_t last;
    int64_t columns = 0;
    groups_of(grass, linear, &first, &last);
    for (int64_t g = first; g < last; g++) {
        columns += tensor_count(&grass->group[g].index);
    }
    return columns;
}

static bool inputs_apply(const struct input_sampler *sampler, const struct linear *linear)
{
    const struct method *method = sampler->context;
    return columns_of(method->state, linear) < linear->weight.dim[1];
}

static bool inputs_whole(const struct input_sampler *sampler, const struct linear *linear)
{
    const struct method *method = sampler->context;
    const struct grass *grass = method->state;
    const struct grass_group *group = &grass->group[grass->first_group[linear->index]];
    return (grass_group_refreshing(group) && method->micro == 0) || grass_moves_unselected(method);
}

/* The columns of group `g`, (T, its rank), that begin at `column` of what is kept. */
static struct tensor kept_of(const struct input_sample *sample, int64_t column, int64_t count)
{
    struct tensor range = tensor_row_range(&sample->x, column, count);
    return tensor_as_matrix(&range, sample->x.dim[1], count);
}

static void inputs_take(const struct input_sampler *sampler, struct pass *pass,
                        const struct linear *linear, const struct tensor *x,
                        enum memory_category category, struct input_sample *out)
{
    const struct method *method = sampler->context;
    const struct grass *grass = method->state;
    const int64_t dim[2] = { columns_of(grass, linear), x->dim[0] };
    out->x = memory_matrix(pass->memory, category, "selected inputs", x->dtype, dim);
    int64_t first;
    int64_t last;
    int64_t column = 0;
    groups_of(grass, linear, &first, &last);
    for (int64_t g = first; g < last && !inputs_whole(sampler, linear); g++) {
        const struct tensor *index = grass_index_in_use(&grass->group[g]);
        int64_t count = tensor_count(index);
        struct tensor kept = kept_of(out, column, count);
        op_gather(pass->be, &kept, x, index, SIDE_COLUMNS);
        column += count;
    }
}

static void inputs_weight_gradient(const struct input_sampler *sampler, struct pass *pass,
                                   const struct linear *linear, const struct tensor *dy,
                                   const struct input_sample *sample)
{
    struct method *method = sampler->context;
    struct grass *grass = method->state;
    int64_t first;
    int64_t last;
    int64_t column = 0;
    groups_of(grass, linear, &first, &last);
    for (int64_t g = first; g < last; g++) {
        int64_t count = tensor_count(&grass->group[g].index);
        struct tensor kept = kept_of(sample, column, count);
        grass_accumulate_columns(method, pass, &grass->group[g], dy, &kept);
        column += count;
    }
}

const struct sampler_ops grass_inputs = { .name = "selected columns",
                                          .replayable = true,
                                          .applies = inputs_apply,
                                          .whole = inputs_whole,
                                          .take = inputs_take,
                                          .weight_gradient = inputs_weight_gradient };
