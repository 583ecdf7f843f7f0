/* How a rank other than 0 finds the others (meet.c has the order of things). */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/comm/meet_parts.h"

#define REST_NS 100000000L

/* Asks who answers whether it is rank 0 of this job. 1: yes, 0: no, -1: it refuses, with an error.
 */
static int ask(struct meet *meet, int fd, char *why, struct error *err)
{
    struct note note = meet_note(meet, NOTE_JOIN);
    struct patience patience = meet_patience(meet, MEET_ANSWER_S);
    bool refused = false;
    if (note_send(fd, &note, meet->keys.join, &patience, why) == 0 &&
        note_receive(fd, &note, meet->keys.answer, &patience, &refused, why) == 0 &&
        note.kind == NOTE_WELCOME) {
        *meet_link(meet, 0) = fd;
        memcpy(meet->seat[0].host, note.host, sizeof note.host);
        return 1;
    }
    close(fd);
    return refused ? fail(err, ERROR_RUNTIME, "%s", why) : 0;
}

static int try_address(struct meet *meet, const char *host, int port, char *why, struct error *err)
{
    struct patience patience = meet_patience(meet, MEET_ANSWER_S);
    int fd = socket_connect(host, port, &patience, why);
    return fd < 0 ? 0 : ask(meet, fd, why, err);
}

static int try_file(struct meet *meet, char *why, struct error *err)
{
    struct tcp_posted posted;
    const struct tcp_options *options = meet->options;
    if (!tcp_read_posted(options->place.file, options->job, &posted)) {
        snprintf(why, SOCKET_WHY_SIZE, "rank 0 has written nothing there");
        return 0;
    }
    meet->keys = gate_keys(options->job, posted.key);
    if (strcmp(posted.machine, meet->machine) == 0) {
        return try_address(meet, "127.0.0.1", posted.port, why, err);
    }
    int found = 0;
    snprintf(why, SOCKET_WHY_SIZE, "it names no address");
    for (int i = 0; found == 0 && i < 8 && posted.address[i][0]; i++) {
        found = try_address(meet, posted.address[i], posted.port, why, err);
    }
    return found;
}

static int find_first(struct meet *meet, struct error *err)
{
    const struct tcp_place *place = &meet->options->place;
    struct patience patience = meet_patience(meet, meet->options->wait_s);
    char why[SOCKET_WHY_SIZE] = "";
    int found = 0;
    while (found == 0) {
        if (place->file[0] != '\0') {
            found = try_file(meet, why, err);
        }
        for (int i = 0; found == 0 && i < place->port_count; i++) {
            found = try_address(meet, place->host, place->port + i, why, err);
        }
        if (found == 0 && meet_given_up(meet)) {
            return meet_fail_given_up(err);
        }
        if (found == 0 && !patience_left(&patience)) {
            fail(err, ERROR_RUNTIME, "rank %d on %s did not find rank 0 at %s within %.0f s: %s",
                 meet->options->rank, meet->host, meet->where, meet->options->wait_s, why);
            return hint(err, "is rank 0 started, with the same place and job, and can its host "
                             "and port be reached from here (firewall, name)?");
        }
        if (found == 0) {
            nanosleep(&(struct timespec){ .tv_nsec = REST_NS }, NULL);
        }
    }
    return found == 1 ? 0 : -1;
}

/* Waits for a word of rank 0. */
static int hear_first(const struct meet *meet, enum note_kind kind, double seconds,
                      struct note *note, struct error *err)
{
    char why[SOCKET_WHY_SIZE] = "";
    bool refused = false;
    struct patience patience = meet_patience(meet, seconds);
    if (note_receive(*meet_link(meet, 0), note, meet->keys.answer, &patience, &refused, why) == 0 &&
        note->kind == (int)kind) {
        return 0;
    }
    if (meet_given_up(meet)) {
        return meet_fail_given_up(err);
    }
    return refused ? fail(err, ERROR_RUNTIME, "%s", why)
                   : fail(err, ERROR_RUNTIME, "rank 0 on %s was lost before the start: %s",
                          meet->seat[0].host, why);
}

static int tell_first(const struct meet *meet, enum note_kind kind, int number, const char *text)
{
    char why[SOCKET_WHY_SIZE] = "";
    struct note note = meet_note(meet, kind);
    struct patience patience = meet_patience(meet, MEET_ANSWER_S);
    note.number = number;
    snprintf(note.text, sizeof note.text, "%.255s", text);
    return note_send(*meet_link(meet, 0), &note, meet->keys.join, &patience, why);
}

/* Listens on the loopback interface, or wherever rank 0's network reaches it. */
static int open_door(struct meet *meet, bool one_machine, struct error *err)
{
    char why[SOCKET_WHY_SIZE] = "";
    int fd = socket_listen(one_machine ? "127.0.0.1" : NULL, 0, why);
    if (fd < 0) {
        return fail(err, ERROR_RUNTIME, "rank %d on %s: %s", meet->options->rank, meet->host, why);
    }
    gate_open(&meet->gate, fd, &meet->keys);
    return 0;
}

static int read_list(struct meet *meet, struct error *err)
{
    char why[SOCKET_WHY_SIZE] = "";
    struct patience patience = meet_patience(meet, MEET_MOMENT_S);
    size_t bytes = (size_t)meet->options->ranks * sizeof *meet->seat;
    if (socket_receive(*meet_link(meet, 0), meet->seat, bytes, &patience, why) != 0) {
        return fail(err, ERROR_RUNTIME, "rank 0 was lost before the start: %s", why);
    }
    for (int p = 0; p < meet->options->ranks; p++) {
        struct seat *seat = &meet->seat[p];
        seat->host[sizeof seat->host - 1] = '\0';
        seat->machine[sizeof seat->machine - 1] = '\0';
        seat->address[sizeof seat->address - 1] = '\0';
    }
    return 0;
}

static int connect_lower(struct meet *meet, struct error *err)
{
    int rank = meet->options->rank;
    for (int p = 1; p < rank; p++) {
        const struct seat *seat = &meet->seat[p];
        bool near = strcmp(seat->machine, meet->machine) == 0;
        const char *address = near               ? "127.0.0.1"
                              : seat->address[0] ? seat->address
                                                 : meet->meeting->first;
        struct note note = meet_note(meet, NOTE_JOIN);
        struct patience patience = meet_patience(meet, MEET_MOMENT_S / 2);
        char why[SOCKET_WHY_SIZE] = "";
        int fd = socket_connect(address, seat->port, &patience, why);
        *meet_link(meet, p) = fd;
        if (fd < 0 || note_send(fd, &note, meet->keys.join, &patience, why) != 0) {
            fail(err, ERROR_RUNTIME, "rank %d on %s cannot reach rank %d on %s at %s, port %d: %s",
                 rank, meet->host, p, seat->host, address, seat->port, why);
            return hint(err, "all hosts must reach each other, on any port (firewall)");
        }
    }
    return 0;
}

static int accept_higher(struct meet *meet, struct error *err)
{
    int missing = meet->options->ranks - 1 - meet->options->rank;
    struct patience patience = meet_patience(meet, MEET_MOMENT_S);
    while (missing > 0) {
        struct note note;
        char byte;
        int fd = gate_step(&meet->gate, &note);
        bool expected = fd >= 0 && note.rank > meet->options->rank &&
                        note.rank < meet->options->ranks && *meet_link(meet, note.rank) < 0;
        if (expected) {
            *meet_link(meet, note.rank) = fd;
            missing--;
        } else if (fd >= 0) {
            close(fd);
        }
        if (recv(*meet_link(meet, 0), &byte, 1, MSG_PEEK) >= 0) { /* too early for good news */
            return hear_first(meet, NOTE_GO, MEET_ANSWER_S, &note, err);
        }
        if (missing > 0 && !patience_left(&patience)) {
            char list[160];
            meet_list_missing(meet, meet->options->rank + 1, list, sizeof list);
            return fail(err, ERROR_RUNTIME, "rank %d on %s was not reached by rank %s",
                        meet->options->rank, meet->host, list);
        }
    }
    return 0;
}

int meet_join(struct meet *meet, struct error *err)
{
    struct note note;
    meet->keys = gate_keys(meet->options->job, "");
    if (find_first(meet, err) != 0) {
        return -1;
    }
    socket_peer_address(*meet_link(meet, 0), meet->meeting->first);
    if (hear_first(meet, NOTE_HERE, meet->options->wait_s + MEET_MOMENT_S, &note, err) != 0) {
        return -1;
    }
    meet->meeting->shares = note.number == 2;
    if (open_door(meet, note.number != 0, err) != 0 ||
        tell_first(meet, NOTE_LISTENING, socket_port(meet->gate.listener), "") != 0 ||
        read_list(meet, err) != 0 || connect_lower(meet, err) != 0 ||
        accept_higher(meet, err) != 0) {
        if (err->code == ERROR_NONE) {
            fail(err, ERROR_RUNTIME, "rank 0 on %s was lost before the start", meet->seat[0].host);
        }
        tell_first(meet, NOTE_REFUSED, 0, err->message);
        return -1;
    }
    tell_first(meet, NOTE_READY, 0, "");
    return hear_first(meet, NOTE_GO, 2.0 * MEET_MOMENT_S, &note, err);
}
