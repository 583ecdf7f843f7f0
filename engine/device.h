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

#include "engine/plan.h"
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

/* The N of "cuda:N"; 0 for every other device. -1 with an error if it is no number. */
int device_index(const struct recipe *recipe, int *index, struct error *err);

/* What tensors may take of a device, and who has the rest. 0 where nobody can tell. */
struct device_room {
    char name[128];
    bool cuda;
    int gpus;              /* in this machine, whether the recipe wants one or not; device_look */
    int64_t usable_bytes;  /* for tensors; 0: no limit is known */
    bool by_limit;         /* memory.limit says so, not the device */
    int64_t total_bytes;   /* the rest is told of GPUs alone: */
    int64_t free_bytes;    /* now */
    int64_t context_bytes; /* this program's context and libraries; PLAN_CONTEXT_BYTES before */
    int64_t others_bytes;  /* other programs and the driver, before the context was made */
};
void device_room(const struct recipe *recipe, struct backend *be, struct device_room *out);
/* The same without opening it. */
void device_look(const struct recipe *recipe, struct device_room *out);

/* What wants room: a plan, and what it was made of. */
struct need {
    const struct plan *plan;
    const struct recipe *recipe;
    const struct model_config *config;
    const struct device_room *room;
    const char *resume; /* the name of the run that goes on; NULL: a new one */
};
/* 0 if the plan fits. Else ERROR_FIT with what it takes, what is free and who holds the rest, and
 * as hint the largest preset of the same kind of training that fits, with the command to type. */
int device_room_check(const struct need *need, struct error *err);
/* The refusal, where a device turned out not to have what it had told. Always -1. */
int device_room_refuse(const struct need *need, struct error *err);

/* Compares a device with the processor. 0, or -1 with a sentence that names the operation, the
 * format and the difference. */
int device_check(struct backend *be, char *why, size_t why_size);

#endif
