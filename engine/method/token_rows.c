/* The embedding's rows that occur. See token_rows.h. */
#include "engine/method/token_rows.h"

#include <stdlib.h>
#include <string.h>

#include "engine/base/xalloc.h"

/* Slots whose states pass through the workspace together: a few MiB for the widest models. */
enum { SLOTS_AT_A_TIME = 512 };

static struct tensor range_of(const struct tensor *vector, int64_t first, int64_t count)
{
    struct tensor column = tensor_as_matrix(vector, tensor_count(vector), 1);
    struct tensor range = tensor_row_range(&column, first, count);
    range.rank = 1;
    return range;
}

void token_rows_place(struct token_rows *rows, struct memory *memory, int64_t words,
                      int64_t step_tokens)
{
    int64_t count = step_tokens < words ? step_tokens : words;
    rows->ids = memory_vector(memory, MEMORY_GRADIENTS, "ids of a step", DTYPE_I32, step_tokens);
    rows->slots =
        memory_vector(memory, MEMORY_GRADIENTS, "embedding slots", DTYPE_I32, step_tokens);
    rows->index = memory_vector(memory, MEMORY_GRADIENTS, "embedding index", DTYPE_I32, count);
}

void token_rows_settle(struct token_rows *rows, struct backend *be, struct memory *memory,
                       int64_t words, int64_t tokens)
{
    struct memory_position mark = memory_mark(memory, MEMORY_WORKSPACE);
    struct tensor room =
        memory_vector(memory, MEMORY_WORKSPACE, "slots of words", DTYPE_I32, words);
    struct tensor ids = range_of(&rows->ids, 0, tokens);
    struct tensor slots = range_of(&rows->slots, 0, tokens);
    op_distinct(be, &(struct distinct){
                        .index = &rows->index, .slots = &slots, .room = &room, .ids = &ids });
    memory_release(memory, MEMORY_WORKSPACE, mark);
}

/* An int32 for each row as what op_gather and op_scatter move: they move bits of one width. */
static struct tensor as_column(const struct tensor *age)
{
    struct tensor column = tensor_as_matrix(age, tensor_count(age), 1);
    column.dtype = DTYPE_F32;
    return column;
}

/* Room for the states of a lot of slots, in the workspace: as large for a lot that is not full,
 * since how many slots are this rank's depends on the data. */
static struct rule_state place_lot(const struct token_rows_update *u,
                                   const struct rule_state *state, int64_t lot)
{
    struct rule_state room = *state;
    for (int s = 0; s < state->slot_count; s++) {
        const int64_t dim[2] = { lot, tensor_columns(&state->slot[s]) };
        room.slot[s] = memory_matrix(u->memory, MEMORY_WORKSPACE, "states that occur",
                                     state->slot[s].dtype, dim);
    }
    room.age = memory_vector(u->memory, MEMORY_WORKSPACE, "ages that occur", DTYPE_I32, lot);
    return room;
}

/* The states of the rows in `index`. */
static struct rule_state take_states(const struct token_rows_update *u,
                                     const struct rule_state *state, const struct tensor *index,
                                     const struct rule_state *room)
{
    struct rule_state part = *room;
    int64_t count = tensor_count(index);
    for (int s = 0; s < state->slot_count; s++) {
        part.slot[s] = tensor_row_range(&room->slot[s], 0, count);
        op_gather(u->be, &part.slot[s], &state->slot[s], index, SIDE_ROWS);
    }
    part.age = range_of(&room->age, 0, count);
    struct tensor age = as_column(&part.age);
    struct tensor ages = as_column(&state->age);
    op_gather(u->be, &age, &ages, index, SIDE_ROWS);
    return part;
}

static void put_states_back(const struct token_rows_update *u, struct rule_state *state,
                            const struct rule_state *part, const struct tensor *index)
{
    for (int s = 0; s < state->slot_count; s++) {
        op_scatter(u->be, &state->slot[s], &part->slot[s], index, SIDE_ROWS);
    }
    struct tensor age = as_column(&part->age);
    struct tensor ages = as_column(&state->age);
    op_scatter(u->be, &ages, &age, index, SIDE_ROWS);
}

/* Moments are rounded by their place among those that pass together: each lot of each rank draws
 * from a seed of its own, the first of rank 0 from that of a dense update. */
static uint64_t seed_of(const struct token_rows *rows, uint64_t seed, int64_t lot)
{
    uint64_t rank = rows->comm != NULL ? (uint64_t)rows->comm->rank : 0;
    return seed + (uint64_t)lot * UINT64_C(0x9E3779B97F4A7C15) +
           rank * UINT64_C(0xD1B54A32D192ED03);
}

/* Slots [first, first + count) of this rank. */
static void apply_lot(const struct token_rows_update *u, struct rule_state *state,
                      const struct rule_state *room, struct token_range lot)
{
    const struct token_rows *rows = u->rows;
    int64_t slot = token_rows_own(rows).first + lot.first;
    struct tensor index = range_of(&rows->index, slot, lot.count);
    struct tensor own = rows->comm != NULL ? range_of(&rows->own, lot.first, lot.count) : index;
    struct tensor gradient = tensor_row_range(u->target->gradient, slot, lot.count);
    struct rule_state part = take_states(u, state, &own, room);
    struct rule_settings settings = *u->settings;
    settings.seed = seed_of(rows, settings.seed, lot.first / SLOTS_AT_A_TIME);
    struct rule_target target = *u->target;
    target.gradient = &gradient;
    target.index = &index;
    target.side = SIDE_ROWS;
    u->rule->step(u->be, &settings, &target, &part);
    put_states_back(u, state, &part, &own);
}

void token_rows_apply(const struct token_rows_update *u, struct rule_state *state)
{
    const struct tensor *all = u->rows->comm != NULL ? &u->rows->own : &u->rows->index;
    int64_t most = tensor_count(all);
    int64_t lot = most < SLOTS_AT_A_TIME ? most : SLOTS_AT_A_TIME;
    int64_t count = token_rows_own(u->rows).count;
    struct memory_position mark = memory_mark(u->memory, MEMORY_WORKSPACE);
    struct rule_state room = place_lot(u, state, lot);
    for (int64_t first = 0; first < count; first += lot) {
        int64_t n = count - first < lot ? count - first : lot;
        apply_lot(u, state, &room, (struct token_range){ first, n });
    }
    memory_release(u->memory, MEMORY_WORKSPACE, mark);
}

/* ---- split over ranks ----------------------------------------------------------------------- */

void token_rows_split(struct token_rows *rows, struct comm *comm, struct memory *memory,
                      int64_t words)
{
    int64_t slots = tensor_count(&rows->index);
    int64_t share = comm_share_rows(comm, words);
    int64_t most = share < slots ? share : slots;
    rows->comm = comm;
    rows->own = memory_vector(memory, MEMORY_GRADIENTS, "own embedding index", DTYPE_I32, most);
    rows->bound = xcalloc((size_t)comm->ranks + 1, sizeof *rows->bound);
    rows->own_words = xcalloc((size_t)most, sizeof *rows->own_words);
    rows->seen = xcalloc((size_t)words, 1);
}

void token_rows_free(struct token_rows *rows)
{
    free(rows->bound);
    free(rows->own_words);
    free(rows->seen);
}

struct token_range token_rows_own(const struct token_rows *rows)
{
    if (rows->comm == NULL) {
        return (struct token_range){ 0, tensor_count(&rows->index) };
    }
    int64_t first = rows->bound[rows->comm->rank];
    int64_t end = rows->bound[rows->comm->rank + 1];
    end = end < rows->used ? end : rows->used;
    return (struct token_range){ first, end > first ? end - first : 0 };
}

/* Without data every rank is taken to have as many. */
static void share_equally(struct token_rows *rows)
{
    rows->used = tensor_count(&rows->index);
    for (int p = 0; p <= rows->comm->ranks; p++) {
        rows->bound[p] = comm_share_of(rows->comm, p, rows->used).first;
    }
}

void token_rows_share_out(struct token_rows *rows, struct backend *be, const int32_t *ids,
                          int64_t tokens, int64_t words)
{
    if (rows->comm == NULL) {
        return;
    }
    if (be->facts.imaginary) {
        share_equally(rows);
        return;
    }
    memset(rows->seen, 0, (size_t)words);
    for (int64_t i = 0; i < tokens; i++) {
        rows->seen[ids[i]] = 1;
    }
    rows->used = 0;
    for (int p = 0; p < rows->comm->ranks; p++) {
        struct comm_share share = comm_share_of(rows->comm, p, words);
        rows->bound[p] = rows->used;
        for (int64_t word = 0; word < share.count; word++) {
            if (rows->seen[share.first + word] != 0) {
                if (p == rows->comm->rank) {
                    rows->own_words[rows->used - rows->bound[p]] = (int32_t)word;
                }
                rows->used++;
            }
        }
    }
    rows->bound[rows->comm->ranks] = tensor_count(&rows->index);
    struct token_range own = token_rows_own(rows);
    if (own.count > 0) {
        backend_upload(be, rows->own.data, rows->own_words,
                       (size_t)own.count * sizeof *rows->own_words);
    }
}

void token_rows_ask_weight(const struct token_rows *rows, struct backend *be,
                           const struct tensor *weight, struct tensor *gradient)
{
    struct token_range own = token_rows_own(rows);
    if (rows->comm == NULL) {
        return;
    }
    if (own.count > 0) {
        struct tensor index = range_of(&rows->index, own.first, own.count);
        struct tensor to = tensor_row_range(gradient, own.first, own.count);
        op_gather(be, &to, weight, &index, SIDE_ROWS);
    }
    comm_ask_all_gather(rows->comm, be, gradient, rows->bound);
}

void token_rows_take_weight(const struct token_rows *rows, struct backend *be,
                            struct tensor *weight, const struct tensor *gradient)
{
    if (rows->comm != NULL) {
        op_scatter(be, weight, gradient, &rows->index, SIDE_ROWS);
    }
}
