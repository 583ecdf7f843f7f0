/*
 * What a running run holds, and the files that work on it:
 *   run.c       from options to an exit code
 *   origin.c    where it begins: a recipe, a checkpoint, another run
 *   prepare.c   model, data, trainer
 *   planning.c  device and plan, and whether there is room
 *   room.c      what a device has room for (engine/device.h)
 *   state.c     what a checkpoint remembers beside tensors
 *   restore.c   the state of a checkpoint, into the trainer
 *   offload.c   the place of offloaded activations
 *   save.c      checkpoints and the final export
 *   report.c    events
 *   loop.c      steps, evaluations, samples, going back
 *   commands.c  the safe point: commands and signals
 *   passport.c  what has to be the same on all ranks
 *   agree.c     how something went, on all ranks
 *   settings.c  a live change, on all ranks or on none
 *   ranks.c     several ranks: orders of the first to the others
 *   fare.c      how the ranks fare: what each tells, and the event about it
 */
#ifndef WINDROW_ENGINE_RUN_PARTS_H
#define WINDROW_ENGINE_RUN_PARTS_H

#include "engine/activation/store.h"
#include "engine/comm/comm.h"
#include "engine/device.h"
#include "engine/inspect.h"
#include "engine/run.h"
#include "engine/run/checkpoint.h"
#include "engine/run/directory.h"
#include "engine/run/sampler.h"
#include "engine/run/server.h"
#include "engine/run/telemetry.h"
#include "engine/train/trainer.h"

/* Steps that are not finite, one after the other, until the run goes back; returns until it ends.
 */
enum { SKIPS_UNTIL_RETURN = 3, RETURNS_MAX = 2 };

/* What was trained on; a resumed run must find the same. */
struct run_digests {
    char data[DIGEST_TEXT_SIZE];
    char tokenizer[DIGEST_TEXT_SIZE];
    char model[DIGEST_TEXT_SIZE];
};

/* Where a run stands between two steps. */
struct run_state {
    int64_t step;         /* done */
    int64_t rows;         /* taken from the endless sequence of training rows */
    int64_t tokens_total; /* processed positions */
    int64_t skipped;      /* steps in all */
    int64_t skipped_in_row;
    int64_t returns;      /* to an earlier checkpoint */
    double seconds;       /* of training, over all processes */
    float loss;           /* of the last step that has one; NaN: none */
    double best_loss;     /* lowest evaluation among checkpoints; NaN: none */
    int64_t best_step;    /* its checkpoint; 0: none */
    int64_t events_bytes; /* length of events.jsonl to cut back to */
    struct trainer_counters counters;
    struct run_digests digests;
};

/* How the ranks fare, between two events about it. On ranks other than 0 only what they tell. */
struct run_fare {
    struct rank_report mine; /* of this rank, told with the next step */
    double looked_s;         /* clock_monotonic of its slow parts */
    double exchanged_bytes;  /* until the last step */
    struct rank_fare *rank;  /* of all ranks; NULL: there is one */
    int64_t steps;           /* in the sums */
    double told_s;           /* clock_monotonic of the last event */
};

struct run {
    const struct run_options *options;
    struct recipe recipe;    /* resolved, with live changes */
    struct recipe effective; /* the same with epochs counted out as train.steps */
    struct material material;
    struct plan plan;
    int64_t limit_bytes;     /* 0: none */
    struct comm *comm;       /* the ranks that train together */
    double exchanged_bytes;  /* until the last step */
    struct watch *watch;     /* over them; NULL: there is one */
    double impatient_s;      /* clock since when, told to end, it waits for another rank; or 0 */
    char impatient_for[128]; /* in which collective */
    bool showing;            /* rank 0 saves, and the others show it their states */
    struct backend *be;
    double ceiling_flops;          /* a second, of a large matrix product; 0: unknown */
    struct store *store;           /* of offloaded activations; NULL: none leave */
    struct store_counts offloaded; /* until the last step */
    struct trainer *trainer;
    struct batch *batch; /* batch.accumulate of them */
    struct batch look;   /* for evaluations */
    struct run_directory directory;
    struct server *server; /* NULL: none */
    struct run_state state;

    char *resume_path;   /* the checkpoint resumed from, or NULL */
    int pin;             /* of another run's checkpoint, until there is one here; -1: none */
    int64_t begin_step;  /* its step */
    int64_t resume_step; /* the same if it lies in this run, else 0 */
    bool resuming;
    bool forked;           /* it begins with the checkpoint of another run */
    bool own_tokenizer;    /* trained for the checkpoint that it begins with, and stays */
    char *saved_tokenizer; /* keys tokenizer.* of that checkpoint, as text */
    bool finished;         /* resumed, but there is nothing left to do */

    struct buffer backlog; /* events that could not be written yet */
    double filled_s;       /* clock_monotonic when the rows of the step under way were there */
    double began_s;        /* clock_monotonic of the first step of this process */
    double seconds_before; /* state.seconds at that time */
    int64_t steps_here;    /* done by this process */
    double evaluated_loss; /* of the evaluation at evaluated_step */
    int64_t evaluated_step;
    struct run_fare fare;
    struct telemetry telemetry;
    struct sampler *sampler; /* of the device; NULL: it is none that can be asked */
    double telemetry_s;      /* clock of the last one */

    bool stepping;       /* all ranks are in a step: the others do not wait for an order */
    bool ended_together; /* all ranks know that this is the end */
    int end_code;        /* of the program then, where a rank failed before the first step */
    bool paused;
    bool stop_asked;
    bool save_failed; /* the last save */
    bool told_solver; /* that the host finds eigenvectors for the device */
    bool diverged;
    bool broken; /* the trainer cannot be used any more */
};

/* ---- ceiling.c ------------------------------------------------------------------------------ */

/* FLOPs a second of a large matrix product in `dtype`, measured in a few milliseconds; 0 if it
 * could not be. The product grows until it takes long enough to be measured; on a processor 3 MiB
 * are taken and given back, on a large device up to 800. */
double run_measure_ceiling(struct backend *be, enum dtype dtype);

/* ---- offload.c ------------------------------------------------------------------------------ */

/* Opens the place that activation.offload asks for, and settles activation.resident=-1. */
int run_open_store(struct run *run, struct error *err);
/* What the last step moved. */
void run_report_offload(struct run *run, struct event_step *step);

/* ---- restore.c ------------------------------------------------------------------------------ */

/* Puts tensors and counters of a checkpoint into the trainer. */
int run_restore(struct run *run, const char *path, struct error *err);

/* ---- planning.c ----------------------------------------------------------------------------- */

/* Opens the device and plans for it. -1 if device or disk have no room, or there is no device. */
int run_make_plan(struct run *run, struct error *err);
/* The refusal where memory was not to be had after all: other programs may have taken what was free
 * when the plan was made, and what is free may be in pieces. Always -1. */
int run_refuse_memory(const struct run *run, struct error *err);

/* ---- origin.c ------------------------------------------------------------------------------- */

/* Resolves what is to be trained and from where on, unless rank 0 does: recipe, state, resume_path
 * and the directory of a run that is resumed. */
int run_find_origin(struct run *run, struct error *err);
/* Whether a key (or what it stands for) may differ from the checkpoint the run begins with. */
bool run_may_change(const struct run *run, const char *key);
/* Notes in the run directory what it was forked from, if it was. */
int run_write_origin(const struct run *run, struct error *err);

/* ---- prepare.c ------------------------------------------------------------------------------ */

/* Everything up to a trainer that holds the weights; a new run gets its directory here. */
int run_prepare(struct run *run, struct error *err);
void run_release(struct run *run);

/* Builds the trainer anew, with the state of a checkpoint, or (NULL) as it was before step 1. */
int run_build(struct run *run, const char *checkpoint, struct error *err);

/* What only the model's configuration shows to be wrong. */
int run_check_rank(const struct recipe *recipe, const struct model_config *config,
                   struct error *err);

/* Steps that the recipe asks for on so many training rows. */
int64_t run_count_steps(const struct recipe *recipe, int64_t rows, int ranks);

/* ---- state.c -------------------------------------------------------------------------------- */

/* state.json (xmalloc'd) and back. */
char *run_state_text(const struct run *run);
int run_state_read(const cJSON *root, const char *name, struct run_state *out, struct error *err);

void run_digest(const struct run *run, struct run_digests *out);

/* ---- save.c --------------------------------------------------------------------------------- */

/* Saves the state after the last step. A failure is told by a warning event, sets save_failed and
 * returns -1; training goes on. */
int run_save(struct run *run, struct error *err);
int run_write_model(struct run *run, struct error *err);
/* What one checkpoint takes on disk, within 1 %. */
int64_t run_need_bytes(const struct run *run);

/* ---- report.c ------------------------------------------------------------------------------- */

/* Stamps the time, appends the line, tells the options' listener and the clients, and releases the
 * event's strings. */
void run_emit(struct run *run, struct event *event);
void run_notice(struct run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));
void run_warn(struct run *run, const struct error *err);
void run_report_start(struct run *run);
void run_report_plan(struct run *run);
void run_report_step(struct run *run, const struct step_result *result, double data_s,
                     double all_s);
void run_report_memory(struct run *run);
void run_report_selection(struct run *run);
/* What device and process do now; a warning, once, if the device tells nothing. */
void run_report_telemetry(struct run *run);
void run_report_state(struct run *run, const char *state);
void run_report_resume(struct run *run, const char *path, int64_t from_step, const char *reason);
void run_report_stop(struct run *run, const char *reason, int64_t status);

/* ---- fare.c --------------------------------------------------------------------------------- */

/* Who a rank is, as it tells before the first step. */
struct rank_name {
    char host[64];
    char device[64];
    int64_t local_rank;
};
void run_name_self(const struct run *run, struct rank_name *name);
/* Takes the name of rank p. */
void run_name_rank(struct run *run, int p, const struct rank_name *name);

/* What this rank tells as the next step begins. */
void run_tell_ranks(struct run *run);
/* Notes that a step took so long, of which this rank stood in collectives for `wait_s`. On rank 0
 * also takes what all told as it began. */
void run_note_fare(struct run *run, double step_s, double wait_s);
/* The event about the ranks, where one is due or `last`: no oftener than telemetry, and of many
 * ranks more rarely, since it is as long as they are many. */
void run_report_ranks(struct run *run, bool last);
void run_free_fare(struct run *run);

/* ---- ranks.c -------------------------------------------------------------------------------- */

/* Whether this is not rank 0: then it writes and prints nothing, and obeys. */
bool run_follows(const struct run *run);

/* Joins those that were started with this process. */
int run_join_ranks(struct run *run, struct error *err);
/* Gives the others the recipe, checkpoint and state that rank 0 has resolved. */
int run_share_start(struct run *run, struct error *err);

/* The device of this rank: of several on a host, each takes a GPU of its own. */
struct backend *run_open_device(struct run *run, const struct device_listener *listener,
                                struct error *err);

/* GPUs of several ranks exchange directly from now on, where every rank has one, and NCCL. All
 * ranks ask together. */
int run_use_devices(struct run *run, struct error *err);

/* Orders of rank 0; of a single rank nothing. */
void run_order_step(struct run *run);
void run_order_settings(struct run *run, const struct recipe *effective);
void run_order_back(struct run *run, const char *checkpoint);
/* The others show their states (trainer_show_states) until trainer_show_end. */
void run_order_show(struct run *run);
/* The end: with `code` others than 0 the others end with that too, and say nothing. */
void run_order_stop(struct run *run, int code);

/* Obeys until told to stop; `code` is then what rank 0 said, or that of the error. */
int run_follow(struct run *run, int *code, struct error *err);

/* ---- passport.c ----------------------------------------------------------------------------- */

/* Refuses ranks that differ in program, files or kind of device. */
int run_check_ranks(struct run *run, struct error *err);

/* ---- agree.c -------------------------------------------------------------------------------- */

/* What a rank tells the others about something it tried. */
struct verdict {
    int64_t code; /* enum error_code; 0: done */
    int64_t lost; /* and its trainer cannot be used any more */
    char host[64];
    char message[1024];
    char hint[512];
};
/* `why` NULL: done. */
void run_make_verdict(struct verdict *verdict, const struct error *why, bool lost);
/* Hears of all ranks, which come here together: `verdict`, this rank's own, becomes the worst (of a
 * lost one, or one that failed, or any), and `rank` its rank. -1: they could not be heard. */
int run_hear_verdicts(struct run *run, const char *what, struct verdict *verdict, int *rank);
/* The sentence of a rank as an error of this one. Always -1. */
int run_quote_verdict(const struct run *run, const struct verdict *verdict, int rank,
                      struct error *err);
/* All ranks come here with how it went so far: `result`, and `err` if that is not 0. 0 if all went
 * well; else -1 on all ranks, which end together: rank 0 with the error, the others without one. */
int run_agree(struct run *run, int result, struct error *err);

/* ---- settings.c ----------------------------------------------------------------------------- */

/* Lays a live change over the trainers of all ranks, which come here together; `plan` is that of
 * `effective`. A rank without a recipe (NULL) refuses with what `err` says. -1: nobody has the
 * change, and unless run->broken all go on as before. */
int run_apply(struct run *run, const struct recipe *effective, const struct plan *plan,
              struct error *err);

/* ---- loop.c --------------------------------------------------------------------------------- */

/* Takes the next rows and trains one step on them. */
int run_step(struct run *run, struct step_result *result, struct error *err);
/* Starts to ask the device, if it can be asked. */
void run_open_sampler(struct run *run);
/* Trains to the last step, a stop or a failure. */
int run_loop(struct run *run, struct error *err);
/* Writes a text from `prompt` (NULL: train.sample_prompt) into the stream. */
int run_sample(struct run *run, const char *prompt, struct error *err);

/* ---- commands.c ----------------------------------------------------------------------------- */

/* Installs the handlers of signals. */
void run_catch_signals(void);
/* From now on those that ask it to end are ignored. */
void run_ignore_signals(void);
/* The signal that asked the run to end, or 0. */
int run_signal(void);

/* Obeys what has arrived since the last step; stays here while paused. -1 if a change left the
 * trainer unusable. */
int run_safe_point(struct run *run, struct error *err);

#endif
