/*
 * The two stores. Host memory is a table of buffers. An SSD has STORE_STAGING buffers and a thread:
 *
 *   span:   EMPTY -put-> WRITING -thread-> STORED -fetch-> WANTED -thread-> READY -take-> EMPTY
 *                        WRITING -fetch-> FORWARDED (kept in its buffer when written, never read)
 *   buffer: free, or held by exactly one span that is in memory
 *
 * A buffer that is free may still have a transfer under way. The next transfer comes after it by
 * itself; the thread waits for it before the disk touches the buffer. The host never does.
 *
 * Everything of `struct store` that both threads see is guarded by `lock`; `changed` is signalled
 * at every change of a state.
 */
#include "engine/activation/store.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <xxhash.h>

#include "engine/activation/disk.h"
#include "engine/base/clock.h"
#include "engine/base/xalloc.h"

/* How often a caller that waits for the disk looks whether the device still has work. */
static const double look_seconds = 0.0005;

enum span_state { SPAN_EMPTY, SPAN_WRITING, SPAN_FORWARDED, SPAN_STORED, SPAN_WANTED, SPAN_READY };

struct span {
    enum span_state state;
    int buffer; /* that holds it, -1: none */
    size_t bytes;
    XXH64_hash_t digest;
    int64_t generation; /* counts puts: a write that ends late finds that it is no longer meant */
    struct transfer *transfer; /* its last copy */
};

struct store {
    struct store_options options;
    size_t room; /* span_bytes, aligned */
    struct span *span;
    char **buffer; /* host: one a span; SSD: STORE_STAGING */
    int buffer_count;
    bool *held;
    int64_t *user; /* of each buffer: the span whose transfer touched it last, -1: none */
    int pinned;    /* buffers, the first ones */
    char how[64];
    struct store_counts counts;
    /* SSD only */
    struct disk *disk;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int64_t *queue; /* spans for the thread, in order; a ring of 2 * spans */
    int64_t queue_first, queue_count;
    int64_t running; /* the span that the thread works on, -1: none */
    bool quit;
    struct error trouble;
    bool troubled;
    bool device_failed; /* so the backend knows what the trouble is */
};

static size_t aligned(size_t bytes)
{
    return (bytes + DISK_ALIGNMENT - 1) & ~(size_t)(DISK_ALIGNMENT - 1);
}

static int64_t buffers_of(const struct store_options *options)
{
    bool few = options->kind == STORE_HOST || options->spans < STORE_STAGING;
    return few ? options->spans : STORE_STAGING;
}

int64_t store_host_bytes(const struct store_options *options)
{
    return buffers_of(options) * (int64_t)aligned(options->span_bytes);
}

/* ---- the thread of an SSD store ---------------------------------------------------------------
 */

static void latch(struct store *store, const struct error *err)
{
    if (!store->troubled) {
        store->trouble = *err;
        store->troubled = true;
    }
}

static void trace(const struct store *store, enum store_work work, int64_t span, double begin)
{
    if (store->options.trace != NULL) {
        store->options.trace(store->options.trace_context, work, span, begin, clock_monotonic());
    }
}

/* Before the disk touches memory that a span's transfer uses. */
static int await_transfer(struct store *store, int64_t number, struct error *err)
{
    if (number < 0 || transfer_wait(store->span[number].transfer) == 0) {
        return 0;
    }
    store->device_failed = true;
    return fail(err, ERROR_RUNTIME, "the device failed while activations were copied");
}

/* Called with the lock held; gives it up while the disk works. */
static void write_span(struct store *store, int64_t number)
{
    struct span *span = &store->span[number];
    int buffer = span->buffer;
    int64_t generation = span->generation;
    char *bytes = store->buffer[buffer];
    size_t size = span->bytes;
    XXH64_hash_t digest = 0;
    struct error err = { 0 };
    pthread_mutex_unlock(&store->lock);
    int rc = await_transfer(store, number, &err);
    double before = clock_monotonic();
    if (rc == 0) {
        memset(bytes + size, 0, aligned(size) - size);
        digest = XXH3_64bits(bytes, size);
        rc = disk_write(store->disk, bytes, aligned(size), number * (int64_t)store->room, &err);
    }
    double seconds = clock_monotonic() - before;
    pthread_mutex_lock(&store->lock);
    trace(store, STORE_WRITE, number, before);
    store->counts.write_seconds += seconds;
    if (rc != 0) {
        latch(store, &err);
        return;
    }
    store->counts.written_bytes += (int64_t)aligned(size);
    if (span->generation != generation || span->state == SPAN_EMPTY) {
        store->held[buffer] = false; /* taken in the meantime */
    } else if (span->state == SPAN_FORWARDED) {
        span->state = SPAN_READY; /* asked for in the meantime: its buffer stays */
    } else {
        span->digest = digest;
        span->state = SPAN_STORED;
        store->held[buffer] = false;
        span->buffer = -1;
    }
}

static void read_span(struct store *store, int64_t number)
{
    struct span *span = &store->span[number];
    int64_t user = store->user[span->buffer];
    char *bytes = store->buffer[span->buffer];
    size_t size = span->bytes;
    XXH64_hash_t digest = span->digest;
    struct error err = { 0 };
    pthread_mutex_unlock(&store->lock);
    int rc = await_transfer(store, user, &err);
    double before = clock_monotonic();
    if (rc == 0) {
        rc = disk_read(store->disk, bytes, aligned(size), number * (int64_t)store->room, &err);
    }
    if (rc == 0 && XXH3_64bits(bytes, size) != digest) {
        rc = fail(&err, ERROR_RUNTIME,
                  "offloaded activations came back damaged (span %lld of %zu bytes, checksum)",
                  (long long)number, size);
        hint(&err, "the disk under activation.offload_dir cannot be trusted");
    }
    double seconds = clock_monotonic() - before;
    pthread_mutex_lock(&store->lock);
    trace(store, STORE_READ, number, before);
    store->counts.read_seconds += seconds;
    if (rc != 0) {
        latch(store, &err);
        return;
    }
    store->counts.read_bytes += (int64_t)aligned(size);
    span->state = SPAN_READY;
}

/* A free buffer, or -1. */
static int free_buffer(const struct store *store)
{
    for (int i = 0; i < store->buffer_count; i++) {
        if (!store->held[i]) {
            return i;
        }
    }
    return -1;
}

/* The next job that can be done now: a read waits for a buffer, a write never does. */
static int64_t next_job(struct store *store)
{
    if (store->queue_count == 0) {
        return -1;
    }
    int64_t number = store->queue[store->queue_first];
    struct span *span = &store->span[number];
    if (span->state == SPAN_WANTED) {
        int buffer = free_buffer(store);
        if (buffer < 0) {
            return -1;
        }
        store->held[buffer] = true;
        span->buffer = buffer;
    }
    store->queue_first = (store->queue_first + 1) % (2 * store->options.spans);
    store->queue_count--;
    return number;
}

static void *serve(void *context)
{
    struct store *store = context;
    pthread_mutex_lock(&store->lock);
    while (!store->quit) {
        int64_t number = store->troubled ? -1 : next_job(store);
        if (number < 0) {
            pthread_cond_wait(&store->changed, &store->lock);
            continue;
        }
        store->running = number;
        if (store->span[number].state == SPAN_WANTED) {
            read_span(store, number);
        } else {
            write_span(store, number);
        }
        store->running = -1;
        pthread_cond_broadcast(&store->changed);
    }
    pthread_mutex_unlock(&store->lock);
    return NULL;
}

static void enqueue(struct store *store, int64_t span)
{
    int64_t at = (store->queue_first + store->queue_count) % (2 * store->options.spans);
    store->queue[at] = span;
    store->queue_count++;
    pthread_cond_broadcast(&store->changed);
}

/* ---- opening and closing ----------------------------------------------------------------------
 */

static int open_transfers(struct store *store, struct error *err)
{
    for (int64_t i = 0; i < store->options.spans; i++) {
        store->span[i].transfer = transfer_open(store->options.be);
        if (store->span[i].transfer == NULL) {
            return fail(err, ERROR_RUNTIME, "%s gives no stream to copy activations in",
                        store->options.be->facts.device);
        }
    }
    return 0;
}

static int take_buffers(struct store *store, struct error *err)
{
    store->buffer_count = (int)buffers_of(&store->options);
    store->buffer = xcalloc((size_t)store->buffer_count + 1, sizeof *store->buffer);
    store->held = xcalloc((size_t)store->buffer_count + 1, sizeof *store->held);
    store->user = xcalloc((size_t)store->buffer_count + 1, sizeof *store->user);
    for (int i = 0; i < store->buffer_count; i++) {
        store->buffer[i] = aligned_alloc(DISK_ALIGNMENT, store->room);
        if (store->buffer[i] == NULL) {
            fail(err, ERROR_FIT, "offloaded activations need %lld bytes of host memory",
                 (long long)store_host_bytes(&store->options));
            return hint(err, "lower batch.micro, or use activation.offload=ssd");
        }
        memset(store->buffer[i], 0, store->room); /* the pages are there before the first step */
        store->user[i] = -1;
        store->pinned +=
            store->pinned == i && backend_pin(store->options.be, store->buffer[i], store->room);
    }
    snprintf(store->how, sizeof store->how, "%s%s",
             store->disk != NULL ? disk_how(store->disk) : "host memory",
             store->pinned < store->buffer_count ? ", not pinned" : "");
    return 0;
}

static int open_disk(struct store *store, struct error *err)
{
    const struct store_options *options = &store->options;
    store->disk =
        disk_open(options->directory, options->spans * (int64_t)store->room, options->no_ring, err);
    if (store->disk == NULL) {
        return -1;
    }
    if (pthread_create(&store->thread, NULL, serve, store) != 0) {
        disk_close(store->disk);
        store->disk = NULL;
        return fail(err, ERROR_RUNTIME, "the thread for offloaded activations cannot be started");
    }
    return 0;
}

struct store *store_open(const struct store_options *options, struct error *err)
{
    struct store *store = xcalloc(1, sizeof *store);
    store->options = *options;
    store->options.directory = NULL;
    store->room = aligned(options->span_bytes);
    store->span = xcalloc((size_t)options->spans + 1, sizeof *store->span);
    store->queue = xcalloc(2 * (size_t)options->spans + 1, sizeof *store->queue);
    pthread_mutex_init(&store->lock, NULL);
    pthread_cond_init(&store->changed, NULL);
    store->running = -1;
    store_reset(store);
    int rc = open_transfers(store, err);
    if (rc == 0 && options->kind == STORE_SSD) {
        store->options.directory = options->directory;
        rc = open_disk(store, err);
        store->options.directory = NULL; /* the caller's */
    }
    rc = rc == 0 ? take_buffers(store, err) : -1;
    if (rc != 0) {
        store_close(store);
        return NULL;
    }
    return store;
}

void store_close(struct store *store)
{
    if (store == NULL) {
        return;
    }
    if (store->disk != NULL) {
        pthread_mutex_lock(&store->lock);
        store->quit = true;
        pthread_cond_broadcast(&store->changed);
        pthread_mutex_unlock(&store->lock);
        pthread_join(store->thread, NULL);
        disk_close(store->disk);
    }
    for (int64_t i = 0; i < store->options.spans; i++) {
        transfer_close(store->span[i].transfer);
    }
    for (int i = 0; store->buffer != NULL && i < store->buffer_count; i++) {
        if (i < store->pinned) {
            backend_unpin(store->options.be, store->buffer[i]);
        }
        free(store->buffer[i]);
    }
    pthread_mutex_destroy(&store->lock);
    pthread_cond_destroy(&store->changed);
    free(store->buffer);
    free(store->held);
    free(store->user);
    free(store->span);
    free(store->queue);
    free(store);
}

/* ---- what the pass asks -----------------------------------------------------------------------
 */

/* All were taken: nothing to forget, and no need to wait for a write that nobody reads. */
static bool is_empty(const struct store *store)
{
    for (int64_t i = 0; i < store->options.spans; i++) {
        if (store->span[i].state != SPAN_EMPTY) {
            return false;
        }
    }
    return true;
}

void store_reset(struct store *store)
{
    pthread_mutex_lock(&store->lock);
    if (is_empty(store)) {
        pthread_mutex_unlock(&store->lock);
        return;
    }
    store->queue_count = 0;
    while (store->running >= 0) {
        pthread_cond_wait(&store->changed, &store->lock);
    }
    for (int64_t i = 0; i < store->options.spans; i++) {
        store->span[i].state = SPAN_EMPTY;
        store->span[i].buffer = -1;
    }
    for (int i = 0; i < store->buffer_count; i++) {
        store->held[i] = false;
    }
    pthread_mutex_unlock(&store->lock);
}

static int check_trouble(struct store *store, struct error *err)
{
    if (!store->troubled) {
        return 0;
    }
    *err = store->trouble;
    if (store->device_failed && backend_sync(store->options.be) != 0) {
        fail(err, ERROR_RUNTIME, "%s: %s", store->options.be->facts.device,
             store->options.be->error);
    }
    return -1;
}

/* Waits for a change, at most look_seconds while the device has work: a wait of the host alone
 * costs nothing. Called with the lock held. */
static void stall(struct store *store, int64_t number)
{
    if (!backend_idle(store->options.be)) {
        double until = clock_wall() + look_seconds;
        struct timespec at = { .tv_sec = (time_t)until };
        at.tv_nsec = (long)(1e9 * (until - (double)at.tv_sec));
        pthread_cond_timedwait(&store->changed, &store->lock, &at);
        return;
    }
    double before = clock_monotonic();
    pthread_cond_wait(&store->changed, &store->lock);
    store->counts.stall_seconds += clock_monotonic() - before;
    trace(store, STORE_STALL, number, before);
}

/* A buffer to put a span into; waits for one. Called with the lock held. */
static int wait_for_buffer(struct store *store, int64_t number)
{
    if (store->options.kind == STORE_HOST) {
        return (int)number;
    }
    int buffer;
    while ((buffer = free_buffer(store)) < 0 && !store->troubled) {
        stall(store, number);
    }
    return buffer;
}

int store_put(struct store *store, int64_t number, const void *device, size_t bytes,
              struct error *err)
{
    struct span *span = &store->span[number];
    pthread_mutex_lock(&store->lock);
    if (bytes > store->options.span_bytes || span->state != SPAN_EMPTY) {
        BUG("span %lld of %zu bytes cannot be put", (long long)number, bytes);
    }
    int buffer = wait_for_buffer(store, number);
    int rc = check_trouble(store, err);
    if (rc == 0) {
        store->held[buffer] = true;
        store->user[buffer] = number;
        pthread_mutex_unlock(&store->lock);
        double before = clock_monotonic();
        transfer_out(span->transfer, store->buffer[buffer], device, bytes);
        pthread_mutex_lock(&store->lock);
        trace(store, STORE_PUT, number, before);
        bool host = store->options.kind == STORE_HOST;
        span->state = host ? SPAN_READY : SPAN_WRITING;
        span->buffer = buffer;
        span->bytes = bytes;
        span->generation++;
        if (!host) {
            enqueue(store, number);
        }
    }
    pthread_mutex_unlock(&store->lock);
    return rc;
}

/* Takes a span out of the thread's queue; false if it is not there. */
static bool unqueue(struct store *store, int64_t number)
{
    int64_t room = 2 * store->options.spans;
    int64_t found = -1;
    for (int64_t i = 0; i < store->queue_count && found < 0; i++) {
        found = store->queue[(store->queue_first + i) % room] == number ? i : -1;
    }
    if (found < 0) {
        return false;
    }
    for (int64_t i = found; i + 1 < store->queue_count; i++) {
        store->queue[(store->queue_first + i) % room] =
            store->queue[(store->queue_first + i + 1) % room];
    }
    store->queue_count--;
    return true;
}

static void fetch_locked(struct store *store, int64_t number)
{
    struct span *span = &store->span[number];
    if (span->state == SPAN_WRITING) {
        /* Not begun: it need not be written at all. */
        span->state = unqueue(store, number) ? SPAN_READY : SPAN_FORWARDED;
        store->counts.forwarded_spans++;
    } else if (span->state == SPAN_STORED) {
        span->state = SPAN_WANTED;
        enqueue(store, number);
    }
}

int store_fetch(struct store *store, int64_t number, struct error *err)
{
    pthread_mutex_lock(&store->lock);
    fetch_locked(store, number);
    int rc = check_trouble(store, err);
    pthread_mutex_unlock(&store->lock);
    return rc;
}

int store_take(struct store *store, int64_t number, void *device, size_t bytes, struct error *err)
{
    struct span *span = &store->span[number];
    pthread_mutex_lock(&store->lock);
    fetch_locked(store, number);
    if (span->state == SPAN_EMPTY || bytes != span->bytes) {
        BUG("span %lld of %zu bytes cannot be taken", (long long)number, bytes);
    }
    while (!store->troubled && span->state == SPAN_WANTED) {
        stall(store, number);
    }
    int rc = check_trouble(store, err);
    if (rc == 0) {
        int buffer = span->buffer;
        pthread_mutex_unlock(&store->lock);
        double before = clock_monotonic();
        transfer_in(span->transfer, device, store->buffer[buffer], bytes);
        pthread_mutex_lock(&store->lock);
        trace(store, STORE_TAKE, number, before);
        /* Still being written: the thread gives the buffer back. */
        store->held[buffer] = span->state == SPAN_FORWARDED;
        store->user[buffer] = number;
        span->state = SPAN_EMPTY;
        span->buffer = -1;
        pthread_cond_broadcast(&store->changed);
    }
    pthread_mutex_unlock(&store->lock);
    return rc;
}

void store_join(struct store *store, int64_t span)
{
    transfer_join(store->span[span].transfer);
}

void store_mark(struct store *store, int64_t span)
{
    transfer_mark(store->span[span].transfer);
}

void store_count(struct store *store, struct store_counts *counts)
{
    pthread_mutex_lock(&store->lock);
    *counts = store->counts;
    pthread_mutex_unlock(&store->lock);
}

const char *store_how(const struct store *store)
{
    return store->how;
}
