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
 *     fetch: (thread) file -> staging buffer, checksum;   take: staging buffer -> device
 *
 * Copies between device and staging buffers are transfers (kernels/transfer.h): put and take wait
 * for the disk if they must, never for the device. Where a copy stands among the operations of the
 * device is said by store_join and store_mark.
 *
 * Nothing that goes wrong is swallowed: a full disk, a short transfer or a wrong checksum makes the
 * next call fail, which ends the step. The file has no name: nothing is left on the disk, whatever
 * ends the process.
 *
 * One thread calls (that of the backend); the store's own thread only touches staging and file, and
 * waits for transfers.
 */
#ifndef WINDROW_ENGINE_ACTIVATION_STORE_H
#define WINDROW_ENGINE_ACTIVATION_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/error.h"
#include "kernels/transfer.h"

enum store_kind { STORE_HOST, STORE_SSD };

/* Staging buffers of an SSD store: one being filled, one being written or read, one ahead, and one
 * so that a slow write does not stop the next. */
enum { STORE_STAGING = 4 };

/* What the time of a span went to, for looking at the order of things: copying it to and from the
 * staging buffers (as far as the caller had to do it itself), writing it, reading it, and waiting
 * for the disk. */
enum store_work { STORE_PUT, STORE_TAKE, STORE_WRITE, STORE_READ, STORE_STALL };

struct store_options {
    enum store_kind kind;
    struct backend *be;    /* whose memory is put away; outlives the store */
    const char *directory; /* of the file (SSD): must exist */
    size_t span_bytes;
    int64_t spans;
    bool no_ring; /* pread and pwrite instead of io_uring, for tests and where it is forbidden */
    /* Called by both threads, one at a time, with clock_monotonic times; NULL: not wanted. */
    void (*trace)(void *context, enum store_work work, int64_t span, double begin, double end);
    void *trace_context;
};

/* Since the store was opened. `stall_seconds` is the time that put and take had to wait for the
 * disk while the device had nothing to do: what offloading costs a step. */
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

/* Begins to copy `bytes` (at most span_bytes) at `device` away. They stay as they are until
 * store_join. */
int store_put(struct store *store, int64_t span, const void *device, size_t bytes,
              struct error *err);
/* Begins to bring a span back; does not wait. Nothing to do if it is still in memory. */
int store_fetch(struct store *store, int64_t span, struct error *err);
/* Begins to copy a span to `device`, waiting for the disk if need be. It is there after store_join;
 * until then nobody else uses the place. */
int store_take(struct store *store, int64_t span, void *device, size_t bytes, struct error *err);

/* Operations asked from now on come after the last copy of this span, in or out. */
void store_join(struct store *store, int64_t span);
/* The operations asked so far are the last that use the place where the span will be taken to: its
 * copy need not wait for later ones. */
void store_mark(struct store *store, int64_t span);

void store_count(struct store *store, struct store_counts *counts);
/* How the file is written: "io_uring, direct", "pwrite, buffered" ...; "host memory". */
const char *store_how(const struct store *store);

/* Bytes a second: to the file and back, checksums included, and from memory to memory. */
struct store_rates {
    double write;
    double read;
    double copy;
};

/* Writes and reads `bytes` in a file without a name in `directory`, a second or two at most. */
int store_measure(const char *directory, size_t bytes, struct store_rates *rates,
                  struct error *err);

#endif
