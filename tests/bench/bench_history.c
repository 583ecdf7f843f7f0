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
#include "bench/long_run.h"
#include "engine/base/file.h"

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
    if (!mkdtemp(directory) || long_run_make(directory, steps, matrices, &err) != 0) {
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
