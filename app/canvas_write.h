/*
 * A canvas for documents: as text, or as an SVG picture that any browser shows, with the colours of
 * the theme on a dark or a light ground.
 */
#ifndef WINDROW_APP_CANVAS_WRITE_H
#define WINDROW_APP_CANVAS_WRITE_H

#include "app/canvas.h"
#include "engine/base/xalloc.h"

/* Lines without the blanks at their ends. */
void canvas_write_text(const struct canvas *canvas, struct buffer *out);

void canvas_write_svg(const struct canvas *canvas, bool dark, struct buffer *out);

#endif
