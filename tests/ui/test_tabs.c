/* Every tab of a run, record by record, through a real terminal: after each record the screen that
 * arrived at the other end is the one that a fresh drawing gives. Diffs that leave something behind
 * show up here and nowhere else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "app/term.h"
#include "emulator.h"
#include "recording.h"

static const struct recording replayed = { .steps = 104, .total = 160, .layers = 3, .stop = true };

struct stepper {
    struct workbench workbench;
    struct terminal *terminal; /* in the child */
    struct pty *pty;           /* in the test */
    int ask[2];                /* pipes: test to child, and back */
    int width;
    int height;
    const char *keys; /* that lead to the tab */
    int64_t frames;
};

static void show(struct stepper *stepper)
{
    struct canvas canvas;
    char byte = 0;
    canvas_open(&canvas, stepper->width, stepper->height, GLYPHS_BRAILLE);
    workbench_draw(&stepper->workbench, &canvas);
    if (stepper->terminal) {
        if (read(stepper->ask[0], &byte, 1) != 1) {
            _exit(9);
        }
        child_draw(stepper->terminal, &canvas);
    } else {
        assert_int_equal(write(stepper->ask[1], "x", 1), 1);
        pty_wait_canvas(stepper->pty, &canvas, 20);
    }
    stepper->frames++;
    canvas_close(&canvas);
}

static void take_record(void *context, const struct event *record)
{
    struct stepper *stepper = context;
    struct workbench_event event = { .kind = WORKBENCH_RECORD, .record = record };
    workbench_event(&stepper->workbench, &event);
    show(stepper);
}

static void take_steps(struct stepper *stepper)
{
    workbench_open(&stepper->workbench);
    resize(&stepper->workbench, stepper->width, stepper->height);
    workbench_show_run(&stepper->workbench, "1121-1141-grass", CONNECTION_LIVE);
    for (const char *key = stepper->keys; *key; key++) {
        press(&stepper->workbench, (uint32_t)*key);
    }
    show(stepper);
    recording_play(&replayed, take_record, stepper);
    workbench_close(&stepper->workbench);
}

static int child(void *context)
{
    struct error err = { 0 };
    struct stepper *stepper = context;
    stepper->terminal = term_open(&err);
    if (!stepper->terminal) {
        return 8;
    }
    take_steps(stepper);
    char byte;
    ssize_t size = read(stepper->ask[0], &byte, 1); /* until the last screen was compared */
    term_close(stepper->terminal);
    return size == 1 ? 0 : 7;
}

static void step_through(const char *keys, int width, int height)
{
    struct pty pty;
    struct stepper stepper = { .width = width, .height = height, .keys = keys };
    assert_int_equal(pipe(stepper.ask), 0);
    pty_start(&pty, width, height, child, &stepper);
    stepper.pty = &pty;
    take_steps(&stepper);
    assert_true(stepper.frames > replayed.steps);
    assert_int_equal(write(stepper.ask[1], "x", 1), 1);
    int status = pty_end(&pty, 10);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    pty_close(&pty);
    close(stepper.ask[0]);
    close(stepper.ask[1]);
}

static void test_every_tab(void **state)
{
    (void)state;
    /* Layers twice more: a heat map of rows, and the page of one matrix. */
    static const char *const tabs[] = { "1", "2", "2vvvv", "2\r", "3", "4", "5", "6", "7", "1?" };
    for (size_t i = 0; i < sizeof(tabs) / sizeof(tabs[0]); i++) {
        step_through(tabs[i], i % 2 ? 120 : 80, i % 2 ? 36 : 24);
    }
    step_through("1", 120, 36);
    step_through("2", 80, 24);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_tab),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
