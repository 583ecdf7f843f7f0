/* Regions, records and peaks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "engine/memory/memory.h"

static struct backend *open_backend(const char *name)
{
    char why[256];
    struct backend *be = backend_open(name, 0, why, sizeof why);
    assert_non_null(be);
    return be;
}

static void test_stack_and_peak(void **state)
{
    (void)state;
    struct error err = { 0 };
    struct backend *be = open_backend("cpu");
    const size_t capacity[MEMORY_CATEGORY_COUNT] = { 1024, 0, 0, 2048, 512 };
    struct memory *memory = memory_open(be, capacity, &err);
    assert_non_null(memory);
    char name[] = "first";
    struct tensor a = memory_vector(memory, MEMORY_ACTIVATIONS, name, DTYPE_F32, 3);
    name[0] = '?';
    assert_string_equal(a.name, "first"); /* copied */
    assert_int_equal((uintptr_t)a.data % MEMORY_ALIGNMENT, 0);
    assert_int_equal(memory_live(memory, MEMORY_ACTIVATIONS), 256);
    memset(a.data, 0xff, 256); /* owned to the byte */
    struct memory_position mark = memory_mark(memory, MEMORY_ACTIVATIONS);
    const int64_t dim[2] = { 16, 28 };
    struct tensor b = memory_matrix(memory, MEMORY_ACTIVATIONS, "second", DTYPE_F32, dim);
    assert_int_equal((char *)b.data - (char *)a.data, 256);
    assert_int_equal(memory_live(memory, MEMORY_ACTIVATIONS), 2048);
    memory_release(memory, MEMORY_ACTIVATIONS, mark);
    assert_int_equal(memory_live(memory, MEMORY_ACTIVATIONS), 256);
    assert_int_equal(memory_peak(memory, MEMORY_ACTIVATIONS), 2048);
    memory_reset_peak(memory);
    assert_int_equal(memory_peak(memory, MEMORY_ACTIVATIONS), 256);
    assert_int_equal(backend_sync(be), 0);
    memory_close(memory);
    backend_close(be);
}

static void test_window_places_over_what_went_elsewhere(void **state)
{
    (void)state;
    struct error err = { 0 };
    struct backend *be = open_backend("cpu");
    const size_t capacity[MEMORY_CATEGORY_COUNT] = { 0, 0, 0, 1024, 0 };
    struct memory *memory = memory_open(be, capacity, &err);
    struct memory_position begin = memory_mark(memory, MEMORY_ACTIVATIONS);
    struct tensor a = memory_vector(memory, MEMORY_ACTIVATIONS, "a", DTYPE_F32, 64);
    struct tensor b = memory_vector(memory, MEMORY_ACTIVATIONS, "b", DTYPE_F32, 64);
    assert_ptr_equal(memory_address(memory, MEMORY_ACTIVATIONS, begin), a.data);
    memory_window_open(memory, MEMORY_ACTIVATIONS, begin);
    struct tensor again = memory_vector(memory, MEMORY_ACTIVATIONS, "again", DTYPE_F32, 64);
    struct memory_position inside = memory_mark(memory, MEMORY_ACTIVATIONS);
    struct tensor next = memory_vector(memory, MEMORY_ACTIVATIONS, "next", DTYPE_F32, 64);
    assert_ptr_equal(again.data, a.data);
    assert_ptr_equal(next.data, b.data);
    assert_int_equal(memory_live(memory, MEMORY_ACTIVATIONS), 512);
    assert_int_equal(memory_peak_total(memory), 512);
    memory_release(memory, MEMORY_ACTIVATIONS, inside);
    assert_int_equal(memory_live(memory, MEMORY_ACTIVATIONS), 512);
    memory_window_close(memory, MEMORY_ACTIVATIONS);
    struct tensor c = memory_vector(memory, MEMORY_ACTIVATIONS, "c", DTYPE_F32, 64);
    assert_int_equal((char *)c.data - (char *)a.data, 512);
    assert_int_equal(memory_peak(memory, MEMORY_ACTIVATIONS), 768);
    assert_int_equal(backend_sync(be), 0);
    /* Not past what was live. */
    memory_window_open(memory, MEMORY_ACTIVATIONS, begin);
    memory_vector(memory, MEMORY_ACTIVATIONS, "too long", DTYPE_F32, 193);
    assert_int_equal(backend_sync(be), -1);
    assert_non_null(strstr(be->error, "too long"));
    memory_window_close(memory, MEMORY_ACTIVATIONS);
    memory_close(memory);
    backend_close(be);
}

static void test_full_region_is_a_sentence(void **state)
{
    (void)state;
    struct error err = { 0 };
    struct backend *be = open_backend("cpu");
    const size_t capacity[MEMORY_CATEGORY_COUNT] = { 256, 256, 256, 256, 256 };
    struct memory *memory = memory_open(be, capacity, &err);
    struct tensor fits = memory_vector(memory, MEMORY_GRADIENTS, "fits", DTYPE_F32, 64);
    assert_non_null(fits.data);
    assert_int_equal(backend_sync(be), 0);
    struct tensor t = memory_vector(memory, MEMORY_GRADIENTS, "one too many", DTYPE_U8, 1);
    assert_null(t.data);
    assert_int_equal(backend_sync(be), -1);
    assert_non_null(strstr(be->error, "one too many"));
    assert_non_null(strstr(be->error, "gradients"));
    memory_close(memory);
    backend_close(be);
}

static void test_resize(void **state)
{
    (void)state;
    struct error err = { 0 };
    struct backend *be = open_backend("cpu");
    const size_t capacity[MEMORY_CATEGORY_COUNT] = { 256, 256, 256, 256, 256 };
    struct memory *memory = memory_open(be, capacity, &err);
    memory_vector(memory, MEMORY_WEIGHTS, "stays", DTYPE_F32, 64);
    memory_vector(memory, MEMORY_OPTIMIZER, "goes", DTYPE_F32, 64);
    assert_int_equal(memory_resize(memory, MEMORY_OPTIMIZER, 4096, &err), 0);
    assert_int_equal(memory_live(memory, MEMORY_OPTIMIZER), 0);
    assert_int_equal(memory_peak(memory, MEMORY_OPTIMIZER), 0);
    assert_int_equal(memory_live(memory, MEMORY_WEIGHTS), 256);
    struct tensor t = memory_vector(memory, MEMORY_OPTIMIZER, "larger", DTYPE_F32, 1024);
    memset(t.data, 1, 4096);
    assert_int_equal(backend_sync(be), 0);
    memory_close(memory);
    backend_close(be);
}

/* On the null backend any size can be placed, and the peak's records are remembered. */
static void test_null_remembers_the_peak(void **state)
{
    (void)state;
    struct error err = { 0 };
    struct memory_record records[4];
    struct backend *be = open_backend("null");
    struct memory *memory = memory_open(be, NULL, &err);
    assert_non_null(memory);
    const int64_t large[2] = { 1 << 20, 1 << 14 };
    memory_matrix(memory, MEMORY_WEIGHTS, "weight", DTYPE_BF16, large); /* 32 GiB */
    struct memory_position mark = memory_mark(memory, MEMORY_WORKSPACE);
    memory_vector(memory, MEMORY_WORKSPACE, "small", DTYPE_F32, 10);
    memory_release(memory, MEMORY_WORKSPACE, mark);
    memory_vector(memory, MEMORY_WORKSPACE, "peak", DTYPE_F32, 1000);
    memory_release(memory, MEMORY_WORKSPACE, mark);
    memory_vector(memory, MEMORY_WORKSPACE, "later", DTYPE_F32, 20);
    size_t count = memory_peak_records(memory, records, 4);
    assert_int_equal(count, 2);
    assert_string_equal(records[0].name, "weight");
    assert_string_equal(records[1].name, "peak");
    assert_int_equal(records[0].bytes, (size_t)1 << 35);
    assert_int_equal(memory_peak_total(memory), ((size_t)1 << 35) + 4096);
    assert_int_equal(backend_sync(be), 0);
    memory_close(memory);
    backend_close(be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stack_and_peak),
        cmocka_unit_test(test_window_places_over_what_went_elsewhere),
        cmocka_unit_test(test_full_region_is_a_sentence),
        cmocka_unit_test(test_resize),
        cmocka_unit_test(test_null_remembers_the_peak),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
