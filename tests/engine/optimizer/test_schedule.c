/* Learning rates against their closed forms, and what every shape promises at its ends. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/optimizer/schedule.h"

static const double LR = 0.02;

static struct schedule make(enum schedule_shape shape)
{
    return (struct schedule){ .shape = shape, .lr = LR, .warmup = 10, .steps = 110, .floor = 0.1 };
}

static void near(double got, double want)
{
    assert_true(fabs(got - want) < 1e-12);
}

static void test_warmup(void **state)
{
    (void)state;
    for (int shape = SCHEDULE_SHAPE_CONSTANT; shape <= SCHEDULE_SHAPE_WSD; shape++) {
        struct schedule s = make((enum schedule_shape)shape);
        for (int k = 1; k <= 10; k++) {
            near(schedule_rate(&s, k), LR * k / 10.0);
        }
        s.warmup = 0;
        assert_true(schedule_rate(&s, 1) <= LR && schedule_rate(&s, 1) > 0.97 * LR);
    }
}

static void test_shapes(void **state)
{
    (void)state;
    struct schedule s = make(SCHEDULE_SHAPE_CONSTANT);
    near(schedule_rate(&s, 60), LR);
    near(schedule_rate(&s, 500), LR);
    s = make(SCHEDULE_SHAPE_LINEAR);
    near(schedule_rate(&s, 60), LR * 0.55);
    near(schedule_rate(&s, 110), LR * 0.1);
    s = make(SCHEDULE_SHAPE_COSINE);
    near(schedule_rate(&s, 60), LR * (0.1 + 0.9 * 0.5));
    near(schedule_rate(&s, 35), LR * (0.1 + 0.9 * 0.5 * (1.0 + sqrt(0.5))));
    near(schedule_rate(&s, 110), LR * 0.1);
    s = make(SCHEDULE_SHAPE_WSD);
    near(schedule_rate(&s, 90), LR);
    near(schedule_rate(&s, 100), LR * 0.55);
    near(schedule_rate(&s, 110), LR * 0.1);
}

/* Beyond the planned end the rate stays where it ended; no length at all does not divide by it. */
static void test_ends(void **state)
{
    (void)state;
    for (int shape = SCHEDULE_SHAPE_LINEAR; shape <= SCHEDULE_SHAPE_WSD; shape++) {
        struct schedule s = make((enum schedule_shape)shape);
        near(schedule_rate(&s, 100000), LR * 0.1);
        double last = LR;
        for (int k = 11; k <= 120; k++) {
            double rate = schedule_rate(&s, k);
            assert_true(rate <= last + 1e-15);
            last = rate;
        }
        s.steps = s.warmup;
        assert_true(isfinite(schedule_rate(&s, s.warmup + 1)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_warmup),
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
