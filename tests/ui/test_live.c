/* The program itself in a terminal: launch, watch, tune, leave, come back, stop. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "emulator.h"
#include "engine/base/file.h"

static char home[64];

/* Under sanitizers a step takes seconds. */
enum { LONG = 240, SHORT = 30 };

static int run_program(void *context)
{
    const char *const *words = context;
    setenv("XDG_STATE_HOME", home, 1);
    setenv("XDG_RUNTIME_DIR", home, 1);
    setenv("HOME", home, 1);
    setenv("WINDROW_PRESETS", SOURCE_ROOT "/presets", 1);
    /* ncurses keeps some memory until the end on purpose. */
    setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
    execl(WINDROW_PROGRAM, "windrow", words[0], words[0] ? words[1] : NULL, (char *)NULL);
    return 127;
}

static int make_home(void **state)
{
    (void)state;
    snprintf(home, sizeof(home), "/tmp/windrow-live-XXXXXX");
    return mkdtemp(home) ? 0 : -1;
}

static int remove_home(void **state)
{
    (void)state;
    /* A test that failed may have left its run behind. */
    if (fork() == 0) {
        const char *stop[] = { "stop", "" }; /* the newest running one */
        int nothing = open("/dev/null", O_RDWR);
        dup2(nothing, 1);
        dup2(nothing, 2);
        _exit(run_program(stop));
    }
    wait(NULL);
    struct error err = { 0 };
    return file_remove_tree(home, &err);
}

static void leave(struct pty *pty)
{
    pty_send(pty, "q");
    int status = pty_end(pty, SHORT);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    pty_close(pty);
}

static void test_launcher(void **state)
{
    (void)state;
    const char *words[] = { NULL, NULL };
    struct pty pty;
    pty_start(&pty, 110, 32, run_program, words);
    pty_wait_for(&pty, "fits: ", SHORT);
    pty_send(&pty, "?");
    pty_wait_for(&pty, "help: Home", SHORT);
    pty_send(&pty, "\x1b");
    pty_wait_for(&pty, "Enter start training", SHORT);
    /* A setting that is wrong is refused in words. */
    pty_send(&pty, "s");
    pty_wait_for(&pty, "change a setting", SHORT);
    pty_send(&pty, "train.stepz=3\r");
    pty_wait_for(&pty, "train.stepz", SHORT);
    leave(&pty);
}

/* Starts a run, changes its rank, leaves it running, attaches again, stops it. */
static void test_whole_life(void **state)
{
    (void)state;
    const char *launcher[] = { NULL, NULL };
    const char *attach[] = { "attach", NULL };
    struct pty pty;
    pty_start(&pty, 110, 32, run_program, launcher);
    pty_wait_for(&pty, "fits: ", SHORT);
    pty_send(&pty, "strain.export=false\r");
    pty_wait_for(&pty, "settings changed: train.export=false", SHORT);
    pty_send(&pty, "\r");
    pty_wait_for(&pty, "RUNNING", LONG);
    pty_wait_for(&pty, "captured energy", SHORT);
    pty_send(&pty, "4");
    pty_wait_for(&pty, "[4 Tune]", SHORT);
    pty_send(&pty, "\x1b[C"); /* right: the rank doubles */
    pty_wait_for(&pty, "tokens/s", LONG);
    pty_send(&pty, "a");
    pty_wait_for(&pty, " holds from step", LONG);
    pty_wait_for(&pty, "measured", LONG);
    pty_send(&pty, "q");
    int status = pty_end(&pty, SHORT);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_non_null(strstr(pty.bytes.text, "the run goes on"));
    pty_close(&pty);

    pty_start(&pty, 80, 24, run_program, attach);
    pty_wait_for(&pty, "RUNNING", SHORT);
    pty_send(&pty, "p");
    pty_wait_for(&pty, "PAUSED", LONG);
    pty_send(&pty, "p");
    pty_wait_for(&pty, "RUNNING", LONG);
    pty_send(&pty, "S");
    pty_wait_for(&pty, "stop the run?", SHORT);
    pty_send(&pty, "s");
    pty_wait_for(&pty, "STOPPED", LONG);
    leave(&pty);

    /* The recording shows the same afterwards. */
    pty_start(&pty, 80, 24, run_program, attach);
    pty_wait_for(&pty, "STOPPED", SHORT);
    pty_wait_for(&pty, "a recording", SHORT);
    pty_send(&pty, "4");
    pty_wait_for(&pty, " -> ", SHORT); /* the change of the rank */
    leave(&pty);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_launcher),
        cmocka_unit_test(test_whole_life),
    };
    return cmocka_run_group_tests(tests, make_home, remove_home);
}
