/* The learning rate of a step. */
#ifndef WINDROW_ENGINE_OPTIMIZER_SCHEDULE_H
#define WINDROW_ENGINE_OPTIMIZER_SCHEDULE_H

#include <stdint.h>

enum schedule_shape {
    SCHEDULE_SHAPE_CONSTANT,
    SCHEDULE_SHAPE_LINEAR,
    SCHEDULE_SHAPE_COSINE,
    SCHEDULE_SHAPE_WSD
};

struct schedule {
    enum schedule_shape shape;
    double lr;
    int64_t warmup; /* steps */
    int64_t steps;  /* of the whole run */
    double floor;   /* fraction of lr */
};

/* Step k counts from 1. k <= warmup: lr k / warmup. After it, with p = (k - warmup) / (steps -
 * warmup) held within 0 .. 1:
 *   constant  lr
 *   linear    lr (1 - (1 - floor) p)
 *   cosine    lr (floor + (1 - floor) (1 + cos(pi p)) / 2)          (Loshchilov, Hutter,
 * 1608.03983) wsd       lr until p = 0.8, then linear to the floor             (Hu et al.,
 * 2404.06395, 4.1)
 */
double schedule_rate(const struct schedule *schedule, int64_t k);

#endif
