/* Boxes, bars, dialogs. */
#include "app/widget/widget.h"

#include <math.h>
#include <string.h>

#include "app/text.h"

struct frame_glyphs {
    uint32_t corner[4];
    uint32_t across;
    uint32_t down;
    uint32_t strong; /* the upper border of the pane that has the keys */
};

static const struct frame_glyphs frames[2] = {
    { { '+', '+', '+', '+' }, '-', '|', '=' },
    { { 0x250c, 0x2510, 0x2514, 0x2518 }, 0x2500, 0x2502, 0x2501 },
};

struct rect widget_box(struct canvas *canvas, struct rect area, const char *title, const char *note,
                       bool focus)
{
    const struct frame_glyphs *glyphs = &frames[canvas->glyphs != GLYPHS_ASCII];
    struct rect inside = rect_inside(area);
    if (area.width < 2 || area.height < 2) {
        return inside;
    }
    int right = area.x + area.width - 1;
    int bottom = area.y + area.height - 1;
    enum style style = focus ? STYLE_FOCUS : STYLE_BORDER;
    canvas_fill(canvas, (struct rect){ area.x, area.y, area.width, 1 },
                focus ? glyphs->strong : glyphs->across, style);
    canvas_fill(canvas, (struct rect){ area.x, bottom, area.width, 1 }, glyphs->across, style);
    canvas_fill(canvas, (struct rect){ area.x, area.y, 1, area.height }, glyphs->down, style);
    canvas_fill(canvas, (struct rect){ right, area.y, 1, area.height }, glyphs->down, style);
    canvas_put(canvas, area.x, area.y, glyphs->corner[0], style);
    canvas_put(canvas, right, area.y, glyphs->corner[1], style);
    canvas_put(canvas, area.x, bottom, glyphs->corner[2], style);
    canvas_put(canvas, right, bottom, glyphs->corner[3], style);
    int room = area.width - 6;
    int used = 0;
    if (title && room > 0) {
        canvas_put(canvas, area.x + 2, area.y, ' ', style);
        used = canvas_text(canvas, area.x + 3, area.y, room, STYLE_TITLE, title);
        canvas_put(canvas, area.x + 3 + used, area.y, ' ', style);
        used += 2;
    }
    int columns = note ? text_columns(note) : 0;
    if (note && columns > 0 && columns + 2 + used <= room) {
        int x = right - 2 - columns;
        canvas_put(canvas, x - 1, area.y, ' ', style);
        canvas_text(canvas, x, area.y, columns, STYLE_DIM, note);
        canvas_put(canvas, x + columns, area.y, ' ', style);
    }
    return inside;
}

void widget_bar(struct canvas *canvas, struct rect area, double share, double mark,
                enum style style)
{
    if (!isfinite(share)) {
        share = 0;
    }
    share = share < 0 ? 0 : share > 1 ? 1 : share;
    int eighths = (int)lround(share * area.width * 8);
    if (canvas->glyphs == GLYPHS_ASCII) {
        eighths = (eighths + 4) / 8 * 8;
    }
    for (int i = 0; i < area.width; i++) {
        int here = eighths - i * 8;
        uint32_t code = ' ';
        if (here >= 8) {
            code = canvas->glyphs == GLYPHS_ASCII ? '#' : 0x2588;
        } else if (here > 0) {
            code = 0x2590u - (uint32_t)here; /* left eighths: U+258F .. U+2589 */
        }
        canvas_put(canvas, area.x + i, area.y, code, style);
    }
    if (mark >= 0 && isfinite(mark) && area.width > 0) {
        int at = (int)lround((mark > 1 ? 1 : mark) * area.width);
        at = at >= area.width ? area.width - 1 : at;
        canvas_put(canvas, area.x + at, area.y, canvas->glyphs == GLYPHS_ASCII ? '|' : 0x2502,
                   STYLE_STRONG);
    }
}

int widget_scroll(int cursor, int count, int height)
{
    if (height <= 0 || count <= height) {
        return 0;
    }
    int first = cursor - height / 2;
    first = first > count - height ? count - height : first;
    return first < 0 ? 0 : first;
}

/* An empty box of the wanted inside, in the middle of the canvas. */
static struct rect middle_box(struct canvas *canvas, int width, int height, const char *title)
{
    struct rect area = { 0, 0, width + 4, height + 2 };
    area.width = area.width > canvas->width ? canvas->width : area.width;
    area.height = area.height > canvas->height ? canvas->height : area.height;
    area.x = (canvas->width - area.width) / 2;
    area.y = (canvas->height - area.height) / 2;
    canvas_fill(canvas, area, ' ', STYLE_TEXT);
    struct rect inside = widget_box(canvas, area, title, NULL, true);
    inside.x++;
    inside.width = inside.width > 2 ? inside.width - 2 : 0;
    return inside;
}

void widget_dialog(struct canvas *canvas, const struct widget_dialog *dialog)
{
    int width = text_columns(dialog->title) + 4;
    for (int i = 0; i < dialog->line_count; i++) {
        int columns = text_columns(dialog->line[i]);
        width = columns > width ? columns : width;
    }
    for (int i = 0; i < dialog->choice_count; i++) {
        int columns = text_columns(dialog->choice[i]) + 2;
        width = columns > width ? columns : width;
    }
    struct rect inside =
        middle_box(canvas, width, dialog->line_count + dialog->choice_count + 1, dialog->title);
    int y = inside.y;
    for (int i = 0; i < dialog->line_count; i++) {
        canvas_text(canvas, inside.x, y++, inside.width, STYLE_TEXT, dialog->line[i]);
    }
    y++;
    for (int i = 0; i < dialog->choice_count; i++) {
        canvas_text(canvas, inside.x + 2, y++, inside.width - 2, STYLE_KEY, dialog->choice[i]);
    }
}

int widget_paragraph(struct canvas *canvas, struct rect area, enum style style, const char *text)
{
    size_t size = strlen(text);
    int y = 0;
    while (size > 0 && y < area.height && area.width > 0) {
        size_t next = 0;
        size_t take = text_wrap(text, size, area.width, &next);
        struct rect line = { area.x, area.y + y, area.width, 1 };
        canvas_text_size(canvas, line, style, text, take);
        next = next == 0 ? 1 : next;
        text += next;
        size -= next;
        y++;
    }
    return y;
}

void widget_field(struct canvas *canvas, const char *title, const char *text, const char *hint)
{
    struct rect inside = middle_box(canvas, canvas->width * 3 / 4, 3, title);
    /* The end of a long text is what is being typed: show that. */
    const char *shown = text;
    while (*shown && text_columns(shown) > inside.width - 2) {
        do {
            shown++;
        } while (((unsigned char)*shown & 0xc0) == 0x80);
    }
    int used = canvas_text(canvas, inside.x, inside.y, inside.width - 1, STYLE_STRONG, shown);
    canvas_put(canvas, inside.x + used, inside.y, '_', STYLE_STRONG);
    canvas_text(canvas, inside.x, inside.y + 2, inside.width, STYLE_DIM, hint);
}
