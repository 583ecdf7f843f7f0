/* Runs on disk: finding them by name, and what they say about themselves at both ends of their
 * events. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/file.h"
#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"
#include "engine/model/config.h"
#include "engine/model/export.h"
#include "engine/recipe.h"
#include "engine/run.h"
#include "engine/run/checkpoint.h"
#include "engine/run/directory.h"

const char *const run_status_names[] = { "running", "paused",  "done", "stopped",
                                         "failed",  "crashed", NULL };

enum { HEAD_BYTES = 256 << 10, TAIL_BYTES = 128 << 10, LONG_TAIL_BYTES = 8 << 20 };

/* ---- summaries ------------------------------------------------------------------------------ */

/* What was met while reading. */
struct reading {
    struct run_summary *summary;
    bool stepped;
    bool stopped;
    bool paused;
    char reason[16];
};

static void replace_text(char **place, const char *text)
{
    if (text && text[0]) {
        free(*place);
        *place = xstrdup(text);
    }
}

static void take_start(struct run_summary *summary, const struct event *event)
{
    if (summary->started == 0.0) {
        summary->started = event->time;
    }
    if (event->start.total_steps != EVENT_UNKNOWN) {
        summary->total_steps = event->start.total_steps;
    }
    summary->ranks = event->start.ranks > 0 ? event->start.ranks : 1;
    replace_text(&summary->model, event->start.model_name);
    replace_text(&summary->data, event->start.data_name);
    struct error ignored = { 0 };
    const char *json = event->start.recipe_json;
    cJSON *recipe = json ? json_parse(json, strlen(json), "recipe", 1, &ignored) : NULL;
    const cJSON *name = json_get(recipe, "name");
    const cJSON *method = json_get(json_get(recipe, "method"), "name");
    replace_text(&summary->recipe_name, cJSON_IsString(name) ? name->valuestring : NULL);
    replace_text(&summary->method, cJSON_IsString(method) ? method->valuestring : NULL);
    cJSON_Delete(recipe);
}

static void take_event(struct reading *reading, const struct event *event)
{
    struct run_summary *summary = reading->summary;
    switch (event->kind) {
    case EVENT_START:
        take_start(summary, event);
        reading->stopped = false;
        reading->paused = false;
        break;
    case EVENT_STEP:
        reading->stepped = true;
        summary->step = event->step;
        summary->loss = isnan(event->step_done.loss) ? summary->loss : event->step_done.loss;
        summary->tokens_per_second = event->step_done.tokens_per_second;
        break;
    case EVENT_MEMORY:
        summary->peak_bytes = 0;
        for (int i = 0; i < MEMORY_CATEGORY_COUNT; i++) {
            summary->peak_bytes += event->memory.peak_bytes[i];
        }
        break;
    case EVENT_STATE:
        reading->paused = event->state.state && strcmp(event->state.state, "paused") == 0;
        break;
    case EVENT_STOP:
        reading->stopped = true;
        snprintf(reading->reason, sizeof reading->reason, "%s",
                 event->stop.reason ? event->stop.reason : "");
        break;
    default:
        break;
    }
}

/* The whole lines within `text`; `cut` says that the first one may be torn. */
static void read_lines(struct reading *reading, const char *text, size_t size, bool cut)
{
    const char *end = text + size;
    if (cut) {
        const char *first = memchr(text, '\n', size);
        text = first ? first + 1 : end;
    }
    while (text < end) {
        const char *line_end = memchr(text, '\n', (size_t)(end - text));
        struct event event;
        struct error ignored = { 0 };
        if (!line_end) {
            break;
        }
        if (event_read(text, (size_t)(line_end - text), &event, &ignored) == 0) {
            take_event(reading, &event);
            event_free(&event);
        }
        text = line_end + 1;
    }
}

static int read_part(struct reading *reading, int fd, const char *path, int64_t first, int64_t end,
                     struct error *err)
{
    char *text = malloc((size_t)(end - first) + 1);
    if (!text) {
        return fail(err, ERROR_RUNTIME, "out of memory reading %s", text_show(path).text);
    }
    int result = file_read_at(fd, path, text, (size_t)(end - first), first, err);
    if (result == 0) {
        read_lines(reading, text, (size_t)(end - first), first > 0);
    }
    free(text);
    return result;
}

static int read_events(struct reading *reading, const char *path, struct error *err)
{
    char *name = path_join(path, "events.jsonl");
    int64_t size = 0;
    int fd = file_exists(name) ? file_open_read(name, &size, err) : -1;
    int result = 0;
    if (fd < 0) {
        result = file_exists(name) ? -1 : 0; /* a run that never began has none */
        free(name);
        return result;
    }
    int64_t head = size < HEAD_BYTES ? size : HEAD_BYTES;
    result = read_part(reading, fd, name, 0, head, err);
    int64_t tail = size - TAIL_BYTES > head ? size - TAIL_BYTES : head;
    if (result == 0 && tail < size) {
        reading->stepped = false;
        result = read_part(reading, fd, name, tail, size, err);
        if (result == 0 && !reading->stepped) { /* a burst of other events */
            tail = size - LONG_TAIL_BYTES > head ? size - LONG_TAIL_BYTES : head;
            result = read_part(reading, fd, name, tail, size, err);
        }
    }
    close(fd);
    free(name);
    return result;
}

static enum run_status judge(const struct reading *reading, bool locked)
{
    if (locked) {
        return reading->paused ? RUN_PAUSED : RUN_RUNNING;
    }
    if (!reading->stopped) {
        return RUN_CRASHED;
    }
    if (strcmp(reading->reason, "done") == 0) {
        return RUN_DONE;
    }
    bool by_hand =
        strcmp(reading->reason, "stopped") == 0 || strcmp(reading->reason, "interrupted") == 0;
    return by_hand ? RUN_STOPPED : RUN_FAILED;
}

int run_summary_read(const char *path, struct run_summary *out, struct error *err)
{
    *out = (struct run_summary){ .loss = NAN, .tokens_per_second = (double)NAN };
    struct reading reading = { .summary = out };
    out->path = xstrdup(path);
    out->name = xstrdup(path_base(path));
    out->recipe_name = xstrdup("");
    out->method = xstrdup("");
    out->model = xstrdup("");
    out->data = xstrdup("");
    bool locked = run_is_locked(path, &out->pid);
    if (read_events(&reading, path, err) != 0) {
        run_summary_free(out);
        return -1;
    }
    out->status = judge(&reading, locked);
    return 0;
}

void run_summary_free(struct run_summary *summary)
{
    free(summary->name);
    free(summary->path);
    free(summary->recipe_name);
    free(summary->method);
    free(summary->model);
    free(summary->data);
    *summary = (struct run_summary){ 0 };
}

/* ---- the list ------------------------------------------------------------------------------- */

static int compare_runs(const void *a, const void *b)
{
    const struct run_summary *left = a;
    const struct run_summary *right = b;
    if (left->started != right->started) {
        return left->started < right->started ? 1 : -1;
    }
    return strcmp(right->name, left->name);
}

int run_list_read(struct run_list *out, struct error *err)
{
    *out = (struct run_list){ 0 };
    char *root = run_root();
    DIR *directory = opendir(root);
    if (!directory && errno != ENOENT) {
        fail(err, ERROR_RUNTIME, "cannot list %s: %s", text_show(root).text, strerror(errno));
        free(root);
        return -1;
    }
    const struct dirent *entry;
    while (directory && (entry = readdir(directory))) {
        char *path = path_join(root, entry->d_name);
        struct run_summary summary;
        struct error ignored = { 0 };
        if (entry->d_name[0] != '.' && run_is_run(path) &&
            run_summary_read(path, &summary, &ignored) == 0) {
            out->item = xrealloc(out->item, (out->count + 1) * sizeof *out->item);
            out->item[out->count++] = summary;
        }
        free(path);
    }
    if (directory) {
        closedir(directory);
    }
    free(root);
    if (out->count > 1) {
        qsort(out->item, out->count, sizeof *out->item, compare_runs);
    }
    return 0;
}

void run_list_free(struct run_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        run_summary_free(&list->item[i]);
    }
    free(list->item);
    *list = (struct run_list){ 0 };
}

/* ---- names ---------------------------------------------------------------------------------- */

static char *newest_run(const struct run_list *list, struct error *err)
{
    for (size_t i = 0; i < list->count; i++) {
        if (list->item[i].status == RUN_RUNNING || list->item[i].status == RUN_PAUSED) {
            return xstrdup(list->item[i].path);
        }
    }
    if (list->count > 0) {
        return xstrdup(list->item[0].path);
    }
    fail(err, ERROR_USAGE, "there are no runs yet");
    hint(err, "windrow train RECIPE starts one");
    return NULL;
}

static char *named_run(const struct run_list *list, const char *run, struct error *err)
{
    const char **names = xcalloc(list->count + 1, sizeof *names);
    const struct run_summary *found = NULL;
    size_t matches = 0;
    for (size_t i = 0; i < list->count; i++) {
        names[i] = list->item[i].name;
        if (strncmp(names[i], run, strlen(run)) == 0) {
            found = &list->item[i];
            matches++;
        }
    }
    const char *near = nearest_name(run, names, list->count);
    if (matches != 1) {
        fail(err, ERROR_USAGE,
             matches == 0 ? "there is no run \"%s\"" : "several runs begin with \"%s\"",
             text_show(run).text);
        if (near) {
            hint(err, "did you mean %s? windrow runs lists them", near);
        } else {
            hint(err, "windrow runs lists them");
        }
        found = NULL;
    }
    free(names);
    return found ? xstrdup(found->path) : NULL;
}

char *run_resolve(const char *run, struct error *err)
{
    if (run && !run[0]) { /* an unset variable of a script must not mean the newest run */
        fail(err, ERROR_USAGE, "a run is needed, found an empty name");
        hint(err, "windrow runs lists them");
        return NULL;
    }
    if (run) {
        char *root = run_root();
        char *exact = path_join(root, run);
        const char *place = run_is_run(run)                          ? run
                            : !strchr(run, '/') && run_is_run(exact) ? exact
                                                                     : NULL;
        char *real = place ? realpath(place, NULL) : NULL;
        free(exact);
        free(root);
        if (real) {
            return real;
        }
        if (strchr(run, '/') && access(run, R_OK | X_OK) != 0 && errno == EACCES) {
            fail(err, ERROR_RUNTIME, "cannot read the run %s: %s", text_show(run).text,
                 strerror(EACCES));
            hint(err, "check who owns it and its permissions");
            return NULL;
        }
        if (strchr(run, '/')) {
            fail(err, ERROR_USAGE, "%s is not the directory of a run", text_show(run).text);
            hint(err, "windrow runs lists them");
            return NULL;
        }
    }
    struct run_list list;
    if (run_list_read(&list, err) != 0) {
        return NULL;
    }
    char *path = run ? named_run(&list, run, err) : newest_run(&list, err);
    run_list_free(&list);
    return path;
}

/* ---- what can be done with a run at rest ---------------------------------------------------- */

char *run_latest_checkpoint(const char *run, int64_t *step,
                            void (*on_notice)(void *context, const char *text), void *context,
                            struct error *err)
{
    struct checkpoint_list list;
    char *path = NULL;
    if (checkpoint_list_read(run, &list, err) != 0) {
        return NULL;
    }
    for (size_t i = 0; i < list.count && !path; i++) {
        struct error why = { 0 };
        if (checkpoint_verify(list.item[i].path, true, &why) == 0) {
            path = xstrdup(list.item[i].path);
            *step = list.item[i].step;
        } else if (on_notice) {
            char *text =
                xasprintf("checkpoint refused: %s; looking for the one before", why.message);
            on_notice(context, text);
            free(text);
        }
    }
    if (!path) {
        fail(err, ERROR_DATA, "%s has no whole checkpoint (%zu damaged)", text_show(run).text,
             list.count);
        hint(err, "windrow save makes one while the run trains; train.save_every makes them "
                  "regularly");
    }
    checkpoint_list_free(&list);
    return path;
}

/* Whether a process holds a checkpoint of the run. */
static bool has_pin(const char *run)
{
    struct checkpoint_list list;
    struct error ignored = { 0 };
    bool pinned = false;
    if (checkpoint_list_read(run, &list, &ignored) != 0) {
        return false;
    }
    for (size_t i = 0; i < list.count; i++) {
        int claim = checkpoint_claim(list.item[i].path);
        pinned = pinned || claim == CHECKPOINT_PINNED;
        checkpoint_unpin(claim);
    }
    checkpoint_list_free(&list);
    return pinned;
}

int run_prune(const char *run, struct error *err)
{
    int64_t pid = 0;
    if (!run_is_run(run)) {
        return fail(err, ERROR_USAGE, "%s is not the directory of a run", text_show(run).text);
    }
    if (run_is_locked(run, &pid)) {
        fail(err, ERROR_USAGE, "%s is running (process %lld)", text_show(run).text, (long long)pid);
        return hint(err, "windrow stop ends it first");
    }
    if (has_pin(run)) {
        fail(err, ERROR_USAGE,
             "another run has begun from a checkpoint of %s and has none of its "
             "own yet",
             text_show(run).text);
        return hint(err, "windrow save makes one there");
    }
    return file_remove_tree(run, err);
}
