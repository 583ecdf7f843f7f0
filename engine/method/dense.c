/* One gradient and one rule state a dense parameter. */
#include "engine/method/dense.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/xalloc.h"

/* The first dense parameter at `index` or behind it that is not frozen, or NULL; moves `index`
 * behind it. */
static struct parameter *next_trained(const struct model *model, int64_t *index)
{
    struct parameter *p = model_dense_parameter(model, (*index)++);
    while (p != NULL && p->frozen) {
        p = model_dense_parameter(model, (*index)++);
    }
    return p;
}

void dense_attach(struct dense *dense, struct backend *be, struct memory *memory,
                  struct model *model, const struct rule_ops *rule, enum dtype state_dtype)
{
    memset(dense, 0, sizeof *dense);
    dense->be = be;
    dense->model = model;
    dense->rule = rule;
    dense->gradient = xcalloc((size_t)model->parameter_count, sizeof *dense->gradient);
    dense->state = xcalloc((size_t)model->parameter_count, sizeof *dense->state);
    struct parameter *p;
    for (int64_t i = 0; (p = next_trained(model, &i)) != NULL;) {
        char name[MEMORY_NAME_SIZE];
        snprintf(name, sizeof name, "%.80s gradient", p->name);
        struct memory_shape shape = { .dtype = model->dtype,
                                      .rank = p->rank,
                                      .dim = { p->dim[0], p->dim[1] } };
        dense->gradient[p->id] = memory_tensor(memory, MEMORY_GRADIENTS, name, shape);
        struct tensor like = p->value;
        like.rank = p->rank;
        rule_place(rule, be, memory,
                   &(struct rule_layout){ .name = p->name,
                                          .like = &like,
                                          .whole = parameter_count(p),
                                          .dtype = state_dtype,
                                          .ages = 1 },
                   &dense->state[p->id]);
    }
}

void dense_detach(struct dense *dense)
{
    free(dense->gradient);
    free(dense->state);
    memset(dense, 0, sizeof *dense);
}

void dense_zero_gradients(struct dense *dense)
{
    struct parameter *p;
    for (int64_t i = 0; (p = next_trained(dense->model, &i)) != NULL;) {
        op_zero(dense->be, &dense->gradient[p->id]);
    }
}

void dense_each_gradient(struct dense *dense, const struct gradient_visitor *visitor)
{
    struct parameter *p;
    for (int64_t i = 0; (p = next_trained(dense->model, &i)) != NULL;) {
        visitor->visit(visitor->context, p->name, &dense->gradient[p->id]);
    }
}

void dense_add_squares(struct dense *dense, struct tensor *sum)
{
    struct parameter *p;
    for (int64_t i = 0; (p = next_trained(dense->model, &i)) != NULL;) {
        op_sum_squares(dense->be, sum, &dense->gradient[p->id], true);
    }
}

void dense_update(struct dense *dense, double lr, const struct rule_settings *settings)
{
    struct parameter *p;
    for (int64_t i = 0; (p = next_trained(dense->model, &i)) != NULL;) {
        double decay = parameter_decays(p) ? dense->weight_decay : 0.0;
        dense->rule->step(dense->be, settings,
                          &(struct rule_target){ .weight = &p->value,
                                                 .gradient = &dense->gradient[p->id],
                                                 .lr = (float)lr,
                                                 .weight_decay = (float)decay,
                                                 .scale = 1.0f,
                                                 .id = p->id },
                          &dense->state[p->id]);
    }
}

void dense_visit(struct dense *dense, const struct state_visitor *visitor)
{
    struct parameter *p;
    for (int64_t i = 0; (p = next_trained(dense->model, &i)) != NULL;) {
        struct rule_state *state = &dense->state[p->id];
        for (int s = 0; s < state->slot_count; s++) {
            state_show(visitor, "optimizer", p->name, state->slot_name[s], &state->slot[s], false);
        }
        state_show(visitor, "optimizer", p->name, "age", &state->age, false);
    }
}

int dense_restore(struct dense *dense, const struct state_source *source, struct error *err)
{
    struct parameter *p;
    for (int64_t i = 0; (p = next_trained(dense->model, &i)) != NULL;) {
        struct rule_state *state = &dense->state[p->id];
        char name[STATE_NAME_SIZE];
        for (int s = 0; s < state->slot_count; s++) {
            snprintf(name, sizeof name, "optimizer/%s/%s", p->name, state->slot_name[s]);
            if (method_restore_tensor(dense->be, source, name, &state->slot[s], err) != 0) {
                return -1;
            }
        }
        snprintf(name, sizeof name, "optimizer/%s/age", p->name);
        if (method_restore_tensor(dense->be, source, name, &state->age, err) != 0) {
            return -1;
        }
    }
    return 0;
}
