/* The order in which the emulated device runs blocks and threads: ascending, or descending if
 * `reverse`. */
#ifndef WINDROW_TESTS_SIMT_ORDER_H
#define WINDROW_TESTS_SIMT_ORDER_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

void simt_reverse(bool reverse);

#ifdef __cplusplus
}
#endif

#endif
