/* Clocks. */
#include "engine/base/clock.h"

#include <stddef.h>
#include <time.h>

static double read_clock(clockid_t id)
{
    struct timespec now = { 0 };
    clock_gettime(id, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static double real_wall(void)
{
    return read_clock(CLOCK_REALTIME);
}

static double real_monotonic(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

/* Set once, by tests, before threads start. */
static double (*wall_source)(void) = real_wall;
static double (*monotonic_source)(void) = real_monotonic;

double clock_wall(void)
{
    return wall_source();
}

double clock_monotonic(void)
{
    return monotonic_source();
}

void clock_install(double (*wall)(void), double (*monotonic)(void))
{
    wall_source = wall ? wall : real_wall;
    monotonic_source = monotonic ? monotonic : real_monotonic;
}
