/* The schedule of offloading, played through. */
#include "engine/activation/offload_model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/activation/offload.h"
#include "engine/base/xalloc.h"

enum place { UNWRITTEN, WRITING, FORWARDED, WRITTEN, WANTED, READING, THERE };

struct waiting {
    enum place place;
    double since; /* asked of the disk, or there */
};

struct play {
    const struct offload_times *times;
    int64_t spans;
    struct waiting *span;
    int64_t *queue;
    int64_t first, count;
    int64_t busy; /* the span that the disk works on, -1: none */
    double until; /* it is done; before, when it became free */
    int64_t buffers;
    double freed; /* when there was a buffer again */
    double now;   /* of the caller */
    struct offload_forecast *out;
};

static void give_buffer(struct play *p, double when)
{
    p->freed = p->buffers == 0 ? when : p->freed;
    p->buffers++;
}

/* The disk begins what is next, if it can. */
static void begin(struct play *p)
{
    if (p->busy >= 0 || p->count == 0) {
        return;
    }
    int64_t number = p->queue[p->first];
    struct waiting *span = &p->span[number];
    bool reading = span->place == WANTED;
    if (reading && p->buffers == 0) {
        return;
    }
    double from = fmax(p->until, span->since);
    if (reading) {
        from = fmax(from, p->freed);
        p->buffers--;
    }
    p->first++;
    p->count--;
    span->place = reading ? READING : WRITING;
    p->busy = number;
    p->until = from + (reading ? p->times->read : p->times->write);
}

static void finish(struct play *p)
{
    struct waiting *span = &p->span[p->busy];
    if (span->place == READING) {
        p->out->read_spans++;
    } else {
        p->out->written_spans++;
    }
    if (span->place == WRITING) {
        span->place = WRITTEN;
        give_buffer(p, p->until);
    } else {
        span->place = THERE; /* read, or asked for while it was written */
    }
    p->busy = -1;
}

/* Lets the disk work until the caller's time. */
static void catch_up(struct play *p)
{
    begin(p);
    while (p->busy >= 0 && p->until <= p->now) {
        finish(p);
        begin(p);
    }
}

/* The caller waits for the disk's next end; false if there will be none. */
static bool await_disk(struct play *p)
{
    begin(p);
    if (p->busy < 0) {
        return false;
    }
    p->out->stall += fmax(0.0, p->until - p->now);
    p->now = fmax(p->now, p->until);
    finish(p);
    return true;
}

static void ask(struct play *p, int64_t number, enum place place)
{
    p->span[number] = (struct waiting){ place, p->now };
    p->queue[p->first + p->count++] = number;
}

static void copy(struct play *p)
{
    p->now += p->times->copy;
    p->out->copying += p->times->copy;
}

static void put(struct play *p, int64_t number)
{
    catch_up(p);
    while (p->buffers == 0 && await_disk(p)) {
    }
    p->buffers--;
    copy(p);
    ask(p, number, UNWRITTEN);
}

static void fetch(struct play *p, int64_t number)
{
    struct waiting *span = &p->span[number];
    catch_up(p);
    if (span->place == WRITTEN) {
        ask(p, number, WANTED);
    } else if (span->place == UNWRITTEN) {
        p->count--; /* spans are written in their order, so this one is the last that waits */
        span->place = THERE;
    } else if (span->place == WRITING) {
        span->place = FORWARDED;
    }
}

static void take(struct play *p, int64_t number)
{
    struct waiting *span = &p->span[number];
    fetch(p, number);
    while (span->place != FORWARDED && span->place != THERE && await_disk(p)) {
    }
    copy(p);
    catch_up(p);
    if (span->place == THERE) {
        give_buffer(p, p->now);
    } else {
        span->place = WRITING; /* the buffer is free when the write ends */
    }
}

static void play(struct play *p)
{
    const struct offload_times *t = p->times;
    int64_t present = p->spans;
    for (int64_t i = 0; i < t->layers; i++) {
        p->now += t->forward;
        if (i < p->spans) {
            put(p, i);
        }
    }
    p->now += t->between;
    for (int64_t i = t->layers - 1; i >= 0; i--) {
        while (present > (i > 0 ? i - 1 : 0)) {
            take(p, --present);
        }
        for (int64_t k = present - 1; k >= 0 && k >= present - 2; k--) {
            fetch(p, k);
        }
        p->now += t->backward;
    }
}

void offload_forecast(const struct offload_times *times, struct offload_forecast *out)
{
    memset(out, 0, sizeof *out);
    struct play p = { .times = times,
                      .spans = offload_spans(times->layers, times->resident),
                      .busy = -1,
                      .out = out };
    bool host = times->write <= 0.0;
    p.buffers = host ? p.spans : STORE_STAGING;
    p.span = xcalloc((size_t)p.spans + 1, sizeof *p.span);
    p.queue = xcalloc(2 * (size_t)p.spans + 1, sizeof *p.queue);
    play(&p);
    out->seconds = p.now;
    if (host) {
        out->written_spans = 0;
        out->read_spans = 0;
    }
    free(p.span);
    free(p.queue);
}
