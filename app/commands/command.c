/* Words of the command line into a command, its words, settings and options. */
#include "app/commands/command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/commands/output.h"
#include "app/theme.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"

/* --help is answered before the command sees anything. */
const struct option command_common_options[] = {
    { "json", NULL, "data as JSON on stdout" },
    { "color", "auto|always|never", "colours; NO_COLOR in the environment turns them off too" },
    { "theme", "NAME", "colours of the workbench: auto, dark, light, safe or mono" },
    { "help", NULL, "what this command does" },
    { NULL, NULL, NULL },
};

const struct command *command_find(const char *name)
{
    for (const struct command *command = command_table; command->name != NULL; command++) {
        if (strcmp(command->name, name) == 0) {
            return command;
        }
    }
    return NULL;
}

static const struct option *find_option(const struct option *options, const char *name, size_t size)
{
    for (; options != NULL && options->name != NULL; options++) {
        if (strlen(options->name) == size && memcmp(options->name, name, size) == 0) {
            return options;
        }
    }
    return NULL;
}

/* The nearest of a command's options, or NULL. */
static const char *nearest_option(const struct command *command, const char *name)
{
    const char *names[32];
    size_t count = 0;
    for (const struct option *o = command->options; o != NULL && o->name != NULL; o++) {
        if (count < 28) {
            names[count++] = o->name;
        }
    }
    for (const struct option *o = command_common_options; o->name != NULL; o++) {
        names[count++] = o->name;
    }
    return nearest_name(name, names, count);
}

static int unknown_option(const struct command *command, const char *word, const char *name,
                          struct error *err)
{
    fail(err, ERROR_USAGE, "windrow %s has no option %s", command->name, text_show(word).text);
    const char *nearest = nearest_option(command, name);
    if (nearest != NULL) {
        return hint(err, "Did you mean --%s? All of them: windrow help %s", nearest, command->name);
    }
    return hint(err, "All of them: windrow help %s", command->name);
}

static int take_color(const char *value, struct error *err)
{
    if (strcmp(value, "never") == 0) {
        setenv("NO_COLOR", "1", 1);
    } else if (strcmp(value, "always") == 0) {
        unsetenv("NO_COLOR");
        setenv("CLICOLOR_FORCE", "1", 1);
    } else if (strcmp(value, "auto") != 0) {
        return fail(err, ERROR_USAGE, "--color: found %s, allowed are auto, always and never",
                    text_show(value).text);
    }
    return 0;
}

/* The workbench looks for it in the environment. */
static int take_theme(const char *value, struct error *err)
{
    for (int i = 0; theme_names[i] != NULL; i++) {
        if (strcmp(value, theme_names[i]) == 0) {
            setenv("WINDROW_THEME", value, 1);
            return 0;
        }
    }
    return fail(err, ERROR_USAGE, "--theme: found %s, allowed are auto, dark, light, safe and mono",
                text_show(value).text);
}

/* "a.b=value": a key of the recipe, not a path that happens to hold '='. */
static bool is_setting(const char *word)
{
    size_t size = strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-");
    return size > 0 && word[size] == '=';
}

/* One option, at words[*at]; moves *at to the last word it took. */
static int take_option(const struct command *command, size_t count, const char *const *words,
                       size_t *at, struct arguments *out, struct error *err)
{
    const char *word = words[*at];
    const char *name = strcmp(word, "-h") == 0 ? "help" : word + 2;
    size_t size = strcspn(name, "=");
    const struct option *option = find_option(command->options, name, size);
    if (option == NULL) {
        option = find_option(command_common_options, name, size);
    }
    if (option == NULL || (word[1] != '-' && strcmp(word, "-h") != 0)) {
        char *bare = xstrndup(name, size);
        unknown_option(command, word, word[1] == '-' ? bare : word + 1, err);
        free(bare);
        return -1;
    }
    const char *value = NULL;
    if (option->value == NULL) {
        if (name[size] == '=') {
            return fail(err, ERROR_USAGE, "--%s takes no value, found %s", option->name,
                        text_show(name + size + 1).text);
        }
    } else if (name[size] == '=') {
        value = name + size + 1;
    } else if (*at + 1 < count) {
        value = words[++*at];
    } else {
        return fail(err, ERROR_USAGE, "--%s needs a value: --%s %s", option->name, option->name,
                    option->value);
    }
    out->option[out->option_count++] = (struct option_value){ option, value };
    if (strcmp(option->name, "json") == 0) {
        out->json = true;
    }
    return strcmp(option->name, "color") == 0   ? take_color(value, err)
           : strcmp(option->name, "theme") == 0 ? take_theme(value, err)
                                                : 0;
}

static int check_counts(const struct arguments *out, struct error *err)
{
    const struct command *command = out->command;
    if (option_given(out, "help")) {
        return 0;
    }
    if ((int)out->word_count < command->minimum) {
        fail(err, ERROR_USAGE, "windrow %s needs more: windrow %s %s", command->name, command->name,
             command->synopsis);
        return hint(err, "See windrow help %s", command->name);
    }
    if ((int)out->word_count > command->maximum) {
        fail(err, ERROR_USAGE, "windrow %s: found %s, which is one word too many", command->name,
             text_show(out->word[command->maximum]).text);
        return hint(err, "Usage: windrow %s %s", command->name, command->synopsis);
    }
    return 0;
}

int arguments_parse(const struct command *command, size_t count, const char *const *words,
                    struct arguments *out, struct error *err)
{
    *out = (struct arguments){ .command = command };
    out->word = xcalloc(count + 1, sizeof *out->word);
    out->setting = xcalloc(count + 1, sizeof *out->setting);
    out->option = xcalloc(count + 1, sizeof *out->option);
    bool options_ended = false;
    for (size_t i = 0; i < count; i++) {
        const char *word = words[i];
        if (!options_ended && strcmp(word, "--") == 0) {
            options_ended = true;
        } else if (!options_ended && word[0] == '-' && word[1] != '\0') {
            if (take_option(command, count, words, &i, out, err) == -1) {
                return -1;
            }
        } else if (command->settings && is_setting(word)) {
            out->setting[out->setting_count++] = word;
        } else {
            out->word[out->word_count++] = word;
        }
    }
    return check_counts(out, err);
}

void arguments_free(struct arguments *arguments)
{
    free(arguments->word);
    free(arguments->setting);
    free(arguments->option);
    *arguments = (struct arguments){ 0 };
}

bool option_given(const struct arguments *arguments, const char *name)
{
    for (size_t i = 0; i < arguments->option_count; i++) {
        if (strcmp(arguments->option[i].option->name, name) == 0) {
            return true;
        }
    }
    return false;
}

const char *option_text(const struct arguments *arguments, const char *name)
{
    const char *value = NULL;
    for (size_t i = 0; i < arguments->option_count; i++) {
        if (strcmp(arguments->option[i].option->name, name) == 0) {
            value = arguments->option[i].value;
        }
    }
    return value;
}

int option_integer(const struct arguments *arguments, const char *name, int64_t minimum,
                   int64_t maximum, int64_t *out, struct error *err)
{
    const char *text = option_text(arguments, name);
    int64_t value;
    if (text == NULL) {
        return 0;
    }
    if (!text_to_integer(text, &value) || value < minimum || value > maximum) {
        return fail(err, ERROR_USAGE, "--%s: found %s, allowed are whole numbers from %lld to %lld",
                    name, text_show(text).text, (long long)minimum, (long long)maximum);
    }
    *out = value;
    return 0;
}

int option_number(const struct arguments *arguments, const char *name, double minimum,
                  double maximum, double *out, struct error *err)
{
    const char *text = option_text(arguments, name);
    double value;
    if (text == NULL) {
        return 0;
    }
    if (!text_to_double(text, &value) || !(value >= minimum && value <= maximum)) {
        return fail(err, ERROR_USAGE, "--%s: found %s, allowed are numbers from %g to %g", name,
                    text_show(text).text, minimum, maximum);
    }
    *out = value;
    return 0;
}

static int unknown_command(const char *word, struct error *err)
{
    const char *names[64];
    size_t count = 0;
    for (const struct command *c = command_table; c->name != NULL && count < 64; c++) {
        names[count++] = c->name;
    }
    bool option = word[0] == '-';
    fail(err, ERROR_USAGE, "there is no %s \"%s\"", option ? "option" : "command",
         text_show(word).text);
    const char *nearest = nearest_name(option ? word + strspn(word, "-") : word, names, count);
    if (nearest != NULL) {
        return hint(err, "Did you mean windrow %s? All of them: windrow help", nearest);
    }
    return hint(err, "All commands: windrow help");
}

static int run_command(const struct command *command, size_t count, const char *const *words)
{
    struct error err = { 0 };
    struct arguments arguments;
    int code;
    if (arguments_parse(command, count, words, &arguments, &err) == -1) {
        code = output_error(&err);
    } else if (option_given(&arguments, "help")) {
        struct arguments about = { .command = command_find("help"),
                                   .word = (const char *[]){ command->name },
                                   .word_count = 1,
                                   .json = arguments.json };
        code = command_help(&about);
    } else {
        code = command->run(&arguments);
    }
    arguments_free(&arguments);
    return output_finish(code);
}

int command_main(int count, char **words)
{
    struct error err = { 0 };
    int at = 1;
    /* --color and --theme may stand before the command. */
    for (; at < count; at++) {
        bool color = strncmp(words[at], "--color", 7) == 0;
        if (!color && strncmp(words[at], "--theme", 7) != 0) {
            break;
        }
        const char *value = words[at][7] == '=' ? words[at] + 8 : at + 1 < count ? words[++at] : "";
        if ((color ? take_color(value, &err) : take_theme(value, &err)) == -1) {
            return output_error(&err);
        }
    }
    if (at >= count) {
        return output_finish(command_start());
    }
    const char *name = words[at];
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
        output_data("windrow %s\n", WINDROW_VERSION);
        return output_finish(0);
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        name = "help";
    }
    const struct command *command = command_find(name);
    if (command == NULL) {
        unknown_command(name, &err);
        return output_error(&err);
    }
    return run_command(command, (size_t)(count - at - 1), (const char *const *)words + at + 1);
}
