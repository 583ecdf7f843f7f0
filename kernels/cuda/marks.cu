/*
 * Where the time of the device goes, by events in its stream (backend_time_part).
 *
 * An event is recorded where a part begins; between two of them lies time of the first one's part.
 * A recorded piece of work has events of its own inside, which are nodes of its graph: they tell
 * how its last replay was divided. Earlier replays of the step, whose inner events were recorded
 * over, are divided in the same proportions.
 *
 * Nothing is waited for: events are read when the host has waited for the stream anyway. Events are
 * made where a step needs more of them than any before, which is the first one, and kept.
 */
#include <stdlib.h>

#include "kernels/cuda/check.cuh"

/* Enough for a refresh of every matrix of a large model. */
enum { ENTRIES_MAX = 4096, INNER_MAX = 16 };

struct entry {
    cudaEvent_t event;
    int part;
    int slot; /* the record that was replayed right after it; -1: none */
};

/* Parts that begin inside of a record. */
struct inner {
    cudaEvent_t event[INNER_MAX];
    int part[INNER_MAX];
    int made; /* events */
    int count;
};

struct marks {
    struct entry entry[ENTRIES_MAX];
    struct inner inner[REPLAY_SLOTS];
    struct inner *recording; /* NULL: nothing is being recorded */
    int made;                /* events */
    int count;
    bool on;
    bool whole; /* nothing was left out */
};

static struct marks *marks_of(const struct backend *be)
{
    return cuda_state_of(be)->marks;
}

bool marks_open(struct cuda_state *state)
{
    state->marks = (struct marks *)calloc(1, sizeof *state->marks);
    return state->marks != NULL;
}

void marks_close(struct cuda_state *state)
{
    struct marks *m = state->marks;
    for (int i = 0; m != NULL && i < m->made; i++) {
        cudaEventDestroy(m->entry[i].event);
    }
    for (int slot = 0; m != NULL && slot < REPLAY_SLOTS; slot++) {
        for (int i = 0; i < m->inner[slot].made; i++) {
            cudaEventDestroy(m->inner[slot].event[i]);
        }
    }
    free(m);
    state->marks = NULL;
}

/* Telling the time is no reason to fail: what goes wrong here makes it unknown. */
static void lose(struct marks *m)
{
    (void)cudaGetLastError();
    m->whole = false;
}

static void add_entry(struct backend *be, int part, int slot)
{
    struct marks *m = marks_of(be);
    if (!m->on || !m->whole) {
        return;
    }
    if (m->count == ENTRIES_MAX) {
        m->whole = false;
        return;
    }
    struct entry *e = &m->entry[m->count];
    if (m->count == m->made && cudaEventCreateWithFlags(&e->event, 0) != cudaSuccess) {
        lose(m);
        return;
    }
    m->made = m->made > m->count ? m->made : m->count + 1;
    if (cudaEventRecord(e->event, cuda_stream(be)) != cudaSuccess) {
        lose(m);
        return;
    }
    e->part = part;
    e->slot = slot;
    m->count++;
}

static void add_inner(struct backend *be, int part)
{
    struct marks *m = marks_of(be);
    struct inner *in = m->recording;
    if (in->count == INNER_MAX ||
        (in->count == in->made &&
         cudaEventCreateWithFlags(&in->event[in->count], 0) != cudaSuccess)) {
        (void)cudaGetLastError();
        return; /* the rest of the record counts to the part before */
    }
    in->made = in->made > in->count ? in->made : in->count + 1;
    if (cudaEventRecordWithFlags(in->event[in->count], cuda_stream(be), cudaEventRecordExternal) !=
        cudaSuccess) {
        (void)cudaGetLastError();
        return;
    }
    in->part[in->count++] = part;
}

void cuda_time_begin(struct backend *be)
{
    struct marks *m = marks_of(be);
    m->count = 0;
    m->on = true;
    m->whole = true;
}

void cuda_time_part(struct backend *be, int part)
{
    if (marks_of(be)->recording != NULL) {
        add_inner(be, part);
    } else {
        add_entry(be, part, -1);
    }
}

void marks_record(struct backend *be, int slot)
{
    struct marks *m = marks_of(be);
    m->recording = slot >= 0 ? &m->inner[slot] : NULL;
    if (m->recording != NULL) {
        m->recording->count = 0;
    }
}

/* The time up to the first part inside belongs to the part that was going on, what comes after the
 * record to the last one inside. */
void marks_replay(struct backend *be, int slot, bool begin)
{
    const struct marks *m = marks_of(be);
    const struct inner *in = &m->inner[slot];
    int part = m->count > 0 ? m->entry[m->count - 1].part : 0;
    part = !begin && in->count > 0 ? in->part[in->count - 1] : part;
    add_entry(be, part, begin ? slot : -1);
}

/* ---- reading --------------------------------------------------------------------------------- */

static double between(cudaEvent_t from, cudaEvent_t to, bool *good)
{
    float ms = 0.0f;
    *good = cudaEventElapsedTime(&ms, from, to) == cudaSuccess && *good;
    return (double)ms;
}

/* Divides `all` milliseconds that begin at entry `at` as the last replay of its record was. */
static bool divide(const struct marks *m, int at, double all, double ms[BACKEND_PARTS])
{
    const struct entry *e = &m->entry[at];
    const struct inner *in = &m->inner[e->slot];
    int last = at;
    bool good = true;
    for (int i = at; i + 1 < m->count; i++) {
        last = m->entry[i].slot == e->slot ? i : last;
    }
    double whole = between(m->entry[last].event, m->entry[last + 1].event, &good);
    double factor = whole > 0.0 ? all / whole : 0.0;
    int part = e->part;
    cudaEvent_t from = m->entry[last].event;
    for (int i = 0; i <= in->count; i++) {
        cudaEvent_t to = i < in->count ? in->event[i] : m->entry[last + 1].event;
        ms[part] += factor * between(from, to, &good);
        part = i < in->count ? in->part[i] : part;
        from = to;
    }
    return good;
}

bool cuda_time_read(struct backend *be, double ms[BACKEND_PARTS])
{
    struct marks *m = marks_of(be);
    bool good = m->on && m->whole && m->count > 1;
    for (int i = 0; i + 1 < m->count && good; i++) {
        const struct entry *e = &m->entry[i];
        double all = between(e->event, m->entry[i + 1].event, &good);
        if (e->slot >= 0) {
            good = divide(m, i, all, ms) && good;
        } else {
            ms[e->part] += all;
        }
    }
    (void)cudaGetLastError();
    m->on = false;
    return good;
}
