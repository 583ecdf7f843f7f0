/* The file system: every write, sync and rename of the program goes through the table of calls. */
#include "engine/base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "engine/base/text.h"
#include "engine/base/xalloc.h"

static int real_open(const char *path, int flags, mode_t mode)
{
    return open(path, flags, mode);
}

static const struct file_ops real_ops = {
    .open = real_open,
    .write = write,
    .pread = pread,
    .pwrite = pwrite,
    .fsync = fsync,
    .close = close,
    .rename = rename,
    .mkdir = mkdir,
    .unlink = unlink,
    .rmdir = rmdir,
};

/* Set once, by tests, before threads start. */
static const struct file_ops *installed = &real_ops;

void file_install_ops(const struct file_ops *ops)
{
    installed = ops ? ops : &real_ops;
}

const struct file_ops *file_ops(void)
{
    return installed;
}

bool file_ops_are_real(void)
{
    return installed == &real_ops;
}

ssize_t file_pwrite(int fd, const void *bytes, size_t size, off_t offset)
{
    return installed->pwrite ? installed->pwrite(fd, bytes, size, offset)
                             : pwrite(fd, bytes, size, offset);
}

/* A failed call as a sentence. Always -1. */
static int fail_call(struct error *err, enum error_code code, const char *verb, const char *path)
{
    int number = errno;
    fail(err, code, "cannot %s %s: %s", verb, text_show(path).text, strerror(number));
    if (number == ENOSPC || number == EDQUOT) {
        hint(err, "free space on this disk, or choose another place");
    } else if (number == EACCES || number == EPERM || number == EROFS) {
        hint(err, "check who owns it and its permissions");
    } else if (number == EMFILE || number == ENFILE) {
        hint(err, "raise the limit of open files (ulimit -n)");
    }
    return -1;
}

static int open_retrying(const char *path, int flags, mode_t mode)
{
    int fd;
    do {
        fd = installed->open(path, flags, mode);
    } while (fd < 0 && errno == EINTR);
    return fd;
}

static int refuse_kind(const char *path, mode_t mode, struct error *err)
{
    const char *kind = S_ISDIR(mode)                    ? "a directory"
                       : S_ISFIFO(mode)                 ? "a named pipe"
                       : S_ISSOCK(mode)                 ? "a socket"
                       : S_ISCHR(mode) || S_ISBLK(mode) ? "a device"
                                                        : "something else";
    return fail(err, ERROR_DATA, "%s is %s, a regular file is needed", text_show(path).text, kind);
}

int file_open_read(const char *path, int64_t *size, struct error *err)
{
    struct stat facts;
    /* Asked before opening: opening a device can have effects. Asked again after it: the name may
     * mean something else by then; O_NONBLOCK keeps a pipe from holding us up. */
    if (stat(path, &facts) != 0) {
        return fail_call(err, ERROR_DATA, "open", path);
    }
    if (!S_ISREG(facts.st_mode)) {
        return refuse_kind(path, facts.st_mode, err);
    }
    int fd = open_retrying(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0);
    if (fd < 0) {
        return fail_call(err, ERROR_DATA, "open", path);
    }
    if (fstat(fd, &facts) != 0 || !S_ISREG(facts.st_mode)) {
        installed->close(fd);
        return refuse_kind(path, facts.st_mode, err);
    }
    if (size) {
        *size = facts.st_size;
    }
    return fd;
}

int file_read_at(int fd, const char *path, void *bytes, size_t size, int64_t offset,
                 struct error *err)
{
    char *to = bytes;
    size_t done = 0;
    while (done < size) {
        ssize_t got = installed->pread(fd, to + done, size - done, offset + (int64_t)done);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return fail_call(err, ERROR_RUNTIME, "read", path);
        }
        if (got == 0) {
            fail(err, ERROR_DATA, "%s ends at byte %lld, %zu more were expected",
                 text_show(path).text, (long long)offset + (long long)done, size - done);
            return hint(err, "the file is cut off, or it became shorter while it was read");
        }
        done += (size_t)got;
    }
    return 0;
}

char *file_read_all(const char *path, size_t limit, size_t *size, struct error *err)
{
    int64_t bytes = 0;
    int fd = file_open_read(path, &bytes, err);
    if (fd < 0) {
        return NULL;
    }
    char *text = NULL;
    if ((uint64_t)bytes > limit) {
        fail(err, ERROR_DATA, "%s has %lld bytes, at most %zu are read", text_show(path).text,
             (long long)bytes, limit);
    } else if (!(text = malloc((size_t)bytes + 1))) {
        fail(err, ERROR_RUNTIME, "out of memory for %s (%lld bytes)", text_show(path).text,
             (long long)bytes);
    } else if (file_read_at(fd, path, text, (size_t)bytes, 0, err) != 0) {
        free(text);
        text = NULL;
    } else {
        text[bytes] = '\0';
        *size = (size_t)bytes;
    }
    installed->close(fd);
    return text;
}

int file_write_all(int fd, const char *path, const void *bytes, size_t size, struct error *err)
{
    const char *from = bytes;
    size_t done = 0;
    while (done < size) {
        ssize_t put = installed->write(fd, from + done, size - done);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put == 0) {
            errno = EIO; /* a disk that takes nothing and says nothing */
        }
        if (put <= 0) {
            return fail_call(err, ERROR_RUNTIME, "write", path);
        }
        done += (size_t)put;
    }
    return 0;
}

/* Writes, syncs and closes. A failed fsync is never tried again: the system may have dropped the
 * pages and would report success. */
static int write_and_close(int fd, const char *path, const void *bytes, size_t size,
                           struct error *err)
{
    int result = file_write_all(fd, path, bytes, size, err);
    if (result == 0 && installed->fsync(fd) != 0) {
        result = fail_call(err, ERROR_RUNTIME, "sync", path);
    }
    if (installed->close(fd) != 0 && result == 0 && errno != EINTR) {
        result = fail_call(err, ERROR_RUNTIME, "close", path);
    }
    return result;
}

/* The directory that holds `path` (xmalloc'd). */
static char *directory_of(const char *path)
{
    const char *base = path_base(path);
    if (base == path) {
        return xstrdup(".");
    }
    size_t size = (size_t)(base - path);
    return xstrndup(path, size > 1 ? size - 1 : size);
}

/* A new file beside `path`, opened for writing; its name (xmalloc'd) in `name`. */
static int open_beside(const char *path, char **name, struct error *err)
{
    for (int attempt = 0; attempt < 100; attempt++) {
        *name = xasprintf("%s.tmp-%ld-%d", path, (long)getpid(), attempt);
        int fd = open_retrying(*name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd >= 0) {
            return fd;
        }
        int number = errno;
        if (number != EEXIST) {
            fail_call(err, ERROR_RUNTIME, "create", *name);
        }
        free(*name);
        *name = NULL;
        if (number != EEXIST) {
            return -1;
        }
    }
    return fail(err, ERROR_RUNTIME, "cannot create a temporary file beside %s: 100 names are taken",
                text_show(path).text);
}

int file_replace(const char *path, const void *bytes, size_t size, struct error *err)
{
    char *name = NULL;
    int fd = open_beside(path, &name, err);
    if (fd < 0) {
        return -1;
    }
    int result = write_and_close(fd, name, bytes, size, err);
    if (result == 0 && installed->rename(name, path) != 0) {
        result = fail_call(err, ERROR_RUNTIME, "replace", path);
    }
    if (result != 0) {
        installed->unlink(name);
    } else {
        char *directory = directory_of(path);
        result = file_sync_directory(directory, err);
        free(directory);
    }
    free(name);
    return result;
}

int file_sync_directory(const char *path, struct error *err)
{
    int fd = open_retrying(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0) {
        return fail_call(err, ERROR_RUNTIME, "open", path);
    }
    int result = 0;
    /* Some file systems cannot sync a directory and say so with EINVAL: nothing can be done. */
    if (installed->fsync(fd) != 0 && errno != EINVAL) {
        result = fail_call(err, ERROR_RUNTIME, "sync", path);
    }
    installed->close(fd);
    return result;
}

static int make_directory(const char *path, struct error *err)
{
    if (installed->mkdir(path, 0700) == 0) {
        return 0;
    }
    int number = errno;
    if (file_is_directory(path)) {
        return 0; /* it was there, or somebody made it just now */
    }
    errno = number;
    return fail_call(err, ERROR_RUNTIME, "make the directory", path);
}

int file_make_directories(const char *path, struct error *err)
{
    char *copy = xstrdup(path);
    int result = 0;
    for (size_t i = 1; copy[0] != '\0' && copy[i] != '\0' && result == 0; i++) {
        if (copy[i] == '/' && copy[i - 1] != '/') {
            copy[i] = '\0';
            result = make_directory(copy, err);
            copy[i] = '/';
        }
    }
    if (result == 0) {
        result = make_directory(path, err);
    }
    free(copy);
    return result;
}

/* The names in a directory, read before any is removed. */
static int list_directory(const char *path, char ***names, size_t *count, struct error *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    if (!directory) {
        int result = fail_call(err, ERROR_RUNTIME, "open", path);
        if (fd >= 0) {
            close(fd);
        }
        return result;
    }
    const struct dirent *entry;
    size_t capacity = 0;
    errno = 0;
    while ((entry = readdir(directory))) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            if (*count == capacity) {
                capacity = capacity ? 2 * capacity : 16;
                *names = xrealloc(*names, capacity * sizeof **names);
            }
            (*names)[(*count)++] = xstrdup(entry->d_name);
        }
        errno = 0;
    }
    int result = errno == 0 ? 0 : fail_call(err, ERROR_RUNTIME, "list", path);
    closedir(directory);
    return result;
}

/* Recursion ends: a path longer than PATH_MAX is refused by the system. */
int file_remove_tree(const char *path, struct error *err)
{
    struct stat facts;
    if (lstat(path, &facts) != 0) {
        return errno == ENOENT ? 0 : fail_call(err, ERROR_RUNTIME, "look at", path);
    }
    if (!S_ISDIR(facts.st_mode)) {
        return installed->unlink(path) == 0 || errno == ENOENT
                   ? 0
                   : fail_call(err, ERROR_RUNTIME, "remove", path);
    }
    char **names = NULL;
    size_t count = 0;
    int result = list_directory(path, &names, &count, err);
    for (size_t i = 0; i < count; i++) {
        if (result == 0) {
            char *inside = path_join(path, names[i]);
            result = file_remove_tree(inside, err);
            free(inside);
        }
        free(names[i]);
    }
    free(names);
    if (result == 0 && installed->rmdir(path) != 0) {
        result = fail_call(err, ERROR_RUNTIME, "remove", path);
    }
    return result;
}

/* Copies `size` bytes between two open files. */
static int copy_bytes(int in, const char *from, int out, const char *to, int64_t size,
                      struct error *err)
{
    enum { CHUNK = 1 << 18 };
    char *chunk = xmalloc(CHUNK);
    int result = 0;
    for (int64_t at = 0; at < size && result == 0;) {
        size_t part = size - at < CHUNK ? (size_t)(size - at) : (size_t)CHUNK;
        result = file_read_at(in, from, chunk, part, at, err);
        if (result == 0) {
            result = file_write_all(out, to, chunk, part, err);
        }
        at += (int64_t)part;
    }
    free(chunk);
    return result;
}

int file_copy(const char *from, const char *to, struct error *err)
{
    int64_t size = 0;
    int in = file_open_read(from, &size, err);
    if (in < 0) {
        return -1;
    }
    int out = open_retrying(to, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (out < 0) {
        fail_call(err, ERROR_RUNTIME, "create", to);
        installed->close(in);
        return -1;
    }
    int result = copy_bytes(in, from, out, to, size, err);
    installed->close(in);
    if (result != 0) {
        installed->close(out);
    } else {
        result = write_and_close(out, to, NULL, 0, err);
    }
    if (result != 0) {
        installed->unlink(to);
    }
    return result;
}

int64_t file_free_bytes(const char *path)
{
    if (installed->free_bytes) {
        return installed->free_bytes(path);
    }
    struct statvfs facts;
    char *place = xstrdup(path);
    int result = statvfs(place, &facts);
    /* What will be made later: ask the nearest directory above it. */
    while (result != 0 && errno == ENOENT && strcmp(place, ".") != 0 && strcmp(place, "/") != 0) {
        char *above = directory_of(place);
        free(place);
        place = above;
        result = statvfs(place, &facts);
    }
    free(place);
    if (result != 0) {
        return -1;
    }
    uint64_t block = facts.f_frsize ? facts.f_frsize : facts.f_bsize;
    if (block != 0 && facts.f_bavail > (uint64_t)INT64_MAX / block) {
        return INT64_MAX;
    }
    return (int64_t)(facts.f_bavail * block);
}

bool file_exists(const char *path)
{
    struct stat facts;
    return stat(path, &facts) == 0;
}

bool file_is_directory(const char *path)
{
    struct stat facts;
    return stat(path, &facts) == 0 && S_ISDIR(facts.st_mode);
}

char *path_join(const char *a, const char *b)
{
    size_t size = strlen(a);
    if (size == 0) {
        return xstrdup(b);
    }
    return xasprintf(a[size - 1] == '/' ? "%s%s" : "%s/%s", a, b);
}

const char *path_base(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}
