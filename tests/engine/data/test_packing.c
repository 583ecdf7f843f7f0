/* First fit against its plain definition. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/data/store.h"
#include "kernels/random.h"

enum { SEQUENCE = 50, ITEMS = 700 };

static void make_store(struct store *store)
{
    struct random_key key = { .seed = 3, .purpose = RANDOM_TEST };
    static const int32_t id[SEQUENCE];
    static const uint8_t mask[SEQUENCE];
    struct error err = { 0 };
    *store = (struct store){ 0 };
    for (uint64_t i = 0; i < ITEMS; i++) {
        size_t size = 2 + random_u32(&key, i) % (SEQUENCE - 1);
        assert_int_equal(store_add(store, id, mask, size, &err), 0);
    }
}

static void check_range(const struct store *store, size_t from, size_t to)
{
    struct packing packing;
    struct error err = { 0 };
    assert_int_equal(packing_make(&packing, store, from, to, SEQUENCE, 0, &err), 0);
    size_t used[ITEMS] = { 0 };
    size_t next[ITEMS] = { 0 };
    size_t rows = 0;
    for (size_t i = from; i < to; i++) {
        size_t size = store->end[i] - store_start(store, i);
        size_t row = 0;
        while (used[row] + size > SEQUENCE) {
            row++;
        }
        used[row] += size;
        rows = row + 1 > rows ? row + 1 : rows;
        assert_true(row < packing.rows);
        assert_int_equal(packing.item[packing.first[row] + next[row]], i);
        next[row]++;
    }
    assert_int_equal(packing.rows, rows);
    for (size_t row = 0; row < rows; row++) {
        assert_int_equal(packing.first[row + 1] - packing.first[row], next[row]);
    }
    packing_free(&packing);
}

static void test_first_fit(void **state)
{
    (void)state;
    struct store store;
    make_store(&store);
    check_range(&store, 0, ITEMS);
    check_range(&store, 0, 1);
    check_range(&store, 100, 613);
    check_range(&store, ITEMS - 64, ITEMS);
    check_range(&store, 5, 5);
    store_free(&store);
}

static void test_single(void **state)
{
    (void)state;
    struct store store;
    struct packing packing;
    struct error err = { 0 };
    make_store(&store);
    assert_int_equal(packing_make(&packing, &store, 10, 20, SEQUENCE, 1, &err), 0);
    assert_int_equal(packing.rows, 10);
    for (size_t row = 0; row < 10; row++) {
        assert_int_equal(packing.first[row], row);
        assert_int_equal(packing.item[row], 10 + row);
    }
    assert_int_equal(packing.first[10], 10);
    packing_free(&packing);
    store_free(&store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_fit),
        cmocka_unit_test(test_single),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
