/*
 * The one table of actions: it decides what a key does, what the footer offers and what help says.
 *
 * A key means one thing in a context; a test walks the table and fails where two actions of
 * overlapping contexts share a key. Digits switch screens, so numbers are typed only in an edit
 * field, which Enter opens.
 */
#ifndef WINDROW_APP_KEYMAP_H
#define WINDROW_APP_KEYMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Keys: Unicode code points, and these. */
enum input {
    INPUT_BACKSPACE = 8,
    INPUT_TAB = 9,
    INPUT_ENTER = 13,
    INPUT_ESCAPE = 27,
    INPUT_UP = 0x200000,
    INPUT_DOWN,
    INPUT_LEFT,
    INPUT_RIGHT,
    INPUT_PAGE_UP,
    INPUT_PAGE_DOWN,
    INPUT_HOME,
    INPUT_END,
    INPUT_BACK_TAB,
    INPUT_DELETE,
    INPUT_F1
};

enum context {
    IN_LAUNCHER = 1,
    IN_DASHBOARD = 2,
    IN_LAYERS = 4,
    IN_MEMORY = 8,
    IN_TUNE = 16,
    IN_SAMPLES = 32,
    IN_LOG = 64,
    IN_COMPARE = 128,
    IN_LIST = 256, /* the list of runs that lies over a screen */
    IN_FORM = 512,
    IN_RUN = IN_DASHBOARD | IN_LAYERS | IN_MEMORY | IN_TUNE | IN_SAMPLES | IN_LOG | IN_COMPARE,
    IN_HOME = IN_LAUNCHER | IN_FORM,
    IN_ALL = IN_HOME | IN_RUN | IN_LIST
};

enum action {
    ACTION_NONE,
    ACTION_HELP,
    ACTION_LEAVE,
    ACTION_DETACH,
    ACTION_INTERRUPT,
    ACTION_ENTER,
    ACTION_BACK,
    ACTION_UP,
    ACTION_DOWN,
    ACTION_LEFT,
    ACTION_RIGHT,
    ACTION_PAGE_UP,
    ACTION_PAGE_DOWN,
    ACTION_FIRST,
    ACTION_LAST,
    ACTION_NEXT_PANE,
    ACTION_PREVIOUS_PANE,
    ACTION_ADD,
    ACTION_OVERRIDE,
    ACTION_FORM,
    ACTION_FIT,
    ACTION_COMMAND_LINE,
    ACTION_PRESET,
    ACTION_RESUME,
    ACTION_REMOVE,
    ACTION_FILTER,
    ACTION_CHANGED,
    ACTION_RESET,
    ACTION_CLOSE,
    ACTION_HOME,
    ACTION_SCREEN_1, /* the screens in the order of the tabs */
    ACTION_SCREEN_2,
    ACTION_SCREEN_3,
    ACTION_SCREEN_4,
    ACTION_SCREEN_5,
    ACTION_SCREEN_6,
    ACTION_SCREEN_7,
    ACTION_COMMAND,
    ACTION_SEARCH,
    ACTION_ONLY,
    ACTION_NEXT_MATCH,
    ACTION_PREVIOUS_MATCH,
    ACTION_PROMPT,
    ACTION_RUNS,
    ACTION_NEXT_RUN,
    ACTION_PREVIOUS_RUN,
    ACTION_FORK,
    ACTION_PRUNE,
    ACTION_MARK,
    ACTION_AXIS,
    ACTION_METRIC,
    ACTION_PAUSE,
    ACTION_SAVE,
    ACTION_SAMPLE,
    ACTION_STOP,
    ACTION_SCALE,
    ACTION_SMOOTH,
    ACTION_ZOOM_IN,
    ACTION_ZOOM_OUT,
    ACTION_EARLIER,
    ACTION_LATER,
    ACTION_MUCH_EARLIER,
    ACTION_MUCH_LATER,
    ACTION_FOLLOW,
    ACTION_APPLY,
    ACTION_UNDO,
    ACTION_VIEW,
    ACTION_WORST,
    ACTION_WHAT_IF,
    ACTION_RANKS,
    ACTION_LEVEL,
    ACTION_GLYPHS,
    ACTION_SNAPSHOT,
    ACTION_THEME,
    ACTION_MOUSE,
    ACTION_REPAINT,
    ACTION_SUSPEND,
    ACTION_COUNT
};

struct action_row {
    enum action action;
    const char *name;  /* one word, for tests and messages */
    uint32_t key[3];   /* 0: none */
    unsigned context;  /* enum context, or'ed */
    bool engine;       /* needs a run that is running */
    const char *label; /* in the footer; NULL: only in help */
    const char *help;  /* a sentence part in help; NULL: not there */
};

extern const struct action_row keymap_rows[];
extern const size_t keymap_count;

/* The action of a key in a context (one bit), or ACTION_NONE. */
enum action keymap_find(unsigned context, uint32_t key);
const struct action_row *keymap_row(enum action action);
/* The action of a name in a context, or ACTION_NONE. */
enum action keymap_named(unsigned context, const char *name);
/* "Tab", "^L", "Enter", "q"; written to `out`. */
void keymap_key_name(uint32_t key, char *out, size_t size);
/* The names of all keys of a row, with blanks between. */
void keymap_keys(const struct action_row *row, char *out, size_t size);

#endif
