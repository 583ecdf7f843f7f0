/* A recorded run, and the loop on it. */
#include "attach.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "app/workbench_main.h"
#include "engine/base/file.h"
#include "engine/base/xalloc.h"
#include "recording.h"

static char folder[64];
static char run[96];

static void write_event(void *context, const struct event *event)
{
    event_write(event, context);
}

static int write_file(const char *name, const char *text, size_t size)
{
    struct error err = { 0 };
    char *path = path_join(run, name);
    int result = file_replace(path, text, size, &err);
    free(path);
    return result;
}

int attach_begin(void **state)
{
    (void)state;
    struct buffer text = { 0 };
    const struct recording whole = { .steps = 300, .total = 300, .layers = 4, .stop = true };
    snprintf(folder, sizeof(folder), "/tmp/windrow-ui-XXXXXX");
    if (!mkdtemp(folder)) {
        return -1;
    }
    snprintf(run, sizeof(run), "%s/recorded", folder);
    setenv("HOME", folder, 1);
    setenv("XDG_CONFIG_HOME", folder, 1);
    setenv("XDG_STATE_HOME", folder, 1);
    setenv("XDG_RUNTIME_DIR", folder, 1);
    recording_play(&whole, write_event, &text);
    int result = mkdir(run, 0700) | write_file("events.jsonl", text.text, text.size) |
                 write_file("recipe.json", "{}", 2);
    buffer_free(&text);
    return result;
}

int attach_end(void **state)
{
    (void)state;
    struct error err = { 0 };
    return file_remove_tree(folder, &err);
}

const char *attach_folder(void)
{
    return folder;
}

const char *attach_run(void)
{
    return run;
}

int attach_child(void *environment)
{
    for (const char *const *at = environment; at && at[0]; at += 2) {
        setenv(at[0], at[1], 1);
    }
    signal(SIGPIPE, SIG_IGN); /* as main does */
    return workbench_attach(run, false);
}
