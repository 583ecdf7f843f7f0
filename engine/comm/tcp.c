/*
 * Exchanges over one TCP connection for each pair of ranks. See tcp.h for how they meet.
 *
 * What a rank sends another is a frame (kind, number of the exchange, bytes) and the bytes. Ranks
 * ask for the same exchanges in the same order, so what comes next is known; a frame that says
 * otherwise is of ranks that went apart, or no frame at all. A rank that closes on good terms says
 * so first, and one that gives up says for whose sake: a connection that just ends is a rank that
 * is lost, and is noticed by all, also by those who expect nothing of it in this exchange.
 */
#include "engine/comm/tcp.h"

#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/base/xalloc.h"

enum { POLL_MS = 20, FAREWELL_POLL_MS = 10 };
/* A connection that ends says that its rank is lost, or that it fled from another that is: whoever
 * is asked while waiting may know better, and gets this long. */
#define LINGER_S   2.0
#define FAREWELL_S 5.0

enum frame_kind {
    FRAME_EXCHANGE = 1,
    FRAME_GATHER,
    FRAME_BROADCAST,
    FRAME_FAREWELL,
    FRAME_GIVES_UP
};

struct frame {
    uint32_t magic;
    uint32_t kind;
    uint32_t number; /* of FRAME_GIVES_UP: the rank that is lost */
    uint32_t bytes;
};
#define FRAME_MAGIC 0x57526b31u

/* One direction of a connection in an exchange. */
struct flow {
    struct frame frame;
    char *data;
    size_t done; /* of frame and data */
    size_t total;
};

struct link {
    struct tcp_peer peer;
    struct flow out;
    struct flow in;
    bool left;  /* on good terms */
    bool ahead; /* has sent what belongs to a later exchange; its end can wait until then */
};

struct tcp {
    struct transport transport; /* first: a transport is one of these */
    struct link *link;
    struct pollfd *polled;
    uint32_t number;
    int lost; /* the rank for whose sake it gave up; -1: none */
};

static struct tcp *tcp_of(struct transport *transport)
{
    return (struct tcp *)(void *)transport;
}

static int refuse(struct tcp *tcp, int rank, const char *what)
{
    struct transport *transport = &tcp->transport;
    snprintf(transport->error, sizeof transport->error, "rank %d on %s %s", rank,
             tcp->link[rank].peer.host, what);
    tcp->lost = rank;
    return -1;
}

/* A rank ends before it was expected to, and says why. */
static int refuse_end(struct tcp *tcp, int rank, const struct frame *frame)
{
    struct transport *transport = &tcp->transport;
    int lost = (int)frame->number;
    if (frame->kind == FRAME_FAREWELL) {
        return refuse(tcp, rank, "has ended its part of the run");
    }
    if (lost < 0 || lost >= transport->ranks || lost == transport->rank) {
        return refuse(tcp, rank, "gave this rank up");
    }
    snprintf(transport->error, sizeof transport->error,
             "rank %d on %s gave up, since rank %d on %s was lost", rank, tcp->link[rank].peer.host,
             lost, tcp->link[lost].peer.host);
    tcp->lost = lost;
    return -1;
}

static bool is_end(const struct frame *frame)
{
    return frame->magic == FRAME_MAGIC &&
           (frame->kind == FRAME_FAREWELL || frame->kind == FRAME_GIVES_UP);
}

static int refuse_errno(struct tcp *tcp, int rank)
{
    char what[128];
    snprintf(what, sizeof what, "was lost: %s", strerror(errno));
    return refuse(tcp, rank, what);
}

/* ---- one step of a flow --------------------------------------------------------------------- */

/* What is left of frame and data. */
static int parts_of(struct flow *flow, struct iovec part[2])
{
    size_t frame = sizeof flow->frame;
    if (flow->done >= frame) {
        part[0] = (struct iovec){ flow->data + (flow->done - frame), flow->total - flow->done };
        return 1;
    }
    part[0] = (struct iovec){ (char *)&flow->frame + flow->done, frame - flow->done };
    part[1] = (struct iovec){ flow->data, flow->total - frame };
    return flow->total > frame ? 2 : 1;
}

/* Bytes moved; 0: none now; -1 with an error. */
static ssize_t push(struct tcp *tcp, int rank)
{
    struct flow *flow = &tcp->link[rank].out;
    struct iovec part[2];
    struct msghdr message = { .msg_iov = part };
    message.msg_iovlen = (size_t)parts_of(flow, part);
    ssize_t put = sendmsg(tcp->link[rank].peer.fd, &message, MSG_NOSIGNAL);
    if (put < 0) {
        return errno == EAGAIN || errno == EINTR ? 0 : refuse_errno(tcp, rank);
    }
    flow->done += (size_t)put;
    return put;
}

static int check_frame(struct tcp *tcp, int rank)
{
    const struct frame *found = &tcp->link[rank].in.frame;
    const struct frame *expected = &tcp->link[rank].out.frame;
    char what[128];
    if (found->magic != FRAME_MAGIC) {
        return refuse(tcp, rank, "sent what is not of this run");
    }
    if (is_end(found)) {
        return refuse_end(tcp, rank, found);
    }
    if (found->kind != expected->kind || found->number != expected->number ||
        found->bytes != expected->bytes) {
        snprintf(what, sizeof what,
                 "is at another exchange: number %u of kind %u with %u bytes, not %u, %u, %u",
                 found->number, found->kind, found->bytes, expected->number, expected->kind,
                 expected->bytes);
        refuse(tcp, rank, what);
        tcp->lost = -1; /* who is wrong is not for this rank to say */
        return -1;
    }
    return 0;
}

static ssize_t pull(struct tcp *tcp, int rank)
{
    struct flow *flow = &tcp->link[rank].in;
    struct iovec part[2];
    struct msghdr message = { .msg_iov = part };
    message.msg_iovlen = (size_t)parts_of(flow, part);
    bool unchecked = flow->done < sizeof flow->frame;
    ssize_t got = recvmsg(tcp->link[rank].peer.fd, &message, 0);
    if (got < 0) {
        return errno == EAGAIN || errno == EINTR ? 0 : refuse_errno(tcp, rank);
    }
    if (got == 0) {
        return refuse(tcp, rank,
                      flow->done > 0 ? "was lost in the middle of what it sent"
                                     : "was lost: its connection has ended");
    }
    flow->done += (size_t)got;
    if (unchecked && flow->done >= sizeof flow->frame && check_frame(tcp, rank) != 0) {
        return -1;
    }
    return got;
}

/* The connection has ended at the other side; nothing is expected of it now, perhaps. */
static int examine_end(struct tcp *tcp, int rank)
{
    struct link *link = &tcp->link[rank];
    struct frame frame = { 0 };
    ssize_t got = recv(link->peer.fd, &frame, sizeof frame, MSG_PEEK);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        return 0;
    }
    if (got < 0) {
        return refuse_errno(tcp, rank);
    }
    if (got < (ssize_t)sizeof frame) {
        return refuse(tcp, rank, "was lost: its connection has ended");
    }
    bool under_way = link->out.done < link->out.total || link->in.done < link->in.total;
    if (is_end(&frame) && (under_way || frame.kind == FRAME_GIVES_UP)) {
        return refuse_end(tcp, rank, &frame);
    }
    link->left = is_end(&frame);
    link->ahead = !link->left;
    return 0;
}

/* ---- an exchange ---------------------------------------------------------------------------- */

/* Moves what can be moved. *moved: whether anything was, *open: whether anything is left. */
static int move_some(struct tcp *tcp, bool *moved, bool *open)
{
    *moved = false;
    *open = false;
    for (int p = 0; p < tcp->transport.ranks; p++) {
        struct link *link = &tcp->link[p];
        /* What it said before its end tells more than that nothing can be sent to it. */
        ssize_t got = link->in.done < link->in.total ? pull(tcp, p) : 0;
        ssize_t put = got >= 0 && link->out.done < link->out.total ? push(tcp, p) : 0;
        if (got < 0 || (put < 0 && got == 0)) {
            return -1;
        }
        *moved = *moved || put > 0 || got > 0;
        *open = *open || link->out.done < link->out.total || link->in.done < link->in.total;
    }
    return 0;
}

static int wait_for_any(struct tcp *tcp)
{
    int ranks = tcp->transport.ranks;
    for (int p = 0; p < ranks; p++) {
        const struct link *link = &tcp->link[p];
        bool sends = link->out.done < link->out.total;
        bool takes = link->in.done < link->in.total;
        bool deaf = link->left || (link->ahead && !sends && !takes);
        short events =
            (short)((sends ? POLLOUT : 0) | (takes ? POLLIN : 0) | (link->ahead ? 0 : POLLRDHUP));
        tcp->polled[p] = (struct pollfd){ .fd = deaf ? -1 : link->peer.fd, .events = events };
    }
    if (poll(tcp->polled, (nfds_t)ranks, POLL_MS) <= 0) {
        return 0;
    }
    for (int p = 0; p < ranks; p++) {
        short ended = tcp->polled[p].revents & (POLLRDHUP | POLLHUP | POLLERR);
        bool takes = tcp->link[p].in.done < tcp->link[p].in.total; /* will come to the end itself */
        if (tcp->polled[p].fd >= 0 && ended != 0 && !takes && examine_end(tcp, p) != 0) {
            return -1;
        }
    }
    return 0;
}

static void name_awaited(struct tcp *tcp)
{
    struct transport *transport = &tcp->transport;
    int first = -1;
    int more = -1;
    for (int p = 0; p < transport->ranks; p++) {
        const struct link *link = &tcp->link[p];
        if (link->in.done < link->in.total || link->out.done < link->out.total) {
            first = first < 0 ? p : first;
            more++;
        }
    }
    tcp->lost = first;
    if (first >= 0 && more > 0) {
        snprintf(transport->error, sizeof transport->error,
                 "it was given up while rank %d on %s and %d more were waited for", first,
                 tcp->link[first].peer.host, more);
    } else if (first >= 0) {
        snprintf(transport->error, sizeof transport->error,
                 "it was given up while rank %d on %s was waited for", first,
                 tcp->link[first].peer.host);
    }
}

/* Somebody is lost. Who is asked while waiting may know whose fault it is. */
static int linger(struct tcp *tcp)
{
    struct transport *transport = &tcp->transport;
    double until_s = clock_monotonic() + LINGER_S;
    while (transport->waiting && clock_monotonic() < until_s &&
           transport->waiting(transport->context)) {
        poll(NULL, 0, POLL_MS);
    }
    return -1;
}

static int complete(struct tcp *tcp)
{
    struct transport *transport = &tcp->transport;
    bool moved = false;
    bool open = true;
    tcp->number++;
    while (true) {
        if (move_some(tcp, &moved, &open) != 0) {
            return linger(tcp);
        }
        if (!open) {
            return 0;
        }
        if (moved) {
            continue;
        }
        if (wait_for_any(tcp) != 0) {
            return linger(tcp);
        }
        if (transport->waiting && !transport->waiting(transport->context)) {
            name_awaited(tcp);
            return -1;
        }
    }
}

/* Prepares what goes to and comes from a rank; NULL: nothing. */
static void prepare(struct tcp *tcp, int rank, enum frame_kind kind, size_t bytes, const void *out,
                    void *in)
{
    struct link *link = &tcp->link[rank];
    size_t total = sizeof(struct frame) + bytes;
    bool own = rank == tcp->transport.rank;
    link->ahead = false;
    link->out = (struct flow){ .frame = { FRAME_MAGIC, kind, tcp->number, (uint32_t)bytes },
                               .data = (char *)(uintptr_t)out,
                               .total = out && !own ? total : 0 };
    link->in = (struct flow){ .data = in, .total = in && !own ? total : 0 };
}

static int tcp_exchange(struct transport *transport, const void *send, void *receive, size_t bytes)
{
    struct tcp *tcp = tcp_of(transport);
    size_t own = (size_t)transport->rank * bytes;
    for (int p = 0; p < transport->ranks; p++) {
        size_t at = (size_t)p * bytes;
        prepare(tcp, p, FRAME_EXCHANGE, bytes, (const char *)send + at, (char *)receive + at);
    }
    memmove((char *)receive + own, (const char *)send + own, bytes);
    return complete(tcp);
}

static int tcp_gather(struct transport *transport, const void *mine, void *all, size_t bytes)
{
    struct tcp *tcp = tcp_of(transport);
    for (int p = 0; p < transport->ranks; p++) {
        prepare(tcp, p, FRAME_GATHER, bytes, mine, (char *)all + (size_t)p * bytes);
    }
    memmove((char *)all + (size_t)transport->rank * bytes, mine, bytes);
    return complete(tcp);
}

static int tcp_broadcast(struct transport *transport, void *data, size_t bytes, int root)
{
    struct tcp *tcp = tcp_of(transport);
    bool sends = transport->rank == root;
    for (int p = 0; p < transport->ranks; p++) {
        prepare(tcp, p, FRAME_BROADCAST, bytes, sends ? data : NULL,
                !sends && p == root ? data : NULL);
    }
    return complete(tcp);
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
    return &tcp->transport;
}
