/*
 * Exchanges over one TCP connection for each pair of ranks.
 *
 * What a rank sends another is a frame (kind, number of the exchange, bytes) and the bytes. Ranks
 * ask for the same exchanges in the same order, so what comes next is known; a frame that says
 * otherwise is of ranks that went apart, or no frame at all. A rank that closes on good terms says
 * so first, and one that gives up says for whose sake: a connection that just ends is a rank that
 * is lost, and is noticed by all, also by those who expect nothing of it in this exchange.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "engine/base/clock.h"
#include "engine/comm/tcp_parts.h"

enum { POLL_MS = 20 };
/* A connection that ends says that its rank is lost, or that it fled from another that is: whoever
 * is asked while waiting may know better, and gets this long. */
#define LINGER_S 2.0

int tcp_refuse(struct tcp *tcp, int rank, const char *what)
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
        return tcp_refuse(tcp, rank, "has ended its part of the run");
    }
    if (lost < 0 || lost >= transport->ranks || lost == transport->rank) {
        return tcp_refuse(tcp, rank, "gave this rank up");
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
    return tcp_refuse(tcp, rank, what);
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
        return tcp_refuse(tcp, rank, "sent what is not of this run");
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
        tcp_refuse(tcp, rank, what);
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
        return tcp_refuse(tcp, rank,
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
        return tcp_refuse(tcp, rank, "was lost: its connection has ended");
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

int tcp_look(struct tcp *tcp, int wait_ms)
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
    if (poll(tcp->polled, (nfds_t)ranks, wait_ms) <= 0) {
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
int tcp_linger(struct tcp *tcp)
{
    struct transport *transport = &tcp->transport;
    double until_s = clock_monotonic() + LINGER_S;
    while (transport->waiting && clock_monotonic() < until_s &&
           transport->waiting(transport->context)) {
        poll(NULL, 0, POLL_MS);
    }
    return -1;
}

int tcp_complete(struct tcp *tcp)
{
    struct transport *transport = &tcp->transport;
    bool moved = false;
    bool open = true;
    tcp->number++;
    while (true) {
        if (move_some(tcp, &moved, &open) != 0) {
            return tcp_linger(tcp);
        }
        if (!open) {
            return 0;
        }
        if (moved) {
            continue;
        }
        if (tcp_look(tcp, POLL_MS) != 0) {
            return tcp_linger(tcp);
        }
        if (transport->waiting && !transport->waiting(transport->context)) {
            name_awaited(tcp);
            return -1;
        }
    }
}

/* Prepares what goes to and comes from a rank; NULL: nothing. */
void tcp_prepare(struct tcp *tcp, int rank, enum frame_kind kind, size_t bytes, const void *out,
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
