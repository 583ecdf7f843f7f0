/*
 * Pins: a checkpoint that another process begins from stays until that has one of its own.
 *
 * A pin is a shared flock of the checkpoint's directory: the system gives it up with the process,
 * however that ends. Who removes takes the lock alone for the moment in which the directory loses
 * its name; a pin that came too late finds the name gone, or another directory behind it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/file.h"
#include "engine/run/checkpoint.h"

static int open_directory(const char *path)
{
    return file_ops()->open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
}

int checkpoint_pin(const char *path)
{
    struct stat held;
    struct stat named;
    int pin = open_directory(path);
    if (pin < 0) {
        return -1;
    }
    bool going = flock(pin, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    if (!going && fstat(pin, &held) == 0 && stat(path, &named) == 0 &&
        held.st_dev == named.st_dev && held.st_ino == named.st_ino) {
        return pin;
    }
    close(pin);
    return -1;
}

void checkpoint_unpin(int pin)
{
    if (pin >= 0) {
        close(pin);
    }
}

int checkpoint_claim(const char *path)
{
    int claim = open_directory(path);
    if (claim >= 0 && flock(claim, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        close(claim);
        return CHECKPOINT_PINNED;
    }
    return claim; /* below 0 where directories cannot be opened or locked: then nobody has a pin */
}
