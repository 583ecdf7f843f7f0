/* Memory by category: planned, measured, and where in a step the bytes are. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "app/layout.h"
#include "app/text.h"
#include "app/widget/widget.h"
#include "app/workbench.h"

static const char letters[MEMORY_CATEGORY_COUNT + 1] = "WGOAT";
static const enum style styles[MEMORY_CATEGORY_COUNT] = { STYLE_SERIES_1, STYLE_SERIES_2,
                                                          STYLE_SERIES_3, STYLE_SERIES_4,
                                                          STYLE_DIM };

static void category_line(const struct workbench *workbench, struct canvas *canvas,
                          struct rect line, int i, double scale)
{
    const struct history *history = &workbench->history;
    bool measured = history->memory_step >= 0;
    double plan = history->planned ? (double)history->plan.planned_bytes[i]
                  : measured       ? (double)history->memory.planned_bytes[i]
                                   : -1;
    double peak = measured ? (double)history->memory.peak_bytes[i] : -1;
    int x = line.x;
    x += canvas_printf(canvas, x, line.y, 14, STYLE_TEXT, "%c %s", letters[i],
                       memory_category_names[i]);
    x = line.x + 14;
    canvas_text_right(canvas, x, line.y, 8, STYLE_TEXT,
                      measured ? text_bytes(peak).text : text_bytes(plan).text);
    x += 9;
    if (line.width > 44) {
        canvas_text_right(canvas, x, line.y, 8, STYLE_DIM, text_bytes(plan).text);
        x += 9;
    }
    int bar = line.x + line.width - x;
    if (bar > 1 && scale > 0) {
        widget_bar(canvas, (struct rect){ x, line.y, bar, 1 }, measured ? peak / scale : 0,
                   plan >= 0 ? plan / scale : -1, styles[i]);
    }
}

static void total_lines(const struct workbench *workbench, struct canvas *canvas, struct rect line)
{
    const struct history *history = &workbench->history;
    const struct event_memory *memory = &history->memory;
    bool bounded = history->plan.limit_bytes > 0 && line.width > 34;
    if (history->memory_step >= 0) {
        canvas_printf(canvas, line.x, line.y++, line.width, STYLE_STRONG, "measured peak %s",
                      text_bytes((double)history_total(memory->peak_bytes)).text);
    }
    if (history->planned) {
        canvas_printf(canvas, line.x, line.y++, line.width, STYLE_TEXT, "planned       %s%s%s",
                      text_bytes((double)history->plan.total_bytes).text, bounded ? " of " : "",
                      bounded ? text_bytes((double)history->plan.limit_bytes).text : "");
    }
    bool told = history->telemetry_seen && history->telemetry.device_used_bytes > 0;
    int64_t device = told                        ? history->telemetry.device_used_bytes
                     : history->memory_step >= 0 ? memory->device_used_bytes
                                                 : EVENT_UNKNOWN;
    int64_t host = history->telemetry_seen && history->telemetry.host_bytes > 0
                       ? history->telemetry.host_bytes
                   : history->memory_step >= 0 ? memory->host_bytes
                                               : EVENT_UNKNOWN;
    if (device > 0) {
        /* Beside the plan, what the device says: the gap is the driver's context, the libraries and
         * other processes. */
        bool whole =
            history->telemetry_seen && history->telemetry.device_total_bytes > 0 && line.width > 34;
        canvas_printf(canvas, line.x, line.y++, line.width, STYLE_TEXT, "device in use %s%s%s",
                      text_bytes((double)device).text, whole ? " of " : "",
                      whole ? text_bytes((double)history->telemetry.device_total_bytes).text : "");
    }
    if (host > 0) {
        canvas_printf(canvas, line.x, line.y++, line.width, STYLE_TEXT, "process       %s",
                      text_bytes((double)host).text);
    }
}

void screen_memory_table(const struct workbench *workbench, struct canvas *canvas, struct rect area)
{
    const struct history *history = &workbench->history;
    bool measured = history->memory_step >= 0;
    bool wide = area.width - 4 > 44;
    struct rect inside =
        widget_box(canvas, area, measured ? "memory: peak" : "memory: planned", "| plan", false);
    struct rect before = canvas_clip(canvas, inside);
    struct rect line = { inside.x + 1, inside.y, inside.width - 2, 1 };
    double scale = 0;
    for (int i = 0; i < MEMORY_CATEGORY_COUNT; i++) {
        scale = fmax(scale, history->planned ? (double)history->plan.planned_bytes[i] : 0);
        scale = fmax(scale, measured ? (double)history->memory.peak_bytes[i] : 0);
    }
    if (!measured && !history->planned) {
        canvas_text(canvas, line.x, line.y, line.width, STYLE_DIM, "not planned yet");
        canvas_restore(canvas, before);
        return;
    }
    if (wide && inside.height > 9) {
        canvas_text_right(canvas, line.x + 14, line.y, 8, STYLE_DIM, "peak");
        canvas_text_right(canvas, line.x + 23, line.y, 8, STYLE_DIM, "plan");
        line.y++;
    }
    for (int i = 0; i < MEMORY_CATEGORY_COUNT; i++) {
        category_line(workbench, canvas, line, i, scale * 1.02);
        line.y++;
    }
    line.y += inside.height > 9;
    total_lines(workbench, canvas, line);
    canvas_restore(canvas, before);
}

/* One bar per phase, stacked by category. */
static void draw_phases(const struct workbench *workbench, struct canvas *canvas, struct rect area)
{
    const struct event_plan *plan = &workbench->history.plan;
    struct rect inside = widget_box(canvas, area, "planned bytes by phase of a step",
                                    "W weights  G gradients  O optimizer  A activations", true);
    struct rect before = canvas_clip(canvas, inside);
    double scale = 0;
    for (int i = 0; i < plan->phase_count; i++) {
        scale = fmax(scale, (double)history_total(plan->phase[i].bytes));
    }
    int width = inside.width - 24;
    int y = inside.y;
    for (int i = 0; i < plan->phase_count && scale > 0; i++) {
        double total = (double)history_total(plan->phase[i].bytes);
        if (total <= 0) {
            continue;
        }
        canvas_text(canvas, inside.x + 1, y, 10, STYLE_TEXT, plan->phase[i].name);
        double sum = 0;
        int at = 0;
        for (int k = 0; k < MEMORY_CATEGORY_COUNT; k++) {
            sum += (double)plan->phase[i].bytes[k];
            int to = (int)lround(sum / scale * width);
            for (; at < to; at++) {
                canvas_put(canvas, inside.x + 12 + at, y, (uint32_t)letters[k], styles[k]);
            }
        }
        canvas_text_right(canvas, inside.x + inside.width - 10, y, 9, STYLE_TEXT,
                          text_bytes(total).text);
        y++;
    }
    if (plan->phase_count == 0) {
        canvas_text(canvas, inside.x + 1, y, inside.width - 2, STYLE_DIM, "not planned yet");
    }
    canvas_restore(canvas, before);
}

static void draw_largest(const struct workbench *workbench, struct canvas *canvas, struct rect area)
{
    const struct event_plan *plan = &workbench->history.plan;
    struct rect inside = widget_box(canvas, area, "largest tensors at the peak", NULL, false);
    struct rect before = canvas_clip(canvas, inside);
    for (int i = 0; i < plan->largest_count && i < inside.height; i++) {
        const struct memory_record *record = &plan->largest[i];
        int y = inside.y + i;
        char letter =
            (unsigned)record->category < MEMORY_CATEGORY_COUNT ? letters[record->category] : '?';
        canvas_text_right(canvas, inside.x + 1, y, 8, STYLE_TEXT,
                          text_bytes((double)record->bytes).text);
        canvas_printf(canvas, inside.x + 10, y, inside.width - 11, STYLE_TEXT, "%c  %s", letter,
                      record->name);
    }
    canvas_restore(canvas, before);
}

void screen_memory(const struct workbench *workbench, struct canvas *canvas, struct rect body)
{
    struct rect rows[2];
    struct rect columns[2];
    int upper = 10 > body.height / 2 ? body.height / 2 : 10;
    rows[0] = (struct rect){ body.x, body.y, body.width, upper };
    rows[1] = (struct rect){ body.x, body.y + upper, body.width, body.height - upper };
    layout_columns(rows[1], 48, columns);
    draw_phases(workbench, canvas, rows[0]);
    screen_memory_table(workbench, canvas, columns[0]);
    draw_largest(workbench, canvas, columns[1]);
}
