/*
 * Where activations wait between forward and backward when they leave the device: in host memory,
 * or in a file on an SSD (SSDTrain: Wu et al., arXiv 2408.10013).
 *
 * What is stored comes in spans of one size, numbered from 0. A span is put once after the forward
 * has made it, fetched a little before the backward needs it, and taken exactly once. Writing and
 * reading go on beside the computation; a span that is asked for again before it has been written
 * is handed back from memory (forwarding) and never read.
 *
 *     put: device -> staging buffer -> (thread) checksum, file
 *     fetch: (thread) file -> staging buffer;   take: checksum, staging buffer -> device
 *
 * Nothing that goes wrong is swallowed: a full disk, a short transfer or a wrong checksum makes the
 * next call fail, which ends the step. The file has no name: nothing is left on the disk, whatever
 * ends the process.
 *
 * One thread calls (that of the backend); the store's own thread only touches staging and file.
 */
#ifndef WINDROW_ENGINE_ACTIVATION_STORE_H
#define WINDROW_ENGINE_ACTIVATION_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/error.h"
#include "kernels/backend.h"

enum store_kind { STORE_HOST, STORE_SSD };

/* Staging buffers of an SSD store: one being filled, one being written or read, one ahead, and one
 * so that a slow write does not stop the next. */
enum { STORE_STAGING = 4 };

struct store_options {
    enum store_kind kind;
    const char *directory; /* of the file (SSD): must exist */
    size_t span_bytes;
    int64_t spans;
    bool no_ring; /* pread and pwrite instead of io_uring, for tests and where it is forbidden */
};

/* Since the store was opened. `stall_seconds` is the time that put and take had to wait for the
 * disk: what offloading costs a step. */
struct store_counts {
    int64_t written_bytes;
    int64_t read_bytes;
    int64_t forwarded_spans;
    double write_seconds; /* the disk was busy writing, reading */
    double read_seconds;
    double stall_seconds;
};

struct store;

/* Takes host memory and, for an SSD, all of the file's room: a disk that is too small is refused
 * here. */
struct store *store_open(const struct store_options *options, struct error *err);
void store_close(struct store *store);

/* Bytes of host memory that store_open takes. */
int64_t store_host_bytes(const struct store_options *options);

/* Forgets everything that is stored, after a pass was broken off. */
void store_reset(struct store *store);

/* Copies `bytes` (at most span_bytes) at `device` away. They may be overwritten by operations that
 * are asked after it returns. */
int store_put(struct store *store, struct backend *be, int64_t span, const void *device,
              size_t bytes, struct error *err);
/* Begins to bring a span back; does not wait. Nothing to do if it is still in memory. */
int store_fetch(struct store *store, int64_t span, struct error *err);
/* Copies a span to `device`, waiting for it if need be. */
int store_take(struct store *store, struct backend *be, int64_t span, void *device, size_t bytes,
               struct error *err);

void store_count(struct store *store, struct store_counts *counts);
/* How the file is written: "io_uring, direct", "pwrite, buffered" ...; "host memory". */
const char *store_how(const struct store *store);

/* Writes and reads `bytes` in a file without a name in `directory`, a second at most; bytes a
 * second of the slower direction. */
int store_measure(const char *directory, size_t bytes, double *bytes_per_second, struct error *err);

#endif
