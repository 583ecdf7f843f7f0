/* Names of state tensors. */
#include "engine/method/state.h"

#include <stdio.h>

void state_show(const struct state_visitor *visitor, const char *group, const char *parameter,
                const char *what, const struct tensor *tensor, bool on_host)
{
    struct state_item item = { .tensor = *tensor, .on_host = on_host };
    snprintf(item.name, sizeof item.name, "%s/%.96s/%s", group, parameter, what);
    visitor->visit(visitor->context, &item);
}
