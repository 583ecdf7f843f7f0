/*
 * Asks a device once a second what it does, on a thread of its own: NVML can hold its caller for as
 * long as the driver likes, and no step may wait for that.
 */
#ifndef WINDROW_ENGINE_RUN_SAMPLER_H
#define WINDROW_ENGINE_RUN_SAMPLER_H

#include "kernels/nvml.h"

struct sampler;

/* Starts the thread, which opens NVML (`library`, NULL: the system's) and takes the first sample at
 * once. NULL if no thread can be had. */
struct sampler *sampler_open(const char *bus_id, const char *library);
/* Never waits longer than a second, whatever the driver does: a thread that is still inside it is
 * left behind and tidies up when it comes back. NULL is good. */
void sampler_close(struct sampler *sampler);

/* The newest sample; all unknown if there is none, or none of the last five seconds, or `sampler`
 * is NULL. Returns at once. */
void sampler_read(struct sampler *sampler, struct nvml_sample *out);

/* Why there are no samples (any more): true once, with a sentence in `why`. NULL is good. */
bool sampler_trouble(struct sampler *sampler, char *why, size_t why_size);

#endif
