/* How fast a directory takes and gives bytes. */
#include <stdlib.h>
#include <string.h>

#include "engine/activation/disk.h"
#include "engine/activation/store.h"
#include "engine/base/clock.h"

static const double MEASURE_SECONDS = 0.5; /* for each direction */

/* Bytes a second of one direction; the whole file at least once. */
static int measure_direction(struct disk *disk, bool write, char *bytes, size_t size, double *rate,
                             struct error *err)
{
    double before = clock_monotonic();
    double seconds;
    double moved = 0.0;
    do {
        int rc =
            write ? disk_write(disk, bytes, size, 0, err) : disk_read(disk, bytes, size, 0, err);
        if (rc != 0) {
            return -1;
        }
        moved += (double)size;
        seconds = clock_monotonic() - before;
    } while (seconds < MEASURE_SECONDS);
    *rate = moved / seconds;
    return 0;
}

int store_measure(const char *directory, size_t bytes, double *bytes_per_second, struct error *err)
{
    size_t size = (bytes + DISK_ALIGNMENT - 1) / DISK_ALIGNMENT * DISK_ALIGNMENT;
    char *buffer = aligned_alloc(DISK_ALIGNMENT, size);
    struct disk *disk = disk_open(directory, (int64_t)size, false, err);
    int rc = -1;
    if (buffer == NULL) {
        fail(err, ERROR_RUNTIME, "no %zu bytes of host memory to measure a disk with", size);
    } else if (disk != NULL) {
        for (size_t i = 0; i < size; i++) { /* nothing that a disk could leave out or pack */
            buffer[i] = (char)((i * 2654435761u) >> 13);
        }
        double written = 0.0;
        double read = 0.0;
        rc = measure_direction(disk, true, buffer, size, &written, err);
        rc = rc == 0 ? measure_direction(disk, false, buffer, size, &read, err) : -1;
        *bytes_per_second = written < read ? written : read;
    }
    disk_close(disk);
    free(buffer);
    return rc;
}
