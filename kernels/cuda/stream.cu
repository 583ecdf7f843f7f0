/*
 * The cuda backend between host and device: waits, memory, transfers, and recorded parts.
 *
 * Everything runs in one stream, but for inputs: those are copied in a stream of their own, which
 * waits for what was asked before the feed and is waited for by what is asked after the join. Host
 * bytes go through pinned memory that is handed out piece by piece and free again after a wait, so
 * that no transfer of a step makes the host stand still except the one answer that it needs.
 */
#include <stdio.h>

#include "kernels/call.h"
#include "kernels/cuda/check.cuh"
#include "kernels/cuda/cuda.cuh"

/* Larger uploads and downloads go without pinned memory, and are waited for. */
static const size_t staged_limit = (size_t)64 << 10;
static const size_t chunk_bytes = (size_t)256 << 10;

static const char *written_name(const struct backend *be)
{
    const struct call *c = be->call;
    for (int i = 0; c != NULL && i < c->count; i++) {
        if ((c->use[i] & CALL_OUT) != 0 && c->tensor[i]->name != NULL) {
            return c->tensor[i]->name;
        }
    }
    return "";
}

/* Remembers the first and the last operation since the host waited. */
static void note_asked(struct cuda_state *state, const char *op, const char *written)
{
    struct asked *last = &state->asked_last;
    last->op = op;
    snprintf(last->written, sizeof last->written, "%.90s", written);
    if (state->asked_first.op == NULL) {
        state->asked_first = *last;
    }
}

/* "adamw, writing 'model.norm.weight'" */
static void describe_asked(const struct asked *asked, char *text, size_t size)
{
    const char *op = asked->op != NULL ? asked->op : "";
    bool named = asked->written[0] != '\0';
    snprintf(text, size, "%s%s%s%s", op, named ? ", writing '" : "", asked->written,
             named ? "'" : "");
}

/* A device that faulted does not tell where: it was something between two waits. */
static void fail_waiting(struct backend *be, const char *what, cudaError_t status)
{
    struct cuda_state *state = cuda_state_of(be);
    const struct asked *first = &state->asked_first;
    const struct asked *last = &state->asked_last;
    char from[160];
    char to[160];
    describe_asked(first, from, sizeof from);
    describe_asked(last, to, sizeof to);
    bool one = first->op == last->op && strcmp(first->written, last->written) == 0;
    be->failed_unnamed = be->failed_unnamed || !be->failed;
    if (first->op == NULL) {
        backend_fail(be, "%s on cuda:%d: %s; only copies were asked for since the last wait", what,
                     state->index, cudaGetErrorString(status));
    } else {
        backend_fail(be, "%s on cuda:%d: %s; asked for since the last wait%s%s%s%s", what,
                     state->index, cudaGetErrorString(status), one ? " was " : ": from ", from,
                     one ? "" : " to ", one ? "" : to);
    }
}

bool cuda_check(struct backend *be, const char *op)
{
    struct cuda_state *state = cuda_state_of(be);
    cudaError_t status = cudaGetLastError();
    if (state->recording) {
        state->record_broken = state->record_broken || status != cudaSuccess;
        return !be->failed;
    }
    if (be->call != NULL) { /* a transfer says nothing of what failed */
        note_asked(state, op, written_name(be));
    }
    if (status == cudaSuccess && state->wait_for_each) {
        status = cudaStreamSynchronize(state->stream);
    }
    if (status != cudaSuccess && !state->wait_for_each &&
        cudaStreamSynchronize(state->stream) != cudaSuccess) {
        fail_waiting(be, op, status); /* an older fault, which shows at whatever is asked next */
    } else if (status != cudaSuccess) {
        char call[CALL_TEXT];
        call_describe(be, call);
        backend_fail(be, "%s on cuda:%d: %s", call[0] != '\0' ? call : op, state->index,
                     cudaGetErrorString(status));
    }
    return !be->failed;
}

/* ---- waiting --------------------------------------------------------------------------------- */

static void free_staged(struct cuda_state *state)
{
    for (int i = 0; i <= state->staged_last; i++) {
        state->staged[i].used = 0;
    }
    state->staged_last = 0;
}

/* Hands out what was fetched; after a fault the host gets zeros. */
static void deliver(struct cuda_state *state, bool good)
{
    for (int i = 0; i < state->fetched_count; i++) {
        const struct fetched *f = &state->fetched[i];
        if (good) {
            memcpy(f->host, f->staged, f->bytes);
        } else {
            memset(f->host, 0, f->bytes);
        }
    }
    state->fetched_count = 0;
    free_staged(state);
}

/* A fault in a kernel shows here. */
static int wait_for_device(struct backend *be, const char *what)
{
    struct cuda_state *state = cuda_state_of(be);
    if (state->recording) {
        state->record_broken = true; /* a wait cannot be recorded */
        return 0;
    }
    be->tally.waits++;
    cudaError_t status = cudaStreamSynchronize(state->stream);
    if (status == cudaSuccess && state->feeding) {
        status = cudaStreamSynchronize(state->feeds);
    }
    if (status != cudaSuccess) {
        fail_waiting(be, what, status);
    }
    state->asked_first.op = NULL;
    deliver(state, !be->failed);
    return be->failed ? -1 : 0;
}

int cuda_sync(struct backend *be)
{
    return wait_for_device(be, "waiting");
}

/* ---- memory ---------------------------------------------------------------------------------- */

void *cuda_alloc(struct backend *be, size_t bytes)
{
    void *data = NULL;
    be->tally.allocations++;
    if (cudaMalloc(&data, bytes > 0 ? bytes : 1) != cudaSuccess) {
        (void)cudaGetLastError();
        return NULL;
    }
    be->tally.held_bytes += (int64_t)bytes;
    return data;
}

void cuda_free(struct backend *be, void *data, size_t bytes)
{
    be->tally.held_bytes -= (int64_t)bytes;
    cudaFree(data);
}

void cuda_drop_scratch(struct backend *be)
{
    struct cuda_state *state = cuda_state_of(be);
    if (state->scratch != NULL) {
        cudaStreamSynchronize(state->stream);
        cuda_free(be, state->scratch, state->scratch_bytes);
    }
    state->scratch = NULL;
    state->scratch_bytes = 0;
}

void *cuda_scratch(struct backend *be, size_t bytes)
{
    struct cuda_state *state = cuda_state_of(be);
    if (be->scratch.take != NULL) {
        return be->scratch.take(be->scratch.context, bytes);
    }
    if (bytes > state->scratch_bytes) {
        cuda_drop_scratch(be);
        state->scratch = cuda_alloc(be, bytes);
        if (state->scratch == NULL) {
            backend_fail(be, "cuda:%d is out of memory (%zu bytes of scratch)", state->index,
                         bytes);
            return NULL;
        }
        state->scratch_bytes = bytes;
    }
    return state->scratch;
}

int cuda_memory(struct backend *be, size_t *free_bytes, size_t *total_bytes)
{
    (void)be;
    if (cudaMemGetInfo(free_bytes, total_bytes) != cudaSuccess) {
        (void)cudaGetLastError();
        return -1;
    }
    return 0;
}

/* ---- transfers ------------------------------------------------------------------------------- */

void cuda_drop_staged(struct cuda_state *state)
{
    for (int i = 0; i < STAGED_MAX; i++) {
        cudaFreeHost(state->staged[i].data);
        memset(&state->staged[i], 0, sizeof state->staged[i]);
    }
    state->staged_last = 0;
}

static bool chunk_grow(struct backend *be, struct staged *chunk, size_t bytes)
{
    size_t wanted = bytes > chunk_bytes ? bytes : chunk_bytes;
    cudaFreeHost(chunk->data);
    memset(chunk, 0, sizeof *chunk);
    be->tally.allocations++;
    if (cudaMallocHost((void **)&chunk->data, wanted) != cudaSuccess) {
        (void)cudaGetLastError();
        chunk->data = NULL;
        backend_fail(be, "cuda:%d: the host gives no %zu bytes of pinned memory",
                     cuda_state_of(be)->index, wanted);
        return false;
    }
    chunk->bytes = wanted;
    return true;
}

/* Pinned memory that stays the caller's until the next wait. NULL, with the error latched, if there
 * is none. */
static char *stage(struct backend *be, size_t bytes)
{
    struct cuda_state *state = cuda_state_of(be);
    struct staged *chunk = &state->staged[state->staged_last];
    bytes = (bytes + 63) & ~(size_t)63;
    if (chunk->used > 0 && chunk->used + bytes > chunk->bytes) {
        if (state->staged_last + 1 == STAGED_MAX && wait_for_device(be, "transfer") != 0) {
            return NULL;
        }
        state->staged_last += chunk->used > 0 ? 1 : 0; /* a wait begins with the first again */
        chunk = &state->staged[state->staged_last];
    }
    if (chunk->used + bytes > chunk->bytes && !chunk_grow(be, chunk, bytes)) {
        return NULL;
    }
    char *data = chunk->data + chunk->used;
    chunk->used += bytes;
    return data;
}

bool cuda_may_transfer(struct backend *be)
{
    struct cuda_state *state = cuda_state_of(be);
    state->record_broken = state->record_broken || state->recording;
    return !state->recording;
}

void cuda_upload(struct backend *be, void *device, const void *host, size_t bytes)
{
    bool staged = bytes <= staged_limit;
    if (!cuda_may_transfer(be)) {
        return;
    }
    if (staged) {
        char *room = stage(be, bytes);
        if (room == NULL) {
            return;
        }
        memcpy(room, host, bytes);
        host = room;
    }
    cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, cuda_stream(be));
    if (cuda_check(be, "upload") && !staged) {
        wait_for_device(be, "upload");
    }
}

void cuda_fetch(struct backend *be, void *host, const void *device, size_t bytes)
{
    struct cuda_state *state = cuda_state_of(be);
    if (!cuda_may_transfer(be)) {
        return;
    }
    if (state->fetched_count == FETCHED_MAX && wait_for_device(be, "download") != 0) {
        memset(host, 0, bytes);
        return;
    }
    char *room = stage(be, bytes);
    if (room == NULL) {
        memset(host, 0, bytes);
        return;
    }
    cudaMemcpyAsync(room, device, bytes, cudaMemcpyDeviceToHost, state->stream);
    if (!cuda_check(be, "download")) {
        memset(host, 0, bytes);
        return;
    }
    struct fetched *f = &state->fetched[state->fetched_count++];
    f->host = host;
    f->staged = room;
    f->bytes = bytes;
}

void cuda_download(struct backend *be, void *host, const void *device, size_t bytes)
{
    if (bytes <= staged_limit) {
        cuda_fetch(be, host, device, bytes);
        if (!be->failed) {
            wait_for_device(be, "download");
        }
        return;
    }
    if (!cuda_may_transfer(be)) {
        return;
    }
    cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, cuda_stream(be));
    if (!cuda_check(be, "download") || wait_for_device(be, "download") != 0) {
        memset(host, 0, bytes);
    }
}

void cuda_feed(struct backend *be, void *device, const void *host, size_t bytes)
{
    struct cuda_state *state = cuda_state_of(be);
    char *room = cuda_may_transfer(be) ? stage(be, bytes) : NULL;
    if (room == NULL) {
        return;
    }
    memcpy(room, host, bytes);
    cudaEventRecord(state->computed, state->stream);
    cudaStreamWaitEvent(state->feeds, state->computed, 0);
    cudaMemcpyAsync(device, room, bytes, cudaMemcpyHostToDevice, state->feeds);
    cudaEventRecord(state->fed, state->feeds);
    state->feeding = true;
    cuda_check(be, "feed");
}

void cuda_join(struct backend *be)
{
    struct cuda_state *state = cuda_state_of(be);
    if (state->feeding && cuda_may_transfer(be)) {
        cudaStreamWaitEvent(state->stream, state->fed, 0);
        state->feeding = false;
        cuda_check(be, "feed");
    }
}

/* ---- recording ------------------------------------------------------------------------------- */

bool cuda_capture_begin(struct backend *be, int slot)
{
    struct cuda_state *state = cuda_state_of(be);
    if (cudaStreamBeginCapture(state->stream, cudaStreamCaptureModeThreadLocal) != cudaSuccess) {
        (void)cudaGetLastError();
        return false;
    }
    state->recording = true;
    state->record_broken = false;
    marks_record(be, slot);
    return true;
}

bool cuda_capture_end(struct backend *be, int slot)
{
    struct cuda_state *state = cuda_state_of(be);
    cudaGraph_t graph = NULL;
    cudaError_t status = cudaStreamEndCapture(state->stream, &graph);
    bool good = status == cudaSuccess && graph != NULL && !state->record_broken;
    state->recording = false;
    marks_record(be, -1);
    if (good) {
        be->tally.allocations++;
        good = cudaGraphInstantiate(&state->record[slot], graph, 0) == cudaSuccess;
    }
    if (graph != NULL) {
        cudaGraphDestroy(graph);
    }
    if (good) {
        (void)cudaGraphUpload(state->record[slot], state->stream);
    }
    (void)cudaGetLastError();
    return good;
}

void cuda_launch(struct backend *be, int slot)
{
    struct cuda_state *state = cuda_state_of(be);
    marks_replay(be, slot, true);
    cudaGraphLaunch(state->record[slot], state->stream);
    marks_replay(be, slot, false);
    note_asked(state, "a recorded micro-batch", "");
    cuda_check(be, "recorded micro-batch");
}

void cuda_forget(struct backend *be, int slot)
{
    struct cuda_state *state = cuda_state_of(be);
    cudaStreamSynchronize(state->stream);
    cudaGraphExecDestroy(state->record[slot]);
    state->record[slot] = NULL;
}
