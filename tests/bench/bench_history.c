/*
 * How long a viewer takes to open a long run, and what its screens cost then.
 *
 *   bench_history [STEPS [MATRICES]]
 *
 * Writes the events of a run (a step each, every 200 steps a refresh of all matrices and an
 * evaluation) into a folder of its own, reads them as `windrow attach` does, and prints seconds of
 * the processor, bytes and milliseconds a screen.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "app/workbench.h"
#include "engine/base/file.h"

static void write_refresh(int64_t step, int matrices, struct buffer *out)
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

static void write_step(int64_t step, struct buffer *out)
{
    struct event event;
    event_init(&event, EVENT_STEP);
    event.time = 1.79e9 + 0.2513 * (double)step;
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

static int make_run(const char *directory, int64_t steps, int matrices, struct error *err)
{
    struct event event;
    struct buffer out = { 0 };
    event_init(&event, EVENT_START);
    event.time = 1.79e9;
    event.start.total_steps = steps;
    event_write(&event, &out);
    for (int64_t step = 1; step <= steps; step++) {
        write_step(step, &out);
        if (step % 200 == 0) {
            write_refresh(step, matrices, &out);
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

static void fold(void *context, struct event *event)
{
    history_add(context, event);
}

static void ignore(void *context, struct event *event)
{
    *(int64_t *)context += event->step > 0;
}

static double resident_mb(void)
{
    char text[256] = "";
    long long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file && fgets(text, sizeof(text), file)) {
        char *rest = NULL;
        strtoll(text, &rest, 10);
        pages = strtoll(rest, NULL, 10);
    }
    if (file) {
        fclose(file);
    }
    return (double)pages * (double)sysconf(_SC_PAGESIZE) / 1e6;
}

/* Seconds of the processor, which other programs on the machine do not stretch. */
static double used_s(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static double draw_ms(const struct workbench *workbench, struct canvas *canvas)
{
    double before = used_s();
    for (int i = 0; i < 20; i++) {
        workbench_draw(workbench, canvas);
    }
    return (used_s() - before) * 1e3 / 20;
}

static void measure_screens(struct workbench *workbench, int64_t steps)
{
    struct canvas canvas;
    canvas_open(&canvas, 120, 36, GLYPHS_BRAILLE);
    workbench->width = 120;
    workbench->height = 36;
    for (int screen = 0; screen < SCREEN_COUNT; screen++) {
        workbench->screen = (enum screen)screen;
        workbench->at = 0;
        double now = draw_ms(workbench, &canvas);
        workbench_travel(workbench, steps / 2);
        printf("  draw %-8s %6.2f ms, looking back %6.2f ms\n", screen_names[screen], now,
               draw_ms(workbench, &canvas));
    }
    canvas_close(&canvas);
}

int main(int count, char **word)
{
    int64_t steps = count > 1 ? strtoll(word[1], NULL, 10) : 1000000;
    int matrices = count > 2 ? (int)strtol(word[2], NULL, 10) : 28;
    char directory[] = "/tmp/windrow-bench-XXXXXX";
    struct error err = { 0 };
    struct workbench workbench;
    int64_t seen = 0;
    if (!mkdtemp(directory) || make_run(directory, steps, matrices, &err) != 0) {
        fprintf(stderr, "bench_history: %s\n", err.message);
        return 1;
    }
    workbench_open(&workbench);
    workbench_show_run(&workbench, "bench", CONNECTION_NONE);
    double begin = used_s();
    event_file_read(directory, ignore, &seen, &err);
    double read = used_s();
    double memory = resident_mb();
    event_file_read(directory, fold, &workbench.history, &err);
    double folded = used_s();
    printf("  read %.2f s, read and fold %.2f s, history %.0f MB\n", read - begin, folded - read,
           resident_mb() - memory);
    measure_screens(&workbench, steps);
    begin = used_s();
    history_smooth(&workbench.history, 0.9);
    printf("  smooth anew %.0f ms\n", (used_s() - begin) * 1e3);
    workbench_close(&workbench);
    file_remove_tree(directory, &err);
    return seen == 0;
}
