/* Every way a screen can be interrupted or lost, on every screen: signals, a stop and its end,
 * storms of sizes, a closed terminal. The terminal is whole afterwards where there still is one,
 * and the run that was looked at goes on. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cmocka.h>

#include "app/workbench_main.h"
#include "attach.h"
#include "emulator.h"
#include "engine/base/clock.h"
#include "engine/base/file.h"

/* Under sanitizers and beside other tests everything takes its time. */
enum { LONG = 120, SHORT = 30 };

/* ---- a run that trains --------------------------------------------------------------------------
 */

static char live[128];
static pid_t trainer;

static void write_recipe(char *path, size_t size)
{
    struct buffer text = { 0 };
    struct error err = { 0 };
    for (int i = 0; i < 400; i++) {
        buffer_printf(&text, "the %s sees a %s.%s", i % 3 ? "cat" : "bird", i % 5 ? "dog" : "child",
                      i % 6 == 5 ? "\n" : " ");
    }
    char *data = path_join(attach_folder(), "text.txt");
    char *recipe = path_join(attach_folder(), "tiny.json");
    char *json =
        xasprintf("{\"model\": {\"preset\": \"llama-micro\"}, \"tokenizer\": {\"vocab\": 300},"
                  " \"data\": {\"train\": \"%s\", \"sequence_length\": 32},"
                  " \"method\": {\"name\": \"grass\", \"rank\": 16, \"interval\": 50},"
                  " \"batch\": {\"micro\": 1}, \"device\": \"cpu\","
                  " \"train\": {\"steps\": 1000000, \"save_every\": 0}}\n",
                  data);
    assert_int_equal(file_replace(data, text.text, text.size, &err), 0);
    assert_int_equal(file_replace(recipe, json, strlen(json), &err), 0);
    snprintf(path, size, "%s", recipe);
    buffer_free(&text);
    free(json);
    free(recipe);
    free(data);
}

static int run_program(const char *const *words)
{
    int nothing = open("/dev/null", O_RDWR);
    setenv("WINDROW_PRESETS", SOURCE_ROOT "/presets", 1);
    setenv("OMP_NUM_THREADS", "1", 1);
    for (int fd = 0; fd < 3; fd++) {
        dup2(nothing, fd);
    }
    execv(WINDROW_PROGRAM, (char *const *)words);
    return 127;
}

/* It trains in the background, on one thread. */
static int begin(void **state)
{
    char recipe[128];
    if (attach_begin(state) != 0) {
        return -1;
    }
    setenv("ASAN_OPTIONS", "detect_leaks=0", 1); /* of ncurses, in processes that are ended */
    snprintf(live, sizeof(live), "%s/live", attach_folder());
    write_recipe(recipe, sizeof(recipe));
    fflush(NULL);
    trainer = fork();
    if (trainer == 0) {
        const char *words[] = { "windrow", "train", recipe, "--run-dir", live, NULL };
        setpgid(0, 0);
        _exit(run_program(words));
    }
    return trainer > 0 ? 0 : -1;
}

static int end(void **state)
{
    if (trainer > 0) {
        kill(trainer, SIGKILL);
        waitpid(trainer, NULL, 0);
    }
    return attach_end(state);
}

static bool trains(void)
{
    return waitpid(trainer, NULL, WNOHANG) == 0;
}

/* ---- a shell with job control -------------------------------------------------------------------
 */

/* It starts the program as a job of its own, tells when that stops, and continues it when told. A
 * program that leads its session could not be stopped at all. */
struct job {
    struct pty pty;
    int told[2]; /* from the shell: the program's id, then 's' at each stop */
    int ask[2];  /* to it: a byte continues the program */
    pid_t program;
    int (*child)(void *context);
    void *context;
};

static int shell(void *context)
{
    struct job *job = context;
    signal(SIGTTOU, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    pid_t pid = fork();
    if (pid == 0) {
        setpgid(0, 0);
        tcsetpgrp(STDIN_FILENO, getpid());
        signal(SIGTTOU, SIG_DFL);
        signal(SIGHUP, SIG_DFL);
        signal(SIGPIPE, SIG_IGN); /* as main does */
        _exit(job->child(job->context));
    }
    if (write(job->told[1], &pid, sizeof(pid)) != sizeof(pid)) {
        return 99;
    }
    for (;;) {
        int status;
        char byte = 's';
        if (waitpid(pid, &status, WUNTRACED) != pid) {
            return 98;
        }
        if (!WIFSTOPPED(status)) {
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        }
        tcsetpgrp(STDIN_FILENO, getpgrp());
        if (write(job->told[1], &byte, 1) != 1 || read(job->ask[0], &byte, 1) != 1) {
            return 97;
        }
        tcsetpgrp(STDIN_FILENO, pid);
        kill(-pid, SIGCONT);
    }
}

static void job_start(struct job *job, int (*child)(void *context), void *context)
{
    job->child = child;
    job->context = context;
    assert_int_equal(pipe(job->told), 0);
    assert_int_equal(pipe(job->ask), 0);
    pty_start(&job->pty, 80, 24, shell, job);
    close(job->told[1]);
    close(job->ask[0]);
    assert_int_equal(read(job->told[0], &job->program, sizeof(job->program)), sizeof(pid_t));
}

static void job_close(struct job *job)
{
    kill(job->program, SIGKILL); /* if a check has failed */
    pty_close(&job->pty);
    close(job->told[0]);
    close(job->ask[1]);
}

/* Waits until the shell says that the program has stopped. */
static void wait_stopped(struct job *job)
{
    double limit = clock_monotonic() + SHORT;
    fcntl(job->told[0], F_SETFL, O_NONBLOCK);
    char byte = 0;
    while (read(job->told[0], &byte, 1) != 1) {
        pty_pump(&job->pty, 10);
        if (clock_monotonic() > limit) {
            char *row = pty_row(&job->pty, 1);
            fail_msg("the program did not stop: %s", row);
        }
    }
    assert_int_equal(byte, 's');
}

static bool is_canonical(const struct pty *pty)
{
    struct termios modes;
    tcflag_t all = ICANON | ECHO | ISIG;
    assert_int_equal(tcgetattr(pty->fd, &modes), 0);
    return (modes.c_lflag & all) == all;
}

/* The last of two byte strings in what was written. */
static bool ends_with(const struct pty *pty, const char *wanted, const char *other)
{
    const char *last = NULL;
    const char *last_other = NULL;
    for (const char *at = pty->bytes.text; (at = strstr(at, wanted)) != NULL; at++) {
        last = at;
    }
    for (const char *at = pty->bytes.text; (at = strstr(at, other)) != NULL; at++) {
        last_other = at;
    }
    return last && (!last_other || last > last_other);
}

static void check_given_back(const struct pty *pty)
{
    assert_true(is_canonical(pty));
    assert_true(ends_with(pty, "\x1b[?1049l", "\x1b[?1049h"));
    assert_true(ends_with(pty, "\x1b[?25h", "\x1b[?25l"));
    assert_true(!strstr(pty->bytes.text, "\x1b[?1000h") ||
                ends_with(pty, "\x1b[?1000l", "\x1b[?1000h"));
}

/* ---- the screens --------------------------------------------------------------------------------
 */

static int launcher_child(void *context)
{
    (void)context;
    setenv("WINDROW_PRESETS", SOURCE_ROOT "/presets", 1);
    return workbench_launcher();
}

static int live_child(void *context)
{
    (void)context;
    return workbench_attach(live, false);
}

struct place {
    const char *name;
    int (*child)(void *context);
    const char *first; /* what it shows at the beginning */
    const char *keys;  /* then these */
    const char *shown; /* and then it shows this */
};
static const struct place places[] = {
    { "launcher", launcher_child, "start training", "", "preset" },
    { "form", launcher_child, "start training", "e", "every setting of what" },
    { "run", attach_child, "DONE 300/300", "", "[1 Run]" },
    { "layers", attach_child, "DONE 300/300", "2", "[2 Layers]" },
    { "memory", attach_child, "DONE 300/300", "3", "[3 Memory]" },
    { "tune", attach_child, "DONE 300/300", "4", "[4 Tune]" },
    { "compare", attach_child, "DONE 300/300", "5", "[5 Compare]" },
    { "samples", attach_child, "DONE 300/300", "6", "[6 Samples]" },
    { "log, with the mouse", attach_child, "DONE 300/300", "M7", "[7 Log]" },
    { "a question", attach_child, "DONE 300/300", "\x03", "leave?" },
    { "a field", attach_child, "DONE 300/300", "7/needle", "needle_" },
    { "help", attach_child, "DONE 300/300", "?", "THIS SCREEN" },
    { "attach", live_child, "RUNNING", "", "[1 Run]" },
    { "a question about a live run", live_child, "RUNNING", "S", "stop the run?" },
};
enum { PLACES = sizeof(places) / sizeof(places[0]) };

static void go_to(struct job *job, const struct place *place)
{
    memset(job, 0, sizeof(*job));
    job_start(job, place->child, NULL);
    pty_wait_for(&job->pty, place->first, LONG);
    if (place->keys[0]) {
        pty_send(&job->pty, place->keys);
    }
    pty_wait_for(&job->pty, place->shown, SHORT);
}

static void expect_code(struct job *job, const struct place *place, int code)
{
    int status = pty_end(&job->pty, SHORT);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != code) {
        fail_msg("%s: wanted the exit code %d, found the status %x", place->name, code,
                 (unsigned)status);
    }
}

/* ---- the ends -----------------------------------------------------------------------------------
 */

static void check_deadly(int number, int code)
{
    for (int i = 0; i < PLACES; i++) {
        struct job job;
        go_to(&job, &places[i]);
        assert_int_equal(kill(job.program, number), 0);
        expect_code(&job, &places[i], code);
        check_given_back(&job.pty);
        job_close(&job);
    }
    assert_true(trains());
}

static void test_hang_up(void **state)
{
    (void)state;
    check_deadly(SIGHUP, 129);
}

static void test_terminate(void **state)
{
    (void)state;
    check_deadly(SIGTERM, 143);
}

static void test_interrupt(void **state)
{
    (void)state;
    check_deadly(SIGINT, 130);
}

static void test_closed(void **state)
{
    (void)state;
    for (int i = 0; i < PLACES; i++) {
        struct job job;
        go_to(&job, &places[i]);
        close(job.pty.fd);
        job.pty.fd = -1;
        expect_code(&job, &places[i], 129);
        job_close(&job);
    }
    assert_true(trains());
}

/* ---- what has to be survived --------------------------------------------------------------------
 */

static void check_alive(struct job *job, const struct place *place)
{
    pty_wait_for(&job->pty, place->shown, SHORT);
    assert_false(is_canonical(&job->pty));
}

/* Stopped from outside, or by the key; resized meanwhile. */
static void stop_and_continue(struct job *job, const struct place *place, bool by_key)
{
    if (by_key) {
        pty_send(&job->pty, "\x1a");
    } else {
        assert_int_equal(kill(job->program, SIGTSTP), 0);
    }
    wait_stopped(job);
    while (pty_pump(&job->pty, 0) && job->pty.bytes.size > 0) {
        int waiting = 0;
        if (ioctl(job->pty.fd, FIONREAD, &waiting) != 0 || waiting == 0) {
            break;
        }
    }
    check_given_back(&job->pty);
    int width = job->pty.width == 80 ? 100 : 80;
    pty_resize(&job->pty, width, 30);
    assert_int_equal(write(job->ask[1], "c", 1), 1);
    check_alive(job, place);
    assert_true(ends_with(&job->pty, "\x1b[?1049h", "\x1b[?1049l"));
}

/* A storm of sizes, from nothing to very large; the last one counts. */
static void storm(struct job *job, const struct place *place, int count)
{
    for (int i = 0; i < count; i++) {
        int width = i % 7 == 0 ? 1 : i % 11 == 0 ? 300 : 1 + rand() % 300;
        int height = i % 5 == 0 ? 1 : i % 13 == 0 ? 100 : 1 + rand() % 100;
        pty_resize(&job->pty, width, height);
        if (i % 16 == 0) {
            pty_pump(&job->pty, 1);
        }
    }
    pty_resize(&job->pty, 80, 24);
    check_alive(job, place);
}

static void test_survived(void **state)
{
    (void)state;
    srand(3);
    for (int i = 0; i < PLACES; i++) {
        struct job job;
        go_to(&job, &places[i]);
        stop_and_continue(&job, &places[i], true);
        stop_and_continue(&job, &places[i], false);
        storm(&job, &places[i], strcmp(places[i].name, "run") == 0 ? 1000 : 40);
        assert_int_equal(kill(job.program, SIGPIPE), 0);
        /* Stopped by what nobody can hear, and the modes changed meanwhile. */
        struct termios modes;
        assert_int_equal(kill(job.program, SIGSTOP), 0);
        wait_stopped(&job);
        assert_int_equal(tcgetattr(job.pty.fd, &modes), 0);
        modes.c_lflag |= ICANON | ECHO;
        assert_int_equal(tcsetattr(job.pty.fd, TCSANOW, &modes), 0);
        assert_int_equal(write(job.ask[1], "c", 1), 1);
        double limit = clock_monotonic() + SHORT;
        while (is_canonical(&job.pty) && clock_monotonic() < limit) {
            pty_pump(&job.pty, 10);
        }
        check_alive(&job, &places[i]);
        assert_int_equal(kill(job.program, SIGTERM), 0);
        expect_code(&job, &places[i], 143);
        check_given_back(&job.pty);
        job_close(&job);
    }
    assert_true(trains());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hang_up),   cmocka_unit_test(test_terminate),
        cmocka_unit_test(test_interrupt), cmocka_unit_test(test_closed),
        cmocka_unit_test(test_survived),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
