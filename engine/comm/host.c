/*
 * Collectives through host memory, over a transport.
 *
 * What belongs to rank p of all tensors of a bucket is, one piece behind the other, a stream of
 * bytes. Sums go in rounds: a part of everybody's stream p is sent to rank p, which adds them in
 * the order of the ranks. Then each rank's own stream of what all shall have is handed to all, in
 * rounds too. So each rank sends 2 (P - 1) / P of a tensor that is summed for all, adds 1 / P of
 * it, and all get the same bits whatever P is and whoever is late. Parts are as long as the longest
 * stream asks for: uneven shares cost more.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/base/xalloc.h"
#include "engine/comm/engine.h"
#include "engine/comm/transport.h"

/* Pieces of a stream begin at multiples of this, so that no number lies in two rounds. */
enum { PIECE_ALIGNMENT = 16 };
_Static_assert(TRANSPORT_PART_BYTES % PIECE_ALIGNMENT == 0, "a round ends between numbers");

struct host {
    struct transport *transport; /* NULL after comm_abort */
    char *send;                  /* a part for each rank */
    char *receive;               /* likewise */
    char *sum;                   /* one part */
};

static struct host *host_of(struct comm *comm)
{
    return comm->state;
}

static void lost(struct comm *comm)
{
    comm_fail(comm, "rank %d: the %s did not come about: %s", comm->rank, comm->last,
              host_of(comm)->transport->error);
}

/* ---- streams -------------------------------------------------------------------------------- */

/* Bytes [at, at + bytes) of the streams of a bucket, without tensors of the kind `but`. */
struct round {
    const struct comm_bucket *bucket;
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

static bool next_piece(const struct round *round, struct cursor *cursor, struct piece *piece)
{
    while (cursor->next < round->bucket->count) {
        const struct comm_ask *ask = &round->bucket->ask[cursor->next++];
        if (ask->kind == round->but) {
            continue;
        }
        size_t begin = cursor->at;
        size_t end = begin + comm_part_bytes(ask, cursor->rank);
        size_t from = begin > round->at ? begin : round->at;
        size_t to = end < round->at + round->bytes ? end : round->at + round->bytes;
        cursor->at = (end + PIECE_ALIGNMENT - 1) / PIECE_ALIGNMENT * PIECE_ALIGNMENT;
        if (from < to) {
            *piece = (struct piece){
                .ask = ask,
                .data = ask->data + comm_part_first(ask, cursor->rank) + (from - begin),
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
        const struct round none = { .bucket = bucket, .but = but };
        struct cursor cursor = { .rank = p };
        struct piece piece;
        next_piece(&none, &cursor, &piece); /* nothing is in a round of no bytes: goes to the end */
        longest = cursor.at > longest ? cursor.at : longest;
    }
    return longest;
}

/* ---- rounds --------------------------------------------------------------------------------- */

/* What this rank sends of the stream of `rank`. */
static void pack(const struct round *round, int rank, char *to)
{
    struct cursor cursor = { .rank = rank };
    struct piece piece;
    while (next_piece(round, &cursor, &piece)) {
        backend_download(round->bucket->be, to + piece.at, piece.data, piece.bytes);
    }
}

static void unpack(const struct round *round, int rank, const char *from)
{
    struct cursor cursor = { .rank = rank };
    struct piece piece;
    while (next_piece(round, &cursor, &piece)) {
        backend_upload(round->bucket->be, piece.data, from + piece.at, piece.bytes);
    }
}

/* Adds `bytes` at `at` of all ranks' parts, in their order, and rounds once. */
static void add_parts(const struct host *host, const struct round *round, const struct piece *piece,
                      int ranks)
{
    enum { CHUNK = 1024 };
    float sum[CHUNK];
    bool half = piece->ask->dtype == DTYPE_BF16;
    size_t width = dtype_size(piece->ask->dtype);
    size_t count = piece->bytes / width;
    for (size_t first = 0; first < count; first += CHUNK) {
        size_t n = count - first < CHUNK ? count - first : CHUNK;
        size_t at = piece->at + first * width;
        memset(sum, 0, sizeof sum);
        for (int p = 0; p < ranks; p++) {
            const void *from = host->receive + (size_t)p * round->bytes + at;
            for (size_t i = 0; i < n; i++) {
                sum[i] +=
                    half ? bf16_to_float(((const uint16_t *)from)[i]) : ((const float *)from)[i];
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

static void sum_round(struct comm *comm, const struct round *round)
{
    struct host *host = host_of(comm);
    struct cursor cursor = { .rank = comm->rank };
    struct piece piece;
    for (int p = 0; p < comm->ranks; p++) {
        pack(round, p, host->send + (size_t)p * round->bytes);
    }
    if (host->transport->ops->exchange(host->transport, host->send, host->receive, round->bytes) !=
        0) {
        lost(comm);
        return;
    }
    while (next_piece(round, &cursor, &piece)) {
        add_parts(host, round, &piece, comm->ranks);
    }
    unpack(round, comm->rank, host->sum);
}

static void spread_round(struct comm *comm, const struct round *round)
{
    struct host *host = host_of(comm);
    pack(round, comm->rank, host->send);
    if (host->transport->ops->gather(host->transport, host->send, host->receive, round->bytes) !=
        0) {
        lost(comm);
        return;
    }
    for (int p = 0; p < comm->ranks; p++) {
        if (p != comm->rank) {
            unpack(round, p, host->receive + (size_t)p * round->bytes);
        }
    }
}

static void go_around(struct comm *comm, const struct comm_bucket *bucket, enum comm_kind but,
                      void (*go)(struct comm *comm, const struct round *round))
{
    size_t total = stream_bytes(bucket, but, comm->ranks);
    for (size_t at = 0; at < total && !comm->failed; at += TRANSPORT_PART_BYTES) {
        size_t left = total - at;
        go(comm, &(struct round){
                     .bucket = bucket,
                     .but = but,
                     .at = at,
                     .bytes = left < TRANSPORT_PART_BYTES ? left : TRANSPORT_PART_BYTES,
                 });
    }
}

static void host_send(struct comm *comm, const struct comm_bucket *bucket)
{
    go_around(comm, bucket, COMM_ALL_GATHER, sum_round);
    go_around(comm, bucket, COMM_REDUCE_SCATTER, spread_round);
}

/* ---- what lies in host memory --------------------------------------------------------------- */

static void host_broadcast_bytes(struct comm *comm, void *data, size_t bytes, int root)
{
    struct host *host = host_of(comm);
    for (size_t at = 0; at < bytes && !comm->failed; at += TRANSPORT_PART_BYTES) {
        size_t part = bytes - at < TRANSPORT_PART_BYTES ? bytes - at : TRANSPORT_PART_BYTES;
        void *here = data != NULL ? (char *)data + at : host->receive;
        if (host->transport->ops->broadcast(host->transport, here, part, root) != 0) {
            lost(comm);
        }
    }
}

static void host_all_gather_bytes(struct comm *comm, const void *mine, void *all, size_t bytes)
{
    struct host *host = host_of(comm);
    for (size_t at = 0; at < bytes && !comm->failed; at += TRANSPORT_PART_BYTES) {
        size_t part = bytes - at < TRANSPORT_PART_BYTES ? bytes - at : TRANSPORT_PART_BYTES;
        if (host->transport->ops->gather(host->transport, (const char *)mine + at, host->receive,
                                         part) != 0) {
            lost(comm);
            return;
        }
        for (int p = 0; p < comm->ranks; p++) {
            memcpy((char *)all + (size_t)p * bytes + at, host->receive + (size_t)p * part, part);
        }
    }
}

/* ---- ending --------------------------------------------------------------------------------- */

static void host_on_wait(struct comm *comm, bool (*waiting)(void *context), void *context)
{
    struct transport *transport = host_of(comm)->transport;
    if (transport != NULL) {
        transport->waiting = waiting;
        transport->context = context;
    }
}

static void end_transport(struct comm *comm)
{
    struct host *host = host_of(comm);
    if (host->transport != NULL) {
        host->transport->ops->close(host->transport, comm->failed);
        host->transport = NULL;
    }
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
    .broadcast_bytes = host_broadcast_bytes,
    .all_gather_bytes = host_all_gather_bytes,
    .on_wait = host_on_wait,
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
