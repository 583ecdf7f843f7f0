/*
 * The control socket of a run, from inside.
 *
 * One thread serves all clients: it accepts, reads lines, hands commands to the training thread and
 * sends events straight from events.jsonl. A client that lags costs nothing but its own buffer, and
 * training never waits for any of them.
 *
 * Bounds: 64 clients (one more is told so and let go), 64 KiB a line from a client, 64 commands
 * waiting.
 */
#ifndef WINDROW_ENGINE_RUN_SERVER_H
#define WINDROW_ENGINE_RUN_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/error.h"

struct server;

/* A command that waits for the safe point. */
struct server_command {
    int64_t client; /* number of the connection, from 1 */
    int64_t id;     /* of the client's counting */
    char command[16];
    char key[64];
    char value[512];
};

/* Listens on a socket that belongs to this user alone and writes its path to RUN/control. `bytes`
 * is the length of events.jsonl now. NULL: training goes on without a socket. */
struct server *server_open(const char *run, int64_t bytes, struct error *err);

/* Lets clients read what is pending for at most `seconds`, then closes. */
void server_close(struct server *server, double seconds);

/* events.jsonl has so many bytes now, and `step` was the last step. Never blocks on a client. */
void server_announce(struct server *server, int64_t bytes, int64_t step);

/* Takes the next command, waiting at most `seconds` for one. */
bool server_take(struct server *server, double seconds, struct server_command *out);

/* Answers with a line of JSON (without newline). Dropped if the client is gone. */
void server_answer(struct server *server, int64_t client, const char *line);

#endif
