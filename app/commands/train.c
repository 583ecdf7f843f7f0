/* windrow train, and what happens without any words. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/commands/command.h"
#include "app/commands/common.h"
#include "app/commands/output.h"
#include "app/commands/progress.h"
#include "app/commands/ranks.h"
#include "app/workbench_main.h"
#include "engine/base/text.h"
#include "engine/run.h"

/* What `make run` trains where nobody watches, and what the launcher starts with. */
static const char default_recipe[] = "stories";

enum { RANKS_MAX = 1024 };

/* How many processes are asked for. */
static int64_t count_ranks(const struct arguments *arguments)
{
    struct error ignored = { 0 };
    int64_t count = 1;
    option_integer(arguments, "gpus", 1, RANKS_MAX, &count, &ignored);
    return count;
}

static int check_gpus(const struct arguments *arguments, struct error *err)
{
    int64_t count = 1;
    return option_integer(arguments, "gpus", 1, RANKS_MAX, &count, err) == -1 ? -1 : 0;
}

/* Values of an option that may be given several times; the caller frees the list. */
static const char **option_values(const struct arguments *arguments, const char *name,
                                  size_t *count)
{
    const char **values = xcalloc(arguments->option_count + 1, sizeof *values);
    *count = 0;
    for (size_t i = 0; i < arguments->option_count; i++) {
        if (strcmp(arguments->option[i].option->name, name) == 0) {
            values[(*count)++] = arguments->option[i].value;
        }
    }
    return values;
}

static int check_directory(const struct arguments *arguments, struct error *err)
{
    const char *directory = option_text(arguments, "run-dir");
    if (directory != NULL && directory[0] == '\0') { /* an unset variable of a script */
        fail(err, ERROR_USAGE, "--run-dir needs a directory, found an empty name");
        return hint(err, "without --run-dir the run gets a directory of its own");
    }
    return 0;
}

static int check_words(const struct arguments *arguments, struct error *err)
{
    if (check_directory(arguments, err) == -1) {
        return -1;
    }
    bool resume = option_given(arguments, "resume");
    if (resume && arguments->word_count > 0) {
        fail(err, ERROR_USAGE, "--resume continues a run with its own recipe, found %s besides",
             text_show(arguments->word[0]).text);
        return hint(err, "Either windrow train RECIPE or windrow train --resume RUN");
    }
    if (resume && option_given(arguments, "run-dir")) {
        return fail(err, ERROR_USAGE, "--run-dir makes a new run and --resume continues one");
    }
    if (!resume && option_given(arguments, "accept-change")) {
        return fail(err, ERROR_USAGE, "--accept-change belongs to --resume RUN");
    }
    if (!resume && arguments->word_count == 0) {
        fail(err, ERROR_USAGE,
             "windrow train needs a recipe: windrow train RECIPE [key=value ...]");
        return hint(err, "windrow presets lists those that come with the program");
    }
    return check_gpus(arguments, err);
}

static int need_terminal(const char *what, struct error *err)
{
    if (isatty(STDIN_FILENO) && isatty(STDOUT_FILENO)) {
        return 0;
    }
    fail(err, ERROR_USAGE, "%s needs a terminal on standard input and output", what);
    return hint(err, "windrow show RUN prints what a run did, windrow train prints as it goes");
}

static int check_attach(const struct arguments *arguments, struct error *err)
{
    if (option_given(arguments, "resume")) {
        fail(err, ERROR_USAGE, "--attach starts a new run; it does not go with --resume");
        return hint(err,
                    "windrow train --resume RUN in one terminal, windrow attach RUN in another");
    }
    return need_terminal("--attach", err);
}

/* Trains with progress on stderr; the exit code. */
static int train(const struct run_options *given, bool json)
{
    struct error err = { 0 };
    struct progress progress;
    progress_init(&progress, json);
    struct run_options options = *given;
    options.on_line = progress_on_line;
    options.on_notice = output_notice;
    options.context = &progress;
    int code = run_train(&options, &err);
    bool interrupted = code == 130 || code == 143;
    if (interrupted) {
        output_say("interrupted, the state is saved: windrow train --resume %s goes on",
                   progress.run == NULL ? "RUN" : progress.run);
    } else if (err.code != ERROR_NONE) { /* else rank 0 says it */
        output_error(&err);
    }
    progress_free(&progress);
    return code;
}

/* The same with --gpus N: beside N - 1 other processes, which see no --gpus. */
static int train_on_ranks(const struct arguments *arguments, const struct run_options *options)
{
    struct error err = { 0 };
    int64_t count = count_ranks(arguments);
    struct launch *launch = count > 1 ? ranks_start(arguments, (int)count, &err) : NULL;
    if (count > 1 && launch == NULL) {
        return output_error(&err);
    }
    int code = train(options, arguments->json);
    launch_end(launch, code != 0 && code < 128);
    return code;
}

int command_train(const struct arguments *arguments)
{
    struct error err = { 0 };
    struct recipe recipe;
    recipe_init(&recipe);
    size_t accepted_count = 0;
    const char **accepted = option_values(arguments, "accept-change", &accepted_count);
    const char *resume = option_text(arguments, "resume");
    struct run_options options = {
        .recipe = &recipe,
        .directory = option_text(arguments, "run-dir"),
        .resume = resume,
        .changes = resume == NULL ? NULL : arguments->setting,
        .change_count = resume == NULL ? 0 : arguments->setting_count,
        .accepted = accepted,
        .accepted_count = accepted_count,
    };
    int code;
    if (check_words(arguments, &err) == -1 ||
        (resume == NULL && recipe_from_words(&recipe, arguments->word[0], arguments, &err) == -1)) {
        code = output_error(&err);
    } else if (option_given(arguments, "attach")) {
        code = check_attach(arguments, &err);
        code = code == -1 ? -1
                          : workbench_start_and_attach(&options, (int)count_ranks(arguments), &err);
        code = code == -1 ? output_error(&err) : code;
    } else {
        code = train_on_ranks(arguments, &options);
    }
    free(accepted);
    recipe_free(&recipe);
    return code;
}

int command_fork(const struct arguments *arguments)
{
    struct error err = { 0 };
    if (check_directory(arguments, &err) == -1 || check_gpus(arguments, &err) == -1) {
        return output_error(&err);
    }
    size_t accepted_count = 0;
    const char **accepted = option_values(arguments, "accept-change", &accepted_count);
    struct run_options options = {
        .directory = option_text(arguments, "run-dir"),
        .fork = arguments->word[0],
        .changes = arguments->setting,
        .change_count = arguments->setting_count,
        .accepted = accepted,
        .accepted_count = accepted_count,
    };
    int code = train_on_ranks(arguments, &options);
    free(accepted);
    return code;
}

int command_start(void)
{
    if (isatty(STDOUT_FILENO) && isatty(STDIN_FILENO)) {
        return workbench_launcher();
    }
    struct error err = { 0 };
    struct recipe recipe;
    recipe_init(&recipe);
    int code;
    if (recipe_find(&recipe, default_recipe, &err) == -1 || recipe_check(&recipe, &err) == -1) {
        code = output_error(&err);
    } else {
        output_say("no terminal here: training the recipe %s headless (windrow help tells more)",
                   default_recipe);
        code = train(&(struct run_options){ .recipe = &recipe }, false);
    }
    recipe_free(&recipe);
    return code;
}

/* Whether more than one run is running: then somebody has to say which. */
static bool several_run(void)
{
    struct run_list list = { 0 };
    struct error ignored = { 0 };
    size_t running = 0;
    if (run_list_read(&list, &ignored) == 0) {
        for (size_t i = 0; i < list.count; i++) {
            running += list.item[i].status == RUN_RUNNING || list.item[i].status == RUN_PAUSED;
        }
        run_list_free(&list);
    }
    return running > 1;
}

int command_attach(const struct arguments *arguments)
{
    struct error err = { 0 };
    const char *word = arguments->word_count > 0 ? arguments->word[0] : NULL;
    char *run = need_terminal("windrow attach", &err) == -1 ? NULL : run_resolve(word, &err);
    int code =
        run == NULL ? output_error(&err) : workbench_attach(run, word == NULL && several_run());
    free(run);
    return code;
}
