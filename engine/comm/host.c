/*
 * Collectives through host memory, over a transport.
 *
 * What belongs to rank p of all tensors of a bucket is, one piece behind the other, a stream of
 * bytes. Sums go in rounds: a part of everybody's stream p is sent to rank p, which adds them in
 * the order of the ranks. Then each rank's own stream of what all shall have is handed to all, in
 * rounds too. So each rank sends 2 (P - 1) / P of a tensor that is summed for all, adds 1 / P of
 * it, and all get the same bits whatever P is and whoever is late. Parts are as long as the longest
 * stream asks for. A tensor whose shares are so uneven that this would cost more than if it went to
 * everybody goes so, in equal parts: rows that are given back pass both ways then, where a rank
 * takes, of what it would else add, what comes from the owner.
 *
 * Where tensors lie in host memory a thread of the engine's own sends a bucket, unless the caller
 * has nothing to do but wait for it. The transport belongs to that thread until host_wait; errors
 * are latched, and `waiting` is called, by the caller's thread alone.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/base/xalloc.h"
#include "engine/comm/engine.h"
#include "engine/comm/transport.h"
#include "engine/comm/worker.h"

/* Pieces of a stream begin at multiples of this, so that no number lies in two rounds. */
enum { PIECE_ALIGNMENT = 16 };
_Static_assert(TRANSPORT_PART_BYTES % PIECE_ALIGNMENT == 0, "a round ends between numbers");

/* While others are waited for, the caller looks that often whether to give up. */
static const double look_seconds = 1e-3;

struct host {
    struct transport *transport; /* NULL after comm_abort */
    char *send;                  /* a part for each rank */
    char *receive;               /* likewise */
    char *sum;                   /* one part */
    struct worker *worker;       /* NULL: there was nothing to do for it yet */
};

static struct host *host_of(struct comm *comm)
{
    return comm->state;
}

static void lost(struct comm *comm, const char *what)
{
    comm_fail(comm, "rank %d: the %s did not come about: %s", comm->rank, what,
              host_of(comm)->transport->error);
}

/* ---- streams -------------------------------------------------------------------------------- */

/* Bytes [at, at + bytes) of the streams of a bucket, without tensors of the kind `but`, unless they
 * are uneven. */
struct round {
    const struct comm_bucket *bucket;
    int ranks;
    enum comm_kind but;
    size_t at;
    size_t bytes;
};

/* Part of one tensor that a round sends of a rank's stream. */
struct piece {
    const struct comm_ask *ask;
    char *data;
    size_t at; /* in the round */
    size_t bytes;
};

struct cursor {
    int rank;
    int next;  /* ask */
    size_t at; /* in the stream */
};

struct part {
    size_t first; /* byte of the tensor */
    size_t bytes;
};

static struct part part_of(const struct comm_ask *ask, int rank, int ranks)
{
    if (!ask->uneven) {
        return (struct part){ comm_part_first(ask, rank), comm_part_bytes(ask, rank) };
    }
    size_t width = dtype_size(ask->dtype);
    size_t count = ask->bytes / width;
    size_t share = (count + (size_t)ranks - 1) / (size_t)ranks * width;
    size_t first = (size_t)rank * share < ask->bytes ? (size_t)rank * share : ask->bytes;
    return (struct part){ first, ask->bytes - first < share ? ask->bytes - first : share };
}

static bool next_piece(const struct round *round, struct cursor *cursor, struct piece *piece)
{
    while (cursor->next < round->bucket->count) {
        const struct comm_ask *ask = &round->bucket->ask[cursor->next++];
        if (ask->kind == round->but && !ask->uneven) {
            continue;
        }
        struct part part = part_of(ask, cursor->rank, round->ranks);
        size_t begin = cursor->at;
        size_t end = begin + part.bytes;
        size_t from = begin > round->at ? begin : round->at;
        size_t to = end < round->at + round->bytes ? end : round->at + round->bytes;
        cursor->at = (end + PIECE_ALIGNMENT - 1) / PIECE_ALIGNMENT * PIECE_ALIGNMENT;
        if (from < to) {
            *piece = (struct piece){
                .ask = ask,
                .data = ask->data + part.first + (from - begin),
                .at = from - round->at,
                .bytes = to - from,
            };
            return true;
        }
    }
    return false;
}

/* Of the longest stream. */
static size_t stream_bytes(const struct comm_bucket *bucket, enum comm_kind but, int ranks)
{
    size_t longest = 0;
    for (int p = 0; p < ranks; p++) {
        const struct round none = { .bucket = bucket, .ranks = ranks, .but = but };
        struct cursor cursor = { .rank = p };
        struct piece piece;
        next_piece(&none, &cursor, &piece); /* nothing is in a round of no bytes: goes to the end */
        longest = cursor.at > longest ? cursor.at : longest;
    }
    return longest;
}

/* ---- rounds --------------------------------------------------------------------------------- */

/* Nothing of the backend itself is touched then: it may be at work for another thread. */
static bool in_host_memory(const struct backend *be)
{
    return be->facts.host_accessible && !be->facts.asynchronous;
}

/* What this rank sends of the stream of `rank`. */
static void pack(const struct round *round, int rank, char *to)
{
    struct cursor cursor = { .rank = rank };
    struct backend *be = round->bucket->be;
    struct piece piece;
    while (next_piece(round, &cursor, &piece)) {
        if (in_host_memory(be)) {
            memcpy(to + piece.at, piece.data, piece.bytes);
        } else {
            backend_download(be, to + piece.at, piece.data, piece.bytes);
        }
    }
}

static void unpack(const struct round *round, int rank, const char *from)
{
    struct cursor cursor = { .rank = rank };
    struct backend *be = round->bucket->be;
    struct piece piece;
    while (next_piece(round, &cursor, &piece)) {
        if (in_host_memory(be)) {
            memcpy(piece.data, from + piece.at, piece.bytes);
        } else {
            backend_upload(be, piece.data, from + piece.at, piece.bytes);
        }
    }
}

/* Adds `bytes` at `at` of all ranks' parts, in their order, and rounds once. */
static void add_parts(const struct host *host, const struct round *round, const struct piece *piece)
{
    enum { CHUNK = 1024 };
    float sum[CHUNK];
    bool half = piece->ask->dtype == DTYPE_BF16;
    size_t width = dtype_size(piece->ask->dtype);
    size_t count = piece->bytes / width;
    for (size_t first = 0; first < count; first += CHUNK) {
        size_t n = count - first < CHUNK ? count - first : CHUNK;
        size_t at = piece->at + first * width;
        for (int p = 0; p < round->ranks; p++) {
            const void *from = host->receive + (size_t)p * round->bytes + at;
            for (size_t i = 0; i < n; i++) {
                float value =
                    half ? bf16_to_float(((const uint16_t *)from)[i]) : ((const float *)from)[i];
                sum[i] = p > 0 ? sum[i] + value : value; /* a sum of -0 is -0 */
            }
        }
        void *to = host->sum + at;
        for (size_t i = 0; i < n; i++) {
            if (half) {
                ((uint16_t *)to)[i] = bf16_from_float(sum[i]);
            } else {
                ((float *)to)[i] = sum[i];
            }
        }
    }
}

/* Takes of each rank's part what it owns. */
static void pick_parts(const struct host *host, const struct round *round,
                       const struct piece *piece)
{
    size_t begin = (size_t)(piece->data - piece->ask->data);
    for (int p = 0; p < round->ranks; p++) {
        size_t first = comm_part_first(piece->ask, p);
        size_t end = first + comm_part_bytes(piece->ask, p);
        size_t from = first > begin ? first : begin;
        size_t to = end < begin + piece->bytes ? end : begin + piece->bytes;
        if (from < to) {
            size_t at = piece->at + (from - begin);
            memcpy(host->sum + at, host->receive + (size_t)p * round->bytes + at, to - from);
        }
    }
}

static int sum_round(struct host *host, const struct round *round)
{
    struct transport *transport = host->transport;
    struct cursor cursor = { .rank = transport->rank };
    struct piece piece;
    for (int p = 0; p < transport->ranks; p++) {
        pack(round, p, host->send + (size_t)p * round->bytes);
    }
    if (transport->ops->exchange(transport, host->send, host->receive, round->bytes) != 0) {
        return -1;
    }
    while (next_piece(round, &cursor, &piece)) {
        if (piece.ask->kind == COMM_ALL_GATHER) {
            pick_parts(host, round, &piece);
        } else {
            add_parts(host, round, &piece);
        }
    }
    unpack(round, transport->rank, host->sum);
    return 0;
}

static int spread_round(struct host *host, const struct round *round)
{
    struct transport *transport = host->transport;
    pack(round, transport->rank, host->send);
    if (transport->ops->gather(transport, host->send, host->receive, round->bytes) != 0) {
        return -1;
    }
    for (int p = 0; p < transport->ranks; p++) {
        if (p != transport->rank) {
            unpack(round, p, host->receive + (size_t)p * round->bytes);
        }
    }
    return 0;
}

static int go_around(struct host *host, const struct comm_bucket *bucket, enum comm_kind but,
                     int (*go)(struct host *host, const struct round *round))
{
    size_t total = stream_bytes(bucket, but, host->transport->ranks);
    int result = 0;
    for (size_t at = 0; at < total && result == 0; at += TRANSPORT_PART_BYTES) {
        size_t left = total - at;
        result = go(host, &(struct round){
                              .bucket = bucket,
                              .ranks = host->transport->ranks,
                              .but = but,
                              .at = at,
                              .bytes = left < TRANSPORT_PART_BYTES ? left : TRANSPORT_PART_BYTES,
                          });
    }
    return result;
}

static int exchange(struct host *host, const struct comm_bucket *bucket)
{
    int result = go_around(host, bucket, COMM_ALL_GATHER, sum_round);
    return result == 0 ? go_around(host, bucket, COMM_REDUCE_SCATTER, spread_round) : result;
}

/* ---- beside the caller ---------------------------------------------------------------------- */

/* On the worker's thread. */
static int exchange_beside(void *context, const struct comm_bucket *bucket)
{
    struct host *host = context;
    host->transport->waiting = worker_goes_on;
    host->transport->context = host->worker;
    return exchange(host, bucket);
}

/* Looks once whether this rank still waits for others. */
static void look(struct comm *comm, const char *under_way)
{
    memcpy(comm->last, under_way, sizeof comm->last);
    if (comm->failed || (comm->waiting != NULL && !comm->waiting(comm->context))) {
        worker_give_up(host_of(comm)->worker);
    }
}

static void host_wait(struct comm *comm, struct backend *be)
{
    struct host *host = host_of(comm);
    char what[COMM_WHAT];
    (void)be;
    if (host->worker == NULL) {
        return;
    }
    while (worker_busy(host->worker, look_seconds, what)) {
        look(comm, what);
    }
    if (worker_failed(host->worker, what)) {
        lost(comm, what);
    }
}

/* Tensors may be gone after that. */
static void host_leave(struct comm *comm)
{
    if (host_of(comm)->transport != NULL) {
        host_wait(comm, NULL);
    }
}

/* Waits until the transport is the caller's. */
static struct transport *take_transport(struct comm *comm)
{
    struct transport *transport = host_of(comm)->transport;
    char last[sizeof comm->last];
    memcpy(last, comm->last, sizeof last);
    host_wait(comm, NULL);
    memcpy(comm->last, last, sizeof last);
    transport->waiting = comm->waiting;
    transport->context = comm->context;
    return transport;
}

/* Whether a worker is there to send what lies in host memory. */
static bool has_worker(struct host *host, const struct comm_bucket *bucket)
{
    if (!in_host_memory(bucket->be) || host->transport->one_thread) {
        return false;
    }
    if (host->worker == NULL) {
        host->worker = worker_open(host->transport->ranks, exchange_beside, host);
    }
    return host->worker != NULL;
}

static void host_send(struct comm *comm, const struct comm_bucket *bucket, bool waits)
{
    struct host *host = host_of(comm);
    char what[COMM_WHAT];
    bool busy = host->worker != NULL && worker_busy(host->worker, 0.0, what);
    if ((waits && !busy) || !has_worker(host, bucket)) {
        take_transport(comm);
        if (!comm->failed && exchange(host, bucket) != 0) {
            lost(comm, bucket->what);
        }
        return;
    }
    while (!worker_post(host->worker, bucket)) {
        if (worker_busy(host->worker, look_seconds, what)) {
            look(comm, what);
        }
    }
    if (worker_failed(host->worker, what)) {
        host_wait(comm, bucket->be);
    }
}

/* ---- what lies in host memory --------------------------------------------------------------- */

static void host_broadcast_bytes(struct comm *comm, void *data, size_t bytes, int root)
{
    struct transport *transport = take_transport(comm);
    for (size_t at = 0; at < bytes && !comm->failed; at += TRANSPORT_PART_BYTES) {
        size_t part = bytes - at < TRANSPORT_PART_BYTES ? bytes - at : TRANSPORT_PART_BYTES;
        void *here = data != NULL ? (char *)data + at : host_of(comm)->receive;
        if (transport->ops->broadcast(transport, here, part, root) != 0) {
            lost(comm, comm->last);
        }
    }
}

static void host_all_gather_bytes(struct comm *comm, const void *mine, void *all, size_t bytes)
{
    struct transport *transport = take_transport(comm);
    char *receive = host_of(comm)->receive;
    for (size_t at = 0; at < bytes && !comm->failed; at += TRANSPORT_PART_BYTES) {
        size_t part = bytes - at < TRANSPORT_PART_BYTES ? bytes - at : TRANSPORT_PART_BYTES;
        if (transport->ops->gather(transport, (const char *)mine + at, receive, part) != 0) {
            lost(comm, comm->last);
            return;
        }
        for (int p = 0; p < comm->ranks; p++) {
            memcpy((char *)all + (size_t)p * bytes + at, receive + (size_t)p * part, part);
        }
    }
}

/* ---- ending --------------------------------------------------------------------------------- */

/* What is under way is waited for, unless all is lost. */
static void end_transport(struct comm *comm)
{
    struct host *host = host_of(comm);
    if (host->transport == NULL) {
        return;
    }
    host_leave(comm);
    worker_close(host->worker);
    host->worker = NULL;
    host->transport->ops->close(host->transport, comm->failed);
    host->transport = NULL;
}

static void host_close(struct comm *comm)
{
    struct host *host = host_of(comm);
    end_transport(comm);
    free(host->send);
    free(host->receive);
    free(host->sum);
    free(host);
}

static const struct comm_ops host_ops = {
    .name = "host",
    .send = host_send,
    .wait = host_wait,
    .broadcast_bytes = host_broadcast_bytes,
    .all_gather_bytes = host_all_gather_bytes,
    .leave = host_leave,
    .abort = end_transport,
    .close = host_close,
};

struct comm *comm_open_host(struct transport *transport)
{
    struct comm *comm = comm_make(&host_ops, transport->rank, transport->ranks);
    struct host *host = xcalloc(1, sizeof *host);
    size_t block = TRANSPORT_PART_BYTES * (size_t)transport->ranks;
    host->transport = transport;
    host->send = xcalloc(block, 1);
    host->receive = xcalloc(block, 1);
    host->sum = xcalloc(TRANSPORT_PART_BYTES, 1);
    comm->local_rank = transport->local_rank;
    comm->state = host;
    return comm;
}
