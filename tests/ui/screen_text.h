/* A canvas as text: rows ended by '|', then the same with one letter per style. */
#ifndef WINDROW_TESTS_UI_SCREEN_TEXT_H
#define WINDROW_TESTS_UI_SCREEN_TEXT_H

#include "app/canvas.h"
#include "engine/base/xalloc.h"

void screen_text(const struct canvas *canvas, enum color_depth depth, struct buffer *out);

#endif
