/* Runs beside the one that is shown: read in the background, forked, removed. */
#include "app/loop_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/file.h"
#include "engine/base/xalloc.h"
#include "engine/run.h"

static struct run_reader *reader_of(struct loop *loop)
{
    if (!loop->reader) {
        loop->reader = run_reader_open();
    }
    return loop->reader;
}

void loop_read_runs(struct loop *loop, const char *path)
{
    run_reader_ask(reader_of(loop), path);
}

void loop_prune(struct loop *loop, const char *path)
{
    run_reader_prune(reader_of(loop), path);
}

static void say(struct loop *loop, bool bad, const char *text)
{
    struct workbench_event event = { .kind = WORKBENCH_NOTICE, .notice = { text, bad } };
    workbench_event(&loop->workbench, &event);
}

static void take_reading(struct loop *loop, struct run_reading *reading)
{
    if (reading->pruned) {
        char text[200];
        snprintf(text, sizeof(text), "removed %.120s", path_base(reading->path));
        if (reading->ok) {
            say(loop, false, text);
        } else {
            loop_notice(loop, true, &reading->err);
        }
        loop_read_runs(loop, NULL);
    } else if (reading->path) {
        struct workbench_event event = {
            .kind = WORKBENCH_COMPARED,
            .compared = { reading->path, &reading->run, reading->ok ? NULL : reading->err.message }
        };
        workbench_event(&loop->workbench, &event);
    } else if (reading->ok) {
        loop_show_runs(loop, &reading->list);
    } else {
        loop_notice(loop, true, &reading->err);
    }
}

void loop_take_readings(struct loop *loop)
{
    struct run_reading reading;
    while (loop->reader && run_reader_take(loop->reader, &reading)) {
        take_reading(loop, &reading);
        run_reading_free(&reading);
    }
}

/* ---- forks -------------------------------------------------------------------------------------
 */

/* The shown run need not lie under the state directory: its name stands for its path. */
static char *name_run(const struct loop *loop, const char *word)
{
    size_t length = strcspn(word, "@");
    const char *name = loop->workbench.run_name;
    if (loop->directory && strlen(name) == length && strncmp(word, name, length) == 0) {
        return xasprintf("%s%s", loop->directory, word + length);
    }
    return xstrdup(word);
}

/* How many ranks trained a run: a fork goes on with as many. `run` may have a step behind it. */
static int ranks_of(const char *run)
{
    struct run_summary summary = { 0 };
    struct error ignored = { 0 };
    char *name = xstrndup(run, strcspn(run, "@"));
    char *path = run_resolve(name, &ignored);
    int ranks = 1;
    if (path && run_summary_read(path, &summary, &ignored) != -1) {
        ranks = summary.ranks > 1 && summary.ranks <= LAUNCHER_RANKS_MAX ? (int)summary.ranks : 1;
        run_summary_free(&summary);
    }
    free(path);
    free(name);
    return ranks;
}

void loop_fork(struct loop *loop, const char *words)
{
    enum { WORDS = 64 };
    const char *word[WORDS];
    size_t count = 0;
    char *copy = xstrdup(words);
    char *rest = copy;
    for (char *one; count < WORDS && (one = strsep(&rest, " ")) != NULL;) {
        if (one[0] != '\0') {
            word[count++] = one;
        }
    }
    if (count == 0) {
        say(loop, true, "fork wants RUN[@STEP] key=value ...");
        free(copy);
        return;
    }
    struct error err = { 0 };
    char *run = name_run(loop, word[0]);
    word[0] = run;
    starter_free(&loop->starter);
    if (starter_fork(&loop->starter, word, count, ranks_of(run), &err) != 0) {
        loop_notice(loop, true, &err);
    } else {
        free(loop->fallback);
        loop->fallback = loop->directory ? xstrdup(loop->directory) : NULL;
        loop_open_run(loop, loop->starter.directory, true);
    }
    free(run);
    free(copy);
}

bool loop_fork_failed(struct loop *loop, const struct error *err)
{
    char *back = loop->fallback;
    if (!back) {
        return false;
    }
    loop->fallback = NULL;
    starter_free(&loop->starter);
    loop_open_run(loop, back, false);
    loop_notice(loop, true, err);
    free(back);
    return true;
}
