/* Bytes to the terminal. */
#include "app/sender.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/base/file.h"

/* Others might print what they do not understand. */
static bool is_known(const char *type)
{
    static const char *const types[] = { "xterm", "tmux",  "screen",  "rxvt",    "alacritty",
                                         "kitty", "foot",  "wezterm", "ghostty", "st-",
                                         "vte",   "gnome", "konsole", "iterm",   "contour" };
    for (size_t i = 0; type && i < sizeof(types) / sizeof(types[0]); i++) {
        if (strncmp(type, types[i], strlen(types[i])) == 0) {
            return true;
        }
    }
    return false;
}

int sender_open(struct sender *sender, int fd, const char *type, struct error *err)
{
    char name[64];
    memset(sender, 0, sizeof(*sender));
    pace_open(&sender->pace);
    sender->known = is_known(type);
    sender->pace.silent = !sender->known;
    sender->frame = memfd_create("frame", MFD_CLOEXEC);
    /* An opening of our own: what makes ours not wait would hold for the shell's, too. */
    sender->tty = ttyname_r(fd, name, sizeof(name)) == 0
                      ? file_ops()->open(name, O_WRONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC, 0)
                      : -1;
    if (sender->tty < 0) {
        sender->tty = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        sender->waits = true;
    }
    if (sender->frame < 0 || sender->tty < 0) {
        return fail(err, ERROR_RUNTIME, "the terminal cannot be set up: %s", strerror(errno));
    }
    return 0;
}

void sender_close(struct sender *sender)
{
    close(sender->tty);
    close(sender->frame);
    buffer_free(&sender->unsent);
}

int sender_flush(struct sender *sender)
{
    while (!sender->gone && sender->sent < sender->unsent.size) {
        size_t size = sender->unsent.size - sender->sent;
        if (sender->waits) {
            struct pollfd polled = { .fd = sender->tty, .events = POLLOUT };
            if (poll(&polled, 1, 0) <= 0) {
                break;
            }
            size = size > 256 ? 256 : size;
        }
        ssize_t written = write(sender->tty, sender->unsent.text + sender->sent, size);
        if (written > 0) {
            sender->sent += (size_t)written;
        } else if (errno == EAGAIN) {
            break;
        } else if (errno != EINTR) {
            sender->gone = true;
        }
    }
    if (sender->sent == sender->unsent.size) {
        sender->unsent.size = sender->sent = 0;
    }
    return sender->gone ? -1 : 0;
}

void sender_text(struct sender *sender, const char *text)
{
    buffer_append(&sender->unsent, text, strlen(text));
    sender_flush(sender);
}

/* The bytes of a frame; numbers that stand for styles become their colours. */
static void add_frame(struct sender *sender, struct theme theme, const char *bytes, size_t size)
{
    static const char mark[] = "\x1b[38;5;";
    const char *end = bytes + size;
    while (theme.depth == COLOR_TRUE) {
        const char *found = memmem(bytes, (size_t)(end - bytes), mark, sizeof(mark) - 1);
        const char *close = found ? memchr(found, 'm', (size_t)(end - found)) : NULL;
        if (!close) {
            break;
        }
        long style = strtol(found + sizeof(mark) - 1, NULL, 10) - SENDER_STYLE;
        unsigned rgb = theme_look(theme, (enum style)style).rgb;
        buffer_append(&sender->unsent, bytes, (size_t)(found - bytes));
        buffer_printf(&sender->unsent, "\x1b[38;2;%u;%u;%um", rgb >> 16, rgb >> 8 & 255, rgb & 255);
        bytes = close + 1;
    }
    buffer_append(&sender->unsent, bytes, (size_t)(end - bytes));
}

void sender_begin(struct sender *sender)
{
    lseek(sender->frame, 0, SEEK_SET);
}

size_t sender_size(const struct sender *sender)
{
    return (size_t)lseek(sender->frame, 0, SEEK_CUR);
}

void sender_frame(struct sender *sender, struct theme theme, bool whole)
{
    size_t size = sender_size(sender);
    if (size == 0) {
        return;
    }
    char *bytes = xmalloc(size);
    if (pread(sender->frame, bytes, size, 0) == (ssize_t)size) {
        bool at_once = whole && sender->known;
        buffer_printf(&sender->unsent, "%s", at_once ? "\x1b[?2026h" : "");
        add_frame(sender, theme, bytes, size);
        buffer_printf(&sender->unsent, "%s%s", at_once ? "\x1b[?2026l" : "",
                      pace_asks(&sender->pace) ? "\x1b[5n" : "");
        pace_sent(&sender->pace, sender->unsent.size, clock_monotonic());
        sender_flush(sender);
    }
    free(bytes);
}

bool sender_ready(struct sender *sender)
{
    int queued = 0;
    if (sender->unsent.size > 0) {
        return false;
    }
    if (pace_asks(&sender->pace)) {
        sender->queued = false;
        return pace_ready(&sender->pace, clock_monotonic());
    }
    sender->queued = ioctl(sender->tty, TIOCOUTQ, &queued) == 0 && queued > 0;
    return !sender->queued;
}

double sender_due(const struct sender *sender)
{
    return sender->queued ? clock_monotonic() + 0.02 : pace_overdue(&sender->pace);
}

void sender_forget(struct sender *sender)
{
    sender->unsent.size = sender->sent = 0;
    sender->pace.waiting = false;
    sender->pace.unanswered = 0;
}
