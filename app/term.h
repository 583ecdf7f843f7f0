/*
 * The terminal: the only part that knows ncurses.
 *
 * ncurses makes the bytes of a frame; they go out in one piece, without waiting, and no more than
 * the terminal takes (pace.h): what does not fit is drawn from a newer screen later, never queued.
 * However the program ends, the terminal is given back as it was (rescue.h); what it answers is
 * never taken for keys (answer.h).
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

/* The theme with the ground and the depth of the terminal. The ground is what the terminal says,
 * else what COLORFGBG says; it can become known at any term_key. */
struct theme term_theme(const struct terminal *term);
void term_choose_theme(struct terminal *term, enum theme_name name);
/* Whether the mouse is reported; false if this terminal has none. */
bool term_use_mouse(struct terminal *term, bool on);

/* Shows a canvas as far as the terminal takes it now; only what differs from what it shows is
 * sent, first what is new in this canvas. 1: all of it was sent; 0: draw again when term_ready;
 * -1: the terminal is gone. */
int term_draw(struct terminal *term, const struct canvas *canvas);
/* Whether the terminal has taken what was sent before. */
bool term_ready(struct terminal *term);
/* The next term_draw sends everything. */
void term_repaint(struct terminal *term);

/* What to wait for: descriptor and events of output that could not be sent yet (-1: none), which
 * term_flush sends on (-1: the terminal is gone); and the monotonic time at which term_key and
 * term_ready have to be asked though nothing came (INFINITY: never). */
int term_output_fd(const struct terminal *term);
int term_flush(struct terminal *term);
double term_due(const struct terminal *term);

enum term_input {
    TERM_NOTHING, /* no more for now */
    TERM_IGNORE,  /* an answer of the terminal */
    TERM_GROUND,  /* the ground became known: draw again */
    TERM_KEY,
    TERM_MOUSE
};
struct term_event {
    uint32_t key; /* enum input or a code point */
    int button;   /* enum mouse_button */
    int x;
    int y;
};
enum term_input term_read(struct terminal *term, struct term_event *event);

/* Becomes readable when a signal brought news; what they are, enum rescue_news. The size is taken
 * over already. */
int term_news_fd(const struct terminal *term);
unsigned term_news(struct terminal *term);

/* Back to the shell until it continues us. */
void term_suspend(struct terminal *term);
/* Continued after a stop that nobody told us of. */
void term_resume(struct terminal *term);

/* Gives the terminal back at once, from anywhere. Nothing if none is open. */
void term_emergency(void);

#endif
