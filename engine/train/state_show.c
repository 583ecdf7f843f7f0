/*
 * Reading states whose rows are split over the ranks (engine/method/owned_rows.h).
 *
 * Rank 0 asks, the others answer until it is done: with what it reads next, or with whether all
 * that they hold is finite. Rows come from their owners in pieces of at most 1 MiB, so that no rank
 * ever has a whole copy on its host. A rank that cannot answer ends, which the others notice as
 * ever.
 */
#include <stdio.h>
#include <stdlib.h>

#include "engine/base/xalloc.h"
#include "engine/train/trainer_parts.h"

enum { PIECE_BYTES = 1 << 20 };

enum request_kind { REQUEST_READ, REQUEST_CHECK, REQUEST_DONE };

struct request {
    int64_t kind;
    int64_t item; /* with REQUEST_READ: elements [first, first + count) of it */
    int64_t first;
    int64_t count;
};

void trainer_show_states(struct trainer *trainer)
{
    trainer->shown = trainer->comm->ranks > 1;
}

void trainer_show_end(struct trainer *trainer)
{
    struct request request = { .kind = REQUEST_DONE };
    if (trainer->shown) {
        comm_broadcast_bytes(trainer->comm, "what to show", &request, sizeof request);
        trainer->shown = false;
    }
}

/* ---- reading -------------------------------------------------------------------------------- */

/* Elements of one owner among those asked for. */
struct range {
    int owner;
    int64_t first;
    int64_t count;
};

/* The elements from `first` on, up to `end`, that one rank has. */
static struct range next_range(const struct state_item *item, int64_t first, int64_t end)
{
    const struct state_split *split = &item->split;
    int64_t columns = state_row_count(item);
    int64_t owner = (split->before + first / columns) / split->share;
    int64_t owned_end = ((owner + 1) * split->share - split->before) * columns;
    return (struct range){ (int)owner, first, (owned_end < end ? owned_end : end) - first };
}

/* One owner's elements, into `out` of rank 0. */
static int move_range(struct trainer *trainer, const struct state_item *item, struct range range,
                      void *out, struct error *err)
{
    char what[96];
    size_t bytes = (size_t)range.count * dtype_size(item->tensor.dtype);
    bool mine = range.owner == trainer->comm->rank;
    bool leads = trainer->comm->rank == 0;
    int64_t skip = item->split.first * state_row_count(item);
    void *room = mine && !leads ? xmalloc(bytes) : NULL;
    int result = mine ? trainer_read_here(trainer, item, range.first - skip, range.count,
                                          leads ? out : room, err)
                      : 0;
    if (result == 0 && range.owner != 0) {
        snprintf(what, sizeof what, "%.60s of rank %d", item->name, range.owner);
        comm_fetch_bytes(trainer->comm, what, range.owner, leads ? out : room, bytes);
        result = comm_check(trainer->comm, err);
    }
    free(room);
    return result;
}

/* On all ranks. */
static int move_elements(struct trainer *trainer, const struct request *request, void *out,
                         struct error *err)
{
    const struct state_item *item = &trainer->item[request->item];
    int64_t end = request->first + request->count;
    for (int64_t at = request->first; at < end;) {
        struct range range = next_range(item, at, end);
        char *to = (char *)out + (size_t)(at - request->first) * dtype_size(item->tensor.dtype);
        if (move_range(trainer, item, range, trainer->comm->rank == 0 ? to : NULL, err) != 0) {
            return -1;
        }
        at += range.count;
    }
    return 0;
}

int trainer_read_split(struct trainer *trainer, int64_t index, int64_t first, int64_t count,
                       void *out, struct error *err)
{
    const struct state_item *item = &trainer->item[index];
    size_t width = dtype_size(item->tensor.dtype);
    int64_t most = PIECE_BYTES / (int64_t)width;
    if (!trainer->shown) {
        return fail(err, ERROR_RUNTIME, "%s is split over %d ranks, which do not show it now",
                    item->name, trainer->comm->ranks);
    }
    for (int64_t at = 0; at < count; at += most) {
        int64_t n = count - at < most ? count - at : most;
        struct request request = { REQUEST_READ, index, first + at, n };
        comm_broadcast_bytes(trainer->comm, "what to show", &request, sizeof request);
        if (comm_check(trainer->comm, err) != 0 ||
            move_elements(trainer, &request, (char *)out + (size_t)at * width, err) != 0) {
            return -1;
        }
    }
    return 0;
}

/* ---- finiteness ----------------------------------------------------------------------------- */

/* The first tensor, over the ranks in order, that is not finite; -1: all are. */
static int64_t gather_verdicts(struct trainer *trainer)
{
    int ranks = trainer->comm->ranks;
    int64_t mine = trainer_first_bad(trainer);
    int64_t *all = xcalloc((size_t)ranks, sizeof *all);
    comm_all_gather_bytes(trainer->comm, "what is not finite", &mine, all, sizeof mine);
    int64_t bad = -1;
    for (int p = 0; p < ranks && bad < 0 && !trainer->comm->failed; p++) {
        bad = all[p];
    }
    free(all);
    return bad;
}

bool trainer_state_finite(struct trainer *trainer, const char **bad)
{
    struct request request = { .kind = REQUEST_CHECK };
    trainer_state_count(trainer);
    if (trainer->shown) {
        comm_broadcast_bytes(trainer->comm, "what to show", &request, sizeof request);
    }
    int64_t index = trainer->shown ? gather_verdicts(trainer) : trainer_first_bad(trainer);
    if (index >= 0) {
        *bad = trainer->item[index].name;
    }
    return index < 0;
}

/* ---- answering ------------------------------------------------------------------------------ */

int trainer_serve_states(struct trainer *trainer, struct error *err)
{
    struct request request = { .kind = REQUEST_CHECK };
    int result = 0;
    int64_t count = trainer_state_count(trainer);
    while (result == 0 && request.kind != REQUEST_DONE) {
        comm_broadcast_bytes(trainer->comm, "what to show", &request, sizeof request);
        result = comm_check(trainer->comm, err);
        if (result == 0 && request.kind == REQUEST_CHECK) {
            gather_verdicts(trainer);
            result = trainer->be->failed ? trainer_device_error(trainer, err) : 0;
        } else if (result == 0 && request.kind == REQUEST_READ) {
            result = request.item < count ? move_elements(trainer, &request, NULL, err)
                                          : fail(err, ERROR_RUNTIME, "there is no such state");
        }
    }
    return result;
}
