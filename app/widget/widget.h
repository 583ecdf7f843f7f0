/* Parts that screens are made of. All draw into a canvas and clip. */
#ifndef WINDROW_APP_WIDGET_WIDGET_H
#define WINDROW_APP_WIDGET_WIDGET_H

#include "app/canvas.h"

/* A frame with a title at the left and a note at the right of its upper border (either may be
 * NULL). Returns the inside. */
struct rect widget_box(struct canvas *canvas, struct rect area, const char *title, const char *note,
                       bool focus);

/* A horizontal bar: `share` of the width (0..1), and a mark at `mark` (negative: none). */
void widget_bar(struct canvas *canvas, struct rect area, double share, double mark,
                enum style style);

/* First visible row of a list of `count` rows so that `cursor` is seen in `height` rows. */
int widget_scroll(int cursor, int count, int height);

/* A dialog in the middle: title, lines, and below them choices ("[s] save and stop"). */
struct widget_dialog {
    const char *title;
    const char *const *line;
    int line_count;
    const char *const *choice;
    int choice_count;
};
void widget_dialog(struct canvas *canvas, const struct widget_dialog *dialog);

/* Text in lines of the area's width, cut at its height; returns the lines used. */
int widget_paragraph(struct canvas *canvas, struct rect area, enum style style, const char *text);

/* A one-line edit field in the middle, with a hint below it. */
void widget_field(struct canvas *canvas, const char *title, const char *text, const char *hint);

#endif
