/* Starts training as a process of its own. */
#include "app/starter.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"
#include "engine/run.h"

/* date-time-recipe, with a number behind it if that is taken. */
static char *new_directory(const char *root, const char *name)
{
    char stamp[32] = "run";
    struct tm parts;
    time_t now = (time_t)clock_wall();
    if (localtime_r(&now, &parts)) {
        strftime(stamp, sizeof(stamp), "%Y%m%d-%H%M%S", &parts);
    }
    for (int i = 1;; i++) {
        char *path = i == 1 ? xasprintf("%s/%s-%s", root, stamp, name)
                            : xasprintf("%s/%s-%s-%d", root, stamp, name, i);
        if (!file_exists(path)) {
            return path;
        }
        free(path);
    }
}

/* In the child: only calls that are safe after fork. */
static void become(const char *const *arguments, const char *output)
{
    setsid();
    signal(SIGHUP, SIG_IGN);
    static const int numbers[] = { SIGTERM, SIGINT, SIGQUIT, SIGSEGV,
                                   SIGBUS,  SIGFPE, SIGABRT, SIGWINCH };
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        signal(numbers[i], SIG_DFL);
    }
    int input = file_ops()->open("/dev/null", O_RDWR, 0);
    int log = file_ops()->open(output, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (input < 0 || log < 0 || dup2(input, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0) {
        _exit(1);
    }
    execv("/proc/self/exe", (char *const *)arguments);
    _exit(127);
}

static int write_recipe(struct starter *starter, const struct recipe *recipe, char **path,
                        struct error *err)
{
    char *json = recipe_json(recipe);
    *path = xasprintf("%s/%s.json", starter->waiting, recipe->name[0] ? recipe->name : "recipe");
    int result = file_replace(*path, json, strlen(json), err);
    free(json);
    return result;
}

/* The folders of a run that is about to begin; its name ends with `name`. */
static int prepare(struct starter *starter, const char *name, const char *directory,
                   struct error *err)
{
    char *root = run_root();
    int result = file_make_directories(root, err);
    if (result == 0) {
        starter->directory = directory ? xstrdup(directory) : new_directory(root, name);
        starter->waiting =
            xasprintf("%s/.starting-%s-%d", root, path_base(starter->directory), (int)getpid());
        result = file_make_directories(starter->waiting, err);
    }
    free(root);
    return result;
}

static int launch(struct starter *starter, const char *const *arguments, struct error *err)
{
    char *output = path_join(starter->waiting, "output.log");
    starter->pid = fork();
    if (starter->pid == 0) {
        become(arguments, output);
    }
    free(output);
    if (starter->pid < 0) {
        return fail(err, ERROR_RUNTIME, "the process of the run cannot be started: %s",
                    strerror(errno));
    }
    return 0;
}

/* Runs windrow train with these words, a NULL after them; for several ranks it starts them. */
static int launch_train(struct starter *starter, const char *const *words, int ranks,
                        struct error *err)
{
    enum { WORDS_MAX = 3 };
    const char *arguments[WORDS_MAX + 5] = { "windrow", "train" };
    char count[16];
    int used = 2;
    for (int i = 0; i < WORDS_MAX && words[i]; i++) {
        arguments[used++] = words[i];
    }
    if (ranks > 1) {
        snprintf(count, sizeof(count), "%d", ranks);
        arguments[used++] = "--gpus";
        arguments[used++] = count;
    }
    return launch(starter, arguments, err);
}

int starter_start(struct starter *starter, const struct recipe *recipe, const char *directory,
                  int ranks, struct error *err)
{
    char *path = NULL;
    memset(starter, 0, sizeof(*starter));
    int result = prepare(starter, recipe->name[0] ? recipe->name : "recipe", directory, err);
    if (result == 0) {
        result = write_recipe(starter, recipe, &path, err);
    }
    if (result == 0) {
        const char *words[] = { path, "--run-dir", starter->directory, NULL };
        result = launch_train(starter, words, ranks, err);
    }
    if (result != 0) {
        starter_free(starter);
    }
    free(path);
    return result;
}

int starter_fork(struct starter *starter, const char *const *words, size_t count, int ranks,
                 struct error *err)
{
    char option[32];
    memset(starter, 0, sizeof(*starter));
    int result = prepare(starter, "fork", NULL, err);
    if (result == 0) {
        const char **arguments = xcalloc(count + 6, sizeof(arguments[0]));
        arguments[0] = "windrow";
        arguments[1] = "fork";
        memcpy(&arguments[2], words, count * sizeof(words[0]));
        arguments[count + 2] = "--run-dir";
        arguments[count + 3] = starter->directory;
        if (ranks > 1) {
            snprintf(option, sizeof(option), "--gpus=%d", ranks);
            arguments[count + 4] = option;
        }
        result = launch(starter, arguments, err);
        free(arguments);
    }
    if (result != 0) {
        starter_free(starter);
    }
    return result;
}

int starter_resume(struct starter *starter, const char *directory, int ranks, struct error *err)
{
    memset(starter, 0, sizeof(*starter));
    int result = prepare(starter, "resume", directory, err);
    if (result == 0) {
        const char *words[] = { "--resume", starter->directory, NULL };
        result = launch_train(starter, words, ranks, err);
    }
    if (result != 0) {
        starter_free(starter);
    }
    return result;
}

/* The last line of its output that says something. */
static void last_words(const char *waiting, char *out, size_t size)
{
    struct error ignored = { 0 };
    char *path = path_join(waiting, "output.log");
    size_t length = 0;
    char *text = file_read_all(path, 1 << 20, &length, &ignored);
    out[0] = '\0';
    if (text) {
        const char *found = strstr(text, "error: ");
        const char *begin = found ? found + 7 : length > size ? text + length - size + 1 : text;
        snprintf(out, size, "%.*s", (int)strcspn(begin, "\n"), begin);
        text_clean(out, size);
    }
    free(text);
    free(path);
}

bool starter_failed(struct starter *starter, struct error *err)
{
    int status = 0;
    if (starter->pid <= 0 || waitpid(starter->pid, &status, WNOHANG) != starter->pid) {
        return false;
    }
    starter->pid = 0;
    char words[400];
    last_words(starter->waiting, words, sizeof(words));
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    fail(err, code >= 2 && code <= 4 ? (enum error_code)code : ERROR_RUNTIME,
         "the run ended at once (exit code %d): %s", code, words[0] ? words : "it said nothing");
    return true;
}

void starter_settle(struct starter *starter)
{
    struct error ignored = { 0 };
    if (!starter->waiting) {
        return;
    }
    char *from = path_join(starter->waiting, "output.log");
    char *to = path_join(starter->directory, "output.log");
    file_ops()->rename(from, to);
    file_remove_tree(starter->waiting, &ignored);
    free(from);
    free(to);
    free(starter->waiting);
    starter->waiting = NULL;
}

void starter_free(struct starter *starter)
{
    struct error ignored = { 0 };
    if (starter->waiting) {
        file_remove_tree(starter->waiting, &ignored);
    }
    free(starter->waiting);
    free(starter->directory);
    memset(starter, 0, sizeof(*starter));
}
