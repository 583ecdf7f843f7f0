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

/* A tensor of the list, whole. Of one whose rows are split over the ranks (owned_rows.h) rows
 * [here_first, here_first + here_count) are on this rank, of others all. */
struct state_entry {
    const char *name;
    enum dtype dtype;
    int rank;
    int64_t dim[TENSOR_RANK_MAX];
    bool weight;
    bool split;
    int64_t here_first;
    int64_t here_count;
};

/* A saved set of such tensors. `find` gives the position of a name, or -1, and its shape; `read`
 * gives elements [first, first + count) in the dtype they were saved in. */
struct state_source {
    int64_t (*find)(void *context, const char *name, struct state_entry *entry);
    int (*read)(void *context, int64_t index, int64_t first, int64_t count, void *out,
                struct error *err);
    void *context;
};

/* Whose rows are whose: row r belongs to rank (before + r) / share. */
struct state_split {
    int64_t share;  /* 0: not split, every rank has all of it */
    int64_t before; /* rows of other tensors in the matrix that is split, above this one */
    int64_t rows;   /* of the whole tensor */
    int64_t first;  /* the first row that is here */
};

/* One tensor of the list: on the device, or on the host. If it is split, the rows that are here. */
struct state_item {
    char name[STATE_NAME_SIZE];
    struct tensor tensor;
    bool on_host;
    struct state_split split;
};

/* Elements of a row, where it is split; of a vector 1. */
int64_t state_row_count(const struct state_item *item);

/* The whole of it; `weight` is not set. */
struct state_entry state_entry_of(const struct state_item *item);

struct state_visitor {
    void (*visit)(void *context, const struct state_item *item);
    void *context;
};

/* Shows one tensor. `group` is "optimizer" or "method". */
void state_show(const struct state_visitor *visitor, const char *group, const char *parameter,
                const char *what, const struct tensor *tensor, bool on_host);

#endif
