/*
 * The terminal: the only part that knows ncurses.
 *
 * However the program ends, the terminal is given back as it was: in order with term_close, on
 * SIGTERM, SIGINT, SIGQUIT, SIGSEGV, SIGBUS, SIGFPE, SIGABRT by a handler that writes bytes
 * prepared at the start and then lets the signal do its work, on SIGHUP quietly with status 129.
 */
#ifndef WINDROW_APP_TERM_H
#define WINDROW_APP_TERM_H

#include "app/canvas.h"
#include "engine/base/error.h"

struct terminal;

/* Takes the terminal on standard input and output. NULL if they are none, or cannot place text.
 * While it is open, what is written to stderr waits for term_close. */
struct terminal *term_open(struct error *err);
void term_close(struct terminal *term);

/* Size now. */
void term_size(const struct terminal *term, int *width, int *height);
enum glyph_set term_glyphs(const struct terminal *term);
enum color_depth term_depth(const struct terminal *term);

/* Shows a canvas; only what differs from the one before is sent. */
void term_draw(struct terminal *term, const struct canvas *canvas);
/* The next term_draw sends everything. */
void term_repaint(struct terminal *term);

/* The next key (enum input or a code point); 0: none now; -1: something to ignore. */
int32_t term_key(struct terminal *term);

/* Becomes readable when the size has changed; term_resized reads it empty and says so. */
int term_resize_fd(const struct terminal *term);
bool term_resized(struct terminal *term);

/* Back to the shell until it continues us. */
void term_suspend(struct terminal *term);

/* Gives the terminal back at once, from anywhere. Nothing if none is open. */
void term_emergency(void);

#endif
