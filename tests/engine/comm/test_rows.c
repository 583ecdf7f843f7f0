/*
 * Sums of which each rank gets its own rows, rows given back to all, and bytes fetched from one
 * rank: through host memory with one to five ranks, against sums made by hand.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/comm/transport.h"
#include "loopback.h"

/* A case, and what every rank leaves; checked after all have ended. */
struct rows_case {
    int ranks;
    int64_t rows;
    int64_t columns; /* 0: a vector of `rows` elements */
    enum dtype dtype;
    const int64_t *bound;
    bool right[LOOPBACK_RANKS_MAX];
    bool whole[LOOPBACK_RANKS_MAX];
    struct comm_counts scattered[LOOPBACK_RANKS_MAX];
    struct comm_counts counts[LOOPBACK_RANKS_MAX];
};

/* Sums of five of them differ in their bits with the order. */
static float value_of(int rank, int64_t i)
{
    return (0.1f + (float)((i * 7 + rank * 13) % 101)) * (rank % 2 == 0 ? 1.0f : -777.7f);
}

static void put(struct tensor *tensor, int64_t i, float value)
{
    if (tensor->dtype == DTYPE_BF16) {
        ((uint16_t *)tensor->data)[i] = bf16_from_float(value);
    } else {
        ((float *)tensor->data)[i] = value;
    }
}

static float get(const struct tensor *tensor, int64_t i)
{
    return tensor->dtype == DTYPE_BF16 ? bf16_to_float(((const uint16_t *)tensor->data)[i])
                                       : ((const float *)tensor->data)[i];
}

static float expected_sum(const struct rows_case *c, int64_t i)
{
    float sum = 0.0f;
    for (int q = 0; q < c->ranks; q++) {
        float value = value_of(q, i);
        sum += c->dtype == DTYPE_BF16 ? bf16_to_float(bf16_from_float(value)) : value;
    }
    return c->dtype == DTYPE_BF16 ? bf16_to_float(bf16_from_float(sum)) : sum;
}

static void rows_work(struct comm *comm, void *context)
{
    struct rows_case *c = context;
    char why[128];
    struct backend *be = backend_open("cpu", 0, why, sizeof why);
    int64_t count = c->rows * (c->columns > 0 ? c->columns : 1);
    struct tensor tensor = { .dtype = c->dtype,
                             .rank = c->columns > 0 ? 2 : 1,
                             .dim = { c->rows, c->columns > 0 ? c->columns : 1, 1, 1 },
                             .name = "rows" };
    tensor.data = calloc((size_t)count + 1, sizeof(float));
    for (int64_t i = 0; i < count; i++) {
        put(&tensor, i, value_of(comm->rank, i));
    }
    int64_t rows = tensor_rows(&tensor);
    int64_t columns = tensor_columns(&tensor);
    struct comm_share own = comm_share_of(comm, comm->rank, rows);
    int64_t first = c->bound ? c->bound[comm->rank] : own.first;
    int64_t end = c->bound ? c->bound[comm->rank + 1] : own.first + own.count;
    comm_ask_reduce_scatter(comm, be, &tensor, c->bound);
    comm_wait(comm, be);
    c->scattered[comm->rank] = comm->counts;
    bool right = true;
    for (int64_t i = 0; i < count; i++) {
        bool mine = i >= first * columns && i < end * columns;
        right = right && (!mine || get(&tensor, i) == expected_sum(c, i));
        if (!mine) {
            put(&tensor, i, NAN); /* whatever it was */
        }
    }
    comm_ask_all_gather(comm, be, &tensor, c->bound);
    comm_wait(comm, be);
    c->counts[comm->rank] = comm->counts;
    bool whole = !comm->failed;
    for (int64_t i = 0; i < count; i++) {
        whole = whole && get(&tensor, i) == expected_sum(c, i);
    }
    c->right[comm->rank] = right;
    c->whole[comm->rank] = whole;
    free(tensor.data);
    backend_close(be);
}

static void check_rows(struct rows_case c)
{
    loopback_run(&(struct loopback_options){ .ranks = c.ranks, .silent_rank = -1 }, rows_work, &c);
    double bytes = (double)(c.rows * (c.columns > 0 ? c.columns : 1)) *
                   (double)dtype_size(c.dtype) * (c.ranks > 1 ? 1.0 : 0.0);
    double once = bytes * (c.ranks - 1) / c.ranks;
    for (int p = 0; p < c.ranks; p++) {
        assert_true(c.right[p]);
        assert_true(c.whole[p]);
        assert_true(c.scattered[p].payload_bytes == bytes && c.scattered[p].gathered_bytes == 0.0);
        assert_true(fabs(c.scattered[p].wire_bytes - once) < 1e-6);
        assert_int_equal(c.scattered[p].hops, c.ranks - 1);
        assert_true(c.counts[p].payload_bytes == bytes && c.counts[p].gathered_bytes == bytes);
        assert_true(fabs(c.counts[p].wire_bytes - 2.0 * once) < 1e-6);
        assert_int_equal(c.counts[p].hops, 2 * (c.ranks - 1));
    }
}

static void test_shares(void **state)
{
    (void)state;
    const int64_t rows[] = { 1, 2, 4, 7, 12, 120 };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (int ranks = 1; ranks <= 5; ranks++) {
            struct rows_case c = { .ranks = ranks, .rows = rows[i], .columns = 3 };
            c.dtype = DTYPE_F32;
            check_rows(c);
            c.dtype = DTYPE_BF16;
            check_rows(c);
            c.columns = 0;
            check_rows(c);
        }
    }
}

/* More than one round, with a remainder in the last one. */
static void test_rounds(void **state)
{
    (void)state;
    check_rows((struct rows_case){ .ranks = 2, .rows = 601, .columns = 1001, .dtype = DTYPE_F32 });
    check_rows((struct rows_case){ .ranks = 3, .rows = 1999, .columns = 999, .dtype = DTYPE_BF16 });
}

static void test_bounds(void **state)
{
    (void)state;
    const int64_t bounds[][6] = {
        { 0, 0, 0, 11 }, { 0, 11, 11, 11 }, { 0, 3, 4, 11 }, { 0, 0, 2, 2, 11, 11 }
    };
    for (size_t i = 0; i < sizeof bounds / sizeof bounds[0]; i++) {
        struct rows_case c = {
            .ranks = i == 3 ? 5 : 3, .rows = 11, .columns = 5, .bound = bounds[i]
        };
        c.dtype = DTYPE_F32;
        check_rows(c);
        c.dtype = DTYPE_BF16;
        check_rows(c);
    }
    const int64_t far[] = { 0, 600, 601 };
    check_rows((struct rows_case){
        .ranks = 2, .rows = 601, .columns = 501, .dtype = DTYPE_F32, .bound = far });
    /* So uneven that it goes in equal parts, in more than one round. */
    const int64_t farther[] = { 0, 3, 1990, 1999, 2001 };
    check_rows((struct rows_case){
        .ranks = 4, .rows = 2001, .columns = 550, .dtype = DTYPE_F32, .bound = farther });
    check_rows((struct rows_case){
        .ranks = 4, .rows = 2001, .columns = 1101, .dtype = DTYPE_BF16, .bound = farther });
}

/* What ranks send is what is counted, but for rounding; and however uneven the shares are, not more
 * than twice that. */
static void test_carried(void **state)
{
    (void)state;
    const int64_t bounds[][5] = { { 0, 0, 0, 0, 0 }, /* equal shares */
                                  { 0, 30, 60, 90, 120 },
                                  { 0, 60, 80, 100, 120 },
                                  { 0, 61, 80, 100, 120 },
                                  { 0, 0, 0, 0, 120 } };
    for (size_t i = 0; i < sizeof bounds / sizeof bounds[0]; i++) {
        double carried[LOOPBACK_RANKS_MAX] = { 0.0 };
        struct rows_case c = { .ranks = 4,
                               .rows = 120,
                               .columns = 40,
                               .dtype = i % 2 ? DTYPE_BF16 : DTYPE_F32,
                               .bound = i > 0 ? bounds[i] : NULL };
        loopback_run(
            &(struct loopback_options){ .ranks = 4, .silent_rank = -1, .carried = carried },
            rows_work, &c);
        for (int p = 0; p < 4; p++) {
            assert_true(c.whole[p]);
            assert_true(carried[p] >= c.counts[p].wire_bytes);
            assert_true(carried[p] <= (i < 2 ? 1.02 : 2.02) * c.counts[p].wire_bytes);
        }
    }
}

/* Bounds that are not of these rows are an error, not a wild write. */
static void test_wrong_bounds(void **state)
{
    (void)state;
    const int64_t bounds[][4] = { { 0, 2, 3, 5 }, { 1, 2, 3, 4 }, { 0, 3, 2, 4 }, { 0, 5, 5, 4 } };
    for (size_t i = 0; i < sizeof bounds / sizeof bounds[0]; i++) {
        struct comm *comm = comm_open_imaginary(0, 3);
        struct tensor tensor = { .dtype = DTYPE_F32, .rank = 2, .dim = { 4, 2, 1, 1 } };
        struct error err = { 0 };
        comm_ask_reduce_scatter(comm, NULL, &tensor, bounds[i]);
        assert_int_equal(comm_check(comm, &err), -1);
        assert_non_null(strstr(err.message, "bounds that are not those of 4 rows"));
        comm_close(comm);
    }
}

/* ---- bytes ---------------------------------------------------------------------------------- */

enum { FETCHED = TRANSPORT_PART_BYTES + 12345 };

struct fetch_case {
    int owner;
    bool right;
    bool gathered[LOOPBACK_RANKS_MAX];
};

static char byte_of(int rank, size_t i)
{
    return (char)((i * 31 + (size_t)rank * 17) % 251);
}

static void fetch_work(struct comm *comm, void *context)
{
    struct fetch_case *c = context;
    char *mine = malloc(FETCHED);
    for (size_t i = 0; i < FETCHED; i++) {
        mine[i] = byte_of(comm->rank, i);
    }
    bool takes_part = comm->rank == 0 || comm->rank == c->owner;
    comm_fetch_bytes(comm, "rows of a state", c->owner, takes_part ? mine : NULL, FETCHED);
    bool right = true;
    for (size_t i = 0; i < FETCHED; i++) {
        right = right && mine[i] == byte_of(comm->rank == 0 ? c->owner : comm->rank, i);
    }
    comm_barrier(comm, "the end of a fetch");
    if (comm->rank == 0) {
        c->right = right && !comm->failed;
    }
    /* More of each rank than a transport is asked for at a time. */
    char *all = malloc((size_t)comm->ranks * FETCHED);
    for (size_t i = 0; i < FETCHED; i++) {
        mine[i] = byte_of(comm->rank, i);
    }
    comm_all_gather_bytes(comm, "a lot", mine, all, FETCHED);
    bool gathered = true;
    for (int p = 0; p < comm->ranks; p++) {
        for (size_t i = 0; i < FETCHED; i++) {
            gathered = gathered && all[(size_t)p * FETCHED + i] == byte_of(p, i);
        }
    }
    c->gathered[comm->rank] = gathered;
    free(all);
    free(mine);
}

static void test_fetch(void **state)
{
    (void)state;
    for (int ranks = 1; ranks <= 3; ranks++) {
        for (int owner = 0; owner < ranks; owner++) {
            struct fetch_case c = { .owner = owner };
            loopback_run(&(struct loopback_options){ .ranks = ranks, .silent_rank = -1 },
                         fetch_work, &c);
            assert_true(c.right);
            for (int p = 0; p < ranks; p++) {
                assert_true(c.gathered[p]);
            }
        }
    }
}

/* ---- ending at once ------------------------------------------------------------------------- */

struct abort_case {
    char error[LOOPBACK_RANKS_MAX][512];
};

static void abort_work(struct comm *comm, void *context)
{
    struct abort_case *c = context;
    struct error err = { 0 };
    comm_barrier(comm, "the beginning");
    if (comm->rank == 1) {
        comm_abort(comm, "rank %d has had enough", comm->rank);
    }
    comm_barrier(comm, "the middle"); /* without one of them */
    comm_check(comm, &err);
    snprintf(c->error[comm->rank], sizeof c->error[0], "%.500s", err.message);
}

/* The others do not wait for ever. */
static void test_abort(void **state)
{
    (void)state;
    struct abort_case c = { .error = { "" } };
    loopback_run(&(struct loopback_options){ .ranks = 3, .silent_rank = -1, .tells = true },
                 abort_work, &c);
    assert_string_equal(c.error[1], "rank 1 has had enough");
    for (int p = 0; p < 3; p += 2) {
        assert_non_null(strstr(c.error[p], "all-gather of the middle did not come about"));
        assert_non_null(strstr(c.error[p], "a rank has left"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shares),       cmocka_unit_test(test_rounds),
        cmocka_unit_test(test_bounds),       cmocka_unit_test(test_carried),
        cmocka_unit_test(test_wrong_bounds), cmocka_unit_test(test_fetch),
        cmocka_unit_test(test_abort),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
