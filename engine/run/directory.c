/*
 * The run directory.
 *
 *   recipe.json     the resolved recipe
 *   forked.json     of a fork: what it began from (engine/run/origin.c)
 *   events.jsonl    one event a line (engine/event.h)
 *   lock            held with flock while a process trains here; holds its id
 *   control         path of the control socket while it trains
 *   checkpoints/    engine/run/checkpoint.h; latest and best point into it
 *   model/          the exported model, if asked for
 */
#include "engine/run/directory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"
#include "engine/run.h"

enum { NAME_PART_LIMIT = 40, LOCK_TRIES = 20, LOCK_PAUSE_NS = 10 * 1000 * 1000 };

char *run_root(void)
{
    const char *state = getenv("XDG_STATE_HOME");
    if (state && state[0] == '/') {
        return path_join(state, "windrow/runs");
    }
    const char *home = getenv("HOME");
    if (!home || home[0] != '/') {
        const struct passwd *entry = getpwuid(getuid());
        home = entry ? entry->pw_dir : "/tmp";
    }
    return path_join(home, ".local/state/windrow/runs");
}

bool run_is_run(const char *path)
{
    char *recipe = path_join(path, "recipe.json");
    char *events = path_join(path, "events.jsonl");
    bool is = file_is_directory(path) && (file_exists(recipe) || file_exists(events));
    free(recipe);
    free(events);
    return is;
}

/* ---- the lock ------------------------------------------------------------------------------- */

static int64_t read_pid(int fd)
{
    char text[32] = "";
    int64_t pid = 0;
    ssize_t size = pread(fd, text, sizeof text - 1, 0);
    if (size > 0) {
        text[strcspn(text, "\n")] = '\0';
        if (!text_to_integer(text, &pid)) {
            pid = 0;
        }
    }
    return pid;
}

bool run_is_locked(const char *path, int64_t *pid)
{
    char *name = path_join(path, "lock");
    int fd = file_ops()->open(name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC, 0);
    free(name);
    if (fd < 0) {
        return false;
    }
    bool locked = flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    if (pid) {
        *pid = locked ? read_pid(fd) : 0;
    }
    close(fd);
    return locked;
}

/* Others hold the lock for an instant when they ask whether it is held: so it is tried for a while.
 */
static int take_lock(struct run_directory *directory, struct error *err)
{
    char *name = path_join(directory->path, "lock");
    int fd = file_ops()->open(name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    int number = errno;
    free(name);
    if (fd < 0) {
        return fail(err, ERROR_RUNTIME, "cannot open the lock of %s: %s",
                    text_show(directory->path).text, strerror(number));
    }
    int tries = 0;
    while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK || ++tries == LOCK_TRIES) {
            int64_t pid = read_pid(fd);
            close(fd);
            fail(err, ERROR_RUNTIME, "%s is in use by process %lld",
                 text_show(directory->path).text, (long long)pid);
            return hint(err, "windrow attach shows it; windrow stop ends it");
        }
        nanosleep(&(struct timespec){ .tv_nsec = LOCK_PAUSE_NS }, NULL);
    }
    char *text = xasprintf("%ld\n%.0f\n", (long)getpid(), clock_wall());
    int result = 0;
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, strlen(text), 0) != (ssize_t)strlen(text)) {
        result = fail(err, ERROR_RUNTIME, "cannot write the lock of %s: %s",
                      text_show(directory->path).text, strerror(errno));
        close(fd);
    } else {
        directory->lock = fd;
    }
    free(text);
    return result;
}

/* ---- making --------------------------------------------------------------------------------- */

static bool is_empty(const char *path)
{
    DIR *listing = opendir(path);
    bool empty = listing != NULL;
    const struct dirent *entry;
    while (listing && (entry = readdir(listing))) {
        empty = empty && (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0);
    }
    if (listing) {
        closedir(listing);
    }
    return empty;
}

/* "20250731-142501-stories"; what may be awkward in a shell becomes a dash. */
static char *make_name(const char *recipe_name)
{
    char part[NAME_PART_LIMIT + 1] = "";
    size_t size = 0;
    for (; recipe_name[size] && size < NAME_PART_LIMIT; size++) {
        char c = recipe_name[size];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     c == '_' || c == '.';
        part[size] = plain ? c : '-';
    }
    time_t now = (time_t)clock_wall();
    struct tm local;
    char date[32] = "run";
    if (localtime_r(&now, &local)) {
        strftime(date, sizeof date, "%Y%m%d-%H%M%S", &local);
    }
    return xasprintf("%s-%s", date, size > 0 ? part : "run");
}

static char *make_unique(const char *recipe_name, struct error *err)
{
    char *root = run_root();
    char *name = make_name(recipe_name);
    char *path = NULL;
    if (file_make_directories(root, err) == 0) {
        for (int i = 1; i < 1000 && !path; i++) {
            char *tried =
                i == 1 ? xasprintf("%s/%s", root, name) : xasprintf("%s/%s-%d", root, name, i);
            if (file_ops()->mkdir(tried, 0700) == 0) {
                path = tried;
                break;
            }
            int number = errno;
            if (number != EEXIST) {
                fail(err, ERROR_RUNTIME, "cannot make %s: %s", text_show(tried).text,
                     strerror(number));
            }
            free(tried);
            if (number != EEXIST) {
                break;
            }
        }
    }
    free(name);
    free(root);
    return path;
}

static char *make_given(const char *path, struct error *err)
{
    if (file_exists(path) && !file_is_directory(path)) {
        fail(err, ERROR_USAGE, "%s is not a directory", text_show(path).text);
        return NULL;
    }
    if (file_exists(path) && !is_empty(path)) {
        fail(err, ERROR_USAGE, "the run directory %s is not empty", text_show(path).text);
        hint(err, "name another one, or continue it with windrow train --resume");
        return NULL;
    }
    if (file_make_directories(path, err) != 0) {
        return NULL;
    }
    if (chmod(path, 0700) != 0) {
        fail(err, ERROR_RUNTIME, "cannot make %s private: %s", text_show(path).text,
             strerror(errno));
        return NULL;
    }
    char *real = realpath(path, NULL);
    if (!real) {
        fail(err, ERROR_RUNTIME, "cannot find %s: %s", text_show(path).text, strerror(errno));
    }
    return real;
}

int run_directory_make(const char *path, const char *recipe_name, struct run_directory *out,
                       struct error *err)
{
    *out = (struct run_directory){ .lock = -1, .events = -1 };
    out->path = path ? make_given(path, err) : make_unique(recipe_name, err);
    if (!out->path) {
        return -1;
    }
    out->name = xstrdup(path_base(out->path));
    if (take_lock(out, err) != 0 || run_directory_cut(out, 0, err) != 0) {
        run_directory_close(out);
        return -1;
    }
    return 0;
}

int run_directory_open(const char *path, struct run_directory *out, struct error *err)
{
    *out = (struct run_directory){ .lock = -1, .events = -1 };
    out->path = xstrdup(path);
    out->name = xstrdup(path_base(path));
    if (take_lock(out, err) != 0) {
        run_directory_close(out);
        return -1;
    }
    return 0;
}

/* ---- events --------------------------------------------------------------------------------- */

/* The end of the last whole line at or before `bytes`. */
static int64_t whole_lines(int fd, int64_t bytes)
{
    char chunk[4096];
    while (bytes > 0) {
        int64_t first = bytes > (int64_t)sizeof chunk ? bytes - (int64_t)sizeof chunk : 0;
        ssize_t size = pread(fd, chunk, (size_t)(bytes - first), first);
        if (size != bytes - first) {
            return 0;
        }
        const char *end = memrchr(chunk, '\n', (size_t)size);
        if (end) {
            return first + (end - chunk) + 1;
        }
        bytes = first;
    }
    return 0;
}

int run_directory_cut(struct run_directory *directory, int64_t bytes, struct error *err)
{
    char *name = path_join(directory->path, "events.jsonl");
    struct stat facts;
    int fd = file_ops()->open(name, O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0 || fstat(fd, &facts) != 0 || !S_ISREG(facts.st_mode)) {
        fail(err, ERROR_RUNTIME, "cannot open %s: %s", text_show(name).text,
             fd < 0 ? strerror(errno) : "not a regular file");
        if (fd >= 0) {
            close(fd);
        }
        free(name);
        return -1;
    }
    bytes = whole_lines(fd, bytes < facts.st_size ? bytes : facts.st_size);
    int result = 0;
    if (ftruncate(fd, bytes) != 0) {
        result =
            fail(err, ERROR_RUNTIME, "cannot cut %s: %s", text_show(name).text, strerror(errno));
        close(fd);
    } else {
        directory->events = fd;
        directory->bytes = bytes;
    }
    free(name);
    return result;
}

int run_directory_append(struct run_directory *directory, const char *line, size_t size,
                         struct error *err)
{
    ssize_t put;
    do {
        put = file_ops()->write(directory->events, line, size);
    } while (put < 0 && errno == EINTR);
    if (put == (ssize_t)size) {
        directory->bytes += put;
        directory->broken = false;
        return 0;
    }
    int number = put < 0 ? errno : ENOSPC;
    if (put > 0 && ftruncate(directory->events, directory->bytes) != 0) {
        number = errno;
    }
    directory->broken = true;
    return fail(err, ERROR_RUNTIME, "cannot write %s/events.jsonl: %s",
                text_show(directory->path).text, strerror(number));
}

int run_directory_sync(struct run_directory *directory, struct error *err)
{
    if (file_ops()->fsync(directory->events) != 0) {
        return fail(err, ERROR_RUNTIME, "cannot sync %s/events.jsonl: %s",
                    text_show(directory->path).text, strerror(errno));
    }
    return 0;
}

void run_directory_close(struct run_directory *directory)
{
    if (directory->events >= 0) {
        close(directory->events);
    }
    if (directory->lock >= 0) {
        close(directory->lock);
    }
    free(directory->path);
    free(directory->name);
    *directory = (struct run_directory){ .lock = -1, .events = -1 };
}
