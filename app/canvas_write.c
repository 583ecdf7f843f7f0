/* Canvas to text and SVG. */
#include "app/canvas_write.h"

#include <string.h>

#include "engine/base/text.h"

/* A cell of the picture, in pixels: the ratio of common monospaced fonts. */
enum { CELL_WIDTH = 8, CELL_HEIGHT = 17, BASELINE = 13, MARGIN = 8 };

static const struct cell *cell_at(const struct canvas *canvas, int x, int y)
{
    return &canvas->cell[y * canvas->width + x];
}

static void add_code(struct buffer *out, uint32_t code)
{
    char bytes[4];
    buffer_append(out, bytes, text_encode(code, bytes));
}

static void add_glyph(struct buffer *out, const struct cell *cell)
{
    add_code(out, cell->code);
    for (int i = 0; i < 2 && cell->mark[i] != 0; i++) {
        add_code(out, cell->mark[i]);
    }
}

/* Columns up to the last one that shows something. */
static int used_columns(const struct canvas *canvas, int y)
{
    int used = canvas->width;
    while (used > 0 && cell_at(canvas, used - 1, y)->code == ' ') {
        used--;
    }
    return used;
}

void canvas_write_text(const struct canvas *canvas, struct buffer *out)
{
    for (int y = 0; y < canvas->height; y++) {
        int used = used_columns(canvas, y);
        for (int x = 0; x < used; x++) {
            const struct cell *cell = cell_at(canvas, x, y);
            if (cell->width > 0) {
                add_glyph(out, cell);
            }
        }
        buffer_append(out, "\n", 1);
    }
}

/* ---- SVG --------------------------------------------------------------------------------------
 */

struct ink {
    unsigned text;
    unsigned ground;
    bool has_ground;
    bool bold;
};

static struct ink ink_of(enum style style, bool dark)
{
    unsigned paper = dark ? 0x1e1e1e : 0xffffff;
    unsigned pen = dark ? 0xd4d4d4 : 0x24292f;
    unsigned faint = dark ? 0x8a8a8a : 0x6e7781;
    struct theme theme = { THEME_AUTO, dark ? GROUND_DARK : GROUND_LIGHT, COLOR_TRUE };
    struct look look = theme_look(theme, style);
    struct ink ink = { .text = pen, .ground = paper, .bold = look.bold };
    if (look.foreground >= 0) {
        ink.text = look.rgb;
    } else if (look.dim) {
        ink.text = faint;
    }
    if (look.reverse) {
        unsigned swap = ink.text;
        ink.text = ink.ground;
        ink.ground = swap;
        ink.has_ground = true;
    }
    return ink;
}

static void add_escaped(struct buffer *out, const struct cell *cell)
{
    switch (cell->code) {
    case '<':
        buffer_printf(out, "&lt;");
        break;
    case '>':
        buffer_printf(out, "&gt;");
        break;
    case '&':
        buffer_printf(out, "&amp;");
        break;
    default:
        add_glyph(out, cell);
        break;
    }
}

/* Columns [first, end) of a line, all of one style. textLength holds every glyph in its cell
 * whatever font is there. */
static void add_span(const struct canvas *canvas, bool dark, const int at[3], struct buffer *out)
{
    int y = at[0];
    int first = at[1];
    int end = at[2];
    struct ink ink = ink_of((enum style)cell_at(canvas, first, y)->style, dark);
    int left = MARGIN + first * CELL_WIDTH;
    int width = (end - first) * CELL_WIDTH;
    if (ink.has_ground) {
        buffer_printf(out, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"#%06x\"/>",
                      left, MARGIN + y * CELL_HEIGHT, width, CELL_HEIGHT, ink.ground);
    }
    buffer_printf(out,
                  "<text x=\"%d\" y=\"%d\" textLength=\"%d\" lengthAdjust=\"spacingAndGlyphs\" "
                  "fill=\"#%06x\"%s>",
                  left, MARGIN + y * CELL_HEIGHT + BASELINE, width, ink.text,
                  ink.bold ? " font-weight=\"bold\"" : "");
    for (int x = first; x < end; x++) {
        const struct cell *cell = cell_at(canvas, x, y);
        if (cell->width > 0) {
            add_escaped(out, cell);
        }
    }
    buffer_printf(out, "</text>\n");
}

static bool is_blank(const struct canvas *canvas, int x, int y)
{
    const struct cell *cell = cell_at(canvas, x, y);
    struct theme theme = { .depth = COLOR_256 };
    return cell->code == ' ' && !theme_look(theme, (enum style)cell->style).reverse;
}

static void add_line(const struct canvas *canvas, bool dark, int y, struct buffer *out)
{
    int x = 0;
    while (x < canvas->width) {
        if (is_blank(canvas, x, y)) {
            x++;
            continue;
        }
        int end = x + 1;
        while (end < canvas->width && !is_blank(canvas, end, y) &&
               cell_at(canvas, end, y)->style == cell_at(canvas, x, y)->style) {
            end++;
        }
        add_span(canvas, dark, (const int[3]){ y, x, end }, out);
        x = end;
    }
}

void canvas_write_svg(const struct canvas *canvas, bool dark, struct buffer *out)
{
    int width = 2 * MARGIN + canvas->width * CELL_WIDTH;
    int height = 2 * MARGIN + canvas->height * CELL_HEIGHT;
    struct ink paper = ink_of(STYLE_TEXT, dark);
    buffer_printf(out,
                  "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
                  "viewBox=\"0 0 %d %d\">\n<rect width=\"100%%\" height=\"100%%\" rx=\"6\" "
                  "fill=\"#%06x\"/>\n<g xml:space=\"preserve\" font-size=\"13\" "
                  "font-family=\"ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace\">\n",
                  width, height, width, height, paper.ground);
    for (int y = 0; y < canvas->height; y++) {
        add_line(canvas, dark, y, out);
    }
    buffer_printf(out, "</g>\n</svg>\n");
}
