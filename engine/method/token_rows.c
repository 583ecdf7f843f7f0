/* The embedding's rows that occur. See token_rows.h. */
#include "engine/method/token_rows.h"

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

/* The states of the rows in `index`, in the workspace. */
static struct rule_state take_states(const struct token_rows_update *u,
                                     const struct rule_state *state, const struct tensor *index)
{
    struct rule_state part = *state;
    int64_t count = tensor_count(index);
    for (int s = 0; s < state->slot_count; s++) {
        const int64_t dim[2] = { count, tensor_columns(&state->slot[s]) };
        part.slot[s] = memory_matrix(u->memory, MEMORY_WORKSPACE, "states that occur",
                                     state->slot[s].dtype, dim);
        op_gather(u->be, &part.slot[s], &state->slot[s], index, SIDE_ROWS);
    }
    part.age = memory_vector(u->memory, MEMORY_WORKSPACE, "ages that occur", DTYPE_I32, count);
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

/* Moments are rounded by their place among those that pass together: each lot draws from a seed of
 * its own, the first from that of a dense update. */
static uint64_t seed_of(uint64_t seed, int64_t lot)
{
    return seed + (uint64_t)lot * UINT64_C(0x9E3779B97F4A7C15);
}

void token_rows_apply(const struct token_rows_update *u, struct rule_state *state)
{
    int64_t slots = tensor_count(&u->rows->index);
    for (int64_t first = 0; first < slots; first += SLOTS_AT_A_TIME) {
        int64_t count = slots - first < SLOTS_AT_A_TIME ? slots - first : SLOTS_AT_A_TIME;
        struct memory_position mark = memory_mark(u->memory, MEMORY_WORKSPACE);
        struct tensor index = range_of(&u->rows->index, first, count);
        struct tensor gradient = tensor_row_range(u->target->gradient, first, count);
        struct rule_state part = take_states(u, state, &index);
        struct rule_settings settings = *u->settings;
        settings.seed = seed_of(settings.seed, first / SLOTS_AT_A_TIME);
        struct rule_target target = *u->target;
        target.gradient = &gradient;
        target.index = &index;
        target.side = SIDE_ROWS;
        u->rule->step(u->be, &settings, &target, &part);
        put_states_back(u, state, &part, &index);
        memory_release(u->memory, MEMORY_WORKSPACE, mark);
    }
}
