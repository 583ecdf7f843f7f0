/* Sizes in, rectangles out. */
#include "app/layout.h"

bool layout_is_compact(int width, int height)
{
    return width < LAYOUT_WIDTH_MIN || height < LAYOUT_HEIGHT_MIN;
}

struct layout_frame layout_frame(int width, int height, bool tabs)
{
    int top = tabs ? 2 : 1;
    struct layout_frame frame = {
        .header = { 0, 0, width, 1 },
        .tabs = { 0, 1, tabs ? width : 0, tabs ? 1 : 0 },
        .body = { 0, top, width, height - top - 2 },
        .message = { 0, height - 2, width, 1 },
        .footer = { 0, height - 1, width, 1 },
    };
    return frame;
}

void layout_columns(struct rect area, int share, struct rect out[2])
{
    int first = area.width * share / 100;
    out[0] = (struct rect){ area.x, area.y, first, area.height };
    out[1] = (struct rect){ area.x + first, area.y, area.width - first, area.height };
}

void layout_rows(struct rect area, int share, struct rect out[2])
{
    int first = area.height * share / 100;
    out[0] = (struct rect){ area.x, area.y, area.width, first };
    out[1] = (struct rect){ area.x, area.y + first, area.width, area.height - first };
}

void layout_split(struct rect area, int count, struct rect *out)
{
    for (int i = 0; i < count; i++) {
        int begin = area.width * i / count;
        int end = area.width * (i + 1) / count;
        out[i] = (struct rect){ area.x + begin, area.y, end - begin, area.height };
    }
}

/* Lists, and below them from top to bottom the plan, the detail and the runs; where it is wide the
 * detail stands beside the plan, where it is low the detail and the runs share one place. */
struct layout_launcher layout_launcher(struct rect body, bool runs)
{
    struct layout_launcher out = { .runs = { body.x, body.y, 0, 0 } };
    bool wide = body.width >= 110 && body.height >= 26;
    bool tall = !wide && body.height >= 32;
    int plan = body.height < 18 ? body.height / 3 : body.height < 26 ? 7 : wide ? 12 : 9;
    int lists = body.height < 26 ? (body.height - plan) / 2 : (body.height - plan) * 6 / 10;
    lists = tall ? (body.height - plan) * 4 / 10 : lists;
    int rest = body.height - lists - plan;
    struct rect below = { body.x, body.y + lists + plan, body.width, rest };
    layout_split((struct rect){ body.x, body.y, body.width, lists }, 3, out.list);
    out.plan = (struct rect){ body.x, body.y + lists, body.width, plan };
    out.detail = below;
    if (wide) {
        struct rect half[2];
        layout_columns(out.plan, 52, half);
        out.plan = half[0];
        out.detail = half[1];
        out.runs = below;
    } else if (tall) {
        struct rect half[2];
        layout_rows(below, 50, half);
        out.detail = half[0];
        out.runs = half[1];
    } else if (runs) {
        out.runs = below;
        out.detail = (struct rect){ body.x, body.y, 0, 0 };
    }
    return out;
}

struct layout_dashboard layout_dashboard(struct rect body)
{
    struct layout_dashboard out = { .worst = { 0, 0, 0, 0 }, .gradient = { 0, 0, 0, 0 } };
    bool large = body.width >= 110 && body.height >= 28;
    struct rect rest = body;
    if (large) {
        int events = body.height / 5;
        rest.height -= events;
        out.events = (struct rect){ body.x, body.y + rest.height, body.width, events };
    }
    int lower = large ? rest.height * 2 / 5 : rest.height >= 18 ? 8 : rest.height * 2 / 5;
    struct rect upper = { rest.x, rest.y, rest.width, rest.height - lower };
    struct rect below = { rest.x, rest.y + upper.height, rest.width, lower };
    struct rect half[2];
    int memory = upper.width * 38 / 100;
    memory = memory > 56 ? 56 : memory;
    half[0] = (struct rect){ upper.x, upper.y, upper.width - memory, upper.height };
    half[1] = (struct rect){ upper.x + half[0].width, upper.y, memory, upper.height };
    out.loss = half[0];
    out.memory = half[1];
    struct rect third[4];
    bool wide = large && below.width >= 160;
    layout_split(below, wide ? 4 : 3, third);
    if (wide) {
        out.gradient = third[3];
    }
    if (!large) {
        /* Lines of events need more room than numbers. */
        int first = below.width * 30 / 100;
        int second = below.width * 32 / 100;
        third[0].width = first;
        third[1] = (struct rect){ below.x + first, below.y, second, below.height };
        third[2] = (struct rect){ below.x + first + second, below.y, below.width - first - second,
                                  below.height };
    }
    out.speed = third[0];
    out.selection = third[1];
    if (large) {
        out.worst = third[2];
    } else {
        out.events = third[2];
    }
    return out;
}

struct layout_tune layout_tune(struct rect body)
{
    struct layout_tune out;
    struct rect rows[2];
    struct rect columns[2];
    int upper = body.height * 2 / 3;
    upper = upper > 20 ? 20 : upper;
    rows[0] = (struct rect){ body.x, body.y, body.width, upper };
    rows[1] = (struct rect){ body.x, body.y + upper, body.width, body.height - upper };
    layout_columns(rows[0], 58, columns);
    out.settings = columns[0];
    out.effect = columns[1];
    out.changes = rows[1];
    return out;
}

struct layout_compare layout_compare(struct rect body)
{
    struct layout_compare out = { .settings = { 0, 0, 0, 0 } };
    int lower = body.height >= 24 ? 10 : body.height * 9 / 20;
    lower = lower < 4 ? 4 : lower;
    out.chart = (struct rect){ body.x, body.y, body.width, body.height - lower };
    out.numbers = (struct rect){ body.x, body.y + out.chart.height, body.width, lower };
    if (body.width >= 110 && out.chart.height >= 10) {
        int settings = body.width * 36 / 100;
        out.chart.width -= settings;
        out.settings =
            (struct rect){ body.x + out.chart.width, body.y, settings, out.chart.height };
    }
    return out;
}
