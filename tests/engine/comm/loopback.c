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
    bool gone; /* a rank has left, and its part is not to be had any more */
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
    seat->meeting->part[seat->transport.rank] = mine;
    return meet(seat);
}

static int loop_exchange(struct transport *transport, const void *send, void *receive, size_t bytes)
{
    struct seat *seat = seat_of(transport);
    if (begin(seat, send) != 0) {
        return -1;
    }
    for (int p = 0; p < transport->ranks; p++) {
        memcpy((char *)receive + (size_t)p * bytes,
               (const char *)seat->meeting->part[p] + (size_t)transport->rank * bytes, bytes);
    }
    return meet(seat);
}

static int loop_gather(struct transport *transport, const void *mine, void *all, size_t bytes)
{
    struct seat *seat = seat_of(transport);
    if (begin(seat, mine) != 0) {
        return -1;
    }
    for (int p = 0; p < transport->ranks; p++) {
        memcpy((char *)all + (size_t)p * bytes, seat->meeting->part[p], bytes);
    }
    return meet(seat);
}

static int loop_broadcast(struct transport *transport, void *data, size_t bytes, int root)
{
    struct seat *seat = seat_of(transport);
    if (begin(seat, data) != 0) {
        return -1;
    }
    if (transport->rank != root) {
        memcpy(data, seat->meeting->part[root], bytes);
    }
    return meet(seat);
}

static void loop_close(struct transport *transport, bool broken)
{
    struct meeting *meeting = seat_of(transport)->meeting;
    pthread_mutex_lock(&meeting->mutex);
    meeting->gone = meeting->gone || (broken && meeting->options->tells);
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
