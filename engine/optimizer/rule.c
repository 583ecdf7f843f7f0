/* The table of rules, and where their states lie. */
#include "engine/optimizer/rule.h"

#include <stdio.h>
#include <string.h>

#include "engine/optimizer/adamw.h"
#include "engine/optimizer/sgd.h"
#include "engine/optimizer/tradam.h"

static const struct rule_ops *const rules[] = { &adamw_rule, &sgd_rule, &tradam_rule };

const struct rule_ops *rule_find(const char *name)
{
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        if (strcmp(rules[i]->name, name) == 0) {
            return rules[i];
        }
    }
    return NULL;
}

const char *rule_name(size_t index)
{
    return index < sizeof rules / sizeof rules[0] ? rules[index]->name : NULL;
}

/* Where the next tensor of a state goes. */
struct placing {
    struct backend *be;
    struct memory *memory;
    const struct rule_layout *layout;
    struct rule_state *state;
};

static void place(struct placing *p, const char *slot_name, struct memory_shape shape)
{
    char label[MEMORY_NAME_SIZE];
    int i = p->state->slot_count++;
    snprintf(label, sizeof label, "%.82s %s", p->layout->name, slot_name);
    p->state->slot[i] = memory_tensor(p->memory, MEMORY_OPTIMIZER, label, shape);
    p->state->slot_name[i] = slot_name;
    op_zero(p->be, &p->state->slot[i]);
}

static struct memory_shape absmax_shape(const struct rule_layout *layout)
{
    int64_t rows = tensor_rows(layout->like);
    int64_t columns = tensor_columns(layout->like);
    bool along = layout->side == SIDE_ROWS;
    return (struct memory_shape){ .dtype = DTYPE_F32,
                                  .rank = 2,
                                  .dim = { along ? rows : quantize_blocks(rows),
                                           along ? quantize_blocks(columns) : columns } };
}

void rule_place(const struct rule_ops *rule, struct backend *be, struct memory *memory,
                const struct rule_layout *layout, struct rule_state *state)
{
    char label[MEMORY_NAME_SIZE];
    struct placing p = { .be = be, .memory = memory, .layout = layout, .state = state };
    const struct tensor *like = layout->like;
    bool small = like->rank < 2 || layout->whole < RULE_SMALL_COUNT;
    bool bytes = layout->dtype == DTYPE_U8 && !small;
    enum dtype plain = layout->dtype == DTYPE_U8 ? DTYPE_F32 : layout->dtype;
    *state = (struct rule_state){ .side = layout->side };
    for (int i = 0; i < rule->slot_count; i++) {
        struct memory_shape shape = { .dtype = plain, .rank = like->rank };
        memcpy(shape.dim, like->dim, sizeof shape.dim);
        if (rule->slot[i] == RULE_SLOT_WEIGHT) {
            shape.dtype = like->dtype;
        } else if (bytes && rule->absmax_name[i] != NULL) {
            shape.dtype = DTYPE_U8;
        }
        place(&p, rule->slot_name[i], shape);
    }
    for (int i = 0; i < rule->slot_count; i++) {
        if (state->slot[i].dtype == DTYPE_U8) {
            place(&p, rule->absmax_name[i], absmax_shape(layout));
        }
    }
    snprintf(label, sizeof label, "%.88s age", layout->name);
    state->age = memory_vector(memory, MEMORY_OPTIMIZER, label, DTYPE_I32, layout->ages);
    op_zero(be, &state->age);
}
