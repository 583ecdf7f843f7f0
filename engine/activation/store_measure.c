/* How fast a directory takes and gives bytes. */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "engine/activation/disk.h"
#include "engine/activation/store.h"
#include "engine/base/clock.h"

static const double MEASURE_SECONDS = 0.5; /* for each direction */

/* Bytes a second of one direction; the whole file at least twice: the first time is not counted.
 * Written are other bytes each time: there is nothing to leave out. */
static int measure_direction(struct disk *disk, bool write, char *bytes, size_t size, double *rate,
                             struct error *err)
{
    double began = clock_monotonic();
    double seconds = 0.0;
    double moved = 0.0;
    for (int i = 0; moved <= 0.0 || clock_monotonic() - began < MEASURE_SECONDS; i++) {
        double before = clock_monotonic();
        if ((write ? disk_write(disk, bytes, size, 0, err)
                   : disk_read(disk, bytes, size, 0, err)) != 0) {
            return -1;
        }
        XXH64_hash_t digest = XXH3_64bits(bytes, size);
        if (i > 0) {
            seconds += clock_monotonic() - before;
            moved += (double)size;
        }
        if (write) {
            memcpy(bytes, &digest, sizeof digest);
        }
    }
    *rate = seconds > 0.0 ? moved / seconds : 0.0;
    return 0;
}

static double measure_copy(const char *from, size_t size)
{
    char *to = malloc(size);
    double best = 0.0;
    for (int i = 0; to != NULL && i < 4; i++) {
        double before = clock_monotonic();
        memcpy(to, from, size);
        double seconds = clock_monotonic() - before;
        double rate = seconds > 0.0 && to[size / 2] == from[size / 2] ? (double)size / seconds : 0;
        best = rate > best ? rate : best;
    }
    free(to);
    return best;
}

int store_measure(const char *directory, size_t bytes, struct store_rates *rates, struct error *err)
{
    size_t size = (bytes + DISK_ALIGNMENT - 1) / DISK_ALIGNMENT * DISK_ALIGNMENT;
    char *buffer = aligned_alloc(DISK_ALIGNMENT, size);
    struct disk *disk = disk_open(directory, (int64_t)size, false, err);
    int rc = -1;
    memset(rates, 0, sizeof *rates);
    if (buffer == NULL) {
        fail(err, ERROR_RUNTIME, "no %zu bytes of host memory to measure a disk with", size);
    } else if (disk != NULL) {
        for (size_t i = 0; i < size; i++) { /* nothing that a disk could leave out or pack */
            buffer[i] = (char)((i * 2654435761u) >> 13);
        }
        rc = measure_direction(disk, true, buffer, size, &rates->write, err);
        rc = rc == 0 ? measure_direction(disk, false, buffer, size, &rates->read, err) : -1;
        rates->copy = measure_copy(buffer, size);
    }
    disk_close(disk);
    free(buffer);
    return rc;
}
