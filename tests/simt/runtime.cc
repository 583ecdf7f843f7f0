/*
 * The emulation's runtime library: streams, events, recorded graphs and memory, over the host's.
 *
 * Faults on request, by the environment:
 *   SIMT_FAIL_LAUNCH=N   the N-th launch (from 1) is not accepted
 *   SIMT_FAIL_RUN=N      the N-th piece of queued work faults; a later wait says so, for ever
 *   SIMT_PIECE=BYTES     what is free lies in pieces, none of them larger
 *   SIMT_MEMORY=BYTES    the size of the device
 *   SIMT_OTHERS=BYTES    of it, what other programs hold
 *   SIMT_FEEDS=eager     streams other than the first run as early as they may
 *   SIMT_CLOCK=work      events tell the time by the work of their stream: a piece is a millisecond
 */
#include "simt/simt.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, bytes)   ((void)(at), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#endif

#include "simt/queue.h"

enum { HEADER = 256, STREAMS_MAX = 16 };
/* What a driver's context would take. */
static const size_t context_bytes = (size_t)24 << 20;
/* Of fresh memory, so much is poisoned: the rest of a large piece is never touched, and costs
 * nothing. */
static const size_t poisoned_bytes = (size_t)4 << 20;

struct simt_event {
    struct simt_stream *stream; /* recorded there last */
    long recorded;              /* times asked for */
    long done;
    double time_ms;
    bool timed;
};

enum piece_kind { PIECE_RUN, PIECE_RECORD, PIECE_WAIT };

/* Something queued: work with a copy of its state, or an event to set or to wait for. */
struct piece {
    enum piece_kind kind;
    void (*run)(void *);
    void *state;
    size_t bytes;
    struct simt_event *event;
    long number;   /* of the event's recording */
    bool external; /* recorded by a node of a graph */
    struct piece *next;
};

struct pieces {
    struct piece *first;
    struct piece **end; /* NULL: empty */
};

struct simt_stream {
    struct pieces waiting;
    struct simt_graph *recording; /* NULL: none */
    bool eager;
    long runs; /* pieces of work done */
};

struct simt_graph {
    struct pieces pieces;
};

static struct {
    enum cudaError_t error; /* of the last call */
    enum cudaError_t fault; /* of work that ran; stays */
    long launches;
    long runs;
    bool opened; /* the context is made */
    size_t allocated;
    struct simt_stream *stream[STREAMS_MAX];
} device;

/* One thread at a time is in here: whoever waits runs what is queued. */
static pthread_mutex_t entrance = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

struct inside {
    inside()
    {
        pthread_mutex_lock(&entrance);
    }
    ~inside()
    {
        pthread_mutex_unlock(&entrance);
    }
};

static long wanted(const char *name)
{
    const char *text = getenv(name);
    return text != NULL ? strtol(text, NULL, 10) : 0;
}

static size_t device_bytes(void)
{
    long bytes = wanted("SIMT_MEMORY");
    return bytes > 0 ? (size_t)bytes : (size_t)2 << 30;
}

/* Of all programs. */
static size_t used_bytes(void)
{
    long others = wanted("SIMT_OTHERS");
    return device.allocated + (device.opened ? context_bytes : 0) +
           (others > 0 ? (size_t)others : 0);
}

/* For a driver's library that tells the same (tests/gpu/fake_nvml.c). */
extern "C" __attribute__((visibility("default"))) void simt_device_memory(size_t *used,
                                                                          size_t *total)
{
    *used = used_bytes();
    *total = device_bytes();
}

static void *must(void *data)
{
    if (data == NULL) {
        abort();
    }
    return data;
}

/* ---- queues ---------------------------------------------------------------------------------- */

static void append(struct pieces *list, const struct piece *piece)
{
    struct piece *copy = (struct piece *)must(malloc(sizeof *copy));
    *copy = *piece;
    copy->next = NULL;
    if (piece->kind == PIECE_RUN) {
        copy->state = must(malloc(piece->bytes));
        memcpy(copy->state, piece->state, piece->bytes);
    }
    *(list->first == NULL ? &list->first : list->end) = copy;
    list->end = &copy->next;
}

static void drop_first(struct pieces *list)
{
    struct piece *p = list->first;
    list->first = p->next;
    if (p->kind == PIECE_RUN) {
        free(p->state);
    }
    free(p);
}

static double clock_ms(const struct simt_stream *stream)
{
    const char *name = getenv("SIMT_CLOCK");
    struct timespec now;
    if (name != NULL && strcmp(name, "work") == 0) {
        return (double)stream->runs;
    }
    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e3 * (double)now.tv_sec + 1e-6 * (double)now.tv_nsec;
}

static void step(struct simt_stream *stream);

static void wait_for(const struct simt_event *event, long number)
{
    while (event->done < number) {
        step(event->stream);
    }
}

/* Does the first piece of a stream, and before it what it waits for. */
static void step(struct simt_stream *stream)
{
    struct piece *p = stream->waiting.first;
    if (p->kind == PIECE_WAIT) {
        wait_for(p->event, p->number);
    } else if (p->kind == PIECE_RECORD) {
        p->event->done = p->number > p->event->done ? p->number : p->event->done;
        p->event->time_ms = clock_ms(stream);
    } else if (device.fault == cudaSuccess && ++device.runs == wanted("SIMT_FAIL_RUN")) {
        device.fault = cudaErrorIllegalAddress;
    } else if (device.fault == cudaSuccess) {
        p->run(p->state);
        stream->runs++;
    }
    drop_first(&stream->waiting);
}

static void drain(struct simt_stream *stream)
{
    while (stream->waiting.first != NULL) {
        step(stream);
    }
}

static void queue(struct simt_stream *stream, const struct piece *piece)
{
    if (stream->recording != NULL) {
        if (piece->kind != PIECE_RUN && !piece->external) {
            device.error = cudaErrorStreamCaptureUnsupported;
            return;
        }
        append(&stream->recording->pieces, piece);
        return;
    }
    append(&stream->waiting, piece);
    if (stream->eager) {
        drain(stream);
    }
}

extern "C" void simt_queue(struct simt_stream *stream, void (*run)(void *), const void *state,
                           size_t bytes)
{
    struct inside alone;
    struct piece piece = {
        PIECE_RUN, run, const_cast<void *>(state), bytes, NULL, 0, false, NULL,
    };
    if (stream == NULL) {
        void *copy = must(malloc(bytes));
        memcpy(copy, state, bytes);
        run(copy);
        free(copy);
        return;
    }
    queue(stream, &piece);
}

bool simt_accepts(struct dim3 grid, struct dim3 block, size_t shared_bytes)
{
    if (!simt_possible(grid, block, shared_bytes)) {
        device.error = cudaErrorInvalidConfiguration;
    } else if (++device.launches == wanted("SIMT_FAIL_LAUNCH")) {
        device.error = cudaErrorLaunchFailure;
    } else {
        return true;
    }
    return false;
}

/* ---- the device ------------------------------------------------------------------------------ */

enum cudaError_t cudaGetLastError(void)
{
    enum cudaError_t error = device.fault != cudaSuccess ? device.fault : device.error;
    device.error = cudaSuccess;
    return error;
}

const char *cudaGetErrorString(enum cudaError_t status)
{
    switch (status) {
    case cudaSuccess:
        return "no error";
    case cudaErrorOutOfMemory:
        return "out of memory";
    case cudaErrorInvalidConfiguration:
        return "invalid configuration argument";
    case cudaErrorIllegalAddress:
        return "an illegal memory access was encountered";
    case cudaErrorLaunchFailure:
        return "unspecified launch failure";
    default:
        return "operation not permitted when stream is capturing";
    }
}

enum cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 1;
    return cudaSuccess;
}

enum cudaError_t cudaSetDevice(int index)
{
    (void)index;
    device.opened = true;
    return cudaSuccess;
}

enum cudaError_t cudaDeviceGetPCIBusId(char *text, int size, int index)
{
    (void)index;
    snprintf(text, (size_t)size, "0000:65:00.0"); /* the second device of tests/gpu/fake_nvml.c */
    return cudaSuccess;
}

enum cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int index)
{
    (void)index;
    memset(properties, 0, sizeof *properties);
    snprintf(properties->name, sizeof properties->name, "emulated device");
    properties->totalGlobalMem = device_bytes();
    properties->major = 8;
    properties->multiProcessorCount = 1;
    return cudaSuccess;
}

enum cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
    size_t used = used_bytes();
    *total_bytes = device_bytes();
    *free_bytes = *total_bytes > used ? *total_bytes - used : 0;
    return cudaSuccess;
}

/* ---- streams and events ---------------------------------------------------------------------- */

static void drain_all(void)
{
    for (int i = 0; i < STREAMS_MAX; i++) {
        if (device.stream[i] != NULL) {
            drain(device.stream[i]);
        }
    }
}

enum cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    struct inside alone;
    (void)flags;
    const char *feeds = getenv("SIMT_FEEDS");
    for (int i = 0; i < STREAMS_MAX; i++) {
        if (device.stream[i] == NULL) {
            *stream = (cudaStream_t)must(calloc(1, sizeof **stream));
            (*stream)->eager = i > 0 && feeds != NULL && strcmp(feeds, "eager") == 0;
            device.stream[i] = *stream;
            return cudaSuccess;
        }
    }
    return cudaErrorOutOfMemory;
}

enum cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    struct inside alone;
    drain(stream);
    for (int i = 0; i < STREAMS_MAX; i++) {
        device.stream[i] = device.stream[i] == stream ? NULL : device.stream[i];
    }
    free(stream);
    return cudaSuccess;
}

enum cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    struct inside alone;
    if (stream->recording != NULL) {
        return cudaErrorStreamCaptureUnsupported;
    }
    drain(stream);
    return device.fault;
}

enum cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    struct inside alone;
    if (stream->waiting.first != NULL) {
        device.error = cudaErrorNotReady;
        return cudaErrorNotReady;
    }
    return device.fault;
}

enum cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
    struct inside alone;
    (void)flags;
    struct piece piece = { PIECE_WAIT, NULL, NULL, 0, event, event->recorded, false, NULL };
    queue(stream, &piece);
    return cudaSuccess;
}

enum cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    *event = (cudaEvent_t)must(calloc(1, sizeof **event));
    (*event)->timed = (flags & cudaEventDisableTiming) == 0;
    return cudaSuccess;
}

enum cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    struct inside alone;
    drain_all();
    free(event);
    return cudaSuccess;
}

enum cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    struct inside alone;
    wait_for(event, event->recorded);
    return device.fault;
}

enum cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags)
{
    struct inside alone;
    event->stream = stream;
    struct piece piece = {
        PIECE_RECORD, NULL, NULL, 0, event, ++event->recorded, flags == cudaEventRecordExternal,
        NULL,
    };
    queue(stream, &piece);
    return cudaSuccess;
}

enum cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    return cudaEventRecordWithFlags(event, stream, 0);
}

/* Of events that the device has reached. */
enum cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    struct inside alone;
    bool reached =
        from->done > 0 && from->done == from->recorded && to->done > 0 && to->done == to->recorded;
    if (!from->timed || !to->timed || !reached) {
        device.error = cudaErrorIllegalAddress;
        return device.error;
    }
    *ms = (float)(to->time_ms - from->time_ms);
    return cudaSuccess;
}

/* ---- graphs ---------------------------------------------------------------------------------- */

enum cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    struct inside alone;
    (void)mode;
    stream->recording = (struct simt_graph *)must(calloc(1, sizeof *stream->recording));
    return cudaSuccess;
}

enum cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    struct inside alone;
    *graph = stream->recording;
    stream->recording = NULL;
    return cudaSuccess;
}

enum cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph,
                                      unsigned long long flags)
{
    (void)flags;
    *exec = (cudaGraphExec_t)must(calloc(1, sizeof **exec));
    for (const struct piece *p = graph->pieces.first; p != NULL; p = p->next) {
        append(&(*exec)->pieces, p);
    }
    return cudaSuccess;
}

enum cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t stream)
{
    (void)exec;
    (void)stream;
    return cudaSuccess;
}

enum cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    struct inside alone;
    for (const struct piece *p = exec->pieces.first; p != NULL; p = p->next) {
        queue(stream, p);
    }
    return cudaSuccess;
}

enum cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    struct inside alone;
    while (exec->pieces.first != NULL) {
        drop_first(&exec->pieces);
    }
    free(exec);
    return cudaSuccess;
}

enum cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    return cudaGraphExecDestroy(graph);
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* The bytes before the memory hold its size, and may not be touched. */
enum cudaError_t cudaMalloc(void **data, size_t bytes)
{
    struct inside alone;
    void *whole = NULL;
    long piece = wanted("SIMT_PIECE");
    if ((piece > 0 && bytes > (size_t)piece) || used_bytes() + bytes > device_bytes() ||
        posix_memalign(&whole, HEADER, HEADER + bytes) != 0) {
        *data = NULL;
        device.error = cudaErrorOutOfMemory;
        return cudaErrorOutOfMemory;
    }
    memcpy(whole, &bytes, sizeof bytes);
    *data = (char *)whole + HEADER;
    memset(*data, 0xff, bytes < poisoned_bytes ? bytes : poisoned_bytes);
    ASAN_POISON_MEMORY_REGION(whole, HEADER);
    device.allocated += bytes;
    return cudaSuccess;
}

enum cudaError_t cudaFree(void *data)
{
    struct inside alone;
    size_t bytes;
    if (data == NULL) {
        return cudaSuccess;
    }
    drain_all();
    void *whole = (char *)data - HEADER;
    ASAN_UNPOISON_MEMORY_REGION(whole, HEADER);
    memcpy(&bytes, whole, sizeof bytes);
    device.allocated -= bytes;
    free(whole);
    return cudaSuccess;
}

enum cudaError_t cudaMallocHost(void **data, size_t bytes)
{
    *data = malloc(bytes);
    return *data != NULL ? cudaSuccess : cudaErrorOutOfMemory;
}

enum cudaError_t cudaFreeHost(void *data)
{
    free(data);
    return cudaSuccess;
}

enum cudaError_t cudaHostRegister(void *data, size_t bytes, unsigned flags)
{
    (void)flags;
    memset(data, 0xff, bytes);
    return cudaSuccess;
}

enum cudaError_t cudaHostUnregister(void *data)
{
    (void)data;
    return cudaSuccess;
}

struct copied {
    void *to;
    const void *from; /* NULL: fill with `byte` */
    size_t bytes;
    int byte;
};

static void run_copied(void *state)
{
    const struct copied *t = (const struct copied *)state;
    if (t->from != NULL) {
        memcpy(t->to, t->from, t->bytes);
    } else {
        memset(t->to, t->byte, t->bytes);
    }
}

enum cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                                 cudaStream_t stream)
{
    struct inside alone;
    struct copied t = { to, from, bytes, 0 };
    if (bytes > 0) {
        /* Unless something queued may still read there. */
        if (kind == cudaMemcpyDeviceToHost && stream->waiting.first == NULL) {
            memset(to, 0xff, bytes);
        }
        simt_queue(stream, run_copied, &t, sizeof t);
    }
    return cudaSuccess;
}

enum cudaError_t cudaMemsetAsync(void *data, int byte, size_t bytes, cudaStream_t stream)
{
    struct copied t = { data, NULL, bytes, byte };
    if (bytes > 0) {
        simt_queue(stream, run_copied, &t, sizeof t);
    }
    return cudaSuccess;
}
