/* The line to the terminal: what it is asked and answers, which colours go over it, and how little
 * of it is ever under way when it is slow. */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "attach.h"
#include "emulator.h"
#include "engine/base/clock.h"
#include "engine/base/file.h"

static void start(struct pty *pty, const char *const *environment)
{
    pty_start(pty, 80, 24, attach_child, (void *)environment);
    pty_wait_for(pty, "DONE 300/300", 20);
}

static void leave(struct pty *pty)
{
    pty_send(pty, "q");
    int status = pty_end(pty, 10);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    pty_close(pty);
}

static bool wrote(const struct pty *pty, size_t from, const char *text)
{
    return memmem(pty->bytes.text + from, pty->bytes.size - from, text, strlen(text)) != NULL;
}

static void wait_bytes(struct pty *pty, size_t from, const char *text)
{
    double end = clock_monotonic() + 60;
    while (!wrote(pty, from, text)) {
        if (clock_monotonic() > end || !pty_pump(pty, 20)) {
            fail_msg("never written: %s", text + 1);
        }
    }
}

/* Pumps until nothing has come for a while, and the program has nothing to do. */
static void settle(struct pty *pty)
{
    size_t before;
    do {
        before = pty->bytes.size;
        for (int i = 0; i < 5; i++) {
            pty_pump(pty, 20);
        }
    } while (pty->bytes.size != before || !pty_rests(pty));
}

/* ---- colours ------------------------------------------------------------------------------------
 */

/* The colour of keys in the footer, for each ground. */
static const char both_grounds[] = "\x1b[38;5;32m";
static const char dark_ground[] = "\x1b[38;5;75m";
static const char light_ground[] = "\x1b[38;5;25m";
static const char safe_light[] = "\x1b[38;5;26m";

static void check_start(const char *const *environment, const char *wanted, const char *unwanted)
{
    struct pty pty;
    start(&pty, environment);
    pty_wait_for(&pty, "? help", 10);
    wait_bytes(&pty, 0, wanted);
    settle(&pty);
    assert_true(!unwanted || !wrote(&pty, 0, unwanted));
    leave(&pty);
}

static void test_environment(void **state)
{
    (void)state;
    const char *none[] = { NULL };
    const char *no_color[] = { "NO_COLOR",  "1", "WINDROW_THEME", "dark", "COLORTERM",
                               "truecolor", NULL };
    const char *few[] = { "TERM", "xterm", "WINDROW_THEME", "dark", NULL };
    const char *true_colors[] = { "COLORTERM", "truecolor", "WINDROW_THEME", "dark", NULL };
    const char *by_number[] = { "COLORFGBG", "15;0", NULL };
    const char *by_light[] = { "COLORFGBG", "0;15", NULL };
    const char *chosen[] = { "COLORFGBG", "15;0", "WINDROW_THEME", "light", NULL };
    const char *wrong[] = { "WINDROW_THEME", "neon", NULL };
    check_start(none, both_grounds, dark_ground);
    check_start(no_color, "\x1b[0;1m", "\x1b[38;");
    check_start(few, "\x1b[36m", "\x1b[38;");
    check_start(true_colors, "\x1b[38;2;108;182;255m", "\x1b[38;5");
    check_start(by_number, dark_ground, both_grounds);
    check_start(by_light, light_ground, both_grounds);
    check_start(chosen, light_ground, dark_ground);
    struct pty pty;
    start(&pty, wrong);
    pty_wait_for(&pty, "WINDROW_THEME: ", 5);
    leave(&pty);
}

static void test_configuration(void **state)
{
    (void)state;
    static const char text[] = "{ \"theme\": \"light\", \"mouse\": true }";
    struct error err = { 0 };
    const char *none[] = { NULL };
    const char *other[] = { "WINDROW_THEME", "dark", NULL };
    char *path = path_join(attach_folder(), "windrow/config.json");
    char *place = path_join(attach_folder(), "windrow");
    assert_int_equal(file_make_directories(place, &err), 0);
    assert_int_equal(file_replace(path, text, sizeof(text) - 1, &err), 0);
    check_start(none, light_ground, both_grounds);
    check_start(none, "\x1b[?1000h", NULL);
    check_start(other, dark_ground, light_ground);
    file_remove_tree(place, &err);
    free(place);
    free(path);
}

/* Late, in pieces, and while something is being typed. */
static void test_late_answers(void **state)
{
    (void)state;
    static const char *const pieces[] = { "\x1b",    "]11;r", "gb:fafa/fa", "fa/f",
                                          "afa\x1b", "\\",    "\x1b[",      "0n" };
    struct pty pty;
    pty_start(&pty, 80, 24, attach_child, NULL);
    pty.mute = true; /* so all answers are still to come */
    pty_wait_for(&pty, "DONE 300/300", 20);
    assert_true(wrote(&pty, 0, "\x1b]11;?\x1b\\\x1b[5n"));
    pty_send(&pty, "7\\a");
    pty_wait_for(&pty, "show only lines with", 5);
    settle(&pty);
    size_t before = pty.bytes.size;
    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
        pty_send(&pty, pieces[i]);
        for (int k = 0; k < 8; k++) {
            pty_pump(&pty, 10);
        }
    }
    pty.mute = false;
    wait_bytes(&pty, before, light_ground);
    pty_send(&pty, "bc");
    pty_wait_for(&pty, "abc_", 5); /* what was typed, and nothing else */
    before = pty.bytes.size;
    pty_send(&pty, "\x1b]11;rgb:00/00/00\x07");
    wait_bytes(&pty, before, dark_ground);
    pty_wait_for(&pty, "abc_", 5);
    /* Others: device attributes, a status report, keys that nobody knows, a broken one. */
    pty_send(&pty, "\x1b[?64;1;9c\x1b[3n\x1b[24;5~\x1b]52;c;eA==\x07");
    pty_send(&pty, "d");
    pty_wait_for(&pty, "abcd_", 5);
    pty_send(&pty, "\x1b");
    pty_wait_for(&pty, "q leave", 5);
    leave(&pty);
}

static void test_theme_key(void **state)
{
    (void)state;
    struct pty pty;
    const char *environment[] = { "COLORFGBG", "0;15", NULL };
    static const char *const wanted[] = { dark_ground, light_ground, safe_light, NULL,
                                          light_ground };
    static const char *const names[] = { "dark", "light", "safe", "mono", "auto" };
    start(&pty, environment);
    for (int i = 0; i < 5; i++) {
        char said[32];
        settle(&pty);
        size_t before = pty.bytes.size;
        pty_send(&pty, "T");
        snprintf(said, sizeof(said), "colours: %s", names[i]);
        pty_wait_for(&pty, said, 5);
        if (wanted[i]) {
            wait_bytes(&pty, before, wanted[i]);
        }
        settle(&pty);
        assert_true(i != 3 || !wrote(&pty, before, "\x1b[38"));
    }
    leave(&pty);
}

static void test_mouse(void **state)
{
    (void)state;
    struct pty pty;
    start(&pty, NULL);
    settle(&pty);
    assert_false(wrote(&pty, 0, "\x1b[?1000h"));
    pty_send(&pty, "\x1b[<0;20;2M"); /* not asked for: no key, no click */
    pty_send(&pty, "M");
    pty_wait_for(&pty, "mouse: click", 5);
    assert_true(wrote(&pty, 0, "\x1b[?1000h\x1b[?1006h"));
    pty_wait_for(&pty, "[1 Run]", 5);
    pty_send(&pty, "\x1b[<0;20;2M\x1b[<0;20;2m");
    pty_wait_for(&pty, "[3 Memory]", 5);
    pty_send(&pty, "\x1b[<65;20;10M\x1b[<0;300;200M\x1b[<35;7;7M");
    pty_send(&pty, "M");
    pty_wait_for(&pty, "left to the terminal", 5);
    wait_bytes(&pty, 0, "\x1b[?1006l\x1b[?1000l");
    leave(&pty);
}

/* ---- a slow line --------------------------------------------------------------------------------
 */

/* 4 kB/s: so many bytes every 10 ms. What the program has written beyond them waits in the line. */
enum { SHARE = 40, PAUSE_MS = 10 };

struct line {
    size_t waiting; /* when it was last looked at */
    size_t most;    /* that ever waited since it was set to 0 */
};

static void look(struct pty *pty, struct line *line)
{
    int waiting = 0;
    assert_int_equal(ioctl(pty->fd, FIONREAD, &waiting), 0);
    line->waiting = (size_t)waiting;
    line->most = line->waiting > line->most ? line->waiting : line->most;
}

/* One share of the line; false if nothing waited. */
static bool crawl(struct pty *pty, struct line *line)
{
    char bytes[SHARE];
    look(pty, line);
    usleep(PAUSE_MS * 1000);
    look(pty, line);
    if (line->waiting == 0) {
        return false;
    }
    ssize_t size = read(pty->fd, bytes, sizeof(bytes));
    assert_true(size > 0);
    buffer_append(&pty->bytes, bytes, (size_t)size);
    vterm_input_write(pty->emulator, bytes, (size_t)size);
    return true;
}

static void crawl_until(struct pty *pty, struct line *line, const char *text)
{
    for (int i = 0; !pty_shows(pty, text); i++) {
        crawl(pty, line);
        if (i > 2000) {
            fail_msg("the slow line never showed: %s", text);
        }
    }
}

static void crawl_until_quiet(struct pty *pty, struct line *line)
{
    for (int quiet = 0, i = 0; quiet < 20 && i < 2000; i++) {
        quiet = crawl(pty, line) ? 0 : quiet + 1;
    }
}

/* What a key has to wait behind: less than a tenth of a second at 4 kB/s, and the question. */
enum { BEHIND = 400 + 16 };

static void test_slow_line(void **state)
{
    (void)state;
    struct pty pty;
    struct line line = { 0 };
    size_t sum = 0;
    pty_start(&pty, 80, 24, attach_child, NULL);
    crawl_until(&pty, &line, "DONE 300/300");
    crawl_until_quiet(&pty, &line);
    /* The speed is known now. A whole screen changes with every key. */
    line.most = 0;
    for (int i = 0; i < 60; i++) {
        char key[2] = { (char)('1' + i % 7), 0 };
        pty_send(&pty, key);
        for (int k = 0; k < 2; k++) {
            crawl(&pty, &line);
        }
    }
    sum = pty.bytes.size;
    pty_send(&pty, "7");
    crawl_until(&pty, &line, "[7 Log]");
    crawl_until_quiet(&pty, &line);
    assert_in_range(line.most, 1, BEHIND);
    /* Sixty screens were asked for; what was sent is not more than a few. */
    assert_in_range(pty.bytes.size - sum, 1, 3 * 4600);
    /* The answer to a key comes before what was left of the screen before it. */
    line.most = 0;
    pty_send(&pty, "2");
    for (int i = 0; i < 20; i++) {
        crawl(&pty, &line);
    }
    look(&pty, &line);
    size_t behind = line.waiting;
    size_t before = pty.bytes.size;
    pty_send(&pty, "\x03"); /* asks whether to leave */
    crawl_until(&pty, &line, "leave?");
    assert_in_range(behind, 0, BEHIND);
    assert_in_range(pty.bytes.size - before, 1, behind + 1600);
    assert_in_range(line.most, 1, BEHIND);
    pty_send(&pty, "\x1b");
    crawl_until(&pty, &line, "q leave");
    pty_send(&pty, "q");
    int status = pty_end(&pty, 10);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    pty_close(&pty);
}

/* A terminal that answers nothing and takes nothing for a while: the loop goes on, leaves on a
 * signal, and once it takes again shows the newest. */
static void test_stuck_terminal(void **state)
{
    (void)state;
    struct pty pty;
    const char *environment[] = { "TERM", "vt220", NULL };
    start(&pty, environment);
    settle(&pty);
    for (int i = 0; i < 200; i++) {
        char key[2] = { (char)('1' + i % 7), 0 };
        pty_send(&pty, key);
        usleep(2000);
    }
    pty_send(&pty, "3");
    int waiting = 0;
    usleep(200000);
    assert_int_equal(ioctl(pty.fd, FIONREAD, &waiting), 0);
    assert_in_range(waiting, 1, 16384);
    size_t before = pty.bytes.size;
    pty_wait_for(&pty, "[3 Memory]", 5);
    settle(&pty);
    assert_in_range(pty.bytes.size - before, 1, 40000);
    leave(&pty);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_environment),    cmocka_unit_test(test_configuration),
        cmocka_unit_test(test_late_answers),   cmocka_unit_test(test_theme_key),
        cmocka_unit_test(test_mouse),          cmocka_unit_test(test_slow_line),
        cmocka_unit_test(test_stuck_terminal),
    };
    return cmocka_run_group_tests(tests, attach_begin, attach_end);
}
