/* AdamW: two moments in the gradient's shape, in eight bits with the magnitudes of their blocks;
 * bias correction by each row's own age. */
#include "engine/optimizer/adamw.h"

static void adamw_step(struct backend *be, const struct rule_settings *settings,
                       const struct rule_target *target, struct rule_state *state)
{
    op_adamw(be,
             &(struct adamw){
                 .weight = target->weight,
                 .m = &state->slot[0],
                 .v = &state->slot[1],
                 .m_absmax = state->slot_count > 2 ? &state->slot[2] : NULL,
                 .v_absmax = state->slot_count > 2 ? &state->slot[3] : NULL,
                 .age = &state->age,
                 .gradient = target->gradient,
                 .index = target->index,
                 .rho = target->rho,
                 .control = settings->control,
                 .residue = target->residue,
                 .side = state->side,
                 .lr = target->lr,
                 .beta1 = settings->beta1,
                 .beta2 = settings->beta2,
                 .eps = settings->eps,
                 .weight_decay = target->weight_decay,
                 .scale = target->scale,
                 .rounding = settings->rounding,
                 .key = { .seed = settings->seed, .tensor = target->id, .step = settings->step } });
}

const struct rule_ops adamw_rule = {
    .name = "adamw",
    .slot_count = 2,
    .slot_name = { "m", "v" },
    .absmax_name = { "m_absmax", "v_absmax" },
    .slot = { RULE_SLOT_SIGNED, RULE_SLOT_SQUARE },
    .step = adamw_step,
};
