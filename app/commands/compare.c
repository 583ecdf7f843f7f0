/* windrow compare: runs that exist, or the methods of a recipe trained side by side. */
#include "app/commands/compare.h"

#include <stdlib.h>
#include <string.h>

#include "app/commands/output.h"
#include "engine/base/text.h"

static int choose(const struct arguments *arguments, const char *name, const char *const *choices,
                  int fallback, struct error *err)
{
    const char *text = option_text(arguments, name);
    if (text == NULL) {
        return fallback;
    }
    struct buffer list = { 0 };
    int found = -1;
    for (int i = 0; choices[i] != NULL; i++) {
        found = strcmp(choices[i], text) == 0 ? i : found;
        buffer_printf(&list, "%s%s", i > 0 ? ", " : "", choices[i]);
    }
    if (found == -1) {
        fail(err, ERROR_USAGE, "--%s must be one of %s, found \"%s\"", name, list.text,
             text_show(text).text);
    }
    buffer_free(&list);
    return found;
}

static int add_runs(struct comparison *comparison, const struct arguments *arguments,
                    struct error *err)
{
    for (size_t i = 0; i < arguments->word_count; i++) {
        char *path = run_resolve(arguments->word[i], err);
        int result = path == NULL ? -1 : comparison_add(comparison, path, NULL, err);
        free(path);
        if (result != 0) {
            return -1;
        }
    }
    return 0;
}

/* Runs that never took a step have nothing to compare. */
static int add_contest(struct comparison *comparison, const struct contest *contest,
                       struct error *err)
{
    for (size_t i = 0; i < contest->count; i++) {
        struct error ignored = { 0 };
        const struct contestant *c = &contest->item[i];
        if (comparison_add(comparison, c->folder, c->label, &ignored) != 0) {
            output_say("%s: left out, %s", c->label, ignored.message);
        }
    }
    return comparison->count > 0 ? 0
                                 : fail(err, ERROR_RUNTIME, "no run of the comparison took a step");
}

/* Whether the words name a recipe to train rather than runs. */
static bool wants_training(const struct arguments *arguments)
{
    if (option_given(arguments, "methods")) {
        return true;
    }
    if (arguments->word_count != 1) {
        return false;
    }
    struct error ignored = { 0 };
    char *run = run_resolve(arguments->word[0], &ignored);
    bool is_run = run != NULL;
    free(run);
    return !is_run;
}

static int check_words(const struct arguments *arguments, bool training, struct error *err)
{
    if (training && arguments->word_count != 1) {
        fail(err, ERROR_USAGE, "windrow compare --methods wants one recipe, found %zu words",
             arguments->word_count);
        return hint(err, "windrow compare RECIPE --methods full,grass [key=value ...]");
    }
    if (!training && arguments->setting_count > 0) {
        fail(err, ERROR_USAGE, "%s: finished runs are compared as they are",
             text_show(arguments->setting[0]).text);
        return hint(err, "settings go with a recipe: windrow compare RECIPE --methods full,grass "
                         "key=value");
    }
    if (!training && option_given(arguments, "to")) {
        return fail(err, ERROR_USAGE, "--to belongs to RECIPE --methods: runs are only read");
    }
    return 0;
}

/* Trains where asked to; the comparison, and the exit code of the training. */
static int gather(const struct arguments *arguments, bool training, struct comparison *comparison,
                  int *code, struct error *err)
{
    if (!training) {
        return add_runs(comparison, arguments, err);
    }
    struct contest contest = { 0 };
    int result = contest_open(&contest, arguments, arguments->word[0],
                              option_text(arguments, "methods"), err);
    if (result == 0) {
        struct error trouble = { 0 };
        *code = contest_train(&contest, &trouble);
        if (*code != 0) {
            output_error(&trouble);
        }
        result = add_contest(comparison, &contest, err);
    }
    contest_free(&contest);
    return result;
}

int command_compare(const struct arguments *arguments)
{
    static const char *const formats[] = { "text", "markdown", "csv", "json", NULL };
    static const char *const axes[] = { "steps", "tokens", "time", NULL };
    struct error err = { 0 };
    struct comparison comparison = { 0 };
    bool training = wants_training(arguments);
    int code = 0;
    int format = choose(arguments, "format", formats, COMPARE_TEXT, &err);
    int axis = choose(arguments, "by", axes, COMPARISON_TOKENS, &err);
    if (format == -1 || axis == -1 || check_words(arguments, training, &err) == -1 ||
        gather(arguments, training, &comparison, &code, &err) == -1) {
        comparison_free(&comparison);
        int refused = output_error(&err);
        return code != 0 ? code : refused;
    }
    comparison_finish(&comparison);
    compare_print(&comparison, arguments->json ? COMPARE_JSON : (enum compare_format)format,
                  (enum comparison_axis)axis);
    comparison_free(&comparison);
    return output_finish(code);
}
