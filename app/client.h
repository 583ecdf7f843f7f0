/*
 * A run seen from outside: everything it has said so far, then what it says from now on.
 *
 * First events.jsonl is read to its end, in slices. Then, if the run is running, the control socket
 * continues where the file ended. Where there is no socket the file is read again from time to
 * time. Nothing here knows about screens.
 */
#ifndef WINDROW_APP_CLIENT_H
#define WINDROW_APP_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/control.h"
#include "engine/event.h"

enum client_state {
    CLIENT_WAITING, /* there is no events.jsonl yet */
    CLIENT_READING, /* catching up; call client_pump again at once */
    CLIENT_LIVE,    /* wait for client_fd */
    CLIENT_POLLING, /* running without a socket: call client_pump every second */
    CLIENT_ENDED    /* not running; nothing more will come */
};

struct client_handler {
    void (*on_event)(void *context, const struct event *event);
    void (*on_reply)(void *context, const struct control_reply *reply);
    void (*on_reset)(void *context); /* the file was cut: everything comes again */
    void *context;
};

struct client;

/* `directory` of the run, which need not exist yet. The handler is copied. */
struct client *client_open(const char *directory, const struct client_handler *handler);
void client_close(struct client *client);

/* The socket while live, else -1. */
/* Waits until the run at the directory goes on, though its file is there and ends with a stop. */
void client_expect_resume(struct client *client);

int client_fd(const struct client *client);
/* The word of run_status_names for a run that is not running. */
const char *client_status(const struct client *client);

/* Reads what there is, at most about 4 MiB; events and replies go to the handler. */
enum client_state client_pump(struct client *client);

/* Sends a command; -1 if the run cannot be reached. */
int client_send(struct client *client, int64_t id, const char *command, const char *key,
                const char *value, struct error *err);

#endif
