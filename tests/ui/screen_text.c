/* A canvas as text. */
#include "screen_text.h"

static void add_code(struct buffer *out, uint32_t code)
{
    unsigned char bytes[4];
    size_t size = 0;
    if (code < 0x80) {
        bytes[size++] = (unsigned char)code;
    } else if (code < 0x800) {
        bytes[size++] = (unsigned char)(0xc0 | (code >> 6));
    } else if (code < 0x10000) {
        bytes[size++] = (unsigned char)(0xe0 | (code >> 12));
        bytes[size++] = (unsigned char)(0x80 | ((code >> 6) & 0x3f));
    } else {
        bytes[size++] = (unsigned char)(0xf0 | (code >> 18));
        bytes[size++] = (unsigned char)(0x80 | ((code >> 12) & 0x3f));
        bytes[size++] = (unsigned char)(0x80 | ((code >> 6) & 0x3f));
    }
    if (code >= 0x80) {
        bytes[size++] = (unsigned char)(0x80 | (code & 0x3f));
    }
    buffer_append(out, bytes, size);
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
