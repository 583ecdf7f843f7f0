/*
 * The thread that serves the control socket.
 *
 * Events are not queued for clients: each has an offset into events.jsonl and is sent whole lines
 * from there, as fast as it reads. Answers go between lines, never into one.
 */
#include "engine/run/server.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"
#include "engine/run/socket_place.h"

enum {
    CLIENTS_MAX = 64,
    COMMANDS_MAX = 64,
    LINE_MAX_BYTES = 64 << 10,
    ANSWERS_MAX_BYTES = 256 << 10,
    CHUNK_BYTES = 64 << 10,
    CHUNK_MAX_BYTES = 64 << 20,
};

struct client {
    int fd; /* -1: free */
    int64_t number;
    struct buffer in;
    struct buffer out; /* being sent, from `sent` on */
    size_t sent;
    struct buffer answers; /* whole lines, go next */
    bool streaming;
    bool closing;   /* when `out` and `answers` are empty */
    int64_t offset; /* into events.jsonl */
};

struct answer {
    int64_t client;
    char *line;
    struct answer *next;
};

struct server {
    char *path;    /* of the socket */
    char *control; /* RUN/control */
    int listener;
    int events; /* events.jsonl, for reading */
    int wake;   /* eventfd: something below changed */
    pthread_t thread;
    struct client client[CLIENTS_MAX];
    int64_t client_count; /* ever */
    _Atomic int64_t bytes;
    _Atomic int64_t step;
    atomic_bool stop;
    _Atomic int64_t pending; /* clients with something left to read */

    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t arrived;
    struct server_command command[COMMANDS_MAX];
    size_t command_first;
    size_t command_count;
    struct answer *answer;
    struct answer **answer_end;
};

static void wake(struct server *server)
{
    uint64_t one = 1;
    ssize_t put = write(server->wake, &one, sizeof one);
    (void)put; /* full means that it is awake already */
}

/* ---- clients -------------------------------------------------------------------------------- */

static void drop_client(struct client *client)
{
    close(client->fd);
    buffer_free(&client->in);
    buffer_free(&client->out);
    buffer_free(&client->answers);
    *client = (struct client){ .fd = -1 };
}

/* Tells one client too many why it is sent away; a socket just made has room for the line. */
static void send_away(int fd)
{
    char *line = xasprintf("{\"ack\":-1,\"ok\":false,\"error\":\"too many clients are attached "
                           "(%d)\",\"hint\":\"close one of them and try again\"}\n",
                           CLIENTS_MAX);
    ssize_t put = send(fd, line, strlen(line), MSG_NOSIGNAL);
    (void)put; /* it may be gone already */
    free(line);
}

static void accept_client(struct server *server)
{
    int fd = accept4(server->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        return;
    }
    bool own = socket_peer_is_own(fd);
    for (size_t i = 0; i < CLIENTS_MAX && own; i++) {
        if (server->client[i].fd < 0) {
            server->client[i] = (struct client){ .fd = fd, .number = ++server->client_count };
            return;
        }
    }
    if (own) {
        send_away(fd);
    }
    close(fd);
}

static void say(struct client *client, const char *line)
{
    if (client->answers.size + strlen(line) > ANSWERS_MAX_BYTES) {
        client->closing = true; /* it asks and never reads */
        return;
    }
    buffer_printf(&client->answers, "%s\n", line);
}

static void refuse(struct client *client, int64_t id, const char *error, const char *hinted)
{
    struct buffer line = { 0 };
    buffer_printf(&line, "{\"ack\":%lld,\"ok\":false,\"error\":", (long long)id);
    json_write_string(&line, error, strlen(error));
    buffer_printf(&line, ",\"hint\":");
    json_write_string(&line, hinted, strlen(hinted));
    buffer_printf(&line, "}");
    say(client, line.text);
    buffer_free(&line);
}

/* ---- commands ------------------------------------------------------------------------------- */

static const char known_commands[] = "pause, resume, save, sample, stop, set, plan, hello";

static bool is_queued(const char *name)
{
    static const char *const names[] = {
        "pause", "resume", "save", "sample", "stop", "set", "plan"
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(name, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

static void queue_command(struct server *server, struct client *client,
                          const struct server_command *command)
{
    pthread_mutex_lock(&server->mutex);
    bool room = server->command_count < COMMANDS_MAX;
    if (room) {
        size_t last = (server->command_first + server->command_count) % COMMANDS_MAX;
        server->command[last] = *command;
        server->command_count++;
        pthread_cond_signal(&server->arrived);
    }
    pthread_mutex_unlock(&server->mutex);
    if (!room) {
        refuse(client, command->id, "too many commands are waiting", "try again after this step");
    }
}

static void say_hello(struct server *server, struct client *client, int64_t id, const cJSON *from)
{
    int64_t bytes = atomic_load(&server->bytes);
    double wanted = cJSON_IsNumber(from) ? from->valuedouble : 0.0;
    client->offset = wanted <= 0.0 ? 0 : wanted >= (double)bytes ? bytes : (int64_t)wanted;
    client->streaming = true;
    char *line = xasprintf(
        "{\"ack\":%lld,\"ok\":true,\"step\":%lld,\"from\":%lld,\"version\":\"%s\"}", (long long)id,
        (long long)atomic_load(&server->step), (long long)client->offset, WINDROW_VERSION);
    say(client, line);
    free(line);
}

/* Copies a text or a number of the message into a field; false if it does not fit. */
static bool copy_word(const cJSON *message, const char *key, char *out, size_t size)
{
    const cJSON *value = json_get(message, key);
    char *number = cJSON_IsNumber(value) || cJSON_IsBool(value) ? json_print(value) : NULL;
    const char *text = number ? number : cJSON_IsString(value) ? value->valuestring : "";
    bool fits = strlen(text) < size;
    if (fits) {
        memcpy(out, text, strlen(text) + 1);
    }
    free(number);
    return fits;
}

static void take_line(struct server *server, struct client *client, const char *line, size_t size)
{
    struct error err = { 0 };
    struct server_command command = { .client = client->number, .id = -1 };
    cJSON *message = json_parse(line, size, "command", 1, &err);
    const cJSON *id = json_get(message, "id");
    if (cJSON_IsNumber(id) && id->valuedouble >= 0.0 && id->valuedouble < 0x1p53) {
        command.id = (int64_t)id->valuedouble;
    }
    if (!cJSON_IsObject(message)) {
        refuse(client, -1, message ? "a command is an object" : err.message,
               "send lines such as {\"id\":1,\"command\":\"save\"}");
    } else if (!copy_word(message, "command", command.command, sizeof command.command) ||
               !copy_word(message, "key", command.key, sizeof command.key) ||
               !copy_word(message, "value", command.value, sizeof command.value)) {
        refuse(client, command.id, "a word of the command is too long", known_commands);
    } else if (strcmp(command.command, "hello") == 0) {
        say_hello(server, client, command.id, json_get(message, "from"));
    } else if (is_queued(command.command)) {
        queue_command(server, client, &command);
    } else {
        refuse(client, command.id, "unknown command", known_commands);
    }
    cJSON_Delete(message);
}

static void take_lines(struct server *server, struct client *client)
{
    size_t done = 0;
    while (client->fd >= 0 && !client->closing) {
        char *end = memchr(client->in.text + done, '\n', client->in.size - done);
        if (!end) {
            break;
        }
        size_t size = (size_t)(end - client->in.text) - done;
        if (size > 0) {
            take_line(server, client, client->in.text + done, size);
        }
        done += size + 1;
    }
    memmove(client->in.text, client->in.text + done, client->in.size - done);
    client->in.size -= done;
    if (client->in.size > LINE_MAX_BYTES) {
        refuse(client, -1, "a command longer than 64 KiB", "");
        client->closing = true;
    }
}

static void read_client(struct server *server, struct client *client)
{
    char chunk[4096];
    ssize_t got = recv(client->fd, chunk, sizeof chunk, 0);
    if (got > 0 && !client->closing) {
        buffer_append(&client->in, chunk, (size_t)got);
        take_lines(server, client);
    } else if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
        drop_client(client);
    }
}

/* ---- sending -------------------------------------------------------------------------------- */

/* Whole lines of events.jsonl from the client's offset into its buffer. */
static void fill_from_file(struct server *server, struct client *client)
{
    int64_t left = atomic_load(&server->bytes) - client->offset;
    size_t size = 0;
    size_t most = CHUNK_BYTES;
    while (size == 0 && left > 0 && most <= CHUNK_MAX_BYTES) {
        size_t part = left < (int64_t)most ? (size_t)left : most;
        char *text = xmalloc(part);
        ssize_t got = pread(server->events, text, part, client->offset);
        const char *end = got > 0 ? memrchr(text, '\n', (size_t)got) : NULL;
        if (end) {
            size = (size_t)(end - text) + 1;
            buffer_append(&client->out, text, size);
        }
        free(text);
        if (got != (ssize_t)part) {
            break;
        }
        most *= 4; /* a line longer than the chunk */
    }
    if (size == 0) {
        client->streaming = false;
        client->closing = true;
    }
    client->offset += (int64_t)size;
}

static bool has_more(const struct server *server, const struct client *client)
{
    return client->sent < client->out.size || client->answers.size > 0 ||
           (client->streaming && client->offset < atomic_load(&server->bytes));
}

static void write_client(struct server *server, struct client *client)
{
    if (client->sent == client->out.size) {
        client->sent = 0;
        client->out.size = 0;
        if (client->answers.size > 0) {
            struct buffer empty = client->out;
            client->out = client->answers;
            client->answers = empty;
        } else if (client->streaming && client->offset < atomic_load(&server->bytes)) {
            fill_from_file(server, client);
        }
    }
    if (client->sent < client->out.size) {
        ssize_t put = send(client->fd, client->out.text + client->sent,
                           client->out.size - client->sent, MSG_NOSIGNAL);
        if (put > 0) {
            client->sent += (size_t)put;
        } else if (put < 0 && errno != EAGAIN && errno != EINTR) {
            drop_client(client);
            return;
        }
    }
    if (client->closing && !has_more(server, client)) {
        drop_client(client);
    }
}

static void deliver_answers(struct server *server)
{
    pthread_mutex_lock(&server->mutex);
    struct answer *list = server->answer;
    server->answer = NULL;
    server->answer_end = &server->answer;
    pthread_mutex_unlock(&server->mutex);
    while (list) {
        struct answer *next = list->next;
        for (size_t i = 0; i < CLIENTS_MAX; i++) {
            if (server->client[i].fd >= 0 && server->client[i].number == list->client) {
                say(&server->client[i], list->line);
            }
        }
        free(list->line);
        free(list);
        list = next;
    }
}

/* ---- the thread ----------------------------------------------------------------------------- */

static void serve_once(struct server *server)
{
    struct pollfd polled[CLIENTS_MAX + 2] = {
        { .fd = server->wake, .events = POLLIN },
        { .fd = server->listener, .events = POLLIN },
    };
    int64_t pending = 0;
    for (size_t i = 0; i < CLIENTS_MAX; i++) {
        struct client *client = &server->client[i];
        bool more = client->fd >= 0 && has_more(server, client);
        polled[i + 2].fd = client->fd;
        polled[i + 2].events = (short)(POLLIN | (more || client->closing ? POLLOUT : 0));
        pending += more ? 1 : 0;
    }
    atomic_store(&server->pending, pending);
    if (poll(polled, CLIENTS_MAX + 2, -1) < 0) {
        return;
    }
    if (polled[0].revents) {
        uint64_t count;
        ssize_t got = read(server->wake, &count, sizeof count);
        (void)got;
        deliver_answers(server);
    }
    for (size_t i = 0; i < CLIENTS_MAX; i++) {
        struct client *client = &server->client[i];
        short events = polled[i + 2].revents;
        if (client->fd >= 0 && (events & (POLLIN | POLLHUP | POLLERR))) {
            read_client(server, client);
        }
        if (client->fd >= 0 && (events & POLLOUT)) {
            write_client(server, client);
        }
    }
    if (polled[1].revents) {
        accept_client(server);
    }
}

static void *serve(void *context)
{
    struct server *server = context;
    while (!atomic_load(&server->stop)) {
        serve_once(server);
    }
    return NULL;
}

/* ---- opening and closing -------------------------------------------------------------------- */

static int listen_at(struct server *server, struct error *err)
{
    struct sockaddr_un address;
    server->path = socket_place(err);
    if (!server->path || !socket_address(server->path, &address)) {
        return -1;
    }
    unlink(server->path); /* of an earlier process with our number */
    socket_remove_stale(server->path);
    server->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (server->listener < 0 ||
        bind(server->listener, (struct sockaddr *)&address, sizeof address) != 0 ||
        chmod(server->path, 0600) != 0 || listen(server->listener, 16) != 0) {
        return fail(err, ERROR_RUNTIME, "cannot listen at %s: %s", text_show(server->path).text,
                    strerror(errno));
    }
    return 0;
}

static int start_thread(struct server *server, struct error *err)
{
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the training thread */
    int result = pthread_create(&server->thread, NULL, serve, server);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return result == 0 ? 0
                       : fail(err, ERROR_RUNTIME, "cannot start a thread: %s", strerror(result));
}

static void release(struct server *server)
{
    for (size_t i = 0; i < CLIENTS_MAX; i++) {
        if (server->client[i].fd >= 0) {
            drop_client(&server->client[i]);
        }
    }
    deliver_answers(server);
    int fds[] = { server->listener, server->events, server->wake };
    for (size_t i = 0; i < 3; i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
    if (server->path && server->listener >= 0) {
        unlink(server->path);
    }
    unlink(server->control);
    pthread_mutex_destroy(&server->mutex);
    pthread_cond_destroy(&server->arrived);
    free(server->path);
    free(server->control);
    free(server);
}

struct server *server_open(const char *run, int64_t bytes, struct error *err)
{
    struct server *server = xcalloc(1, sizeof *server);
    char *events = path_join(run, "events.jsonl");
    pthread_condattr_t monotonic;
    server->listener = -1;
    server->control = path_join(run, "control");
    server->answer_end = &server->answer;
    atomic_store(&server->bytes, bytes);
    pthread_mutex_init(&server->mutex, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&server->arrived, &monotonic);
    pthread_condattr_destroy(&monotonic);
    for (size_t i = 0; i < CLIENTS_MAX; i++) {
        server->client[i].fd = -1;
    }
    server->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    server->events = open(events, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    free(events);
    int result = 0;
    if (server->wake < 0 || server->events < 0) {
        result = fail(err, ERROR_RUNTIME, "cannot open the control socket: %s", strerror(errno));
    }
    if (result == 0) {
        result = listen_at(server, err);
    }
    if (result == 0) {
        result = file_replace(server->control, server->path, strlen(server->path), err);
    }
    if (result == 0) {
        result = start_thread(server, err);
    }
    if (result != 0) {
        release(server);
        return NULL;
    }
    return server;
}

void server_close(struct server *server, double seconds)
{
    double end = clock_monotonic() + seconds;
    wake(server);
    /* The thread counts who has something left each time around; two rounds make the count new. */
    for (int rounds = 0; clock_monotonic() < end; rounds++) {
        nanosleep(&(struct timespec){ .tv_nsec = 5 * 1000 * 1000 }, NULL);
        if (rounds >= 2 && atomic_load(&server->pending) == 0) {
            break;
        }
        wake(server);
    }
    atomic_store(&server->stop, true);
    wake(server);
    pthread_join(server->thread, NULL);
    release(server);
}

/* ---- the training thread -------------------------------------------------------------------- */

void server_announce(struct server *server, int64_t bytes, int64_t step)
{
    atomic_store(&server->bytes, bytes);
    atomic_store(&server->step, step);
    wake(server);
}

bool server_take(struct server *server, double seconds, struct server_command *out)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t wait_ns = (int64_t)(seconds * 1e9) + until.tv_nsec;
    until.tv_sec += (time_t)(wait_ns / 1000000000);
    until.tv_nsec = (long)(wait_ns % 1000000000);
    pthread_mutex_lock(&server->mutex);
    int waited = 0;
    while (server->command_count == 0 && seconds > 0.0 && waited == 0) {
        waited = pthread_cond_timedwait(&server->arrived, &server->mutex, &until);
    }
    bool taken = server->command_count > 0;
    if (taken) {
        *out = server->command[server->command_first];
        server->command_first = (server->command_first + 1) % COMMANDS_MAX;
        server->command_count--;
    }
    pthread_mutex_unlock(&server->mutex);
    return taken;
}

void server_answer(struct server *server, int64_t client, const char *line)
{
    struct answer *answer = xcalloc(1, sizeof *answer);
    answer->client = client;
    answer->line = xstrdup(line);
    pthread_mutex_lock(&server->mutex);
    *server->answer_end = answer;
    server->answer_end = &answer->next;
    pthread_mutex_unlock(&server->mutex);
    wake(server);
}
