/*
 * When a matrix's projection is chosen anew.
 *
 * Together: at the first step, and `interval` steps after the latest refresh.
 * Staggered: all at the first step, then unit u of `units` at the steps k with
 * k - 1 = floor(u * interval / units) (modulo interval), so that every step has about the same
 * share of the work. A refresh that did not happen at its step, because the step was skipped, is
 * made up for at the next one.
 */
#ifndef WINDROW_ENGINE_METHOD_REFRESH_CLOCK_H
#define WINDROW_ENGINE_METHOD_REFRESH_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

/* Whether unit `unit` is due at step `step` (from 1), its latest refresh having been that of step
 * `last` (0 or less: none that counts). `interval` may have changed since. */
bool refresh_due(int64_t step, int64_t last, int64_t interval, bool stagger, int64_t unit,
                 int64_t units);

#endif
