/* Every setting of what is chosen: the list by sections, and what the chosen one means. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/layout.h"
#include "app/text.h"
#include "app/widget/widget.h"
#include "app/workbench.h"
#include "engine/base/xalloc.h"

static size_t section_size(const struct field *field)
{
    const char *dot = strchr(field->key, '.');
    return dot ? (size_t)(dot - field->key) : strlen(field->key);
}

static bool same_section(const struct field *a, const struct field *b)
{
    size_t size = section_size(a);
    return size == section_size(b) && strncmp(a->key, b->key, size) == 0;
}

static enum style source_style(enum form_source source)
{
    return source == FORM_YOU ? STYLE_WARN : source == FORM_DEFAULT ? STYLE_DIM : STYLE_TEXT;
}

/* A line of the list: a heading, or a row. */
struct line {
    const struct form_row *row;
    bool heading;
    int index; /* of the row among those that are shown */
};

/* The lines of the list; returns how many, and where the cursor's is. */
static int collect(const struct form *form, struct line *lines, int limit, int *cursor_line)
{
    int rows = form_shown(form, 0, NULL);
    int count = 0;
    const struct form_row *before = NULL;
    *cursor_line = 0;
    for (int i = 0; i < rows && count + 1 < limit; i++) {
        const struct form_row *row;
        form_shown(form, i, &row);
        bool sections = strchr(row->field->key, '.') != NULL;
        if (sections && (!before || !same_section(before->field, row->field))) {
            lines[count++] = (struct line){ row, true, -1 };
        }
        if (i == form->cursor) {
            *cursor_line = count;
        }
        lines[count++] = (struct line){ row, false, i };
        before = row;
    }
    return count;
}

static void draw_row(struct canvas *canvas, struct rect place, const struct line *line, bool cursor)
{
    const struct field *field = line->row->field;
    const char *dot = strchr(field->key, '.');
    if (line->heading) {
        char title[48];
        snprintf(title, sizeof(title), "%.*s", (int)section_size(field), field->key);
        canvas_text(canvas, place.x, place.y, place.width, STYLE_STRONG, title);
        return;
    }
    int name = place.width > 60 ? 22 : 18;
    int value = place.width - name - 13;
    int x = place.x + 2;
    canvas_put(canvas, place.x, place.y, cursor ? '>' : ' ', STYLE_STRONG);
    canvas_text(canvas, x, place.y, name, STYLE_TEXT, dot ? dot + 1 : field->key);
    const char *text = line->row->value[0] ? line->row->value : "-";
    canvas_text(canvas, x + name + 1, place.y, value,
                line->row->source == FORM_DEFAULT ? STYLE_TEXT : STYLE_STRONG, text);
    canvas_text(canvas, place.x + place.width - 8, place.y, 8, source_style(line->row->source),
                form_source_names[line->row->source]);
    if (cursor) {
        canvas_restyle(canvas, place, STYLE_CURSOR);
    }
}

static void draw_list(const struct workbench *workbench, struct canvas *canvas, struct rect area)
{
    enum { LINES = 256 };
    const struct form *form = &workbench->launcher.form;
    struct line lines[LINES];
    char title[96];
    char note[64];
    int cursor = 0;
    int count = collect(form, lines, LINES, &cursor);
    int rows = form_shown(form, 0, NULL);
    bool typing = workbench->overlay == OVERLAY_FIELD && workbench->field_use == FIELD_FOR_FILTER;
    if (form->filter[0] || typing) {
        snprintf(title, sizeof(title), "settings: /%s%s", form->filter, typing ? "_" : "");
    } else {
        snprintf(title, sizeof(title), "settings%s", form->changed_only ? ": changed only" : "");
    }
    snprintf(note, sizeof(note), "%d of %d", rows > 0 ? form->cursor + 1 : 0, rows);
    struct rect inside = widget_box(canvas, area, title, note, true);
    struct rect before = canvas_clip(canvas, inside);
    int first = widget_scroll(cursor, count, inside.height);
    for (int i = first; i < count && i - first < inside.height; i++) {
        struct rect place = { inside.x, inside.y + i - first, inside.width, 1 };
        draw_row(canvas, place, &lines[i], lines[i].index == form->cursor);
        if (lines[i].index >= 0) {
            canvas_spot(canvas, place, TARGET_FORM, lines[i].index);
        }
    }
    if (count == 0) {
        canvas_text(canvas, inside.x + 1, inside.y, inside.width - 2, STYLE_DIM,
                    form->facts.count == 0 ? "reading ..." : "no setting holds these words");
    }
    canvas_restore(canvas, before);
}

/* What the values look like, which for texts the unit says. */
static void range_of(const struct field *field, char *out, size_t size)
{
    char *range = field_range(field);
    bool text = field->type == FIELD_STRING;
    snprintf(out, size, "%.180s%s%s", range, !text && field->unit[0] ? " " : "",
             text ? "" : field->unit);
    free(range);
}

static int fact(struct canvas *canvas, struct rect area, int y, const char *name, const char *text)
{
    canvas_text(canvas, area.x, area.y + y, 9, STYLE_DIM, name);
    struct rect rest = { area.x + 9, area.y + y, area.width - 9, area.height - y };
    int used =
        rest.width > 0 && rest.height > 0 ? widget_paragraph(canvas, rest, STYLE_TEXT, text) : 0;
    return y + (used > 0 ? used : 1);
}

static int draw_facts(struct canvas *canvas, struct rect area, const struct form_row *row)
{
    static const char *const sources[FORM_SOURCE_COUNT] = {
        "the default",      "the recipe the launcher began with",
        "the model chosen", "the data chosen",
        "the preset",       "you (x forgets it)"
    };
    const struct field *field = row->field;
    char range[256];
    range_of(field, range, sizeof(range));
    int y = fact(canvas, area, 0, "value", row->value[0] ? row->value : "(empty)");
    y = fact(canvas, area, y, "from", sources[row->source]);
    y = fact(canvas, area, y, "default", field->default_text[0] ? field->default_text : "(empty)");
    y = fact(canvas, area, y, "allowed", range);
    if (field->live) {
        y = fact(canvas, area, y, "live", "may change while the model trains");
    }
    return y;
}

/* Whether the choice as it is now can be trained. */
static void draw_plan(const struct workbench *workbench, struct canvas *canvas, struct rect line)
{
    const struct launcher *launcher = &workbench->launcher;
    const struct launcher_plan *plan = launcher_plan_of(launcher, launcher->cursor);
    if (!plan) {
        canvas_text(canvas, line.x, line.y, line.width, STYLE_DIM, "planning ...");
    } else if (plan->total_bytes <= 0) {
        widget_paragraph(canvas, line, STYLE_BAD, plan->message);
    } else if (!plan->ok) {
        canvas_printf(canvas, line.x, line.y, line.width, STYLE_BAD, "takes %s: too much for %s",
                      text_bytes((double)plan->total_bytes).text,
                      text_bytes((double)plan->limit_bytes).text);
    } else {
        canvas_printf(canvas, line.x, line.y, line.width, STYLE_GOOD, "fits: takes %s%s%s",
                      text_bytes((double)plan->total_bytes).text,
                      plan->limit_bytes > 0 ? " of " : "",
                      plan->limit_bytes > 0 ? text_bytes((double)plan->limit_bytes).text : "");
    }
}

static void draw_detail(const struct workbench *workbench, struct canvas *canvas, struct rect area)
{
    const struct form *form = &workbench->launcher.form;
    const struct form_row *row;
    form_shown(form, form->cursor, &row);
    struct rect inside = widget_box(canvas, area, row ? row->field->key : "setting", NULL, false);
    struct rect before = canvas_clip(canvas, inside);
    struct rect text = { inside.x + 1, inside.y, inside.width - 2, inside.height };
    if (row && text.width > 12) {
        int y = widget_paragraph(canvas, text, STYLE_TEXT, row->field->help);
        bool roomy = inside.height > 12;
        text.y += y + roomy;
        text.height -= y + roomy;
        y = draw_facts(canvas, text, row);
        text.y += y + roomy;
        text.height -= y + roomy;
        if (text.height > 0) {
            draw_plan(workbench, canvas, text);
        }
    }
    canvas_restore(canvas, before);
}

void screen_form(const struct workbench *workbench, struct canvas *canvas, struct rect body)
{
    struct rect part[2];
    if (body.width >= 100) {
        layout_columns(body, 56, part);
    } else {
        int detail = body.height >= 20 ? 10 : body.height / 2;
        part[0] = (struct rect){ body.x, body.y, body.width, body.height - detail };
        part[1] = (struct rect){ body.x, body.y + body.height - detail, body.width, detail };
    }
    draw_list(workbench, canvas, part[0]);
    draw_detail(workbench, canvas, part[1]);
}

/* ---- over the screen --------------------------------------------------------------------------
 */

/* An empty box in the middle. */
static struct rect middle(struct canvas *canvas, int width, int height, const char *title,
                          const char *note)
{
    width = width > canvas->width ? canvas->width : width;
    height = height > canvas->height ? canvas->height : height;
    struct rect area = { (canvas->width - width) / 2, (canvas->height - height) / 2, width,
                         height };
    canvas_fill(canvas, area, ' ', STYLE_TEXT);
    struct rect inside = widget_box(canvas, area, title, note, true);
    inside.x++;
    inside.width = inside.width > 2 ? inside.width - 2 : 0;
    return inside;
}

void screen_form_field(const struct workbench *workbench, struct canvas *canvas)
{
    const struct form *form = &workbench->launcher.form;
    const struct form_row *row;
    form_shown(form, form->cursor, &row);
    if (!row) {
        return;
    }
    int width = canvas->width * 3 / 4;
    struct rect inside =
        middle(canvas, width, 11, row->field->key, "Enter takes it  Esc leaves it");
    struct rect before = canvas_clip(canvas, inside);
    const char *shown = workbench->field;
    while (*shown && text_columns(shown) > inside.width - 2) {
        do {
            shown++;
        } while (((unsigned char)*shown & 0xc0) == 0x80);
    }
    int used = canvas_text(canvas, inside.x, inside.y, inside.width - 1, STYLE_STRONG, shown);
    canvas_put(canvas, inside.x + used, inside.y, '_', STYLE_STRONG);
    struct rect text = { inside.x, inside.y + 2, inside.width, inside.height - 2 };
    char range[280];
    range_of(row->field, range, sizeof(range));
    int y = fact(canvas, text, 0, "allowed", range);
    y = fact(canvas, text, y, "default",
             row->field->default_text[0] ? row->field->default_text : "(empty)");
    text.y += y;
    text.height -= y;
    if (form->error[0]) {
        widget_paragraph(canvas, text, STYLE_BAD, form->error);
    } else {
        widget_paragraph(canvas, text, STYLE_DIM, row->field->help);
    }
    canvas_restore(canvas, before);
}

/* Bytes of the first word of a command line; blanks within quotes belong to it. */
static size_t word_size(const char *text)
{
    bool quoted = false;
    size_t size = 0;
    while (text[size] && (quoted || text[size] != ' ')) {
        quoted = quoted != (text[size] == '\'');
        size++;
    }
    return size;
}

/* Breaks between words, with a backslash, so that what is copied can be pasted as it stands.
 * Returns the lines; draws them if `canvas` is given. */
static int command_lines(struct canvas *canvas, struct rect area, const char *text)
{
    int y = 0;
    int x = 0;
    while (*text) {
        size_t size = word_size(text);
        char *word = xstrndup(text, size);
        int columns = text_columns(word);
        if (x > 0 && x + 1 + columns > area.width - 2) {
            if (canvas) {
                canvas_text(canvas, area.x + x, area.y + y, 2, STYLE_TEXT, " \\");
            }
            y++;
            x = 2;
        } else if (x > 0) {
            x++;
        }
        if (canvas) {
            canvas_text(canvas, area.x + x, area.y + y, area.width - x, STYLE_TEXT, word);
        }
        x += columns;
        free(word);
        text += size + strspn(text + size, " ");
    }
    return y + 1;
}

void screen_command(const struct workbench *workbench, struct canvas *canvas)
{
    const char *command = workbench->launcher.form.facts.command;
    int width = canvas->width > 104 ? 104 : canvas->width - 2;
    struct rect area = { 0, 0, width - 4, 0 };
    int lines = command ? command_lines(NULL, area, command) : 1;
    struct rect inside =
        middle(canvas, width, lines + 4, "the same as a command line", "any key closes");
    struct rect before = canvas_clip(canvas, inside);
    inside.y++;
    if (!command) {
        canvas_text(canvas, inside.x, inside.y, inside.width, STYLE_DIM, "making it ...");
    } else {
        command_lines(canvas, inside, command);
    }
    canvas_restore(canvas, before);
}
