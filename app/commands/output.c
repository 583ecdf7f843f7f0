/* What commands print: sentences for people on stderr, data on stdout. */
#include "app/commands/output.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/text.h"
#include "engine/base/json.h"

bool output_has_color(int fd)
{
    const char *none = getenv("NO_COLOR");
    if (none != NULL && none[0] != '\0') {
        return false;
    }
    const char *force = getenv("CLICOLOR_FORCE");
    if (force != NULL && force[0] != '\0' && strcmp(force, "0") != 0) {
        return true;
    }
    const char *terminal = getenv("TERM");
    return terminal != NULL && strcmp(terminal, "dumb") != 0 && isatty(fd);
}

/* Names from files and models may hold anything: controls become ^X, wrong bytes U+FFFD. */
static void append_harmless(struct buffer *out, const char *text, size_t size)
{
    while (size > 0) {
        if (*text == '\n' || *text == '\t') {
            buffer_append(out, text, 1);
            text++;
            size--;
            continue;
        }
        struct text_glyph glyph;
        size_t used = text_next_glyph(text, size, &glyph);
        if (glyph.count == 1 && !glyph.odd) {
            buffer_append(out, text, used);
        } else if (glyph.count == 2) {
            buffer_printf(out, "^%c", (char)glyph.code[1]);
        } else if (glyph.count == 1) {
            buffer_printf(out, "\xef\xbf\xbd");
        }
        text += used;
        size -= used;
    }
}

static char *format_harmless(const char *format, va_list arguments)
{
    char *text = NULL;
    if (vasprintf(&text, format, arguments) == -1) {
        return xstrdup("");
    }
    struct buffer out = { 0 };
    append_harmless(&out, text, strlen(text));
    buffer_append(&out, "", 0);
    free(text);
    return out.text;
}

void output_say(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    char *text = format_harmless(format, arguments);
    va_end(arguments);
    fprintf(stderr, "%s\n", text);
    free(text);
}

static void say_marked(const char *color, const char *mark, const char *text)
{
    bool colored = output_has_color(STDERR_FILENO);
    fprintf(stderr, "windrow: %s%s:%s ", colored ? color : "", mark, colored ? "\033[0m" : "");
    output_say("%s", text);
}

int output_error(const struct error *err)
{
    fflush(stdout);
    say_marked("\033[1;31m", "error", err->message);
    if (err->hint[0] != '\0') {
        output_say("  %s", err->hint);
    }
    return err->code == ERROR_NONE ? ERROR_RUNTIME : (int)err->code;
}

void output_warning(const char *text)
{
    say_marked("\033[1;33m", "warning", text);
}

void output_notice(void *context, const char *text)
{
    (void)context;
    output_say("%s", text);
}

void output_data(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    char *text = format_harmless(format, arguments);
    va_end(arguments);
    fputs(text, stdout);
    free(text);
}

void output_bytes(const char *text, size_t size)
{
    fwrite(text, 1, size, stdout);
}

void output_json(cJSON *value)
{
    char *text = json_print_pretty(value);
    fputs(text, stdout);
    fputc('\n', stdout);
    free(text);
    cJSON_Delete(value);
}

int output_finish(int code)
{
    errno = 0;
    bool failed = ferror(stdout) != 0;
    if (fflush(stdout) != 0) {
        failed = true;
    }
    if (!failed || errno == EPIPE || code != 0) {
        return code; /* a reader that has seen enough is no failure */
    }
    output_say("windrow: error: standard output cannot be written: %s",
               errno != 0 ? strerror(errno) : "an earlier write failed");
    return ERROR_RUNTIME;
}

void table_open(struct table *table, const char *align)
{
    *table = (struct table){ .columns = (int)strlen(align), .align = align };
}

void table_add(struct table *table, const char *const *cells)
{
    size_t columns = (size_t)table->columns;
    size_t used = (size_t)table->rows * columns;
    table->cell = xrealloc(table->cell, (used + columns) * sizeof *table->cell);
    for (size_t i = 0; i < columns; i++) {
        struct buffer out = { 0 };
        append_harmless(&out, cells[i], strlen(cells[i]));
        buffer_append(&out, "", 0);
        for (char *c = out.text; *c != '\0'; c++) {
            *c = *c == '\n' || *c == '\t' ? ' ' : *c;
        }
        table->cell[used + i] = out.text;
    }
    table->rows++;
}

static void print_cell(const struct table *table, int row, int column, int width)
{
    const char *cell = table->cell[row * table->columns + column];
    int blank = width - text_columns(cell);
    bool last = column + 1 == table->columns;
    if (table->align[column] == 'r') {
        printf("%*s%s", blank, "", cell);
    } else {
        printf("%s%*s", cell, last ? 0 : blank, "");
    }
    fputs(last ? "\n" : "  ", stdout);
}

void table_free(struct table *table)
{
    for (int i = 0; i < table->rows * table->columns; i++) {
        free(table->cell[i]);
    }
    free(table->cell);
    *table = (struct table){ 0 };
}

void table_print(struct table *table)
{
    bool colored = output_has_color(STDOUT_FILENO);
    int *width = xcalloc((size_t)table->columns + 1, sizeof *width);
    for (int i = 0; i < table->rows * table->columns; i++) {
        int columns = text_columns(table->cell[i]);
        int *widest = &width[i % table->columns];
        *widest = columns > *widest ? columns : *widest;
    }
    for (int row = 0; row < table->rows; row++) {
        fputs(colored && row == 0 ? "\033[1m" : "", stdout);
        for (int column = 0; column < table->columns; column++) {
            print_cell(table, row, column, width[column]);
        }
        fputs(colored && row == 0 ? "\033[0m" : "", stdout);
    }
    free(width);
    table_free(table);
}

/* cJSON makes its own small copies; without memory nothing sensible can be printed. */
static cJSON *wanted(cJSON *item)
{
    if (item == NULL) {
        BUG("out of memory for JSON");
    }
    return item;
}

static void add(cJSON *object, const char *key, cJSON *item)
{
    if (!cJSON_AddItemToObject(object, key, wanted(item))) {
        BUG("out of memory for JSON");
    }
}

void json_add_text(cJSON *object, const char *key, const char *text)
{
    add(object, key, text == NULL ? cJSON_CreateNull() : cJSON_CreateString(text));
}

void json_add_number(cJSON *object, const char *key, double value)
{
    if (isfinite(value)) {
        add(object, key, cJSON_CreateNumber(value));
    }
}

void json_add_bool(cJSON *object, const char *key, bool value)
{
    add(object, key, cJSON_CreateBool(value));
}

cJSON *json_add_object(cJSON *object, const char *key)
{
    cJSON *item = wanted(cJSON_CreateObject());
    add(object, key, item);
    return item;
}

cJSON *json_add_array(cJSON *object, const char *key)
{
    cJSON *item = wanted(cJSON_CreateArray());
    add(object, key, item);
    return item;
}

cJSON *json_append_object(cJSON *array)
{
    cJSON *item = wanted(cJSON_CreateObject());
    cJSON_AddItemToArray(array, item);
    return item;
}
