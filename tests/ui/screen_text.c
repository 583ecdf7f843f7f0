/* A canvas as text. */
#include "screen_text.h"

#include "engine/base/text.h"

static void add_code(struct buffer *out, uint32_t code)
{
    char bytes[4];
    buffer_append(out, bytes, text_encode(code, bytes));
}

void screen_text(const struct canvas *canvas, enum color_depth depth, struct buffer *out)
{
    for (int y = 0; y < canvas->height; y++) {
        for (int x = 0; x < canvas->width; x++) {
            const struct cell *cell = &canvas->cell[y * canvas->width + x];
            if (cell->width == 0) {
                continue;
            }
            add_code(out, cell->code);
            for (int i = 0; i < 2 && cell->mark[i]; i++) {
                add_code(out, cell->mark[i]);
            }
        }
        buffer_append(out, "|\n", 2);
    }
    buffer_append(out, "\n", 1);
    for (int y = 0; y < canvas->height; y++) {
        for (int x = 0; x < canvas->width; x++) {
            const struct cell *cell = &canvas->cell[y * canvas->width + x];
            char letter = theme_letter((enum style)cell->style, depth);
            buffer_append(out, &letter, 1);
        }
        buffer_append(out, "|\n", 2);
    }
}
