/* Keep everything: no value is computed twice. */
#include "engine/activation/policy.h"

#include <string.h>

static const struct activation_policy policies[] = {
    { .name = "none",
      .keeps = { [VALUE_BLOCK_INPUT] = true,
                 [VALUE_NORM1] = true,
                 [VALUE_QKV] = true,
                 [VALUE_ATTENTION] = true,
                 [VALUE_MIDDLE] = true,
                 [VALUE_NORM2] = true,
                 [VALUE_GATE_UP] = true,
                 [VALUE_SWIGLU] = true } },
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
