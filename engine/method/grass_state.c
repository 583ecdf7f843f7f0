/*
 * Grass, saving and restoring.
 *
 * Saved for each matrix under "method/<parameter>/": index and age (R) int32 (index local to the
 * matrix, -1 in unused slots), rho (R), the rule's slots, seen (rows) uint8, and of exact rows the
 * residue (R, N) int16; a set without residues is taken too, they begin at zero. Where refreshes
 * are staggered, refreshed (1) int32, the step that chose the rows; a set without it was refreshed
 * all at once, at the latest refresh. States of another
 * rank are taken too: they wait on the host for the refresh that follows.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/xalloc.h"
#include "engine/method/grass_parts.h"

static struct tensor host_vector(void *data, enum dtype dtype, int64_t count)
{
    return (struct tensor){ .data = data, .dim = { count, 1, 1, 1 }, .rank = 1, .dtype = dtype };
}

static void show_seen(const struct state_visitor *visitor, struct grass_part *part)
{
    struct tensor seen = host_vector(part->seen, DTYPE_U8, part->candidates);
    state_show(visitor, "method", part->part->parameter->name, "seen", &seen, true);
}

static void show_refreshed(const struct method *method, const struct state_visitor *visitor,
                           struct grass_part *part)
{
    struct tensor refreshed = host_vector(&part->refreshed, DTYPE_I32, 1);
    if (method->settings.stagger) {
        state_show(visitor, "method", part->part->parameter->name, "refreshed", &refreshed, true);
    }
}

static void show_waiting(const struct state_visitor *visitor, struct grass_part *part)
{
    const char *name = part->part->parameter->name;
    struct grass_waiting *waiting = part->waiting;
    struct tensor index = host_vector(waiting->index, DTYPE_I32, waiting->count);
    struct tensor age = host_vector(waiting->age, DTYPE_I32, waiting->count);
    state_show(visitor, "method", name, "index", &index, true);
    state_show(visitor, "method", name, "age", &age, true);
    for (int s = 0; s < part->slot_count; s++) {
        struct tensor slot = part->slot[s];
        slot.data = waiting->slot[s];
        slot.dim[part->side == SIDE_ROWS ? 0 : 1] = waiting->count;
        state_show(visitor, "method", name, part->slot_name[s], &slot, true);
    }
    if (waiting->residue != NULL) {
        struct tensor residue = part->residue;
        residue.data = waiting->residue;
        residue.dim[part->side == SIDE_ROWS ? 0 : 1] = waiting->count;
        state_show(visitor, "method", name, "residue", &residue, true);
    }
    show_seen(visitor, part);
}

void grass_visit(struct method *method, const struct state_visitor *visitor)
{
    struct grass *grass = method->state;
    for (int64_t i = 0; i < grass->part_count; i++) {
        struct grass_part *part = &grass->part[i];
        const char *name = part->part->parameter->name;
        show_refreshed(method, visitor, part);
        if (part->waiting != NULL) {
            show_waiting(visitor, part);
            continue;
        }
        struct tensor index = host_vector(part->chosen, DTYPE_I32, part->count);
        state_show(visitor, "method", name, "index", &index, true);
        state_show(visitor, "method", name, "age", &part->age, false);
        state_show(visitor, "method", name, "rho", &part->rho, false);
        for (int s = 0; s < part->slot_count; s++) {
            state_show(visitor, "method", name, part->slot_name[s], &part->slot[s], false);
        }
        if (grass_exact(method)) {
            state_show(visitor, "method", name, "residue", &part->residue, false);
        }
        show_seen(visitor, part);
    }
}

void grass_waiting_free(struct grass_waiting *waiting)
{
    if (waiting == NULL) {
        return;
    }
    free(waiting->index);
    free(waiting->age);
    free(waiting->residue);
    for (int s = 0; s < RULE_SLOTS_MAX; s++) {
        free(waiting->slot[s]);
    }
    free(waiting);
}

/* Reads a whole saved tensor to the host after checking its shape. NULL with an error. */
static void *read_host(const struct state_source *source, const char *name,
                       const struct tensor *shape, struct error *err)
{
    struct state_entry entry;
    int64_t index = source->find(source->context, name, &entry);
    if (index < 0) {
        fail(err, ERROR_DATA, "saved state: tensor '%s' is missing", name);
        return NULL;
    }
    bool same = entry.dtype == shape->dtype && entry.rank == shape->rank;
    for (int d = 0; same && d < shape->rank; d++) {
        same = entry.dim[d] == shape->dim[d];
    }
    if (!same) {
        fail(err, ERROR_DATA,
             "saved state: tensor '%s' has another shape or format than the "
             "recipe asks for",
             name);
        return NULL;
    }
    size_t bytes = tensor_bytes(shape);
    void *host = malloc(bytes > 0 ? bytes : 1);
    if (host == NULL) {
        fail(err, ERROR_RUNTIME, "out of memory reading '%s' (%zu bytes)", name, bytes);
        return NULL;
    }
    if (source->read(source->context, index, 0, tensor_count(shape), host, err) != 0) {
        free(host);
        return NULL;
    }
    return host;
}

/* Ascending, distinct, within the matrix, then -1. */
static int check_index(const int32_t *index, int64_t count, int64_t candidates, const char *name,
                       struct error *err)
{
    int64_t used = grass_used(index, count);
    for (int64_t i = 0; i < count; i++) {
        bool good = i < used ? index[i] < candidates && (i == 0 || index[i] > index[i - 1])
                             : index[i] == -1;
        if (!good) {
            return fail(err, ERROR_DATA,
                        "saved state: tensor '%s' holds index %d at position "
                        "%lld, outside a matrix of %lld or out of order",
                        name, (int)index[i], (long long)i, (long long)candidates);
        }
    }
    return 0;
}

static int take_same_rank(struct method *method, struct grass_part *part,
                          const struct state_source *source, struct error *err)
{
    char name[STATE_NAME_SIZE];
    const char *parameter = part->part->parameter->name;
    struct tensor *own[] = { &part->age, &part->rho };
    static const char *const own_name[] = { "age", "rho" };
    for (int i = 0; i < 2 + part->slot_count; i++) {
        snprintf(name, sizeof name, "method/%s/%s", parameter,
                 i < 2 ? own_name[i] : part->slot_name[i - 2]);
        struct tensor *tensor = i < 2 ? own[i] : &part->slot[i - 2];
        if (method_restore_tensor(method->be, source, name, tensor, err) != 0) {
            return -1;
        }
    }
    snprintf(name, sizeof name, "method/%s/residue", parameter);
    struct state_entry unused;
    bool exact = grass_exact(method);
    if (exact && source->find(source->context, name, &unused) < 0) {
        op_zero(method->be, &part->residue);
    } else if (exact && method_restore_tensor(method->be, source, name, &part->residue, err) != 0) {
        return -1;
    }
    grass_upload_index(method, part, part->chosen, &part->index);
    return 0;
}

static int take_other_rank(struct method *method, struct grass_part *part, int32_t *index,
                           int64_t count, const struct state_source *source, struct error *err)
{
    char name[STATE_NAME_SIZE];
    const char *parameter = part->part->parameter->name;
    struct grass_waiting *waiting = xcalloc(1, sizeof *waiting);
    part->waiting = waiting;
    waiting->index = index;
    waiting->count = count;
    struct tensor age = host_vector(NULL, DTYPE_I32, count);
    snprintf(name, sizeof name, "method/%s/age", parameter);
    waiting->age = read_host(source, name, &age, err);
    bool good = waiting->age != NULL;
    for (int s = 0; good && s < part->slot_count; s++) {
        struct tensor slot = part->slot[s];
        slot.dim[part->side == SIDE_ROWS ? 0 : 1] = count;
        snprintf(name, sizeof name, "method/%s/%s", parameter, part->slot_name[s]);
        waiting->slot[s] = read_host(source, name, &slot, err);
        good = waiting->slot[s] != NULL;
    }
    struct state_entry unused;
    snprintf(name, sizeof name, "method/%s/residue", parameter);
    if (good && grass_exact(method) && source->find(source->context, name, &unused) >= 0) {
        struct tensor residue = part->residue;
        residue.dim[part->side == SIDE_ROWS ? 0 : 1] = count;
        waiting->residue = read_host(source, name, &residue, err);
        good = waiting->residue != NULL;
    }
    return good ? 0 : -1;
}

/* Of states whose layers were all refreshed together there is none: the latest refresh counts. */
static int restore_refreshed(const struct method *method, struct grass_part *part,
                             const struct state_source *source, struct error *err)
{
    char name[STATE_NAME_SIZE];
    struct state_entry entry;
    int64_t latest = method->counters.last_refresh;
    part->refreshed = (int32_t)latest;
    snprintf(name, sizeof name, "method/%s/refreshed", part->part->parameter->name);
    int64_t index = method->settings.stagger ? source->find(source->context, name, &entry) : -1;
    if (index < 0) {
        return 0;
    }
    if (entry.dtype != DTYPE_I32 || entry.rank != 1 || entry.dim[0] != 1) {
        return fail(err, ERROR_DATA, "saved state: tensor '%s' is not one number", name);
    }
    if (source->read(source->context, index, 0, 1, &part->refreshed, err) != 0) {
        return -1;
    }
    if (part->refreshed < 0 || part->refreshed > latest) {
        return fail(err, ERROR_DATA,
                    "saved state: tensor '%s' names step %d, outside 0 .. %lld, the latest refresh",
                    name, (int)part->refreshed, (long long)latest);
    }
    return 0;
}

static int restore_part(struct method *method, struct grass_part *part,
                        const struct state_source *source, struct error *err)
{
    char name[STATE_NAME_SIZE];
    struct state_entry entry;
    const char *parameter = part->part->parameter->name;
    if (restore_refreshed(method, part, source, err) != 0) {
        return -1;
    }
    snprintf(name, sizeof name, "method/%s/seen", parameter);
    struct tensor seen = host_vector(NULL, DTYPE_U8, part->candidates);
    uint8_t *flags = read_host(source, name, &seen, err);
    if (flags == NULL) {
        return -1;
    }
    free(part->seen);
    part->seen = flags;
    snprintf(name, sizeof name, "method/%s/index", parameter);
    if (source->find(source->context, name, &entry) < 0) {
        return fail(err, ERROR_DATA, "saved state: tensor '%s' is missing", name);
    }
    if (entry.rank != 1 || entry.dim[0] < 1 || entry.dim[0] > part->candidates) {
        return fail(err, ERROR_DATA, "saved state: tensor '%s' must be a list of 1 to %lld rows",
                    name, (long long)part->candidates);
    }
    struct tensor shape = host_vector(NULL, DTYPE_I32, entry.dim[0]);
    int32_t *index = read_host(source, name, &shape, err);
    if (index == NULL) {
        return -1;
    }
    if (check_index(index, entry.dim[0], part->candidates, name, err) != 0) {
        free(index);
        return -1;
    }
    /* A set saved while states were waiting has no rho: it waits again. */
    char rho[STATE_NAME_SIZE];
    struct state_entry unused;
    snprintf(rho, sizeof rho, "method/%s/rho", parameter);
    bool whole = source->find(source->context, rho, &unused) >= 0;
    if (entry.dim[0] != part->count || !whole) {
        return take_other_rank(method, part, index, entry.dim[0], source, err);
    }
    free(part->chosen);
    part->chosen = index;
    return take_same_rank(method, part, source, err);
}

int grass_restore(struct method *method, const struct state_source *source, struct error *err)
{
    struct grass *grass = method->state;
    for (int64_t i = 0; i < grass->part_count; i++) {
        grass_waiting_free(grass->part[i].waiting);
        grass->part[i].waiting = NULL;
        if (restore_part(method, &grass->part[i], source, err) != 0) {
            return -1;
        }
    }
    return 0;
}
