/* The only reader of clocks. Tests install their own. */
#ifndef WINDROW_ENGINE_BASE_CLOCK_H
#define WINDROW_ENGINE_BASE_CLOCK_H

/* Seconds since 1970, for time stamps. */
double clock_wall(void);
/* Seconds since an arbitrary start, never going back, for durations. */
double clock_monotonic(void);

/* Replaces both; NULL restores the real ones. */
void clock_install(double (*wall)(void), double (*monotonic)(void));

#endif
