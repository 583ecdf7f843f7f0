/* Grass, the refresh: choosing rows, and taking the choice into use. See grass.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/xalloc.h"
#include "engine/method/grass_parts.h"

int64_t grass_used(const int32_t *index, int64_t count)
{
    int64_t used = 0;
    while (used < count && index[used] >= 0) {
        used++;
    }
    return used;
}

void grass_upload_index(struct method *method, struct grass_part *part, const int32_t *local,
                        struct tensor *index)
{
    int32_t *absolute = part->scratch;
    for (int64_t j = 0; j < part->count; j++) {
        absolute[j] = local[j] < 0 ? -1 : local[j] + (int32_t)part->offset;
    }
    backend_upload(method->be, index->data, absolute, (size_t)part->count * sizeof *absolute);
}

struct tensor grass_form_gradient(struct method *method, struct pass *pass,
                                  const struct grass_part *part, const struct tensor *dy,
                                  const struct tensor *x)
{
    const int64_t dim[2] = { part->part->rows, tensor_columns(x) };
    struct tensor dw =
        memory_matrix(pass->memory, MEMORY_WORKSPACE, "refresh dW", method->model->dtype, dim);
    op_matmul(pass->be, &(struct matmul){ .c = &dw,
                                          .a = dy,
                                          .b = x,
                                          .transpose_a = true,
                                          .a_first = part->part->first,
                                          .a_columns = part->part->rows });
    return dw;
}

/* Norms of rows from dW S, those of columns from S^T dW: S holds random signs over sqrt(s), so that
 * the expected squared norm is the true one; its relative error is about sqrt(2 / s). Summed by
 * associativity, neither forms dW: dy^T (x S), (dy S)^T x. */
static void sketch_norms(struct method *method, struct pass *pass, const struct grass_part *part,
                         const struct tensor *dy, const struct tensor *x, struct tensor *norms)
{
    struct memory_position mark = memory_mark(pass->memory, MEMORY_WORKSPACE);
    bool rows = part->side == SIDE_ROWS;
    int64_t s = method->settings.sketch;
    enum dtype dtype = x->dtype;
    const int64_t sign_dim[2] = { rows ? tensor_columns(x) : part->part->rows, s };
    const int64_t sketch_dim[2] = { rows ? part->part->rows : s, rows ? s : tensor_columns(x) };
    struct tensor signs =
        memory_matrix(pass->memory, MEMORY_WORKSPACE, "sketch signs", dtype, sign_dim);
    struct tensor thin = pass_scratch(pass, "sketched tokens", dtype, s);
    struct tensor sketch =
        memory_matrix(pass->memory, MEMORY_WORKSPACE, "gradient sketch", DTYPE_F32, sketch_dim);
    op_random_sign(pass->be, &signs, (float)(1.0 / sqrt((double)s)),
                   (struct random_key){ .seed = method->settings.seed,
                                        .purpose = RANDOM_SKETCH,
                                        .tensor = part->part->parameter->id,
                                        .step = (uint32_t)method->step });
    const int64_t first = part->part->first;
    const int64_t count = part->part->rows;
    if (rows) {
        op_matmul(pass->be, &(struct matmul){ .c = &thin, .a = x, .b = &signs });
        op_matmul(pass->be, &(struct matmul){ .c = &sketch,
                                              .a = dy,
                                              .b = &thin,
                                              .transpose_a = true,
                                              .a_first = first,
                                              .a_columns = count });
    } else {
        op_matmul(pass->be,
                  &(struct matmul){
                      .c = &thin, .a = dy, .b = &signs, .a_first = first, .a_columns = count });
        op_matmul(pass->be,
                  &(struct matmul){ .c = &sketch, .a = &thin, .b = x, .transpose_a = true });
    }
    comm_all_reduce(method->comm, pass->be, &sketch);
    op_squared_norms(pass->be, norms, &sketch, part->side);
    memory_release(pass->memory, MEMORY_WORKSPACE, mark);
}

int32_t *grass_old_age(struct grass_part *part)
{
    return part->scratch + 2 * part->count;
}

/* Chooses by `norms`, and takes the chosen rows or columns out of dw (NULL: not). The index of a
 * matrix in a packed layer counts from the first row of the layer, that of dw from its own: the
 * same choice is then made twice, which is cheaper than asking the host to add a number. What the
 * host wants to know is on its way. */
static void choose(struct method *method, struct backend *be, struct grass_part *part,
                   const struct tensor *dw, const struct tensor *norms)
{
    struct select args = { .index = &part->next_index,
                           .scale = &part->next_rho,
                           .norms = norms,
                           .rule = method->settings.selection,
                           .replacement = method->settings.replacement,
                           .unbiased = method->settings.unbiased,
                           .key = { .seed = method->settings.seed,
                                    .purpose = RANDOM_SELECT,
                                    .tensor = part->part->parameter->id,
                                    .step = (uint32_t)method->step } };
    if (dw != NULL) {
        op_select(be, &args);
        op_gather(be, &part->gradient, dw, &part->next_index, part->side);
        if (method->comm->rank > 0) {
            op_zero(be, &part->gradient); /* dw is that of all ranks: one keeps it */
        }
    }
    if (dw == NULL || part->offset != 0) {
        args.offset = part->offset;
        op_select(be, &args);
    }
    if (!be->facts.imaginary) { /* a plan reads no norms */
        backend_fetch(be, part->norms, norms->data, tensor_bytes(norms));
    }
    backend_fetch(be, part->next, part->next_index.data, tensor_bytes(&part->next_index));
    if (part->waiting == NULL) {
        backend_fetch(be, grass_old_age(part), part->age.data, tensor_bytes(&part->age));
    }
}

static void announce(struct method *method, bool begin)
{
    if (method->on_refresh != NULL) {
        method->on_refresh(method->context, begin);
    }
}

static struct tensor place_norms(struct pass *pass, const struct grass_part *part)
{
    return memory_vector(pass->memory, MEMORY_WORKSPACE, "refresh norms", DTYPE_F32,
                         part->candidates);
}

/* Leaves the compressed gradient too. */
static void choose_from_gradient(struct method *method, struct pass *pass, struct grass_part *part,
                                 const struct tensor *dw)
{
    struct tensor norms = place_norms(pass, part);
    op_squared_norms(pass->be, &norms, dw, part->side);
    choose(method, pass->be, part, dw, &norms);
}

void grass_refresh_part(struct method *method, struct pass *pass, struct grass_part *part,
                        const struct tensor *dy, const struct tensor *x)
{
    struct memory_position mark = memory_mark(pass->memory, MEMORY_WORKSPACE);
    announce(method, true);
    if (method->settings.sketch > 0) {
        struct tensor norms = place_norms(pass, part);
        sketch_norms(method, pass, part, dy, x, &norms);
        choose(method, pass->be, part, NULL, &norms);
    } else {
        struct tensor dw = grass_form_gradient(method, pass, part, dy, x);
        exchange_now(method->exchange, &dw);
        choose_from_gradient(method, pass, part, &dw);
    }
    memory_release(pass->memory, MEMORY_WORKSPACE, mark);
    announce(method, false);
}

void grass_refresh_formed(struct method *method, struct pass *pass, struct grass_part *part,
                          const struct tensor *dw)
{
    struct memory_position mark = memory_mark(pass->memory, MEMORY_WORKSPACE);
    announce(method, true);
    choose_from_gradient(method, pass, part, dw);
    memory_release(pass->memory, MEMORY_WORKSPACE, mark);
    announce(method, false);
}

void grass_match_slots(const int32_t *next, int64_t next_used, const int32_t *old, int64_t old_used,
                       int32_t *map)
{
    int64_t i = 0;
    for (int64_t j = 0; j < next_used; j++) {
        while (i < old_used && old[i] < next[j]) {
            i++;
        }
        map[j] = i < old_used && old[i] == next[j] ? (int32_t)i : -1;
    }
}

void grass_carry_on_device(struct method *method, struct grass_part *part, struct tensor *state,
                           const int32_t *map)
{
    struct backend *be = method->be;
    struct memory_position mark = memory_mark(method->memory, MEMORY_WORKSPACE);
    struct tensor device_map =
        memory_vector(method->memory, MEMORY_WORKSPACE, "carry map", DTYPE_I32, part->count);
    backend_upload(be, device_map.data, map, (size_t)part->count * sizeof *map);
    struct tensor sorted =
        memory_matrix(method->memory, MEMORY_WORKSPACE, "carried states", state->dtype, state->dim);
    op_gather(be, &sorted, state, &device_map, part->side);
    op_copy(be, state, &sorted);
    memory_release(method->memory, MEMORY_WORKSPACE, mark);
}

void grass_carry_room(struct method *method, const struct grass_part *part,
                      const struct tensor *state)
{
    struct memory_position mark = memory_mark(method->memory, MEMORY_WORKSPACE);
    memory_vector(method->memory, MEMORY_WORKSPACE, "carry map", DTYPE_I32, part->count);
    memory_matrix(method->memory, MEMORY_WORKSPACE, "carried states", state->dtype, state->dim);
    memory_release(method->memory, MEMORY_WORKSPACE, mark);
}

void grass_carry_from_host(struct method *method, struct grass_part *part, struct tensor *state,
                           const void *old, const int32_t *map)
{
    grass_carry_room(method, part, state);
    size_t width = dtype_size(state->dtype);
    size_t rows = (size_t)state->dim[0];
    size_t columns = (size_t)state->dim[1];
    size_t old_columns = part->side == SIDE_ROWS ? columns : (size_t)part->waiting->count;
    char *sorted = xcalloc(rows * columns, width);
    const char *from = old;
    for (size_t i = 0; i < rows && part->side == SIDE_ROWS; i++) {
        if (map[i] >= 0) {
            memcpy(sorted + i * columns * width, from + (size_t)map[i] * columns * width,
                   columns * width);
        }
    }
    for (size_t i = 0; i < rows && part->side == SIDE_COLUMNS; i++) {
        for (size_t j = 0; j < columns; j++) {
            if (map[j] >= 0) {
                memcpy(sorted + (i * columns + j) * width,
                       from + (i * old_columns + (size_t)map[j]) * width, width);
            }
        }
    }
    backend_upload(method->be, state->data, sorted, rows * columns * width);
    free(sorted);
}

static void restart(struct method *method, struct grass_part *part)
{
    for (int s = 0; s < part->slot_count; s++) {
        op_zero(method->be, &part->slot[s]);
    }
    op_zero(method->be, &part->age);
}

static void carry(struct method *method, struct grass_part *part, int64_t used)
{
    size_t bytes = (size_t)part->count * sizeof(int32_t);
    int32_t *map = part->scratch;
    int32_t *age = part->scratch + part->count;
    struct grass_waiting *waiting = part->waiting;
    const int32_t *old = waiting != NULL ? waiting->index : part->chosen;
    const int32_t *ages = waiting != NULL ? waiting->age : grass_old_age(part);
    int64_t old_used = grass_used(old, waiting != NULL ? waiting->count : part->count);
    memset(map, 0xff, bytes); /* -1: a new row, or an unused slot */
    grass_match_slots(part->next, used, old, old_used, map);
    for (int64_t j = 0; j < part->count; j++) {
        age[j] = map[j] >= 0 ? ages[map[j]] : 0;
    }
    for (int s = 0; s < part->slot_count; s++) {
        if (waiting != NULL) {
            grass_carry_from_host(method, part, &part->slot[s], waiting->slot[s], map);
        } else {
            grass_carry_on_device(method, part, &part->slot[s], map);
        }
    }
    backend_upload(method->be, part->age.data, age, bytes);
}

void grass_commit_part(struct method *method, struct grass_part *part)
{
    for (int64_t j = 0; j < part->count; j++) {
        part->next[j] -= part->next[j] >= 0 ? (int32_t)part->offset : 0;
    }
    int64_t used = grass_used(part->next, part->count);
    const struct grass_waiting *waiting = part->waiting;
    const int32_t *before = waiting != NULL ? waiting->index : part->chosen;
    int64_t before_count = grass_used(before, waiting != NULL ? waiting->count : part->count);
    if (!method->be->facts.imaginary) { /* a plan chooses nothing */
        selection_measure(&(struct selection_input){ .squared_norms = part->norms,
                                                     .candidates = part->candidates,
                                                     .chosen = part->next,
                                                     .chosen_count = used,
                                                     .before = before,
                                                     .before_count = before_count,
                                                     .seen = part->seen,
                                                     .sorted = part->sorted },
                          &part->report);
    }
    grass_residue_commit(method, part);
    if (method->settings.carry) {
        carry(method, part, used);
    } else {
        restart(method, part);
    }
    memcpy(part->chosen, part->next, (size_t)part->count * sizeof *part->chosen);
    grass_upload_index(method, part, part->chosen, &part->index);
    op_copy(method->be, &part->rho, &part->next_rho);
    grass_waiting_free(part->waiting);
    part->waiting = NULL;
    part->refreshed = (int32_t)method->step;
}
