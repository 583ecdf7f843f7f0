/*
 * What is kept of a block between forward and backward, and what is made again.
 *
 * Elements a token of a layer with C hidden, F feed-forward, H = K, and what the backward computes
 * a second time. Kept in every row, beside: two fp32 numbers a token and one a token and head.
 *
 *   none    8C + 3F   nothing
 *   norms   6C + 2F   both norms, SwiGLU: passes over memory, no product
 *   ffn     6C        the same, and the product of gate and up: 4 C F FLOPs a token
 *   block    C        everything but the last product and sum, which no backward reads
 *
 * (Korthikanti et al., "Reducing activation recomputation in large transformer models", arXiv
 * 2205.05198, and Chen et al., "Training deep nets with sublinear memory cost", arXiv 1604.06174;
 * attention never keeps its scores here, so that there is no step for it alone.)
 */
#include <string.h>

#include "engine/activation/policy.h"

static const struct activation_policy policies[] = {
    { .name = "none",
      .replayable = true,
      .keeps = { [VALUE_BLOCK_INPUT] = true,
                 [VALUE_NORM1] = true,
                 [VALUE_QKV] = true,
                 [VALUE_ATTENTION] = true,
                 [VALUE_MIDDLE] = true,
                 [VALUE_NORM2] = true,
                 [VALUE_GATE_UP] = true,
                 [VALUE_SWIGLU] = true } },
    { .name = "norms",
      .replayable = true,
      .keeps = { [VALUE_BLOCK_INPUT] = true,
                 [VALUE_QKV] = true,
                 [VALUE_ATTENTION] = true,
                 [VALUE_MIDDLE] = true,
                 [VALUE_GATE_UP] = true } },
    { .name = "ffn",
      .replayable = true,
      .keeps = { [VALUE_BLOCK_INPUT] = true,
                 [VALUE_QKV] = true,
                 [VALUE_ATTENTION] = true,
                 [VALUE_MIDDLE] = true } },
    { .name = "block", .replayable = true, .keeps = { [VALUE_BLOCK_INPUT] = true } },
};

const struct activation_policy *activation_find(const char *recompute)
{
    for (size_t i = 0; i < sizeof policies / sizeof policies[0]; i++) {
        if (strcmp(policies[i].name, recompute) == 0) {
            return &policies[i];
        }
    }
    return NULL;
}

const char *activation_name(size_t index)
{
    return index < sizeof policies / sizeof policies[0] ? policies[index].name : NULL;
}
