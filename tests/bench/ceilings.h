/* What a device can do at most: the measure of everything else. */
#ifndef WINDROW_TESTS_BENCH_CEILINGS_H
#define WINDROW_TESTS_BENCH_CEILINGS_H

#include "kernels/backend.h"

/* FLOPs a second of a product of square bf16 matrices of `side` rows, or bytes a second, read and
 * written, of a copy of one; 0 if there is no room for three. */
double measure_ceiling(struct backend *be, int64_t side, bool product);

#endif
