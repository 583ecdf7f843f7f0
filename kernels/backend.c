/* Opening a backend by name, the latched error, transfers and the counters. */
#include "kernels/backend.h"

#include <stdarg.h>
#include <stdio.h>

#include "kernels/backend_ops.h"
#include "kernels/backend_private.h"
#include "kernels/call.h"

struct backend *backend_open(const char *name, int index, char *why, size_t why_size)
{
    static const struct {
        const char *name;
        struct backend *(*open)(int index, char *why, size_t why_size);
    } known[] = {
        { "cpu", backend_cpu_open },
        { "cuda", backend_cuda_open },
        { "null", backend_null_open },
        { "null-cuda", backend_null_cuda_open },
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(known[i].name, name) == 0) {
            return known[i].open(index, why, why_size);
        }
    }
    snprintf(why, why_size, "there is no backend \"%s\"; it can be cpu, cuda or null", name);
    return NULL;
}

void backend_close(struct backend *be)
{
    if (be != NULL) {
        be->ops->close(be);
    }
}

int backend_configure(struct backend *be, const struct backend_options *options, char *why,
                      size_t why_size)
{
    if (be->ops->configure(be, options, why, why_size) != 0) {
        return -1;
    }
    be->options = *options;
    return 0;
}

int backend_sync(struct backend *be)
{
    if (be->failed) {
        return -1;
    }
    int status = be->ops->sync(be);
    return status != 0 || be->failed ? -1 : 0;
}

void backend_fail(struct backend *be, const char *format, ...)
{
    if (be->failed) {
        return;
    }
    be->failed = true;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(be->error, sizeof be->error, format, arguments);
    va_end(arguments);
}

void *backend_alloc(struct backend *be, size_t bytes)
{
    return be->ops->alloc(be, bytes);
}

void backend_free(struct backend *be, void *data, size_t bytes)
{
    if (data != NULL) {
        backend_forget_replays(be);
        be->ops->free(be, data, bytes);
    }
}

void backend_upload(struct backend *be, void *device, const void *host, size_t bytes)
{
    if (!be->failed && bytes > 0) {
        be->ops->upload(be, device, host, bytes);
    }
}

/* After a failure the host still gets defined contents: callers read a loss before they look at
 * the latched error. */
void backend_download(struct backend *be, void *host, const void *device, size_t bytes)
{
    if (bytes == 0) {
        return;
    }
    if (be->failed) {
        memset(host, 0, bytes);
        return;
    }
    be->ops->download(be, host, device, bytes);
}

void backend_clear_counts(struct backend *be)
{
    memset(be->count, 0, sizeof be->count);
}

struct op_count backend_total(const struct backend *be)
{
    struct op_count total = { 0 };
    for (int family = 0; family < OP_FAMILY_COUNT; family++) {
        total.calls += be->count[family].calls;
        total.flops += be->count[family].flops;
        total.bytes += be->count[family].bytes;
        total.seconds += be->count[family].seconds;
    }
    return total;
}

const char *op_family_name(enum op_family family)
{
    static const char *const names[OP_FAMILY_COUNT] = {
        [OP_MATMUL] = "matmul",   [OP_ATTENTION] = "attention",     [OP_NORM] = "norm",
        [OP_ROPE] = "rope",       [OP_ACTIVATION] = "activation",   [OP_EMBEDDING] = "embedding",
        [OP_LOSS] = "loss",       [OP_ELEMENTWISE] = "elementwise", [OP_SELECT] = "select",
        [OP_PROJECT] = "project", [OP_OPTIMIZER] = "optimizer",     [OP_RANDOM] = "random",
    };
    return (unsigned)family < OP_FAMILY_COUNT ? names[family] : "?";
}

/* ---- inputs and answers ---------------------------------------------------------------------- */

void backend_feed(struct backend *be, void *device, const void *host, size_t bytes)
{
    if (be->ops->feed == NULL) {
        backend_upload(be, device, host, bytes);
    } else if (!be->failed && bytes > 0) {
        be->ops->feed(be, device, host, bytes);
    }
}

void backend_join(struct backend *be)
{
    if (!be->failed && be->ops->join != NULL) {
        be->ops->join(be);
    }
}

void backend_fetch(struct backend *be, void *host, const void *device, size_t bytes)
{
    if (be->failed || be->ops->fetch == NULL) {
        backend_download(be, host, device, bytes);
    } else if (bytes > 0) {
        be->ops->fetch(be, host, device, bytes);
    }
}

/* ---- recorded parts -------------------------------------------------------------------------- */

void backend_forget_replays(struct backend *be)
{
    for (int slot = 0; slot < REPLAY_SLOTS; slot++) {
        if (be->record[slot].ready) {
            be->ops->forget(be, slot);
        }
        be->record[slot].ready = false;
        be->record[slot].refused = false;
    }
}

static void count_replay(struct backend *be, const struct backend_record *r)
{
    for (int family = 0; family < OP_FAMILY_COUNT; family++) {
        be->count[family].calls += r->count[family].calls;
        be->count[family].flops += r->count[family].flops;
        be->count[family].bytes += r->count[family].bytes;
    }
}

/* Runs `work` only to record it; its operations are not counted again. */
static void record(struct backend *be, int slot, void (*work)(void *context), void *context)
{
    struct op_count counted[OP_FAMILY_COUNT];
    memcpy(counted, be->count, sizeof counted);
    if (be->record[slot].ready) {
        be->ops->forget(be, slot);
        be->record[slot].ready = false;
    }
    bool good = be->ops->capture_begin(be, slot);
    if (good) {
        work(context);
        good = be->ops->capture_end(be, slot);
    }
    memcpy(be->count, counted, sizeof counted);
    be->record[slot].ready = good && !be->failed;
    be->record[slot].refused = !good;
    be->tally.captures += good ? 1 : 0;
}

void backend_replay(struct backend *be, int slot, uint64_t key, void (*work)(void *context),
                    void *context)
{
    struct backend_record *r = &be->record[slot];
    bool known = (r->ready || r->refused) && r->key == key;
    if (be->failed || be->ops->launch == NULL || be->replays_off || be->timing ||
        (known && r->refused)) {
        work(context);
        return;
    }
    if (known) {
        be->ops->launch(be, slot);
        count_replay(be, r);
        be->tally.replays++;
        return;
    }
    struct op_count before[OP_FAMILY_COUNT];
    memcpy(before, be->count, sizeof before);
    work(context);
    for (int family = 0; family < OP_FAMILY_COUNT; family++) {
        r->count[family] = (struct op_count){
            .calls = be->count[family].calls - before[family].calls,
            .flops = be->count[family].flops - before[family].flops,
            .bytes = be->count[family].bytes - before[family].bytes,
        };
    }
    if (!be->failed) {
        r->key = key;
        record(be, slot, work, context);
    }
}

/* ---- times ----------------------------------------------------------------------------------- */

void backend_time_begin(struct backend *be)
{
    be->times = (struct backend_times){ .on = !be->facts.imaginary, .part = -1 };
    if (be->ops->time_begin != NULL) {
        be->ops->time_begin(be);
    }
}

int backend_time_part(struct backend *be, int part)
{
    struct backend_times *t = &be->times;
    int before = t->part;
    if (be->failed || !t->on || part < 0 || part >= BACKEND_PARTS) {
        return -1;
    }
    t->part = part;
    if (be->ops->time_part != NULL) {
        be->ops->time_part(be, part);
        return before;
    }
    double now = call_clock_s();
    if (before >= 0) {
        t->ms[before] += 1e3 * (now - t->since_s);
    }
    t->since_s = now;
    return before;
}

bool backend_time_read(struct backend *be, double ms[BACKEND_PARTS])
{
    struct backend_times *t = &be->times;
    double found[BACKEND_PARTS] = { 0 };
    bool good = t->on && !be->failed;
    t->on = false;
    if (good && be->ops->time_read != NULL) {
        good = be->ops->time_read(be, found);
    } else if (good) {
        memcpy(found, t->ms, sizeof found);
    }
    if (good) {
        memcpy(ms, found, sizeof found);
    }
    return good;
}

/* ---- memory and choices ---------------------------------------------------------------------- */

void backend_set_scratch(struct backend *be, void *(*take)(void *context, size_t bytes),
                         void *context)
{
    backend_forget_replays(be);
    be->scratch = (struct backend_scratch){ .take = take, .context = context };
    if (be->ops->drop_scratch != NULL) {
        be->ops->drop_scratch(be);
    }
}

int backend_memory(struct backend *be, size_t *free_bytes, size_t *total_bytes)
{
    return be->ops->memory != NULL ? be->ops->memory(be, free_bytes, total_bytes) : -1;
}

/* A context takes 256 MiB to half a gigabyte on the cards of today, and a second opening in one
 * process finds it there already. */
void backend_measure_context(struct backend *be)
{
    const size_t least = (size_t)16 << 20;
    const size_t most = (size_t)2 << 30;
    size_t free_bytes = 0;
    size_t total_bytes = 0;
    size_t before = be->facts.found_free_bytes;
    size_t known = (size_t)be->tally.held_bytes;
    be->facts.context_bytes = 0;
    if (before == 0 || backend_memory(be, &free_bytes, &total_bytes) != 0) {
        return;
    }
    known += free_bytes;
    if (before > known + least && before < known + most) {
        be->facts.context_bytes = before - known;
    }
}

char *backend_tuning_export(struct backend *be)
{
    return be->ops->tuning_export != NULL ? be->ops->tuning_export(be) : NULL;
}

int backend_tuning_import(struct backend *be, const char *text, char *why, size_t why_size)
{
    if (be->ops->tuning_import == NULL) {
        snprintf(why, why_size, "the %s backend takes no tuning", be->ops->name);
        return -1;
    }
    return be->ops->tuning_import(be, text, why, why_size);
}

void backend_tuning_name(struct backend *be, char *name, size_t size)
{
    name[0] = '\0';
    if (be->ops->tuning_name != NULL) {
        be->ops->tuning_name(be, name, size);
    }
}

int backend_device_count(const char *name)
{
    return strcmp(name, "cuda") == 0 ? backend_cuda_count() : strcmp(name, "cpu") == 0 ? 1 : 0;
}

int backend_find(const char *name, int index, char *why, size_t why_size)
{
    char bus_id[BUS_ID_SIZE];
    if (strcmp(name, "cuda") == 0) {
        return backend_cuda_find(index, bus_id, why, why_size);
    }
    if (strcmp(name, "cpu") != 0 || index != 0) {
        snprintf(why, why_size, "there is no %s:%d", name, index);
        return -1;
    }
    return 0;
}

int backend_look(const char *name, int index, size_t *used_bytes, size_t *total_bytes)
{
    char bus_id[BUS_ID_SIZE];
    char why[256];
    if (strcmp(name, "cuda") != 0 || backend_cuda_find(index, bus_id, why, sizeof why) != 0) {
        return -1;
    }
    return backend_bus_memory(bus_id, used_bytes, total_bytes);
}
