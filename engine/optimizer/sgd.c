/* Gradient descent without a state; ages are counted as by every rule. */
#include "engine/optimizer/sgd.h"

static void sgd_step(struct backend *be, const struct rule_settings *settings,
                     const struct rule_target *target, struct rule_state *state)
{
    op_sgd(be,
           &(struct sgd){
               .weight = target->weight,
               .age = &state->age,
               .gradient = target->gradient,
               .index = target->index,
               .rho = target->rho,
               .control = settings->control,
               .side = target->side,
               .lr = target->lr,
               .weight_decay = target->weight_decay,
               .scale = target->scale,
               .rounding = settings->rounding,
               .key = { .seed = settings->seed, .tensor = target->id, .step = settings->step } });
}

const struct rule_ops sgd_rule = {
    .name = "sgd",
    .slot_count = 0,
    .step = sgd_step,
};
