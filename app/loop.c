/*
 * The loop: waits for the terminal, the run and the planner, feeds the workbench with what comes,
 * does what it asks for, and draws when something changed: at once after a key, else at most four
 * times a second. While nothing happens it sleeps without end.
 */
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/catalog.h"
#include "app/client.h"
#include "app/planner.h"
#include "app/starter.h"
#include "app/term.h"
#include "app/text.h"
#include "app/workbench.h"
#include "app/workbench_main.h"
#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"

static const char first_recipe[] = "stories";
static const double frame_seconds = 0.25;
enum { RUNS_SHOWN = 200, HUNG_UP = 129 };

struct loop {
    struct workbench workbench;
    struct terminal *terminal;
    struct canvas canvas;
    struct catalog catalog;
    bool catalog_open;
    struct planner *planner;
    struct client *client;
    enum client_state client_state;
    struct starter starter;
    bool leaving;
    int code;
    double last_frame; /* monotonic seconds */
    double next_tick;
    int empty_reads;
    bool pressed;  /* a key came since the last frame */
    bool plan_due; /* the workbench wants a plan of plan_choice */
    int plan_choice[LAUNCHER_LISTS];
    double plan_time;
    char farewell[640]; /* printed after the terminal was given back */
};

static void notice(struct loop *loop, bool bad, const struct error *err)
{
    char text[1600];
    snprintf(text, sizeof(text), "%s%s%s", err->message, err->hint[0] ? " - " : "", err->hint);
    struct workbench_event event = { .kind = WORKBENCH_NOTICE, .notice = { text, bad } };
    workbench_event(&loop->workbench, &event);
}

/* ---- the run ------------------------------------------------------------------------------------
 */

static void on_event(void *context, const struct event *record)
{
    struct loop *loop = context;
    struct workbench_event event = { .kind = WORKBENCH_RECORD, .record = record };
    workbench_event(&loop->workbench, &event);
}

static void on_reply(void *context, const struct control_reply *reply)
{
    struct loop *loop = context;
    struct workbench_event event = { .kind = WORKBENCH_REPLY, .reply = reply };
    workbench_event(&loop->workbench, &event);
}

static void on_reset(void *context)
{
    struct loop *loop = context;
    char name[sizeof(loop->workbench.run_name)];
    snprintf(name, sizeof(name), "%s", loop->workbench.run_name);
    enum screen screen = loop->workbench.screen;
    workbench_show_run(&loop->workbench, name, CONNECTION_LOADING);
    loop->workbench.screen = screen;
}

static void open_run(struct loop *loop, const char *directory, bool starting)
{
    struct client_handler handler = { on_event, on_reply, on_reset, loop };
    client_close(loop->client);
    loop->client = client_open(directory, &handler);
    loop->client_state = starting ? CLIENT_WAITING : CLIENT_READING;
    workbench_show_run(&loop->workbench, path_base(directory),
                       starting ? CONNECTION_STARTING : CONNECTION_LOADING);
    loop->next_tick = 0;
}

/* Reads what the run says and tells the workbench how it is connected. */
static void pump_run(struct loop *loop)
{
    static const enum connection connections[] = {
        [CLIENT_WAITING] = CONNECTION_STARTING, [CLIENT_READING] = CONNECTION_LOADING,
        [CLIENT_LIVE] = CONNECTION_LIVE,        [CLIENT_POLLING] = CONNECTION_FOLLOW,
        [CLIENT_ENDED] = CONNECTION_NONE,
    };
    if (!loop->client) {
        return;
    }
    loop->client_state = client_pump(loop->client);
    if (loop->client_state != CLIENT_WAITING) {
        starter_settle(&loop->starter);
    }
    enum connection now = connections[loop->client_state];
    if (now != loop->workbench.connection || loop->client_state == CLIENT_ENDED) {
        struct workbench_event event = { .kind = WORKBENCH_CONNECTION,
                                         .link = { now, client_status(loop->client) } };
        if (now != loop->workbench.connection) {
            workbench_event(&loop->workbench, &event);
        }
    }
}

/* ---- the launcher -------------------------------------------------------------------------------
 */

static void show_run(struct launcher_run *to, const struct run_summary *from)
{
    snprintf(to->name, sizeof(to->name), "%s", from->name);
    snprintf(to->path, sizeof(to->path), "%s", from->path);
    snprintf(to->status, sizeof(to->status), "%s", run_status_names[from->status]);
    snprintf(to->what, sizeof(to->what), "%.24s, %.24s, %.24s", from->method ? from->method : "?",
             from->model ? from->model : "?", from->data ? path_base(from->data) : "?");
    to->step = from->step;
    to->total_steps = from->total_steps;
    to->loss = (double)from->loss;
    to->tokens_per_second = from->tokens_per_second;
    to->peak_bytes = from->peak_bytes;
}

static void scan_runs(struct loop *loop)
{
    struct run_list list = { 0 };
    struct error err = { 0 };
    if (run_list_read(&list, &err) != 0) {
        return;
    }
    int count = list.count > RUNS_SHOWN ? RUNS_SHOWN : (int)list.count;
    struct launcher_run *item = xcalloc((size_t)count + 1, sizeof(item[0]));
    for (int i = 0; i < count; i++) {
        show_run(&item[i], &list.item[i]);
    }
    run_list_free(&list);
    const struct launcher *launcher = &loop->workbench.launcher;
    if (count == launcher->run_count && launcher->run &&
        memcmp(item, launcher->run, (size_t)count * sizeof(item[0])) == 0) {
        free(item);
        return;
    }
    struct workbench_event event = { .kind = WORKBENCH_RUNS, .runs = { item, count } };
    workbench_event(&loop->workbench, &event);
}

static int open_catalog(struct loop *loop, struct error *err)
{
    if (loop->catalog_open) {
        return 0;
    }
    if (catalog_open(&loop->catalog, first_recipe, err) != 0) {
        return -1;
    }
    loop->catalog_open = true;
    loop->planner = planner_open();
    catalog_show(&loop->catalog, &loop->workbench.launcher);
    loop->workbench.launcher.cursor[LAUNCHER_METHOD] = loop->catalog.first_method;
    return 0;
}

static void go_home(struct loop *loop)
{
    struct error err = { 0 };
    client_close(loop->client);
    loop->client = NULL;
    starter_free(&loop->starter);
    loop->workbench.mode = MODE_LAUNCHER;
    loop->workbench.overlay = OVERLAY_NONE;
    loop->workbench.message[0] = '\0';
    loop->workbench.dirty = true;
    if (open_catalog(loop, &err) != 0) {
        notice(loop, true, &err);
    }
    scan_runs(loop);
    launcher_want(&loop->workbench);
    loop->next_tick = 0;
}

static void refuse_plan(struct loop *loop, const struct error *err)
{
    struct launcher_plan plan;
    planner_refusal(err, loop->plan_choice, &plan);
    struct workbench_event event = { .kind = WORKBENCH_PLANNED, .plan = &plan };
    workbench_event(&loop->workbench, &event);
}

static void ask_plan(struct loop *loop)
{
    struct error err = { 0 };
    struct recipe recipe;
    recipe_init(&recipe);
    loop->plan_due = false;
    if (catalog_recipe(&loop->catalog, loop->plan_choice, &recipe, &err) != 0) {
        refuse_plan(loop, &err);
    } else {
        planner_ask(loop->planner, &recipe, loop->plan_choice);
    }
    recipe_free(&recipe);
}

static void take_plan(struct loop *loop)
{
    struct launcher_plan plan;
    if (planner_take(loop->planner, &plan)) {
        struct workbench_event event = { .kind = WORKBENCH_PLANNED, .plan = &plan };
        workbench_event(&loop->workbench, &event);
    }
}

static void start_run(struct loop *loop, const int choice[LAUNCHER_LISTS])
{
    struct error err = { 0 };
    struct recipe recipe;
    recipe_init(&recipe);
    starter_free(&loop->starter);
    if (catalog_recipe(&loop->catalog, choice, &recipe, &err) != 0 ||
        starter_start(&loop->starter, &recipe, NULL, &err) != 0) {
        notice(loop, true, &err);
    } else {
        open_run(loop, loop->starter.directory, true);
    }
    recipe_free(&recipe);
}

/* ---- effects ------------------------------------------------------------------------------------
 */

static void add_or_override(struct loop *loop, const struct effect *effect)
{
    struct error err = { 0 };
    struct launcher *launcher = &loop->workbench.launcher;
    if (effect->kind == EFFECT_OVERRIDE) {
        if (catalog_override(&loop->catalog, effect->text, &err) != 0) {
            notice(loop, true, &err);
            return;
        }
    } else {
        int list = effect->choice[0] < LAUNCHER_LISTS ? effect->choice[0] : LAUNCHER_DATA;
        int index = catalog_add(&loop->catalog, list, effect->text, &err);
        if (index < 0) {
            notice(loop, true, &err);
            return;
        }
        launcher->cursor[list] = index;
    }
    catalog_show(&loop->catalog, launcher);
    launcher_forget_plans(&loop->workbench);
}

static void send_command(struct loop *loop, const struct effect *effect)
{
    struct error err = { 0 };
    if (!loop->client || client_send(loop->client, effect->id, effect->command, effect->key,
                                     effect->value, &err) != 0) {
        notice(loop, true, &err);
    }
}

static void do_effect(struct loop *loop, const struct effect *effect)
{
    switch (effect->kind) {
    case EFFECT_QUIT:
        loop->leaving = true;
        break;
    case EFFECT_SEND:
        send_command(loop, effect);
        break;
    case EFFECT_START:
        start_run(loop, effect->choice);
        break;
    case EFFECT_OPEN:
        open_run(loop, effect->text, false);
        break;
    case EFFECT_PLAN:
        /* A moment of rest first: a key held down passes many combinations. */
        memcpy(loop->plan_choice, effect->choice, sizeof(loop->plan_choice));
        loop->plan_due = true;
        loop->plan_time = clock_monotonic() + 0.05;
        break;
    case EFFECT_ADD:
    case EFFECT_OVERRIDE:
        add_or_override(loop, effect);
        break;
    case EFFECT_HOME:
        go_home(loop);
        break;
    case EFFECT_REPAINT:
        term_repaint(loop->terminal);
        break;
    case EFFECT_SUSPEND:
        term_suspend(loop->terminal);
        loop->workbench.dirty = true;
        break;
    case EFFECT_NONE:
        break;
    }
}

/* ---- waiting ------------------------------------------------------------------------------------
 */

static void draw(struct loop *loop)
{
    struct workbench *workbench = &loop->workbench;
    if (loop->canvas.width != workbench->width || loop->canvas.height != workbench->height ||
        loop->canvas.glyphs != workbench->glyphs) {
        canvas_close(&loop->canvas);
        canvas_open(&loop->canvas, workbench->width, workbench->height, workbench->glyphs);
    }
    workbench_draw(workbench, &loop->canvas);
    term_draw(loop->terminal, &loop->canvas);
    workbench->dirty = false;
    loop->pressed = false;
    loop->last_frame = clock_monotonic();
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
        scan_runs(loop);
        return;
    }
    if (loop->client_state == CLIENT_WAITING || loop->client_state == CLIENT_POLLING) {
        pump_run(loop);
    }
    struct error err = { 0 };
    if (loop->client_state == CLIENT_WAITING && starter_failed(&loop->starter, &err)) {
        if (loop->catalog_open) {
            go_home(loop);
            notice(loop, true, &err);
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

/* Milliseconds until something is due; -1: nothing is. */
static int wait_ms(struct loop *loop)
{
    double now = clock_monotonic();
    double when = INFINITY;
    double every = tick_seconds(loop);
    if (loop->client && loop->client_state == CLIENT_READING) {
        return 0;
    }
    if (every > 0) {
        if (loop->next_tick == 0) {
            loop->next_tick = now + every;
        }
        earlier(&when, loop->next_tick);
    }
    if (loop->workbench.dirty) {
        earlier(&when, loop->pressed ? now : loop->last_frame + frame_seconds);
    }
    if (loop->plan_due) {
        earlier(&when, loop->plan_time);
    }
    if (isinf(when)) {
        return -1;
    }
    double ms = ceil((when - now) * 1000);
    return ms < 0 ? 0 : ms > 60000 ? 60000 : (int)ms;
}

static void read_keys(struct loop *loop)
{
    for (int i = 0; i < 64; i++) {
        int32_t key = term_key(loop->terminal);
        if (key == 0) {
            /* Readable without anything to read, again and again: the terminal is gone. */
            loop->empty_reads += i == 0;
            if (loop->empty_reads > 1000) {
                loop->code = HUNG_UP;
                loop->leaving = true;
            }
            return;
        }
        loop->empty_reads = 0;
        if (key > 0) {
            struct workbench_event event = { .kind = WORKBENCH_KEY, .key = (uint32_t)key };
            workbench_event(&loop->workbench, &event);
            loop->pressed = true;
        }
    }
}

/* Does what is due by now. */
static void act(struct loop *loop)
{
    struct effect effect;
    while (!loop->leaving && workbench_effect(&loop->workbench, &effect)) {
        do_effect(loop, &effect);
    }
    double now = clock_monotonic();
    double every = tick_seconds(loop);
    if (every > 0 && (loop->next_tick == 0 || now >= loop->next_tick)) {
        loop->next_tick = now + every;
        tick(loop);
    }
    if (loop->plan_due && now >= loop->plan_time) {
        ask_plan(loop);
    }
    if (loop->client && loop->client_state == CLIENT_READING) {
        pump_run(loop);
    }
    if (loop->workbench.dirty && (loop->pressed || now - loop->last_frame >= frame_seconds)) {
        draw(loop);
    }
}

static void run_loop(struct loop *loop)
{
    while (!loop->leaving) {
        act(loop);
        struct pollfd fds[4] = {
            { .fd = STDIN_FILENO, .events = POLLIN },
            { .fd = term_resize_fd(loop->terminal), .events = POLLIN },
            { .fd = loop->client ? client_fd(loop->client) : -1, .events = POLLIN },
            { .fd = loop->planner ? planner_fd(loop->planner) : -1, .events = POLLIN },
        };
        if (loop->leaving || (poll(fds, 4, wait_ms(loop)) < 0 && errno != EINTR)) {
            break;
        }
        if (fds[0].revents & (POLLHUP | POLLERR | POLLNVAL)) {
            loop->code = HUNG_UP;
            break;
        }
        if (fds[1].revents && term_resized(loop->terminal)) {
            take_size(loop);
        }
        if (fds[0].revents & POLLIN) {
            read_keys(loop);
        }
        if (fds[2].revents) {
            pump_run(loop);
        }
        if (fds[3].revents) {
            take_plan(loop);
        }
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
    if (loop->catalog_open) {
        catalog_close(&loop->catalog);
    }
    starter_free(&loop->starter);
    workbench_close(&loop->workbench);
    if (loop->farewell[0] && loop->code != HUNG_UP) {
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
    go_home(&loop);
    run_loop(&loop);
    return loop_close(&loop);
}

int workbench_attach(const char *run)
{
    struct loop loop;
    struct error err = { 0 };
    char *directory = run_resolve(run, &err);
    if (!directory || loop_open(&loop, &err) != 0) {
        free(directory);
        return tell(&err);
    }
    open_run(&loop, directory, false);
    free(directory);
    run_loop(&loop);
    return loop_close(&loop);
}

int workbench_start_and_attach(const struct run_options *options, struct error *err)
{
    struct loop loop;
    if (loop_open(&loop, err) != 0) {
        return -1;
    }
    if (starter_start(&loop.starter, options->recipe, options->directory, err) != 0) {
        loop_close(&loop);
        return -1;
    }
    open_run(&loop, loop.starter.directory, true);
    run_loop(&loop);
    return loop_close(&loop);
}
