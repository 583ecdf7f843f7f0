/* Gradients in another format on their way: packed in place or widened, what comes back is the sum
 * of what each rank sent, rounded where it says so. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../comm/loopback.h"
#include "engine/method/exchange.h"
#include "kernels/dtype.h"

/* One gradient on all ranks. Nothing is asserted on their threads. */
struct exchange_case {
    int64_t rows;
    int64_t columns;
    enum dtype dtype;
    enum dtype wire;
    bool split;
    float *sum[LOOPBACK_RANKS_MAX]; /* of all elements, as fp32 */
    double payload_bytes;
    bool well[LOOPBACK_RANKS_MAX];
};

/* Element i of a rank's gradient: no two alike, of both signs, with more bits than bf16 has. */
static float element(int rank, int64_t i)
{
    uint32_t bits = (uint32_t)(i * 7 + rank + 1) * 2654435761u;
    float value = (float)(bits >> 8) / 16777216.0f - 0.5f;
    return value * (float)(1 + i % 5);
}

static void *make_values(const struct exchange_case *c, int rank)
{
    int64_t count = c->rows * c->columns;
    char *values = malloc((size_t)count * dtype_size(c->dtype));
    for (int64_t i = 0; i < count; i++) {
        float value = element(rank, i);
        uint16_t half = bf16_from_float(value);
        size_t width = dtype_size(c->dtype);
        memcpy(values + (size_t)i * width,
               c->dtype == DTYPE_F32 ? (const void *)&value : (const void *)&half, width);
    }
    return values;
}

static void keep_values(struct exchange_case *c, int rank, const void *values)
{
    int64_t count = c->rows * c->columns;
    c->sum[rank] = malloc((size_t)count * sizeof(float));
    for (int64_t i = 0; i < count; i++) {
        c->sum[rank][i] = c->dtype == DTYPE_F32 ? ((const float *)values)[i]
                                                : bf16_to_float(((const uint16_t *)values)[i]);
    }
}

static void rank_work(struct comm *comm, void *context)
{
    struct exchange_case *c = context;
    struct error err = { 0 };
    char why[128];
    size_t bytes = (size_t)(c->rows * c->columns) * dtype_size(c->dtype);
    size_t capacity[MEMORY_CATEGORY_COUNT] = { 0 };
    capacity[MEMORY_GRADIENTS] = bytes + MEMORY_ALIGNMENT;
    /* No room for a copy of a large gradient that is packed. */
    capacity[MEMORY_WORKSPACE] = c->wire == DTYPE_BF16 ? 128 << 10 : 24 << 20;
    struct backend *be = backend_open("cpu", 0, why, sizeof why);
    struct memory *memory = memory_open(be, capacity, &err);
    const int64_t dim[2] = { c->rows, c->columns };
    struct tensor gradient = memory_matrix(memory, MEMORY_GRADIENTS, "gradient", c->dtype, dim);
    struct exchange exchange = {
        .be = be, .memory = memory, .comm = comm, .converts = true, .wire = c->wire
    };
    void *values = make_values(c, comm->rank);
    backend_upload(be, gradient.data, values, bytes);
    const struct exchange_rows rows = { .split = c->split };
    exchange_ask(&exchange, &gradient, rows);
    comm_wait(comm, be);
    exchange_take(&exchange, &gradient, rows);
    backend_download(be, values, gradient.data, bytes);
    keep_values(c, comm->rank, values);
    c->well[comm->rank] = !be->failed && comm_check(comm, &err) == 0;
    if (comm->rank == 0) {
        c->payload_bytes = comm->counts.payload_bytes;
    }
    free(values);
    memory_close(memory);
    backend_close(be);
}

/* As the format on the way asks: every term rounded to it, added in fp32 in the order of ranks, the
 * sum rounded to both formats. */
static float expected(const struct exchange_case *c, int ranks, int64_t i)
{
    bool half = c->dtype == DTYPE_BF16 || c->wire == DTYPE_BF16;
    float sum = 0.0f;
    for (int p = 0; p < ranks; p++) {
        float term = element(p, i);
        sum += half ? bf16_to_float(bf16_from_float(term)) : term;
    }
    return half ? bf16_to_float(bf16_from_float(sum)) : sum;
}

static void check_case(struct exchange_case c, int ranks)
{
    loopback_run(&(struct loopback_options){ .ranks = ranks, .silent_rank = -1 }, rank_work, &c);
    int64_t share = (c.rows + ranks - 1) / ranks;
    for (int p = 0; p < ranks; p++) {
        int64_t first = c.split ? p * share : 0;
        int64_t end = c.split && first + share < c.rows ? first + share : c.rows;
        assert_true(c.well[p]);
        for (int64_t i = first * c.columns; i < end * c.columns; i++) {
            float right = ranks > 1 ? expected(&c, ranks, i) : c.sum[p][i];
            if (memcmp(&c.sum[p][i], &right, sizeof right) != 0) {
                fail_msg("%lld x %lld, %d ranks, %s by %s: element %lld of rank %d is %.9g, not "
                         "%.9g",
                         (long long)c.rows, (long long)c.columns, ranks, dtype_name(c.dtype),
                         dtype_name(c.wire), (long long)i, p, (double)c.sum[p][i], (double)right);
            }
        }
        free(c.sum[p]);
    }
    if (ranks > 1) {
        size_t sent = (size_t)(c.rows * c.columns) * dtype_size(c.wire);
        assert_true(c.payload_bytes >= (double)sent);
        /* Pieces of shares are padded to equal ones. */
        assert_true(c.payload_bytes < 1.5 * (double)sent + 4096.0);
    }
}

static void check_shapes(enum dtype dtype, enum dtype wire)
{
    static const int64_t shapes[][2] = { { 1, 1 },     { 5, 3 },     { 7, 16 },    { 33, 1000 },
                                         { 37, 4099 }, { 600, 257 }, { 130, 1031 } };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        for (int ranks = 1; ranks <= 3; ranks++) {
            for (int split = 0; split < 2; split++) {
                if (split && shapes[i][0] < ranks * 2) {
                    continue;
                }
                check_case((struct exchange_case){ .rows = shapes[i][0],
                                                   .columns = shapes[i][1],
                                                   .dtype = dtype,
                                                   .wire = wire,
                                                   .split = split != 0 },
                           ranks);
            }
        }
    }
}

static void test_narrower(void **state)
{
    (void)state;
    check_shapes(DTYPE_F32, DTYPE_BF16);
}

static void test_wider(void **state)
{
    (void)state;
    check_shapes(DTYPE_BF16, DTYPE_F32);
    /* More than one piece, of rows and of elements. */
    check_case(
        (struct exchange_case){
            .rows = 1100, .columns = 4100, .dtype = DTYPE_BF16, .wire = DTYPE_F32 },
        2);
    check_case(
        (struct exchange_case){
            .rows = 1100, .columns = 4100, .dtype = DTYPE_BF16, .wire = DTYPE_F32, .split = true },
        2);
}

/* The gradient's own format changes nothing, and takes no room. */
static void test_the_same(void **state)
{
    (void)state;
    check_shapes(DTYPE_F32, DTYPE_F32);
    check_shapes(DTYPE_BF16, DTYPE_BF16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_narrower),
        cmocka_unit_test(test_wider),
        cmocka_unit_test(test_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
