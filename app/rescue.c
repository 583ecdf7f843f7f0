/* The terminal given back by signal handlers. */
#include "app/rescue.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "engine/base/xalloc.h"

/* What a signal handler needs; nothing else in the program is global. */
static struct {
    volatile sig_atomic_t armed;
    int fd;
    struct termios modes;
    char bytes[256];
    size_t size;
    int pipe[2];
} rescue = { .pipe = { -1, -1 } };

static const int deadly[] = { SIGTERM, SIGINT, SIGQUIT, SIGSEGV, SIGBUS, SIGFPE, SIGABRT };
enum { DEADLY = sizeof(deadly) / sizeof(deadly[0]) };

/* A terminal that takes nothing is not waited for longer than a moment. */
static void write_bytes(void)
{
    size_t done = 0;
    for (int tries = 0; done < rescue.size && tries < 3; tries++) {
        ssize_t written = write(rescue.fd, rescue.bytes + done, rescue.size - done);
        if (written > 0) {
            done += (size_t)written;
        } else if (errno == EAGAIN) {
            struct pollfd polled = { .fd = rescue.fd, .events = POLLOUT };
            poll(&polled, 1, 100);
        }
    }
}

void rescue_now(void)
{
    if (rescue.armed) {
        rescue.armed = 0;
        write_bytes();
        tcflush(rescue.fd, TCIFLUSH); /* answers that nobody would read land in the shell */
        tcsetattr(rescue.fd, TCSANOW, &rescue.modes);
    }
}

static void on_deadly(int number)
{
    rescue_now();
    if (number == SIGHUP) {
        _exit(129);
    }
    signal(number, SIG_DFL);
    raise(number);
}

static void on_news(int number)
{
    int before = errno;
    char news = (char)(number == SIGWINCH  ? RESCUE_RESIZED
                       : number == SIGTSTP ? RESCUE_STOP_ASKED
                                           : RESCUE_CONTINUED);
    ssize_t written = write(rescue.pipe[1], &news, 1);
    (void)written;
    errno = before;
}

static void install(int number, void (*handler)(int), int flags)
{
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_handler = handler;
    sigemptyset(&action.sa_mask);
    action.sa_flags = flags;
    sigaction(number, &action, NULL);
}

static bool is_ignored(int number)
{
    struct sigaction now;
    return sigaction(number, NULL, &now) == 0 && now.sa_handler == SIG_IGN;
}

int rescue_open(int fd, struct error *err)
{
    rescue.size = 0;
    tcgetattr(fd, &rescue.modes);
    if (pipe2(rescue.pipe, O_CLOEXEC | O_NONBLOCK) != 0) {
        return fail(err, ERROR_RUNTIME, "no pipe can be made: %s", strerror(errno));
    }
    return 0;
}

void rescue_add(const char *bytes)
{
    size_t size = bytes ? strlen(bytes) : 0;
    if (rescue.size + size <= sizeof(rescue.bytes)) {
        memcpy(rescue.bytes + rescue.size, bytes ? bytes : "", size);
        rescue.size += size;
    }
}

void rescue_arm(int fd)
{
    rescue.fd = fd;
    rescue.armed = 1;
    for (int i = 0; i < DEADLY; i++) {
        install(deadly[i], on_deadly, (int)SA_NODEFER);
    }
    if (!is_ignored(SIGHUP)) {
        install(SIGHUP, on_deadly, (int)SA_NODEFER); /* under nohup the terminal itself tells it */
    }
    install(SIGWINCH, on_news, SA_RESTART);
    install(SIGCONT, on_news, SA_RESTART);
    if (!is_ignored(SIGTSTP)) {
        install(SIGTSTP, on_news, SA_RESTART);
    }
    xalloc_install_handler(rescue_now);
}

void rescue_disarm(void)
{
    static const int others[] = { SIGHUP, SIGWINCH, SIGCONT, SIGTSTP };
    rescue.armed = 0;
    xalloc_install_handler(NULL);
    for (int i = 0; i < DEADLY; i++) {
        install(deadly[i], SIG_DFL, 0);
    }
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        if (!is_ignored(others[i])) {
            install(others[i], SIG_DFL, 0);
        }
    }
    close(rescue.pipe[0]);
    close(rescue.pipe[1]);
    rescue.pipe[0] = rescue.pipe[1] = -1;
}

int rescue_fd(void)
{
    return rescue.pipe[0];
}

unsigned rescue_take(void)
{
    char bytes[64];
    unsigned news = 0;
    ssize_t size;
    while ((size = read(rescue.pipe[0], bytes, sizeof(bytes))) > 0) {
        for (ssize_t i = 0; i < size; i++) {
            news |= (unsigned char)bytes[i];
        }
    }
    return news;
}

void rescue_stop(void)
{
    if (is_ignored(SIGTSTP)) {
        return; /* whoever started us cannot continue us */
    }
    install(SIGTSTP, SIG_DFL, 0);
    kill(0, SIGTSTP); /* the whole job: what started us must stop too */
    install(SIGTSTP, on_news, SA_RESTART);
}
