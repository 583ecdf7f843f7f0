/*
 * Everything of a training run that must survive, as named tensors.
 *
 * Checkpoints, the memory view and live re-planning all walk the same list. Names: weights as in
 * Hugging Face files, "optimizer/<parameter>/<slot>", "method/<parameter>/<what>".
 */
#ifndef WINDROW_ENGINE_METHOD_STATE_H
#define WINDROW_ENGINE_METHOD_STATE_H

#include <stdbool.h>

#include "engine/base/error.h"
#include "kernels/tensor.h"

enum { STATE_NAME_SIZE = 128 };

struct state_entry {
    const char *name;
    enum dtype dtype;
    int rank;
    int64_t dim[TENSOR_RANK_MAX];
    bool weight;
};

/* A saved set of such tensors. `find` gives the position of a name, or -1, and its shape; `read`
 * gives elements [first, first + count) in the dtype they were saved in. */
struct state_source {
    int64_t (*find)(void *context, const char *name, struct state_entry *entry);
    int (*read)(void *context, int64_t index, int64_t first, int64_t count, void *out,
                struct error *err);
    void *context;
};

/* One tensor of the list: on the device, or on the host. */
struct state_item {
    char name[STATE_NAME_SIZE];
    struct tensor tensor;
    bool on_host;
};

struct state_visitor {
    void (*visit)(void *context, const struct state_item *item);
    void *context;
};

/* Shows one tensor. `group` is "optimizer" or "method". */
void state_show(const struct state_visitor *visitor, const char *group, const char *parameter,
                const char *what, const struct tensor *tensor, bool on_host);

#endif
