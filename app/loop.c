/*
 * The loop: waits for the terminal, the run and the planner, feeds the workbench with what comes,
 * does what it asks for, and draws when something changed: at once after a key, else at most as
 * often as the settings say. While nothing happens it sleeps without end.
 */
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/loop_parts.h"
#include "app/workbench_main.h"
#include "engine/base/clock.h"

/* ---- waiting ------------------------------------------------------------------------------------
 */

/* The terminal is gone; the run goes on. */
static void hang_up(struct loop *loop)
{
    loop->code = LOOP_HUNG_UP;
    loop->leaving = true;
}

static void draw(struct loop *loop)
{
    struct workbench *workbench = &loop->workbench;
    if (loop->canvas.width != workbench->width || loop->canvas.height != workbench->height ||
        loop->canvas.glyphs != workbench->glyphs) {
        canvas_close(&loop->canvas);
        canvas_open(&loop->canvas, workbench->width, workbench->height, workbench->glyphs);
    }
    workbench_draw(workbench, &loop->canvas);
    int shown = term_draw(loop->terminal, &loop->canvas);
    if (shown < 0) {
        hang_up(loop);
    }
    /* What the terminal could not take now is drawn again, as it is then. */
    loop->unfinished = shown == 0;
    workbench->dirty = false;
    loop->pressed = false;
    loop->last_frame = clock_monotonic();
}

/* Theme and mouse are the workbench's to choose and the terminal's to show. */
static void follow_choices(struct loop *loop)
{
    struct workbench *workbench = &loop->workbench;
    term_choose_theme(loop->terminal, workbench->theme);
    if (!term_use_mouse(loop->terminal, workbench->mouse) && workbench->mouse) {
        workbench->mouse = false;
        workbench_say(workbench, STYLE_WARN, "this terminal tells nothing of its mouse");
    }
}

static void take_size(struct loop *loop)
{
    struct workbench_event event = { .kind = WORKBENCH_RESIZE };
    term_size(loop->terminal, &event.size.width, &event.size.height);
    workbench_event(&loop->workbench, &event);
    loop->pressed = true;
}

/* Seconds between ticks; 0: none needed. */
static double tick_seconds(const struct loop *loop)
{
    if (loop->workbench.mode == MODE_LAUNCHER) {
        return 2;
    }
    if (loop->client_state == CLIENT_WAITING) {
        return 0.1;
    }
    bool quiet = loop->client_state == CLIENT_ENDED || loop->workbench.history.stopped ||
                 strcmp(loop->workbench.history.state, "paused") == 0;
    return quiet && loop->client_state != CLIENT_POLLING ? 0 : 1;
}

static void tick(struct loop *loop)
{
    struct workbench_event event = { .kind = WORKBENCH_TICK, .now = clock_wall() };
    workbench_event(&loop->workbench, &event);
    if (loop->workbench.mode == MODE_LAUNCHER) {
        loop_scan_runs(loop);
        return;
    }
    if (loop->client_state == CLIENT_WAITING || loop->client_state == CLIENT_POLLING) {
        loop_pump_run(loop);
    }
    struct error err = { 0 };
    if (loop->client_state == CLIENT_WAITING && starter_failed(&loop->starter, &err)) {
        if (loop_fork_failed(loop, &err)) {
            return;
        }
        if (loop->catalog_open) {
            loop_go_home(loop);
            loop_notice(loop, true, &err);
        } else {
            snprintf(loop->farewell, sizeof(loop->farewell), "windrow: error: %.600s", err.message);
            loop->code = (int)err.code;
            loop->leaving = true;
        }
    }
}

static void earlier(double *when, double candidate)
{
    if (candidate < *when) {
        *when = candidate;
    }
}

static bool wants_frame(const struct loop *loop)
{
    return loop->workbench.dirty || loop->unfinished;
}

/* After a key at once; the rest of a frame as soon as the terminal takes it. */
static double frame_time(const struct loop *loop)
{
    return loop->pressed || loop->unfinished ? 0
                                             : loop->last_frame + 1.0 / (double)loop->settings.rate;
}

/* Milliseconds until something is due; -1: nothing is. */
static int wait_ms(struct loop *loop)
{
    double now = clock_monotonic();
    double when = INFINITY;
    double every = tick_seconds(loop);
    bool ready = term_ready(loop->terminal);
    if (loop->client && loop->client_state == CLIENT_READING) {
        return 0;
    }
    if (every > 0) {
        if (loop->next_tick == 0) {
            loop->next_tick = now + every;
        }
        earlier(&when, loop->next_tick);
    }
    if (wants_frame(loop) && ready) {
        earlier(&when, frame_time(loop));
    }
    earlier(&when, term_due(loop->terminal));
    if (loop->plan_due) {
        earlier(&when, loop->plan_time);
    }
    if (isinf(when)) {
        return -1;
    }
    double ms = ceil((when - now) * 1000);
    return ms < 0 ? 0 : ms > 60000 ? 60000 : (int)ms;
}

static void take_input(struct loop *loop, enum term_input kind, const struct term_event *input)
{
    struct workbench_event event = { .kind = WORKBENCH_KEY, .key = input->key };
    if (kind == TERM_GROUND) {
        loop->workbench.dirty = true;
        return;
    }
    if (kind == TERM_MOUSE) {
        event.kind = WORKBENCH_MOUSE;
        event.mouse.button = (enum mouse_button)input->button;
        event.mouse.spot = canvas_spot_at(&loop->canvas, input->x, input->y);
        workbench_event(&loop->workbench, &event);
        loop->pressed = true;
    } else if (kind == TERM_KEY) {
        workbench_event(&loop->workbench, &event);
        loop->pressed = true;
    }
}

static void read_keys(struct loop *loop, bool readable)
{
    for (int i = 0; i < 256; i++) {
        struct term_event input;
        enum term_input kind = term_read(loop->terminal, &input);
        if (kind == TERM_NOTHING) {
            /* Readable without anything to read, again and again: the terminal is gone. */
            loop->empty_reads += readable && i == 0;
            if (loop->empty_reads > 1000) {
                hang_up(loop);
            }
            return;
        }
        loop->empty_reads = 0;
        take_input(loop, kind, &input);
    }
}

static void take_news(struct loop *loop)
{
    unsigned news = term_news(loop->terminal);
    if (news & RESCUE_STOP_ASKED) {
        term_suspend(loop->terminal);
    } else if (news & RESCUE_CONTINUED) {
        term_resume(loop->terminal);
    }
    if (news != 0) {
        take_size(loop);
    }
}

/* Does what is due by now. */
static void act(struct loop *loop)
{
    struct effect effect;
    while (!loop->leaving && workbench_effect(&loop->workbench, &effect)) {
        loop_do_effect(loop, &effect);
    }
    double now = clock_monotonic();
    double every = tick_seconds(loop);
    if (every > 0 && (loop->next_tick == 0 || now >= loop->next_tick)) {
        loop->next_tick = now + every;
        tick(loop);
    }
    if (loop->plan_due && now >= loop->plan_time) {
        loop_ask_plan(loop);
    }
    if (loop->client && loop->client_state == CLIENT_READING) {
        loop_pump_run(loop);
    }
    follow_choices(loop);
    if (wants_frame(loop) && now >= frame_time(loop) && term_ready(loop->terminal)) {
        draw(loop);
    }
}

enum { WAIT_KEYS, WAIT_NEWS, WAIT_RUN, WAIT_PLAN, WAIT_READER, WAIT_PREVIEW, WAIT_OUTPUT, WAITS };

static void take_what_came(struct loop *loop, const struct pollfd fds[WAITS])
{
    if ((fds[WAIT_KEYS].revents & (POLLHUP | POLLERR | POLLNVAL)) ||
        (fds[WAIT_OUTPUT].revents && term_flush(loop->terminal) != 0)) {
        hang_up(loop);
        return;
    }
    if (fds[WAIT_NEWS].revents) {
        take_news(loop);
    }
    bool readable = fds[WAIT_KEYS].revents & POLLIN;
    if (readable || term_due(loop->terminal) <= clock_monotonic()) {
        read_keys(loop, readable);
    }
    if (fds[WAIT_RUN].revents) {
        loop_pump_run(loop);
    }
    if (fds[WAIT_PLAN].revents) {
        loop_take_plan(loop);
    }
    if (fds[WAIT_READER].revents) {
        loop_take_readings(loop);
    }
    if (fds[WAIT_PREVIEW].revents) {
        loop_take_preview(loop);
    }
}

static void run_loop(struct loop *loop)
{
    read_keys(loop, false); /* what was typed while the terminal was asked */
    while (!loop->leaving) {
        act(loop);
        struct pollfd fds[WAITS] = {
            [WAIT_KEYS] = { .fd = STDIN_FILENO, .events = POLLIN },
            [WAIT_NEWS] = { .fd = term_news_fd(loop->terminal), .events = POLLIN },
            [WAIT_RUN] = { .fd = loop->client ? client_fd(loop->client) : -1, .events = POLLIN },
            [WAIT_PLAN] = { .fd = loop->planner ? planner_fd(loop->planner) : -1,
                            .events = POLLIN },
            [WAIT_READER] = { .fd = loop->reader ? run_reader_fd(loop->reader) : -1,
                              .events = POLLIN },
            [WAIT_PREVIEW] = { .fd = loop->previewer ? previewer_fd(loop->previewer) : -1,
                               .events = POLLIN },
            [WAIT_OUTPUT] = { .fd = term_output_fd(loop->terminal), .events = POLLOUT },
        };
        if (loop->leaving) {
            break;
        }
        if (poll(fds, WAITS, wait_ms(loop)) < 0) {
            if (errno != EINTR) {
                break;
            }
            continue; /* the news is in the pipe */
        }
        take_what_came(loop, fds);
    }
}

/* What the configuration says; what is wrong in it is told on the message line. */
static void take_settings(struct loop *loop)
{
    settings_load(&loop->settings, NULL, loop->warning, sizeof(loop->warning));
    settings_environment(&loop->settings, loop->warning, sizeof(loop->warning));
    settings_apply(&loop->settings, &loop->workbench);
    follow_choices(loop);
}

static void tell_warning(struct loop *loop)
{
    if (loop->warning[0]) {
        workbench_say(&loop->workbench, STYLE_WARN, "%s", loop->warning);
    }
}

static int loop_open(struct loop *loop, struct error *err)
{
    memset(loop, 0, sizeof(*loop));
    workbench_open(&loop->workbench);
    loop->terminal = term_open(err);
    if (!loop->terminal) {
        workbench_close(&loop->workbench);
        return -1;
    }
    loop->workbench.glyphs = term_glyphs(loop->terminal);
    take_settings(loop);
    take_size(loop);
    return 0;
}

static int loop_close(struct loop *loop)
{
    bool running = loop->workbench.mode == MODE_RUN && !loop->workbench.history.stopped &&
                   loop->client &&
                   (loop->client_state == CLIENT_LIVE || loop->client_state == CLIENT_POLLING ||
                    loop->client_state == CLIENT_WAITING);
    if (running && loop->code == 0) {
        snprintf(loop->farewell, sizeof(loop->farewell),
                 "the run goes on; windrow attach %.80s shows it again, windrow stop %.80s ends it",
                 loop->workbench.run_name, loop->workbench.run_name);
    }
    if (loop->client_state == CLIENT_WAITING) {
        /* Its output is still being written there. */
        free(loop->starter.waiting);
        loop->starter.waiting = NULL;
    }
    term_close(loop->terminal);
    canvas_close(&loop->canvas);
    client_close(loop->client);
    planner_close(loop->planner);
    run_reader_close(loop->reader);
    free(loop->directory);
    free(loop->fallback);
    previewer_close(loop->previewer);
    settings_free(&loop->settings);
    if (loop->catalog_open) {
        catalog_close(&loop->catalog);
    }
    starter_free(&loop->starter);
    workbench_close(&loop->workbench);
    if (loop->farewell[0] && loop->code != LOOP_HUNG_UP) {
        fprintf(stderr, "%s\n", loop->farewell);
    }
    return loop->code;
}

static int tell(const struct error *err)
{
    fprintf(stderr, "windrow: error: %s\n", err->message);
    if (err->hint[0]) {
        fprintf(stderr, "  %s\n", err->hint);
    }
    return (int)err->code;
}

int workbench_launcher(void)
{
    struct loop loop;
    struct error err = { 0 };
    if (loop_open(&loop, &err) != 0) {
        return tell(&err);
    }
    draw(&loop); /* something to look at while presets are read */
    loop_go_home(&loop);
    tell_warning(&loop);
    run_loop(&loop);
    return loop_close(&loop);
}

int workbench_attach(const char *run, bool choose)
{
    struct loop loop;
    struct error err = { 0 };
    char *directory = run_resolve(run, &err);
    if (!directory || loop_open(&loop, &err) != 0) {
        free(directory);
        return tell(&err);
    }
    loop_open_run(&loop, directory, false);
    free(directory);
    tell_warning(&loop);
    if (choose) {
        runs_open_list(&loop.workbench, RUNS_FOR_OPEN);
    }
    run_loop(&loop);
    return loop_close(&loop);
}

int workbench_start_and_attach(const struct run_options *options, int ranks, struct error *err)
{
    struct loop loop;
    if (loop_open(&loop, err) != 0) {
        return -1;
    }
    if (starter_start(&loop.starter, options->recipe, options->directory, ranks, err) != 0) {
        loop_close(&loop);
        return -1;
    }
    loop_open_run(&loop, loop.starter.directory, true);
    run_loop(&loop);
    return loop_close(&loop);
}
