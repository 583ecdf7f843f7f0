/* The failing file system. */
#include "engine/base/faults.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "engine/base/file.h"

static struct faults state;

/* Whether this call fails. */
static bool strikes(char letter)
{
    if (state.calls < (long)sizeof state.log - 1) {
        state.log[state.calls] = letter;
    }
    state.calls++;
    bool now = state.kind == FAULT_POWER ? state.calls >= state.at : state.calls == state.at;
    if (!now || state.kind == FAULT_NONE || state.kind == FAULT_SHORT_WRITE) {
        return false;
    }
    state.hit = true;
    errno = state.number;
    return true;
}

static int fault_open(const char *path, int flags, mode_t mode)
{
    return strikes('o') ? -1 : open(path, flags, mode);
}

static ssize_t fault_write(int fd, const void *bytes, size_t size)
{
    if (strikes('w')) {
        return -1;
    }
    if (state.kind == FAULT_SHORT_WRITE && state.calls == state.at && size > 1) {
        state.hit = true;
        size = 1;
    }
    return write(fd, bytes, size);
}

static ssize_t fault_pread(int fd, void *bytes, size_t size, off_t offset)
{
    if (strikes('p')) {
        return -1;
    }
    if (state.kind == FAULT_SHORT_WRITE && state.calls == state.at && size > 1) {
        state.hit = true;
        size = 1;
    }
    return pread(fd, bytes, size, offset);
}

static int fault_fsync(int fd)
{
    return strikes('f') ? -1 : fsync(fd);
}

static int fault_close(int fd)
{
    /* The descriptor is gone also when close reports an error, as on Linux. */
    bool failing = strikes('c');
    int number = errno;
    int result = close(fd);
    errno = number;
    return failing ? -1 : result;
}

static int fault_rename(const char *from, const char *to)
{
    return strikes('r') ? -1 : rename(from, to);
}

static int fault_mkdir(const char *path, mode_t mode)
{
    return strikes('m') ? -1 : mkdir(path, mode);
}

static int fault_unlink(const char *path)
{
    return strikes('u') ? -1 : unlink(path);
}

static int fault_rmdir(const char *path)
{
    return strikes('d') ? -1 : rmdir(path);
}

static const struct file_ops table = {
    .open = fault_open,
    .write = fault_write,
    .pread = fault_pread,
    .fsync = fault_fsync,
    .close = fault_close,
    .rename = fault_rename,
    .mkdir = fault_mkdir,
    .unlink = fault_unlink,
    .rmdir = fault_rmdir,
};

void faults_begin(enum fault kind, int number, long at)
{
    state = (struct faults){ .kind = kind, .number = number, .at = at };
    file_install_ops(&table);
}

struct faults faults_end(void)
{
    file_install_ops(NULL);
    return state;
}
