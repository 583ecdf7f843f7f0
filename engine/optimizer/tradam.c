/* Trajectory-regularised Adam: two moments and an anchor in the weight's own format. */
#include "engine/optimizer/tradam.h"

static void tradam_step(struct backend *be, const struct rule_settings *settings,
                        const struct rule_target *target, struct rule_state *state)
{
    op_tradam(
        be, &(struct tradam){
                .weight = target->weight,
                .m = &state->slot[0],
                .v = &state->slot[1],
                .anchor = &state->slot[2],
                .age = &state->age,
                .gradient = target->gradient,
                .control = settings->control,
                .interval = settings->anchor_interval,
                .pull = settings->anchor_pull,
                .harmonic = settings->anchor_harmonic,
                .lr = target->lr,
                .beta1 = settings->beta1,
                .beta2 = settings->beta2,
                .eps = settings->eps,
                .weight_decay = target->weight_decay,
                .scale = target->scale,
                .rounding = settings->rounding,
                .key = { .seed = settings->seed, .tensor = target->id, .step = settings->step } });
}

const struct rule_ops tradam_rule = {
    .name = "tradam",
    .slot_count = 3,
    .slot_name = { "m", "v", "anchor" },
    .slot = { RULE_SLOT_SIGNED, RULE_SLOT_SQUARE, RULE_SLOT_WEIGHT },
    .step = tradam_step,
};
