/*
 * What a run has said so far, folded into what screens show: series, totals, the latest of
 * everything, and a list of lines for people. No terminal, no file, no clock; the same function
 * takes a live event and one read from a file of last year.
 *
 * A million steps take about 100 MB and a few seconds to fold.
 */
#ifndef WINDROW_APP_HISTORY_H
#define WINDROW_APP_HISTORY_H

#include "app/series.h"
#include "engine/event.h"

enum {
    HISTORY_LINES = 2000,   /* newest lines kept */
    HISTORY_SAMPLES = 64,   /* newest samples kept */
    HISTORY_MATRICES = 4096 /* tensors with a selection */
};

/* A line for people. Refreshes are one line for all matrices: `refresh` is their index. */
struct history_line {
    enum event_kind kind;
    double time;
    int64_t step;
    int64_t refresh; /* -1: `text` says it */
    char text[256];
};

/* Sums over the matrices of one refresh. */
struct history_refresh {
    int64_t step;
    int64_t matrices;
    double energy_sum;
    int64_t energy_count;
    double overlap_sum;
    int64_t overlap_count;
    double coverage_sum;
    int64_t coverage_count;
};

struct history_matrix {
    char *tensor;
    int layer;    /* -1: none in the name */
    char kind[8]; /* "q", "k", "v", "o", "gate", "up", "down", or the start of the name */
    char side[8];
    int64_t step;
    int64_t rows;
    int64_t selected;
    double overlap;
    double energy;
    double coverage;
    double entropy;
    int64_t histogram[EVENT_HISTOGRAM_BINS];
};

struct history_evaluation {
    int64_t step;
    float loss;
    double perplexity;
};
struct history_memory {
    int64_t step;
    int64_t peak_bytes[MEMORY_CATEGORY_COUNT];
    int64_t total_bytes;
};
struct history_setting {
    double time;
    int64_t step; /* from which it holds */
    char key[64];
    char from[48];
    char to[48];
    char by[32];
};
struct history_sample {
    int64_t step;
    char *prompt;
    char *text;
};

struct history {
    /* the start event, strings owned; zero and NULL before it */
    struct event start;
    bool started;
    struct event_plan plan;
    bool planned;

    struct series loss;
    struct series smooth; /* the loss smoothed: see history_smooth */
    double smoothing;     /* factor in use */
    double smooth_state;
    double smooth_weight;
    struct series tokens_per_second;
    struct series grad_norm;
    struct series learning_rate;

    struct event_step last_step; /* strings NULL */
    int64_t step;                /* last finished one; 0 before */
    double time;                 /* of the last event, Unix seconds */
    double step_time;            /* of the last step event */
    double recent_time[32];      /* of the last steps, a ring: entry step % 32 */
    int64_t recent_step[32];
    int64_t steps_seen;
    int64_t skipped_steps;

    struct event_memory memory; /* the latest */
    int64_t memory_step;        /* -1: none yet */
    struct event_telemetry telemetry;
    bool telemetry_seen;

    struct history_evaluation *evaluation;
    size_t evaluation_count, evaluation_capacity;
    struct history_memory *memories;
    size_t memories_count, memories_capacity;
    struct history_refresh *refresh;
    size_t refresh_count, refresh_capacity;
    struct history_matrix *matrix;
    size_t matrix_count, matrix_capacity, matrix_hint;
    struct history_setting *setting;
    size_t setting_count, setting_capacity;
    struct history_sample sample[HISTORY_SAMPLES]; /* oldest first */
    size_t sample_count;
    struct history_line *line; /* ring of HISTORY_LINES */
    size_t line_count;         /* ever made */

    int64_t checkpoint_step; /* -1: none */
    int64_t checkpoint_bytes;
    double checkpoint_seconds;
    char state[32]; /* "running", "paused" ...; "" unknown */
    bool stopped;
    struct event_stop stop; /* reason owned */
    int64_t warnings, errors;
};

void history_open(struct history *history);
void history_close(struct history *history);

/* Takes an event in. */
void history_add(struct history *history, const struct event *event);

/* Chooses another smoothing factor (0: none) and smooths the loss anew. */
void history_smooth(struct history *history, double factor);

/* The i-th newest line (0: the newest), or NULL. */
const struct history_line *history_line_at(const struct history *history, size_t newest);
/* Writes what a line says; `brief` for narrow panes. */
struct history_text {
    char text[256];
};
struct history_text history_line_text(const struct history *history,
                                      const struct history_line *line, bool brief);

/* Seconds a step takes lately, refreshes and savings included; NaN if unknown. */
double history_step_seconds(const struct history *history);
/* Seconds to the end; NaN if unknown or over. */
double history_remaining(const struct history *history);

/* The value of a recipe key now: from the recipe of the start event and the settings changed since.
 * False if it is unknown. */
bool history_setting_now(const struct history *history, const char *key, char *out, size_t size);

/* Category sums. */
int64_t history_total(const int64_t bytes[MEMORY_CATEGORY_COUNT]);

#endif
