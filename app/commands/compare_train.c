/*
 * The training behind windrow compare RECIPE --methods A,B.
 *
 * Every method is a run like any other: a process, a directory (FOLDER/<label>), events. They train
 * one after the other, so that each has the whole machine and their speeds compare. What is
 * finished is not trained again, what was interrupted goes on: the same words give the same table.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "app/commands/compare.h"
#include "app/commands/output.h"
#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/text.h"

enum { EXIT_INTERRUPTED = 130, EXIT_TERMINATED = 143 };

static char *default_folder(const char *name)
{
    char stamp[32] = "now";
    struct tm parts;
    time_t now = (time_t)clock_wall();
    if (localtime_r(&now, &parts) != NULL) {
        strftime(stamp, sizeof stamp, "%Y%m%d-%H%M%S", &parts);
    }
    char *root = run_root();
    char *stem = xstrndup(name, strcspn(name, "."));
    char *path = xasprintf("%s/%s-compare-%s", root, stamp, path_base(stem));
    free(stem);
    free(root);
    return path;
}

/* "grass:method.rank=16" -> "grass-method.rank-16" */
static char *folder_name(const char *label)
{
    char *name = xstrdup(label);
    for (char *c = name; *c != '\0'; c++) {
        bool plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') ||
                     (*c >= '0' && *c <= '9') || *c == '.' || *c == '_';
        *c = plain ? *c : '-';
    }
    return name;
}

/* Lays NAME and its settings over a recipe. */
static int lay_method(struct recipe *recipe, const char *label, struct error *err)
{
    char *words = xstrdup(label);
    char *rest = words;
    const char *name = strsep(&rest, ":");
    const char *root = preset_directory();
    char *path = xasprintf("%s/methods/%s.json", root != NULL ? root : ".", name);
    int result = 0;
    if (name[0] == '\0' || strchr(name, '/') != NULL || !file_exists(path)) {
        fail(err, ERROR_USAGE, "--methods: there is no method preset \"%s\"", text_show(name).text);
        hint(err, "windrow presets lists them; a method may carry settings: grass:method.rank=64");
        result = -1;
    } else {
        char *keep = xstrdup(recipe->name);
        result = recipe_load(recipe, path, err);
        free(recipe->name);
        recipe->name = keep;
    }
    for (char *word; result == 0 && (word = strsep(&rest, ":")) != NULL;) {
        result = recipe_set(recipe, word, err);
    }
    free(path);
    free(words);
    return result;
}

static int add_contestant(struct contest *contest, const struct recipe *base, const char *label,
                          const struct arguments *arguments, struct error *err)
{
    for (size_t i = 0; i < contest->count; i++) {
        if (strcmp(contest->item[i].label, label) == 0) {
            return fail(err, ERROR_USAGE, "--methods: %s is named twice", text_show(label).text);
        }
    }
    contest->item = xrealloc(contest->item, (contest->count + 1) * sizeof *contest->item);
    struct contestant *c = &contest->item[contest->count++];
    char *name = folder_name(label);
    *c = (struct contestant){ .label = xstrdup(label),
                              .folder = xasprintf("%s/%s", contest->folder, name) };
    free(name);
    recipe_copy(&c->recipe, base);
    int result = lay_method(&c->recipe, label, err);
    /* What was said for all holds over what a preset says. */
    for (size_t i = 0; result == 0 && i < arguments->setting_count; i++) {
        result = recipe_set(&c->recipe, arguments->setting[i], err);
    }
    c->recipe.train_export = false;
    result = result == 0 ? recipe_check(&c->recipe, err) : -1;
    return result == 0 ? 0 : fail_within(err, "%s", text_show(label).text);
}

int contest_open(struct contest *contest, const struct arguments *arguments, const char *name,
                 const char *methods, struct error *err)
{
    const char *to = option_text(arguments, "to");
    contest->folder = to != NULL ? xstrdup(to) : default_folder(path_base(name));
    struct recipe base;
    recipe_init(&base);
    int result = recipe_find(&base, name, err);
    char *words = xstrdup(methods != NULL ? methods : base.compare_methods);
    char *rest = words;
    for (char *label; result == 0 && (label = strsep(&rest, ",")) != NULL;) {
        result = add_contestant(contest, &base, label, arguments, err);
    }
    free(words);
    recipe_free(&base);
    return result;
}

void contest_free(struct contest *contest)
{
    for (size_t i = 0; i < contest->count; i++) {
        free(contest->item[i].label);
        free(contest->item[i].folder);
        recipe_free(&contest->item[i].recipe);
    }
    free(contest->item);
    free(contest->folder);
    *contest = (struct contest){ 0 };
}

static bool is_there(const struct contestant *c)
{
    char *events = path_join(c->folder, "events.jsonl");
    bool there = file_exists(events);
    free(events);
    return there;
}

/* Whether the run in the folder was made from the same recipe, its number of steps aside. */
static int check_same(const struct contestant *c, struct error *err)
{
    struct recipe found;
    recipe_init(&found);
    char *path = path_join(c->folder, "recipe.json");
    int result = recipe_load(&found, path, err);
    for (size_t row = 0; result == 0 && recipe_fields[row].key != NULL; row++) {
        char *there = field_text(&recipe_fields[row], &found);
        char *here = field_text(&recipe_fields[row], &c->recipe);
        bool path_like = strstr(recipe_fields[row].key, "path") != NULL;
        if (strcmp(there, here) != 0 && !path_like) {
            fail(err, ERROR_USAGE, "%s holds another run: %s is %s there, %s here",
                 text_show(c->folder).text, recipe_fields[row].key, text_show(there).text,
                 text_show(here).text);
            hint(err, "choose another --to, or remove that folder");
            result = -1;
        }
        free(there);
        free(here);
    }
    free(path);
    recipe_free(&found);
    return result;
}

/* Becomes `windrow train WORDS`, its events unread; its progress on the user's terminal. */
static void become_training(char *const *words)
{
    int nowhere = file_ops()->open("/dev/null", O_RDWR, 0);
    if (nowhere >= 0) {
        dup2(nowhere, STDIN_FILENO);
        dup2(nowhere, STDOUT_FILENO);
    }
    signal(SIGINT, SIG_DFL);
    execv("/proc/self/exe", words);
    _exit(127);
}

/* Exit code of a training process. Ctrl-C reaches it directly: it saves, and we wait. */
static int run_words(char *const *words, struct error *err)
{
    struct sigaction ignore = { .sa_handler = SIG_IGN };
    struct sigaction before;
    sigaction(SIGINT, &ignore, &before);
    pid_t pid = fork();
    if (pid == 0) {
        become_training(words);
    }
    int status = 0;
    int code = EXIT_FAILURE;
    if (pid < 0) {
        fail(err, ERROR_RUNTIME, "the training process cannot be started: %s", strerror(errno));
    } else {
        while (waitpid(pid, &status, 0) == -1 && errno == EINTR) {
        }
        code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
    sigaction(SIGINT, &before, NULL);
    return code;
}

static bool has_checkpoint(const char *run)
{
    struct error ignored = { 0 };
    int64_t step = 0;
    char *path = run_latest_checkpoint(run, &step, NULL, NULL, &ignored);
    free(path);
    return path != NULL;
}

static int train_one(const struct contest *contest, const struct contestant *c, struct error *err)
{
    struct run_summary summary = { 0 };
    bool there = is_there(c);
    if (there && run_summary_read(c->folder, &summary, err) != 0) {
        return EXIT_FAILURE;
    }
    bool done = there && summary.status == RUN_DONE;
    run_summary_free(&summary);
    if (done) {
        output_say("%s: finished before, in %s", c->label, c->folder);
        return 0;
    }
    if (there && has_checkpoint(c->folder)) {
        return run_words((char *[]){ "windrow", "train", "--resume", c->folder, NULL }, err);
    }
    if (there && run_prune(c->folder, err) != 0) {
        return EXIT_FAILURE; /* it broke off before its first checkpoint: begin anew */
    }
    char *json = recipe_json(&c->recipe);
    char *path = xasprintf("%s.json", c->folder);
    int code = EXIT_FAILURE;
    if (file_make_directories(contest->folder, err) == 0 &&
        file_replace(path, json, strlen(json), err) == 0) {
        code = run_words((char *[]){ "windrow", "train", path, "--run-dir", c->folder, NULL }, err);
    }
    free(path);
    free(json);
    return code;
}

int contest_train(const struct contest *contest, struct error *err)
{
    int worst = 0;
    for (size_t i = 0; i < contest->count; i++) {
        if (is_there(&contest->item[i]) && check_same(&contest->item[i], err) != 0) {
            return (int)err->code;
        }
    }
    for (size_t i = 0; i < contest->count; i++) {
        const struct contestant *c = &contest->item[i];
        output_say("== %s (%zu of %zu)", c->label, i + 1, contest->count);
        struct error trouble = { 0 };
        int code = train_one(contest, c, &trouble);
        if (code == 0) {
            continue;
        }
        if (worst == 0) {
            worst = code;
            *err = trouble;
            if (err->message[0] == '\0') {
                fail(err, ERROR_RUNTIME, "%s ended with exit code %d", c->label, code);
                hint(err, "the same words with --to %s go on from here", contest->folder);
            }
        }
        if (code == EXIT_INTERRUPTED || code == EXIT_TERMINATED) {
            break;
        }
    }
    return worst;
}
