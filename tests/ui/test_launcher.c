/* The launcher's plans: a refused one belongs to its choice, and one that was under way while a
 * setting changed is thrown away. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "app/planner.h"
#include "recording.h"

static int asked(struct workbench *workbench, enum effect_kind kind, int choice[LAUNCHER_LISTS])
{
    struct effect effect;
    int count = 0;
    while (workbench_effect(workbench, &effect)) {
        if (effect.kind == kind) {
            memcpy(choice, effect.choice, sizeof(effect.choice));
            count++;
        }
    }
    return count;
}

static void plan_comes(struct workbench *workbench, const int choice[LAUNCHER_LISTS], int64_t bytes)
{
    struct launcher_plan plan = { .ok = true, .total_bytes = bytes };
    memcpy(plan.choice, choice, sizeof(plan.choice));
    workbench_event(workbench,
                    &(struct workbench_event){ .kind = WORKBENCH_PLANNED, .plan = &plan });
}

static void test_refusal(void **state)
{
    (void)state;
    struct error err = { .code = ERROR_USAGE, .message = "it cannot be" };
    struct launcher_plan plan = { .choice = { 2, 1, 7 }, .total_bytes = 5 };
    planner_refusal(&err, plan.choice, &plan); /* the choice lies in what is filled */
    assert_true(plan.choice[0] == 2 && plan.choice[1] == 1 && plan.choice[2] == 7);
    assert_string_equal(plan.message, "it cannot be");
    assert_true(plan.total_bytes == 0 && !plan.ok);
}

static void test_outdated(void **state)
{
    (void)state;
    struct workbench workbench;
    int choice[LAUNCHER_LISTS];
    int again[LAUNCHER_LISTS];
    workbench_open(&workbench);
    recording_launcher(&workbench);
    workbench.launcher.planning = false;
    while (asked(&workbench, EFFECT_PLAN, choice) > 0) {
        workbench.launcher.planning = false;
    }
    launcher_forget_plans(&workbench);
    assert_int_equal(asked(&workbench, EFFECT_PLAN, choice), 1);
    /* A setting changes before the answer is there. */
    launcher_forget_plans(&workbench);
    assert_int_equal(asked(&workbench, EFFECT_PLAN, again), 0);
    plan_comes(&workbench, choice, 111);
    assert_null(launcher_plan_of(&workbench.launcher, choice));
    assert_int_equal(asked(&workbench, EFFECT_PLAN, again), 1);
    assert_memory_equal(choice, again, sizeof(choice));
    plan_comes(&workbench, again, 222);
    assert_int_equal(launcher_plan_of(&workbench.launcher, choice)->total_bytes, 222);
    workbench_close(&workbench);
}

static void test_outdated_preview(void **state)
{
    (void)state;
    struct workbench workbench;
    int choice[LAUNCHER_LISTS];
    workbench_open(&workbench);
    recording_launcher(&workbench);
    workbench.launcher.previewing = false;
    launcher_forget_plans(&workbench);
    assert_int_equal(asked(&workbench, EFFECT_PREVIEW, choice), 1);
    launcher_forget_plans(&workbench);
    for (int i = 0; i < 2; i++) {
        struct launcher_preview *preview = calloc(1, sizeof(*preview));
        memcpy(preview->choice, choice, sizeof(choice));
        workbench_event(&workbench, &(struct workbench_event){ .kind = WORKBENCH_PREVIEWED,
                                                               .preview = preview });
        assert_true((launcher_preview_now(&workbench.launcher) != NULL) == (i == 1));
        assert_int_equal(asked(&workbench, EFFECT_PREVIEW, choice), i == 0);
    }
    workbench_close(&workbench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusal),
        cmocka_unit_test(test_outdated),
        cmocka_unit_test(test_outdated_preview),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
