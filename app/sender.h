/*
 * What goes to the terminal: frames in one piece each, without waiting, at its pace.
 *
 * A frame is collected in a memory file, which ncurses writes to. It is sent with the question of
 * pace.h behind it; what the terminal does not take at once waits here and no other frame is made.
 */
#ifndef WINDROW_APP_SENDER_H
#define WINDROW_APP_SENDER_H

#include "app/pace.h"
#include "app/theme.h"
#include "engine/base/error.h"
#include "engine/base/xalloc.h"

/* Where colours are true, the frame names style s by the palette number SENDER_STYLE + s; it
 * becomes the colour of the theme when it is sent. */
enum { SENDER_STYLE = 16 };

struct sender {
    int tty;    /* does not wait if it could be opened so */
    bool waits; /* it could not */
    int frame;  /* the memory file */
    struct buffer unsent;
    size_t sent; /* of it */
    bool gone;   /* the terminal is */
    bool known;  /* it takes and answers xterm's control sequences */
    bool queued; /* one that is not asked had not taken everything when it was last looked at */
    struct pace pace;
};

/* For the terminal at `fd` with the name `type` (TERM). Close it after a failure, too. */
int sender_open(struct sender *sender, int fd, const char *type, struct error *err);
void sender_close(struct sender *sender);

void sender_text(struct sender *sender, const char *text);
/* Sends on what the terminal did not take before. -1: it is gone. */
int sender_flush(struct sender *sender);

/* Empties the memory file; bytes in it; sends them. `whole`: the terminal may show them at once. */
void sender_begin(struct sender *sender);
size_t sender_size(const struct sender *sender);
void sender_frame(struct sender *sender, struct theme theme, bool whole);

/* Whether the terminal has taken what was sent. */
bool sender_ready(struct sender *sender);
/* When that has to be asked again though no answer came; INFINITY: it has not. */
double sender_due(const struct sender *sender);
/* What was under way is of no interest any more. */
void sender_forget(struct sender *sender);

#endif
