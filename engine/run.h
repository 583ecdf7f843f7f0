/*
 * A run: the process that trains, its directory, its stream and its socket.
 *
 * The run directory (mode 0700) holds recipe.json, forked.json (of a fork), events.jsonl, lock,
 * control (a file with the path of the socket), checkpoints/, latest, best, and model/ after an
 * export.
 */
#ifndef WINDROW_ENGINE_RUN_H
#define WINDROW_ENGINE_RUN_H

#include "engine/event.h"
#include "engine/recipe.h"

struct run_options {
    const struct recipe *recipe; /* ignored on resume and fork, but for `changes` */
    const char *directory;       /* of the run; NULL: made under the state directory */
    const char *resume;          /* RUN to continue, or NULL */
    const char *fork;            /* RUN or RUN@STEP whose checkpoint a new run begins from */
    const char *const *changes;  /* key=value words laid over a resumed or forked recipe */
    size_t change_count;
    const char *const *accepted; /* keys of --accept-change */
    size_t accepted_count;
    void (*on_line)(void *context, const char *line, size_t size); /* every event line, or NULL */
    void (*on_notice)(void *context,
                      const char *text); /* progress before the first event, or NULL */
    void *context;
};

/* Trains to the end. Returns the exit code of the program (0, 1, 3, 4, 5, 130, 143); `err` tells
 * why if it is not 0 (of a rank that ends because rank 0 told it to, rank 0's does). SIGINT and
 * SIGTERM save and end the run; a second one ends it at once. SIGHUP is ignored. Call at most once
 * a process. */
int run_train(const struct run_options *options, struct error *err);

/* ---- runs on disk -------------------------------------------------------------------------- */

/* $XDG_STATE_HOME/windrow/runs, or ~/.local/state/windrow/runs. xmalloc'd. */
char *run_root(void);

/* RUN: a directory, or a name under run_root, or a unique beginning of one; NULL: the newest
 * running one, else the newest. xmalloc'd path, or NULL. */
char *run_resolve(const char *run, struct error *err);

enum run_status { RUN_RUNNING, RUN_PAUSED, RUN_DONE, RUN_STOPPED, RUN_FAILED, RUN_CRASHED };
extern const char *const run_status_names[];

struct run_summary {
    char *name;
    char *path;
    enum run_status status; /* running: the lock is held; crashed: it is not, and no stop event */
    int64_t pid;            /* 0 unless running */
    double started;         /* Unix seconds */
    int64_t step;
    int64_t total_steps;
    float loss; /* of the last step; NaN if none */
    double tokens_per_second;
    int64_t peak_bytes;
    int64_t ranks; /* that train together */
    char *recipe_name;
    char *method;
    char *model;
    char *data;
};
struct run_list {
    struct run_summary *item; /* newest first */
    size_t count;
};
/* Reads only the head and the tail of each events.jsonl. */
int run_list_read(struct run_list *out, struct error *err);
void run_list_free(struct run_list *list);
int run_summary_read(const char *path, struct run_summary *out, struct error *err);
void run_summary_free(struct run_summary *summary);

/* Newest whole checkpoint of a run directory (xmalloc'd path), verified; refusals of newer broken
 * ones go to on_notice. `step` gets its step. NULL if there is none. */
char *run_latest_checkpoint(const char *run, int64_t *step,
                            void (*on_notice)(void *context, const char *text), void *context,
                            struct error *err);

/* Writes a Hugging Face directory from a checkpoint of a run (newest if step is 0), with adapters
 * merged into the weights; or, if `adapter`, the adapters alone in peft's format. */
int run_export(const char *run, int64_t step, bool adapter, const char *target, struct error *err);

/* Removes a run directory (refused while it is running). */
int run_prune(const char *run, struct error *err);

#endif
