#include "loopback.h"

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Where the threads meet. */
struct meeting {
    pthread_mutex_t mutex;
    pthread_cond_t all_here;
    const struct loopback_options *options;
    int here;
    int64_t round;
    bool gone;                    /* a rank has left, and the others notice */
    bool out[LOOPBACK_RANKS_MAX]; /* gave up or left: its part is not to be had any more */
    const void *part[LOOPBACK_RANKS_MAX];
};

struct seat {
    struct transport transport;
    struct meeting *meeting;
    int64_t collectives;
    void (*work)(struct comm *comm, void *context);
    void *context;
};

static struct seat *seat_of(struct transport *transport)
{
    return (struct seat *)(void *)transport; /* its first member */
}

/* Until all ranks are here; polls `waiting` each millisecond as a real transport would. */
static int meet(struct seat *seat)
{
    struct meeting *meeting = seat->meeting;
    int result = 0;
    pthread_mutex_lock(&meeting->mutex);
    int64_t round = meeting->round;
    if (++meeting->here == meeting->options->ranks) {
        meeting->here = 0;
        meeting->round++;
        pthread_cond_broadcast(&meeting->all_here);
    }
    while (meeting->round == round && result == 0) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 1000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&meeting->all_here, &meeting->mutex, &until);
        struct transport *transport = &seat->transport;
        if (meeting->round == round && meeting->gone) {
            snprintf(transport->error, sizeof transport->error, "a rank has left");
            result = -1;
        } else if (meeting->round == round && transport->waiting != NULL &&
                   !transport->waiting(transport->context)) {
            snprintf(transport->error, sizeof transport->error, "it was given up");
            result = -1;
        }
    }
    meeting->out[seat->transport.rank] = meeting->out[seat->transport.rank] || result != 0;
    pthread_mutex_unlock(&meeting->mutex);
    return result;
}

/* Copies `bytes` at `offset` of what rank p shows, to part p of `to`. With all locked, so that
 * nobody gives up and frees it meanwhile. -1 if somebody has. */
static int copy_parts(struct seat *seat, char *to, size_t offset, size_t bytes)
{
    struct meeting *meeting = seat->meeting;
    int result = 0;
    pthread_mutex_lock(&meeting->mutex);
    for (int p = 0; p < seat->transport.ranks && result == 0; p++) {
        if (meeting->out[p]) {
            snprintf(seat->transport.error, sizeof seat->transport.error, "rank %d gave up", p);
            result = -1;
        } else {
            memcpy(to + (size_t)p * bytes, (const char *)meeting->part[p] + offset, bytes);
        }
    }
    pthread_mutex_unlock(&meeting->mutex);
    return result;
}

/* Shows `mine` to the others; -1 if this rank stays away. */
static int begin(struct seat *seat, const void *mine)
{
    const struct loopback_options *options = seat->meeting->options;
    if (seat->transport.rank == options->silent_rank && seat->collectives >= options->silent_at) {
        snprintf(seat->transport.error, sizeof seat->transport.error, "it stays away");
        return -1;
    }
    seat->collectives++;
    pthread_mutex_lock(&seat->meeting->mutex);
    seat->meeting->part[seat->transport.rank] = mine;
    pthread_mutex_unlock(&seat->meeting->mutex);
    return meet(seat);
}

static void count(const struct seat *seat, size_t bytes)
{
    double *carried = seat->meeting->options->carried;
    if (carried != NULL) {
        carried[seat->transport.rank] += (double)bytes * (seat->transport.ranks - 1);
    }
}

static int loop_exchange(struct transport *transport, const void *send, void *receive, size_t bytes)
{
    struct seat *seat = seat_of(transport);
    count(seat, bytes);
    if (begin(seat, send) != 0 ||
        copy_parts(seat, receive, (size_t)transport->rank * bytes, bytes) != 0) {
        return -1;
    }
    return meet(seat);
}

static int loop_gather(struct transport *transport, const void *mine, void *all, size_t bytes)
{
    struct seat *seat = seat_of(transport);
    count(seat, bytes);
    if (begin(seat, mine) != 0 || copy_parts(seat, all, 0, bytes) != 0) {
        return -1;
    }
    return meet(seat);
}

static int loop_broadcast(struct transport *transport, void *data, size_t bytes, int root)
{
    struct seat *seat = seat_of(transport);
    struct meeting *meeting = seat->meeting;
    if (begin(seat, data) != 0) {
        return -1;
    }
    pthread_mutex_lock(&meeting->mutex);
    bool there = !meeting->out[root];
    if (there && transport->rank != root) {
        memcpy(data, meeting->part[root], bytes);
    }
    pthread_mutex_unlock(&meeting->mutex);
    if (!there) {
        snprintf(transport->error, sizeof transport->error, "rank %d gave up", root);
        return -1;
    }
    return meet(seat);
}

static void loop_close(struct transport *transport, bool broken)
{
    struct meeting *meeting = seat_of(transport)->meeting;
    pthread_mutex_lock(&meeting->mutex);
    meeting->gone = meeting->gone || (broken && meeting->options->tells);
    meeting->out[transport->rank] = true;
    pthread_cond_broadcast(&meeting->all_here);
    pthread_mutex_unlock(&meeting->mutex);
}

static const struct transport_ops loop_ops = {
    .name = "loopback",
    .exchange = loop_exchange,
    .gather = loop_gather,
    .broadcast = loop_broadcast,
    .close = loop_close,
};

static void *sit(void *context)
{
    struct seat *seat = context;
    struct comm *comm = comm_open_host(&seat->transport);
    seat->work(comm, seat->context);
    if (!seat->meeting->options->gives) {
        comm_close(comm);
    }
    return NULL;
}

void loopback_run(const struct loopback_options *options,
                  void (*work)(struct comm *comm, void *context), void *context)
{
    struct meeting meeting = { .mutex = PTHREAD_MUTEX_INITIALIZER,
                               .all_here = PTHREAD_COND_INITIALIZER,
                               .options = options };
    struct seat seat[LOOPBACK_RANKS_MAX];
    pthread_t thread[LOOPBACK_RANKS_MAX];
    for (int p = 0; p < options->ranks; p++) {
        seat[p] = (struct seat){ .transport = { .ops = &loop_ops,
                                                .rank = p,
                                                .ranks = options->ranks,
                                                .local_rank = p,
                                                .one_thread = options->one_thread },
                                 .meeting = &meeting,
                                 .work = work,
                                 .context = context };
        if (pthread_create(&thread[p], NULL, sit, &seat[p]) != 0) {
            abort();
        }
    }
    for (int p = 0; p < options->ranks; p++) {
        pthread_join(thread[p], NULL);
    }
}
