/*
 * A device against the processor: a product, a norm, attention and an update in both formats, on
 * random tensors small enough for a tenth of a second. It finds a driver, a library or a device
 * that computes something else; tests/gpu/run compares everything.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/xalloc.h"
#include "engine/device.h"
#include "kernels/ops.h"

enum { ROWS = 48, COLUMNS = 64, HEADS = 2, HEAD_SIZE = 32, SEQUENCE = 24, PARTS_MAX = 6 };

/* The same tensors on one device. */
struct side_by_side {
    struct backend *be;
    struct tensor tensor[PARTS_MAX];
    int count;
};

static struct tensor *add(struct side_by_side *s, enum dtype dtype, int64_t rows, int64_t columns)
{
    struct tensor *t = &s->tensor[s->count];
    *t = (struct tensor){
        .dim = { rows, columns, 1, 1 }, .rank = 2, .dtype = dtype, .name = "check"
    };
    t->data = backend_alloc(s->be, tensor_bytes(t));
    if (t->data == NULL) {
        backend_fail(s->be, "out of memory: there is no room for %zu bytes", tensor_bytes(t));
    }
    op_random_normal(s->be, t, 1.0f,
                     (struct random_key){ .purpose = RANDOM_TEST, .tensor = (uint32_t)s->count });
    s->count++;
    return t;
}

static struct tensor *add_vector(struct side_by_side *s, enum dtype dtype, int64_t count)
{
    struct tensor *t = add(s, dtype, count, 1);
    t->rank = 1;
    return t;
}

static void drop(struct side_by_side *s)
{
    for (int i = 0; i < s->count; i++) {
        if (s->tensor[i].data != NULL) {
            backend_free(s->be, s->tensor[i].data, tensor_bytes(&s->tensor[i]));
        }
    }
    s->count = 0;
}

static void check_product(struct side_by_side *s, enum dtype dtype)
{
    struct tensor *c = add(s, dtype, ROWS, ROWS);
    struct tensor *a = add(s, dtype, ROWS, COLUMNS);
    struct tensor *b = add(s, dtype, ROWS, COLUMNS);
    op_matmul(s->be, &(struct matmul){ .c = c, .a = a, .b = b, .transpose_b = true });
}

static void check_norm(struct side_by_side *s, enum dtype dtype)
{
    struct tensor *y = add(s, dtype, ROWS, COLUMNS);
    struct tensor *x = add(s, dtype, ROWS, COLUMNS);
    struct tensor *weight = add_vector(s, dtype, COLUMNS);
    struct tensor *rstd = add_vector(s, DTYPE_F32, ROWS);
    op_rmsnorm_forward(s->be, &(struct rmsnorm_forward){
                                  .y = y, .rstd = rstd, .x = x, .weight = weight, .eps = 1e-5f });
}

static void check_attention(struct side_by_side *s, enum dtype dtype)
{
    int64_t tokens = 2 * SEQUENCE;
    struct tensor *out = add(s, dtype, tokens, HEADS * HEAD_SIZE);
    struct tensor *qkv = add(s, dtype, tokens, 3 * HEADS * HEAD_SIZE);
    struct tensor *lse = add_vector(s, DTYPE_F32, tokens * HEADS);
    op_attention_forward(s->be, &(struct attention_forward){ .out = out,
                                                             .lse = lse,
                                                             .qkv = qkv,
                                                             .shape = { .batch = 2,
                                                                        .sequence = SEQUENCE,
                                                                        .heads = HEADS,
                                                                        .kv_heads = HEADS,
                                                                        .head_size = HEAD_SIZE,
                                                                        .scale = 0.17f } });
}

static void check_update(struct side_by_side *s, enum dtype dtype)
{
    static const float free_step[CONTROL_COUNT] = { [CONTROL_FACTOR] = 1.0f };
    static const int32_t none = 0;
    struct tensor *weight = add(s, dtype, ROWS, COLUMNS);
    struct tensor *m = add(s, DTYPE_F32, ROWS, COLUMNS);
    struct tensor *v = add(s, DTYPE_F32, ROWS, COLUMNS);
    struct tensor *gradient = add(s, dtype, ROWS, COLUMNS);
    struct tensor *age = add_vector(s, DTYPE_F32, 1);
    struct tensor *control = add_vector(s, DTYPE_F32, CONTROL_COUNT);
    age->dtype = DTYPE_I32;
    backend_upload(s->be, age->data, &none, sizeof none);
    backend_upload(s->be, control->data, free_step, sizeof free_step);
    op_zero(s->be, m);
    op_zero(s->be, v);
    op_adamw(s->be, &(struct adamw){ .weight = weight,
                                     .m = m,
                                     .v = v,
                                     .age = age,
                                     .gradient = gradient,
                                     .control = control,
                                     .lr = 0.01f,
                                     .beta1 = 0.9f,
                                     .beta2 = 0.999f,
                                     .eps = 1e-8f,
                                     .scale = 1.0f });
}

/* The first tensor as numbers. */
static float *result_of(struct side_by_side *s)
{
    const struct tensor *t = &s->tensor[0];
    int64_t count = tensor_count(t);
    float *out = xcalloc((size_t)count, sizeof *out);
    void *raw = xmalloc(tensor_bytes(t));
    backend_download(s->be, raw, t->data, tensor_bytes(t));
    for (int64_t i = 0; i < count; i++) {
        out[i] = t->dtype == DTYPE_F32 ? ((const float *)raw)[i]
                                       : bf16_to_float(((const uint16_t *)raw)[i]);
    }
    free(raw);
    return out;
}

/* Largest difference over the largest value. */
static double compare(struct side_by_side *device, struct side_by_side *host)
{
    float *got = result_of(device);
    float *want = result_of(host);
    double most = 0.0;
    double scale = 0.0;
    for (int64_t i = 0; i < tensor_count(&host->tensor[0]); i++) {
        double d = fabs((double)got[i] - (double)want[i]);
        most = d > most || isnan(d) ? d : most;
        scale = fmax(scale, fabs((double)want[i]));
    }
    free(got);
    free(want);
    return scale > 0.0 ? most / scale : most;
}

int device_check(struct backend *be, char *why, size_t why_size)
{
    static const struct {
        const char *name;
        void (*run)(struct side_by_side *s, enum dtype dtype);
    } checks[] = { { "matrix product", check_product },
                   { "norm", check_norm },
                   { "attention", check_attention },
                   { "update", check_update } };
    struct backend *cpu = backend_open("cpu", 0, why, why_size);
    int result = cpu != NULL ? 0 : -1;
    for (size_t i = 0; result == 0 && i < 2 * sizeof checks / sizeof checks[0]; i++) {
        enum dtype dtype = i % 2 == 0 ? DTYPE_F32 : DTYPE_BF16;
        struct side_by_side device = { .be = be };
        struct side_by_side host = { .be = cpu };
        checks[i / 2].run(&device, dtype);
        checks[i / 2].run(&host, dtype);
        double far = be->failed ? 0.0 : compare(&device, &host);
        double most = dtype == DTYPE_F32 ? 1e-4 : 2e-2;
        if (be->failed) {
            snprintf(why, why_size, "%s in %s: %s", checks[i / 2].name, dtype_name(dtype),
                     be->error);
            result = -1;
        } else if (!(far <= most)) {
            snprintf(why, why_size,
                     "its %s in %s is %.2g away from the processor's, at most %.2g is right",
                     checks[i / 2].name, dtype_name(dtype), far, most);
            result = -1;
        }
        drop(&device);
        drop(&host);
    }
    if (cpu != NULL) {
        backend_close(cpu);
    }
    return result;
}
