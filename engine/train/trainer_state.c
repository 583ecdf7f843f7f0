/* The list of everything that survives: for checkpoints, for laying memory out anew, for checks. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/xalloc.h"
#include "engine/train/trainer_parts.h"

static void add_item(void *context, const struct state_item *item)
{
    struct trainer *trainer = context;
    if (trainer->item_count == trainer->item_capacity) {
        trainer->item_capacity = trainer->item_capacity == 0 ? 64 : 2 * trainer->item_capacity;
        trainer->item =
            xrealloc(trainer->item, (size_t)trainer->item_capacity * sizeof *trainer->item);
    }
    trainer->item[trainer->item_count++] = *item;
}

int64_t trainer_state_count(struct trainer *trainer)
{
    struct state_visitor visitor = { .visit = add_item, .context = trainer };
    trainer->item_count = 0;
    for (int64_t i = 0; i < trainer->model.parameter_count; i++) {
        struct parameter *p = &trainer->model.parameter[i];
        struct state_item item = { .tensor = p->value };
        item.tensor.rank = p->rank;
        item.tensor.dim[0] = p->dim[0];
        item.tensor.dim[1] = p->dim[1];
        snprintf(item.name, sizeof item.name, "%s", p->name);
        add_item(trainer, &item);
    }
    trainer->item_weights = trainer->item_count;
    if (!trainer->inference) {
        dense_visit(&trainer->dense, &visitor);
        trainer->method.ops->visit(&trainer->method, &visitor);
    }
    return trainer->item_count;
}

void trainer_state_entry(struct trainer *trainer, int64_t index, struct state_entry *entry)
{
    *entry = state_entry_of(&trainer->item[index]);
    entry->weight = index < trainer->item_weights;
}

int trainer_read_here(struct trainer *trainer, const struct state_item *item, int64_t first,
                      int64_t count, void *out, struct error *err)
{
    if (count == 0) {
        return 0;
    }
    size_t width = dtype_size(item->tensor.dtype);
    const char *from = (const char *)item->tensor.data + (size_t)first * width;
    if (item->on_host) {
        memcpy(out, from, (size_t)count * width);
        return 0;
    }
    backend_download(trainer->be, out, from, (size_t)count * width);
    return backend_sync(trainer->be) == 0 ? 0 : trainer_device_error(trainer, err);
}

int trainer_state_read(struct trainer *trainer, int64_t index, int64_t first, int64_t count,
                       void *out, struct error *err)
{
    const struct state_item *item = &trainer->item[index];
    if (item->split.share > 0 && !trainer->be->facts.imaginary) {
        return trainer_read_split(trainer, index, first, count, out, err);
    }
    return trainer_read_here(trainer, item, first, count, out, err);
}

void trainer_counters(const struct trainer *trainer, struct trainer_counters *counters)
{
    counters->last_refresh = trainer->method.counters.last_refresh;
    counters->refresh_count = trainer->method.counters.refresh_count;
}

int trainer_restore(struct trainer *trainer, const struct state_source *source,
                    const struct trainer_counters *counters, struct error *err)
{
    for (int64_t i = 0; i < trainer->model.parameter_count; i++) {
        struct parameter *p = &trainer->model.parameter[i];
        struct tensor value = p->value;
        value.rank = p->rank;
        value.dim[0] = p->dim[0];
        value.dim[1] = p->dim[1];
        if (method_restore_tensor(trainer->be, source, p->name, &value, err) != 0) {
            return -1;
        }
    }
    trainer->method.counters.last_refresh = counters->last_refresh;
    trainer->method.counters.refresh_count = counters->refresh_count;
    if (dense_restore(&trainer->dense, source, err) != 0 ||
        trainer->method.ops->restore(&trainer->method, source, err) != 0) {
        return -1;
    }
    return backend_sync(trainer->be) == 0 ? 0 : trainer_device_error(trainer, err);
}

/* ---- finiteness ---------------------------------------------------------------------------------
 */

static bool chunk_finite(const void *values, int64_t count, enum dtype dtype)
{
    for (int64_t i = 0; i < count; i++) {
        uint32_t exponent = dtype == DTYPE_F32
                                ? float_bits(((const float *)values)[i]) & 0x7f800000u
                                : (uint32_t)((const uint16_t *)values)[i] << 16 & 0x7f800000u;
        if (exponent == 0x7f800000u) {
            return false;
        }
    }
    return true;
}

int64_t trainer_first_bad(struct trainer *trainer)
{
    enum { CHUNK = 1 << 18 };
    struct error unused;
    void *host = xmalloc(CHUNK * sizeof(float));
    int64_t bad = -1;
    for (int64_t i = 0; bad < 0 && i < trainer->item_count; i++) {
        bool finite = true;
        const struct tensor *t = &trainer->item[i].tensor;
        if (t->dtype != DTYPE_F32 && t->dtype != DTYPE_BF16) {
            continue;
        }
        int64_t count = tensor_count(t);
        for (int64_t first = 0; finite && first < count; first += CHUNK) {
            int64_t n = count - first < CHUNK ? count - first : CHUNK;
            finite = trainer_read_here(trainer, &trainer->item[i], first, n, host, &unused) == 0 &&
                     chunk_finite(host, n, t->dtype);
        }
        bad = finite ? bad : i;
    }
    free(host);
    return bad;
}

/* ---- snapshots ----------------------------------------------------------------------------------
 */

/* Of states that are split the rows that are here: where they were they will be again. */
struct state_snapshot {
    struct state_item *item; /* their tensors point into `data` */
    int64_t count;
    char *data;
};

static size_t rounded(size_t bytes)
{
    return (bytes + 15) & ~(size_t)15;
}

struct state_snapshot *trainer_snapshot(struct trainer *trainer, struct error *err)
{
    int64_t all = trainer_state_count(trainer);
    struct state_snapshot *snapshot = xcalloc(1, sizeof *snapshot);
    snapshot->count = all - trainer->item_weights;
    size_t total = 0;
    for (int64_t i = trainer->item_weights; i < all; i++) {
        total += rounded(tensor_bytes(&trainer->item[i].tensor));
    }
    snapshot->item = xcalloc((size_t)snapshot->count + 1, sizeof *snapshot->item);
    snapshot->data = malloc(total + 1);
    if (snapshot->data == NULL) {
        trainer_snapshot_free(snapshot);
        fail(err, ERROR_RUNTIME, "out of memory: %zu bytes for a copy of the optimizer states",
             total);
        return NULL;
    }
    size_t used = 0;
    for (int64_t i = 0; i < snapshot->count; i++) {
        int64_t from = trainer->item_weights + i;
        struct state_item *item = &snapshot->item[i];
        *item = trainer->item[from];
        item->tensor.data = snapshot->data + used;
        used += rounded(tensor_bytes(&item->tensor));
        if (trainer_read_here(trainer, &trainer->item[from], 0, tensor_count(&item->tensor),
                              item->tensor.data, err) != 0) {
            trainer_snapshot_free(snapshot);
            return NULL;
        }
    }
    return snapshot;
}

static int64_t snapshot_find(void *context, const char *name, struct state_entry *entry)
{
    const struct state_snapshot *snapshot = context;
    for (int64_t i = 0; i < snapshot->count; i++) {
        const struct state_item *item = &snapshot->item[i];
        if (strcmp(item->name, name) == 0) {
            *entry = state_entry_of(item);
            return i;
        }
    }
    return -1;
}

static int snapshot_read(void *context, int64_t index, int64_t first, int64_t count, void *out,
                         struct error *err)
{
    (void)err;
    const struct state_snapshot *snapshot = context;
    const struct state_item *item = &snapshot->item[index];
    const struct tensor *t = &item->tensor;
    size_t width = dtype_size(t->dtype);
    int64_t at = first - item->split.first * state_row_count(item);
    memcpy(out, (const char *)t->data + (size_t)at * width, (size_t)count * width);
    return 0;
}

struct state_source trainer_snapshot_source(struct state_snapshot *snapshot)
{
    return (
        struct state_source){ .find = snapshot_find, .read = snapshot_read, .context = snapshot };
}

void trainer_snapshot_free(struct state_snapshot *snapshot)
{
    if (snapshot != NULL) {
        free(snapshot->item);
        free(snapshot->data);
        free(snapshot);
    }
}
