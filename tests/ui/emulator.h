/* A program in a terminal: a pseudo-terminal with an emulator (libvterm) at its other end. */
#ifndef WINDROW_TESTS_UI_EMULATOR_H
#define WINDROW_TESTS_UI_EMULATOR_H

#include <stdbool.h>
#include <sys/types.h>
#include <vterm.h>

#include "app/canvas.h"
#include "app/term.h"
#include "engine/base/xalloc.h"

struct pty {
    int fd;
    pid_t pid;
    VTerm *emulator;
    VTermScreen *screen;
    struct buffer bytes; /* everything the program wrote */
    bool mute;           /* the emulator answers nothing */
    int width;
    int height;
};

/* Runs `child` in a new process on a terminal of that size; its result is the exit code. */
void pty_start(struct pty *pty, int width, int height, int (*child)(void *context), void *context);
/* In the child: shows all of a canvas as the loop does, in pieces, each when the terminal has taken
 * the one before. */
void child_draw(struct terminal *terminal, const struct canvas *canvas);
/* Feeds the emulator with what comes within so many milliseconds; false at the end of file. */
bool pty_pump(struct pty *pty, int ms);
void pty_send(struct pty *pty, const char *keys);
void pty_resize(struct pty *pty, int width, int height);
/* One row as UTF-8 (xmalloc'd). */
char *pty_row(const struct pty *pty, int row);
/* Whether any row holds the text. */
bool pty_shows(const struct pty *pty, const char *text);
/* Whether all threads of the program wait for something: one that only did not get its turn yet
 * is not done. */
bool pty_rests(const struct pty *pty);
/* Pumps until it does; fails the test after `seconds` of a machine with nothing else to do. */
void pty_wait_for(struct pty *pty, const char *text, double seconds);
/* Pumps until the emulated screen equals the canvas; fails the test after `seconds`. */
void pty_wait_canvas(struct pty *pty, const struct canvas *canvas, double seconds);
/* Waits for the end of the process, at most `seconds`; its wait status. */
int pty_end(struct pty *pty, double seconds);
/* Frees what is left (kills the process if it still runs). */
void pty_close(struct pty *pty);

#endif
