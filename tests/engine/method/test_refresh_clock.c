/* The clock of refreshes: together as Grass has it, or spread evenly over the interval. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/method/refresh_clock.h"

enum { UNITS_MAX = 64 };

static void test_together(void **state)
{
    (void)state;
    assert_true(refresh_due(1, 0, 200, false, 3, 8));
    assert_true(refresh_due(77, -1, 200, false, 3, 8));
    for (int64_t step = 2; step < 500; step++) {
        assert_int_equal(refresh_due(step, 1, 100, false, step % 8, 8), step >= 101);
    }
}

/* Runs `steps` steps; fails unless every unit comes once in every interval and no step has more
 * than its share. */
static void run_staggered(int64_t interval, int64_t units, int64_t steps)
{
    int64_t last[UNITS_MAX] = { 0 };
    int64_t since[UNITS_MAX] = { 0 };
    int64_t most = (units + interval - 1) / interval;
    for (int64_t step = 1; step <= steps; step++) {
        int64_t count = 0;
        for (int64_t u = 0; u < units; u++) {
            since[u]++;
            if (!refresh_due(step, last[u], interval, true, u, units)) {
                continue;
            }
            assert_true(step == 1 || since[u] <= interval);
            assert_true(step <= interval + 1 || since[u] == interval);
            last[u] = step;
            since[u] = 0;
            count++;
        }
        assert_true(step == 1 ? count == units : count <= most);
        for (int64_t u = 0; u < units; u++) {
            assert_true(since[u] < interval);
        }
    }
}

static void test_staggered(void **state)
{
    (void)state;
    run_staggered(200, 28, 900);
    run_staggered(10, 28, 100);
    run_staggered(7, 3, 60);
    run_staggered(1, 5, 10);
    run_staggered(5, 1, 30);
    run_staggered(3, 64, 30);
}

/* A step that was skipped is made up for once, and the clock goes on as before. */
static void test_missed(void **state)
{
    (void)state;
    /* Unit 1 of 2 at interval 10: steps 1, 6, 16, 26 ... */
    assert_false(refresh_due(5, 1, 10, true, 1, 2));
    assert_true(refresh_due(6, 1, 10, true, 1, 2));
    assert_true(refresh_due(8, 1, 10, true, 1, 2));
    assert_false(refresh_due(15, 8, 10, true, 1, 2));
    assert_true(refresh_due(16, 8, 10, true, 1, 2));
}

/* Another interval holds at once: nobody waits longer than the new one. */
static void test_interval_changes(void **state)
{
    (void)state;
    for (int64_t u = 0; u < 8; u++) {
        int64_t last = 100 + u;
        int64_t waited = 0;
        while (!refresh_due(300 + waited, last, 20, true, u, 8)) {
            waited++;
        }
        assert_true(waited < 20);
        for (int64_t step = last + 1; step < last + 30; step++) {
            assert_true(!refresh_due(step, last, 1000000, true, 0, 8));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_together),
        cmocka_unit_test(test_staggered),
        cmocka_unit_test(test_missed),
        cmocka_unit_test(test_interval_changes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
