/* Checking, counting and timing of one operation. */
#include "kernels/call.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

enum { SHAPE_TEXT = 96, TENSOR_TEXT = 256 };

double call_clock_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static bool dtype_known(const struct tensor *t)
{
    return (unsigned)t->dtype < DTYPE_COUNT;
}

static bool shape_possible(const struct tensor *t)
{
    if (t->rank < 1 || t->rank > TENSOR_RANK_MAX) {
        return false;
    }
    for (int i = 0; i < TENSOR_RANK_MAX; i++) {
        if (t->dim[i] < 0 || (i >= t->rank && t->dim[i] != 1)) {
            return false;
        }
    }
    return true;
}

/* "weight 'blocks.0.norm' (4, 8) bf16". */
static void describe(char text[TENSOR_TEXT], const char *role, const struct tensor *t)
{
    char shape[SHAPE_TEXT] = "";
    size_t used = 0;
    int rank = t->rank < 0 ? 0 : t->rank > TENSOR_RANK_MAX ? TENSOR_RANK_MAX : t->rank;
    for (int i = 0; i < rank; i++) {
        int wrote = snprintf(shape + used, sizeof shape - used, "%s%lld", i > 0 ? ", " : "",
                             (long long)t->dim[i]);
        used += wrote > 0 ? (size_t)wrote : 0;
        used = used < sizeof shape ? used : sizeof shape - 1;
    }
    snprintf(text, TENSOR_TEXT, "%.40s '%.80s' (%s) %s", role,
             t->name != NULL ? t->name : "unnamed", shape,
             dtype_known(t) ? dtype_name(t->dtype) : "of unknown dtype");
}

static const char *dtypes_wanted(unsigned use)
{
    switch (use & (CALL_FLOAT | CALL_INT32 | CALL_INT16 | CALL_UINT8)) {
    case CALL_UINT8:
        return "uint8";
    case CALL_FLOAT | CALL_UINT8:
        return "fp32, bf16 or uint8";
    case CALL_FLOAT | CALL_INT16 | CALL_UINT8:
        return "fp32, bf16, int16 or uint8";
    case CALL_FP32:
        return "fp32";
    case CALL_BF16:
        return "bf16";
    case CALL_INT32:
        return "int32";
    case CALL_INT16:
        return "int16";
    default:
        return "fp32 or bf16";
    }
}

static bool dtype_fits(const struct tensor *t, unsigned use)
{
    return (t->dtype == DTYPE_F32 && (use & CALL_FP32) != 0) ||
           (t->dtype == DTYPE_BF16 && (use & CALL_BF16) != 0) ||
           (t->dtype == DTYPE_I32 && (use & CALL_INT32) != 0) ||
           (t->dtype == DTYPE_I16 && (use & CALL_INT16) != 0) ||
           (t->dtype == DTYPE_U8 && (use & CALL_UINT8) != 0);
}

/* Latches "op: <what t is>, but <what is wanted>[ to go with <the first tensor>]". */
static bool misfit(struct call *c, const char *role, const struct tensor *t, const char *wanted)
{
    char found[TENSOR_TEXT];
    char against[TENSOR_TEXT] = "";
    describe(found, role, t);
    if (c->count > 0) {
        describe(against, c->role[0], c->tensor[0]);
    }
    backend_fail(c->be, "%s: %s does not fit: it must be %s%s%s", c->op, found, wanted,
                 c->count > 0 ? " to go with " : "", against);
    return false;
}

bool call_begin(struct call *c, struct backend *be, const char *op)
{
    *c = (struct call){ .be = be, .op = op };
    return !be->failed;
}

bool call_tensor(struct call *c, const char *role, const struct tensor *t, unsigned use)
{
    if (c->be->failed) {
        return false;
    }
    if (t == NULL) {
        backend_fail(c->be, "%s: there is no %s", c->op, role);
        return false;
    }
    if (!shape_possible(t)) {
        return misfit(c, role, t, "of rank 1 to 4 with dimensions of 0 or more");
    }
    if (!dtype_known(t) || !dtype_fits(t, use)) {
        return misfit(c, role, t, dtypes_wanted(use));
    }
    if (t->data == NULL && tensor_count(t) > 0) {
        return misfit(c, role, t, "placed in memory first");
    }
    if (c->count < CALL_TENSOR_MAX) {
        c->tensor[c->count] = t;
        c->role[c->count] = role;
        c->use[c->count] = use;
        c->count++;
    }
    if ((use & CALL_UNCOUNTED) == 0) {
        int passes = ((use & CALL_IN) != 0 ? 1 : 0) + ((use & CALL_OUT) != 0 ? 1 : 0);
        c->bytes += (double)passes * (double)tensor_bytes(t);
    }
    return true;
}

bool call_elements(struct call *c, const char *role, const struct tensor *t, unsigned use,
                   int64_t count)
{
    if (!c->be->failed && t != NULL && shape_possible(t) && tensor_count(t) != count) {
        char wanted[SHAPE_TEXT];
        snprintf(wanted, sizeof wanted, "%lld elements of %s", (long long)count,
                 dtypes_wanted(use));
        return misfit(c, role, t, wanted);
    }
    return call_tensor(c, role, t, use);
}

bool call_matrix(struct call *c, const char *role, const struct tensor *t, unsigned use,
                 int64_t rows, int64_t columns)
{
    if (!c->be->failed && t != NULL && shape_possible(t) &&
        (tensor_columns(t) != columns || tensor_count(t) != rows * columns)) {
        char wanted[SHAPE_TEXT];
        snprintf(wanted, sizeof wanted, "(%lld, %lld) %s", (long long)rows, (long long)columns,
                 dtypes_wanted(use));
        return misfit(c, role, t, wanted);
    }
    return call_tensor(c, role, t, use);
}

bool call_require(struct call *c, bool good, const char *format, ...)
{
    if (c->be->failed || good) {
        return !c->be->failed;
    }
    char sentence[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    char first[TENSOR_TEXT] = "";
    if (c->count > 0) {
        describe(first, c->role[0], c->tensor[0]);
    }
    backend_fail(c->be, "%s: %s%s%s", c->op, sentence, c->count > 0 ? "; " : "", first);
    return false;
}

static bool overlap(const struct tensor *a, const struct tensor *b)
{
    uintptr_t a_first = (uintptr_t)a->data;
    uintptr_t b_first = (uintptr_t)b->data;
    return tensor_bytes(a) > 0 && tensor_bytes(b) > 0 && a_first < b_first + tensor_bytes(b) &&
           b_first < a_first + tensor_bytes(a);
}

bool call_start(struct call *c)
{
    for (int i = 0; i < c->count && !c->be->failed; i++) {
        for (int j = i + 1; j < c->count && !c->be->failed; j++) {
            const struct tensor *a = c->tensor[i];
            const struct tensor *b = c->tensor[j];
            bool written = ((c->use[i] | c->use[j]) & CALL_OUT) != 0;
            bool same = (c->use[i] & c->use[j] & CALL_ALIAS) != 0 && a->data == b->data &&
                        a->dtype == b->dtype;
            if (written && !same && overlap(a, b)) {
                char wanted[TENSOR_TEXT];
                describe(wanted, c->role[i], a);
                backend_fail(c->be, "%s: %s '%.80s' overlaps %s, and one of them is written", c->op,
                             c->role[j], b->name != NULL ? b->name : "unnamed", wanted);
            }
        }
    }
    if (c->be->failed) {
        return false;
    }
    if (c->be->ops->enter != NULL) {
        c->be->ops->enter(c->be);
    }
    if (c->be->timing) {
        (void)c->be->ops->sync(c->be);
        c->started_s = call_clock_s();
    }
    c->be->call = c;
    return true;
}

void call_describe(const struct backend *be, char text[CALL_TEXT])
{
    const struct call *c = be->call;
    text[0] = '\0';
    for (int i = 0; c != NULL && i < c->count; i++) {
        if ((c->use[i] & CALL_OUT) != 0) {
            char written[TENSOR_TEXT];
            describe(written, c->role[i], c->tensor[i]);
            snprintf(text, CALL_TEXT, "%.40s, writing %s", c->op, written);
            return;
        }
    }
}

void call_finish(struct call *c, enum op_family family, double flops)
{
    c->be->call = NULL;
    struct op_count *count = &c->be->count[family];
    if (c->be->timing) {
        (void)c->be->ops->sync(c->be);
        count->seconds += call_clock_s() - c->started_s;
    }
    count->calls++;
    count->flops += flops;
    count->bytes += c->bytes;
}
