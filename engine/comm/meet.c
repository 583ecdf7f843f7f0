/*
 * How ranks find each other (tcp.h).
 *
 *     rank 0                          rank r
 *     listens at the place            comes again and again until it is there
 *                                <--  JOIN
 *     WELCOME                    -->
 *     ... until all are there ...
 *     HERE, on one machine or not -->
 *                                <--  LISTENING at a port of its own
 *     the list of all            -->
 *                                     connects to ranks 1 to r - 1, is found by those above
 *                                <--  READY, or REFUSED and why
 *     GO, or REFUSED and why     -->
 *
 * The connection to rank 0 stays that of the two. Whatever goes wrong anywhere is told to all.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/xalloc.h"
#include "engine/comm/meet_parts.h"

/* What tells one machine from another, for connections: its name, its start, its network. */
static void find_machine(struct meet *meet)
{
    char boot[64] = "";
    char network[64] = "";
    gethostname(meet->host, sizeof meet->host - 1);
    int fd = file_ops()->open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC, 0);
    if (fd >= 0) {
        if (file_ops()->pread(fd, boot, sizeof boot - 1, 0) < 0) {
            boot[0] = '\0';
        }
        file_ops()->close(fd);
    }
    if (readlink("/proc/self/ns/net", network, sizeof network - 1) < 0) {
        network[0] = '\0';
    }
    char *text = xasprintf("%s\n%s\n%s", meet->host, boot, network);
    digest_of(text, strlen(text), meet->machine);
    free(text);
}

struct patience meet_patience(const struct meet *meet, double seconds)
{
    return (struct patience){ .until_s = clock_monotonic() + seconds,
                              .waiting = meet->options->waiting,
                              .context = meet->options->context };
}

bool meet_given_up(const struct meet *meet)
{
    return meet->options->waiting && !meet->options->waiting(meet->options->context);
}

struct note meet_note(const struct meet *meet, enum note_kind kind)
{
    struct note note = { .kind = kind, .rank = meet->options->rank, .ranks = meet->options->ranks };
    memcpy(note.host, meet->host, sizeof note.host);
    memcpy(note.machine, meet->machine, sizeof note.machine);
    return note;
}

int *meet_link(const struct meet *meet, int rank)
{
    return &meet->meeting->peer[rank].fd;
}

int meet_fail_given_up(struct error *err)
{
    return fail(err, ERROR_RUNTIME, "told to end before all ranks had come");
}

void meet_list_missing(const struct meet *meet, int first, char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    for (int p = first; p < meet->options->ranks && used + 16 < size; p++) {
        if (*meet_link(meet, p) < 0) {
            used += (size_t)snprintf(text + used, size - used, "%s%d", used ? ", " : "", p);
        }
    }
    if (used + 16 >= size) {
        snprintf(text + used, size - used, " ...");
    }
}

/* ---- rank 0 --------------------------------------------------------------------------------- */

static int open_place(struct meet *meet, char *drawn, size_t drawn_size, struct error *err)
{
    const struct tcp_place *place = &meet->options->place;
    char why[SOCKET_WHY_SIZE] = "";
    int fd = meet->options->listener;
    if (place->file[0] != '\0') {
        struct tcp_posted posted = { 0 };
        uint64_t random[2] = { 0 };
        fd = socket_listen(NULL, 0, why);
        if (fd < 0 || getrandom(random, sizeof random, 0) != (ssize_t)sizeof random) {
            return fail(err, ERROR_RUNTIME, "rank 0 on %s: %s", meet->host, why);
        }
        meet->gate.listener = fd;
        snprintf(posted.key, sizeof posted.key, "%016llx%016llx", (unsigned long long)random[0],
                 (unsigned long long)random[1]);
        snprintf(drawn, drawn_size, "%s", posted.key);
        memcpy(posted.machine, meet->machine, sizeof posted.machine);
        posted.port = socket_port(fd);
        tcp_own_addresses(&posted);
        return tcp_post(place->file, meet->options->job, &posted, err);
    }
    for (int i = 0; fd < 0 && i < place->port_count; i++) {
        fd = socket_listen(place->host, place->port + i, why);
    }
    meet->gate.listener = fd;
    if (fd < 0) {
        fail(err, ERROR_RUNTIME, "rank 0 on %s cannot be met at %s: %s", meet->host, meet->where,
             why);
        return hint(err, "is another run there? WINDROW_RENDEZVOUS=tcp://HOST:PORT, the same for "
                         "all ranks, names another place");
    }
    return 0;
}

static int fail_missing(const struct meet *meet, int missing, struct error *err)
{
    char list[160];
    meet_list_missing(meet, 1, list, sizeof list);
    fail(err, ERROR_RUNTIME,
         "rank%s %s of %d did not come to %s, where rank 0 on %s waited for %.0f seconds",
         missing == 1 ? "" : "s", list, meet->options->ranks, meet->where, meet->host,
         meet->options->wait_s);
    return hint(err, "see what they say; that they were started with the same place and job, and "
                     "that its host and port can be reached from theirs (firewall, name)");
}

/* Tells somebody why it comes to nothing. */
static void refuse(const struct meet *meet, int fd, const struct error *err)
{
    struct note note = meet_note(meet, NOTE_REFUSED);
    struct patience patience = { .until_s = clock_monotonic() + 1.0 };
    char why[SOCKET_WHY_SIZE] = "";
    snprintf(note.text, sizeof note.text, "%.255s", err->message);
    note_send(fd, &note, meet->keys.answer, &patience, why);
}

/* Whether what a newcomer says can be. */
static int check_newcomer(const struct meet *meet, const struct note *note, struct error *err)
{
    int ranks = meet->options->ranks;
    if (note->ranks != ranks || note->rank < 1 || note->rank >= ranks) {
        fail(err, ERROR_USAGE,
             "a process on %s was started as rank %d of %d, rank 0 on %s as one of %d", note->host,
             note->rank, note->ranks, meet->host, ranks);
        return hint(err, "all ranks need the same number of ranks, and each its own rank");
    }
    if (*meet_link(meet, note->rank) >= 0) {
        fail(err, ERROR_USAGE, "two processes were started as rank %d of %d: on %s and on %s",
             note->rank, ranks, meet->seat[note->rank].host, note->host);
        return hint(err, "each process needs its own rank");
    }
    return 0;
}

/* Takes a newcomer with the right key. */
static int seat_newcomer(struct meet *meet, int fd, const struct note *note, struct error *err)
{
    if (check_newcomer(meet, note, err) != 0) {
        refuse(meet, fd, err);
        close(fd);
        return -1;
    }
    *meet_link(meet, note->rank) = fd;
    struct seat *seat = &meet->seat[note->rank];
    memcpy(seat->host, note->host, sizeof seat->host);
    memcpy(seat->machine, note->machine, sizeof seat->machine);
    if (strcmp(seat->machine, meet->machine) != 0) {
        socket_peer_address(fd, seat->address);
    }
    char why[SOCKET_WHY_SIZE] = "";
    struct note welcome = meet_note(meet, NOTE_WELCOME);
    struct patience patience = meet_patience(meet, MEET_ANSWER_S);
    if (note_send(fd, &welcome, meet->keys.answer, &patience, why) != 0) {
        return fail(err, ERROR_RUNTIME, "rank %d on %s came to %s and left: %s", note->rank,
                    note->host, meet->where, why);
    }
    return 0;
}

/* Those who wait say nothing: what can be read is their end. */
static int check_seated(const struct meet *meet, struct error *err)
{
    for (int p = 1; p < meet->options->ranks; p++) {
        char byte;
        int fd = *meet_link(meet, p);
        if (fd >= 0 && recv(fd, &byte, 1, MSG_PEEK) == 0) {
            return fail(err, ERROR_RUNTIME, "rank %d on %s left before all ranks had come to %s", p,
                        meet->seat[p].host, meet->where);
        }
    }
    return 0;
}

static int gather_ranks(struct meet *meet, struct error *err)
{
    int missing = meet->options->ranks - 1;
    double until_s = clock_monotonic() + meet->options->wait_s;
    int result = 0;
    while (missing > 0 && result == 0) {
        struct note note;
        int fd = gate_step(&meet->gate, &note);
        if (fd >= 0) {
            result = seat_newcomer(meet, fd, &note, err);
            missing -= result == 0;
        } else if (meet_given_up(meet)) {
            result = meet_fail_given_up(err);
        } else if (clock_monotonic() > until_s) {
            result = fail_missing(meet, missing, err);
        } else {
            result = check_seated(meet, err);
        }
    }
    return result;
}

/* A note to each rank, or (`kind`) one from each into its seat's port. */
static int tell_each(const struct meet *meet, enum note_kind kind, int number, struct error *err)
{
    struct note note = meet_note(meet, kind);
    char why[SOCKET_WHY_SIZE] = "";
    note.number = number;
    for (int p = 1; p < meet->options->ranks; p++) {
        struct patience patience = meet_patience(meet, MEET_MOMENT_S);
        if (note_send(*meet_link(meet, p), &note, meet->keys.answer, &patience, why) != 0) {
            return fail(err, ERROR_RUNTIME, "rank %d on %s was lost before the start: %s", p,
                        meet->seat[p].host, why);
        }
    }
    return 0;
}

static int hear_each(const struct meet *meet, enum note_kind kind, struct error *err)
{
    char why[SOCKET_WHY_SIZE] = "";
    for (int p = 1; p < meet->options->ranks; p++) {
        struct patience patience = meet_patience(meet, MEET_MOMENT_S);
        struct note note = { 0 };
        bool refused = false;
        if (note_receive(*meet_link(meet, p), &note, meet->keys.join, &patience, &refused, why) !=
                0 ||
            note.kind != (int)kind) {
            return refused ? fail(err, ERROR_RUNTIME, "%s", why)
                           : fail(err, ERROR_RUNTIME, "rank %d on %s was lost before the start: %s",
                                  p, meet->seat[p].host, why);
        }
        meet->seat[p].port = note.number;
    }
    return 0;
}

static int send_list(const struct meet *meet, struct error *err)
{
    char why[SOCKET_WHY_SIZE] = "";
    size_t bytes = (size_t)meet->options->ranks * sizeof *meet->seat;
    for (int p = 1; p < meet->options->ranks; p++) {
        struct patience patience = meet_patience(meet, MEET_MOMENT_S);
        if (socket_send(*meet_link(meet, p), meet->seat, bytes, &patience, why) != 0) {
            return fail(err, ERROR_RUNTIME, "rank %d on %s was lost before the start: %s", p,
                        meet->seat[p].host, why);
        }
    }
    return 0;
}

static bool on_one_machine(const struct meet *meet)
{
    bool one = true;
    for (int p = 1; p < meet->options->ranks; p++) {
        one = one && strcmp(meet->seat[p].machine, meet->machine) == 0;
    }
    return one;
}

static int receive_all(struct meet *meet, struct error *err)
{
    char drawn[64] = "";
    int result = open_place(meet, drawn, sizeof drawn, err);
    if (result == 0) {
        meet->keys = gate_keys(meet->options->job, drawn);
        gate_open(&meet->gate, meet->gate.listener, &meet->keys);
        result = gather_ranks(meet, err);
    }
    if (meet->options->place.file[0] != '\0') {
        tcp_unpost(meet->options->place.file);
    }
    gate_close(&meet->gate);
    memcpy(meet->seat[0].host, meet->host, sizeof meet->host);
    memcpy(meet->seat[0].machine, meet->machine, sizeof meet->machine);
    bool one = result == 0 && on_one_machine(meet);
    meet->meeting->shares = one && !meet->options->sockets_only;
    snprintf(meet->meeting->first, sizeof meet->meeting->first, "%s", one ? "127.0.0.1" : "");
    if (result != 0 || tell_each(meet, NOTE_HERE, one + meet->meeting->shares, err) != 0 ||
        hear_each(meet, NOTE_LISTENING, err) != 0 || send_list(meet, err) != 0 ||
        hear_each(meet, NOTE_READY, err) != 0 || tell_each(meet, NOTE_GO, 0, err) != 0) {
        for (int p = 1; p < meet->options->ranks; p++) {
            if (*meet_link(meet, p) >= 0) {
                refuse(meet, *meet_link(meet, p), err);
            }
        }
        return -1;
    }
    return 0;
}

/* ---- both ----------------------------------------------------------------------------------- */

static void fill_meeting(struct meet *meet)
{
    const struct tcp_options *options = meet->options;
    int lower = 0;
    for (int p = 0; p < options->ranks; p++) {
        memcpy(meet->meeting->peer[p].host, meet->seat[p].host, sizeof meet->seat[p].host);
        lower += p < options->rank && strcmp(meet->seat[p].machine, meet->machine) == 0;
    }
    meet->meeting->local_rank = options->local_rank >= 0 ? options->local_rank : lower;
}

int tcp_meet(const struct tcp_options *options, struct tcp_meeting *meeting, struct error *err)
{
    struct meet *meet = xcalloc(1, sizeof *meet);
    *meeting = (struct tcp_meeting){ 0 };
    meeting->peer = xcalloc((size_t)options->ranks, sizeof *meeting->peer);
    meet->options = options;
    meet->meeting = meeting;
    meet->gate.listener = -1;
    meet->seat = xcalloc((size_t)options->ranks, sizeof *meet->seat);
    for (int p = 0; p < options->ranks; p++) {
        meeting->peer[p].fd = -1;
    }
    if (options->place.file[0] != '\0') {
        snprintf(meet->where, sizeof meet->where, "%s", options->place.file);
    } else {
        snprintf(meet->where, sizeof meet->where, "%s:%d", options->place.host,
                 options->place.port);
    }
    find_machine(meet);
    int result = options->rank == 0 ? receive_all(meet, err) : meet_join(meet, err);
    gate_close(&meet->gate);
    if (result == 0) {
        fill_meeting(meet);
    } else {
        for (int p = 0; p < options->ranks; p++) {
            if (*meet_link(meet, p) >= 0) {
                close(*meet_link(meet, p));
            }
        }
        free(meeting->peer);
        meeting->peer = NULL;
    }
    free(meet->seat);
    free(meet);
    return result;
}
