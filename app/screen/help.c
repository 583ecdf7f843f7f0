/* Help for the current screen, made from the table of actions. */
#include <stdio.h>
#include <string.h>

#include "app/text.h"
#include "app/widget/widget.h"
#include "app/workbench.h"

enum { HELP_LINES = 200 };

struct help_line {
    char keys[24];
    const char *text;
    bool title;
    bool off; /* needs a running run */
};

static int collect(const struct workbench *workbench, struct help_line lines[HELP_LINES])
{
    static const char *const run_words[] = {
        "R below the chart: rows were chosen anew (refresh)",
        "T below the chart: a setting was changed",
        "! below the chart: a step was skipped (not finite)",
        "| in a memory bar: the plan",
        "STALLED: running, but silent for far longer than usual",
    };
    static const char *const launcher_words[] = {
        "W weights  G gradients  O optimizer states",
        "A activations  T workspace",
        "! beside a method: it does not fit",
    };
    unsigned context = workbench_context(workbench);
    int count = 0;
    /* What belongs to this screen first, what holds everywhere after it. */
    for (int pass = 0; pass < 2; pass++) {
        lines[count++] =
            (struct help_line){ "", pass == 0 ? "THIS SCREEN" : "EVERYWHERE", true, false };
        for (size_t i = 0; i < keymap_count; i++) {
            const struct action_row *row = &keymap_rows[i];
            bool everywhere = row->context == IN_ALL;
            if (!row->help || !(row->context & context) || everywhere != (pass == 1)) {
                continue;
            }
            struct help_line *line = &lines[count++];
            *line = (struct help_line){ "", row->help, false,
                                        row->engine && !workbench_live(workbench) };
            keymap_keys(row, line->keys, sizeof(line->keys));
        }
    }
    lines[count++] = (struct help_line){ "", "COMMAND LINE (:)", true, false };
    for (size_t i = 0; i < command_row_count; i++) {
        struct help_line *line = &lines[count++];
        *line = (struct help_line){ "", command_rows[i].help, false, false };
        snprintf(line->keys, sizeof(line->keys), ":%s", command_rows[i].name);
    }
    lines[count++] = (struct help_line){ "", "SIGNS", true, false };
    bool launcher = workbench->mode == MODE_LAUNCHER;
    int words = launcher ? 3 : 5;
    for (int i = 0; i < words; i++) {
        lines[count++] =
            (struct help_line){ "", launcher ? launcher_words[i] : run_words[i], false, false };
    }
    return count;
}

static void draw_line(struct canvas *canvas, struct rect place, const struct help_line *line)
{
    if (line->title) {
        canvas_text(canvas, place.x, place.y, place.width, STYLE_STRONG, line->text);
        return;
    }
    int text = line->keys[0] ? 11 : 1;
    canvas_text(canvas, place.x + 1, place.y, 10, line->off ? STYLE_DIM : STYLE_KEY, line->keys);
    canvas_text(canvas, place.x + text, place.y, place.width - text,
                line->off ? STYLE_DIM : STYLE_TEXT, line->text);
}

void screen_help(const struct workbench *workbench, struct canvas *canvas)
{
    struct help_line lines[HELP_LINES];
    int count = collect(workbench, lines);
    int columns = canvas->width >= 116 ? 2 : 1;
    int rows = (count + columns - 1) / columns;
    struct rect area = { 0, 1, columns == 2 ? 114 : 64, rows + 2 };
    int most = canvas->height - 3;
    area.width = area.width > canvas->width - 4 ? canvas->width - 4 : area.width;
    area.height = area.height > most ? most : area.height;
    area.x = (canvas->width - area.width) / 2;
    char title[64];
    snprintf(title, sizeof(title), "help: %s",
             workbench->mode == MODE_LAUNCHER ? "Home" : screen_names[workbench->screen]);
    canvas_fill(canvas, area, ' ', STYLE_TEXT);
    bool cut = rows > area.height - 2;
    struct rect inside =
        widget_box(canvas, area, title, cut ? "Down: more  Esc closes" : "Esc closes", true);
    struct rect before = canvas_clip(canvas, inside);
    int scroll = workbench->scroll;
    int furthest = rows - inside.height;
    scroll = scroll > furthest ? (furthest > 0 ? furthest : 0) : scroll;
    for (int i = 0; i < count; i++) {
        int column = i / rows;
        struct rect place = { inside.x + 1 + column * (inside.width / columns),
                              inside.y + i % rows - scroll, inside.width / columns - 2, 1 };
        if (place.y >= inside.y) {
            draw_line(canvas, place, &lines[i]);
        }
    }
    canvas_restore(canvas, before);
}
