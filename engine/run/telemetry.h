/* What the process takes of the host, as the kernel counts it. */
#ifndef WINDROW_ENGINE_RUN_TELEMETRY_H
#define WINDROW_ENGINE_RUN_TELEMETRY_H

#include <stdint.h>

/* Resident memory of this process in bytes; -1 if it cannot be known. */
int64_t telemetry_host_bytes(void);

/* Between two calls: processor time used over time passed, in percent of one processor. The first
 * call gives NaN. */
struct telemetry {
    double cpu_s;
    double wall_s;
};
double telemetry_cpu_percent(struct telemetry *telemetry);

#endif
