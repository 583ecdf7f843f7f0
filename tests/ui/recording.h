/* A made-up run, the same every time: events as a real run would say them. */
#ifndef WINDROW_TESTS_UI_RECORDING_H
#define WINDROW_TESTS_UI_RECORDING_H

#include "app/workbench.h"

/* Calls `take` with every event of a run of `total` steps, up to `steps`. Every 50 steps rows are
 * chosen, every 100 there is an evaluation; at 200 a sample, at 300 a changed rate, at 320 a
 * warning, at 321 a step that is not finite, at 400 a checkpoint. `stop`: the run ends at the last
 * one. */
struct recording {
    int64_t steps;
    int64_t total;
    int layers;
    bool stop;
    bool gpu;  /* telemetry of a device */
    int ranks; /* that train together, eight on a host; 0: one */
};
void recording_play(const struct recording *recording,
                    void (*take)(void *context, const struct event *event), void *context);

/* Feeds it to a workbench that is attached to a running run. */
void recording_feed(struct workbench *workbench, const struct recording *recording);

/* The same with everything a broken or hostile run could say: not finite numbers, names of 200
 * characters, escape sequences, steps that go back and far ahead. */
void recording_feed_hostile(struct workbench *workbench);

/* Fills the launcher's lists, plans and runs. */
void recording_launcher(struct workbench *workbench);
/* A first record for what the launcher's cursor is on; a plan of it that does not fit; all settings
 * of it, at their defaults but with all sources. */
void recording_preview(struct workbench *workbench);
void recording_unfit(struct workbench *workbench);
/* A plan of it for four ranks, of the eight GPUs that there are. */
void recording_ranks(struct workbench *workbench);
void recording_form(struct workbench *workbench);

/* Sends one event each. */
void press(struct workbench *workbench, uint32_t key);
void resize(struct workbench *workbench, int width, int height);

#endif
