/* The order of rows is a permutation, another one each epoch, and nothing but a function. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/data/order.h"

static void assert_permutation(uint64_t seed, int64_t epoch, int64_t count)
{
    unsigned char *seen = calloc((size_t)count, 1);
    assert_non_null(seen);
    for (int64_t i = 0; i < count; i++) {
        int64_t row = order_of(seed, epoch, count, i);
        assert_true(row >= 0 && row < count);
        assert_int_equal(seen[row], 0);
        seen[row] = 1;
    }
    free(seen);
}

static void test_permutations(void **state)
{
    (void)state;
    for (int64_t count = 1; count <= 300; count++) {
        assert_permutation(7, count % 5, count);
    }
    static const int64_t counts[] = { 1023, 1024, 1025, 65536, 65537, 100003 };
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        assert_permutation(0xFFFFFFFFFFFFFFFFu, 3, counts[i]);
    }
}

static void test_epochs_and_seeds_differ(void **state)
{
    (void)state;
    enum { COUNT = 1000 };
    int same_epoch = 0;
    int same_seed = 0;
    int fixed = 0;
    for (int64_t i = 0; i < COUNT; i++) {
        int64_t row = order_of(1, 0, COUNT, i);
        assert_int_equal(row, order_of(1, 0, COUNT, i));
        same_epoch += row == order_of(1, 1, COUNT, i);
        same_seed += row == order_of(2, 0, COUNT, i);
        fixed += row == i;
    }
    /* Each is 1 on average. */
    assert_true(same_epoch < 10 && same_seed < 10 && fixed < 10);
}

/* Over many epochs each row comes first equally often: chi squared with 9 degrees of freedom. */
static void test_even(void **state)
{
    (void)state;
    enum { COUNT = 10, EPOCHS = 20000 };
    int hits[COUNT] = { 0 };
    for (int64_t epoch = 0; epoch < EPOCHS; epoch++) {
        hits[order_of(42, epoch, COUNT, 0)]++;
    }
    double chi = 0.0;
    for (int i = 0; i < COUNT; i++) {
        double difference = hits[i] - (double)EPOCHS / COUNT;
        chi += difference * difference / ((double)EPOCHS / COUNT);
    }
    assert_true(chi < 33.7); /* exceeded once in 10,000 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_permutations),
        cmocka_unit_test(test_epochs_and_seeds_differ),
        cmocka_unit_test(test_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
