/* See launch.h. */
#include "engine/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/xalloc.h"
#include "engine/comm/socket.h"
#include "engine/comm/world.h"

/* Ranks notice the end of rank 0 within moments; one that is stopped never does. */
#define GRACE_S        10.0
#define FAILED_GRACE_S 4.0
#define REST_NS        10000000L

struct launch {
    int count;
    pid_t *child; /* 0: has ended */
};

static void set_number(const char *name, int number)
{
    char text[16];
    snprintf(text, sizeof text, "%d", number);
    setenv(name, text, 1);
}

/* A place that nobody else can take, since it listens there already, and a key that others do not
 * know: environments are read by their owner alone. */
static int set_place(int ranks, struct error *err)
{
    char why[SOCKET_WHY_SIZE];
    char text[64];
    uint64_t key[2];
    int listener = socket_listen("127.0.0.1", 0, why);
    if (listener < 0 || getrandom(key, sizeof key, 0) != (ssize_t)sizeof key) {
        return fail(err, ERROR_RUNTIME, "%d ranks need a place to meet: %s", ranks,
                    listener < 0 ? why : strerror(errno));
    }
    snprintf(text, sizeof text, "tcp://127.0.0.1:%d", socket_port(listener));
    setenv("WINDROW_RENDEZVOUS", text, 1);
    snprintf(text, sizeof text, "%016llx%016llx", (unsigned long long)key[0],
             (unsigned long long)key[1]);
    setenv("WINDROW_JOB", text, 1);
    set_number("WINDROW_RANKS", ranks);
    set_number("WINDROW_RANK", 0);
    set_number("WINDROW_LOCAL_RANK", 0);
    set_number("WINDROW_LISTENER", listener);
    return 0;
}

/* In the new process. It ends with its parent, which may have ended before it could ask for that.
 * Ctrl-C reaches it too: rank 0 decides what to do about that. */
static void become_rank(int rank, pid_t parent, const char *const *words)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) {
        _exit(ERROR_RUNTIME);
    }
    signal(SIGINT, SIG_IGN);
    int nothing = file_ops()->open("/dev/null", O_RDWR, 0);
    if (nothing >= 0) {
        dup2(nothing, STDIN_FILENO);
        dup2(nothing, STDOUT_FILENO);
    }
    if (nothing > STDERR_FILENO) {
        close(nothing);
    }
    unsetenv("WINDROW_LISTENER");
    set_number("WINDROW_RANK", rank);
    set_number("WINDROW_LOCAL_RANK", rank);
    execv("/proc/self/exe", (char *const *)(uintptr_t)words);
    fprintf(stderr, "windrow: error: rank %d cannot be started: %s\n", rank, strerror(errno));
    _exit(ERROR_RUNTIME);
}

struct launch *launch_ranks(int ranks, const char *const *words, struct error *err)
{
    struct world world;
    if (world_find(&world, err) != 0) {
        return NULL;
    }
    if (world.ranks > 1) {
        fail(err, ERROR_USAGE, "%s started %d ranks already; each would start %d more",
             world.launcher, world.ranks, ranks - 1);
        hint(err, "either --gpus %d or %s", ranks, world.launcher);
        return NULL;
    }
    if (set_place(ranks, err) != 0) {
        return NULL;
    }
    struct launch *launch = xcalloc(1, sizeof *launch);
    pid_t parent = getpid();
    launch->child = xcalloc((size_t)ranks, sizeof *launch->child);
    for (int rank = 1; rank < ranks; rank++) {
        pid_t child = fork();
        if (child == 0) {
            become_rank(rank, parent, words);
        }
        if (child < 0) {
            fail(err, ERROR_RUNTIME, "cannot start rank %d of %d: %s", rank, ranks,
                 strerror(errno));
            launch_end(launch, true);
            return NULL;
        }
        launch->child[launch->count++] = child;
    }
    return launch;
}

/* How many have not ended. */
static int count_left(struct launch *launch)
{
    int left = 0;
    for (int i = 0; i < launch->count; i++) {
        pid_t child = launch->child[i];
        if (child > 0 && waitpid(child, NULL, WNOHANG) != 0) {
            launch->child[i] = 0;
        }
        left += launch->child[i] > 0;
    }
    return left;
}

void launch_end(struct launch *launch, bool failed)
{
    if (launch == NULL) {
        return;
    }
    double until_s = clock_monotonic() + (failed ? FAILED_GRACE_S : GRACE_S);
    while (count_left(launch) > 0 && clock_monotonic() < until_s) {
        nanosleep(&(struct timespec){ .tv_nsec = REST_NS }, NULL);
    }
    for (int i = 0; i < launch->count; i++) {
        if (launch->child[i] > 0) {
            kill(launch->child[i], SIGKILL);
            waitpid(launch->child[i], NULL, 0);
        }
    }
    free(launch->child);
    free(launch);
}
