/* Events of a long run, made up: what the benchmarks of viewers look at. */
#ifndef WINDROW_TESTS_BENCH_LONG_RUN_H
#define WINDROW_TESTS_BENCH_LONG_RUN_H

#include <stdint.h>

#include "engine/base/error.h"
#include "engine/base/xalloc.h"

/* Appends the event of a step that ended at `time`; of all matrices of a refresh. */
void long_run_step(int64_t step, double time, struct buffer *out);
void long_run_refresh(int64_t step, int matrices, struct buffer *out);
/* Writes events.jsonl: a step each, every 200 steps a refresh of all matrices and an evaluation. */
int long_run_make(const char *directory, int64_t steps, int matrices, struct error *err);

#endif
