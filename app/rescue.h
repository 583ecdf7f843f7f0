/*
 * Gives the terminal back however the program ends.
 *
 * What a signal handler needs is prepared while all is well: it can only copy. SIGTERM, SIGINT,
 * SIGQUIT, SIGSEGV, SIGBUS, SIGFPE and SIGABRT write the prepared bytes, restore the modes and then
 * do their work; SIGHUP ends the program quietly with status 129. SIGWINCH, SIGTSTP and SIGCONT are
 * only told, through a pipe.
 */
#ifndef WINDROW_APP_RESCUE_H
#define WINDROW_APP_RESCUE_H

#include <stddef.h>

#include "engine/base/error.h"

enum rescue_news { RESCUE_RESIZED = 1, RESCUE_STOP_ASKED = 2, RESCUE_CONTINUED = 4 };

/* Remembers the modes of the terminal at `fd` and makes the pipe. Nothing is installed yet. */
int rescue_open(int fd, struct error *err);
/* Bytes that undo what was done to the screen, added to those before. */
void rescue_add(const char *bytes);
/* Installs the handlers; they write to `fd`, which may refuse to wait. */
void rescue_arm(int fd);
/* Default actions again; nothing is given back any more. */
void rescue_disarm(void);
/* Gives the terminal back at once, from anywhere. Nothing if it is not armed. */
void rescue_now(void);

/* Becomes readable when there is news; the news since the last call, enum rescue_news or'ed. */
int rescue_fd(void);
unsigned rescue_take(void);
/* Stops the process as SIGTSTP does, and returns when it is continued. */
void rescue_stop(void);

#endif
