/*
 * How the ranks of a run fare: who is slow, who waits, what memory each takes.
 *
 * Every step begins with a collective that counts the tokens it trains; in it each rank also tells
 * how long its last step took, how much of that it waited, and what it holds. So nothing is sent
 * for this alone. Rank 0 adds up, and once in a while says the means in an event.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/base/xalloc.h"
#include "engine/run/parts.h"

/* An event tells no more ranks than this a second, and is not due oftener than once a second. */
#define RANKS_PER_S  8
#define LOOK_EVERY_S 1.0

/* What rank 0 knows of one. */
struct rank_fare {
    struct rank_name name;
    double step_s; /* sums over the steps since the last event */
    double wait_s;
    double exchanged_bytes;
};

/* ---- who they are --------------------------------------------------------------------------- */

void run_name_self(const struct run *run, struct rank_name *name)
{
    memset(name, 0, sizeof *name);
    gethostname(name->host, sizeof name->host - 1);
    snprintf(name->device, sizeof name->device, "%.63s", run->be->facts.device);
    name->local_rank = run->comm->local_rank;
}

void run_name_rank(struct run *run, int p, const struct rank_name *name)
{
    if (!run->fare.rank) {
        run->fare.rank = xcalloc((size_t)run->comm->ranks, sizeof *run->fare.rank);
    }
    run->fare.rank[p].name = *name;
    run->fare.rank[p].name.host[sizeof name->host - 1] = '\0'; /* it came from another host */
    run->fare.rank[p].name.device[sizeof name->device - 1] = '\0';
}

void run_free_fare(struct run *run)
{
    free(run->fare.rank);
    run->fare.rank = NULL;
}

/* ---- telling -------------------------------------------------------------------------------- */

/* What takes a system call, or a lock of the sampler. */
static void look_around(struct run *run, struct rank_report *mine)
{
    struct nvml_sample sample;
    sampler_read(run->sampler, &sample);
    mine->device_used_bytes = sample.used_bytes;
    mine->device_total_bytes = sample.total_bytes;
    size_t free_bytes = 0;
    size_t total_bytes = 0;
    if (mine->device_used_bytes < 0 && device_is_cuda(run->be) &&
        backend_memory(run->be, &free_bytes, &total_bytes) == 0) {
        mine->device_used_bytes = (int64_t)(total_bytes - free_bytes);
        mine->device_total_bytes = (int64_t)total_bytes;
    }
    mine->gpu_util = sample.gpu_util;
    mine->temperature_c = sample.temperature_c;
    mine->power_w = sample.power_w;
    mine->host_bytes = telemetry_host_bytes();
}

void run_tell_ranks(struct run *run)
{
    struct rank_report *mine = &run->fare.mine;
    const struct memory *memory = trainer_memory(run->trainer);
    double now = clock_monotonic();
    if (run->comm->ranks == 1) {
        return;
    }
    if (run->fare.looked_s == 0.0) { /* there was no step before */
        mine->step_s = (double)NAN;
        mine->wait_s = (double)NAN;
    }
    /* The sampler has its first sample a moment after the start: until then every step looks. */
    bool young = now - run->began_s < LOOK_EVERY_S;
    if (run->fare.looked_s == 0.0 || young || now - run->fare.looked_s >= LOOK_EVERY_S) {
        run->fare.looked_s = now;
        look_around(run, mine);
    }
    mine->bytes = mine->peak_bytes = mine->planned_bytes = 0;
    for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
        mine->bytes += (int64_t)memory_live(memory, (enum memory_category)c);
        mine->peak_bytes += (int64_t)memory_peak(memory, (enum memory_category)c);
        mine->planned_bytes += (int64_t)memory_capacity(memory, (enum memory_category)c);
    }
    mine->limit_bytes = run->limit_bytes;
    trainer_tell_ranks(run->trainer, mine);
}

void run_note_fare(struct run *run, double step_s, double wait_s)
{
    struct run_fare *fare = &run->fare;
    const struct rank_report *told = trainer_rank_reports(run->trainer);
    if (run->comm->ranks == 1) {
        return;
    }
    double exchanged = run->comm->counts.payload_bytes;
    fare->mine.step_s = step_s;
    fare->mine.wait_s = wait_s;
    fare->mine.exchanged_bytes = exchanged - fare->exchanged_bytes;
    fare->exchanged_bytes = exchanged;
    if (run_follows(run) || !fare->rank || !isfinite(told[0].step_s)) {
        return;
    }
    fare->steps++;
    for (int p = 0; p < run->comm->ranks; p++) {
        fare->rank[p].step_s += told[p].step_s;
        fare->rank[p].wait_s += told[p].wait_s;
        fare->rank[p].exchanged_bytes += told[p].exchanged_bytes;
    }
}

/* ---- the event ------------------------------------------------------------------------------ */

static int64_t known(int64_t bytes)
{
    return bytes >= 0 ? bytes : EVENT_UNKNOWN;
}

static void fill(const struct rank_fare *fare, const struct rank_report *told, int64_t steps,
                 struct event_rank *out)
{
    double n = (double)steps;
    event_rank_init(out);
    memcpy(out->host, fare->name.host, sizeof out->host);
    memcpy(out->device, fare->name.device, sizeof out->device);
    out->local_rank = fare->name.local_rank;
    out->step_ms = 1e3 * fare->step_s / n;
    out->wait_ms = 1e3 * fare->wait_s / n;
    if (isfinite(out->wait_ms)) {
        out->compute_ms = fmax(0.0, out->step_ms - out->wait_ms);
    }
    out->exchanged_bytes = (int64_t)(fare->exchanged_bytes / n);
    out->bytes = told->bytes;
    out->peak_bytes = told->peak_bytes;
    out->planned_bytes = told->planned_bytes;
    out->limit_bytes = told->limit_bytes;
    out->device_used_bytes = known(told->device_used_bytes);
    out->device_total_bytes = known(told->device_total_bytes);
    out->host_bytes = known(told->host_bytes);
    out->gpu_util = told->gpu_util;
    out->power_w = told->power_w;
    out->temperature_c = told->temperature_c;
}

static bool is_due(const struct run *run, double now, bool last)
{
    double every_s = fmax(1.0, (double)run->comm->ranks / RANKS_PER_S);
    return run->fare.steps > 0 &&
           (last || run->fare.told_s == 0.0 || now - run->fare.told_s >= every_s);
}

void run_report_ranks(struct run *run, bool last)
{
    struct run_fare *fare = &run->fare;
    const struct rank_report *told = trainer_rank_reports(run->trainer);
    int ranks = run->comm->ranks < EVENT_RANKS_MAX ? run->comm->ranks : EVENT_RANKS_MAX;
    double now = clock_monotonic();
    struct event event;
    if (!fare->rank || !is_due(run, now, last)) {
        return;
    }
    event_init(&event, EVENT_RANKS);
    event.step = run->state.step;
    event.ranks.steps = fare->steps;
    event.ranks.count = ranks;
    event.ranks.item = xcalloc((size_t)ranks, sizeof *event.ranks.item);
    for (int p = 0; p < ranks; p++) {
        struct event_rank *rank = &event.ranks.item[p];
        fill(&fare->rank[p], &told[p], fare->steps, rank);
        if (isfinite(rank->compute_ms) &&
            (event.ranks.slowest == EVENT_UNKNOWN ||
             rank->compute_ms > event.ranks.item[event.ranks.slowest].compute_ms)) {
            event.ranks.slowest = p;
        }
        fare->rank[p].step_s = fare->rank[p].wait_s = fare->rank[p].exchanged_bytes = 0.0;
    }
    fare->steps = 0;
    fare->told_s = now;
    run_emit(run, &event);
}
