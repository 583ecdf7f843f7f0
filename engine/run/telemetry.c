/* Resident memory from /proc/self/statm, processor time from getrusage. */
#include "engine/run/telemetry.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "engine/base/clock.h"

int64_t telemetry_host_bytes(void)
{
    FILE *file = fopen("/proc/self/statm", "re");
    long long pages = 0;
    if (!file) {
        return -1;
    }
    int read = fscanf(file, "%*s %lld", &pages);
    fclose(file);
    return read == 1 ? (int64_t)pages * (int64_t)sysconf(_SC_PAGESIZE) : -1;
}

double telemetry_cpu_percent(struct telemetry *telemetry)
{
    struct rusage usage;
    double wall = clock_monotonic();
    if (getrusage(RUSAGE_SELF, &usage) != 0) {
        return (double)NAN;
    }
    double cpu = (double)usage.ru_utime.tv_sec + (double)usage.ru_stime.tv_sec +
                 1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
    double passed = wall - telemetry->wall_s;
    double percent = telemetry->wall_s > 0.0 && passed > 0.0
                         ? 100.0 * (cpu - telemetry->cpu_s) / passed
                         : (double)NAN;
    telemetry->cpu_s = cpu;
    telemetry->wall_s = wall;
    return percent;
}
