/* The terminal for real: every frame of a replay arrives as it was drawn, and however the program
 * ends the terminal is given back. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cmocka.h>

#include "app/term.h"
#include "app/workbench_main.h"
#include "emulator.h"
#include "engine/base/file.h"
#include "recording.h"

/* ---- stepping through a replay ------------------------------------------------------------------
 */

/* The same steps are taken by the program in the terminal and by the test. */
static const struct recording replayed = { .steps = 70, .total = 100, .layers = 4, .stop = true };

struct stepper {
    struct workbench workbench;
    struct terminal *terminal; /* in the child */
    struct pty *pty;           /* in the test */
    int ask[2];                /* pipes: test to child, and back */
    int told[2];
    int width;
    int height;
    int64_t count;
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
        if (write(stepper->told[1], &byte, 1) != 1) {
            _exit(9);
        }
    } else {
        assert_int_equal(write(stepper->ask[1], "x", 1), 1);
        pty_wait_canvas(stepper->pty, &canvas, 10);
        assert_int_equal(read(stepper->told[0], &byte, 1), 1);
    }
    canvas_close(&canvas);
}

static void step(void *context, const struct event *record)
{
    static const char keys[] = "1234561?\x1b"
                               "1y+S\x1b"
                               "[{f2v\ro[\r3wf"
                               "24";
    struct stepper *stepper = context;
    struct workbench_event event = { .kind = WORKBENCH_RECORD, .record = record };
    workbench_event(&stepper->workbench, &event);
    stepper->count++;
    if (stepper->count % 5 == 0) {
        press(&stepper->workbench, (uint32_t)keys[stepper->count / 5 % (int64_t)strlen(keys)]);
    }
    if (record->kind == EVENT_STEP || stepper->count % 7 == 0) {
        show(stepper);
    }
}

static void take_steps(struct stepper *stepper)
{
    workbench_open(&stepper->workbench);
    resize(&stepper->workbench, stepper->width, stepper->height);
    show(stepper);
    workbench_show_run(&stepper->workbench, "1121-1141-grass", CONNECTION_LIVE);
    recording_play(&replayed, step, stepper);
    /* Wide glyphs, marks and escape sequences in names and samples. */
    recording_feed_hostile(&stepper->workbench);
    for (int i = 0; i < SCREEN_COUNT; i++) {
        press(&stepper->workbench, (uint32_t)('1' + i));
        show(stepper);
    }
    workbench_close(&stepper->workbench);
}

static int stepping_child(void *context)
{
    struct error err = { 0 };
    struct stepper *stepper = context;
    stepper->terminal = term_open(&err);
    if (!stepper->terminal || term_glyphs(stepper->terminal) != GLYPHS_BRAILLE ||
        term_theme(stepper->terminal).depth != COLOR_256) {
        return 8;
    }
    take_steps(stepper);
    char byte;
    ssize_t size = read(stepper->ask[0], &byte, 1); /* until the last screen was compared */
    term_close(stepper->terminal);
    return size == 1 ? 0 : 7;
}

static void test_stepping(void **state)
{
    (void)state;
    static const int sizes[][2] = { { 80, 24 }, { 120, 36 }, { 61, 17 }, { 40, 10 } };
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct pty pty;
        struct stepper stepper = { .width = sizes[i][0], .height = sizes[i][1] };
        assert_int_equal(pipe(stepper.ask), 0);
        assert_int_equal(pipe(stepper.told), 0);
        pty_start(&pty, stepper.width, stepper.height, stepping_child, &stepper);
        stepper.pty = &pty;
        take_steps(&stepper);
        assert_int_equal(write(stepper.ask[1], "x", 1), 1);
        int status = pty_end(&pty, 10);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
        pty_close(&pty);
        for (int k = 0; k < 2; k++) {
            close(stepper.ask[k]);
            close(stepper.told[k]);
        }
    }
}

/* ---- a recorded run in the real loop
 * ------------------------------------------------------------- */

static char directory[64];

static void write_event(void *context, const struct event *event)
{
    event_write(event, context);
}

static int make_recording(void **state)
{
    (void)state;
    struct buffer text = { 0 };
    struct error err = { 0 };
    const struct recording whole = { .steps = 300, .total = 300, .layers = 4, .stop = true };
    snprintf(directory, sizeof(directory), "/tmp/windrow-ui-XXXXXX");
    if (!mkdtemp(directory)) {
        return -1;
    }
    recording_play(&whole, write_event, &text);
    char *path = path_join(directory, "events.jsonl");
    int result = file_replace(path, text.text, text.size, &err);
    free(path);
    path = path_join(directory, "recipe.json");
    result |= file_replace(path, "{}", 2, &err);
    free(path);
    buffer_free(&text);
    return result;
}

static int remove_recording(void **state)
{
    (void)state;
    struct error err = { 0 };
    return file_remove_tree(directory, &err);
}

static int attach(void *context)
{
    (void)context;
    return workbench_attach(directory, false);
}

static void check_given_back(const struct pty *pty)
{
    struct termios modes;
    assert_int_equal(tcgetattr(pty->fd, &modes), 0);
    assert_true((modes.c_lflag & (tcflag_t)(ICANON | ECHO | ISIG)) ==
                (tcflag_t)(ICANON | ECHO | ISIG));
    assert_non_null(strstr(pty->bytes.text, "\x1b[?1049h"));
    assert_non_null(strstr(pty->bytes.text, "\x1b[?1049l"));
    const char *hidden = strstr(pty->bytes.text, "\x1b[?25l");
    assert_non_null(hidden);
    assert_true(strstr(hidden, "\x1b[?25h") || strstr(hidden, "[34h\x1b[?25h"));
}

static void test_leave(void **state)
{
    (void)state;
    struct pty pty;
    pty_start(&pty, 100, 30, attach, NULL);
    pty_wait_for(&pty, "DONE 300/300", 20);
    pty_send(&pty, "?");
    pty_wait_for(&pty, "THIS SCREEN", 5);
    pty_send(&pty, "\x1b");
    pty_send(&pty, "7");
    pty_wait_for(&pty, "[7 Log]", 5);
    pty_wait_for(&pty, "perplexity", 5);
    pty_resize(&pty, 40, 10);
    pty_wait_for(&pty, "panes need 60x15", 5);
    pty_resize(&pty, 130, 40);
    pty_wait_for(&pty, "[7 Log]", 5);
    pty_send(&pty, "q");
    int status = pty_end(&pty, 10);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    check_given_back(&pty);
    pty_close(&pty);
}

static void test_signals(void **state)
{
    (void)state;
    static const int numbers[] = { SIGTERM, SIGINT, SIGQUIT, SIGSEGV, SIGABRT, SIGHUP };
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        struct pty pty;
        pty_start(&pty, 80, 24, attach, NULL);
        pty_wait_for(&pty, "DONE 300/300", 20);
        assert_int_equal(kill(pty.pid, numbers[i]), 0);
        int status = pty_end(&pty, 10);
        if (numbers[i] == SIGHUP) {
            assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 129);
        } else {
            assert_true(WIFSIGNALED(status));
            assert_int_equal(WTERMSIG(status), numbers[i]);
        }
        check_given_back(&pty);
        pty_close(&pty);
    }
}

/* As under nohup: nobody tells the program, it must notice. */
static int attach_without_hangup(void *context)
{
    struct sigaction ignore = { .sa_handler = SIG_IGN };
    sigaction(SIGHUP, &ignore, NULL);
    return attach(context);
}

/* The terminal closes: the program is gone within a second, and does not spin. */
static void test_closed(void **state)
{
    (void)state;
    struct pty pty;
    pty_start(&pty, 80, 24, attach_without_hangup, NULL);
    pty_wait_for(&pty, "DONE 300/300", 20);
    close(pty.fd);
    pty.fd = -1;
    int status = pty_end(&pty, 5);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 129);
    pty_close(&pty);
}

static int idle_switches(pid_t pid)
{
    char path[64];
    char line[128];
    int switches = -1;
    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof(line), file)) {
        if (strncmp(line, "voluntary_ctxt_switches:", 24) == 0) {
            switches = (int)strtol(line + 24, NULL, 10);
        }
    }
    if (file) {
        fclose(file);
    }
    return switches;
}

/* A recording that is only looked at costs nothing: no wake-ups. */
static void test_idle(void **state)
{
    (void)state;
    struct pty pty;
    pty_start(&pty, 80, 24, attach, NULL);
    pty_wait_for(&pty, "DONE 300/300", 20);
    for (int i = 0; i < 10; i++) {
        pty_pump(&pty, 50);
    }
    int before = idle_switches(pty.pid);
    for (int i = 0; i < 30; i++) {
        pty_pump(&pty, 50);
    }
    assert_true(before >= 0);
    assert_in_range(idle_switches(pty.pid) - before, 0, 2);
    pty_send(&pty, "q");
    pty_end(&pty, 10);
    pty_close(&pty);
}

static int unable(void *context)
{
    (void)context;
    setenv("TERM", "dumb", 1);
    return workbench_attach(directory, false);
}

static void test_refusals(void **state)
{
    (void)state;
    struct pty pty;
    pty_start(&pty, 80, 24, unable, NULL);
    int status = pty_end(&pty, 10);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 2);
    assert_non_null(strstr(pty.bytes.text, "TERM=dumb"));
    assert_null(strstr(pty.bytes.text, "\x1b["));
    pty_close(&pty);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        int nothing = open("/dev/null", O_RDWR);
        dup2(nothing, 0);
        dup2(nothing, 1);
        dup2(nothing, 2);
        _exit(workbench_attach(directory, false));
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stepping), cmocka_unit_test(test_leave),
        cmocka_unit_test(test_signals),  cmocka_unit_test(test_closed),
        cmocka_unit_test(test_idle),     cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, make_recording, remove_recording);
}
