/*
 * The order of the sums in a choice of rows (op_select), whose last bit can decide about a row:
 * runs of SELECT_RUN consecutive numbers are summed first, in ascending order, and then the runs.
 * Every backend keeps to it, so that all of them choose the same rows, and runs can be summed side
 * by side.
 *
 * A cumulative sum is the sum of the runs before, plus the sum within the run so far.
 */
#ifndef WINDROW_KERNELS_SELECT_ORDER_H
#define WINDROW_KERNELS_SELECT_ORDER_H

enum { SELECT_RUN = 64 };

#endif
