/* Beats between rank 0 and the others. See watch.h. */
#include "engine/comm/watch.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/base/xalloc.h"

enum { HOST_SIZE = 64, SENTENCE_SIZE = 320, POLL_MS = 100, CONNECT_S = 30 };
#define BEAT_S 1.0

enum beat_kind { BEAT_ALIVE = 1, BEAT_FAREWELL, BEAT_LOST };

/* What goes over the wire; all ranks run the same program. */
struct beat {
    uint64_t token; /* of this run: strangers that connect are not listened to */
    int32_t kind;
    int32_t rank;
    char host[HOST_SIZE];
    char last[128];               /* the collective it came to last */
    char sentence[SENTENCE_SIZE]; /* of BEAT_LOST */
};

/* Where rank 0 listens. */
struct meeting_place {
    char host[HOST_SIZE];
    uint16_t port;
    uint64_t token;
};

struct peer {
    int fd; /* -1: not connected */
    bool left;
    double heard_s;
    size_t filled; /* bytes of `beat` that have come */
    struct beat beat;
    char host[HOST_SIZE];
    char last[128];
    int rank;
};

struct watch {
    struct comm *comm;
    double silence_s;
    uint64_t token;
    int listener; /* of rank 0 */
    struct peer *peer;
    int peer_count;
    pthread_t thread;
    pthread_mutex_t mutex; /* of what follows */
    bool ending;
    bool lost;
    char sentence[SENTENCE_SIZE];
    char last[128];
};

/* ---- what the main thread tells ------------------------------------------------------------- */

static void note_collective(void *context, const char *last)
{
    struct watch *watch = context;
    pthread_mutex_lock(&watch->mutex);
    snprintf(watch->last, sizeof watch->last, "%s", last);
    pthread_mutex_unlock(&watch->mutex);
}

bool watch_lost(struct watch *watch, char *sentence, size_t size)
{
    if (watch == NULL) {
        return false;
    }
    pthread_mutex_lock(&watch->mutex);
    bool lost = watch->lost;
    snprintf(sentence, size, "%s", watch->sentence);
    pthread_mutex_unlock(&watch->mutex);
    return lost;
}

static bool is_ending(struct watch *watch)
{
    pthread_mutex_lock(&watch->mutex);
    bool ending = watch->ending;
    pthread_mutex_unlock(&watch->mutex);
    return ending;
}

/* ---- beats ---------------------------------------------------------------------------------- */

static void send_beat(struct watch *watch, const struct peer *peer, enum beat_kind kind)
{
    struct beat beat = { .token = watch->token, .kind = kind, .rank = watch->comm->rank };
    gethostname(beat.host, sizeof beat.host - 1);
    pthread_mutex_lock(&watch->mutex);
    memcpy(beat.last, watch->last, sizeof beat.last);
    memcpy(beat.sentence, watch->sentence, sizeof beat.sentence);
    pthread_mutex_unlock(&watch->mutex);
    if (peer->fd >= 0) { /* small, and rare: what a full socket does not take is not missed */
        send(peer->fd, &beat, sizeof beat, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
}

static void send_all(struct watch *watch, enum beat_kind kind)
{
    for (int i = 0; i < watch->peer_count; i++) {
        send_beat(watch, &watch->peer[i], kind);
    }
}

static void declare_lost(struct watch *watch, const char *sentence)
{
    pthread_mutex_lock(&watch->mutex);
    bool first = !watch->lost && !watch->ending;
    if (first) {
        watch->lost = true;
        snprintf(watch->sentence, sizeof watch->sentence, "%s", sentence);
    }
    pthread_mutex_unlock(&watch->mutex);
    if (first && watch->comm->rank == 0) {
        send_all(watch, BEAT_LOST);
    }
}

static void lose_peer(struct watch *watch, struct peer *peer, const char *how)
{
    char sentence[SENTENCE_SIZE];
    snprintf(sentence, sizeof sentence, "rank %d on %s %s; it came to this last: %s", peer->rank,
             peer->host[0] ? peer->host : "a host that is not known", how,
             peer->last[0] ? peer->last : "nothing yet");
    declare_lost(watch, sentence);
}

static void take_beat(struct watch *watch, struct peer *peer)
{
    struct beat *beat = &peer->beat;
    beat->host[sizeof beat->host - 1] = '\0';
    beat->last[sizeof beat->last - 1] = '\0';
    beat->sentence[sizeof beat->sentence - 1] = '\0';
    peer->heard_s = clock_monotonic();
    memcpy(peer->host, beat->host, sizeof peer->host);
    memcpy(peer->last, beat->last, sizeof peer->last);
    if (beat->kind == BEAT_FAREWELL) {
        peer->left = true;
    } else if (beat->kind == BEAT_LOST) {
        declare_lost(watch, beat->sentence);
    }
}

static void hear(struct watch *watch, struct peer *peer)
{
    ssize_t got = recv(peer->fd, (char *)&peer->beat + peer->filled,
                       sizeof peer->beat - peer->filled, MSG_DONTWAIT);
    if (got > 0) {
        peer->filled += (size_t)got;
        if (peer->filled == sizeof peer->beat) {
            peer->filled = 0;
            take_beat(watch, peer);
        }
        return;
    }
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    close(peer->fd);
    peer->fd = -1;
    if (!peer->left) {
        lose_peer(watch, peer, "is gone");
    }
}

/* ---- the thread ----------------------------------------------------------------------------- */

static void check_silence(struct watch *watch, double now)
{
    for (int i = 0; i < watch->peer_count; i++) {
        struct peer *peer = &watch->peer[i];
        if (peer->fd >= 0 && !peer->left && now - peer->heard_s > watch->silence_s) {
            char how[64];
            snprintf(how, sizeof how, "has been silent for %.0f seconds", now - peer->heard_s);
            lose_peer(watch, peer, how);
        }
    }
}

static void *keep_watch(void *context)
{
    struct watch *watch = context;
    struct pollfd *polled = xcalloc((size_t)watch->peer_count, sizeof *polled);
    double beat_s = 0.0;
    double lost_s = 0.0;
    while (!is_ending(watch)) {
        double now = clock_monotonic();
        if (now - beat_s >= BEAT_S) {
            beat_s = now;
            send_all(watch, BEAT_ALIVE);
        }
        for (int i = 0; i < watch->peer_count; i++) {
            polled[i] = (struct pollfd){ .fd = watch->peer[i].fd, .events = POLLIN };
        }
        poll(polled, (nfds_t)watch->peer_count, POLL_MS);
        for (int i = 0; i < watch->peer_count; i++) {
            if (polled[i].fd >= 0 && polled[i].revents != 0) {
                hear(watch, &watch->peer[i]);
            }
        }
        check_silence(watch, clock_monotonic());
        char sentence[SENTENCE_SIZE];
        if (watch_lost(watch, sentence, sizeof sentence)) {
            lost_s = lost_s == 0.0 ? clock_monotonic() : lost_s;
            if (clock_monotonic() - lost_s > WATCH_GRACE_S) {
                fprintf(stderr, "windrow: error: %s\n", sentence);
                _exit(ERROR_RUNTIME);
            }
        }
    }
    free(polled);
    return NULL;
}

/* ---- connecting ----------------------------------------------------------------------------- */

static int listen_anywhere(struct watch *watch, struct meeting_place *place, struct error *err)
{
    struct sockaddr_in address = { .sin_family = AF_INET };
    socklen_t length = sizeof address;
    watch->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (watch->listener < 0 ||
        bind(watch->listener, (struct sockaddr *)&address, sizeof address) != 0 ||
        listen(watch->listener, watch->comm->ranks) != 0 ||
        getsockname(watch->listener, (struct sockaddr *)&address, &length) != 0) {
        return fail(err, ERROR_RUNTIME, "cannot listen for the other ranks: %s", strerror(errno));
    }
    place->port = ntohs(address.sin_port);
    gethostname(place->host, sizeof place->host - 1);
    return 0;
}

/* Rank 0: a peer for each that shows the token. */
static int admit(struct watch *watch, struct error *err)
{
    double until = clock_monotonic() + CONNECT_S;
    int missing = watch->comm->ranks - 1;
    while (missing > 0) {
        struct pollfd polled = { .fd = watch->listener, .events = POLLIN };
        if (clock_monotonic() > until) {
            return fail(err, ERROR_RUNTIME, "%d of %d ranks did not connect within %d seconds",
                        missing, watch->comm->ranks, CONNECT_S);
        }
        if (poll(&polled, 1, POLL_MS) <= 0) {
            continue;
        }
        struct beat beat = { 0 };
        int fd = accept4(watch->listener, NULL, NULL, SOCK_CLOEXEC);
        struct timeval patience = { .tv_sec = 2 };
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        if (fd < 0 || recv(fd, &beat, sizeof beat, MSG_WAITALL) != (ssize_t)sizeof beat ||
            beat.token != watch->token || beat.rank < 1 || beat.rank >= watch->comm->ranks ||
            watch->peer[beat.rank - 1].fd >= 0) {
            close(fd);
            continue;
        }
        struct peer *peer = &watch->peer[beat.rank - 1];
        peer->fd = fd;
        peer->beat = beat;
        take_beat(watch, peer);
        missing--;
    }
    return 0;
}

static int call(struct watch *watch, const struct meeting_place *place, struct error *err)
{
    char own[HOST_SIZE] = "";
    char port[16];
    struct addrinfo wanted = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM };
    struct addrinfo *found = NULL;
    struct peer *peer = &watch->peer[0];
    gethostname(own, sizeof own - 1);
    snprintf(port, sizeof port, "%d", place->port);
    const char *host = strcmp(own, place->host) == 0 ? "127.0.0.1" : place->host;
    int code = getaddrinfo(host, port, &wanted, &found);
    if (code != 0) {
        return fail(err, ERROR_RUNTIME, "rank %d on %s does not find rank 0's host %s: %s",
                    watch->comm->rank, own, place->host, gai_strerror(code));
    }
    peer->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    code = peer->fd < 0 ? -1 : connect(peer->fd, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    if (code != 0) {
        return fail(err, ERROR_RUNTIME, "rank %d on %s cannot reach rank 0 on %s, port %s: %s",
                    watch->comm->rank, own, place->host, port, strerror(errno));
    }
    memcpy(peer->host, place->host, sizeof peer->host);
    peer->heard_s = clock_monotonic();
    send_beat(watch, peer, BEAT_ALIVE);
    return 0;
}

static int connect_all(struct watch *watch, struct error *err)
{
    struct meeting_place place = { 0 };
    int rank = watch->comm->rank;
    int result = rank == 0 ? listen_anywhere(watch, &place, err) : 0;
    place.token = (uint64_t)(clock_wall() * 1e6) * 0x9E3779B97F4A7C15u ^ (uint64_t)getpid();
    comm_broadcast_bytes(watch->comm, "the place of beats", &place, sizeof place);
    watch->token = place.token;
    if (result != 0 || comm_check(watch->comm, err) != 0) {
        return -1;
    }
    return rank == 0 ? admit(watch, err) : call(watch, &place, err);
}

static void free_watch(struct watch *watch)
{
    for (int i = 0; i < watch->peer_count; i++) {
        if (watch->peer[i].fd >= 0) {
            close(watch->peer[i].fd);
        }
    }
    if (watch->listener >= 0) {
        close(watch->listener);
    }
    pthread_mutex_destroy(&watch->mutex);
    free(watch->peer);
    free(watch);
}

struct watch *watch_open(struct comm *comm, double silence_s, struct error *err)
{
    if (comm->ranks == 1) {
        return NULL;
    }
    struct watch *watch = xcalloc(1, sizeof *watch);
    watch->comm = comm;
    watch->silence_s = silence_s;
    watch->listener = -1;
    watch->peer_count = comm->rank == 0 ? comm->ranks - 1 : 1;
    watch->peer = xcalloc((size_t)watch->peer_count, sizeof *watch->peer);
    for (int i = 0; i < watch->peer_count; i++) {
        watch->peer[i].fd = -1;
        watch->peer[i].rank = comm->rank == 0 ? i + 1 : 0;
    }
    pthread_mutex_init(&watch->mutex, NULL);
    if (connect_all(watch, err) != 0) {
        free_watch(watch);
        return NULL;
    }
    comm->begun = note_collective;
    comm->begun_context = watch;
    if (pthread_create(&watch->thread, NULL, keep_watch, watch) != 0) {
        fail(err, ERROR_RUNTIME, "cannot start a thread");
        comm->begun = NULL;
        free_watch(watch);
        return NULL;
    }
    return watch;
}

void watch_close(struct watch *watch, bool broken)
{
    if (watch == NULL) {
        return;
    }
    pthread_mutex_lock(&watch->mutex);
    watch->ending = true;
    pthread_mutex_unlock(&watch->mutex);
    pthread_join(watch->thread, NULL);
    if (!broken) {
        send_all(watch, BEAT_FAREWELL);
    }
    watch->comm->begun = NULL;
    free_watch(watch);
}
