/* Samples of the inputs of linear layers. See sample.h. */
#include "engine/activation/sample.h"

#include <math.h>
#include <string.h>

#include "kernels/ops.h"

int64_t sampler_count(double keep, int64_t count)
{
    int64_t kept = (int64_t)floor(keep * (double)count + 1e-9);
    kept = kept < 1 ? 1 : kept;
    return kept < count ? kept : count;
}

/* Micro-batches have keys of their own: the odd constant sends them to different seeds. */
static struct random_key sample_key(const struct input_sampler *sampler,
                                    const struct linear *linear)
{
    return (struct random_key){ .seed = sampler->seed +
                                        (uint64_t)sampler->micro * UINT64_C(0x9E3779B97F4A7C15),
                                .purpose = RANDOM_INPUTS,
                                .tensor = (uint32_t)linear->index,
                                .step = (uint32_t)sampler->step };
}

static void place_choice(struct pass *pass, enum memory_category category, int64_t count,
                         struct input_sample *out)
{
    out->index = memory_vector(pass->memory, category, "sampled", DTYPE_I32, count);
    out->scale = memory_vector(pass->memory, category, "sample scale", DTYPE_F32, count);
}

/* ---- tokens ------------------------------------------------------------------------------------
 */

/* Half of each token's weight, its root, goes with x and half with dy, so that neither is rounded
 * twice. */
static void take_tokens(const struct input_sampler *sampler, struct pass *pass,
                        const struct linear *linear, const struct tensor *x,
                        enum memory_category category, struct input_sample *out,
                        enum select_rule rule)
{
    int64_t tokens = x->dim[0];
    int64_t kept = sampler_count(sampler->keep, tokens);
    const int64_t dim[2] = { kept, x->dim[1] };
    out->x = memory_matrix(pass->memory, category, "sampled rows", x->dtype, dim);
    place_choice(pass, category, kept, out);
    struct memory_position mark = memory_mark(pass->memory, MEMORY_WORKSPACE);
    struct tensor norms =
        memory_vector(pass->memory, MEMORY_WORKSPACE, "row norms", DTYPE_F32, tokens);
    op_squared_norms(pass->be, &norms, x, SIDE_ROWS);
    op_select(pass->be, &(struct select){ .index = &out->index,
                                          .scale = &out->scale,
                                          .norms = &norms,
                                          .rule = rule,
                                          .replacement = true,
                                          .unbiased = true,
                                          .key = sample_key(sampler, linear) });
    op_gather(pass->be, &out->x, x, &out->index, SIDE_ROWS);
    op_scale_side(pass->be, &out->x, &out->scale, SIDE_ROWS);
    memory_release(pass->memory, MEMORY_WORKSPACE, mark);
}

static void take_crs(const struct input_sampler *sampler, struct pass *pass,
                     const struct linear *linear, const struct tensor *x,
                     enum memory_category category, struct input_sample *out)
{
    take_tokens(sampler, pass, linear, x, category, out, SELECT_NORM);
}

static void take_winners(const struct input_sampler *sampler, struct pass *pass,
                         const struct linear *linear, const struct tensor *x,
                         enum memory_category category, struct input_sample *out)
{
    take_tokens(sampler, pass, linear, x, category, out, SELECT_WINNERS);
}

/* The method sees a micro-batch of k tokens. */
static void token_weight_gradient(const struct input_sampler *sampler, struct pass *pass,
                                  const struct linear *linear, const struct tensor *dy,
                                  const struct input_sample *sample)
{
    (void)sampler;
    struct memory_position mark = memory_mark(pass->memory, MEMORY_WORKSPACE);
    const int64_t dim[2] = { sample->x.dim[0], dy->dim[1] };
    struct tensor rows =
        memory_matrix(pass->memory, MEMORY_WORKSPACE, "sampled gradient", dy->dtype, dim);
    op_gather(pass->be, &rows, dy, &sample->index, SIDE_ROWS);
    op_scale_side(pass->be, &rows, &sample->scale, SIDE_ROWS);
    struct pass smaller = *pass;
    smaller.batch = 1;
    smaller.sequence = dim[0];
    linear_weight_gradient(&smaller, linear, &rows, &sample->x);
    memory_release(pass->memory, MEMORY_WORKSPACE, mark);
}

/* ---- columns -----------------------------------------------------------------------------------
 */

static void take_columns(const struct input_sampler *sampler, struct pass *pass,
                         const struct linear *linear, const struct tensor *x,
                         enum memory_category category, struct input_sample *out)
{
    int64_t columns = x->dim[1];
    int64_t kept = sampler_count(sampler->keep, columns);
    const int64_t dim[2] = { x->dim[0], kept };
    out->x = memory_matrix(pass->memory, category, "sampled columns", x->dtype, dim);
    place_choice(pass, category, kept, out);
    struct memory_position mark = memory_mark(pass->memory, MEMORY_WORKSPACE);
    struct tensor norms =
        memory_vector(pass->memory, MEMORY_WORKSPACE, "no norms", DTYPE_F32, columns);
    op_zero(pass->be, &norms);
    op_select(pass->be, &(struct select){ .index = &out->index,
                                          .scale = &out->scale,
                                          .norms = &norms,
                                          .rule = SELECT_UNIFORM,
                                          .key = sample_key(sampler, linear) });
    op_gather(pass->be, &out->x, x, &out->index, SIDE_COLUMNS);
    memory_release(pass->memory, MEMORY_WORKSPACE, mark);
}

/* The method sees x with N / k times the kept columns, and zeros for the others. */
static void column_weight_gradient(const struct input_sampler *sampler, struct pass *pass,
                                   const struct linear *linear, const struct tensor *dy,
                                   const struct input_sample *sample)
{
    (void)sampler;
    int64_t columns = linear->weight.dim[1];
    struct memory_position mark = memory_mark(pass->memory, MEMORY_WORKSPACE);
    struct tensor x = pass_scratch(pass, "estimated input", dy->dtype, columns);
    op_zero(pass->be, &x);
    op_scatter(pass->be, &x, &sample->x, &sample->index, SIDE_COLUMNS);
    op_scale(pass->be, &x, (float)((double)columns / (double)sample->x.dim[1]));
    linear_weight_gradient(pass, linear, dy, &x);
    memory_release(pass->memory, MEMORY_WORKSPACE, mark);
}

/* ---- the table ---------------------------------------------------------------------------------
 */

static const struct sampler_ops samplers[] = {
    { .name = "wta-crs", .take = take_winners, .weight_gradient = token_weight_gradient },
    { .name = "crs", .take = take_crs, .weight_gradient = token_weight_gradient },
    { .name = "rad", .take = take_columns, .weight_gradient = column_weight_gradient },
};
enum { SAMPLERS = sizeof samplers / sizeof samplers[0] };

const struct sampler_ops *sampler_find(const char *name)
{
    for (size_t i = 0; i < SAMPLERS; i++) {
        if (strcmp(samplers[i].name, name) == 0) {
            return &samplers[i];
        }
    }
    return NULL;
}

const char *sampler_name(size_t index)
{
    if (index == 0) {
        return "none";
    }
    return index <= SAMPLERS ? samplers[index - 1].name : NULL;
}
