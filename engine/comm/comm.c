/* What all engines share: collecting what is asked for, counting, naming, latching. */
#include "engine/comm/comm.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/clock.h"
#include "engine/base/xalloc.h"
#include "engine/comm/engine.h"

enum { COMM_NAME = 112 };

void comm_bucket_init(struct comm_bucket *bucket, int ranks)
{
    size_t bounds = (size_t)ranks + 1;
    memset(bucket, 0, sizeof *bucket);
    bucket->bounds = xcalloc(bounds * COMM_BUCKET_ASKS, sizeof *bucket->bounds);
    for (size_t i = 0; i < COMM_BUCKET_ASKS; i++) {
        bucket->ask[i].bound = bucket->bounds + i * bounds;
    }
}

void comm_bucket_copy(struct comm_bucket *to, const struct comm_bucket *from, int ranks)
{
    size_t bounds = (size_t)from->count * ((size_t)ranks + 1);
    memcpy(to->bounds, from->bounds, bounds * sizeof *to->bounds);
    for (int i = 0; i < from->count; i++) {
        int64_t *bound = to->ask[i].bound;
        to->ask[i] = from->ask[i];
        to->ask[i].bound = bound;
    }
    to->count = from->count;
    to->bytes = from->bytes;
    to->be = from->be;
    memcpy(to->what, from->what, sizeof to->what);
}

void comm_bucket_free(struct comm_bucket *bucket)
{
    free(bucket->bounds);
}

struct comm *comm_make(const struct comm_ops *ops, int rank, int ranks)
{
    struct comm *comm = xcalloc(1, sizeof *comm);
    comm->ops = ops;
    comm->rank = rank;
    comm->ranks = ranks;
    comm->bucket_bytes = COMM_BUCKET_BYTES;
    comm->bucket = xcalloc(1, sizeof *comm->bucket);
    comm_bucket_init(comm->bucket, ranks);
    return comm;
}

void comm_close(struct comm *comm)
{
    if (comm != NULL) {
        comm->ops->close(comm);
        comm_bucket_free(comm->bucket);
        free(comm->bucket);
        free(comm);
    }
}

static void latch(struct comm *comm, const char *format, va_list args)
{
    if (!comm->failed) {
        vsnprintf(comm->error, sizeof comm->error, format, args);
        comm->failed = true;
    }
}

void comm_fail(struct comm *comm, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    latch(comm, format, args);
    va_end(args);
}

void comm_abort(struct comm *comm, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    latch(comm, format, args);
    va_end(args);
    if (comm->ops->abort != NULL) {
        comm->ops->abort(comm);
    }
}

int comm_check(const struct comm *comm, struct error *err)
{
    return comm->failed ? fail(err, ERROR_RUNTIME, "%s", comm->error) : 0;
}

void comm_on_wait(struct comm *comm, bool (*waiting)(void *context), void *context)
{
    comm->waiting = waiting;
    comm->context = context;
}

void comm_leave_device(struct comm *comm)
{
    if (comm->ops->leave != NULL) {
        comm->ops->leave(comm);
    }
}

/* ---- counting ------------------------------------------------------------------------------- */

static void announce(struct comm *comm, const char *what)
{
    snprintf(comm->last, sizeof comm->last, "%s", what);
    if (comm->begun != NULL) {
        comm->begun(comm->begun_context, comm->last);
    }
}

/* Whether tensors go to the engine at all. */
static bool sends(const struct comm *comm)
{
    return !comm->failed && (comm->ranks > 1 || comm->to_itself);
}

/* What goes around all ranks `passes` times; hops are counted by the caller. */
static void count_bytes(struct comm *comm, double bytes, int passes)
{
    comm->counts.calls++;
    comm->counts.wire_bytes += passes * bytes * (comm->ranks - 1) / comm->ranks;
}

static void count_ask(struct comm *comm, const struct comm_ask *ask)
{
    double bytes = (double)ask->bytes;
    if (comm->ranks == 1) {
        return;
    }
    count_bytes(comm, bytes, ask->kind == COMM_ALL_REDUCE ? 2 : 1);
    if (ask->kind == COMM_ALL_GATHER) {
        comm->counts.gathered_bytes += bytes;
    } else {
        comm->counts.payload_bytes += bytes;
    }
}

static void clear_bucket(struct comm_bucket *bucket)
{
    bucket->count = 0;
    bucket->bytes = 0;
}

/* Sends what has been asked for: once around for all that is to be summed, and once for all that
 * every rank gets. */
static void send_bucket(struct comm *comm, bool waits)
{
    struct comm_bucket *bucket = comm->bucket;
    bool sums = false;
    bool spreads = false;
    if (bucket->count == 0 || comm->failed) {
        clear_bucket(bucket);
        return;
    }
    for (int i = 0; i < bucket->count; i++) {
        count_ask(comm, &bucket->ask[i]);
        sums = sums || bucket->ask[i].kind != COMM_ALL_GATHER;
        spreads = spreads || bucket->ask[i].kind != COMM_REDUCE_SCATTER;
    }
    comm->counts.hops += (int64_t)(sums + spreads) * (comm->ranks - 1);
    if (bucket->count > 1) {
        size_t length = strlen(bucket->what);
        snprintf(bucket->what + length, sizeof bucket->what - length, " and %d more",
                 bucket->count - 1);
    }
    announce(comm, bucket->what);
    int part = backend_time_part(bucket->be, BACKEND_PART_EXCHANGE);
    comm->ops->send(comm, bucket, waits);
    backend_time_part(bucket->be, part);
    clear_bucket(bucket);
}

/* ---- tensors -------------------------------------------------------------------------------- */

struct comm_share comm_share_of(const struct comm *comm, int rank, int64_t rows)
{
    int64_t share = comm_share_rows(comm, rows);
    int64_t first = rank * share < rows ? rank * share : rows;
    return (struct comm_share){ first, rows - first < share ? rows - first : share };
}

int64_t comm_share_rows(const struct comm *comm, int64_t rows)
{
    return (rows + comm->ranks - 1) / comm->ranks;
}

/* Whether these bounds can be of so many rows; equal shares where there are none. */
static bool take_bounds(const struct comm *comm, const int64_t *bound, int64_t rows, int64_t *out)
{
    for (int p = 0; p <= comm->ranks; p++) {
        out[p] = bound != NULL ? bound[p] : comm_share_of(comm, p, rows).first;
        if (out[p] < (p > 0 ? out[p - 1] : 0)) {
            return false;
        }
    }
    return out[0] == 0 && out[comm->ranks] == rows;
}

static bool are_uneven(const struct comm *comm, const int64_t *bound)
{
    int64_t longest = 0;
    for (int p = 0; p < comm->ranks; p++) {
        longest = bound[p + 1] - bound[p] > longest ? bound[p + 1] - bound[p] : longest;
    }
    return longest * comm->ranks > 2 * bound[comm->ranks];
}

static void name_ask(char name[COMM_NAME], enum comm_kind kind, const struct tensor *tensor)
{
    static const char *const verbs[] = { [COMM_ALL_REDUCE] = "all-reduce",
                                         [COMM_REDUCE_SCATTER] = "reduce-scatter",
                                         [COMM_ALL_GATHER] = "all-gather" };
    snprintf(name, COMM_NAME, "%s of %.80s", verbs[kind], tensor->name ? tensor->name : "a tensor");
}

/* A bucket's tensors are exchanged in no order. */
static bool overlaps(const struct comm *comm, const struct comm_ask *ask)
{
    const struct comm_bucket *bucket = comm->bucket;
    uintptr_t begin = (uintptr_t)ask->data;
    for (int i = 0; i < bucket->count && !comm->imaginary; i++) {
        uintptr_t other = (uintptr_t)bucket->ask[i].data;
        if (begin < other + bucket->ask[i].bytes && other < begin + ask->bytes) {
            return true;
        }
    }
    return false;
}

static void ask(struct comm *comm, struct backend *be, enum comm_kind kind,
                const struct tensor *tensor, const int64_t *bound)
{
    struct comm_bucket *bucket = comm->bucket;
    struct comm_ask *ask = &bucket->ask[bucket->count];
    char name[COMM_NAME];
    if (!sends(comm)) {
        return;
    }
    size_t width = dtype_size(tensor->dtype);
    bool elements = kind == COMM_ALL_REDUCE;
    int64_t units = elements ? tensor_count(tensor) : tensor_rows(tensor);
    ask->kind = kind;
    ask->dtype = tensor->dtype;
    ask->data = tensor->data;
    ask->bytes = tensor_bytes(tensor);
    ask->unit_bytes = elements ? width : (size_t)tensor_columns(tensor) * width;
    name_ask(name, kind, tensor);
    if (!take_bounds(comm, bound, units, ask->bound)) {
        comm_fail(comm, "rank %d: the %s was asked for with bounds that are not those of %lld rows",
                  comm->rank, name, (long long)units);
    } else if (overlaps(comm, ask)) {
        comm_fail(comm, "rank %d: the %s was asked for while its memory was part of the %s",
                  comm->rank, name, bucket->what);
    } else {
        if (bucket->count == 0) {
            snprintf(bucket->what, sizeof bucket->what, "%s", name);
        }
        ask->uneven = are_uneven(comm, ask->bound);
        bucket->be = be;
        bucket->count++;
        bucket->bytes += ask->bytes;
        if (bucket->bytes >= comm->bucket_bytes || bucket->count == COMM_BUCKET_ASKS) {
            send_bucket(comm, false);
        }
    }
}

void comm_ask_all_reduce(struct comm *comm, struct backend *be, struct tensor *tensor)
{
    ask(comm, be, COMM_ALL_REDUCE, tensor, NULL);
}

void comm_ask_reduce_scatter(struct comm *comm, struct backend *be, struct tensor *tensor,
                             const int64_t *bound)
{
    ask(comm, be, COMM_REDUCE_SCATTER, tensor, bound);
}

void comm_ask_all_gather(struct comm *comm, struct backend *be, struct tensor *tensor,
                         const int64_t *bound)
{
    ask(comm, be, COMM_ALL_GATHER, tensor, bound);
}

void comm_wait(struct comm *comm, struct backend *be)
{
    send_bucket(comm, true);
    if (comm->ops->wait != NULL && (comm->ranks > 1 || comm->to_itself)) {
        int part = backend_time_part(be, BACKEND_PART_EXCHANGE);
        comm->ops->wait(comm, be);
        backend_time_part(be, part);
    }
}

void comm_all_reduce(struct comm *comm, struct backend *be, struct tensor *tensor)
{
    comm_ask_all_reduce(comm, be, tensor);
    comm_wait(comm, be);
}

void comm_all_gather(struct comm *comm, struct backend *be, struct tensor *tensor)
{
    comm_ask_all_gather(comm, be, tensor, NULL);
    comm_wait(comm, be);
}

/* ---- host memory ---------------------------------------------------------------------------- */

/* Whether there is anything to do; notes what. */
static bool begins(struct comm *comm, const char *verb, const char *what, double bytes)
{
    char name[sizeof comm->last];
    if (comm->ranks == 1 || comm->failed) {
        return false;
    }
    send_bucket(comm, true);
    if (comm->failed) {
        return false;
    }
    snprintf(name, sizeof name, "%s of %.90s", verb, what ? what : "bytes");
    announce(comm, name);
    count_bytes(comm, bytes, 1);
    comm->counts.payload_bytes += bytes;
    comm->counts.hops += comm->ranks - 1;
    return true;
}

void comm_broadcast_bytes(struct comm *comm, const char *what, void *data, size_t bytes)
{
    if (begins(comm, "broadcast", what, (double)bytes)) {
        double began = clock_monotonic();
        comm->ops->broadcast_bytes(comm, data, bytes, 0);
        comm->counts.wait_seconds += clock_monotonic() - began;
    }
}

void comm_all_gather_bytes(struct comm *comm, const char *what, const void *mine, void *all,
                           size_t bytes)
{
    memset(all, 0, bytes * (size_t)comm->ranks);
    memcpy((char *)all + bytes * (size_t)comm->rank, mine, bytes);
    if (begins(comm, "all-gather", what, (double)bytes * comm->ranks)) {
        double began = clock_monotonic();
        comm->ops->all_gather_bytes(comm, mine, all, bytes);
        comm->counts.wait_seconds += clock_monotonic() - began;
    }
}

void comm_fetch_bytes(struct comm *comm, const char *what, int owner, void *data, size_t bytes)
{
    if (comm->imaginary && comm->rank == 0 && owner != 0) {
        memset(data, 0, bytes);
    }
    if (owner != 0 && begins(comm, "fetch", what, (double)bytes)) {
        double began = clock_monotonic();
        comm->ops->broadcast_bytes(comm, data, bytes, owner);
        comm->counts.wait_seconds += clock_monotonic() - began;
    }
}

int64_t comm_sum_count(struct comm *comm, int64_t count)
{
    int64_t *all = xcalloc((size_t)comm->ranks, sizeof *all);
    int64_t sum = 0;
    comm_all_gather_bytes(comm, "counts", &count, all, sizeof count);
    for (int p = 0; p < comm->ranks; p++) {
        sum += all[p];
    }
    free(all);
    /* Ranks that nobody plays have as much as this one. */
    return comm->imaginary ? count * comm->ranks : sum;
}

void comm_barrier(struct comm *comm, const char *what)
{
    char *all = xcalloc((size_t)comm->ranks, 1);
    comm_all_gather_bytes(comm, what, "", all, 1);
    free(all);
}
