/*
 * Collectives by NCCL, with a communicator that does not block: whatever it is asked, it may answer
 * "in progress", and its state is asked until that is over.
 *
 * Sources: NCCL's documentation, "Fault tolerance" and "Non-blocking communicators".
 */
#include "engine/comm/nccl.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/base/xalloc.h"
#include "engine/comm/engine.h"
#include "engine/comm/nccl_library.h"
#include "kernels/transfer.h"

static const double default_patience_s = 5.0;
/* A state is asked so often without a rest: most are there at once. */
enum { EAGER_LOOKS = 200, REST_NS = 20 * 1000 };

struct nccl {
    struct comm host; /* what it was before */
    struct nccl_library call;
    void *comm; /* NULL: not there, or not any more */
    struct backend *be;
    bool sent; /* something that was not waited for */
    double patience_s;
};

static struct nccl *nccl_of(struct comm *comm)
{
    return comm->state;
}

/* ---- giving up ------------------------------------------------------------------------------ */

struct abortion {
    int (*abort)(void *comm);
    void *comm;
    atomic_bool done;
};

static void *abort_comm(void *context)
{
    struct abortion *abortion = context;
    abortion->abort(abortion->comm);
    atomic_store(&abortion->done, true);
    return NULL;
}

static void rest(int looks)
{
    if (looks > EAGER_LOOKS) {
        nanosleep(&(struct timespec){ .tv_nsec = REST_NS }, NULL);
    }
}

/* Ends NCCL without the others. Its kernels leave the device, which so can be waited for again. */
static void drop(struct comm *comm)
{
    struct nccl *nccl = nccl_of(comm);
    struct abortion abortion = { .abort = nccl->call.abort, .comm = nccl->comm };
    pthread_t thread;
    if (nccl->comm == NULL) {
        return;
    }
    nccl->comm = NULL;
    if (pthread_create(&thread, NULL, abort_comm, &abortion) != 0) {
        abort_comm(&abortion);
        return;
    }
    double until = clock_monotonic() + nccl->patience_s;
    for (int looks = 0; !atomic_load(&abortion.done) && clock_monotonic() < until; looks++) {
        rest(looks);
    }
    if (!atomic_load(&abortion.done)) {
        fprintf(stderr, "%s; NCCL does not let go of the device, rank %d ends\n",
                comm->failed ? comm->error : "the device has failed", comm->rank);
        _exit(ERROR_RUNTIME);
    }
    pthread_join(thread, NULL);
}

static void lose(struct comm *comm, int result)
{
    struct nccl *nccl = nccl_of(comm);
    if (result == NCCL_IN_PROGRESS) {
        comm_fail(comm, "rank %d: the %s did not come about: it was given up", comm->rank,
                  comm->last);
    } else {
        const char *last = nccl->call.last_error(nccl->comm);
        comm_fail(comm, "rank %d: the %s did not come about: NCCL: %s%s%.200s", comm->rank,
                  comm->last, nccl->call.error_string(result), last && last[0] ? ": " : "",
                  last ? last : "");
    }
    drop(comm);
}

/* ---- waiting -------------------------------------------------------------------------------- */

/* Until NCCL has taken what it was asked, and, if `done`, the device has done it; `result` is what
 * it answered. False, with the error latched and NCCL ended, if that does not come about. */
static bool await(struct comm *comm, int result, bool done)
{
    struct nccl *nccl = nccl_of(comm);
    for (int looks = 0;; looks++) {
        bool taken = result == NCCL_SUCCESS;
        if (!taken && result != NCCL_IN_PROGRESS) {
            lose(comm, result);
            return false;
        }
        if (taken && (!done || backend_lane_idle(nccl->be))) {
            return true;
        }
        if (comm->waiting != NULL && !comm->waiting(comm->context)) {
            lose(comm, NCCL_IN_PROGRESS);
            return false;
        }
        rest(looks);
        int asked = nccl->call.state(nccl->comm, &result);
        result = asked != NCCL_SUCCESS ? asked : result;
    }
}

static void nccl_wait(struct comm *comm, struct backend *be)
{
    struct nccl *nccl = nccl_of(comm);
    int result = NCCL_SUCCESS;
    if (comm->failed) {
        drop(comm);
    } else if (nccl->comm != NULL && nccl->sent) {
        nccl->sent = false;
        int asked = nccl->call.state(nccl->comm, &result);
        if (await(comm, asked != NCCL_SUCCESS ? asked : result, true)) {
            backend_lane_end(be);
        }
    }
}

/* ---- collectives ---------------------------------------------------------------------------- */

/* False where there is nothing to do: NCCL is gone, the device has failed, or a part is being
 * recorded, which a collective cannot be part of. */
static bool begin(struct comm *comm, struct backend *be, void **stream)
{
    return nccl_of(comm)->comm != NULL && backend_lane_begin(be, stream);
}

/* One call for every rank's share: shares that are equal have calls of their own, others go one by
 * one. */
static int send_shares(struct comm *comm, const struct comm_ask *ask, int type, void *stream)
{
    struct nccl *nccl = nccl_of(comm);
    const struct nccl_library *call = &nccl->call;
    size_t part = comm_part_bytes(ask, 0);
    size_t width = dtype_size(ask->dtype);
    char *mine = ask->data + comm_part_first(ask, comm->rank);
    bool sums = ask->kind == COMM_REDUCE_SCATTER;
    bool equal = true;
    for (int p = 1; p < comm->ranks; p++) {
        equal = equal && comm_part_bytes(ask, p) == part;
    }
    if (equal && sums) {
        return call->reduce_scatter(ask->data, mine, part / width, type, NCCL_SUM, nccl->comm,
                                    stream);
    }
    if (equal) {
        return call->all_gather(mine, ask->data, part, NCCL_BYTE, nccl->comm, stream);
    }
    int result = NCCL_SUCCESS;
    for (int p = 0; p < comm->ranks && (result == NCCL_SUCCESS || result == NCCL_IN_PROGRESS);
         p++) {
        char *data = ask->data + comm_part_first(ask, p);
        size_t bytes = comm_part_bytes(ask, p);
        if (bytes > 0 && sums) {
            result = call->reduce(data, data, bytes / width, type, NCCL_SUM, p, nccl->comm, stream);
        } else if (bytes > 0) {
            result = call->broadcast(data, data, bytes, NCCL_BYTE, p, nccl->comm, stream);
        }
    }
    return result;
}

static int send_one(struct comm *comm, const struct comm_ask *ask, void *stream)
{
    struct nccl *nccl = nccl_of(comm);
    int type = ask->dtype == DTYPE_BF16 ? NCCL_BFLOAT16 : NCCL_FLOAT32;
    if (ask->bytes == 0) {
        return NCCL_SUCCESS;
    }
    if (ask->kind == COMM_ALL_REDUCE) {
        return nccl->call.all_reduce(ask->data, ask->data, ask->bytes / dtype_size(ask->dtype),
                                     type, NCCL_SUM, nccl->comm, stream);
    }
    return send_shares(comm, ask, type, stream);
}

/* A group, which NCCL makes one launch of. Operations asked later do not wait for it: until
 * nccl_wait they have nothing to do with these tensors. */
static void nccl_send(struct comm *comm, const struct comm_bucket *bucket, bool waits)
{
    (void)waits; /* it is asked for in any case, and done beside the host */
    struct nccl *nccl = nccl_of(comm);
    void *stream = NULL;
    if (!begin(comm, bucket->be, &stream)) {
        return;
    }
    nccl->sent = true;
    int result = nccl->call.group_start();
    for (int i = 0; i < bucket->count && result == NCCL_SUCCESS; i++) {
        int asked = send_one(comm, &bucket->ask[i], stream);
        result = asked != NCCL_IN_PROGRESS ? asked : result;
    }
    int ended = nccl->call.group_end();
    await(comm, result != NCCL_SUCCESS ? result : ended, false);
}

/* ---- what stays in host memory -------------------------------------------------------------- */

static struct comm *host_begin(struct comm *comm)
{
    struct comm *host = &nccl_of(comm)->host;
    memcpy(host->last, comm->last, sizeof host->last);
    host->waiting = comm->waiting;
    host->context = comm->context;
    return host;
}

static void host_end(struct comm *comm, const struct comm *host)
{
    if (host->failed) {
        comm_fail(comm, "%s", host->error);
    }
}

static void nccl_broadcast_bytes(struct comm *comm, void *data, size_t bytes, int root)
{
    struct comm *host = host_begin(comm);
    host->ops->broadcast_bytes(host, data, bytes, root);
    host_end(comm, host);
}

static void nccl_all_gather_bytes(struct comm *comm, const void *mine, void *all, size_t bytes)
{
    struct comm *host = host_begin(comm);
    host->ops->all_gather_bytes(host, mine, all, bytes);
    host_end(comm, host);
}

/* ---- ending --------------------------------------------------------------------------------- */

/* On good terms this waits for the other ranks, but not for ever. */
static void nccl_leave(struct comm *comm)
{
    struct nccl *nccl = nccl_of(comm);
    if (nccl->comm == NULL) {
        return;
    }
    double until = clock_monotonic() + nccl->patience_s;
    int result =
        comm->failed || nccl->be->failed ? NCCL_IN_PROGRESS : nccl->call.finalize(nccl->comm);
    for (int looks = 0; result == NCCL_IN_PROGRESS && !comm->failed && !nccl->be->failed &&
                        clock_monotonic() < until;
         looks++) {
        rest(looks);
        int asked = nccl->call.state(nccl->comm, &result);
        result = asked != NCCL_SUCCESS ? asked : result;
    }
    if (result == NCCL_SUCCESS) {
        nccl->call.destroy(nccl->comm);
        nccl->comm = NULL;
    } else {
        drop(comm);
    }
}

static void nccl_abort(struct comm *comm)
{
    struct nccl *nccl = nccl_of(comm);
    drop(comm);
    nccl->host.failed = true;
    if (nccl->host.ops->abort != NULL) {
        nccl->host.ops->abort(&nccl->host);
    }
}

static void nccl_close(struct comm *comm)
{
    struct nccl *nccl = nccl_of(comm);
    nccl_leave(comm);
    nccl->host.failed = nccl->host.failed || comm->failed;
    nccl->host.ops->close(&nccl->host);
    free(nccl);
}

static const struct comm_ops nccl_ops = {
    .name = "nccl",
    .send = nccl_send,
    .wait = nccl_wait,
    .broadcast_bytes = nccl_broadcast_bytes,
    .all_gather_bytes = nccl_all_gather_bytes,
    .leave = nccl_leave,
    .abort = nccl_abort,
    .close = nccl_close,
};

/* ---- beginning ------------------------------------------------------------------------------ */

/* What a rank says of itself, or, with an id, rank 0 to all. */
struct greeting {
    int64_t version; /* 0: NCCL cannot be used here */
    struct nccl_id id;
    char why[160];
};

static struct greeting greet(struct nccl *nccl, const struct nccl_options *options)
{
    struct greeting greeting = { .version = 0 };
    const char *wish = getenv("WINDROW_NCCL");
    int version = 0;
    if (wish != NULL && strcmp(wish, "off") == 0) {
        snprintf(greeting.why, sizeof greeting.why, "WINDROW_NCCL=off is set");
    } else if (nccl_library_open(&nccl->call, options->library, greeting.why,
                                 sizeof greeting.why) == 0) {
        int result = nccl->call.version(&version);
        snprintf(greeting.why, sizeof greeting.why, "NCCL does not tell its version: %s",
                 nccl->call.error_string(result));
        greeting.version = result == NCCL_SUCCESS ? version : 0;
    }
    return greeting;
}

/* Whether all ranks can; the id of their communicator. */
static bool agree(struct comm *comm, struct nccl *nccl, const struct nccl_options *options,
                  struct nccl_id *id, char *why, size_t why_size)
{
    struct greeting mine = greet(nccl, options);
    struct greeting *all = xcalloc((size_t)comm->ranks, sizeof *all);
    comm_all_gather_bytes(comm, "who has NCCL", &mine, all, sizeof mine);
    bool can = !comm->failed;
    for (int p = 0; p < comm->ranks && can; p++) {
        can = all[p].version > 0 && all[p].version == all[0].version;
        if (all[p].version == 0) {
            all[p].why[sizeof all[p].why - 1] = '\0';
            snprintf(why, why_size, "rank %d: %s", p, all[p].why);
        } else if (!can) {
            snprintf(why, why_size, "rank %d has version %lld of NCCL, rank 0 %lld", p,
                     (long long)all[p].version, (long long)all[0].version);
        }
    }
    free(all);
    if (can && comm->rank == 0) {
        int result = nccl->call.make_id(&mine.id);
        mine.version = result == NCCL_SUCCESS ? mine.version : 0;
        snprintf(mine.why, sizeof mine.why, "NCCL gives no address to meet at: %s",
                 nccl->call.error_string(result));
    }
    if (can) {
        comm_broadcast_bytes(comm, "the address of NCCL", &mine, sizeof mine);
        can = !comm->failed && mine.version > 0;
        mine.why[sizeof mine.why - 1] = '\0';
        snprintf(why, why_size, "%s", mine.why);
    }
    *id = mine.id;
    return can;
}

/* Sums 1, 2, 3 ... of the ranks: connections are made, and what they bring is right. */
static void try_sum(struct comm *comm, struct backend *be)
{
    enum { COUNT = 1024 };
    float numbers[COUNT];
    struct tensor tensor = { .data = backend_alloc(be, sizeof numbers),
                             .dtype = DTYPE_F32,
                             .rank = 1,
                             .dim = { COUNT, 1, 1, 1 },
                             .name = "a trial" };
    if (tensor.data == NULL) {
        comm_fail(comm, "rank %d: the device has no %zu bytes for a trial of NCCL", comm->rank,
                  sizeof numbers);
        drop(comm);
        return;
    }
    for (int i = 0; i < COUNT; i++) {
        numbers[i] = (float)(comm->rank + 1 + i % 3);
    }
    backend_upload(be, tensor.data, numbers, sizeof numbers);
    comm_all_reduce(comm, be, &tensor);
    if (!comm->failed) {
        backend_download(be, numbers, tensor.data, sizeof numbers);
    }
    backend_free(be, tensor.data, sizeof numbers);
    for (int i = 0; i < COUNT && !comm->failed; i++) {
        float expected = (float)(comm->ranks * (comm->ranks + 1) / 2 + comm->ranks * (i % 3));
        if (numbers[i] != expected) {
            comm_fail(comm, "rank %d: NCCL sums wrongly: %g instead of %g", comm->rank,
                      (double)numbers[i], (double)expected);
            drop(comm);
        }
    }
}

bool comm_use_nccl(struct comm *comm, struct backend *be, const struct nccl_options *options,
                   char *why, size_t why_size)
{
    struct nccl *nccl = xcalloc(1, sizeof *nccl);
    struct nccl_id id;
    snprintf(why, why_size, "%s", "");
    if (!agree(comm, nccl, options, &id, why, why_size)) {
        free(nccl);
        return false;
    }
    if (options->deterministic) {
        setenv("NCCL_ALGO", "Ring", 0);
    }
    nccl->be = be;
    nccl->patience_s = options->patience_s > 0.0 ? options->patience_s : default_patience_s;
    nccl->host = *comm;
    comm->ops = &nccl_ops;
    comm->state = nccl;
    comm->to_itself = comm->ranks == 1;
    snprintf(comm->last, sizeof comm->last, "start of NCCL");
    struct nccl_config config = { .size = sizeof config,
                                  .magic = NCCL_CONFIG_MAGIC,
                                  .version = NCCL_CONFIG_VERSION,
                                  .blocking = 0,
                                  .cga_cluster_size = NCCL_UNDEFINED,
                                  .min_blocks = NCCL_UNDEFINED,
                                  .max_blocks = NCCL_UNDEFINED };
    void *stream = NULL; /* the device of this thread is the one that NCCL takes */
    if (backend_lane_begin(be, &stream)) {
        backend_lane_end(be);
    }
    int result = nccl->call.init(&nccl->comm, comm->ranks, id, comm->rank, &config);
    if (await(comm, result, false)) {
        try_sum(comm, be);
    }
    return !comm->failed;
}
