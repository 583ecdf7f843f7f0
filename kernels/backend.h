/*
 * A backend: a device with a table of operations.
 *
 * Three names exist in every process: "cpu" (the reference), "cuda" (says so when it was not built
 * in) and "null" (computes nothing and owns no memory: the planner runs a training step on it).
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
struct backend_ops; /* kernels/ops.h */

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
    char device[128];     /* "AMD EPYC ..., 2 threads", "NVIDIA H100 ..." */
    int threads;          /* 0 where it has no meaning */
    char bus_id[32];      /* of a device on a PCI bus, "0000:65:00.0"; else "" */
    size_t memory_bytes;  /* of the device; 0: unknown or unlimited */
    bool host_accessible; /* tensors can be read by the host directly */
    bool imaginary;       /* the null backend: nothing is computed, uploads need no contents */
};

/* Which kernels compute attention, where there is a choice: auto takes cuDNN where it can be had
 * and does what is asked for, else our own. */
enum attention_kernels { ATTENTION_AUTO, ATTENTION_OWN, ATTENTION_CUDNN };

struct backend_options {
    enum attention_kernels attention;
    bool deterministic; /* the same bits each time: no kernel that adds in any order */
};

struct backend {
    const struct backend_ops *ops;
    void *state;
    struct backend_facts facts;
    struct backend_options options; /* set by backend_configure alone */
    struct op_count count[OP_FAMILY_COUNT];
    bool timing;
    bool failed;
    char error[512]; /* the first error, a sentence; empty while all is well */
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

void backend_clear_counts(struct backend *be);
/* Sum over all families. */
struct op_count backend_total(const struct backend *be);
const char *op_family_name(enum op_family family);

#ifdef __cplusplus
}
#endif

#endif
