/*
 * What the screen costs, seen from the other end of a terminal.
 *
 *   bench_ui PROGRAM [SECONDS]
 *
 * A process that pretends to train (20 steps a second, a refresh of 28 matrices every 200) is
 * watched by the program in an emulated terminal. Printed are processor time and bytes to the
 * terminal at 4 and 10 frames a second; the time from a key to what it does on the screen over a
 * link of 4 kB/s; from the start to the first frame; and from the start to a run of 100,000 steps
 * on the screen.
 */
#include <inttypes.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vterm.h>

#include "bench/long_run.h"
#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/run/directory.h"
#include "engine/run/server.h"

enum { STEPS_A_SECOND = 20, MATRICES = 28, LINK = 4096, KEYS = 12 };

static const char *program;
static char folder[] = "/tmp/windrow-bench-XXXXXX";

/* ---- the terminal ------------------------------------------------------------------------------
 */

struct screen {
    int fd;
    pid_t pid;
    VTerm *emulator;
    VTermScreen *cells;
    int width;
    int height;
    int64_t bytes;
    int64_t bytes_a_second; /* of the link; 0: as fast as it goes */
    double begun;           /* of the counting of what the link takes */
    int64_t taken;
};

static void answer(const char *bytes, size_t size, void *context)
{
    struct screen *screen = context;
    if (write(screen->fd, bytes, size) < 0) {
        return; /* the program is gone: the next reading tells */
    }
}

static void start(struct screen *screen, int width, int height, const char *run, int rate)
{
    struct winsize size = { .ws_row = (unsigned short)height, .ws_col = (unsigned short)width };
    struct error err = { 0 };
    char *config = path_join(folder, "config");
    char *path = path_join(config, "windrow/config.json");
    char *place = path_join(config, "windrow");
    char *text = xasprintf("{ \"rate\": %d, \"theme\": \"dark\" }", rate);
    file_make_directories(place, &err);
    file_replace(path, text, strlen(text), &err);
    *screen = (struct screen){ .width = width, .height = height };
    screen->emulator = vterm_new(height, width);
    vterm_set_utf8(screen->emulator, 1);
    vterm_output_set_callback(screen->emulator, answer, screen);
    screen->cells = vterm_obtain_screen(screen->emulator);
    vterm_screen_enable_altscreen(screen->cells, 1);
    vterm_screen_reset(screen->cells, 1);
    screen->begun = clock_monotonic();
    screen->pid = forkpty(&screen->fd, NULL, NULL, &size);
    if (screen->pid == 0) {
        setenv("TERM", "xterm-256color", 1);
        setenv("LC_ALL", "C.UTF-8", 1);
        setenv("XDG_CONFIG_HOME", config, 1);
        setenv("XDG_STATE_HOME", folder, 1);
        setenv("XDG_RUNTIME_DIR", folder, 1);
        unsetenv("NO_COLOR");
        execl(program, "windrow", run ? "attach" : NULL, run, (char *)NULL);
        _exit(127);
    }
    free(config);
    free(path);
    free(place);
    free(text);
}

/* What the link lets through within so many milliseconds; false at the end. */
static bool pump(struct screen *screen, int ms)
{
    char bytes[16384];
    size_t most = sizeof(bytes);
    if (screen->bytes_a_second > 0) {
        double passed = clock_monotonic() - screen->begun;
        int64_t room = (int64_t)(passed * (double)screen->bytes_a_second) - screen->taken;
        int64_t most_saved = screen->bytes_a_second / 64; /* an idle link saves nothing up */
        if (room > most_saved) {
            screen->taken += room - most_saved;
            room = most_saved;
        }
        if (room < 16) {
            usleep(4000);
            return true;
        }
        most = (size_t)room;
    }
    struct pollfd polled = { .fd = screen->fd, .events = POLLIN };
    if (poll(&polled, 1, ms) <= 0) {
        return true;
    }
    ssize_t size = read(screen->fd, bytes, most);
    if (size <= 0) {
        return false;
    }
    screen->bytes += size;
    screen->taken += size;
    vterm_input_write(screen->emulator, bytes, (size_t)size);
    return true;
}

static bool shows(const struct screen *screen, const char *text)
{
    char row[512];
    for (int y = 0; y < screen->height; y++) {
        size_t used = 0;
        for (int x = 0; x < screen->width && used < sizeof(row) - 1; x++) {
            VTermScreenCell cell;
            vterm_screen_get_cell(screen->cells, (VTermPos){ .row = y, .col = x }, &cell);
            row[used++] = cell.chars[0] > ' ' && cell.chars[0] < 0x7f ? (char)cell.chars[0] : ' ';
        }
        row[used] = '\0';
        if (strstr(row, text)) {
            return true;
        }
    }
    return false;
}

/* Seconds until the text is there; ends the program if it never is. */
static double wait_for(struct screen *screen, const char *text)
{
    double begin = clock_monotonic();
    while (!shows(screen, text)) {
        if (clock_monotonic() - begin > 60 || !pump(screen, 1)) {
            fprintf(stderr, "bench_ui: the screen never showed %s\n", text);
            kill(screen->pid, SIGKILL);
            exit(1);
        }
    }
    return clock_monotonic() - begin;
}

static void run_for(struct screen *screen, double seconds)
{
    double end = clock_monotonic() + seconds;
    while (clock_monotonic() < end && pump(screen, 10)) {
    }
}

static void finish(struct screen *screen)
{
    kill(screen->pid, SIGTERM);
    while (pump(screen, 10) && waitpid(screen->pid, NULL, WNOHANG) == 0) {
    }
    close(screen->fd);
    vterm_free(screen->emulator);
}

/* Seconds of the processor that a process has used so far. */
static double used_s(pid_t pid)
{
    char path[64];
    char text[1024] = "";
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    size_t size = file ? fread(text, 1, sizeof(text) - 1, file) : 0;
    if (file) {
        fclose(file);
    }
    text[size] = '\0';
    char *at = strrchr(text, ')');
    for (int field = 0; at && field < 12; field++) {
        at = strchr(at + 1, ' '); /* to the 14th field: utime, then stime */
    }
    char *rest = NULL;
    double ticks = at ? strtod(at, &rest) : 0;
    ticks += rest ? strtod(rest, NULL) : 0;
    return ticks / (double)sysconf(_SC_CLK_TCK);
}

/* ---- the run -----------------------------------------------------------------------------------
 */

/* Says steps until it is killed. */
static void pretend(const char *path)
{
    struct run_directory directory;
    struct error err = { 0 };
    struct buffer text = { 0 };
    char *recipe = path_join(path, "recipe.json");
    if (run_directory_make(path, "bench", &directory, &err) != 0 ||
        file_replace(recipe, "{}", 2, &err) != 0) {
        fprintf(stderr, "bench_ui: %s\n", err.message);
        _exit(1);
    }
    struct server *server = NULL;
    buffer_printf(&text, "{\"event\":\"start\",\"time\":1790000000,\"total_steps\":1000000}\n");
    for (int64_t step = 1;; step++) {
        struct server_command command;
        long_run_step(step, clock_wall(), &text);
        if (step % 200 == 1) {
            long_run_refresh(step, MATRICES, &text);
        }
        run_directory_append(&directory, text.text, text.size, &err);
        text.size = 0;
        if (!server) {
            server = server_open(path, directory.bytes, &err);
        }
        if (server) {
            server_announce(server, directory.bytes, step);
            server_take(server, 0, &command);
        }
        usleep(1000000 / STEPS_A_SECOND);
    }
}

static pid_t start_run(const char *path)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        setenv("XDG_RUNTIME_DIR", folder, 1);
        pretend(path);
    }
    return pid;
}

/* ---- what is measured --------------------------------------------------------------------------
 */

static void measure_following(const char *run, int width, int height, int rate, double seconds)
{
    struct screen screen;
    start(&screen, width, height, run, rate);
    wait_for(&screen, "RUNNING");
    run_for(&screen, 1);
    double used = used_s(screen.pid);
    double begin = clock_monotonic();
    int64_t bytes = screen.bytes;
    run_for(&screen, seconds);
    double passed = clock_monotonic() - begin;
    printf("  %dx%d at %2d Hz: %5.2f %% of a processor, %6.0f bytes/s\n", width, height, rate,
           100 * (used_s(screen.pid) - used) / passed, (double)(screen.bytes - bytes) / passed);
    finish(&screen);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* From a key to the first thing that it changes, while the run goes on drawing. */
static void measure_keys(const char *run)
{
    static const char keys[] = "7123456";
    static const char *const names[] = { "[7 Log]",  "[1 Run]",     "[2 Layers]", "[3 Memory]",
                                         "[4 Tune]", "[5 Compare]", "[6 Samples]" };
    double delay[KEYS];
    struct screen screen;
    start(&screen, 80, 24, run, 4);
    screen.bytes_a_second = LINK;
    wait_for(&screen, "RUNNING");
    run_for(&screen, 3);
    for (int i = 0; i < KEYS; i++) {
        if (write(screen.fd, &keys[i % 7], 1) != 1) {
            break;
        }
        delay[i] = wait_for(&screen, names[i % 7]);
        run_for(&screen, 2.13);
    }
    qsort(delay, KEYS, sizeof(delay[0]), ascending);
    printf("  key to screen at %.0f kB/s, 80x24, %d keys: median %.1f ms, largest %.1f ms\n",
           LINK / 1024.0, KEYS, delay[KEYS / 2] * 1e3, delay[KEYS - 1] * 1e3);
    finish(&screen);
}

static void measure_start(const char *what, const char *run, const char *text)
{
    double least = 1e9;
    double sum = 0;
    for (int i = 0; i < 5; i++) {
        struct screen screen;
        double begin = clock_monotonic();
        start(&screen, 120, 36, run, 4);
        wait_for(&screen, text);
        double passed = clock_monotonic() - begin;
        sum += passed;
        least = passed < least ? passed : least;
        finish(&screen);
    }
    printf("  %s: mean %.0f ms, least %.0f ms of 5\n", what, sum * 200, least * 1e3);
}

static char *make_long(const char *name, int64_t steps)
{
    struct error err = { 0 };
    char *path = path_join(folder, name);
    char *recipe = path_join(path, "recipe.json");
    if (file_make_directories(path, &err) != 0 || long_run_make(path, steps, MATRICES, &err) != 0 ||
        file_replace(recipe, "{}", 2, &err) != 0) {
        fprintf(stderr, "bench_ui: %s\n", err.message);
        exit(1);
    }
    free(recipe);
    return path;
}

int main(int count, char **word)
{
    double seconds = count > 2 ? strtod(word[2], NULL) : 10;
    struct error err = { 0 };
    if (count < 2 || !mkdtemp(folder)) {
        fprintf(stderr, "usage: bench_ui PROGRAM [SECONDS]\n");
        return 2;
    }
    program = word[1];
    char *run = path_join(folder, "running");
    char *events = path_join(run, "events.jsonl");
    printf("the screen of a run that says %d steps a second:\n", STEPS_A_SECOND);
    pid_t trainer = start_run(run);
    while (!file_exists(events)) {
        usleep(10000);
    }
    measure_following(run, 80, 24, 4, seconds);
    measure_following(run, 120, 36, 4, seconds);
    measure_following(run, 120, 36, 10, seconds);
    measure_following(run, 200, 50, 10, seconds);
    measure_keys(run);
    kill(trainer, SIGKILL);
    waitpid(trainer, NULL, 0);
    measure_start("start to the first frame, launcher", NULL, "choose a model");
    char *small = make_long("small", 1000);
    char *large = make_long("large", 100000);
    measure_start("attach to a run of 1,000 steps", small, "1000/1000");
    measure_start("attach to a run of 100,000 steps", large, "100000/100000");
    free(small);
    free(large);
    free(run);
    free(events);
    return file_remove_tree(folder, &err) != 0;
}
