/* A program in a terminal. */
#include "emulator.h"

#include <dirent.h>
#include <locale.h>
#include <poll.h>
#include <pty.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/base/clock.h"

/* Limits are those of a machine that does nothing else; builds beside the tests take their part. */
static const double patience = 6;

static void answer(const char *bytes, size_t size, void *context)
{
    struct pty *pty = context;
    ssize_t written = pty->mute ? 0 : write(pty->fd, bytes, size);
    (void)written;
}

void child_draw(struct terminal *terminal, const struct canvas *canvas)
{
    struct term_event ignored;
    while (term_draw(terminal, canvas) == 0 || term_output_fd(terminal) >= 0) {
        struct pollfd polled[] = { { .fd = STDIN_FILENO, .events = POLLIN },
                                   { .fd = term_output_fd(terminal), .events = POLLOUT } };
        poll(polled, 2, 20);
        while (term_read(terminal, &ignored) != TERM_NOTHING) {
        }
        term_flush(terminal);
    }
}

void pty_start(struct pty *pty, int width, int height, int (*child)(void *context), void *context)
{
    struct winsize size = { .ws_row = (unsigned short)height, .ws_col = (unsigned short)width };
    memset(pty, 0, sizeof(*pty));
    pty->width = width;
    pty->height = height;
    fflush(NULL);
    pty->pid = forkpty(&pty->fd, NULL, NULL, &size);
    assert_true(pty->pid >= 0);
    if (pty->pid == 0) {
        struct rlimit none = { 0, 0 };
        setrlimit(RLIMIT_CORE, &none);
        setenv("TERM", "xterm-256color", 1);
        setenv("LC_ALL", "C.UTF-8", 1);
        unsetenv("LINES");
        unsetenv("COLUMNS");
        unsetenv("NO_COLOR");
        unsetenv("COLORTERM");
        unsetenv("COLORFGBG");
        unsetenv("WINDROW_THEME");
        setlocale(LC_CTYPE, "");
        _exit(child(context));
    }
    pty->emulator = vterm_new(height, width);
    vterm_set_utf8(pty->emulator, 1);
    vterm_output_set_callback(pty->emulator, answer, pty);
    pty->screen = vterm_obtain_screen(pty->emulator);
    vterm_screen_enable_altscreen(pty->screen, 1);
    vterm_screen_reset(pty->screen, 1);
}

bool pty_pump(struct pty *pty, int ms)
{
    char bytes[16384];
    struct pollfd polled = { .fd = pty->fd, .events = POLLIN };
    if (poll(&polled, 1, ms) <= 0) {
        return true;
    }
    ssize_t size = read(pty->fd, bytes, sizeof(bytes));
    if (size <= 0) {
        return false;
    }
    buffer_append(&pty->bytes, bytes, (size_t)size);
    vterm_input_write(pty->emulator, bytes, (size_t)size);
    return true;
}

void pty_send(struct pty *pty, const char *keys)
{
    assert_int_equal(write(pty->fd, keys, strlen(keys)), strlen(keys));
}

void pty_resize(struct pty *pty, int width, int height)
{
    struct winsize size = { .ws_row = (unsigned short)height, .ws_col = (unsigned short)width };
    pty->width = width;
    pty->height = height;
    vterm_set_size(pty->emulator, height, width);
    assert_int_equal(ioctl(pty->fd, TIOCSWINSZ, &size), 0);
}

static uint32_t code_at(const struct pty *pty, int x, int y, VTermScreenCell *cell)
{
    VTermPos position = { .row = y, .col = x };
    vterm_screen_get_cell(pty->screen, position, cell);
    return cell->chars[0] == 0 ? ' ' : cell->chars[0];
}

char *pty_row(const struct pty *pty, int row)
{
    struct buffer out = { 0 };
    for (int x = 0; x < pty->width; x++) {
        VTermScreenCell cell;
        uint32_t code = code_at(pty, x, row, &cell);
        if (code == (uint32_t)-1) {
            continue; /* second column of a wide glyph */
        }
        char byte = code < 0x7f ? (char)code : '*';
        buffer_append(&out, &byte, 1);
    }
    return out.text;
}

bool pty_shows(const struct pty *pty, const char *text)
{
    bool found = false;
    for (int y = 0; y < pty->height && !found; y++) {
        char *row = pty_row(pty, y);
        found = strstr(row, text) != NULL;
        free(row);
    }
    return found;
}

bool pty_rests(const struct pty *pty)
{
    char folder[64];
    snprintf(folder, sizeof folder, "/proc/%ld/task", (long)pty->pid);
    DIR *threads = opendir(folder);
    const struct dirent *entry;
    bool asleep = true;
    while (threads && asleep && (entry = readdir(threads))) {
        char path[400];
        char stat[256] = "";
        snprintf(path, sizeof path, "%s/%s/stat", folder, entry->d_name);
        FILE *file = entry->d_name[0] == '.' ? NULL : fopen(path, "r");
        if (file) {
            const char *line = fgets(stat, sizeof stat, file);
            const char *name_end = line ? strrchr(line, ')') : NULL;
            asleep = !name_end || name_end[2] == 'S';
            fclose(file);
        }
    }
    if (threads) {
        closedir(threads);
    }
    return asleep;
}

static void dump(const struct pty *pty)
{
    size_t from = pty->bytes.size > 400 ? pty->bytes.size - 400 : 0;
    print_error("the last bytes: ");
    for (size_t i = from; i < pty->bytes.size; i++) {
        unsigned char byte = (unsigned char)pty->bytes.text[i];
        print_error(byte < 0x20 ? "^%c" : "%c", byte < 0x20 ? byte + '@' : byte);
    }
    print_error("\n");
    for (int y = 0; y < pty->height; y++) {
        char *row = pty_row(pty, y);
        print_error("%s|\n", row);
        free(row);
    }
}

void pty_wait_for(struct pty *pty, const char *text, double seconds)
{
    double end = clock_monotonic() + patience * seconds;
    while (!pty_shows(pty, text)) {
        if (clock_monotonic() > end || !pty_pump(pty, 20)) {
            dump(pty);
            fail_msg("the screen never showed: %s", text);
        }
    }
}

/* The first cell that differs, or -1. */
static int difference(const struct pty *pty, const struct canvas *canvas)
{
    for (int y = 0; y < canvas->height; y++) {
        for (int x = 0; x < canvas->width; x++) {
            VTermScreenCell shown;
            const struct cell *wanted = &canvas->cell[y * canvas->width + x];
            uint32_t code = code_at(pty, x, y, &shown);
            struct theme theme = { .depth = COLOR_256 };
            struct look look = theme_look(theme, (enum style)wanted->style);
            bool same =
                wanted->width == 0 || (code == wanted->code && (int)shown.width == wanted->width &&
                                       (shown.attrs.reverse != 0) == look.reverse &&
                                       (code == ' ' || (shown.attrs.bold != 0) == look.bold));
            if (!same) {
                return y * canvas->width + x;
            }
        }
    }
    return -1;
}

void pty_wait_canvas(struct pty *pty, const struct canvas *canvas, double seconds)
{
    double end = clock_monotonic() + patience * seconds;
    int at;
    while ((at = difference(pty, canvas)) >= 0) {
        if (clock_monotonic() > end || !pty_pump(pty, 20)) {
            dump(pty);
            fail_msg("row %d, column %d: wanted U+%04X", at / canvas->width, at % canvas->width,
                     (unsigned)canvas->cell[at].code);
        }
    }
}

int pty_end(struct pty *pty, double seconds)
{
    double end = clock_monotonic() + patience * seconds;
    int status = 0;
    while (waitpid(pty->pid, &status, WNOHANG) == 0) {
        if (clock_monotonic() > end) {
            fail_msg("the process did not end");
        }
        if (pty->fd < 0 || !pty_pump(pty, 20)) {
            usleep(10000);
        }
    }
    pty->pid = 0;
    while (pty->fd >= 0 && pty_pump(pty, 0)) {
        struct pollfd polled = { .fd = pty->fd, .events = POLLIN };
        if (poll(&polled, 1, 0) <= 0) {
            break;
        }
    }
    return status;
}

void pty_close(struct pty *pty)
{
    if (pty->pid > 0) {
        kill(pty->pid, SIGKILL);
        waitpid(pty->pid, NULL, 0);
    }
    if (pty->fd >= 0) {
        close(pty->fd);
    }
    vterm_free(pty->emulator);
    buffer_free(&pty->bytes);
}
