/*
 * Opening the device that a recipe names.
 *
 * "auto" takes the first GPU if there is one, and else the processor. A GPU first shows on small
 * random tensors that its products, norms, attention and updates agree with the processor's; one
 * that does not is refused, or, under "auto", left for the processor with a notice. What an earlier
 * process found out about the fastest products on this device is read from the cache directory
 * ($XDG_CACHE_HOME/windrow, or ~/.cache/windrow) and written back when the device is closed.
 */
#ifndef WINDROW_ENGINE_DEVICE_H
#define WINDROW_ENGINE_DEVICE_H

#include "engine/recipe.h"
#include "kernels/backend.h"

struct device_listener {
    void (*notice)(void *context, const char *text); /* may be NULL */
    void *context;
};

/* NULL with an error that names the device and why. Close with device_close. */
struct backend *device_open(const struct recipe *recipe, const struct device_listener *listener,
                            struct error *err);
void device_close(struct backend *be);

/* Whether a backend is a GPU. */
bool device_is_cuda(const struct backend *be);

/* Compares a device with the processor. 0, or -1 with a sentence that names the operation, the
 * format and the difference. */
int device_check(struct backend *be, char *why, size_t why_size);

#endif
