/* Where things are on a screen: sizes in, rectangles out. A rectangle may be empty where there is
 * no room; none reaches outside and no two panes overlap. */
#ifndef WINDROW_APP_LAYOUT_H
#define WINDROW_APP_LAYOUT_H

#include "app/canvas.h"

enum { LAYOUT_WIDTH_MIN = 60, LAYOUT_HEIGHT_MIN = 15 };

/* Below the minimum only key numbers are shown. */
bool layout_is_compact(int width, int height);

struct layout_frame {
    struct rect header;
    struct rect tabs; /* empty in the launcher */
    struct rect body;
    struct rect message;
    struct rect footer;
};
struct layout_frame layout_frame(int width, int height, bool tabs);

struct layout_launcher {
    struct rect list[3];
    struct rect plan;
    struct rect detail; /* about what the cursor is on; empty if the runs take its place */
    struct rect runs;   /* empty if the detail takes its place */
};
/* Where there is no room for both, `runs` says which of detail and runs is seen. */
struct layout_launcher layout_launcher(struct rect body, bool runs);

struct layout_dashboard {
    struct rect loss;
    struct rect memory;
    struct rect speed;
    struct rect selection;
    struct rect worst;    /* empty on small screens */
    struct rect gradient; /* empty but on wide ones */
    struct rect events;
};
struct layout_dashboard layout_dashboard(struct rect body);

struct layout_tune {
    struct rect settings;
    struct rect effect;
    struct rect changes;
};
struct layout_tune layout_tune(struct rect body);

struct layout_compare {
    struct rect chart;
    struct rect numbers;
    struct rect settings; /* empty on small screens: there it takes turns with the numbers */
};
struct layout_compare layout_compare(struct rect body);

/* Two columns or two rows; the first gets `share` hundredths. */
void layout_columns(struct rect area, int share, struct rect out[2]);
void layout_rows(struct rect area, int share, struct rect out[2]);
/* `count` equal columns. */
void layout_split(struct rect area, int count, struct rect *out);

#endif
