/* What the loop does for the workbench: runs, the launcher, and every effect. */
#include "app/loop_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/picture.h"
#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"
#include "engine/run.h"

void loop_notice(struct loop *loop, bool bad, const struct error *err)
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

void loop_open_run(struct loop *loop, const char *directory, bool starting)
{
    struct client_handler handler = { on_event, on_reply, on_reset, loop };
    char *shown = xstrdup(directory);
    free(loop->directory);
    loop->directory = shown;
    client_close(loop->client);
    loop->client = client_open(shown, &handler);
    loop->client_state = starting ? CLIENT_WAITING : CLIENT_READING;
    workbench_show_run(&loop->workbench, path_base(shown),
                       starting ? CONNECTION_STARTING : CONNECTION_LOADING);
    loop->next_tick = 0;
}

/* Reads what the run says and tells the workbench how it is connected. */
void loop_pump_run(struct loop *loop)
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

/* ---- effects ------------------------------------------------------------------------------------
 */

static void send_command(struct loop *loop, const struct effect *effect)
{
    struct error err = { 0 };
    if (!loop->client || client_send(loop->client, effect->id, effect->command, effect->key,
                                     effect->text[0] ? effect->text : effect->value, &err) != 0) {
        loop_notice(loop, true, &err);
    }
}

/* From a run to another one the screen stays the same. */
static void switch_run(struct loop *loop, const char *directory)
{
    bool from_run = loop->workbench.mode == MODE_RUN;
    enum screen screen = loop->workbench.screen;
    starter_free(&loop->starter);
    loop_open_run(loop, directory, false);
    if (from_run) {
        loop->workbench.screen = screen;
    }
}

static void save_picture(struct loop *loop, const char *name)
{
    struct error err = { 0 };
    char *path = picture_save(&loop->workbench, name, &err);
    if (path) {
        workbench_say(&loop->workbench, STYLE_GOOD, "this screen is in %s", text_show(path).text);
        free(path);
    } else {
        loop_notice(loop, true, &err);
    }
}

void loop_do_effect(struct loop *loop, const struct effect *effect)
{
    switch (effect->kind) {
    case EFFECT_QUIT:
        loop->leaving = true;
        break;
    case EFFECT_SEND:
        send_command(loop, effect);
        break;
    case EFFECT_OPEN:
        switch_run(loop, effect->text);
        break;
    case EFFECT_LIST_RUNS:
        loop_read_runs(loop, NULL);
        break;
    case EFFECT_READ_RUN:
        loop_read_runs(loop, effect->text);
        break;
    case EFFECT_FORK:
        loop_fork(loop, effect->text);
        break;
    case EFFECT_PRUNE:
        loop_prune(loop, effect->text);
        break;
    case EFFECT_HOME:
        loop_go_home(loop);
        break;
    case EFFECT_SNAPSHOT:
        save_picture(loop, effect->text);
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
    default:
        loop_do_home(loop, effect);
        break;
    }
}
