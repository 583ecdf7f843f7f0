/* Splitting states by rows. See owned_rows.h. */
#include "engine/method/owned_rows.h"

#include <stdio.h>

void owned_rows_place(struct owned_rows *owned, const struct method *method,
                      const struct rule_layout *layout)
{
    struct comm *comm = method->comm;
    bool matrix = layout->like->rank == 2;
    int64_t rows = matrix ? tensor_rows(layout->like) : 1;
    int64_t share = comm_share_rows(comm, rows);
    bool for_all = comm_share_of(comm, comm->ranks - 1, rows).count > 0;
    *owned = (struct owned_rows){
        .be = method->be, .comm = comm, .exchange = method->exchange, .rows = rows
    };
    owned->split = comm->ranks > 1 && matrix && for_all;
    owned->share = owned->split ? share : rows;
    owned->count = rows;
    struct rule_layout own = *layout;
    struct tensor like = *layout->like;
    if (owned->split) {
        struct comm_share mine = comm_share_of(comm, comm->rank, rows);
        owned->first = mine.first;
        owned->count = mine.count;
        like.dim[0] = share;
        own.like = &like;
        own.ages = own.ages > 1 ? share : 1;
    }
    rule_place(method->rule, method->be, method->memory, &own, &owned->state);
}

void owned_rows_ask_sum(struct owned_rows *owned, struct tensor *gradient)
{
    exchange_ask(owned->exchange, gradient, (struct exchange_rows){ .split = owned->split });
}

void owned_rows_take_sum(struct owned_rows *owned, struct tensor *gradient)
{
    exchange_take(owned->exchange, gradient, (struct exchange_rows){ .split = owned->split });
}

static struct tensor own_rows(const struct owned_rows *owned, const struct tensor *t)
{
    return owned->split ? tensor_row_range(t, owned->first, owned->count) : *t;
}

void owned_rows_add_squares(const struct owned_rows *owned, const struct tensor *gradient,
                            struct tensor *sum)
{
    struct tensor own = own_rows(owned, gradient);
    op_sum_squares(owned->be, sum, &own, true);
}

/* Elements are rounded by their place among the own rows: each rank draws from a seed of its own,
 * rank 0 from that of a matrix that is not split. */
static uint64_t seed_of(const struct owned_rows *owned, uint64_t seed)
{
    return seed + (uint64_t)owned->comm->rank * UINT64_C(0xD1B54A32D192ED03);
}

void owned_rows_step(struct owned_rows *owned, const struct rule_ops *rule,
                     const struct rule_settings *settings, const struct rule_target *target)
{
    if (!owned->split) {
        rule->step(owned->be, settings, target, &owned->state);
        return;
    }
    struct tensor weight = own_rows(owned, target->weight);
    struct tensor gradient = own_rows(owned, target->gradient);
    struct rule_settings mine = *settings;
    struct rule_target own = *target;
    struct rule_state state = owned->state;
    mine.seed = seed_of(owned, settings->seed);
    own.weight = &weight;
    own.gradient = &gradient;
    for (int s = 0; s < state.slot_count; s++) {
        state.slot[s] = tensor_row_range(&owned->state.slot[s], 0, owned->count);
    }
    rule->step(owned->be, &mine, &own, &state);
    comm_ask_all_gather(owned->comm, owned->be, target->weight, NULL);
}

/* ---- states --------------------------------------------------------------------------------- */

/* What of a part is here: its rows from `first` on, and where they begin among the own ones. */
struct here {
    int64_t first;
    int64_t count;
    int64_t at;
};

static struct here part_here(const struct owned_rows *owned, const struct owned_part *part)
{
    int64_t begin = part->first > owned->first ? part->first : owned->first;
    int64_t part_end = part->first + part->count;
    int64_t end = owned->first + owned->count;
    end = part_end < end ? part_end : end;
    if (begin >= end) {
        return (struct here){ 0, 0, 0 };
    }
    return (struct here){ begin - part->first, end - begin, begin - owned->first };
}

/* Of a vector all there is, but of ages of rows that are split. */
static struct tensor tensor_here(const struct owned_rows *owned, const struct tensor *t,
                                 const struct here *here)
{
    if (t->rank == 2) {
        return tensor_row_range(t, here->at, here->count);
    }
    if (!owned->split) {
        return *t;
    }
    struct tensor column = tensor_as_matrix(t, tensor_count(t), 1);
    struct tensor range = tensor_row_range(&column, here->at, here->count);
    range.rank = 1;
    return range;
}

static void show_here(const struct owned_rows *owned, const struct state_visitor *visitor,
                      const struct owned_part *part, int slot)
{
    struct here here = part_here(owned, part);
    bool age = slot == owned->state.slot_count;
    const struct tensor *all = age ? &owned->state.age : &owned->state.slot[slot];
    struct state_item item = { .tensor = tensor_here(owned, all, &here) };
    if (owned->split) {
        item.split = (struct state_split){
            .share = owned->share, .before = part->first, .rows = part->count, .first = here.first
        };
    }
    snprintf(item.name, sizeof item.name, "optimizer/%.96s/%s", part->parameter,
             age ? "age" : owned->state.slot_name[slot]);
    visitor->visit(visitor->context, &item);
}

void owned_rows_show(const struct owned_rows *owned, const struct state_visitor *visitor,
                     const struct owned_part *part)
{
    for (int s = 0; s < owned->state.slot_count; s++) {
        show_here(owned, visitor, part, s);
    }
}

/* Whether every row has an age of its own, which is then split as the row is. */
static bool has_ages(const struct owned_rows *owned)
{
    return owned->split && tensor_count(&owned->state.age) > 1;
}

void owned_rows_show_age(const struct owned_rows *owned, const struct state_visitor *visitor,
                         const char *parameter)
{
    if (has_ages(owned)) {
        struct owned_part all = { .parameter = parameter, .count = owned->rows };
        show_here(owned, visitor, &all, owned->state.slot_count);
    } else {
        state_show(visitor, "optimizer", parameter, "age", &owned->state.age, false);
    }
}

static int restore_here(struct owned_rows *owned, const struct state_source *source,
                        const struct owned_part *part, int slot, struct error *err)
{
    char name[STATE_NAME_SIZE];
    struct here here = part_here(owned, part);
    bool age = slot == owned->state.slot_count;
    struct tensor own =
        tensor_here(owned, age ? &owned->state.age : &owned->state.slot[slot], &here);
    snprintf(name, sizeof name, "optimizer/%.96s/%s", part->parameter,
             age ? "age" : owned->state.slot_name[slot]);
    struct method_rows rows = { name, &own, part->count, here.first };
    return owned->split ? method_restore_rows(owned->be, source, &rows, err)
                        : method_restore_tensor(owned->be, source, name, &own, err);
}

int owned_rows_restore(struct owned_rows *owned, const struct state_source *source,
                       const struct owned_part *part, struct error *err)
{
    int rc = 0;
    for (int s = 0; s < owned->state.slot_count && rc == 0; s++) {
        rc = restore_here(owned, source, part, s, err);
    }
    return rc;
}

int owned_rows_restore_age(struct owned_rows *owned, const struct state_source *source,
                           const char *parameter, struct error *err)
{
    char name[STATE_NAME_SIZE];
    struct owned_part all = { .parameter = parameter, .count = owned->rows };
    if (has_ages(owned)) {
        return restore_here(owned, source, &all, owned->state.slot_count, err);
    }
    snprintf(name, sizeof name, "optimizer/%.96s/age", parameter);
    return method_restore_tensor(owned->be, source, name, &owned->state.age, err);
}
