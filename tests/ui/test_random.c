/* Random keys, clicks, answers and sizes through a terminal: the program never falls, leaves only
 * when it is told to, and what it drew piece by piece is what it draws anew. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "attach.h"
#include "emulator.h"
#include "engine/base/clock.h"
#include "engine/base/xalloc.h"

/* Pictures of screens go where nobody minds, and nothing can be started. */
static int child(void *context)
{
    (void)context;
    const char *environment[] = { "WINDROW_PRESETS", "/nonexistent", "ASAN_OPTIONS",
                                  "detect_leaks=0", NULL };
    if (chdir(attach_folder()) != 0) {
        return 99;
    }
    return attach_child((void *)environment);
}

static void start(struct pty *pty)
{
    pty_start(pty, 80, 24, child, NULL);
    pty_wait_for(pty, "DONE 300/300", 120);
}

/* What it wrote so far is of no interest. */
static void forget(struct pty *pty)
{
    pty->bytes.size = 0;
}

static void add_random(char *out, size_t size)
{
    static const char *const sequences[] = { "\x1b[A",
                                             "\x1b[B",
                                             "\x1b[C",
                                             "\x1b[D",
                                             "\x1b[5~",
                                             "\x1b[6~",
                                             "\x1b[Z",
                                             "\x1bOP",
                                             "\x1b[3~",
                                             "\x1b[15;2~",
                                             "\x1b[0n",
                                             "\x1b]11;rgb:ff/ff/ff\x07",
                                             "\x1b]11;rgb:0000/0000/0000\x1b\\",
                                             "\x1b]11;rgb:ff",
                                             "\x1b[?1;2c",
                                             "\xe2\x94\x80",
                                             "\xf0\x9f\x98\x80",
                                             "\xff" };
    static const char controls[] = "\r\r\t\x1b\x1b\x03\x0c\x1a\x7f\x08\x01";
    int what = rand() % 100;
    if (what < 30) {
        snprintf(out, size, "%c", '0' + rand() % 8);
    } else if (what < 60) {
        snprintf(out, size, "%c", 33 + rand() % 94);
    } else if (what < 72) {
        snprintf(out, size, "%c", controls[rand() % (int)(sizeof(controls) - 1)]);
    } else if (what < 88) {
        snprintf(out, size, "\x1b[<%d;%d;%d%c", rand() % 3 ? 0 : 64 + rand() % 2, 1 + rand() % 200,
                 1 + rand() % 50, rand() % 4 ? 'M' : 'm');
    } else {
        snprintf(out, size, "%s",
                 sequences[rand() % (int)(sizeof(sequences) / sizeof(sequences[0]))]);
    }
}

/* False if the program has left, as it was told. */
static bool is_there(struct pty *pty)
{
    int status = 0;
    if (pty->pid == 0 || waitpid(pty->pid, &status, WNOHANG) == 0) {
        return pty->pid != 0;
    }
    pty->pid = 0;
    /* A ^C that came after it had given the terminal back is nobody's fault. */
    bool interrupted = WIFSIGNALED(status) && WTERMSIG(status) == SIGINT;
    if (!interrupted && (!WIFEXITED(status) || WEXITSTATUS(status) != 0)) {
        for (int i = 0; i < 20 && pty_pump(pty, 10); i++) {
        }
        fail_msg("ended with the status %x: %.300s", (unsigned)status,
                 pty->bytes.size > 300 ? pty->bytes.text + pty->bytes.size - 300 : "");
    }
    return false;
}

/* Until nothing came and nothing was at work for so long. */
static void pump_until_quiet(struct pty *pty, double seconds)
{
    double quiet = clock_monotonic();
    double end = quiet + 60;
    while (clock_monotonic() - quiet < seconds && clock_monotonic() < end) {
        size_t before = pty->bytes.size;
        if (!pty_pump(pty, 20)) {
            return;
        }
        bool busy = pty->bytes.size != before || (pty->pid > 0 && !pty_rests(pty));
        quiet = busy ? clock_monotonic() : quiet;
    }
}

/* The keys may have held a piece of the terminal's answers, so that the program still waits for its
 * end (a second), or for a sign of life that was torn (three). The first is waited for; of the
 * other it gets more than it asked for. */
static void settle(struct pty *pty)
{
    pump_until_quiet(pty, 1.1);
    if (is_there(pty)) {
        pty_send(pty, "\x1b[0n\x1b[0n\x1b[0n\x1b[0n");
        pump_until_quiet(pty, 0.15);
    }
}

static char *screen_of(const struct pty *pty)
{
    struct buffer all = { 0 };
    for (int y = 0; y < pty->height; y++) {
        char *row = pty_row(pty, y);
        buffer_printf(&all, "%s|\n", row);
        free(row);
    }
    return all.text;
}

/* The screen as it is, and drawn anew. */
static void compare_anew(struct pty *pty)
{
    settle(pty);
    if (!is_there(pty)) {
        return;
    }
    char *before = screen_of(pty);
    pty_send(pty, "\x0c");
    pump_until_quiet(pty, 0.15);
    char *after = screen_of(pty);
    /* It may have been about to leave, or be drawing still. */
    for (int i = 0; i < 500 && strcmp(before, after) != 0 && is_there(pty); i++) {
        pump_until_quiet(pty, 0.02);
        free(after);
        after = screen_of(pty);
    }
    if (strcmp(before, after) != 0 && pty->pid != 0) {
        print_error("as it was:\n%s\nanew:\n%s\n", before, after);
        fail_msg("the screen was not what it is when drawn anew");
    }
    free(before);
    free(after);
}

static void burst(struct pty *pty)
{
    char keys[512] = "";
    for (int i = rand() % 12; i >= 0; i--) {
        size_t used = strlen(keys);
        add_random(keys + used, sizeof(keys) - used);
    }
    pty_send(pty, keys);
    if (rand() % 4 == 0) {
        pty_resize(pty, 1 + rand() % 160, 1 + rand() % 50);
    }
    for (int i = rand() % 4; i >= 0; i--) {
        pty_pump(pty, rand() % 8);
    }
}

static void test_random(void **state)
{
    (void)state;
    enum { BURSTS = 500, EACH = 50 };
    struct pty pty;
    int lives = 1;
    srand(20261121);
    start(&pty);
    for (int i = 1; i <= BURSTS; i++) {
        forget(&pty);
        burst(&pty);
        if (i % EACH == 0) {
            static const int sizes[][2] = { { 80, 24 }, { 120, 36 }, { 61, 16 }, { 20, 5 } };
            const int *size = sizes[rand() % 4];
            pty_resize(&pty, size[0], size[1]);
            compare_anew(&pty);
        }
        if (!is_there(&pty)) {
            pty_close(&pty);
            start(&pty);
            lives++;
        }
    }
    compare_anew(&pty);
    print_message("%d times left and begun again\n", lives - 1);
    pty_close(&pty);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_random) };
    return cmocka_run_group_tests(tests, attach_begin, attach_end);
}
