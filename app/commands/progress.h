/* A headless run told to people: at most one line a second, the rare events, and a summary. */
#ifndef WINDROW_APP_COMMANDS_PROGRESS_H
#define WINDROW_APP_COMMANDS_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "app/commands/show_ranks.h"
#include "engine/event.h"

struct event;

struct progress {
    bool json;           /* every event line goes to stdout */
    bool output_gone;    /* nobody reads stdout any more */
    double printed;      /* when the last step line was printed; 0: none yet */
    char *run;           /* name of the run */
    int64_t total_steps; /* 0: unknown */
    int64_t first_step;  /* of this process */
    int64_t step;
    float first_loss; /* NaN: none yet */
    float loss;
    double step_seconds;    /* running mean */
    int64_t positions;      /* processed in this process */
    double working_seconds; /* spent in steps */
    int64_t peak_bytes;     /* sum of the high-water marks of the categories */
    int64_t planned_bytes;
    float best_evaluation; /* NaN: none */
    int64_t best_step;
    int64_t skipped;
    int64_t last_tokens_total;
    struct shown_ranks ranks;
};

void progress_init(struct progress *progress, bool json);
void progress_free(struct progress *progress);
/* For run_options.on_line; the context is the struct. */
void progress_on_line(void *context, const char *line, size_t size);

#endif
