/* Warm-up, then a shape over what is left. */
#include "engine/optimizer/schedule.h"

#include <math.h>

/* The decay of warm-up-stable-decay takes the last fifth of the steps after the warm-up. */
static const double WSD_STABLE = 0.8;

static double shape_factor(const struct schedule *s, double p)
{
    const double pi = 3.14159265358979323846;
    switch (s->shape) {
    case SCHEDULE_SHAPE_LINEAR:
        return 1.0 - (1.0 - s->floor) * p;
    case SCHEDULE_SHAPE_COSINE:
        return s->floor + (1.0 - s->floor) * 0.5 * (1.0 + cos(pi * p));
    case SCHEDULE_SHAPE_WSD:
        return p <= WSD_STABLE ? 1.0
                               : 1.0 - (1.0 - s->floor) * (p - WSD_STABLE) / (1.0 - WSD_STABLE);
    case SCHEDULE_SHAPE_CONSTANT:
        break;
    }
    return 1.0;
}

double schedule_rate(const struct schedule *s, int64_t k)
{
    if (k <= s->warmup) {
        return s->lr * (double)k / (double)s->warmup;
    }
    double length = (double)(s->steps - s->warmup);
    double p = length > 0.0 ? (double)(k - s->warmup) / length : 1.0;
    return s->lr * shape_factor(s, p > 1.0 ? 1.0 : p);
}
