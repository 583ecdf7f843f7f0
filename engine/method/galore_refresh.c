/* GaLore, the refresh: finding a basis, measuring it, taking it into use. See galore.h. */
#include <math.h>

#include "engine/method/galore_parts.h"

/* One matrix, its micro-batch and the memory that the search goes through. */
struct search {
    struct backend *be;
    struct comm *comm;
    struct memory *memory;
    const struct galore_operands *operands;
    struct random_key key;
    int64_t rank;
    struct tensor thin;    /* (T, r), of the operands' dtype */
    struct tensor factor;  /* room for either basis in that dtype; unused in fp32 */
    struct tensor scratch; /* of op_orthonormalize */
};

/* to (of one side) = orth(dW^T from) or orth(dW from): from the other side's basis, in fp32. */
static void power_half(struct search *s, struct tensor *to, const struct galore_operand *to_side,
                       const struct tensor *from, const struct galore_operand *from_side)
{
    struct tensor basis = *from;
    if (s->thin.dtype != DTYPE_F32) {
        basis = tensor_row_range(&s->factor, 0, tensor_rows(from));
        op_copy(s->be, &basis, from);
    }
    galore_thin(s->be, &s->thin, from_side, &basis);
    galore_wide(s->be, to, to_side, &s->thin, 0.0f);
    comm_all_reduce(s->comm, s->be, to);
    op_orthonormalize(s->be,
                      &(struct orthonormalize){ .y = to, .scratch = &s->scratch, .key = s->key });
}

/* Power iteration: from the basis in use, or from random numbers. */
static void find_subspace(struct search *s, const struct galore_part *part, struct tensor *found)
{
    enum { COLD_ROUNDS = 2, WARM_ROUNDS = 1 };
    const struct galore_operand *small = &s->operands->small;
    const struct galore_operand *large = &s->operands->large;
    int64_t tokens = tensor_rows(small->tensor);
    enum dtype dtype = small->tensor->dtype;
    bool cold = part->refreshed == GALORE_NEVER;
    s->thin = galore_scratch(s->memory, "projected side", dtype, tokens, s->rank);
    s->scratch = galore_scratch(s->memory, "triangle of a basis", DTYPE_F32, s->rank + 2, s->rank);
    struct tensor other =
        galore_scratch(s->memory, "basis of the other side", DTYPE_F32, part->large, s->rank);
    if (dtype != DTYPE_F32) {
        s->factor = galore_scratch(s->memory, "basis as a factor", dtype, part->large, s->rank);
    }
    if (cold) {
        struct random_key key = s->key;
        key.purpose = RANDOM_BASIS;
        op_random_normal(s->be, &other, 1.0f, key);
        power_half(s, found, small, &other, large);
    } else {
        op_copy(s->be, found, &part->basis);
    }
    for (int i = 0; i < (cold ? COLD_ROUNDS : WARM_ROUNDS); i++) {
        power_half(s, &other, large, found, small);
        power_half(s, found, small, &other, large);
    }
}

/* Exact singular vectors: forms dW and its product with itself. */
static void find_singular_vectors(struct search *s, const struct galore_part *part,
                                  const struct tensor *dy, const struct tensor *x,
                                  struct tensor *found)
{
    int64_t rows = part->part->rows;
    struct tensor dw = galore_scratch(s->memory, "refresh dW", DTYPE_F32, rows, tensor_columns(x));
    struct tensor squared =
        galore_scratch(s->memory, "dW times dW", DTYPE_F32, part->small, part->small);
    op_matmul(s->be, &(struct matmul){ .c = &dw,
                                       .a = dy,
                                       .b = x,
                                       .transpose_a = true,
                                       .a_first = part->part->first,
                                       .a_columns = rows });
    comm_all_reduce(s->comm, s->be, &dw);
    op_matmul(s->be, &(struct matmul){ .c = &squared,
                                       .a = &dw,
                                       .b = &dw,
                                       .transpose_a = part->right,
                                       .transpose_b = !part->right });
    op_eigenvectors(s->be, found, &squared);
}

static struct random_key key_of(const struct method *method, const struct galore_part *part)
{
    return (struct random_key){ .seed = method->settings.seed,
                                .tensor = part->part->parameter->id,
                                .step = (uint32_t)method->step };
}

void galore_refresh_part(struct method *method, struct pass *pass, struct galore_part *part,
                         const struct tensor *dy, const struct tensor *x)
{
    if (method->on_refresh != NULL) {
        method->on_refresh(method->context, true);
    }
    struct memory_position mark = memory_mark(pass->memory, MEMORY_WORKSPACE);
    struct galore_operands operands = galore_operands_of(part, dy, x);
    struct search search = { .be = pass->be,
                             .comm = method->comm,
                             .memory = pass->memory,
                             .operands = &operands,
                             .key = key_of(method, part),
                             .rank = part->rank };
    struct tensor found =
        galore_scratch(pass->memory, "new basis", DTYPE_F32, part->small, part->rank);
    if (part->before != NULL) {
        backend_download(pass->be, part->before, part->basis.data, tensor_bytes(&part->basis));
    }
    if (method->settings.projection == PROJECTION_SVD) {
        find_singular_vectors(&search, part, dy, x, &found);
    } else {
        find_subspace(&search, part, &found);
    }
    op_copy(pass->be, &part->basis, &found);
    memory_release(pass->memory, MEMORY_WORKSPACE, mark);
    if (method->on_refresh != NULL) {
        method->on_refresh(method->context, false);
    }
}

void galore_measure_part(struct method *method, struct pass *pass, struct galore_part *part,
                         const struct tensor *dy, const struct tensor *x)
{
    struct backend *be = pass->be;
    struct galore_operands operands = galore_operands_of(part, dy, x);
    enum dtype dtype = part->basis.dtype;
    int64_t tokens = tensor_rows(x);
    struct memory_position mark = memory_mark(pass->memory, MEMORY_WORKSPACE);
    struct tensor probe = galore_scratch(pass->memory, "probes", dtype, part->small, GALORE_PROBES);
    struct tensor inner =
        galore_scratch(pass->memory, "probes in the basis", dtype, part->rank, GALORE_PROBES);
    struct tensor thin = galore_scratch(pass->memory, "probed side", dtype, tokens, GALORE_PROBES);
    struct tensor seen =
        galore_scratch(pass->memory, "probed gradient", DTYPE_F32, part->large, GALORE_PROBES);
    struct tensor sums = galore_scratch(pass->memory, "energies", DTYPE_F32, 2, 1);
    struct tensor inside = tensor_row_range(&sums, 0, 1);
    struct tensor outside = tensor_row_range(&sums, 1, 1);
    struct random_key key = key_of(method, part);
    key.purpose = RANDOM_PROBE;
    op_random_normal(be, &probe, 1.0f, key);
    /* w - Q (Q^T w) */
    op_matmul(be,
              &(struct matmul){ .c = &inner, .a = &part->basis, .b = &probe, .transpose_a = true });
    op_scale(be, &inner, -1.0f);
    op_matmul(be, &(struct matmul){ .c = &probe, .a = &part->basis, .b = &inner, .beta = 1.0f });
    galore_thin(be, &thin, &operands.small, &probe);
    galore_wide(be, &seen, &operands.large, &thin, 0.0f);
    op_sum_squares(be, &inside, &part->gradient, false);
    op_sum_squares(be, &outside, &seen, false);
    float energy[2] = { 0 };
    backend_download(be, energy, sums.data, sizeof energy);
    memory_release(pass->memory, MEMORY_WORKSPACE, mark);
    double total = (double)energy[0] + (double)energy[1] / GALORE_PROBES;
    part->energy = total > 0.0 ? (double)energy[0] / total : (double)NAN;
}

/* moment = moment turn^T, in fp32 whatever the moment is stored in; `absmax` goes with eight bits.
 */
static void turn_moment(struct method *method, struct tensor *moment, struct tensor *absmax,
                        enum quantize_map map, const struct tensor *turn)
{
    struct backend *be = method->be;
    struct memory_position mark = memory_mark(method->memory, MEMORY_WORKSPACE);
    int64_t rows = tensor_rows(moment);
    int64_t columns = tensor_columns(moment);
    struct tensor turned =
        galore_scratch(method->memory, "turned moment", DTYPE_F32, rows, columns);
    struct tensor from = *moment;
    if (moment->dtype != DTYPE_F32) {
        from = galore_scratch(method->memory, "moment in fp32", DTYPE_F32, rows, columns);
    }
    if (moment->dtype == DTYPE_U8) {
        op_dequantize(
            be,
            &(struct dequantize){
                .x = &from, .codes = moment, .absmax = absmax, .map = map, .side = SIDE_COLUMNS });
    } else if (moment->dtype != DTYPE_F32) {
        op_copy(be, &from, moment);
    }
    op_matmul(be, &(struct matmul){ .c = &turned, .a = &from, .b = turn, .transpose_b = true });
    if (moment->dtype == DTYPE_U8) {
        op_quantize(be, &(struct quantize){ .codes = moment,
                                            .absmax = absmax,
                                            .x = &turned,
                                            .map = map,
                                            .side = SIDE_COLUMNS });
    } else {
        op_copy(be, moment, &turned);
    }
    memory_release(method->memory, MEMORY_WORKSPACE, mark);
}

static void take_moments(struct method *method, struct galore_part *part, struct tensor *turn)
{
    const struct rule_ops *rule = method->rule;
    struct rule_state *state = &part->state;
    if (method->settings.moments == MOMENTS_RESET) {
        for (int s = 0; s < state->slot_count; s++) {
            op_zero(method->be, &state->slot[s]);
        }
        op_zero(method->be, &state->age);
    }
    if (method->settings.moments == MOMENTS_ROTATE) {
        int absmax = rule->slot_count; /* the first of them, in the order of the slots */
        for (int s = 0; s < rule->slot_count; s++) {
            bool square = rule->slot[s] == RULE_SLOT_SQUARE;
            bool bytes = state->slot[s].dtype == DTYPE_U8;
            if (square) {
                op_square(method->be, turn);
            }
            turn_moment(method, &state->slot[s], bytes ? &state->slot[absmax++] : NULL,
                        square ? QUANTIZE_ROOT : QUANTIZE_SIGNED, turn);
        }
    }
}

void galore_commit_part(struct method *method, struct galore_part *part)
{
    struct backend *be = method->be;
    struct memory_position mark = memory_mark(method->memory, MEMORY_WORKSPACE);
    struct tensor before =
        galore_scratch(method->memory, "old basis", part->basis.dtype, part->small, part->rank);
    struct tensor turn =
        galore_scratch(method->memory, "turn of the basis", DTYPE_F32, part->rank, part->rank);
    struct tensor sum = galore_scratch(method->memory, "overlap", DTYPE_F32, 1, 1);
    float squares = 0.0f;
    backend_upload(be, before.data, part->before, tensor_bytes(&before));
    op_matmul(be,
              &(struct matmul){ .c = &turn, .a = &part->basis, .b = &before, .transpose_a = true });
    op_sum_squares(be, &sum, &turn, false);
    backend_download(be, &squares, sum.data, sizeof squares);
    /* Before the first refresh the old basis and the moments are zero, and stay so. */
    take_moments(method, part, &turn);
    memory_release(method->memory, MEMORY_WORKSPACE, mark);
    bool first = part->refreshed == GALORE_NEVER;
    double overlap = (double)squares / (double)part->rank;
    part->report.overlap = first ? (double)NAN : overlap > 1.0 ? 1.0 : overlap;
    part->report.captured_energy = part->energy;
    part->refreshed = (int32_t)method->step;
}

void galore_revert_part(struct method *method, struct galore_part *part)
{
    if (part->before != NULL) {
        backend_upload(method->be, part->basis.data, part->before, tensor_bytes(&part->basis));
    }
}
