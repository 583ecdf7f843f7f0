/* What ranks exchange over their connections (tcp_flow.c), or through memory that they share; how
 * that begins and ends. */
#include "engine/comm/tcp.h"

#include <errno.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/base/xalloc.h"
#include "engine/comm/shared.h"
#include "engine/comm/socket.h"
#include "engine/comm/tcp_parts.h"

enum { FAREWELL_POLL_MS = 10 };
#define LOOK_S     0.01
#define FAREWELL_S 5.0
#define SHARE_S    30.0

static struct tcp *tcp_of(struct transport *transport)
{
    return (struct tcp *)(void *)transport;
}

/* ---- through memory ------------------------------------------------------------------------- */

/* Asked while others are waited for: whether they are there, and whether to go on. */
static bool rest(void *context)
{
    struct tcp *tcp = context;
    struct transport *transport = &tcp->transport;
    double now = clock_monotonic();
    if (now - tcp->looked_s >= LOOK_S) {
        tcp->looked_s = now;
        if (tcp_look(tcp, 0) != 0) {
            return false;
        }
        for (int p = 0; p < transport->ranks; p++) {
            if (tcp->link[p].left) { /* then nothing can be expected of it: exchanges are of all */
                tcp->left = p;
                return false;
            }
        }
    }
    return transport->waiting == NULL || transport->waiting(transport->context);
}

static int share(struct tcp *tcp, struct shared_move move)
{
    struct transport *transport = &tcp->transport;
    int rank = 0;
    move.number = ++tcp->number;
    move.rest = rest;
    move.context = tcp;
    tcp->left = -1;
    transport->error[0] = '\0';
    if (move.bytes > TRANSPORT_PART_BYTES) {
        return tcp_refuse(tcp, transport->rank, "asked for more than a part");
    }
    switch (shared_exchange(tcp->shared, &move, &rank)) {
    case SHARED_DONE:
        return 0;
    case SHARED_APART:
        tcp_refuse(tcp, rank, "is at another exchange");
        tcp->lost = -1;
        return tcp_linger(tcp);
    case SHARED_GIVEN_UP:
        break;
    }
    if (transport->error[0] != '\0') { /* a connection has ended */
        return tcp_linger(tcp);
    }
    if (tcp->left >= 0) {
        tcp_refuse(tcp, tcp->left, "has ended its part of the run");
        return tcp_linger(tcp);
    }
    tcp->lost = rank;
    snprintf(transport->error, sizeof transport->error,
             "it was given up while rank %d on %s was waited for", rank, tcp->link[rank].peer.host);
    return -1;
}

/* ---- what a transport does ------------------------------------------------------------------ */

static int tcp_exchange(struct transport *transport, const void *send, void *receive, size_t bytes)
{
    struct tcp *tcp = tcp_of(transport);
    size_t own = (size_t)transport->rank * bytes;
    memmove((char *)receive + own, (const char *)send + own, bytes);
    if (tcp->shared) {
        return share(tcp, (struct shared_move){ .kind = FRAME_EXCHANGE,
                                                .bytes = bytes,
                                                .send = send,
                                                .send_stride = bytes,
                                                .receive = receive,
                                                .receive_stride = bytes,
                                                .from = -1 });
    }
    for (int p = 0; p < transport->ranks; p++) {
        size_t at = (size_t)p * bytes;
        tcp_prepare(tcp, p, FRAME_EXCHANGE, bytes, (const char *)send + at, (char *)receive + at);
    }
    return tcp_complete(tcp);
}

static int tcp_gather(struct transport *transport, const void *mine, void *all, size_t bytes)
{
    struct tcp *tcp = tcp_of(transport);
    memmove((char *)all + (size_t)transport->rank * bytes, mine, bytes);
    if (tcp->shared) {
        return share(tcp, (struct shared_move){ .kind = FRAME_GATHER,
                                                .bytes = bytes,
                                                .send = mine,
                                                .receive = all,
                                                .receive_stride = bytes,
                                                .from = -1 });
    }
    for (int p = 0; p < transport->ranks; p++) {
        tcp_prepare(tcp, p, FRAME_GATHER, bytes, mine, (char *)all + (size_t)p * bytes);
    }
    return tcp_complete(tcp);
}

static int tcp_broadcast(struct transport *transport, void *data, size_t bytes, int root)
{
    struct tcp *tcp = tcp_of(transport);
    bool sends = transport->rank == root;
    if (tcp->shared) {
        return share(tcp, (struct shared_move){ .kind = FRAME_BROADCAST,
                                                .bytes = bytes,
                                                .send = sends ? data : NULL,
                                                .receive = sends ? NULL : data,
                                                .from = root });
    }
    for (int p = 0; p < transport->ranks; p++) {
        tcp_prepare(tcp, p, FRAME_BROADCAST, bytes, sends ? data : NULL,
                    !sends && p == root ? data : NULL);
    }
    return tcp_complete(tcp);
}

/* ---- the end -------------------------------------------------------------------------------- */

/* Whether all that was sent has come to the other side, or there is none any more. What comes
 * meanwhile is thrown away: closing over it would reset the connection. */
static bool is_delivered(const struct link *link)
{
    char thrown[4096];
    int waiting_bytes = 0;
    ssize_t got;
    do {
        got = recv(link->peer.fd, thrown, sizeof thrown, 0);
    } while (got > 0);
    bool ended = got == 0 || (errno != EAGAIN && errno != EINTR);
    return ended || ioctl(link->peer.fd, SIOCOUTQ, &waiting_bytes) != 0 || waiting_bytes == 0;
}

static void take_leave(struct tcp *tcp)
{
    struct frame frame = { FRAME_MAGIC, FRAME_FAREWELL, tcp->number, 0 };
    double until_s = clock_monotonic() + FAREWELL_S;
    bool delivered = false;
    for (int p = 0; p < tcp->transport.ranks; p++) {
        if (tcp->link[p].peer.fd >= 0) {
            send(tcp->link[p].peer.fd, &frame, sizeof frame, MSG_NOSIGNAL);
            shutdown(tcp->link[p].peer.fd, SHUT_WR);
        }
    }
    while (!delivered && clock_monotonic() < until_s) {
        delivered = true;
        for (int p = 0; p < tcp->transport.ranks; p++) {
            delivered = (tcp->link[p].peer.fd < 0 || is_delivered(&tcp->link[p])) && delivered;
        }
        if (!delivered) {
            poll(NULL, 0, FAREWELL_POLL_MS);
        }
    }
}

/* Those whom this rank owes the rest of something would not find it behind that. */
static void tell_lost(const struct tcp *tcp)
{
    struct frame frame = { FRAME_MAGIC, FRAME_GIVES_UP, (uint32_t)tcp->lost, 0 };
    for (int p = 0; p < tcp->transport.ranks; p++) {
        const struct link *link = &tcp->link[p];
        bool between = link->out.done == 0 || link->out.done == link->out.total;
        if (link->peer.fd >= 0 && between) {
            send(link->peer.fd, &frame, sizeof frame, MSG_NOSIGNAL);
        }
    }
}

static void tcp_close(struct transport *transport, bool broken)
{
    struct tcp *tcp = tcp_of(transport);
    if (!broken) {
        take_leave(tcp);
    } else if (tcp->lost >= 0) {
        tell_lost(tcp);
    }
    for (int p = 0; p < transport->ranks; p++) {
        if (tcp->link[p].peer.fd >= 0) {
            close(tcp->link[p].peer.fd);
        }
    }
    shared_close(tcp->shared);
    free(tcp->link);
    free(tcp->polled);
    free(tcp);
}

static const struct transport_ops tcp_ops = {
    .name = "tcp",
    .exchange = tcp_exchange,
    .gather = tcp_gather,
    .broadcast = tcp_broadcast,
    .close = tcp_close,
};

static bool has_patience(void *context)
{
    return patience_left(context);
}

/* Ranks of one machine: either all of them use the same memory or none does. */
static int share_memory(struct tcp *tcp)
{
    struct transport *transport = &tcp->transport;
    struct shared_place place = { 0 };
    bool first = transport->rank == 0;
    struct shared *shared = first ? shared_create(transport->ranks, &place) : NULL;
    int result = tcp_broadcast(transport, &place, sizeof place, 0);
    if (result == 0 && !first) {
        shared = shared_join(transport->rank, transport->ranks, &place);
    }
    char mine = shared != NULL;
    bool agreed = true;
    char *all = xcalloc((size_t)transport->ranks, 1);
    result = result == 0 ? tcp_gather(transport, &mine, all, 1) : result;
    for (int p = 0; p < transport->ranks; p++) {
        agreed = agreed && all[p] == 1;
    }
    free(all);
    shared_seal(shared);
    if (result == 0 && agreed) {
        tcp->shared = shared;
    } else {
        shared_close(shared);
    }
    return result;
}

struct transport *transport_open_tcp(const struct tcp_options *options, struct error *err)
{
    struct tcp_meeting meeting;
    if (tcp_meet(options, &meeting, err) != 0) {
        return NULL;
    }
    struct tcp *tcp = xcalloc(1, sizeof *tcp);
    tcp->link = xcalloc((size_t)options->ranks, sizeof *tcp->link);
    tcp->polled = xcalloc((size_t)options->ranks, sizeof *tcp->polled);
    for (int p = 0; p < options->ranks; p++) {
        tcp->link[p].peer = meeting.peer[p];
    }
    free(meeting.peer);
    tcp->lost = -1;
    tcp->transport = (struct transport){ .ops = &tcp_ops,
                                         .rank = options->rank,
                                         .ranks = options->ranks,
                                         .local_rank = meeting.local_rank };
    snprintf(tcp->transport.first, sizeof tcp->transport.first, "%s", meeting.first);
    if (meeting.shares) {
        struct patience patience = { .until_s = clock_monotonic() + SHARE_S,
                                     .waiting = options->waiting,
                                     .context = options->context };
        tcp->transport.waiting = has_patience;
        tcp->transport.context = &patience;
        if (share_memory(tcp) != 0) {
            fail(err, ERROR_RUNTIME, "rank %d cannot share memory with the others: %s",
                 options->rank, tcp->transport.error);
            tcp_close(&tcp->transport, true);
            return NULL;
        }
        tcp->transport.waiting = NULL;
        tcp->transport.context = NULL;
    }
    return &tcp->transport;
}
