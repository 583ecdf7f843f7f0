/* windrow help: the list of commands, one command, or the keys of a recipe. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/commands/command.h"
#include "app/commands/manual.h"
#include "app/commands/output.h"
#include "app/settings.h"
#include "app/text.h"
#include "engine/base/text.h"
#include "engine/recipe.h"

/* Paragraphs of at most 80 columns. */
static void print_wrapped(const char *text, const char *indent)
{
    size_t size = strlen(text);
    while (size > 0) {
        size_t next = 0;
        size_t take = text_wrap(text, size, 80 - (int)strlen(indent), &next);
        output_data("%s%.*s\n", indent, (int)take, text);
        text += next;
        size -= next;
    }
}

static int list_commands(bool json)
{
    if (json) {
        cJSON *root = cJSON_CreateArray();
        for (const struct command *c = command_table; c->name != NULL; c++) {
            cJSON *item = json_append_object(root);
            json_add_text(item, "name", c->name);
            json_add_text(item, "synopsis", c->synopsis);
            json_add_text(item, "summary", c->summary);
        }
        output_json(root);
        return 0;
    }
    output_data("windrow %s: train language models with memory-saving methods\n\n"
                "  windrow                 the workbench\n",
                WINDROW_VERSION);
    for (const struct command *c = command_table; c->name != NULL; c++) {
        output_data("  windrow %-15s %s\n", c->name, c->summary);
    }
    output_data("\nwindrow help COMMAND tells more, windrow help recipe lists every setting,\n"
                "windrow help config those of the workbench.\n"
                "Every command takes --json, --color=auto|always|never and --theme=NAME.\n"
                "\nExit codes:\n");
    for (const struct manual_fact *fact = manual_exit_codes; fact->name; fact++) {
        output_data("  %-9s %s\n", fact->name, fact->text);
    }
    return 0;
}

static void print_option(const struct option *option)
{
    char *left = option->value == NULL ? xasprintf("--%s", option->name)
                                       : xasprintf("--%s %s", option->name, option->value);
    output_data("  %-24s %s\n", left, option->help);
    free(left);
}

static int describe_command(const struct command *command, bool json)
{
    if (json) {
        cJSON *root = cJSON_CreateObject();
        json_add_text(root, "name", command->name);
        json_add_text(root, "synopsis", command->synopsis);
        json_add_text(root, "summary", command->summary);
        json_add_text(root, "help", command->help);
        cJSON *options = json_add_array(root, "options");
        for (const struct option *o = command->options; o != NULL && o->name != NULL; o++) {
            cJSON *item = json_append_object(options);
            json_add_text(item, "name", o->name);
            json_add_text(item, "value", o->value);
            json_add_text(item, "help", o->help);
        }
        output_json(root);
        return 0;
    }
    output_data("windrow %s %s\n\n", command->name, command->synopsis);
    print_wrapped(command->summary, "  ");
    if (command->help != NULL) {
        output_data("\n");
        print_wrapped(command->help, "  ");
    }
    output_data("\nOptions:\n");
    for (const struct option *o = command->options; o != NULL && o->name != NULL; o++) {
        print_option(o);
    }
    print_option(&(struct option){ "json", NULL, "data as JSON on stdout" });
    print_option(&(struct option){ "color", "WHEN", "auto, always or never" });
    print_option(&(struct option){ "theme", "NAME", "auto, dark, light, safe or mono" });
    return 0;
}

static const char *type_name(enum field_type type)
{
    static const char *const names[] = { "integer", "number", "bool", "choice", "string", "bytes" };
    return names[type];
}

static const char recipe_words_of_help[] =
    "\nA recipe is JSON with these keys, nested at the dots; any of them can be "
    "overridden\nas key=value on the command line. \"live\" keys change while a run "
    "trains\n(windrow set RUN key=value).\n";

static int list_keys(const struct field *fields, bool json)
{
    cJSON *root = cJSON_CreateArray();
    struct table table;
    table_open(&table, "llllll");
    table_add(&table, (const char *[]){ "KEY", "TYPE", "RANGE", "UNIT", "DEFAULT", "" });
    for (const struct field *field = fields; field->key != NULL; field++) {
        char *range = field_range(field);
        const char *fallback = field->default_text == NULL ? "" : field->default_text;
        /* The range of a text is a sentence, which the table of strings keeps as its unit. */
        const char *unit = field->type == FIELD_STRING ? "" : field->unit;
        table_add(&table, (const char *[]){ field->key, type_name(field->type), range, unit,
                                            fallback[0] == '\0' ? "-" : fallback,
                                            field->live ? "live" : "" });
        cJSON *item = json_append_object(root);
        json_add_text(item, "key", field->key);
        json_add_text(item, "type", type_name(field->type));
        json_add_text(item, "range", range);
        json_add_text(item, "unit", unit);
        json_add_text(item, "default", fallback);
        json_add_bool(item, "live", field->live);
        json_add_text(item, "help", field->help);
        free(range);
    }
    if (json) {
        output_json(root);
        table_free(&table);
        return 0;
    }
    table_print(&table);
    cJSON_Delete(root);
    output_data("\n");
    for (const struct field *field = fields; field->key != NULL; field++) {
        output_data("%s\n", field->key);
        print_wrapped(field->help, "    ");
    }
    return 0;
}

static int print_manual(void)
{
    struct buffer page = { 0 };
    manual_write(&page);
    output_bytes(page.text, page.size);
    buffer_free(&page);
    return 0;
}

int command_help(const struct arguments *arguments)
{
    if (option_given(arguments, "man")) {
        return print_manual();
    }
    if (arguments->word_count == 0) {
        return list_commands(arguments->json);
    }
    const char *name = arguments->word[0];
    if (strcmp(name, "recipe") == 0) {
        int code = list_keys(recipe_fields, arguments->json);
        if (!arguments->json) {
            output_data("%s", recipe_words_of_help);
        }
        return code;
    }
    if (strcmp(name, "config") == 0) {
        int code = list_keys(settings_fields, arguments->json);
        char *path = settings_path();
        if (!arguments->json) {
            output_data(
                "\nThe configuration of the workbench is a JSON object with these keys, in\n"
                "%s\n",
                path == NULL ? "$XDG_CONFIG_HOME/windrow/config.json" : path);
        }
        free(path);
        return code;
    }
    const struct command *command = command_find(name);
    if (command != NULL) {
        return describe_command(command, arguments->json);
    }
    struct error err = { 0 };
    const char *names[64] = { "recipe", "config" };
    size_t count = 2;
    for (const struct command *c = command_table; c->name != NULL && count < 64; c++) {
        names[count++] = c->name;
    }
    fail(&err, ERROR_USAGE, "there is no command %s", text_show(name).text);
    const char *nearest = nearest_name(name, names, count);
    if (nearest != NULL) {
        hint(&err, "Did you mean windrow help %s? All of them: windrow help", nearest);
    }
    return output_error(&err);
}
