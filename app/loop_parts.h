/* Parts of the loop: its state, what comes from the run and what the workbench asks for. */
#ifndef WINDROW_APP_LOOP_PARTS_H
#define WINDROW_APP_LOOP_PARTS_H

#include "app/catalog.h"
#include "app/client.h"
#include "app/planner.h"
#include "app/preview.h"
#include "app/rescue.h"
#include "app/run_reader.h"
#include "app/settings.h"
#include "app/starter.h"
#include "app/term.h"
#include "app/workbench.h"

enum { LOOP_HUNG_UP = 129 }; /* exit code of a lost terminal */

struct loop {
    struct workbench workbench;
    struct terminal *terminal;
    struct canvas canvas;
    struct catalog catalog;
    bool catalog_open;
    struct settings settings;
    char warning[256]; /* about them, "" for none */
    struct planner *planner;
    struct previewer *previewer;
    struct client *client;
    char *directory;           /* of the run that is shown; NULL: none */
    char *fallback;            /* the run to return to if a fork does not start; NULL: none */
    struct run_reader *reader; /* NULL: not needed yet */
    enum client_state client_state;
    struct starter starter;
    bool leaving;
    int code;
    double last_frame; /* monotonic seconds */
    double next_tick;
    int empty_reads;
    bool pressed;    /* a key came since the last frame */
    bool unfinished; /* the terminal has not yet taken all of it */
    bool plan_due;   /* the workbench wants a plan of plan_choice */
    int plan_choice[LAUNCHER_LISTS];
    bool plan_detailed;
    int plan_ranks;
    double plan_time;
    char farewell[640]; /* printed after the terminal was given back */
};

/* Says an error on the message line, bad or only told. */
void loop_notice(struct loop *loop, bool bad, const struct error *err);

/* Shows the run of a directory; `starting`: its process has just begun. */
void loop_open_run(struct loop *loop, const char *directory, bool starting);

/* Reads what the run says and tells the workbench how it is connected. */
void loop_pump_run(struct loop *loop);

/* Lets go of the run and shows the launcher. */
void loop_go_home(struct loop *loop);

/* Takes a list of runs as the launcher shows it; lets go of it. */
void loop_show_runs(struct loop *loop, struct run_list *list);

/* Reads the list of recent runs anew. */
void loop_scan_runs(struct loop *loop);

/* Asks the planner for plan_choice, and takes what it made. */
void loop_ask_plan(struct loop *loop);
void loop_take_plan(struct loop *loop);
void loop_take_preview(struct loop *loop);
/* Does what the launcher asked for. */
void loop_do_home(struct loop *loop, const struct effect *effect);

/* loop_runs.c: reads, forks and removes runs. */
void loop_read_runs(struct loop *loop, const char *path);
void loop_take_readings(struct loop *loop);
void loop_fork(struct loop *loop, const char *words);
void loop_prune(struct loop *loop, const char *path);
/* The fork did not start: back to the run it was made from. False: it was none. */
bool loop_fork_failed(struct loop *loop, const struct error *err);

/* Does what the workbench asked for. */
void loop_do_effect(struct loop *loop, const struct effect *effect);

#endif
