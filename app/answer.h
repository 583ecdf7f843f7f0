/*
 * What the terminal answers, told apart from what the user types.
 *
 * Both come the same way, as bytes that begin with Esc. A code is held as long as it may belong to
 * an answer; what turns out to be typed is given out in order, what was an answer never is. An
 * answer may come in pieces and late; a piece that never becomes whole is dropped.
 *
 *     ESC [ 0 n                        the terminal has taken all that was sent before
 *     ESC ] 11 ; rgb:RR/GG/BB ST       its background (1 to 4 digits each; ST is ESC \ or BEL)
 *     ESC [ < button ; x ; y M or m    the mouse
 *     ESC [ ... final, ESC O final     keys that came in pieces; everything else is ignored
 *
 * (ECMA-48 5.4 for the form of control sequences; ctlseqs.txt of xterm for these.)
 */
#ifndef WINDROW_APP_ANSWER_H
#define WINDROW_APP_ANSWER_H

#include <stdbool.h>
#include <stdint.h>

enum answer_kind {
    ANSWER_NONE,  /* nothing whole yet */
    ANSWER_READY, /* what was sent has arrived */
    ANSWER_GROUND,
    ANSWER_MOUSE,
    ANSWER_OTHER
};

enum mouse_button { MOUSE_CLICK, MOUSE_WHEEL_UP, MOUSE_WHEEL_DOWN, MOUSE_NOTHING };

struct answer {
    enum answer_kind kind;
    double red; /* GROUND: 0 .. 1 */
    double green;
    double blue;
    enum mouse_button button; /* MOUSE: what was pressed; releases and moves are NOTHING */
    int x;                    /* columns and rows from 0 */
    int y;
};

enum { ANSWER_SIZE = 64 };

struct answers {
    uint32_t held[ANSWER_SIZE];
    int count;
    double taken_at; /* monotonic time of the newest code, set by who takes it */
    bool too_long;   /* what is held is only its beginning */
    uint32_t key[2 * ANSWER_SIZE];
    int key_count;
};

/* Takes one code; `answer` says what became whole with it. */
void answer_take(struct answers *answers, uint32_t code, struct answer *answer);
/* Takes a key that cannot be part of an answer. */
void answer_take_key(struct answers *answers, uint32_t key);
/* The next key that was typed; 0: none. */
uint32_t answer_key(struct answers *answers);
/* When what is held can no longer be the beginning of an answer; INFINITY: nothing is held. A lone
 * Esc is held only while the terminal owes an answer. */
double answer_held_until(const struct answers *answers, bool owed);
/* Nothing more came: a lone Esc was typed; what began like an answer is dropped. */
void answer_give_up(struct answers *answers);

#endif
