/* Opening a backend by name, the latched error, transfers and the counters. */
#include "kernels/backend.h"

#include <stdarg.h>
#include <stdio.h>

#include "kernels/backend_private.h"
#include "kernels/ops.h"

struct backend *backend_open(const char *name, int index, char *why, size_t why_size)
{
    static const struct {
        const char *name;
        struct backend *(*open)(int index, char *why, size_t why_size);
    } known[] = {
        { "cpu", backend_cpu_open },
        { "cuda", backend_cuda_open },
        { "null", backend_null_open },
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
