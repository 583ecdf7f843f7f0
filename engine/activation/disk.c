/* The file without a name. */
#include "engine/activation/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/file.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"

#ifdef WINDROW_URING
#include <liburing.h>
#endif

/* Pieces of a transfer: large enough for an SSD's full speed, small enough to overlap. */
enum { PIECE_BYTES = 1 << 20, PIECES_UNDER_WAY = 8 };

struct disk {
    int fd;
    char *directory; /* for messages */
    char how[32];
    bool ring_works;
#ifdef WINDROW_URING
    struct io_uring ring;
#endif
};

static int fail_disk(const struct disk *disk, const char *verb, int number, struct error *err)
{
    fail(err, ERROR_RUNTIME, "cannot %s offloaded activations in %s: %s", verb,
         text_show(disk->directory).text, strerror(number));
    if (number == ENOSPC || number == EDQUOT) {
        hint(err, "free space there, or choose another place with activation.offload_dir");
    } else {
        hint(err, "the last checkpoint is whole; try another activation.offload_dir, or "
                  "activation.offload=host");
    }
    return -1;
}

/* Without a name from the start where the file system can do that; else removed at once. */
static int open_nameless(const char *directory, int flags)
{
    int fd = file_ops()->open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC | flags, 0600);
    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT)) {
        return fd;
    }
    char *path = xasprintf("%s/.windrow-offload-%d", directory, (int)getpid());
    fd = file_ops()->open(path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | flags, 0600);
    if (fd >= 0) {
        file_ops()->unlink(path);
    }
    free(path);
    return fd;
}

static void open_ring(struct disk *disk, bool no_ring)
{
#ifdef WINDROW_URING
    disk->ring_works = !no_ring && file_ops_are_real() &&
                       io_uring_queue_init(PIECES_UNDER_WAY, &disk->ring, 0) == 0;
#else
    (void)no_ring;
#endif
}

struct disk *disk_open(const char *directory, int64_t size, bool no_ring, struct error *err)
{
    struct disk *disk = xcalloc(1, sizeof *disk);
    disk->directory = xstrdup(directory);
    bool direct = true;
    disk->fd = open_nameless(directory, O_DIRECT);
    if (disk->fd < 0 && errno == EINVAL) {
        direct = false;
        disk->fd = open_nameless(directory, 0);
    }
    if (disk->fd < 0) {
        fail_disk(disk, "make a file for", errno, err);
        free(disk->directory);
        free(disk);
        return NULL;
    }
    int number = size > 0 ? posix_fallocate(disk->fd, 0, size) : 0;
    if (number != 0) {
        fail(err, ERROR_RUNTIME, "%s has no room for %lld bytes of offloaded activations: %s",
             text_show(directory).text, (long long)size, strerror(number));
        hint(err, "free space there, or choose another place with activation.offload_dir");
        disk_close(disk);
        return NULL;
    }
    open_ring(disk, no_ring);
    snprintf(disk->how, sizeof disk->how, "%s, %s", disk->ring_works ? "io_uring" : "pwrite",
             direct ? "direct" : "buffered");
    return disk;
}

void disk_close(struct disk *disk)
{
    if (disk == NULL) {
        return;
    }
#ifdef WINDROW_URING
    if (disk->ring_works) {
        io_uring_queue_exit(&disk->ring);
    }
#endif
    file_ops()->close(disk->fd);
    free(disk->directory);
    free(disk);
}

const char *disk_how(const struct disk *disk)
{
    return disk->how;
}

/* One piece by pread or pwrite, going on after short transfers; 0 or an errno. */
static int move_piece(const struct disk *disk, bool write, char *bytes, size_t size, int64_t offset)
{
    while (size > 0) {
        ssize_t n = write ? file_pwrite(disk->fd, bytes, size, (off_t)offset)
                          : file_ops()->pread(disk->fd, bytes, size, (off_t)offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? errno : EIO;
        }
        bytes += n;
        offset += n;
        size -= (size_t)n;
    }
    return 0;
}

#ifdef WINDROW_URING
/* A transfer of several pieces under way together; 0 or an errno. Each piece's number in the
 * transfer is its mark. A piece that comes back short or with EAGAIN is finished by move_piece. */
static int move_by_ring(struct disk *disk, bool write, char *bytes, size_t size, int64_t offset)
{
    size_t pieces = (size + PIECE_BYTES - 1) / PIECE_BYTES;
    size_t asked = 0;
    size_t done = 0;
    int trouble = 0;
    while (done < pieces) {
        while (asked < pieces && asked - done < PIECES_UNDER_WAY && trouble == 0) {
            struct io_uring_sqe *entry = io_uring_get_sqe(&disk->ring);
            size_t first = asked * PIECE_BYTES;
            size_t length = size - first < PIECE_BYTES ? size - first : PIECE_BYTES;
            if (write) {
                io_uring_prep_write(entry, disk->fd, bytes + first, (unsigned)length,
                                    (uint64_t)offset + first);
            } else {
                io_uring_prep_read(entry, disk->fd, bytes + first, (unsigned)length,
                                   (uint64_t)offset + first);
            }
            io_uring_sqe_set_data64(entry, asked++);
        }
        if (asked == done) {
            break; /* nothing is under way any more */
        }
        struct io_uring_cqe *entry;
        int rc = io_uring_submit_and_wait(&disk->ring, 1);
        if (rc < 0 && rc != -EINTR) {
            return -rc;
        }
        while (io_uring_peek_cqe(&disk->ring, &entry) == 0) {
            size_t first = (size_t)io_uring_cqe_get_data64(entry) * PIECE_BYTES;
            size_t length = size - first < PIECE_BYTES ? size - first : PIECE_BYTES;
            int result = entry->res;
            io_uring_cqe_seen(&disk->ring, entry);
            done++;
            if (result == -EAGAIN || result == -EINTR) {
                result = 0;
            }
            if (result < 0) {
                trouble = trouble != 0 ? trouble : -result;
            } else if ((size_t)result < length) {
                /* A short count may be no multiple of the alignment: the piece again, whole. */
                int again = move_piece(disk, write, bytes + first, length, offset + (int64_t)first);
                trouble = trouble != 0 ? trouble : again;
            }
        }
    }
    return trouble;
}
#endif

static int move(struct disk *disk, bool write, char *bytes, size_t size, int64_t offset)
{
#ifdef WINDROW_URING
    if (disk->ring_works) {
        return move_by_ring(disk, write, bytes, size, offset);
    }
#endif
    for (size_t first = 0; first < size; first += PIECE_BYTES) {
        size_t length = size - first < PIECE_BYTES ? size - first : PIECE_BYTES;
        int number = move_piece(disk, write, bytes + first, length, offset + (int64_t)first);
        if (number != 0) {
            return number;
        }
    }
    return 0;
}

int disk_write(struct disk *disk, const void *bytes, size_t size, int64_t offset, struct error *err)
{
    int number = move(disk, true, (char *)(uintptr_t)bytes, size, offset);
    return number == 0 ? 0 : fail_disk(disk, "write", number, err);
}

int disk_read(struct disk *disk, void *bytes, size_t size, int64_t offset, struct error *err)
{
    int number = move(disk, false, bytes, size, offset);
    return number == 0 ? 0 : fail_disk(disk, "read", number, err);
}
