/*
 * A backend: a device with a table of operations.
 *
 * Three names exist in every process: "cpu" (the reference), "cuda" (says so when it was not built
 * in) and "null" (computes nothing and owns no memory: the planner runs a training step on it;
 * "null-cuda" also asks for the scratch that the kernels of the cuda backend would ask for).
 *
 * Errors are latched. Operations and transfers return nothing; the first thing that goes wrong
 * (shapes that do not fit together, a failed launch) is written to `error` with the operation and
 * tensors named, every later operation does nothing, and backend_sync reports it. Model code
 * therefore reads as a straight list of operations.
 *
 * One backend is used by one thread at a time.
 */
#ifndef WINDROW_KERNELS_BACKEND_H
#define WINDROW_KERNELS_BACKEND_H

#include <stdbool.h>

#include "kernels/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

struct backend;
struct backend_ops; /* kernels/backend_ops.h */

/* Families of operations, for counting. */
enum op_family {
    OP_MATMUL,
    OP_ATTENTION,
    OP_NORM,
    OP_ROPE,
    OP_ACTIVATION,
    OP_EMBEDDING,
    OP_LOSS,
    OP_ELEMENTWISE,
    OP_SELECT,
    OP_PROJECT, /* gather and scatter */
    OP_OPTIMIZER,
    OP_RANDOM,
    OP_FAMILY_COUNT
};

/* What the operations of one family asked for since the counters were last cleared. `flops` counts
 * multiplications and additions separately; `bytes` is the least traffic an ideal kernel needs:
 * every operand read once and every result written once. `seconds` is wall time, measured only
 * while backend.timing is set. */
struct op_count {
    int64_t calls;
    double flops;
    double bytes;
    double seconds;
};

struct backend_facts {
    char device[128];    /* "AMD EPYC ..., 2 threads", "NVIDIA H100 ..." */
    int threads;         /* 0 where it has no meaning */
    char bus_id[32];     /* of a device on a PCI bus, "0000:65:00.0"; else "" */
    size_t memory_bytes; /* of the device; 0: unknown or unlimited */
    /* Of a GPU, before this process had a context there; both 0: nobody could tell. What is in use
     * then is other programs' and the driver's own. */
    size_t found_free_bytes;
    size_t found_used_bytes;
    size_t context_bytes; /* see backend_measure_context; 0: unknown */
    bool host_accessible; /* tensors can be read by the host directly */
    bool imaginary;       /* the null backend: nothing is computed, uploads need no contents */
    bool asynchronous;    /* operations return before they are done; inputs can be fed ahead */
};

/* What the host did for the device since the backend was opened. */
struct backend_tally {
    int64_t waits;       /* times the host stood still until the device was done */
    int64_t allocations; /* of device memory, pinned host memory and recorded graphs */
    int64_t captures;
    int64_t replays;
    int64_t held_bytes;  /* device memory that was taken and not given back */
    int64_t host_solves; /* eigenvectors of a device's matrix that the host found */
};

/* Where kernels get memory for the inside of one operation from: `take` returns room for `bytes`
 * that the next operation may overwrite, or NULL with an error latched. Without it a backend uses
 * memory of its own. */
struct backend_scratch {
    void *(*take)(void *context, size_t bytes);
    void *context;
};

/* Parts of a step that can be recorded at a time (backend_replay). */
enum { REPLAY_SLOTS = 6 };
struct backend_record {
    bool ready;
    bool refused; /* it could not be recorded under this key: run as it is */
    uint64_t key;
    struct op_count count[OP_FAMILY_COUNT];
};

/* Parts of a step whose times are told apart (backend_time_part); the last one is that of
 * collectives between ranks. */
enum { BACKEND_PARTS = 8, BACKEND_PART_EXCHANGE = BACKEND_PARTS - 1 };
struct backend_times {
    bool on;
    int part; /* -1: none began yet */
    double since_s;
    double ms[BACKEND_PARTS];
};

/* Which kernels compute attention, where there is a choice: auto takes cuDNN where it can be had
 * and does what is asked for, else our own. */
enum attention_kernels { ATTENTION_AUTO, ATTENTION_OWN, ATTENTION_CUDNN };

struct backend_options {
    enum attention_kernels attention;
    bool deterministic; /* the same bits each time: no kernel that adds in any order,
                         * and no choice among kernels by time */
};

struct backend {
    const struct backend_ops *ops;
    void *state;
    struct backend_facts facts;
    struct backend_options options; /* set by backend_configure alone */
    struct op_count count[OP_FAMILY_COUNT];
    struct backend_tally tally;
    struct backend_scratch scratch;
    struct backend_record record[REPLAY_SLOTS];
    struct backend_times times; /* where the host's clock tells */
    const struct call *call;    /* the operation under way, or NULL (kernels/call.h) */
    bool timing;
    bool replays_off; /* nothing is recorded: every operation is asked for each time */
    bool failed;
    bool failed_unnamed; /* the error tells between which operations something failed, not which */
    char host_solver[160]; /* why the host solved for the device, a phrase; "": it did not */
    char error[512];       /* the first error, a sentence; empty while all is well */
};

/* Opens the backend `name` ("cpu", "null", "cuda"), device number `index`. Returns NULL and writes
 * a sentence to `why` (of `why_size` bytes) if it cannot be had. Close with backend_close. */
struct backend *backend_open(const char *name, int index, char *why, size_t why_size);
void backend_close(struct backend *be);

/* Sets the options, before the first operation. 0, or -1 with a sentence in `why` if the backend
 * does not have what is asked for; then nothing has changed. A backend that was never configured
 * uses its own kernels, deterministic ones. The null backend takes everything. */
int backend_configure(struct backend *be, const struct backend_options *options, char *why,
                      size_t why_size);

/* Waits for everything asked so far. 0, or -1 if an error is latched (backend.error). */
int backend_sync(struct backend *be);

/* Latches an error (printf style) if none is latched yet. */
void backend_fail(struct backend *be, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Device memory, aligned to 256 bytes, contents undefined. NULL if there is not enough. On the null
 * backend the address is never mapped: any access faults. */
void *backend_alloc(struct backend *be, size_t bytes);
void backend_free(struct backend *be, void *data, size_t bytes);

/* Copies between host and device; complete on return. On the null backend a download fills the
 * host buffer with zero bytes. */
void backend_upload(struct backend *be, void *device, const void *host, size_t bytes);
void backend_download(struct backend *be, void *host, const void *device, size_t bytes);

/* An upload that nobody waits for. The host's bytes are taken at once; the copy is made beside
 * later operations, after those asked so far. Operations that read `device` are asked after
 * backend_join, which is no wait of the host either. */
void backend_feed(struct backend *be, void *device, const void *host, size_t bytes);
void backend_join(struct backend *be);

/* A download that nobody waits for: host[0, bytes) is written by the end of the next wait (a
 * download or backend_sync), and must stay where it is until then. */
void backend_fetch(struct backend *be, void *host, const void *device, size_t bytes);

/* Runs work(context), or repeats what it asked the device for last time.
 *
 * The first call under a key runs `work`, and then once more only to record it; later calls with
 * the same slot and key replay the record without running `work`, and count its operations. So
 * `work` has to ask for the same operations on the same memory each time, has to do nothing on the
 * host that would be missed or that may not happen twice, and may not wait, upload or download.
 * What differs from step to step must be read from device memory. Backends that record nothing run
 * `work` each time. Memory given back makes all records void. */
void backend_replay(struct backend *be, int slot, uint64_t key, void (*work)(void *context),
                    void *context);
void backend_forget_replays(struct backend *be);

/* Where time goes, as the device sees it: between backend_time_begin and backend_time_read, all
 * that is asked for after backend_time_part(part) counts to that part (0 <= part < BACKEND_PARTS),
 * in recorded work too, until the next one. The last part of all is not counted: its beginning is
 * the end. Nothing is waited for; read after a wait that came later than the last part
 * (backend_sync or a download). False, and nothing in `ms`, if there is no telling (on the null
 * backend, always).
 *
 * backend_time_part returns the part that was going on, to be gone back to; -1: none, and a part of
 * -1 changes nothing. */
void backend_time_begin(struct backend *be);
int backend_time_part(struct backend *be, int part);
bool backend_time_read(struct backend *be, double ms[BACKEND_PARTS]);

/* Kernels take their scratch from there from now on; take NULL: from the backend itself. Memory of
 * its own that the backend held for it is given back. */
void backend_set_scratch(struct backend *be, void *(*take)(void *context, size_t bytes),
                         void *context);

/* Bytes free and in all on the device, as its driver tells. -1 if there is no telling. */
int backend_memory(struct backend *be, size_t *free_bytes, size_t *total_bytes);

/* Finds out again what the driver's context and the libraries take of the device (facts): what is
 * free less than before the context was made, without what is held. Libraries load their kernels at
 * first use, so it grows; what another program takes meanwhile is counted too, and a figure that no
 * context can have is none. */
void backend_measure_context(struct backend *be);

/* Choices among kernels that were made by time, as text for the next process on the same device.
 * Export: malloc'd; NULL if there are none. Import: -1 with a sentence in `why` if the text is
 * damaged or comes from another device or library; nothing is taken then. */
char *backend_tuning_export(struct backend *be);
int backend_tuning_import(struct backend *be, const char *text, char *why, size_t why_size);
/* What tunings are told apart by ("NVIDIA_H100-132-130101", a name for a file); "" if the backend
 * has none. */
void backend_tuning_name(struct backend *be, char *name, size_t size);

/* How many devices of this kind ("cpu", "cuda") can be seen, without opening any. */
int backend_device_count(const char *name);

/* Whether there is a device `index` of this kind, without opening it. 0, or -1 with a sentence. */
int backend_find(const char *name, int index, char *why, size_t why_size);

/* Bytes in use by everybody and in all on a GPU, without opening it: as NVML tells, in
 * milliseconds. -1 if there is no telling. */
int backend_look(const char *name, int index, size_t *used_bytes, size_t *total_bytes);

void backend_clear_counts(struct backend *be);
/* Sum over all families. */
struct op_count backend_total(const struct backend *be);
const char *op_family_name(enum op_family family);

#ifdef __cplusplus
}
#endif

#endif
