/*
 * Eigenvectors on the emulated device by a libcusolver for tests (tests/gpu/fake_cusolver.c): the
 * library's solution becomes what the host's would be; where it is absent, old, does not start,
 * wants too much or fails, the host solves and says why; the scratch is what was planned, each way.
 *
 *   eigen whole|old|absent    which library LD_LIBRARY_PATH leads to
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cuda/scratch.h"
#include "kernels/ops.h"
#include "kernels/random.h"

static const int64_t shapes[][2] = { { 1, 1 }, { 2, 1 }, { 7, 7 }, { 24, 5 }, { 33, 32 } };
enum { SHAPE_COUNT = sizeof shapes / sizeof shapes[0] };

/* Scratch of exactly the bytes that were asked for. */
struct room {
    struct backend *be;
    void *data;
    size_t bytes;
};

static void *take(void *context, size_t bytes)
{
    struct room *room = context;
    if (room->data != NULL) {
        backend_free(room->be, room->data, room->bytes);
    }
    room->bytes = bytes;
    room->data = backend_alloc(room->be, bytes);
    return room->data;
}

static struct tensor matrix_of(struct backend *be, int64_t rows, int64_t columns, const char *name)
{
    struct tensor t = {
        .dim = { rows, columns, 1, 1 }, .rank = 2, .dtype = DTYPE_F32, .name = name
    };
    t.data = backend_alloc(be, tensor_bytes(&t));
    assert_non_null(t.data);
    return t;
}

/* The product of a random matrix with itself: (size, size), eigenvalues apart. */
static float *make_matrix(int64_t size)
{
    struct random_key key = { .seed = 5, .purpose = RANDOM_TEST, .tensor = (uint32_t)size };
    int64_t inner = 2 * size;
    float *x = malloc((size_t)(size * inner) * sizeof *x);
    float *square = calloc((size_t)(size * size), sizeof *square);
    assert_non_null(x);
    assert_non_null(square);
    for (int64_t at = 0; at < size * inner; at++) {
        x[at] = random_uniform(&key, (uint64_t)at) - 0.5f;
    }
    for (int64_t i = 0; i < size; i++) {
        for (int64_t j = 0; j <= i; j++) {
            float sum = 0.0f;
            for (int64_t k = 0; k < inner; k++) {
                sum += x[i * inner + k] * x[j * inner + k];
            }
            square[i * size + j] = square[j * size + i] = sum;
        }
    }
    free(x);
    return square;
}

/* The eigenvectors that a backend finds, malloc'd. */
static float *find(struct backend *be, const float *contents, int64_t size, int64_t count)
{
    struct tensor matrix = matrix_of(be, size, size, "matrix");
    struct tensor vectors = matrix_of(be, size, count, "vectors");
    float *found = malloc(tensor_bytes(&vectors));
    assert_non_null(found);
    memset(found, 0xff, tensor_bytes(&vectors));
    backend_upload(be, vectors.data, found, tensor_bytes(&vectors));
    backend_upload(be, matrix.data, contents, tensor_bytes(&matrix));
    op_eigenvectors(be, &vectors, &matrix);
    backend_download(be, found, vectors.data, tensor_bytes(&vectors));
    assert_int_equal(backend_sync(be), 0);
    backend_free(be, matrix.data, tensor_bytes(&matrix));
    backend_free(be, vectors.data, tensor_bytes(&vectors));
    return found;
}

static struct backend *open_named(const char *name)
{
    char why[256] = "";
    struct backend *be = backend_open(name, 0, why, sizeof why);
    if (be == NULL) {
        fail_msg("%s: %s", name, why);
    }
    return be;
}

/* Bytes of scratch that a device takes, as planned. */
static size_t planned(int64_t size, int64_t count)
{
    struct backend *be = open_named("null-cuda");
    struct room room = { .be = be };
    struct tensor matrix = matrix_of(be, size, size, "matrix");
    struct tensor vectors = matrix_of(be, size, count, "vectors");
    backend_set_scratch(be, take, &room);
    op_eigenvectors(be, &vectors, &matrix);
    backend_close(be);
    return room.bytes;
}

static double distance(const float *a, const float *b, int64_t count)
{
    double worst = 0.0;
    for (int64_t i = 0; i < count; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        worst = d <= worst ? worst : isnan(d) ? (double)INFINITY : d;
    }
    return worst;
}

static void check_shape(struct backend *be, struct room *room, int64_t size, int64_t count)
{
    struct backend *cpu = open_named("cpu");
    float *contents = make_matrix(size);
    float *expected = find(cpu, contents, size, count);
    float *found = find(be, contents, size, count);
    assert_true(distance(expected, found, size * count) < 1e-6);
    assert_int_equal(room->bytes, planned(size, count));
    assert_int_equal(room->bytes, scratch_eigenvectors(size, count));
    contents[size * size - 1] = NAN;
    free(found);
    found = find(be, contents, size, count);
    for (int64_t at = 0; at < size * count; at++) {
        assert_true(found[at] == (at / count == at % count ? 1.0f : 0.0f));
    }
    free(contents);
    free(expected);
    free(found);
    backend_close(cpu);
}

/* All shapes with the library told so; `why`: a piece of the reason why the host does it, or NULL.
 */
static void check_told(const char *words, const char *why)
{
    struct backend *be = open_named("cuda");
    struct room room = { .be = be };
    assert_int_equal(setenv("FAKE_CUSOLVER", words, 1), 0);
    backend_set_scratch(be, take, &room);
    for (int i = 0; i < SHAPE_COUNT; i++) {
        check_shape(be, &room, shapes[i][0], shapes[i][1]);
    }
    if (why == NULL) {
        assert_int_equal(be->tally.host_solves, 0);
        assert_string_equal(be->host_solver, "");
    } else {
        /* The library is not asked about matrices that are not finite. */
        assert_true(be->tally.host_solves >= SHAPE_COUNT);
        if (strstr(be->host_solver, why) == NULL) {
            fail_msg("\"%s\" is not in \"%s\"", why, be->host_solver);
        }
    }
    backend_set_scratch(be, NULL, NULL);
    backend_free(be, room.data, room.bytes);
    backend_close(be);
}

static void test_solved(void **state)
{
    (void)state;
    check_told("", NULL);
    check_told("most", NULL);
}

static void test_not_solved(void **state)
{
    (void)state;
    check_told("no-start", "does not start");
    check_told("refuse", "does not take 33 rows");
    check_told("hungry", "wants");
    check_told("fail", "cannot solve 33 rows");
    check_told("unsolved", "info 7");
}

/* One that failed is asked again the next time; what it says last is kept. */
static void test_recovers(void **state)
{
    (void)state;
    struct backend *be = open_named("cuda");
    float *contents = make_matrix(9);
    assert_int_equal(setenv("FAKE_CUSOLVER", "fail", 1), 0);
    free(find(be, contents, 9, 4));
    assert_int_equal(be->tally.host_solves, 1);
    assert_int_equal(setenv("FAKE_CUSOLVER", "", 1), 0);
    free(find(be, contents, 9, 4));
    assert_int_equal(be->tally.host_solves, 1);
    free(contents);
    backend_close(be);
}

static void test_old(void **state)
{
    (void)state;
    check_told("", "has no cusolverDnXsyevd");
}

static void test_absent(void **state)
{
    (void)state;
    check_told("", "cannot be opened");
}

int main(int count, char **words)
{
    const struct CMUnitTest whole[] = {
        cmocka_unit_test(test_solved),
        cmocka_unit_test(test_not_solved),
        cmocka_unit_test(test_recovers),
    };
    const struct CMUnitTest old[] = { cmocka_unit_test(test_old) };
    const struct CMUnitTest absent[] = { cmocka_unit_test(test_absent) };
    const char *kind = count == 2 ? words[1] : "";
    if (!op_eigenvectors_built()) {
        return 77;
    }
    if (strcmp(kind, "whole") == 0) {
        return cmocka_run_group_tests(whole, NULL, NULL);
    }
    return strcmp(kind, "old") == 0 ? cmocka_run_group_tests(old, NULL, NULL)
                                    : cmocka_run_group_tests(absent, NULL, NULL);
}
