/* When a matrix's projection is chosen anew. */
#include "engine/method/refresh_clock.h"

/* How many of the unit's steps lie before or at `step`, plus a constant. */
static int64_t turns(int64_t step, int64_t interval, int64_t offset)
{
    return (step - 1 - offset + interval) / interval;
}

bool refresh_due(int64_t step, int64_t last, int64_t interval, bool stagger, int64_t unit,
                 int64_t units)
{
    if (last <= 0) {
        return true;
    }
    if (!stagger) {
        return step >= last + interval;
    }
    int64_t offset = unit * interval / units;
    return turns(step, interval, offset) > turns(last, interval, offset);
}
