/* Events of a long run, made up. */
#include "bench/long_run.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/base/file.h"
#include "engine/event.h"

void long_run_refresh(int64_t step, int matrices, struct buffer *out)
{
    for (int i = 0; i < matrices; i++) {
        struct event event;
        event_init(&event, EVENT_SELECTION);
        event.time = 1.79e9 + 0.25 * (double)step;
        event.step = step;
        event.selection.tensor = xasprintf("model.layers.%d.mlp.up_proj.weight", i);
        event.selection.side = xstrdup("out");
        event.selection.rank = 128;
        event.selection.rows = 5632;
        event.selection.selected = 128;
        event.selection.overlap = 0.6 + 1e-7 * (double)step;
        event.selection.captured_energy = 0.8 + 1e-7 * (double)step / (i + 3);
        event.selection.coverage = 0.5;
        event.selection.entropy = 5.25 + 1.0 / (i + 3);
        for (int k = 0; k < EVENT_CURVE_POINTS; k++) {
            event.selection.curve[k] = (k + 1) / 7.0;
        }
        for (int k = 0; k < EVENT_HISTOGRAM_BINS; k++) {
            event.selection.histogram[k] = (k * 7 + i + step / 200) % 5;
        }
        event_write(&event, out);
        event_free(&event);
    }
}

void long_run_step(int64_t step, double time, struct buffer *out)
{
    struct event event;
    event_init(&event, EVENT_STEP);
    event.time = time;
    event.step = step;
    struct event_step *done = &event.step_done;
    done->loss = (float)(2.1 + 6 / sqrt((double)step) + 0.1 * sin((double)step));
    done->grad_norm = (float)(1 + 0.3 * cos((double)step));
    done->learning_rate = 1e-4 * (1 - (double)step * 1e-7);
    done->tokens = 8100;
    done->tokens_total = 8192 * step;
    done->step_ms = 251.3 + sin((double)step * 3);
    done->tokens_per_second = 8192e3 / done->step_ms;
    done->mfu = 0.38 + 0.001 * sin((double)step);
    done->forward_ms = done->step_ms * 0.31;
    done->backward_ms = done->step_ms * 0.55;
    done->update_ms = done->step_ms * 0.08;
    done->refresh_ms = step % 200 == 0 ? 40.5 : 0;
    done->data_ms = 0.21;
    done->rank = 128;
    done->refreshed = step % 200 == 0;
    event_write(&event, out);
}

int long_run_make(const char *directory, int64_t steps, int matrices, struct error *err)
{
    struct event event;
    struct buffer out = { 0 };
    event_init(&event, EVENT_START);
    event.time = 1.79e9;
    event.start.total_steps = steps;
    event_write(&event, &out);
    for (int64_t step = 1; step <= steps; step++) {
        long_run_step(step, 1.79e9 + 0.2513 * (double)step, &out);
        if (step % 200 == 0) {
            long_run_refresh(step, matrices, &out);
            event_init(&event, EVENT_EVALUATION);
            event.time = 1.79e9 + 0.2513 * (double)step;
            event.step = step;
            event.evaluation.loss = 2.5f;
            event_write(&event, &out);
        }
    }
    char *path = path_join(directory, "events.jsonl");
    int result = file_replace(path, out.text, out.size, err);
    printf("%" PRId64 " steps, %d matrices, a refresh every 200: events.jsonl of %.0f MB\n", steps,
           matrices, (double)out.size / 1e6);
    free(path);
    buffer_free(&out);
    return result;
}
