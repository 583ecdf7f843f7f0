/* The table of methods, and what they share. */
#include "engine/method/method.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/xalloc.h"
#include "engine/method/full.h"
#include "engine/method/galore.h"
#include "engine/method/grass.h"
#include "engine/method/lora.h"

static const struct method_ops *const methods[] = { &full_method, &grass_method, &galore_method,
                                                    &lora_method };

const struct method_ops *method_find(const char *name)
{
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        if (strcmp(methods[i]->name, name) == 0) {
            return methods[i];
        }
    }
    return NULL;
}

bool method_reads(const struct method_ops *ops, const char *key)
{
    bool reads = strncmp(key, "method.", 7) != 0 || strcmp(key, "method.name") == 0;
    if (ops->keys == NULL) {
        return true;
    }
    for (size_t i = 0; !reads && ops->keys[i] != NULL; i++) {
        reads = strcmp(ops->keys[i], key) == 0;
    }
    return reads;
}

const char *method_name(size_t index)
{
    return index < sizeof methods / sizeof methods[0] ? methods[index]->name : NULL;
}

static void shape_text(char *out, size_t size, enum dtype dtype, int rank, const int64_t *dim)
{
    int used = snprintf(out, size, "%s (", dtype_name(dtype));
    for (int d = 0; d < rank && used > 0 && (size_t)used < size; d++) {
        used += snprintf(out + used, size - (size_t)used, d == 0 ? "%lld" : ", %lld",
                         (long long)dim[d]);
    }
    if (used > 0 && (size_t)used < size) {
        snprintf(out + used, size - (size_t)used, ")");
    }
}

int method_restore_rows(struct backend *be, const struct state_source *source,
                        const struct method_rows *rows, struct error *err)
{
    struct state_entry entry;
    const struct tensor *tensor = rows->tensor;
    int64_t dim[TENSOR_RANK_MAX];
    int64_t index = source->find(source->context, rows->name, &entry);
    if (index < 0) {
        return fail(err, ERROR_DATA, "saved state: tensor '%s' is missing", rows->name);
    }
    memcpy(dim, tensor->dim, sizeof dim);
    dim[0] = rows->rows;
    bool same = entry.dtype == tensor->dtype && entry.rank == tensor->rank;
    for (int d = 0; same && d < tensor->rank; d++) {
        same = entry.dim[d] == dim[d];
    }
    if (!same) {
        char found[96];
        char wanted[96];
        shape_text(found, sizeof found, entry.dtype, entry.rank, entry.dim);
        shape_text(wanted, sizeof wanted, tensor->dtype, tensor->rank, dim);
        return fail(err, ERROR_DATA, "saved state: tensor '%s' is %s, the recipe needs %s",
                    rows->name, found, wanted);
    }
    size_t width = dtype_size(tensor->dtype);
    int64_t count = tensor_count(tensor);
    int64_t before = rows->first * (tensor->rank > 1 ? tensor_columns(tensor) : 1);
    int64_t chunk = count < (1 << 18) ? count : 1 << 18;
    void *host = xmalloc((size_t)(chunk > 0 ? chunk : 1) * width);
    for (int64_t first = 0; first < count; first += chunk) {
        int64_t n = count - first < chunk ? count - first : chunk;
        if (source->read(source->context, index, before + first, n, host, err) != 0) {
            free(host);
            return -1;
        }
        backend_upload(be, (char *)tensor->data + (size_t)first * width, host, (size_t)n * width);
    }
    free(host);
    return 0;
}

int method_restore_tensor(struct backend *be, const struct state_source *source, const char *name,
                          struct tensor *tensor, struct error *err)
{
    return method_restore_rows(be, source, &(struct method_rows){ name, tensor, tensor->dim[0], 0 },
                               err);
}
