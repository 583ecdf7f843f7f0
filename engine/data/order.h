/* The order of rows: a permutation computed, never stored. */
#ifndef WINDROW_ENGINE_DATA_ORDER_H
#define WINDROW_ENGINE_DATA_ORDER_H

#include <stdint.h>

/* Which of `count` rows comes at `index` in `epoch`: for each (seed, epoch) a permutation of
 * 0 .. count - 1. `count` is at least 1, `index` below it. */
int64_t order_of(uint64_t seed, int64_t epoch, int64_t count, int64_t index);

#endif
