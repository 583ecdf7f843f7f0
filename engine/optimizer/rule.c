/* The table of rules, and where their states lie. */
#include "engine/optimizer/rule.h"

#include <stdio.h>
#include <string.h>

#include "engine/optimizer/adamw.h"

static const struct rule_ops *const rules[] = { &adamw_rule };

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

void rule_place(const struct rule_ops *rule, struct backend *be, struct memory *memory,
                const char *name, const struct tensor *like, enum dtype dtype, int64_t ages,
                struct rule_state *state)
{
    char label[MEMORY_NAME_SIZE];
    struct memory_shape shape = { .dtype = dtype, .rank = like->rank };
    memcpy(shape.dim, like->dim, sizeof shape.dim);
    for (int i = 0; i < rule->slot_count; i++) {
        snprintf(label, sizeof label, "%.88s %s", name, rule->slot_name[i]);
        state->slot[i] = memory_tensor(memory, MEMORY_OPTIMIZER, label, shape);
        op_zero(be, &state->slot[i]);
    }
    snprintf(label, sizeof label, "%.88s age", name);
    state->age = memory_vector(memory, MEMORY_OPTIMIZER, label, DTYPE_I32, ages);
    op_zero(be, &state->age);
}
