/*
 * One call of an operation: checks its tensors, counts it, times it.
 *
 *     struct call c;
 *     if (!call_begin(&c, be, "add") || !call_tensor(&c, "x", x, CALL_IN | CALL_FLOAT)) {
 *         return;
 *     }
 *     call_elements(&c, "y", y, CALL_INOUT | CALL_FLOAT, tensor_count(x));
 *     if (call_start(&c)) {
 *         be->ops->add(be, y, x);
 *         call_finish(&c, OP_ELEMENTWISE, flops);
 *     }
 *
 * The first tensor given is what the others have to fit: messages show its shape too. Everything
 * that does not fit is latched in the backend; after that each of these functions does nothing and
 * says false.
 */
#ifndef WINDROW_KERNELS_CALL_H
#define WINDROW_KERNELS_CALL_H

#include "kernels/backend_ops.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { CALL_TENSOR_MAX = 12 };

/* How an operation uses a tensor. */
enum {
    CALL_IN = 1,
    CALL_OUT = 2,
    CALL_INOUT = CALL_IN | CALL_OUT,
    CALL_FP32 = 4,
    CALL_BF16 = 8,
    CALL_FLOAT = CALL_FP32 | CALL_BF16,
    CALL_INT32 = 16,
    CALL_ALIAS = 32, /* may be the very same tensor as another one that carries this flag */
    CALL_INT16 = 128,
    CALL_UINT8 = 256,
    CALL_UNCOUNTED = 64, /* only part of it is touched: the operation adds to `bytes` itself */
};

struct call {
    struct backend *be;
    const char *op;
    int count;
    const struct tensor *tensor[CALL_TENSOR_MAX];
    const char *role[CALL_TENSOR_MAX];
    unsigned use[CALL_TENSOR_MAX];
    double bytes;
    double started_s;
};

/* False if an error is latched already. */
bool call_begin(struct call *c, struct backend *be, const char *op);

/* A tensor of any shape: it must exist, have a possible rank and shape, and one of the dtypes. */
bool call_tensor(struct call *c, const char *role, const struct tensor *t, unsigned use);
/* ... of exactly `count` elements. */
bool call_elements(struct call *c, const char *role, const struct tensor *t, unsigned use,
                   int64_t count);
/* ... that is (rows, columns) when seen as a matrix. */
bool call_matrix(struct call *c, const char *role, const struct tensor *t, unsigned use,
                 int64_t rows, int64_t columns);

/* Latches "op: sentence" unless `good`. */
bool call_require(struct call *c, bool good, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Checks that no output overlaps another tensor, and starts the clock if the backend is timing.
 * True if the operation may run. */
bool call_start(struct call *c);

/* Names the operation under way and the first tensor that it writes: "norm, writing y 'name' (4, 8)
 * bf16"; empty if there is none. */
enum { CALL_TEXT = 320 };
void call_describe(const struct backend *be, char text[CALL_TEXT]);

/* Seconds of the host's clock, from some moment on. */
double call_clock_s(void);

void call_finish(struct call *c, enum op_family family, double flops);

#ifdef __cplusplus
}
#endif

#endif
