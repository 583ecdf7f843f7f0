/* The grid of cells. */
#include "app/canvas.h"

#include <langinfo.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/text.h"
#include "engine/base/xalloc.h"

const char *const glyph_set_names[GLYPHS_COUNT] = { "ascii", "block", "braille" };

static int bounded(int value, int low, int high)
{
    return value < low ? low : value > high ? high : value;
}

void canvas_open(struct canvas *canvas, int width, int height, enum glyph_set glyphs)
{
    memset(canvas, 0, sizeof(*canvas));
    canvas->width = bounded(width, 1, 1000);
    canvas->height = bounded(height, 1, 1000);
    canvas->glyphs = glyphs;
    canvas->cell = xcalloc((size_t)canvas->width * (size_t)canvas->height, sizeof(canvas->cell[0]));
    canvas_clear(canvas);
}

void canvas_close(struct canvas *canvas)
{
    free(canvas->cell);
    canvas->cell = NULL;
}

void canvas_clear(struct canvas *canvas)
{
    size_t count = (size_t)canvas->width * (size_t)canvas->height;
    for (size_t i = 0; i < count; i++) {
        canvas->cell[i] = (struct cell){ .code = ' ', .style = STYLE_TEXT, .width = 1 };
    }
    canvas->clip = (struct rect){ 0, 0, canvas->width, canvas->height };
    canvas->spot_count = 0;
}

void canvas_spot(struct canvas *canvas, struct rect area, enum target target, int index)
{
    enum { SPOTS = sizeof(canvas->spot) / sizeof(canvas->spot[0]) };
    area = rect_cut(area, canvas->clip);
    if (canvas->spot_count < SPOTS && area.width > 0 && area.height > 0) {
        canvas->spot[canvas->spot_count++] = (struct spot){ area, target, index };
    }
}

struct spot canvas_spot_at(const struct canvas *canvas, int x, int y)
{
    for (int i = canvas->spot_count - 1; i >= 0; i--) {
        const struct rect *area = &canvas->spot[i].area;
        if (x >= area->x && x < area->x + area->width && y >= area->y &&
            y < area->y + area->height) {
            return canvas->spot[i];
        }
    }
    return (struct spot){ .target = TARGET_NONE };
}

const struct cell *canvas_row(const struct canvas *canvas, int y)
{
    return &canvas->cell[y * canvas->width];
}

bool canvas_row_is_wide(const struct canvas *canvas, int y)
{
    const struct cell *row = canvas_row(canvas, y);
    for (int x = 0; x < canvas->width; x++) {
        if (row[x].width != 1) {
            return true;
        }
    }
    return false;
}

bool canvas_row_differs(const struct canvas *a, const struct canvas *b, int y)
{
    return memcmp(canvas_row(a, y), canvas_row(b, y), (size_t)a->width * sizeof(struct cell)) != 0;
}

void canvas_copy(struct canvas *to, const struct canvas *from)
{
    size_t count = (size_t)from->width * (size_t)from->height;
    memcpy(to->cell, from->cell, count * sizeof(struct cell));
}

struct rect rect_cut(struct rect a, struct rect b)
{
    int left = a.x > b.x ? a.x : b.x;
    int top = a.y > b.y ? a.y : b.y;
    int right = a.x + a.width < b.x + b.width ? a.x + a.width : b.x + b.width;
    int bottom = a.y + a.height < b.y + b.height ? a.y + a.height : b.y + b.height;
    return (struct rect){ left, top, right > left ? right - left : 0,
                          bottom > top ? bottom - top : 0 };
}

struct rect rect_inside(struct rect outer)
{
    return (struct rect){ outer.x + 1, outer.y + 1, outer.width > 2 ? outer.width - 2 : 0,
                          outer.height > 2 ? outer.height - 2 : 0 };
}

struct rect canvas_clip(struct canvas *canvas, struct rect rect)
{
    struct rect old = canvas->clip;
    canvas->clip = rect_cut(old, rect);
    return old;
}

void canvas_restore(struct canvas *canvas, struct rect clip)
{
    canvas->clip = clip;
}

static bool visible(const struct canvas *canvas, int x, int y)
{
    const struct rect *clip = &canvas->clip;
    return x >= clip->x && y >= clip->y && x < clip->x + clip->width && y < clip->y + clip->height;
}

static struct cell *at(struct canvas *canvas, int x, int y)
{
    return &canvas->cell[(size_t)y * (size_t)canvas->width + (size_t)x];
}

/* Writing over one half of a wide glyph leaves a blank in place of the other half. */
static void heal(struct canvas *canvas, int x, int y)
{
    struct cell *cell = at(canvas, x, y);
    if (cell->width == 2 && x + 1 < canvas->width) {
        struct cell *other = at(canvas, x + 1, y);
        *other = (struct cell){ .code = ' ', .style = other->style, .width = 1 };
    } else if (cell->width == 0 && x > 0) {
        struct cell *other = at(canvas, x - 1, y);
        *other = (struct cell){ .code = ' ', .style = other->style, .width = 1 };
    }
}

void canvas_put(struct canvas *canvas, int x, int y, uint32_t code, enum style style)
{
    if (!visible(canvas, x, y)) {
        return;
    }
    if (code < 0x20 || code == 0x7f || (canvas->glyphs == GLYPHS_ASCII && code > 0x7e)) {
        code = '?';
    }
    heal(canvas, x, y);
    *at(canvas, x, y) = (struct cell){ .code = code, .style = (uint8_t)style, .width = 1 };
}

static void put_wide(struct canvas *canvas, int x, int y, uint32_t code, enum style style)
{
    if (!visible(canvas, x, y) || !visible(canvas, x + 1, y)) {
        canvas_put(canvas, x, y, '?', style);
        canvas_put(canvas, x + 1, y, '?', style);
        return;
    }
    heal(canvas, x, y);
    heal(canvas, x + 1, y);
    *at(canvas, x, y) = (struct cell){ .code = code, .style = (uint8_t)style, .width = 2 };
    *at(canvas, x + 1, y) = (struct cell){ .code = ' ', .style = (uint8_t)style, .width = 0 };
}

void canvas_fill(struct canvas *canvas, struct rect rect, uint32_t code, enum style style)
{
    struct rect area = rect_cut(canvas->clip, rect);
    for (int y = area.y; y < area.y + area.height; y++) {
        for (int x = area.x; x < area.x + area.width; x++) {
            canvas_put(canvas, x, y, code, style);
        }
    }
}

void canvas_restyle(struct canvas *canvas, struct rect rect, enum style style)
{
    struct rect area = rect_cut(canvas->clip, rect);
    for (int y = area.y; y < area.y + area.height; y++) {
        for (int x = area.x; x < area.x + area.width; x++) {
            at(canvas, x, y)->style = (uint8_t)style;
        }
    }
}

static void add_mark(struct canvas *canvas, int x, int y, uint32_t mark)
{
    if (canvas->glyphs == GLYPHS_ASCII || !visible(canvas, x, y)) {
        return;
    }
    struct cell *cell = at(canvas, x, y);
    if (cell->width == 0 && x > 0) {
        cell = at(canvas, x - 1, y);
    }
    if (cell->mark[0] == 0) {
        cell->mark[0] = mark;
    } else if (cell->mark[1] == 0) {
        cell->mark[1] = mark;
    }
}

/* Places one glyph, ^X as two cells. */
static void put_glyph(struct canvas *canvas, int x, int y, const struct text_glyph *glyph,
                      enum style style)
{
    enum style look = glyph->odd && style == STYLE_TEXT ? STYLE_DIM : style;
    if (glyph->width == 2) {
        if (canvas->glyphs == GLYPHS_ASCII) {
            canvas_put(canvas, x, y, '?', look);
            canvas_put(canvas, x + 1, y, '?', look);
        } else {
            put_wide(canvas, x, y, glyph->code[0], look);
        }
        return;
    }
    for (int i = 0; i < glyph->count; i++) {
        canvas_put(canvas, x + i, y, glyph->code[i], look);
    }
}

int canvas_text_size(struct canvas *canvas, struct rect place, enum style style, const char *text,
                     size_t size)
{
    int used = 0;
    for (size_t i = 0; i < size;) {
        struct text_glyph glyph;
        i += text_next_glyph(text + i, size - i, &glyph);
        if (glyph.count == 0) {
            continue;
        }
        if (glyph.width == 0) {
            if (used > 0) {
                add_mark(canvas, place.x + used - 1, place.y, glyph.code[0]);
            }
            continue;
        }
        int columns = glyph.count * glyph.width;
        if (used + columns > place.width) {
            if (place.width > 0) {
                canvas_fill(canvas, (struct rect){ place.x + used, place.y, place.width - used, 1 },
                            ' ', style);
                canvas_put(canvas, place.x + place.width - 1, place.y, '~', style);
            }
            return place.width;
        }
        put_glyph(canvas, place.x + used, place.y, &glyph, style);
        used += columns;
    }
    return used;
}

int canvas_text(struct canvas *canvas, int x, int y, int width, enum style style, const char *text)
{
    return text ? canvas_text_size(canvas, (struct rect){ x, y, width, 1 }, style, text,
                                   strlen(text))
                : 0;
}

void canvas_text_right(struct canvas *canvas, int x, int y, int width, enum style style,
                       const char *text)
{
    int columns = text_columns(text);
    if (columns > width) {
        columns = width;
    }
    canvas_text(canvas, x + width - columns, y, columns, style, text);
}

int canvas_printf(struct canvas *canvas, int x, int y, int width, enum style style,
                  const char *format, ...)
{
    char text[1024];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof(text), format, list);
    va_end(list);
    return canvas_text(canvas, x, y, width, style, text);
}

enum glyph_set glyph_set_here(void)
{
    const char *type = getenv("TERM");
    if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0) {
        return GLYPHS_ASCII;
    }
    return type && strcmp(type, "linux") == 0 ? GLYPHS_BLOCK : GLYPHS_BRAILLE;
}
