/*
 * What a run has said so far, folded into what screens show: series, totals, the latest of
 * everything, and a list of lines for people. No terminal, no file, no clock; the same function
 * takes a live event and one read from a file of last year.
 *
 * Everything is kept with the step after which it was said, so that history_at can show the run as
 * it was after any earlier step: exactly what a history holds that was folded only up to there.
 *
 * A million steps take about 95 MB; a matrix takes 76 bytes a refresh.
 */
#ifndef WINDROW_APP_HISTORY_H
#define WINDROW_APP_HISTORY_H

#include "app/series.h"
#include "engine/event.h"

enum {
    HISTORY_LINES = 20000,   /* newest lines kept */
    HISTORY_SAMPLES = 64,    /* newest samples kept */
    HISTORY_MATRICES = 4096, /* tensors with a selection */
    HISTORY_LEVELS = 15      /* of a bin of a histogram: 0 none, 15 the fullest one */
};

/* In all lists `seen` is the step after which it was said, 0 before the first; it never falls from
 * an item to the next. After a return to a checkpoint what was said later counts as said there. */

/* A line for people. Refreshes are one line for all matrices: `refresh` is their index. */
struct history_line {
    int64_t seen;
    enum event_kind kind;
    double time;
    int64_t step;    /* -1: none */
    int64_t refresh; /* -1: `text` says it */
    char *text;
};

/* What is shown of one step besides the series. */
struct history_step {
    double time;          /* Unix seconds of its end; 0: nothing was said of this step */
    int64_t tokens_total; /* -1 unknown */
    float step_ms, forward_ms, backward_ms, update_ms, refresh_ms, data_ms, stall_ms, mfu;
    float exchange_ms;
    int32_t tokens; /* -1 unknown */
    int32_t rank;   /* -1 unknown */
    bool refreshed;
    bool skipped;
};

/* Sums over the matrices of one refresh. */
struct history_refresh {
    int64_t seen;
    int64_t step;
    int64_t matrices;
    double energy_sum;
    int64_t energy_count;
    double overlap_sum;
    int64_t overlap_count;
    double coverage_sum;
    int64_t coverage_count;
    double entropy_sum; /* of shares of the largest entropy that the rows could have */
    int64_t entropy_count;
};

/* One selection of one matrix, small. */
struct history_choice {
    int32_t refresh; /* index of the refresh */
    int32_t selected;
    int32_t rank; /* -1 unknown */
    float overlap, energy, coverage, entropy;
    uint16_t curve[EVENT_CURVE_POINTS];     /* shares in 65534ths; 65535 unknown */
    uint8_t bins[EVENT_HISTOGRAM_BINS / 2]; /* two levels a byte, the even bin in the low half */
    int32_t most;                           /* rows in the fullest bin */
};

struct history_matrix {
    char *tensor;
    int layer;    /* -1: none in the name */
    char kind[8]; /* "q", "k", "v", "o", "gate", "up", "down", or the start of the name */
    char side[8];
    int64_t rows;
    /* the latest selection */
    int64_t step;
    int64_t selected;
    int64_t rank; /* -1 unknown */
    double overlap;
    double energy;
    double coverage;
    double entropy;                      /* nats */
    double curve[EVENT_CURVE_POINTS];    /* as in the event; NaN unknown */
    int64_t most;                        /* rows in the fullest bin */
    uint8_t level[EVENT_HISTOGRAM_BINS]; /* 0 .. HISTORY_LEVELS */
    struct history_choice *choice;       /* all selections, the latest last */
    size_t choice_count, choice_capacity;
};

struct history_evaluation {
    int64_t seen;
    int64_t step;
    float loss;
    double perplexity;
};
struct history_memory {
    int64_t seen;
    int64_t step;
    int64_t total_bytes; /* of the peaks */
    struct event_memory told;
};
struct history_plan {
    int64_t seen;
    struct event_plan told;
};
struct history_telemetry {
    int64_t seen;
    struct event_telemetry told;
};
struct history_fare {
    int64_t seen;
    struct event_ranks told;
};
struct history_state {
    int64_t seen;
    double time;
    char state[16]; /* "running", "paused", "evaluating" ...; "" unknown */
};
struct history_checkpoint {
    int64_t seen;
    int64_t step;
    int64_t bytes;
    double seconds;
    bool best;
};
/* Time that went into something else than steps. */
struct history_pause {
    int64_t seen;
    enum event_kind kind; /* EVENT_EVALUATION, EVENT_SAMPLE, EVENT_CHECKPOINT */
    double seconds;
};
struct history_setting {
    int64_t seen;
    double time;
    int64_t step; /* from which it holds */
    char key[64];
    char from[48];
    char to[48];
    char by[32];
};
struct history_sample {
    int64_t seen;
    int64_t step;
    char *prompt;
    char *text;
};

struct history {
    /* the start event, strings owned; zero and NULL before it */
    struct event start;
    int64_t planned_steps; /* total steps of the start event, before settings changed them */
    bool started;
    struct event_plan plan; /* the latest */
    bool planned;

    struct series loss;
    struct series smooth; /* the loss smoothed: see history_smooth */
    double smoothing;     /* factor in use */
    double smooth_state;
    double smooth_weight;
    struct series tokens_per_second;
    struct series grad_norm;
    struct series learning_rate;
    struct history_step *steps; /* as many as loss values: entry step - 1 */
    size_t steps_capacity;

    struct event_step last_step; /* strings NULL, offloaded and exchanged bytes unknown */
    int64_t step;                /* last finished one; 0 before */
    double time;                 /* of the last event, Unix seconds */
    double step_time;            /* of the last step event */
    double busy_until;           /* end of the last step, evaluation, sample or checkpoint */

    struct event_memory memory; /* the latest */
    int64_t memory_step;        /* -1: none yet */
    struct event_telemetry telemetry;
    bool telemetry_seen;

    struct history_evaluation *evaluation;
    size_t evaluation_count, evaluation_capacity;
    struct history_memory *memories;
    size_t memories_count, memories_capacity;
    struct history_plan *plans;
    size_t plan_count, plan_capacity;
    struct history_telemetry *telemetries;
    size_t telemetry_count, telemetry_capacity;
    struct history_fare *fare; /* of the ranks; see history_ranks */
    size_t fare_count, fare_capacity;
    int64_t fare_items; /* ranks in all of them */
    int64_t fare_told;  /* events so far, of which every so many-th is kept */
    int64_t fare_every;
    struct history_state *states;
    size_t state_count, state_capacity;
    struct history_checkpoint *checkpoint;
    size_t checkpoint_count, checkpoint_capacity;
    struct history_pause *pause;
    size_t pause_count, pause_capacity;
    int64_t *skipped; /* steps that were skipped; also those that were taken back */
    size_t skipped_count, skipped_capacity;
    struct history_refresh *refresh;
    size_t refresh_count, refresh_capacity;
    struct history_matrix *matrix;
    size_t matrix_count, matrix_capacity, matrix_hint;
    struct history_setting *setting;
    size_t setting_count, setting_capacity;
    struct history_sample sample[HISTORY_SAMPLES]; /* oldest first */
    size_t sample_count;
    struct history_line *line; /* ring of HISTORY_LINES */
    size_t line_capacity;
    size_t line_count; /* ever made */
    size_t line_lost;  /* made and no longer there */

    int64_t checkpoint_step; /* -1: none */
    int64_t checkpoint_bytes;
    double checkpoint_seconds;
    char state[16]; /* the latest */
    bool stopped;
    struct event_stop stop; /* reason owned */
    int64_t warnings, errors;
};

void history_open(struct history *history);
void history_close(struct history *history);

/* Takes an event in. */
void history_add(struct history *history, const struct event *event);

/* The run as it was after `step` (1 .. history->step): a history to be read only, which borrows
 * from the first; nothing may be added to either until history_at_close. */
void history_at(const struct history *history, int64_t step, struct history *view);
void history_at_close(struct history *view);

/* Chooses another smoothing factor (0: none) and smooths the loss anew. */
void history_smooth(struct history *history, double factor);

/* What was last said of the ranks; NULL: nothing, as of a run that has one. */
const struct event_ranks *history_ranks(const struct history *history);

/* The i-th newest line (0: the newest), or NULL. */
const struct history_line *history_line_at(const struct history *history, size_t newest);
/* Writes what a line says; `brief` for narrow panes. */
struct history_text {
    char text[256];
};
struct history_text history_line_text(const struct history *history,
                                      const struct history_line *line, bool brief);

/* Seconds from one step to the next, the median of the last hundred: evaluations, checkpoints and
 * pauses between them do not count. NaN if unknown. */
double history_step_seconds(const struct history *history);
/* Seconds to the end, with the refreshes, evaluations, samples and checkpoints still to come at
 * what they cost lately; NaN if unknown or over. */
double history_remaining(const struct history *history);
/* What an evaluation, a sample or a checkpoint costs: the median of the last five; NaN if there was
 * none. */
double history_pause_seconds(const struct history *history, enum event_kind kind);
/* Step of the next evaluation, sample, checkpoint or refresh (EVENT_SELECTION); 0: none is due. */
int64_t history_next(const struct history *history, enum event_kind kind);

/* The i-th selection of a matrix: its level of a bin (0 .. HISTORY_LEVELS). */
int history_choice_level(const struct history_choice *choice, int bin);
/* Entropy as a share of the largest that `rows` rows can have; NaN if unknown. */
double history_evenness(double entropy, int64_t rows);

/* The value of a recipe key now: from the recipe of the start event and the settings changed since.
 * False if it is unknown. */
bool history_setting_now(const struct history *history, const char *key, char *out, size_t size);

/* Category sums. */
int64_t history_total(const int64_t bytes[MEMORY_CATEGORY_COUNT]);

#endif
