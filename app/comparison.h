/*
 * Several runs side by side: what each cost, and how low its loss was after the same tokens and
 * after the same time. No terminal and no process; the command `windrow compare` prints it.
 *
 * Time is the sum of the durations of the steps (training alone: neither reading, evaluating nor
 * saving), so a run that was interrupted and resumed compares fairly. "Equal" means as far as the
 * run that got least far: its last token, its last second.
 *
 * A fork begins at the step and the tokens of its parent. Where the parent is among the runs, its
 * time up to there counts for the fork too; where it is not, nobody knows that time, and the fork's
 * counts from the fork. comparison_fork_note says which it is.
 */
#ifndef WINDROW_APP_COMPARISON_H
#define WINDROW_APP_COMPARISON_H

#include <cjson/cJSON.h>

#include "engine/event.h"
#include "engine/run.h"

enum comparison_axis { COMPARISON_STEPS, COMPARISON_TOKENS, COMPARISON_SECONDS };

/* After a step. */
struct comparison_point {
    int64_t step;
    double tokens;  /* positions processed since the start of the run */
    double seconds; /* of training since the start of the run, or its fork */
    float loss;     /* of the step; NaN if it was skipped */
    /* Sums over all finite steps up to this one: the mean of any span is two look-ups. */
    double loss_sum;
    double norm_sum; /* of the gradient norm */
    int64_t finite;
};

/* A number that is told now and then. */
struct comparison_mark {
    int64_t step;
    double value;
};
struct comparison_marks {
    struct comparison_mark *item;
    size_t count, capacity;
};

/* One run. NaN and EVENT_UNKNOWN stand for what its events do not tell. */
struct comparison_run {
    char *label; /* what it is called in tables */
    char *path;
    char *method;
    char *model;
    char *data;
    enum run_status status;
    cJSON *recipe; /* resolved, as an object; NULL if unknown */
    char *parent;  /* name of the run it was forked from; NULL: it is no fork */
    int64_t fork_step;
    double begin_seconds; /* of the parents up to the fork; 0 if they are not there */
    int64_t total_steps;
    int64_t parameters;
    int64_t trained_parameters;
    struct comparison_point *point;
    size_t count;
    size_t capacity;
    struct comparison_marks evaluations; /* loss */
    struct comparison_marks energies;    /* captured share, mean over the matrices of a refresh */
    struct comparison_marks peaks;       /* bytes at the peak, sum of the categories */
    int64_t energy_matrices;             /* of the refresh that is being told */
    int64_t peak_bytes[MEMORY_CATEGORY_COUNT];
    int64_t peak_total_bytes; /* sum of the categories' peaks */
    double tokens_per_second; /* median over the steps */
    double step_ms;           /* median over the steps */
    int64_t checkpoint_bytes; /* of the newest */
    float evaluation_loss;    /* the newest */
    int64_t evaluation_step;  /* and where */
    double loss_equal_tokens; /* see comparison_loss */
    double loss_equal_seconds;
};

struct comparison {
    struct comparison_run *run;
    size_t count;
    double equal_tokens; /* as far as every run got; NaN if a run has no step */
    double equal_seconds;
};

/* An empty run; `path` may be "". Release with comparison_run_free. */
void comparison_run_open(struct comparison_run *run, const char *path, const char *label);
/* Takes an event in. */
void comparison_run_take(struct comparison_run *run, const struct event *event);
/* Finds the medians of the last `steps` steps (0: of all), and the method. */
void comparison_run_settle(struct comparison_run *run, size_t steps);
void comparison_run_free(struct comparison_run *run);
/* Reads events.jsonl of a run directory; may be called on any thread. */
int comparison_run_read(struct comparison_run *run, const char *path, const char *label,
                        struct error *err);

/* Reads events.jsonl of a run directory; `label` NULL: the name of the run. */
int comparison_add(struct comparison *comparison, const char *path, const char *label,
                   struct error *err);
/* Finds the common ground; call after the last comparison_add. */
void comparison_finish(struct comparison *comparison);
void comparison_free(struct comparison *comparison);

/* What a chart shows of a run. */
enum comparison_metric {
    COMPARISON_LOSS,
    COMPARISON_EVALUATION,
    COMPARISON_SPEED,
    COMPARISON_NORM,
    COMPARISON_ENERGY,
    COMPARISON_MEMORY,
    COMPARISON_METRICS
};
/* "training loss" ... */
extern const char *const comparison_metric_names[COMPARISON_METRICS];

/* The furthest position of a run on an axis; 0 if it has no step. */
double comparison_end(const struct comparison_run *run, enum comparison_axis axis);

/* The metric between two positions: the mean of the steps in (from, to], or the newest number that
 * was told until `to`. NaN where the run has nothing, before its beginning and after its end. */
double comparison_value(const struct comparison_run *run, enum comparison_metric metric,
                        enum comparison_axis axis, double from, double to);

/* Where a point lies on an axis. */
double comparison_position(const struct comparison_run *run, const struct comparison_point *point,
                           enum comparison_axis axis);

/* How the time of forks is counted, for a header: "c after its parent; d since its fork", with the
 * letters of the runs; "" without forks. */
struct comparison_note {
    char text[96];
};
struct comparison_note comparison_fork_note(const struct comparison *comparison,
                                            const char *letters);

/* Mean loss of the steps in the last tenth before `position` (at least one step): a single step's
 * loss is mostly noise of its batch. NaN if the run has none there. */
double comparison_loss(const struct comparison_run *run, enum comparison_axis axis,
                       double position);

/* Keys of the recipe (rows of recipe_fields) whose values differ between the runs; at most
 * `limit`. Returns how many there are. */
size_t comparison_differences(const struct comparison *comparison, const char **key, size_t limit);

/* The value of a key in a run's recipe as text (xmalloc'd), "-" if it is unknown. */
char *comparison_setting(const struct comparison_run *run, const char *key);

#endif
