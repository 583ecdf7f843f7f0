/* The manual page holds every row of the tables that it is made from, and formatters accept it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "app/command_line.h"
#include "app/commands/command.h"
#include "app/commands/manual.h"
#include "app/keymap.h"
#include "app/program.h"
#include "app/settings.h"
#include "engine/recipe.h"

static char *page; /* without escapes */

/* What a formatter would show: escapes undone, fonts forgotten. */
static char *plain(const char *roff)
{
    static const struct {
        const char *escape;
        const char *text;
    } table[] = {
        { "\\fB", "" },   { "\\fI", "" },   { "\\fR", "" },    { "\\-", "-" },
        { "\\&", "" },    { "\\e", "\\" },  { "\\(ha", "^" },  { "\\(ti", "~" },
        { "\\(ga", "`" }, { "\\(aq", "'" }, { "\\(dq", "\"" }, { "\\\"", "" },
    };
    char *out = xcalloc(strlen(roff) + 1, 1);
    size_t used = 0;
    while (*roff) {
        bool known = false;
        for (size_t i = 0; i < sizeof(table) / sizeof(table[0]) && *roff == '\\'; i++) {
            size_t size = strlen(table[i].escape);
            if (strncmp(roff, table[i].escape, size) == 0) {
                memcpy(out + used, table[i].text, strlen(table[i].text));
                used += strlen(table[i].text);
                roff += size;
                known = true;
                break;
            }
        }
        assert_true(known || *roff != '\\'); /* no other escape is ever written */
        if (!known) {
            out[used++] = *roff++;
        }
    }
    return out;
}

static void holds(const char *needle)
{
    if (!strstr(page, needle)) {
        fail_msg("the manual page does not hold \"%s\"", needle);
    }
}

static void holds_entry(const char *tag, const char *text)
{
    char *entry = xasprintf(".TP\n%s", tag);
    holds(entry);
    holds(text);
    free(entry);
}

static void holds_fields(const struct field *fields)
{
    for (const struct field *field = fields; field->key; field++) {
        char *range = field_range(field);
        char *entry = xasprintf("%s%s%s\n%s", field->key, range[0] ? " " : "", range, field->help);
        holds_entry(entry, field->help);
        free(entry);
        free(range);
    }
}

static void it_holds_the_tables(void **state)
{
    (void)state;
    for (const struct command *c = command_table; c->name; c++) {
        char *entry = xasprintf("windrow %s", c->name);
        holds_entry(entry, c->summary);
        holds(c->help ? c->help : "");
        free(entry);
        for (const struct option *o = c->options; o && o->name; o++) {
            char *option = xasprintf("--%s%s%s\n%s", o->name, o->value ? " " : "",
                                     o->value ? o->value : "", o->help);
            holds_entry(option, o->help);
            free(option);
        }
    }
    holds_fields(recipe_fields);
    holds_fields(settings_fields);
    for (size_t i = 0; i < command_row_count; i++) {
        char *entry = xasprintf(":%s", command_rows[i].name);
        holds_entry(entry, command_rows[i].help);
        free(entry);
    }
    const struct manual_fact *facts[] = { manual_exit_codes, manual_environment, manual_files };
    for (size_t i = 0; i < 3; i++) {
        for (const struct manual_fact *fact = facts[i]; fact->name; fact++) {
            holds_entry(fact->name, fact->text);
        }
    }
}

/* Each action stands there with its keys. */
static void it_holds_every_key(void **state)
{
    (void)state;
    for (size_t i = 0; i < keymap_count; i++) {
        const struct action_row *row = &keymap_rows[i];
        char keys[48];
        if (!row->help) {
            continue;
        }
        keymap_keys(row, keys, sizeof(keys));
        char *entry = xasprintf(".TP\n%s %s\n%s", keys, row->name, row->help);
        holds(entry);
        free(entry);
    }
}

static int run_tool(const char *command)
{
    int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 99;
}

/* Where they are installed, mandoc and groff find nothing to say about it. */
static void formatters_accept_it(void **state)
{
    (void)state;
    struct result made = RUN("help", "--man");
    assert_int_equal(made.code, 0);
    char *path = program_file("windrow.1", made.output);
    char *lint =
        xasprintf("command -v mandoc >/dev/null || exit 0; mandoc -T lint -W warning %s", path);
    char *groff = xasprintf("command -v groff >/dev/null || exit 0; "
                            "! groff -man -ww -z -Tascii %s 2>&1 | grep .",
                            path);
    assert_int_equal(run_tool(lint), 0);
    assert_int_equal(run_tool(groff), 0);
    free(lint);
    free(groff);
    free(path);
    result_free(&made);
}

static int enter(void **state)
{
    (void)state;
    struct buffer roff = { 0 };
    manual_write(&roff);
    page = plain(roff.text);
    buffer_free(&roff);
    return 0;
}

static int leave(void **state)
{
    (void)state;
    free(page);
    program_sandbox_remove();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_holds_the_tables),
        cmocka_unit_test(it_holds_every_key),
        cmocka_unit_test(formatters_accept_it),
    };
    return cmocka_run_group_tests(tests, enter, leave);
}
