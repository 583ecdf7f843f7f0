/*
 * A file without a name, written and read past the page cache.
 *
 * Room is taken when it is opened. Transfers are cut into pieces that are under way together
 * (io_uring), or done one after the other (pwrite, pread) where the kernel forbids io_uring or the
 * file calls are replaced by a test. Where O_DIRECT is refused the page cache is used.
 */
#ifndef WINDROW_ENGINE_ACTIVATION_DISK_H
#define WINDROW_ENGINE_ACTIVATION_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/error.h"

/* Addresses, sizes and offsets are multiples of it: what O_DIRECT asks for on every disk of today.
 */
enum { DISK_ALIGNMENT = 4096 };

struct disk;

/* `size` is a multiple of DISK_ALIGNMENT. */
struct disk *disk_open(const char *directory, int64_t size, bool no_ring, struct error *err);
void disk_close(struct disk *disk);

/* Whole or an error; both wait. */
int disk_write(struct disk *disk, const void *bytes, size_t size, int64_t offset,
               struct error *err);
int disk_read(struct disk *disk, void *bytes, size_t size, int64_t offset, struct error *err);

/* "io_uring, direct" ... */
const char *disk_how(const struct disk *disk);

#endif
