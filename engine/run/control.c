/* The control socket seen from outside: connecting, one line out, one line back. */
#include "engine/control.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"
#include "engine/run/directory.h"
#include "engine/run/socket_place.h"

enum { SEND_WAIT_MS = 2000, LINE_LIMIT = 64 << 20 };

/* Keeps text of the other side short and without bytes that a terminal obeys. */
static void copy_text(char *out, size_t size, const cJSON *value)
{
    snprintf(out, size, "%s", cJSON_IsString(value) ? value->valuestring : "");
    text_clean(out, size);
}

static int refuse_idle(const char *run, struct error *err)
{
    fail(err, ERROR_RUNTIME, "%s is not running", text_show(path_base(run)).text);
    return hint(err, "windrow runs lists what is");
}

static int connect_to(const char *path, struct error *err)
{
    struct sockaddr_un address;
    struct stat facts;
    if (lstat(path, &facts) != 0 || !S_ISSOCK(facts.st_mode) || facts.st_uid != getuid() ||
        !socket_address(path, &address)) {
        return fail(err, ERROR_RUNTIME, "%s is not a socket of this user", text_show(path).text);
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0 ||
        fcntl(fd, F_SETFL, O_NONBLOCK) != 0) {
        fail(err, ERROR_RUNTIME, "cannot connect to %s: %s", text_show(path).text, strerror(errno));
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    if (!socket_peer_is_own(fd)) {
        close(fd);
        return fail(err, ERROR_RUNTIME, "%s is served by another user", text_show(path).text);
    }
    return fd;
}

int control_connect(const char *run, struct error *err)
{
    char *name = path_join(run, "control");
    size_t size = 0;
    char *path = NULL;
    int fd = -1;
    if (!run_is_locked(run, NULL)) {
        refuse_idle(run, err);
    } else if (!file_exists(name)) {
        fail(err, ERROR_RUNTIME, "%s runs without a control socket",
             text_show(path_base(run)).text);
        hint(err, "it may be starting; its events are in events.jsonl");
    } else if ((path = file_read_all(name, 4096, &size, err))) {
        path[strcspn(path, "\n")] = '\0';
        fd = connect_to(path, err);
    }
    free(path);
    free(name);
    return fd;
}

static int send_all(int fd, const char *text, size_t size, struct error *err)
{
    size_t done = 0;
    while (done < size) {
        ssize_t put = send(fd, text + done, size - done, MSG_NOSIGNAL);
        if (put > 0) {
            done += (size_t)put;
            continue;
        }
        if (errno != EAGAIN && errno != EINTR) {
            return fail(err, ERROR_RUNTIME, "the run does not listen any more: %s",
                        strerror(errno));
        }
        struct pollfd polled = { .fd = fd, .events = POLLOUT };
        if (poll(&polled, 1, SEND_WAIT_MS) == 0) {
            return fail(err, ERROR_RUNTIME, "the run does not read its commands");
        }
    }
    return 0;
}

int control_send(int fd, int64_t id, const char *command, const char *key, const char *value,
                 struct error *err)
{
    struct buffer line = { 0 };
    int64_t from = 0;
    buffer_printf(&line, "{\"id\":%lld,\"command\":", (long long)id);
    json_write_string(&line, command, strlen(command));
    if (strcmp(command, "hello") == 0 && value && text_to_integer(value, &from)) {
        buffer_printf(&line, ",\"from\":%lld", (long long)from);
    } else {
        if (key) {
            buffer_printf(&line, ",\"key\":");
            json_write_string(&line, key, strlen(key));
        }
        if (value) {
            buffer_printf(&line, ",\"value\":");
            json_write_string(&line, value, strlen(value));
        }
    }
    buffer_printf(&line, "}\n");
    int result = send_all(fd, line.text, line.size, err);
    buffer_free(&line);
    return result;
}

static int64_t whole_or(const cJSON *object, const char *key, int64_t fallback)
{
    const cJSON *value = json_get(object, key);
    bool whole = cJSON_IsNumber(value) && value->valuedouble >= -1.0 && value->valuedouble < 0x1p53;
    return whole ? (int64_t)value->valuedouble : fallback;
}

static double positive_or_zero(const cJSON *object, const char *key)
{
    const cJSON *value = json_get(object, key);
    return cJSON_IsNumber(value) && value->valuedouble > 0.0 ? value->valuedouble : 0.0;
}

int control_read_reply(const char *line, size_t size, struct control_reply *reply)
{
    struct error ignored = { 0 };
    /* Events are by far the most lines; only a reply begins so. */
    if (size < 8 || memcmp(line, "{\"ack\":", 7) != 0) {
        return -1;
    }
    cJSON *root = json_parse(line, size, "reply", 1, &ignored);
    if (!cJSON_IsBool(json_get(root, "ok"))) {
        cJSON_Delete(root);
        return -1;
    }
    *reply =
        (struct control_reply){ .ok = cJSON_IsTrue(json_get(root, "ok")),
                                .id = whole_or(root, "ack", -1),
                                .step = whole_or(root, "step", -1),
                                .bytes = whole_or(root, "bytes", -1),
                                .bytes_now = whole_or(root, "bytes_now", -1),
                                .flops = positive_or_zero(root, "flops"),
                                .flops_now = positive_or_zero(root, "flops_now"),
                                .refresh_flops = positive_or_zero(root, "refresh_flops"),
                                .refresh_flops_now = positive_or_zero(root, "refresh_flops_now"),
                                .unfit = cJSON_IsFalse(json_get(root, "fits")) };
    copy_text(reply->error, sizeof reply->error, json_get(root, "error"));
    copy_text(reply->hint, sizeof reply->hint, json_get(root, "hint"));
    cJSON_Delete(root);
    return 0;
}

/* Appends what there is; 1, 0 if nothing came in time, -1 if the other side is gone. */
static int receive(int fd, double end, struct buffer *text)
{
    char chunk[16384];
    double left = end - clock_monotonic();
    struct pollfd polled = { .fd = fd, .events = POLLIN };
    if (left <= 0.0 || poll(&polled, 1, (int)(left * 1e3) + 1) == 0) {
        return 0;
    }
    ssize_t got = recv(fd, chunk, sizeof chunk, 0);
    if (got > 0) {
        buffer_append(text, chunk, (size_t)got);
        return text->size < LINE_LIMIT ? 1 : -1;
    }
    return got < 0 && (errno == EAGAIN || errno == EINTR) ? 1 : -1;
}

static int wait_reply(int fd, int64_t id, double timeout_s, struct control_reply *reply,
                      struct error *err)
{
    struct buffer text = { 0 };
    double end = clock_monotonic() + timeout_s;
    int state = 1;
    bool found = false;
    while (!found && state == 1) {
        char *line_end = text.size > 0 ? memchr(text.text, '\n', text.size) : NULL;
        if (!line_end) {
            state = receive(fd, end, &text);
            continue;
        }
        size_t size = (size_t)(line_end - text.text);
        found = control_read_reply(text.text, size, reply) == 0 &&
                (reply->id == id || (reply->id == -1 && !reply->ok)); /* -1: sent away */
        text.size -= size + 1;
        memmove(text.text, line_end + 1, text.size);
    }
    buffer_free(&text);
    if (!found && state == 0) {
        fail(err, ERROR_RUNTIME, "no answer within %.0f seconds", timeout_s);
        return hint(err, "commands take effect at the end of a step; it may still do so");
    }
    return found ? 0 : fail(err, ERROR_RUNTIME, "the run ended before it answered");
}

int control_request(const char *run, const char *command, const char *key, const char *value,
                    double timeout_s, struct control_reply *reply, struct error *err)
{
    int fd = control_connect(run, err);
    if (fd < 0) {
        return -1;
    }
    struct error why = { 0 };
    bool sent = control_send(fd, 1, command, key, value, &why) == 0;
    /* Who is sent away at once cannot send; the reason was sent before. */
    int result = wait_reply(fd, 1, sent ? timeout_s : 0.1, reply, err);
    if (result != 0 && !sent) {
        *err = why;
    }
    close(fd);
    return result;
}
