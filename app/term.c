/* The terminal. */
#include "app/term.h"

#include <errno.h>
#include <fcntl.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <termios.h>
#include <unistd.h>
#include <wchar.h>

#define NCURSES_WIDECHAR 1
#include <curses.h>
#include <term.h>

#include "app/keymap.h"
#include "engine/base/xalloc.h"

struct terminal {
    SCREEN *screen;
    enum glyph_set glyphs;
    enum color_depth depth;
    struct canvas shown; /* what the terminal shows; cell NULL: unknown */
    int old_stderr;
    int captured;  /* memory file that takes stderr; -1 */
    int resize[2]; /* pipe */
};

/* What a signal handler needs to give the terminal back; nothing else in the program is global. */
static struct {
    volatile sig_atomic_t open;
    int fd;
    struct termios modes;
    char bytes[256];
    size_t size;
    int resize;
} rescue;

static const int deadly[] = { SIGTERM, SIGINT, SIGQUIT, SIGSEGV, SIGBUS, SIGFPE, SIGABRT };
enum { DEADLY = sizeof(deadly) / sizeof(deadly[0]) };

void term_emergency(void)
{
    if (rescue.open) {
        rescue.open = 0;
        ssize_t written = write(rescue.fd, rescue.bytes, rescue.size);
        (void)written;
        tcsetattr(rescue.fd, TCSANOW, &rescue.modes);
    }
}

static void on_deadly(int number)
{
    term_emergency();
    if (number == SIGHUP) {
        _exit(129);
    }
    signal(number, SIG_DFL);
    raise(number);
}

static void on_resize(int number)
{
    int before = errno;
    ssize_t written = write(rescue.resize, "r", 1);
    (void)number;
    (void)written;
    errno = before;
}

static void install(int number, void (*handler)(int))
{
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_handler = handler;
    sigemptyset(&action.sa_mask);
    action.sa_flags = number == SIGWINCH ? SA_RESTART : (int)SA_NODEFER;
    sigaction(number, &action, NULL);
}

static void add_capability(const char *name)
{
    char mutable_name[16];
    snprintf(mutable_name, sizeof(mutable_name), "%s", name);
    const char *bytes = tigetstr(mutable_name);
    if (bytes && bytes != (const char *)-1) {
        size_t size = strlen(bytes);
        if (rescue.size + size < sizeof(rescue.bytes)) {
            memcpy(rescue.bytes + rescue.size, bytes, size);
            rescue.size += size;
        }
    }
}

/* Prepared while all is well: a handler can only copy. */
static void prepare_rescue(struct terminal *term)
{
    rescue.size = 0;
    rescue.fd = STDOUT_FILENO;
    rescue.resize = term->resize[1];
    add_capability("sgr0");
    add_capability("rmkx");
    add_capability("cnorm");
    add_capability("rmcup");
    rescue.open = 1;
    for (int i = 0; i < DEADLY; i++) {
        install(deadly[i], on_deadly);
    }
    struct sigaction before;
    if (sigaction(SIGHUP, NULL, &before) == 0 && before.sa_handler != SIG_IGN) {
        install(SIGHUP, on_deadly); /* under nohup the end is seen at the terminal itself */
    }
    install(SIGWINCH, on_resize);
    xalloc_install_handler(term_emergency);
}

static enum color_depth choose_depth(void)
{
    const char *none = getenv("NO_COLOR");
    if ((none && none[0]) || !has_colors() || start_color() == ERR) {
        return COLOR_MONO;
    }
    use_default_colors();
    enum color_depth depth = COLORS >= 256  ? COLOR_256
                             : COLORS >= 16 ? COLOR_16
                             : COLORS >= 8  ? COLOR_8
                                            : COLOR_MONO;
    for (int i = 0; i < STYLE_COUNT && depth != COLOR_MONO; i++) {
        struct look look = theme_look((enum style)i, depth);
        if (i + 1 < COLOR_PAIRS) {
            init_pair((short)(i + 1), look.foreground, look.background);
        }
    }
    return depth;
}

static enum glyph_set choose_glyphs(void)
{
    const char *type = getenv("TERM");
    if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0) {
        return GLYPHS_ASCII;
    }
    return type && strcmp(type, "linux") == 0 ? GLYPHS_BLOCK : GLYPHS_BRAILLE;
}

/* Libraries print; on a drawn screen that would stay as dirt. */
static void capture_stderr(struct terminal *term)
{
    term->old_stderr = -1;
    term->captured = memfd_create("stderr", MFD_CLOEXEC);
    if (term->captured >= 0) {
        fflush(stderr);
        term->old_stderr = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
        dup2(term->captured, STDERR_FILENO);
    }
}

static void release_stderr(struct terminal *term)
{
    char bytes[4096];
    if (term->captured < 0) {
        return;
    }
    fflush(stderr);
    dup2(term->old_stderr, STDERR_FILENO);
    close(term->old_stderr);
    lseek(term->captured, 0, SEEK_SET);
    ssize_t size;
    while ((size = read(term->captured, bytes, sizeof(bytes))) > 0) {
        for (ssize_t i = 0; i < size; i++) {
            unsigned char byte = (unsigned char)bytes[i];
            bytes[i] =
                (byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7f ? '?' : (char)byte;
        }
        ssize_t written = write(STDERR_FILENO, bytes, (size_t)size);
        if (written < 0) {
            break;
        }
    }
    close(term->captured);
}

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

struct terminal *term_open(struct error *err)
{
    if (check_terminal(err) != 0) {
        return NULL;
    }
    struct terminal *term = xcalloc(1, sizeof(*term));
    tcgetattr(STDOUT_FILENO, &rescue.modes);
    if (pipe2(term->resize, O_CLOEXEC | O_NONBLOCK) != 0) {
        free(term);
        fail(err, ERROR_RUNTIME, "no pipe can be made: %s", strerror(errno));
        return NULL;
    }
    prepare_rescue(term);
    TERMINAL *checked = cur_term; /* of check_terminal; newterm makes its own */
    term->screen = newterm(NULL, stdout, stdin);
    if (cur_term != checked) {
        del_curterm(checked);
    }
    if (!term->screen) {
        term_emergency();
        free(term);
        fail(err, ERROR_RUNTIME, "the terminal cannot be set up");
        return NULL;
    }
    raw();
    noecho();
    nonl();
    keypad(stdscr, TRUE);
    nodelay(stdscr, TRUE);
    /* Arrows as terminals send them that pass over the request for their other form. */
    define_key("\x1b[A", KEY_UP);
    define_key("\x1b[B", KEY_DOWN);
    define_key("\x1b[C", KEY_RIGHT);
    define_key("\x1b[D", KEY_LEFT);
    meta(stdscr, TRUE);
    leaveok(stdscr, TRUE);
    curs_set(0);
    set_escdelay(25);
    term->depth = choose_depth();
    term->glyphs = choose_glyphs();
    capture_stderr(term);
    return term;
}

void term_close(struct terminal *term)
{
    if (!term) {
        return;
    }
    endwin();
    rescue.open = 0;
    xalloc_install_handler(NULL);
    for (int i = 0; i < DEADLY; i++) {
        install(deadly[i], SIG_DFL);
    }
    install(SIGHUP, SIG_DFL);
    install(SIGWINCH, SIG_DFL);
    delscreen(term->screen);
    canvas_close(&term->shown);
    close(term->resize[0]);
    close(term->resize[1]);
    release_stderr(term);
    free(term);
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

enum glyph_set term_glyphs(const struct terminal *term)
{
    return term->glyphs;
}

enum color_depth term_depth(const struct terminal *term)
{
    return term->depth;
}

/* ---- drawing -----------------------------------------------------------------------------------
 */

static attr_t attributes(const struct terminal *term, enum style style)
{
    struct look look = theme_look(style, term->depth);
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
    short pair = term->depth == COLOR_MONO ? 0 : (short)(cell->style + 1);
    setcchar(&glyph, text, attributes(term, (enum style)cell->style), pair, NULL);
    mvadd_wch(y, x, &glyph);
}

static bool row_has_wide(const struct canvas *canvas, int y)
{
    for (int x = 0; x < canvas->width; x++) {
        if (canvas->cell[y * canvas->width + x].width != 1) {
            return true;
        }
    }
    return false;
}

void term_draw(struct terminal *term, const struct canvas *canvas)
{
    bool all = !term->shown.cell || term->shown.width != canvas->width ||
               term->shown.height != canvas->height;
    for (int y = 0; y < canvas->height; y++) {
        const struct cell *row = &canvas->cell[y * canvas->width];
        const struct cell *old = all ? NULL : &term->shown.cell[y * canvas->width];
        bool whole = all || row_has_wide(canvas, y) || row_has_wide(&term->shown, y);
        if (!whole && memcmp(row, old, (size_t)canvas->width * sizeof(*row)) == 0) {
            continue;
        }
        for (int x = 0; x < canvas->width; x++) {
            bool same = !whole && memcmp(&row[x], &old[x], sizeof(*row)) == 0;
            if (!same && row[x].width > 0) {
                put_cell(term, x, y, &row[x]);
            }
        }
    }
    refresh();
    if (all) {
        canvas_close(&term->shown);
        canvas_open(&term->shown, canvas->width, canvas->height, canvas->glyphs);
    }
    memcpy(term->shown.cell, canvas->cell,
           (size_t)canvas->width * (size_t)canvas->height * sizeof(struct cell));
}

void term_repaint(struct terminal *term)
{
    canvas_close(&term->shown);
    clearok(stdscr, TRUE);
}

/* ---- input -------------------------------------------------------------------------------------
 */

static int32_t translate(wint_t key)
{
    static const struct {
        wint_t from;
        uint32_t to;
    } keys[] = {
        { KEY_UP, INPUT_UP },
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
        { KEY_BACKSPACE, INPUT_BACKSPACE },
    };
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        if (keys[i].from == key) {
            return (int32_t)keys[i].to;
        }
    }
    return -1;
}

int32_t term_key(struct terminal *term)
{
    wint_t key = 0;
    (void)term;
    int kind = get_wch(&key);
    if (kind == ERR) {
        return 0;
    }
    if (kind == KEY_CODE_YES) {
        return translate(key);
    }
    return key == '\n' ? (int32_t)INPUT_ENTER : key == 0 ? -1 : (int32_t)key;
}

int term_resize_fd(const struct terminal *term)
{
    return term->resize[0];
}

bool term_resized(struct terminal *term)
{
    char bytes[64];
    bool any = false;
    while (read(term->resize[0], bytes, sizeof(bytes)) > 0) {
        any = true;
    }
    if (any) {
        int width;
        int height;
        term_size(term, &width, &height);
        resizeterm(height, width);
        term_repaint(term);
    }
    return any;
}

void term_suspend(struct terminal *term)
{
    endwin();
    signal(SIGTSTP, SIG_DFL);
    kill(0, SIGTSTP); /* the whole job: what started us must stop too */
    ssize_t written = write(term->resize[1], "r", 1);
    (void)written;
    term_repaint(term);
    refresh();
}
