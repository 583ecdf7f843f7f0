/* Names and shapes of state tensors. */
#include "engine/method/state.h"

#include <stdio.h>
#include <string.h>

void state_show(const struct state_visitor *visitor, const char *group, const char *parameter,
                const char *what, const struct tensor *tensor, bool on_host)
{
    struct state_item item = { .tensor = *tensor, .on_host = on_host };
    snprintf(item.name, sizeof item.name, "%s/%.96s/%s", group, parameter, what);
    visitor->visit(visitor->context, &item);
}

int64_t state_row_count(const struct state_item *item)
{
    return item->tensor.rank > 1 ? tensor_columns(&item->tensor) : 1;
}

struct state_entry state_entry_of(const struct state_item *item)
{
    const struct tensor *t = &item->tensor;
    struct state_entry entry = { .name = item->name, .dtype = t->dtype, .rank = t->rank };
    memcpy(entry.dim, t->dim, sizeof entry.dim);
    entry.here_count = t->dim[0];
    if (item->split.share > 0) {
        entry.split = true;
        entry.dim[0] = item->split.rows;
        entry.here_first = item->split.first;
    }
    return entry;
}
