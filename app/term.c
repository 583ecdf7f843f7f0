/* The terminal. */
#include "app/term.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>
#include <wchar.h>

#define NCURSES_WIDECHAR 1
#include <curses.h>
#include <term.h>

#include "app/answer.h"
#include "app/aside.h"
#include "app/keymap.h"
#include "app/rescue.h"
#include "app/sender.h"
#include "engine/base/clock.h"
#include "engine/base/xalloc.h"

static const double probe_seconds = 0.1; /* the first frame waits this long for the ground */

struct terminal {
    SCREEN *screen;
    WINDOW *input; /* a pad: reading from it draws nothing */
    FILE *stream;  /* what ncurses writes to; leads to sender.frame while a frame is made */
    struct sender sender;
    enum glyph_set glyphs;
    struct theme theme;
    bool mouse;
    struct canvas shown; /* what the terminal shows; cell NULL: unknown */
    struct canvas asked; /* the last canvas that was to be shown */
    struct answers answers;
    struct aside aside;
};

void term_emergency(void)
{
    rescue_now();
}

/* ---- what the terminal can -------------------------------------------------------------------
 */

static void add_capability(const char *name)
{
    char mutable_name[16];
    snprintf(mutable_name, sizeof(mutable_name), "%s", name);
    const char *bytes = tigetstr(mutable_name);
    rescue_add(bytes == (const char *)-1 ? NULL : bytes);
}

static const char mouse_off[] = "\x1b[?1006l\x1b[?1000l";
static const char mouse_on[] = "\x1b[?1000h\x1b[?1006h";

static void prepare_rescue(const struct terminal *term)
{
    add_capability("sgr0");
    add_capability("rmkx");
    rescue_add(term->sender.known ? mouse_off : NULL);
    add_capability("cnorm");
    add_capability("rmcup");
    rescue_arm(term->sender.tty);
}

/* Colours beyond the palette are written where ncurses names a number of it, so its way to name
 * one has to be the usual. */
static bool has_true_colors(void)
{
    const char *said = getenv("COLORTERM");
    const char *usual =
        set_a_foreground ? tparm(set_a_foreground, 16L, 0L, 0L, 0L, 0L, 0L, 0L, 0L, 0L) : NULL;
    return said && (strcmp(said, "truecolor") == 0 || strcmp(said, "24bit") == 0) && usual &&
           strcmp(usual, "\x1b[38;5;16m") == 0;
}

static enum color_depth choose_depth(void)
{
    const char *none = getenv("NO_COLOR");
    if ((none && none[0]) || !has_colors() || start_color() == ERR || COLORS < 8) {
        return COLOR_MONO;
    }
    use_default_colors();
    return COLORS < 16         ? COLOR_8
           : COLORS < 256      ? COLOR_16
           : has_true_colors() ? COLOR_TRUE
                               : COLOR_256;
}

static void apply_theme(struct terminal *term)
{
    for (int i = 0; i < STYLE_COUNT && term->theme.depth != COLOR_MONO && i + 1 < COLOR_PAIRS;
         i++) {
        short color = theme_look(term->theme, (enum style)i).foreground;
        if (color >= 0 && term->theme.depth == COLOR_TRUE) {
            color = (short)(SENDER_STYLE + i);
        }
        init_pair((short)(i + 1), color, -1);
    }
    term_repaint(term);
}

void term_choose_theme(struct terminal *term, enum theme_name name)
{
    if (term->theme.name != name) {
        term->theme.name = name;
        apply_theme(term);
    }
}

struct theme term_theme(const struct terminal *term)
{
    return term->theme;
}

enum glyph_set term_glyphs(const struct terminal *term)
{
    return term->glyphs;
}

void term_size(const struct terminal *term, int *width, int *height)
{
    struct winsize size;
    (void)term;
    *width = 80;
    *height = 24;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_row > 0) {
        *width = size.ws_col;
        *height = size.ws_row;
    }
}

/* ---- drawing ------------------------------------------------------------------------------------
 */

static attr_t attributes(const struct terminal *term, enum style style)
{
    struct look look = theme_look(term->theme, style);
    return (look.bold ? A_BOLD : A_NORMAL) | (look.dim ? A_DIM : A_NORMAL) |
           (look.reverse ? A_REVERSE : A_NORMAL);
}

static void put_cell(const struct terminal *term, int x, int y, const struct cell *cell)
{
    wchar_t text[4] = { (wchar_t)cell->code, (wchar_t)cell->mark[0], (wchar_t)cell->mark[1], 0 };
    /* Where the C library disagrees about the width, columns would shift. */
    if (cell->code > 0x7e && wcwidth(text[0]) != cell->width) {
        text[0] = L'?';
        text[1] = 0;
        if (cell->width == 2) {
            mvaddch(y, x + 1, '?');
        }
    }
    if (text[1] && (wcwidth(text[1]) != 0 || (text[2] && wcwidth(text[2]) != 0))) {
        text[1] = 0;
    }
    cchar_t glyph;
    short pair = term->theme.depth == COLOR_MONO ? 0 : (short)(cell->style + 1);
    setcchar(&glyph, text, attributes(term, (enum style)cell->style), pair, NULL);
    mvadd_wch(y, x, &glyph);
}

/* Bytes that may still be sent in this frame. */
struct room {
    size_t limit;
    size_t used;  /* when ncurses was last asked */
    size_t cells; /* put since then */
};

/* Whether the room is used up. ncurses knows what its cells take once it has written them, which it
 * is asked to do only when they might take all of the rest. */
static bool is_full(struct terminal *term, struct room *room)
{
    enum { CELL_BYTES = 16 }; /* with a change of style, in most cases */
    if (room->used + room->cells * CELL_BYTES < room->limit) {
        return false;
    }
    refresh();
    room->used = sender_size(&term->sender);
    room->cells = 0;
    return room->used >= room->limit;
}

/* Puts a row, some columns at a time; false if there is no more room. */
static bool put_row(struct terminal *term, const struct canvas *canvas, int y, struct room *room)
{
    const struct cell *row = canvas_row(canvas, y);
    struct cell *old = &term->shown.cell[y * canvas->width];
    bool wide = canvas_row_is_wide(canvas, y) || canvas_row_is_wide(&term->shown, y);
    int step = wide ? canvas->width : 16;
    for (int from = 0; from < canvas->width; from += step) {
        int to = from + step < canvas->width ? from + step : canvas->width;
        for (int x = from; x < to; x++) {
            bool same = !wide && memcmp(&row[x], &old[x], sizeof(*row)) == 0;
            if (!same && row[x].width > 0) {
                put_cell(term, x, y, &row[x]);
                room->cells++;
            }
        }
        memcpy(&old[from], &row[from], (size_t)(to - from) * sizeof(*row));
        if (is_full(term, room)) {
            return false;
        }
    }
    return true;
}

/* Rows that differ from what is shown; what is new in this canvas before what is left of others. */
static bool put_rows(struct terminal *term, const struct canvas *canvas, size_t limit)
{
    struct room room = { .limit = limit, .used = sender_size(&term->sender) };
    for (int pass = 0; pass < 2; pass++) {
        for (int y = 0; y < canvas->height; y++) {
            bool fresh = pass == 1 || canvas_row_differs(canvas, &term->asked, y);
            if (fresh && canvas_row_differs(canvas, &term->shown, y) &&
                !put_row(term, canvas, y, &room)) {
                return false;
            }
        }
    }
    refresh();
    return true;
}

/* From here on what ncurses writes is a frame, or goes to the terminal again. */
static void collect(struct terminal *term, bool on)
{
    if (on) {
        sender_begin(&term->sender);
    }
    dup3(on ? term->sender.frame : STDOUT_FILENO, fileno(term->stream), O_CLOEXEC);
}

static void begin_anew(struct terminal *term, const struct canvas *canvas)
{
    canvas_close(&term->shown);
    canvas_close(&term->asked);
    canvas_open(&term->shown, canvas->width, canvas->height, canvas->glyphs);
    canvas_open(&term->asked, canvas->width, canvas->height, canvas->glyphs);
    erase();
    clearok(stdscr, TRUE);
    refresh();
}

int term_draw(struct terminal *term, const struct canvas *canvas)
{
    size_t limit = pace_limit(&term->sender.pace);
    if (term->sender.gone || !sender_ready(&term->sender)) {
        return term->sender.gone ? -1 : 0;
    }
    collect(term, true);
    if (!term->shown.cell || term->shown.width != canvas->width ||
        term->shown.height != canvas->height) {
        begin_anew(term, canvas);
    }
    bool whole = put_rows(term, canvas, limit);
    canvas_copy(&term->asked, canvas);
    sender_frame(&term->sender, term->theme, whole);
    collect(term, false);
    return term->sender.gone ? -1 : whole;
}

bool term_ready(struct terminal *term)
{
    return sender_ready(&term->sender);
}

int term_output_fd(const struct terminal *term)
{
    return term->sender.unsent.size > 0 ? term->sender.tty : -1;
}

int term_flush(struct terminal *term)
{
    return sender_flush(&term->sender);
}

void term_repaint(struct terminal *term)
{
    canvas_close(&term->shown);
}

/* ---- input -------------------------------------------------------------------------------------
 */

static uint32_t translate(wint_t key)
{
    static const struct {
        wint_t from;
        uint32_t to;
    } keys[] = { { KEY_UP, INPUT_UP },
                 { KEY_DOWN, INPUT_DOWN },
                 { KEY_LEFT, INPUT_LEFT },
                 { KEY_RIGHT, INPUT_RIGHT },
                 { KEY_PPAGE, INPUT_PAGE_UP },
                 { KEY_NPAGE, INPUT_PAGE_DOWN },
                 { KEY_HOME, INPUT_HOME },
                 { KEY_END, INPUT_END },
                 { KEY_BTAB, INPUT_BACK_TAB },
                 { KEY_DC, INPUT_DELETE },
                 { KEY_F(1), INPUT_F1 },
                 { KEY_ENTER, INPUT_ENTER },
                 { KEY_BACKSPACE, INPUT_BACKSPACE } };
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        if (keys[i].from == key) {
            return keys[i].to;
        }
    }
    return 0;
}

static enum term_input take_answer(struct terminal *term, const struct answer *answer,
                                   struct term_event *event)
{
    if (answer->kind == ANSWER_READY) {
        pace_answered(&term->sender.pace, clock_monotonic());
    } else if (answer->kind == ANSWER_GROUND) {
        enum ground ground = theme_ground(answer->red, answer->green, answer->blue);
        if (ground != term->theme.ground) {
            term->theme.ground = ground;
            apply_theme(term);
            return TERM_GROUND;
        }
    } else if (answer->kind == ANSWER_MOUSE && answer->button != MOUSE_NOTHING && term->mouse) {
        *event = (struct term_event){ 0, (int)answer->button, answer->x, answer->y };
        return TERM_MOUSE;
    }
    return TERM_IGNORE;
}

/* Takes one code from the terminal; false if there is none. */
static bool take_code(struct terminal *term, struct answer *answer)
{
    wint_t code = 0;
    int kind = wget_wch(term->input, &code);
    answer->kind = ANSWER_OTHER;
    if (kind == ERR) {
        return false;
    }
    if (kind == KEY_CODE_YES) {
        uint32_t key = translate(code);
        if (key != 0) {
            answer_take_key(&term->answers, key);
        }
    } else if (code != 0) {
        answer_take(&term->answers, code == '\n' ? INPUT_ENTER : (uint32_t)code, answer);
        term->answers.taken_at = clock_monotonic();
    }
    return true;
}

enum term_input term_read(struct terminal *term, struct term_event *event)
{
    struct answer answer;
    *event = (struct term_event){ .key = answer_key(&term->answers) };
    if (event->key != 0) {
        return TERM_KEY;
    }
    if (take_code(term, &answer)) {
        return take_answer(term, &answer, event);
    }
    if (clock_monotonic() >= answer_held_until(&term->answers, term->sender.pace.unanswered > 0)) {
        answer_give_up(&term->answers);
        return TERM_IGNORE;
    }
    return TERM_NOTHING;
}

double term_due(const struct terminal *term)
{
    return fmin(sender_due(&term->sender),
                answer_held_until(&term->answers, term->sender.pace.unanswered > 0));
}

/* Takes answers for so long, or until none is expected any more; keys are kept. */
static void await_answers(struct terminal *term, double seconds)
{
    double end = clock_monotonic() + seconds;
    double now;
    while (!term->sender.gone && term->sender.pace.unanswered > 0 &&
           (now = clock_monotonic()) < end) {
        struct pollfd polled = { .fd = STDIN_FILENO, .events = POLLIN };
        struct answer answer;
        struct term_event ignored;
        if (poll(&polled, 1, (int)((end - now) * 1000) + 1) > 0 && !(polled.revents & POLLIN)) {
            return;
        }
        sender_flush(&term->sender);
        while (term->answers.key_count < ANSWER_SIZE && take_code(term, &answer)) {
            take_answer(term, &answer, &ignored);
        }
    }
}

/* ---- the mouse, signals -------------------------------------------------------------------------
 */

bool term_use_mouse(struct terminal *term, bool on)
{
    if (term->sender.known && on != term->mouse) {
        term->mouse = on;
        sender_text(&term->sender, on ? mouse_on : mouse_off);
    }
    return term->sender.known;
}

int term_news_fd(const struct terminal *term)
{
    (void)term;
    return rescue_fd();
}

unsigned term_news(struct terminal *term)
{
    unsigned news = rescue_take();
    if (news & RESCUE_RESIZED) {
        int width;
        int height;
        term_size(term, &width, &height);
        resizeterm(height, width);
        term_repaint(term);
    }
    return news;
}

/* Nothing of ours is to arrive later; nothing of the terminal's is to be left for others. */
static void leave(struct terminal *term)
{
    if (term->mouse) {
        sender_text(&term->sender, mouse_off);
    }
    await_answers(term, 0.2);
    if (term->sender.pace.unanswered > 0) {
        tcflush(STDIN_FILENO, TCIFLUSH);
    }
    endwin();
}

void term_resume(struct terminal *term)
{
    /* Answers that were under way went to somebody else. */
    sender_forget(&term->sender);
    rescue_take();
    int width;
    int height;
    term_size(term, &width, &height);
    resizeterm(height, width);
    endwin(); /* whatever the modes are now */
    refresh();
    if (term->mouse) {
        sender_text(&term->sender, mouse_on);
    }
    term_repaint(term);
}

void term_suspend(struct terminal *term)
{
    leave(term);
    rescue_stop();
    term_resume(term);
}

/* ---- open and close
 * ------------------------------------------------------------------------------
 */

static int check_terminal(struct error *err)
{
    int result = 0;
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)) {
        fail(err, ERROR_USAGE, "this needs a terminal on standard input and output");
        return hint(err, "windrow show RUN and windrow runs print the same as text");
    }
    if (setupterm(NULL, STDOUT_FILENO, &result) == ERR || !cursor_address) {
        const char *type = getenv("TERM");
        fail(err, ERROR_USAGE, "TERM=%.40s names no terminal that can place text",
             type ? type : "(unset)");
        return hint(err, "try TERM=xterm-256color");
    }
    return 0;
}

static int open_output(struct terminal *term, struct error *err)
{
    if (sender_open(&term->sender, STDOUT_FILENO, getenv("TERM"), err) != 0 ||
        rescue_open(STDOUT_FILENO, err) != 0) {
        return -1;
    }
    int copy = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
    term->stream = copy >= 0 ? fdopen(copy, "w") : NULL;
    return term->stream
               ? 0
               : fail(err, ERROR_RUNTIME, "the terminal cannot be set up: %s", strerror(errno));
}

static void close_output(struct terminal *term)
{
    if (term->stream) {
        fclose(term->stream);
    }
    sender_close(&term->sender);
    free(term);
}

static void set_up_keys(struct terminal *term)
{
    raw();
    noecho();
    nonl();
    term->input = newpad(1, 1);
    keypad(term->input, TRUE);
    nodelay(term->input, TRUE);
    /* Arrows as terminals send them that pass over the request for their other form. */
    define_key("\x1b[A", KEY_UP);
    define_key("\x1b[B", KEY_DOWN);
    define_key("\x1b[C", KEY_RIGHT);
    define_key("\x1b[D", KEY_LEFT);
    define_key(NULL, KEY_MOUSE); /* answer.h reads it */
    meta(term->input, TRUE);
    typeahead(-1); /* a frame is whole or not begun */
    leaveok(stdscr, TRUE);
    curs_set(0);
    set_escdelay(25);
}

/* Asks for the ground and, behind it, for a sign of life: what does not know the first answers the
 * second. */
static void probe(struct terminal *term)
{
    term->theme.ground = theme_ground_of(getenv("COLORFGBG"));
    if (!term->sender.known) {
        return;
    }
    sender_text(&term->sender,
                term->theme.depth == COLOR_MONO ? "\x1b[5n" : "\x1b]11;?\x1b\\\x1b[5n");
    pace_sent(&term->sender.pace, 0, clock_monotonic());
    await_answers(term, probe_seconds);
}

struct terminal *term_open(struct error *err)
{
    if (check_terminal(err) != 0) {
        return NULL;
    }
    struct terminal *term = xcalloc(1, sizeof(*term));
    if (open_output(term, err) != 0) {
        close_output(term);
        return NULL;
    }
    prepare_rescue(term);
    TERMINAL *checked = cur_term; /* of check_terminal; newterm makes its own */
    term->screen = newterm(NULL, term->stream, stdin);
    if (cur_term != checked) {
        del_curterm(checked);
    }
    if (!term->screen) {
        rescue_now();
        rescue_disarm();
        close_output(term);
        fail(err, ERROR_RUNTIME, "the terminal cannot be set up");
        return NULL;
    }
    set_up_keys(term);
    refresh();
    term->theme.depth = choose_depth();
    term->glyphs = glyph_set_here();
    probe(term);
    apply_theme(term);
    aside_begin(&term->aside);
    return term;
}

void term_close(struct terminal *term)
{
    if (!term) {
        return;
    }
    leave(term);
    rescue_disarm();
    delwin(term->input);
    delscreen(term->screen);
    canvas_close(&term->shown);
    canvas_close(&term->asked);
    aside_end(&term->aside);
    close_output(term);
}
