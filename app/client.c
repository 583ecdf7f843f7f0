/* A run seen from outside. */
#include "app/client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/file.h"
#include "engine/base/xalloc.h"
#include "engine/run.h"

enum { SLICE_BYTES = 1 << 20, SLICES = 4 };

struct client {
    char *directory;
    char *path; /* of events.jsonl */
    struct client_handler handler;
    enum client_state state;
    int file;              /* -1 */
    int socket;            /* -1 */
    int64_t offset;        /* bytes of whole lines taken so far */
    struct buffer partial; /* the line that is not whole yet */
    char status[16];
    bool stopped;  /* the last event was a stop */
    bool resuming; /* that stop is of the past */
};

struct client *client_open(const char *directory, const struct client_handler *handler)
{
    struct client *client = xcalloc(1, sizeof(*client));
    client->directory = xstrdup(directory);
    client->path = path_join(directory, "events.jsonl");
    client->handler = *handler;
    client->state = CLIENT_WAITING;
    client->file = -1;
    client->socket = -1;
    return client;
}

void client_expect_resume(struct client *client)
{
    client->resuming = true;
}

static void drop(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

void client_close(struct client *client)
{
    if (!client) {
        return;
    }
    drop(&client->file);
    drop(&client->socket);
    buffer_free(&client->partial);
    free(client->directory);
    free(client->path);
    free(client);
}

int client_fd(const struct client *client)
{
    return client->state == CLIENT_LIVE ? client->socket : -1;
}

const char *client_status(const struct client *client)
{
    return client->status;
}

static void take_line(struct client *client, const char *line, size_t size)
{
    static const char ack[] = "{\"ack\"";
    struct control_reply reply;
    if (client->state == CLIENT_LIVE && size > sizeof(ack) &&
        strncmp(line, ack, sizeof(ack) - 1) == 0) {
        if (control_read_reply(line, size, &reply) == 0) {
            client->handler.on_reply(client->handler.context, &reply);
        }
        return;
    }
    client->offset += (int64_t)size;
    struct event event;
    struct error err = { 0 };
    /* A line that cannot be read (torn by a crash, or of a newer program) is passed over. */
    if (event_read(line, size, &event, &err) == 0) {
        client->stopped = event.kind == EVENT_STOP;
        client->handler.on_event(client->handler.context, &event);
        event_free(&event);
    }
}

static void take_bytes(struct client *client, const char *bytes, size_t size)
{
    while (size > 0) {
        const char *end = memchr(bytes, '\n', size);
        size_t length = end ? (size_t)(end - bytes) + 1 : size;
        if (!end || client->partial.size > 0) {
            buffer_append(&client->partial, bytes, length);
            if (end) {
                take_line(client, client->partial.text, client->partial.size);
                client->partial.size = 0;
            }
        } else {
            take_line(client, bytes, length);
        }
        bytes += length;
        size -= length;
    }
}

/* Where the file got shorter the run went back to a checkpoint: begin anew. */
static void check_cut(struct client *client)
{
    struct stat facts;
    if (fstat(client->file, &facts) == 0 &&
        facts.st_size < client->offset + (int64_t)client->partial.size) {
        client->offset = 0;
        client->partial.size = 0;
        client->handler.on_reset(client->handler.context);
    }
}

/* Reads a few slices of the file; false at its end. */
static bool read_file(struct client *client)
{
    if (client->file < 0) {
        struct error err = { 0 };
        client->file = file_open_read(client->path, NULL, &err);
        if (client->file < 0) {
            return false;
        }
    }
    check_cut(client);
    char *bytes = malloc(SLICE_BYTES);
    if (!bytes) {
        return false;
    }
    bool more = true;
    for (int i = 0; i < SLICES && more; i++) {
        ssize_t size = pread(client->file, bytes, SLICE_BYTES,
                             (off_t)(client->offset + (int64_t)client->partial.size));
        more = size > 0;
        if (size > 0) {
            take_bytes(client, bytes, (size_t)size);
        }
    }
    free(bytes);
    return more;
}

/* At the end of the file: is somebody writing it? */
static enum client_state after_file(struct client *client)
{
    struct error err = { 0 };
    char text[32];
    int fd = client->stopped && !client->resuming ? -1 : control_connect(client->directory, &err);
    /* What follows the last whole line comes again over the socket. */
    snprintf(text, sizeof(text), "%lld", (long long)client->offset);
    if (fd >= 0 && control_send(fd, 0, "hello", NULL, text, &err) == 0) {
        client->socket = fd;
        client->partial.size = 0;
        drop(&client->file);
        client->resuming = false;
        return CLIENT_LIVE;
    }
    drop(&fd);
    struct run_summary summary;
    memset(&summary, 0, sizeof(summary));
    snprintf(client->status, sizeof(client->status), "ended");
    if (run_summary_read(client->directory, &summary, &err) == 0) {
        snprintf(client->status, sizeof(client->status), "%s", run_status_names[summary.status]);
        bool running = summary.status == RUN_RUNNING || summary.status == RUN_PAUSED;
        run_summary_free(&summary);
        if (running && !client->stopped) {
            return CLIENT_POLLING;
        }
        if (running) { /* it has said that it ends, its process is about to */
            snprintf(client->status, sizeof(client->status), "ended");
        }
    }
    drop(&client->file);
    return CLIENT_ENDED;
}

/* Whether a process holds the run. */
static bool answers(const struct client *client)
{
    struct error ignored = { 0 };
    int fd = control_connect(client->directory, &ignored);
    bool found = fd >= 0;
    drop(&fd);
    return found;
}

static enum client_state read_socket(struct client *client)
{
    char bytes[65536];
    for (int i = 0; i < 64; i++) {
        ssize_t size = read(client->socket, bytes, sizeof(bytes));
        if (size > 0) {
            take_bytes(client, bytes, (size_t)size);
            continue;
        }
        if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
            return CLIENT_LIVE;
        }
        /* The run is gone; its file has the rest. */
        drop(&client->socket);
        client->partial.size = 0;
        return CLIENT_READING;
    }
    return CLIENT_LIVE;
}

enum client_state client_pump(struct client *client)
{
    switch (client->state) {
    case CLIENT_LIVE:
        client->state = read_socket(client);
        break;
    case CLIENT_WAITING:
        if (client->resuming ? answers(client) : file_exists(client->path)) {
            client->state = CLIENT_READING;
        }
        break;
    case CLIENT_READING:
    case CLIENT_POLLING:
        client->state = read_file(client) ? CLIENT_READING : after_file(client);
        break;
    case CLIENT_ENDED:
        break;
    }
    return client->state;
}

int client_send(struct client *client, int64_t id, const char *command, const char *key,
                const char *value, struct error *err)
{
    if (client->state != CLIENT_LIVE) {
        return fail(err, ERROR_RUNTIME, "the run cannot be reached");
    }
    return control_send(client->socket, id, command, key[0] ? key : NULL, value[0] ? value : NULL,
                        err);
}
