/*
 * GaLore, saving and restoring.
 *
 * Saved for each matrix under "method/<parameter>/": basis (smaller side, r), the rule's slots
 * (larger side, r), age (1) int32, and refreshed (1) int32, the step that chose the basis. States
 * of another rank are taken too: their first columns stay, further ones begin at zero (those of the
 * basis are found by the refresh that follows at the next step).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/xalloc.h"
#include "engine/method/galore_parts.h"

static struct tensor host_number(int32_t *number)
{
    return (struct tensor){ .data = number, .dim = { 1, 1, 1, 1 }, .rank = 1, .dtype = DTYPE_I32 };
}

void galore_visit(struct method *method, const struct state_visitor *visitor)
{
    struct galore *galore = method->state;
    for (int64_t i = 0; i < galore->part_count; i++) {
        struct galore_part *part = &galore->part[i];
        const char *name = part->part->parameter->name;
        struct tensor refreshed = host_number(&part->refreshed);
        state_show(visitor, "method", name, "basis", &part->basis, false);
        for (int s = 0; s < part->state.slot_count; s++) {
            state_show(visitor, "method", name, part->state.slot_name[s], &part->state.slot[s],
                       false);
        }
        state_show(visitor, "method", name, "age", &part->state.age, false);
        state_show(visitor, "method", name, "refreshed", &refreshed, true);
    }
}

static void state_name(char name[STATE_NAME_SIZE], const struct galore_part *part, const char *what)
{
    snprintf(name, STATE_NAME_SIZE, "method/%.96s/%s", part->part->parameter->name, what);
}

/* Takes the first columns of a saved (rows, other) matrix; further ones are zero. */
static int take_columns(struct method *method, const struct galore_part *part,
                        const struct state_source *source, const char *what, struct tensor *tensor,
                        struct error *err)
{
    char name[STATE_NAME_SIZE];
    struct state_entry entry;
    state_name(name, part, what);
    int64_t index = source->find(source->context, name, &entry);
    int64_t rows = tensor_rows(tensor);
    int64_t columns = tensor_columns(tensor);
    if (index < 0) {
        return fail(err, ERROR_DATA, "saved state: tensor '%s' is missing", name);
    }
    if (entry.dtype != tensor->dtype || entry.rank != 2 || entry.dim[0] != rows ||
        entry.dim[1] < 1 || entry.dim[1] > part->small) {
        return fail(err, ERROR_DATA,
                    "saved state: tensor '%s' must be %s of %lld rows and 1 to %lld columns", name,
                    dtype_name(tensor->dtype), (long long)rows, (long long)part->small);
    }
    size_t width = dtype_size(tensor->dtype);
    size_t line = (size_t)entry.dim[1] * width;
    size_t kept = (size_t)(entry.dim[1] < columns ? entry.dim[1] : columns) * width;
    char *saved = xmalloc(line);
    char *whole = xcalloc((size_t)(rows * columns), width);
    int rc = 0;
    for (int64_t i = 0; i < rows && rc == 0; i++) {
        rc = source->read(source->context, index, i * entry.dim[1], entry.dim[1], saved, err);
        memcpy(whole + (size_t)(i * columns) * width, saved, kept);
    }
    backend_upload(method->be, tensor->data, whole, tensor_bytes(tensor));
    free(whole);
    free(saved);
    return rc;
}

static int restore_refreshed(struct galore_part *part, const struct state_source *source,
                             struct error *err)
{
    char name[STATE_NAME_SIZE];
    struct state_entry entry;
    state_name(name, part, "refreshed");
    int64_t index = source->find(source->context, name, &entry);
    if (index < 0 || entry.dtype != DTYPE_I32 || entry.rank != 1 || entry.dim[0] != 1) {
        return fail(err, ERROR_DATA, "saved state: tensor '%s' is missing, or not one number",
                    name);
    }
    return source->read(source->context, index, 0, 1, &part->refreshed, err);
}

static int restore_part(struct method *method, struct galore_part *part,
                        const struct state_source *source, struct error *err)
{
    char name[STATE_NAME_SIZE];
    struct state_entry entry;
    if (restore_refreshed(part, source, err) != 0 ||
        take_columns(method, part, source, "basis", &part->basis, err) != 0) {
        return -1;
    }
    for (int s = 0; s < part->state.slot_count; s++) {
        if (take_columns(method, part, source, part->state.slot_name[s], &part->state.slot[s],
                         err) != 0) {
            return -1;
        }
    }
    state_name(name, part, "age");
    if (method_restore_tensor(method->be, source, name, &part->state.age, err) != 0) {
        return -1;
    }
    state_name(name, part, "basis");
    source->find(source->context, name, &entry);
    if (entry.dim[1] != part->rank && part->refreshed != GALORE_NEVER) {
        part->refreshed = GALORE_OTHER_RANK;
    }
    return 0;
}

int galore_restore(struct method *method, const struct state_source *source, struct error *err)
{
    struct galore *galore = method->state;
    for (int64_t i = 0; i < galore->part_count; i++) {
        if (restore_part(method, &galore->part[i], source, err) != 0) {
            return -1;
        }
    }
    return 0;
}
