/* The list of runs that lies over a screen. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "app/text.h"
#include "app/widget/widget.h"
#include "app/workbench.h"

static void draw_row(const struct workbench *workbench, struct canvas *canvas, struct rect line,
                     const struct launcher_run *run)
{
    bool own = strcmp(run->name, workbench->run_name) == 0;
    bool marked = compare_has(&workbench->compare, run->path);
    const char *sign = "   ";
    if (workbench->runs.use == RUNS_FOR_COMPARE) {
        sign = own || marked ? "[x]" : "[ ]";
    } else if (own) {
        sign = " > ";
    }
    int names = line.width > 90 ? 36 : 26;
    int x = line.x;
    canvas_text(canvas, x, line.y, 3, STYLE_KEY, sign);
    canvas_text(canvas, x + 4, line.y, names - 1, STYLE_TEXT, run->name);
    x += 4 + names;
    bool running = strcmp(run->status, "running") == 0;
    canvas_text(canvas, x, line.y, 8, running ? STYLE_GOOD : STYLE_TEXT, run->status);
    char steps[48];
    snprintf(steps, sizeof(steps), "%" PRId64 "/%" PRId64, run->step, run->total_steps);
    canvas_text_right(canvas, x + 8, line.y, 11, STYLE_TEXT, steps);
    canvas_text_right(canvas, x + 19, line.y, 7, STYLE_TEXT, text_loss(run->loss).text);
    canvas_text(canvas, x + 28, line.y, line.x + line.width - x - 28, STYLE_DIM, run->what);
}

void screen_runs(const struct workbench *workbench, struct canvas *canvas)
{
    const struct launcher *launcher = &workbench->launcher;
    const struct runs *runs = &workbench->runs;
    int rows = launcher->run_count < 1 ? 1 : launcher->run_count;
    int most = canvas->height - 6;
    rows = rows > most ? (most < 1 ? 1 : most) : rows;
    struct rect area = { 2, 2, canvas->width - 4, rows + 2 };
    canvas_fill(canvas, area, ' ', STYLE_TEXT);
    char note[64];
    snprintf(note, sizeof(note), "%d, newest first", launcher->run_count);
    struct rect inside = widget_box(
        canvas, area, runs->use == RUNS_FOR_COMPARE ? "runs to compare" : "open a run", note, true);
    struct rect before = canvas_clip(canvas, inside);
    if (launcher->run_count == 0) {
        canvas_text(canvas, inside.x + 1, inside.y, inside.width - 2, STYLE_DIM,
                    runs->known ? "there are no runs yet" : "reading ...");
    }
    int first = widget_scroll(runs->cursor, launcher->run_count, inside.height);
    for (int i = first; i < launcher->run_count && i - first < inside.height; i++) {
        struct rect line = { inside.x + 1, inside.y + i - first, inside.width - 2, 1 };
        draw_row(workbench, canvas, line, &launcher->run[i]);
        canvas_spot(canvas, line, TARGET_OPEN, i);
        if (i == runs->cursor) {
            canvas_restyle(canvas, (struct rect){ inside.x, line.y, inside.width, 1 },
                           STYLE_CURSOR);
        }
    }
    canvas_restore(canvas, before);
}
