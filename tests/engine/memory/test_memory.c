/* Regions, records and peaks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
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

/* Tensors that a test keeps account of beside the records. */
enum { ACCOUNT_MAX = 64 };
struct account {
    int live[2][ACCOUNT_MAX]; /* the number in each name; which is also its size in 256 bytes */
    int count[2];
    int peak[2 * ACCOUNT_MAX];
    int peak_count, peak_sum;
};

static void account_peak(struct account *a)
{
    int sum = 0;
    for (int c = 0; c < 2; c++) {
        for (int i = 0; i < a->count[c]; i++) {
            sum += a->live[c][i];
        }
    }
    if (sum > a->peak_sum) {
        a->peak_sum = sum;
        a->peak_count = 0;
        for (int c = 0; c < 2; c++) {
            memcpy(a->peak + a->peak_count, a->live[c], (size_t)a->count[c] * sizeof(int));
            a->peak_count += a->count[c];
        }
    }
}

static int falling(const void *a, const void *b)
{
    return *(const int *)b - *(const int *)a;
}

/* Two regions that grow and shrink at random: what is told of the peak is what was alive then, the
 * names included. Every number is placed once. */
static void test_peak_of_any_course(void **state)
{
    (void)state;
    enum { TURNS = 400, ROOM = 30 };
    static const enum memory_category category[] = { MEMORY_ACTIVATIONS, MEMORY_WORKSPACE };
    struct error err = { 0 };
    struct backend *be = open_backend("null");
    struct memory *memory = memory_open(be, NULL, &err);
    struct memory_position mark[2][ACCOUNT_MAX];
    struct memory_record records[2 * ACCOUNT_MAX];
    struct account a = { 0 };
    uint32_t random = 12345;
    for (int turn = 1; turn <= TURNS; turn++) {
        random = random * 1664525u + 1013904223u;
        int c = (int)(random >> 31);
        int left = (int)(random >> 8) % (a.count[c] + 1);
        if ((random >> 20) % 3 == 0 || a.count[c] == ROOM) {
            memory_release(memory, category[c],
                           left < a.count[c] ? mark[c][left] : memory_mark(memory, category[c]));
            a.count[c] = left;
        } else {
            char name[16];
            int number = 1 + (turn * 277) % 997;
            snprintf(name, sizeof name, "%d", number);
            mark[c][a.count[c]] = memory_mark(memory, category[c]);
            memory_vector(memory, category[c], name, DTYPE_F32, 64 * number);
            a.live[c][a.count[c]++] = number;
        }
        account_peak(&a);
        if (turn == TURNS / 2) {
            memory_reset_peak(memory);
            a.peak_sum = 0;
            account_peak(&a);
        }
    }
    for (int c = 0; c < 2; c++) {
        memory_release(memory, category[c], (struct memory_position){ 0 });
    }
    qsort(a.peak, (size_t)a.peak_count, sizeof(int), falling);
    assert_int_equal(memory_peak_total(memory), (size_t)a.peak_sum * 256);
    assert_int_equal(memory_peak_records(memory, records, 2 * ACCOUNT_MAX), a.peak_count);
    for (int i = 0; i < a.peak_count; i++) {
        assert_int_equal(strtol(records[i].name, NULL, 10), a.peak[i]);
        assert_int_equal(records[i].bytes, (size_t)a.peak[i] * 256);
    }
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
        cmocka_unit_test(test_peak_of_any_course),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
