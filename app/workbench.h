/*
 * The workbench: what it shows and how it changes.
 *
 * workbench_event is the only function that changes it. It does no I/O and reads no clock: keys,
 * sizes, ticks, records and answers come in as events, and what has to be done outside (send a
 * command, start a run, leave) goes out as effects, which the loop takes with workbench_effect.
 * workbench_draw makes a screen of the state. Replaying a file is feeding its records.
 */
#ifndef WINDROW_APP_WORKBENCH_H
#define WINDROW_APP_WORKBENCH_H

#include "app/answer.h"
#include "app/canvas.h"
#include "app/command_line.h"
#include "app/compare_state.h"
#include "app/history.h"
#include "app/keymap.h"
#include "app/launcher.h"
#include "app/tune_effect.h"
#include "engine/control.h"
#include "engine/recipe.h"

/* ---- a run ------------------------------------------------------------------------------------
 */

enum screen {
    SCREEN_RUN,
    SCREEN_LAYERS,
    SCREEN_MEMORY,
    SCREEN_TUNE,
    SCREEN_COMPARE,
    SCREEN_SAMPLES,
    SCREEN_LOG,
    SCREEN_COUNT
};
extern const char *const screen_names[SCREEN_COUNT];

/* What Layers shows of the matrices. */
enum layers_view {
    LAYERS_ENERGY,
    LAYERS_OVERLAP,
    LAYERS_COVERAGE,
    LAYERS_ENTROPY, /* as a share of the largest it could be */
    LAYERS_ROWS,    /* where the selected rows lie */
    LAYERS_OFTEN,   /* where they lay so far */
    LAYERS_VIEWS
};

enum connection {
    CONNECTION_NONE,    /* nothing runs: a recording */
    CONNECTION_LIVE,    /* the socket answers */
    CONNECTION_FOLLOW,  /* it runs, but only its file can be read */
    CONNECTION_LOADING, /* reading what happened before */
    CONNECTION_STARTING /* the process was started, nothing was said yet */
};

enum { TUNE_ROWS_MAX = 24, TUNE_VALUE_SIZE = 48 };

/* One live setting. */
struct tune_row {
    const struct field *field;
    char staged[TUNE_VALUE_SIZE]; /* "" if nothing is staged */
    int64_t bytes;                /* predicted total with it; -1 unknown */
    int64_t bytes_now;
    double
        flops; /* of the plan with it and without: steps, and steps that choose rows; 0 unknown */
    double flops_now;
    double refresh_flops;
    double refresh_flops_now;
    bool unfit;        /* the plan says it would be refused */
    char refusal[200]; /* why it was refused, or "" */
    int64_t ask_id;    /* of the plan or set command under way; 0 none */
    bool sent;         /* apply was pressed, not yet acknowledged */
    /* the last one that was applied here */
    int64_t applied_step; /* -1: none */
    int64_t applied_bytes;
    int64_t applied_before;
};
struct tune {
    int64_t undo_id; /* of the undo under way; 0: none */
    struct tune_row row[TUNE_ROWS_MAX];
    int count;
    int cursor;
};

enum { WHATIF_MAX = 40 };

/* What the run says that a change of a live setting would take. */
struct whatif_row {
    const struct field *field;
    char value[TUNE_VALUE_SIZE];
    bool answered;
    int64_t bytes; /* -1 unknown */
    int64_t bytes_now;
    char refusal[256]; /* "" if it is allowed */
};
struct whatif {
    struct whatif_row row[WHATIF_MAX];
    int count; /* 0: nothing was asked */
    int next;  /* answers up to here */
    int64_t ask_id;
    int64_t step; /* when it was asked */
};

/* ---- all of it --------------------------------------------------------------------------------
 */

enum mode { MODE_LAUNCHER, MODE_RUN };
enum overlay {
    OVERLAY_NONE,
    OVERLAY_HELP,
    OVERLAY_STOP,
    OVERLAY_FIELD,
    OVERLAY_RUNS,
    OVERLAY_REMOVE,
    OVERLAY_COMMAND
};
enum field_use {
    FIELD_FOR_ADD,
    FIELD_FOR_OVERRIDE,
    FIELD_FOR_TUNE,
    FIELD_FOR_FORK,   /* RUN[@STEP] key=value ... */
    FIELD_FOR_PRUNE,  /* the name, typed again */
    FIELD_FOR_FORM,   /* the value of the form's row */
    FIELD_FOR_RANKS,  /* how many ranks train together */
    FIELD_FOR_FILTER, /* words that the form's rows must hold */
    FIELD_FOR_PRESET, /* a name, then a sentence */
    FIELD_FOR_COMMAND,
    FIELD_FOR_SEARCH,
    FIELD_FOR_ONLY, /* words that lines of the log must hold */
    FIELD_FOR_PROMPT
};

/* The list of runs that lies over a screen. */
enum runs_use { RUNS_FOR_OPEN, RUNS_FOR_COMPARE };
struct runs {
    enum runs_use use;
    int cursor;       /* in launcher.run */
    bool known;       /* the list was read since the program started */
    char prune[512];  /* path of the run whose removal is to be confirmed */
    int wanted_steps; /* + 1 or - 1: switch to a neighbour as soon as the list is there */
};

enum effect_kind {
    EFFECT_NONE,
    EFFECT_QUIT,
    EFFECT_SEND,      /* command, key, value with id, to the run; text instead of a long value */
    EFFECT_START,     /* the choice of the launcher */
    EFFECT_OPEN,      /* the run at text */
    EFFECT_PLAN,      /* of choice; with the changes that fit if id is 1 */
    EFFECT_ADD,       /* text, a path, to list choice[0] */
    EFFECT_OVERRIDE,  /* text, key=value; several with blanks between if id is 1 */
    EFFECT_RESET,     /* text, a key: what was typed for it is forgotten */
    EFFECT_PREVIEW,   /* of the data of choice */
    EFFECT_FORM,      /* the settings and the command line of choice */
    EFFECT_PRESET,    /* save choice as a preset; text: its name, then a sentence */
    EFFECT_RESUME,    /* the run at text goes on */
    EFFECT_LIST_RUNS, /* read the list of runs: comes as WORKBENCH_RUNS */
    EFFECT_READ_RUN,  /* read the run at text: comes as WORKBENCH_COMPARED */
    EFFECT_FORK,      /* text: RUN[@STEP] and settings, as for windrow fork */
    EFFECT_PRUNE,     /* remove the run at text */
    EFFECT_HOME,      /* let go of the run, show the launcher */
    EFFECT_SNAPSHOT,  /* the screen into the file at text; "": one with a name of its own */
    EFFECT_REPAINT,
    EFFECT_SUSPEND
};
struct effect {
    enum effect_kind kind;
    int choice[LAUNCHER_LISTS];
    int ranks; /* to plan for, to start, to resume with */
    int64_t id;
    char command[16];
    char key[64];
    char value[TUNE_VALUE_SIZE];
    char text[512];
};

struct workbench {
    enum mode mode;
    enum screen screen;
    enum overlay overlay;
    int width;
    int height;
    enum glyph_set glyphs;
    enum theme_name theme;
    bool mouse;
    double now; /* Unix seconds, from the last tick */

    struct launcher launcher;

    char run_name[80];
    enum connection connection;
    char run_status[16]; /* of a run that is not running: "done", "crashed" ... */
    struct history history;
    int64_t at; /* the step that is looked at; 0: the newest. See workbench_at */
    struct tune tune;
    struct compare compare;
    struct runs runs;
    struct command_line line;
    char filter[96]; /* log: only lines with it; "" for all */
    char search[96];
    bool fresh;           /* a search that just began: the line in view counts, too */
    int prompt;           /* samples: the chosen one */
    int generation;       /* samples: how many of the newest are passed over */
    struct whatif whatif; /* of Memory */
    bool asked;           /* its answers are shown where there is no room for all panes */
    bool ranks;           /* memory: the page of all ranks */
    int order;            /* of it: enum fare_order */
    bool linear;          /* y axis of the loss */
    int smoothing;        /* index of the choice */
    int zoom;             /* the window is the run's steps / 2^zoom */
    int scroll;           /* of the log, help, samples */
    int cursor;           /* of layers */
    int view;             /* of layers: enum layers_view */
    bool detail;          /* layers: the page of one matrix */
    bool serious;         /* log: warnings and errors only */
    bool pause_wanted;

    enum field_use field_use;
    char field[512];

    char message[256]; /* the last answer, "" for none */
    enum style message_style;
    int64_t next_id;
    struct effect effect[16]; /* queue */
    int effect_count;
    bool dirty;
};

void workbench_open(struct workbench *workbench);
void workbench_close(struct workbench *workbench);

/* Forgets the run that was shown and waits for the records of another. */
void workbench_show_run(struct workbench *workbench, const char *name, enum connection connection);

enum workbench_event_kind {
    WORKBENCH_KEY,
    WORKBENCH_MOUSE,
    WORKBENCH_RESIZE,
    WORKBENCH_TICK,
    WORKBENCH_RECORD,
    WORKBENCH_REPLY,
    WORKBENCH_CONNECTION, /* and status, if the run is not running */
    WORKBENCH_PLANNED,
    WORKBENCH_PREVIEWED, /* taken over (malloc'd) */
    WORKBENCH_FORM,      /* the settings of the choice; taken over */
    WORKBENCH_COMPARED,  /* a run to compare was read; it is taken over */
    WORKBENCH_RUNS,      /* the list of recent runs; taken over (malloc'd) */
    WORKBENCH_NOTICE     /* a sentence for the message line */
};
struct workbench_event {
    enum workbench_event_kind kind;
    union {
        uint32_t key;
        struct {
            enum mouse_button button;
            struct spot spot; /* what was drawn there */
        } mouse;
        struct {
            int width;
            int height;
        } size;
        double now;
        const struct event *record;
        const struct control_reply *reply;
        struct {
            enum connection connection;
            const char *status;
        } link;
        const struct launcher_plan *plan;
        struct launcher_preview *preview;
        struct form_facts *form;
        struct {
            struct launcher_run *item;
            int count;
        } runs;
        struct {
            const char *path;
            struct comparison_run *run;
            const char *trouble; /* NULL: it could be read */
        } compared;
        struct {
            const char *text;
            bool bad;
        } notice;
    };
};
void workbench_event(struct workbench *workbench, const struct workbench_event *event);

/* Takes the oldest effect; false if there is none. */
bool workbench_effect(struct workbench *workbench, struct effect *effect);

/* Draws the whole screen; the canvas has the size of the workbench. */
void workbench_draw(const struct workbench *workbench, struct canvas *canvas);

/* ---- shared by screens and reducers ------------------------------------------------------------
 */

/* The context of keys now (one bit of enum context). */
unsigned workbench_context(const struct workbench *workbench);
/* Whether commands can be sent. */
bool workbench_live(const struct workbench *workbench);
/* "RUNNING", "PAUSED", "DONE" ...; a word for the header, and its style. */
const char *workbench_state(const struct workbench *workbench, enum style *style);
void workbench_say(struct workbench *workbench, enum style style, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
struct effect *workbench_push(struct workbench *workbench, enum effect_kind kind);
/* Sends a command; returns its id. */
int64_t workbench_send(struct workbench *workbench, const char *command, const char *key,
                       const char *value);
/* workbench_keys.c */
void workbench_key(struct workbench *workbench, uint32_t key);
/* mouse_state.c: a click chooses, and does what a key in view does; the wheel scrolls. Nothing is
 * started by a click on a row. */
void workbench_mouse(struct workbench *workbench, enum mouse_button button, struct spot spot);
/* What a key of that action does. */
void workbench_action(struct workbench *workbench, enum action action);
/* The step that screens show instead of the newest one; 0: they follow the run. Screens need not
 * care: workbench_draw gives them the history as it was then. */
int64_t workbench_at(const struct workbench *workbench);
/* Looks at a step (held to 1 .. the newest, which means to follow). */
void workbench_travel(struct workbench *workbench, int64_t step);
void travel_key(struct workbench *workbench, enum action action);
/* Steps shown by the charts. */
void workbench_window(const struct workbench *workbench, int64_t *first, int64_t *last);

extern const double workbench_smoothings[];

/* launcher_state.c */
void launcher_key(struct workbench *workbench, enum action action);
/* Gives the keys to a pane; `index`: of its row, -1 for none. */
void launcher_point(struct workbench *workbench, int pane, int index);
void launcher_remove_key(struct workbench *workbench, uint32_t key);
/* How many ranks are to train together, as it was typed. */
void launcher_typed_ranks(struct workbench *workbench, const char *text);
/* Asks for the settings and the command line of the choice. */
void launcher_ask_form(struct workbench *workbench);
void launcher_planned(struct workbench *workbench, const struct launcher_plan *plan);
void launcher_previewed(struct workbench *workbench, struct launcher_preview *preview);
/* Asks for the plan and the preview that are most needed and not known. */
void launcher_want(struct workbench *workbench);
/* The combinations changed (override, new item): plans are made anew. */
void launcher_forget_plans(struct workbench *workbench);

/* layers_state.c */
void layers_key(struct workbench *workbench, enum action action);
/* Of a view with one number a matrix; of the others the captured energy. */
double layers_value(const struct history_matrix *matrix, enum layers_view view);

/* memory_state.c */
void memory_key(struct workbench *workbench, enum action action);
/* Opens the page of all ranks, from any screen, or closes it. */
void memory_toggle_ranks(struct workbench *workbench);
/* Ranks that the page can show; 0: nothing was said of several. */
int memory_ranks(const struct workbench *workbench);
/* Whether the reply was the answer to a question of its own. */
bool memory_reply(struct workbench *workbench, const struct control_reply *reply);

/* texts_state.c */
enum { SAMPLES_PROMPTS = 32 };
void samples_key(struct workbench *workbench, enum action action);
void samples_ask(struct workbench *workbench, const char *prompt);
/* Index of the newest sample of each prompt, the prompt that was used last first. */
int samples_prompts(const struct history *history, int out[SAMPLES_PROMPTS]);
void log_key(struct workbench *workbench, enum action action);
void log_filter(struct workbench *workbench, const char *text);
void log_search(struct workbench *workbench, const char *text);
/* Whether a line is in view at all. */
bool log_shows(const struct workbench *workbench, const struct history_line *line);
/* Where `wanted` stands in `text`, upper and lower case alike; NULL: nowhere, or it is empty. */
const char *log_match(const char *text, const char *wanted);

/* runs_state.c */
void runs_open_list(struct workbench *workbench, enum runs_use use);
void runs_key(struct workbench *workbench, enum action action);
/* Lets the words of a fork be typed; `run` and `settings` stand there already. */
void runs_fork(struct workbench *workbench, const char *run, const char *settings);
/* The typed words of a fork, and the name typed for a removal. */
void runs_forked(struct workbench *workbench, const char *words);
void runs_pruned(struct workbench *workbench, const char *typed);
/* Asks for the name of a run that is to be removed. */
void runs_prune(struct workbench *workbench, const char *path);
/* Goes to the run that comes next (+ 1) or before (- 1) among those that are running. */
void runs_switch(struct workbench *workbench, int by);
/* A list has come. */
void runs_listed(struct workbench *workbench);
/* Opens the field of one line. */
void workbench_ask(struct workbench *workbench, enum field_use use, const char *text);
/* form_state.c */
void form_key(struct workbench *workbench, enum action action);
/* Shows the settings; the form's rows, or the command alone if it is not open. */
void form_take(struct workbench *workbench, struct form_facts *facts);
/* A value typed for the row of the cursor; false if it is refused (form.error says why). */
bool form_typed(struct workbench *workbench, const char *text);
void form_filter(struct workbench *workbench, const char *text);

/* tune_state.c */
void tune_open(struct tune *tune);
void tune_key(struct workbench *workbench, enum action action);
void tune_typed(struct workbench *workbench, const char *text);
void tune_reply(struct workbench *workbench, const struct control_reply *reply);
/* Nobody will answer any more. */
void tune_lost(struct tune *tune);
/* Writes what is staged, "key=value key=value"; returns how many. */
int tune_staged(const struct tune *tune, char *out, size_t size);
void tune_setting(struct workbench *workbench, const struct event *event);

/* screen/: each draws its part of the canvas. */
void screen_launcher(const struct workbench *workbench, struct canvas *canvas, struct rect body);
/* What the launcher's cursor is on: a model, the first record of data, what a preset is for.
 * `alone`: the runs have no room, so their number is told here. */
void screen_choice(const struct workbench *workbench, struct canvas *canvas, struct rect area,
                   bool alone);
void screen_form(const struct workbench *workbench, struct canvas *canvas, struct rect body);
/* The edit field of the form, and the command line, over everything. */
void screen_form_field(const struct workbench *workbench, struct canvas *canvas);
void screen_command(const struct workbench *workbench, struct canvas *canvas);
void screen_run(const struct workbench *workbench, struct canvas *canvas, struct rect body);
void screen_layers(const struct workbench *workbench, struct canvas *canvas, struct rect body);
void screen_memory(const struct workbench *workbench, struct canvas *canvas, struct rect body);
void screen_tune(const struct workbench *workbench, struct canvas *canvas, struct rect body);
void screen_compare(const struct workbench *workbench, struct canvas *canvas, struct rect body);
void screen_runs(const struct workbench *workbench, struct canvas *canvas);
void screen_samples(const struct workbench *workbench, struct canvas *canvas, struct rect body);
void screen_log(const struct workbench *workbench, struct canvas *canvas, struct rect body);
void screen_help(const struct workbench *workbench, struct canvas *canvas);
void screen_compact(const struct workbench *workbench, struct canvas *canvas);
/* All ranks of the run, with their time and their memory. */
void screen_ranks(const struct workbench *workbench, struct canvas *canvas, struct rect area);
/* The memory table, used by two screens. */
void screen_memory_table(const struct workbench *workbench, struct canvas *canvas,
                         struct rect area);
/* The list of events, newest first. */
void screen_events(const struct workbench *workbench, struct canvas *canvas, struct rect area,
                   bool wide);

#endif
