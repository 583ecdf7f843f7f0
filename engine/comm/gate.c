/* See gate.h. */
#include "engine/comm/gate.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"

enum { STEP_MS = 20 };
static const char magic[8] = "windrow1";

struct gate_keys gate_keys(const char *job, const char *drawn)
{
    struct gate_keys keys;
    char *join = xasprintf("join\n%s\n%s", job, drawn);
    char *answer = xasprintf("answer\n%s\n%s", job, drawn);
    digest_of(join, strlen(join), keys.join);
    digest_of(answer, strlen(answer), keys.answer);
    free(join);
    free(answer);
    return keys;
}

/* ---- notes ---------------------------------------------------------------------------------- */

int note_send(int fd, const struct note *note, const char *key, const struct patience *patience,
              char why[SOCKET_WHY_SIZE])
{
    struct note sent = *note;
    memcpy(sent.magic, magic, sizeof magic);
    snprintf(sent.key, sizeof sent.key, "%s", key);
    return socket_send(fd, &sent, sizeof sent, patience, why);
}

/* Texts end, and nothing in them is obeyed by a terminal. */
static void make_harmless(struct note *note)
{
    note->key[sizeof note->key - 1] = '\0';
    note->host[sizeof note->host - 1] = '\0';
    note->machine[sizeof note->machine - 1] = '\0';
    note->text[sizeof note->text - 1] = '\0';
    text_clean(note->host, sizeof note->host);
    text_clean(note->text, sizeof note->text);
}

static bool shows_key(struct note *note, const char *key)
{
    make_harmless(note);
    return memcmp(note->magic, magic, sizeof magic) == 0 && strcmp(note->key, key) == 0;
}

int note_receive(int fd, struct note *note, const char *key, const struct patience *patience,
                 bool *refused, char why[SOCKET_WHY_SIZE])
{
    if (refused) {
        *refused = false;
    }
    if (socket_receive(fd, note, sizeof *note, patience, why) != 0) {
        return -1;
    }
    if (!shows_key(note, key)) {
        snprintf(why, SOCKET_WHY_SIZE, "it is not of this job");
        return -1;
    }
    if (note->kind == NOTE_REFUSED) {
        snprintf(why, SOCKET_WHY_SIZE, "%s", note->text);
        if (refused) {
            *refused = true;
        }
        return -1;
    }
    return 0;
}

/* ---- the door ------------------------------------------------------------------------------- */

void gate_open(struct gate *gate, int listener, const struct gate_keys *keys)
{
    *gate = (struct gate){ .listener = listener, .keys = keys };
}

static void send_away(struct guest *guest)
{
    close(guest->fd);
    *guest = (struct guest){ 0 };
}

void gate_close(struct gate *gate)
{
    for (int i = 0; i < GATE_GUESTS; i++) {
        if (gate->guest[i].fd > 0) {
            send_away(&gate->guest[i]);
        }
    }
    if (gate->listener >= 0) {
        close(gate->listener);
        gate->listener = -1;
    }
}

static void let_in(struct gate *gate)
{
    struct guest *place = &gate->guest[0];
    int fd = socket_accept(gate->listener);
    if (fd < 0) {
        return;
    }
    for (int i = 0; i < GATE_GUESTS && place->fd > 0; i++) {
        if (gate->guest[i].fd == 0 || gate->guest[i].until_s < place->until_s) {
            place = &gate->guest[i];
        }
    }
    if (place->fd > 0) {
        send_away(place);
    }
    *place = (struct guest){ .fd = fd, .until_s = clock_monotonic() + GATE_GUEST_S };
}

/* Whether the guest has said all, with the right key. Strangers leave at their first wrong byte. */
static bool hear(const struct gate *gate, struct guest *guest)
{
    ssize_t got = recv(guest->fd, (char *)&guest->note + guest->filled,
                       sizeof guest->note - guest->filled, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        return false;
    }
    guest->filled += got > 0 ? (size_t)got : 0;
    size_t known = guest->filled < sizeof magic ? guest->filled : sizeof magic;
    bool whole = guest->filled == sizeof guest->note;
    if (got <= 0 || memcmp(&guest->note, magic, known) != 0 ||
        (whole && (!shows_key(&guest->note, gate->keys->join) || guest->note.kind != NOTE_JOIN))) {
        send_away(guest);
        return false;
    }
    return whole;
}

int gate_step(struct gate *gate, struct note *note)
{
    struct pollfd polled[GATE_GUESTS + 1];
    double now = clock_monotonic();
    for (int i = 0; i < GATE_GUESTS; i++) {
        struct guest *guest = &gate->guest[i];
        if (guest->fd > 0 && now > guest->until_s) {
            send_away(guest);
        }
        polled[i] = (struct pollfd){ .fd = guest->fd > 0 ? guest->fd : -1, .events = POLLIN };
    }
    polled[GATE_GUESTS] = (struct pollfd){ .fd = gate->listener, .events = POLLIN };
    if (poll(polled, GATE_GUESTS + 1, STEP_MS) <= 0) {
        return -1;
    }
    for (int i = 0; i < GATE_GUESTS; i++) {
        struct guest *guest = &gate->guest[i];
        if (polled[i].fd > 0 && polled[i].revents != 0 && hear(gate, guest)) {
            int fd = guest->fd;
            *note = guest->note;
            *guest = (struct guest){ 0 };
            return fd;
        }
    }
    if (polled[GATE_GUESTS].revents != 0) {
        let_in(gate);
    }
    return -1;
}
