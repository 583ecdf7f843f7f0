/* Rows of a file. */
#include "engine/data/rows.h"

#include <stdlib.h>
#include <string.h>

#include "engine/base/text.h"

static const char separator[] = "<|endoftext|>";

int rows_open(struct rows *rows, const char *path, struct source_watch *watch, struct error *err)
{
    *rows = (struct rows){ .source = { .fd = -1 } };
    return source_open(&rows->source, path, watch, err);
}

void rows_close(struct rows *rows)
{
    source_close(&rows->source);
    free(rows->text);
    *rows = (struct rows){ .source = { .fd = -1 } };
}

/* Adds bytes and keeps a NUL behind them. */
static int append(struct rows *rows, const char *bytes, size_t size, struct error *err)
{
    if (rows->size + size + 1 > rows->capacity) {
        size_t capacity = (rows->size + size + 1) * 2;
        char *grown = realloc(rows->text, capacity);
        if (grown == NULL) {
            return fail(err, ERROR_RUNTIME, "%s:%lld: no memory for a row of %zu bytes",
                        text_show(rows->source.path).text, (long long)rows->source.line,
                        rows->size + size);
        }
        rows->text = grown;
        rows->capacity = capacity;
    }
    memcpy(rows->text + rows->size, bytes, size);
    rows->size += size;
    rows->text[rows->size] = '\0';
    return 0;
}

/* Adds bytes up to the limit; beyond it only notes that there were more. */
static int append_limited(struct rows *rows, const char *bytes, size_t size, struct row *row,
                          struct error *err)
{
    if (row->too_long || rows->size + size > ROWS_LIMIT_BYTES) {
        row->too_long = true;
        return 0;
    }
    return append(rows, bytes, size, err);
}

static bool is_blank(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (text[i] != ' ' && text[i] != '\t' && text[i] != '\r' && text[i] != '\n') {
            return false;
        }
    }
    return true;
}

/* Gathers one line without its newline: 1, 0 at the end of the file, -1 on failure. */
static int take_line(struct rows *rows, struct row *row, struct error *err)
{
    struct source *source = &rows->source;
    bool any = false;
    for (;;) {
        int more = source_fill(source, err);
        if (more <= 0) {
            return more < 0 ? -1 : any;
        }
        any = true;
        const char *start = source->block + source->used;
        size_t left = source->have - source->used;
        const char *newline = memchr(start, '\n', left);
        size_t size = newline == NULL ? left : (size_t)(newline - start);
        if (append_limited(rows, start, size, row, err) != 0) {
            return -1;
        }
        source->used += size;
        if (newline != NULL) {
            source->used++;
            source->line++;
            return 1;
        }
    }
}

static int next_line(struct rows *rows, struct row *row, struct error *err)
{
    for (;;) {
        *row = (struct row){ .line = rows->source.line };
        rows->size = 0;
        int got = append(rows, "", 0, err) == 0 ? take_line(rows, row, err) : -1;
        if (got <= 0) {
            return got;
        }
        if (row->too_long || !is_blank(rows->text, rows->size)) {
            row->text = rows->text;
            row->size = rows->size;
            return 1;
        }
    }
}

/* The next byte that is no white space, not taken; 0 at the end, -1 on failure. */
static int peek_solid(struct source *source, struct error *err)
{
    for (;;) {
        int more = source_fill(source, err);
        if (more <= 0) {
            return more;
        }
        char c = source->block[source->used];
        if (c != ' ' && c != '\t' && c != '\r' && c != '\n') {
            return (unsigned char)c == 0 ? 1 : (unsigned char)c;
        }
        source->line += c == '\n';
        source->used++;
    }
}

/* Where a byte stands inside a JSON value. */
struct nesting {
    int64_t depth;
    bool string;
    bool escape;
};

/* Whether `c` ends the value that it follows. */
static bool ends_value(struct nesting *at, char c)
{
    if (at->string) {
        bool quote = c == '"' && !at->escape;
        at->escape = c == '\\' && !at->escape;
        at->string = !quote;
        return false;
    }
    if (at->depth == 0 && (c == ',' || c == ']')) {
        return true;
    }
    at->string = c == '"';
    at->depth += (c == '{' || c == '[') - (c == '}' || c == ']');
    return false;
}

/* After the closing bracket there may be nothing. */
static int finish_array(struct rows *rows, struct error *err)
{
    rows->mode = ROWS_END;
    int c = peek_solid(&rows->source, err);
    if (c > 0) {
        return fail(err, ERROR_DATA, "%s:%lld: text after the end of the array",
                    text_show(rows->source.path).text, (long long)rows->source.line);
    }
    return c;
}

static int next_element(struct rows *rows, struct row *row, struct error *err)
{
    struct source *source = &rows->source;
    struct nesting at = { 0 };
    int c = peek_solid(source, err);
    if (c == ']') {
        source->used++;
        return finish_array(rows, err);
    }
    *row = (struct row){ .line = source->line };
    rows->size = 0;
    for (;;) {
        int more = source_fill(source, err);
        if (more < 0) {
            return -1;
        }
        if (more == 0) {
            return fail(err, ERROR_DATA,
                        "%s:%lld: the file ends inside the array element that "
                        "starts at line %lld",
                        text_show(source->path).text, (long long)source->line,
                        (long long)row->line);
        }
        size_t start = source->used;
        bool end = false;
        while (source->used < source->have && !end) {
            char byte = source->block[source->used];
            end = ends_value(&at, byte);
            source->line += byte == '\n';
            source->used += !end;
        }
        if (append_limited(rows, source->block + start, source->used - start, row, err) != 0) {
            return -1;
        }
        if (end) {
            /* A comma is taken; a bracket is left for the next call. */
            source->used += source->block[source->used] == ',';
            row->text = rows->text;
            row->size = rows->size;
            return 1;
        }
    }
}

int rows_next_json(struct rows *rows, struct row *row, struct error *err)
{
    if (rows->mode == ROWS_UNKNOWN) {
        int c = peek_solid(&rows->source, err);
        if (c < 0) {
            return -1;
        }
        rows->mode = c == '[' ? ROWS_ARRAY : ROWS_LINES;
        rows->source.used += c == '[';
        if (append(rows, "", 0, err) != 0) {
            return -1;
        }
    }
    if (rows->mode == ROWS_END) {
        return 0;
    }
    return rows->mode == ROWS_ARRAY ? next_element(rows, row, err) : next_line(rows, row, err);
}

/* Whether a line, with its end, holds the separator and nothing else. */
static bool is_separator(const char *line, size_t size)
{
    while (size > 0 && (line[size - 1] == '\n' || line[size - 1] == '\r')) {
        size--;
    }
    return size == sizeof(separator) - 1 && memcmp(line, separator, size) == 0;
}

/* Gives the first `size` gathered bytes as a document. */
static void give(struct rows *rows, struct row *row, size_t size)
{
    row->text = rows->text;
    row->size = size;
    rows->size = size;
    rows->text[size] = '\0';
}

int rows_next_document(struct rows *rows, struct row *row, struct error *err)
{
    struct source *source = &rows->source;
    size_t line_start = 0;
    *row = (struct row){ .line = source->line };
    rows->size = 0;
    if (append(rows, "", 0, err) != 0) {
        return -1;
    }
    for (;;) {
        int more = source_fill(source, err);
        if (more < 0) {
            return -1;
        }
        const char *start = source->block + source->used;
        size_t left = source->have - source->used;
        const char *newline = more == 0 ? NULL : memchr(start, '\n', left);
        size_t size = more == 0 ? 0 : newline == NULL ? left : (size_t)(newline - start) + 1;
        bool hard = rows->size + size > 2 * (size_t)ROWS_LIMIT_BYTES;
        if (hard) {
            /* Only what completes the last character. */
            newline = NULL;
            for (size = 0; size < left && (start[size] & 0xC0) == 0x80;) {
                size++;
            }
        }
        if (append(rows, start, size, err) != 0) {
            return -1;
        }
        source->used += size;
        source->line += newline != NULL;
        bool line_ended = newline != NULL || more == 0;
        if (line_ended && is_separator(rows->text + line_start, rows->size - line_start)) {
            if (line_start > 0) {
                give(rows, row, line_start);
                return 1;
            }
            rows->size = 0;
            row->line = source->line;
        } else if ((more == 0 && rows->size > 0) || hard ||
                   (line_ended && rows->size > ROWS_LIMIT_BYTES)) {
            give(rows, row, rows->size);
            return 1;
        }
        if (more == 0) {
            return 0;
        }
        line_start = line_ended ? rows->size : line_start;
    }
}
