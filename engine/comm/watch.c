/* Beats between rank 0 and the others. See watch.h. */
#include "engine/comm/watch.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/base/xalloc.h"
#include "engine/comm/socket.h"

enum { HOST_SIZE = 64, SENTENCE_SIZE = 320, POLL_MS = 100, CONNECT_S = 30 };
#define BEAT_S     1.0
#define STRANGER_S 1.0
#define LATE_S     2.0

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

/* Where rank 0 listens; port 0: it cannot. */
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

bool watch_check(struct watch *watch, struct comm *comm)
{
    char sentence[SENTENCE_SIZE];
    if (!watch_lost(watch, sentence, sizeof sentence)) {
        return true;
    }
    comm_fail(comm, "%s; rank %d waits in the %s", sentence, comm->rank, comm->last);
    return false;
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

/* This process was stopped itself (Ctrl-Z, a suspended machine): nothing it has not heard since is
 * a silence of others. */
static void forgive(struct watch *watch, double late_s)
{
    for (int i = 0; late_s > LATE_S && i < watch->peer_count; i++) {
        watch->peer[i].heard_s += late_s;
    }
}

static void *keep_watch(void *context)
{
    struct watch *watch = context;
    struct pollfd *polled = xcalloc((size_t)watch->peer_count, sizeof *polled);
    double beat_s = 0.0;
    double lost_s = 0.0;
    double before_s = clock_monotonic();
    while (!is_ending(watch)) {
        double now = clock_monotonic();
        forgive(watch, now - before_s);
        before_s = now;
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
        check_silence(watch, now);
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

/* Only where the others are: on one machine that is its loopback interface. */
static int open_listener(struct watch *watch, struct meeting_place *place, struct error *err)
{
    const char *first = watch->comm->first;
    char why[SOCKET_WHY_SIZE];
    watch->listener = socket_listen(first[0] ? first : NULL, 0, why);
    if (watch->listener < 0) {
        return fail(err, ERROR_RUNTIME, "rank 0: %s", why);
    }
    place->port = (uint16_t)socket_port(watch->listener);
    gethostname(place->host, sizeof place->host - 1);
    return 0;
}

/* Rank 0: a peer for each that shows the token. They have connected already. */
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
        struct patience patience = { .until_s = clock_monotonic() + STRANGER_S };
        char why[SOCKET_WHY_SIZE];
        int fd = socket_accept(watch->listener);
        if (fd < 0 || socket_receive(fd, &beat, sizeof beat, &patience, why) != 0 ||
            beat.token != watch->token || beat.rank < 1 || beat.rank >= watch->comm->ranks ||
            watch->peer[beat.rank - 1].fd >= 0) {
            if (fd >= 0) {
                close(fd);
            }
            continue;
        }
        struct peer *peer = &watch->peer[beat.rank - 1];
        peer->fd = fd;
        peer->beat = beat;
        take_beat(watch, peer);
        missing--;
    }
    close(watch->listener); /* nobody else is expected */
    watch->listener = -1;
    return 0;
}

static int call(struct watch *watch, const struct meeting_place *place, struct error *err)
{
    char own[HOST_SIZE] = "";
    char why[SOCKET_WHY_SIZE];
    struct peer *peer = &watch->peer[0];
    struct patience patience = { .until_s = clock_monotonic() + CONNECT_S };
    const char *known = watch->comm->first;
    gethostname(own, sizeof own - 1);
    if (place->port == 0) {
        return fail(err, ERROR_RUNTIME, "rank 0 on %s cannot listen for beats", place->host);
    }
    const char *host = known[0] ? known : strcmp(own, place->host) == 0 ? "127.0.0.1" : place->host;
    peer->fd = socket_connect(host, place->port, &patience, why);
    if (peer->fd < 0) {
        return fail(err, ERROR_RUNTIME,
                    "rank %d on %s cannot reach rank 0 on %s, port %d, the place of beats: %s",
                    watch->comm->rank, own, place->host, place->port, why);
    }
    memcpy(peer->host, place->host, sizeof peer->host);
    peer->heard_s = clock_monotonic();
    send_beat(watch, peer, BEAT_ALIVE);
    return 0;
}

/* Nobody watches yet: a rank that hangs here is given up after the same time. */
struct opening {
    bool (*waiting)(void *context);
    void *context;
    double until_s;
};

static bool still_opening(void *context)
{
    const struct opening *opening = context;
    return clock_monotonic() < opening->until_s &&
           (opening->waiting == NULL || opening->waiting(opening->context));
}

/* Says whether this rank is connected, hears it of all: who is missing is known at once. */
static int agree(struct watch *watch, int result, struct error *err)
{
    int32_t connected = result == 0;
    int32_t *all = xcalloc((size_t)watch->comm->ranks, sizeof *all);
    comm_all_gather_bytes(watch->comm, "who beats", &connected, all, sizeof connected);
    if (result == 0) {
        result = comm_check(watch->comm, err);
    }
    for (int p = 0; result == 0 && p < watch->comm->ranks; p++) {
        if (!all[p]) {
            result = fail(err, ERROR_RUNTIME, "rank %d could not connect for its beats", p);
        }
    }
    free(all);
    return result;
}

static int connect_all(struct watch *watch, struct error *err)
{
    struct comm *comm = watch->comm;
    struct meeting_place place = { 0 };
    struct opening opening = { comm->waiting, comm->context, clock_monotonic() + watch->silence_s };
    int result = comm->rank == 0 ? open_listener(watch, &place, err) : 0;
    if (getrandom(&place.token, sizeof place.token, 0) != (ssize_t)sizeof place.token) {
        place.token = (uint64_t)(clock_wall() * 1e6) * 0x9E3779B97F4A7C15u ^ (uint64_t)getpid();
    }
    comm_on_wait(comm, still_opening, &opening);
    comm_broadcast_bytes(comm, "the place of beats", &place, sizeof place);
    watch->token = place.token;
    if (comm->rank > 0 && comm_check(comm, err) == 0) {
        result = call(watch, &place, err);
    }
    result = agree(watch, result, err);
    comm_on_wait(comm, opening.waiting, opening.context);
    return result == 0 && comm->rank == 0 ? admit(watch, err) : result;
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
