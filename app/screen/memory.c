/* Memory by category: planned, measured, and where in a step the bytes are. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "app/fare.h"
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

/* What the device and the process take in all, beside what was planned; 0: unknown. The gap is the
 * driver's context, libraries and other processes. */
struct device_use {
    int64_t used;
    int64_t total;
    int64_t host;
    int64_t ours;    /* all regions, which are taken whole before the first step */
    int64_t context; /* the driver's context and the libraries, as measured */
};

static struct device_use device_use(const struct history *history)
{
    const struct event_telemetry *now = &history->telemetry;
    const struct event_memory *memory = &history->memory;
    struct device_use use = { 0 };
    if (history->telemetry_seen) {
        use.used = now->device_used_bytes;
        use.total = now->device_total_bytes;
        use.host = now->host_bytes;
    }
    if (history->memory_step >= 0) {
        use.used = use.used > 0 ? use.used : memory->device_used_bytes;
        use.host = use.host > 0 ? use.host : memory->host_bytes;
    }
    use.ours = history->planned ? history->plan.total_bytes : 0;
    use.context = history->started ? history->start.start.context_bytes : 0;
    return use;
}

static void byte_line(struct canvas *canvas, struct rect line, const char *name, int64_t bytes,
                      const char *what)
{
    canvas_printf(canvas, line.x, line.y, line.width, STYLE_DIM, "  %-12s%s%s", name,
                  text_bytes((double)bytes).text, line.width > 40 ? what : "");
}

/* What lies between the plan and what the device or the process has in use. */
static struct rect gap_lines(struct canvas *canvas, struct rect line, const struct device_use *use)
{
    int64_t gap = use->used > use->ours ? use->used - use->ours : 0; /* unknown is less */
    if (use->ours <= 0) {
        return line;
    }
    if (gap > 0 && use->context > 0 && use->context <= gap) {
        byte_line(canvas, line, "context", use->context, ": CUDA and its libraries");
        line.y++;
        byte_line(canvas, line, "others", gap - use->context, ": other programs, the driver");
        line.y++;
    } else if (gap > 0) {
        byte_line(canvas, line, "not ours", gap, ": driver, libraries, other programs");
        line.y++;
    } else if (use->host > use->ours) {
        byte_line(canvas, line, "unplanned", use->host - use->ours, ": program, data, libraries");
        line.y++;
    }
    return line;
}

/* "4 ranks       1.20 GiB to 1.25 GiB each at the peak", or the little of it that has room. */
static void ranks_line(const struct event_ranks *ranks, struct canvas *canvas, struct rect line)
{
    struct fare fare;
    char count[24];
    fare_of(ranks, &fare);
    snprintf(count, sizeof(count), "%d ranks", fare.count);
    int x = line.x + canvas_printf(canvas, line.x, line.y, line.width, STYLE_TEXT, "%-13s ", count);
    int width = line.x + line.width - x;
    struct text_number low = text_bytes((double)fare.peak_low);
    struct text_number high = text_bytes((double)fare.peak_high);
    const char *each = line.width > 46 ? " each at the peak" : "";
    if (strcmp(low.text, high.text) == 0) {
        canvas_printf(canvas, x, line.y, width, STYLE_TEXT, "%s each", high.text);
    } else if (line.width >= 34) {
        canvas_printf(canvas, x, line.y, width, STYLE_TEXT, "%s to %s%s", low.text, high.text,
                      each);
    } else {
        canvas_printf(canvas, x, line.y, width, STYLE_TEXT, "up to %s", high.text);
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
    const struct event_step *last = &history->last_step;
    if (last->offload_written_bytes > 0) {
        canvas_printf(canvas, line.x, line.y++, line.width, STYLE_TEXT,
                      "to the disk   %s a step, waits %.1f ms",
                      text_bytes((double)last->offload_written_bytes).text,
                      fmax(0.0, last->offload_stall_ms));
    }
    const struct event_ranks *ranks = history_ranks(history);
    if (ranks) {
        ranks_line(ranks, canvas, line);
        line.y++;
    }
    struct device_use use = device_use(history);
    bool whole = use.total > 0 && line.width > 34;
    if (use.used > 0) {
        canvas_printf(canvas, line.x, line.y++, line.width, STYLE_TEXT, "device in use %s%s%s",
                      text_bytes((double)use.used).text, whole ? " of " : "",
                      whole ? text_bytes((double)use.total).text : "");
    }
    if (use.host > 0) {
        canvas_printf(canvas, line.x, line.y++, line.width, STYLE_TEXT, "process       %s",
                      text_bytes((double)use.host).text);
    }
    line = gap_lines(canvas, line, &use);
    if (use.total > use.used && use.used > 0) {
        canvas_printf(canvas, line.x, line.y++, line.width, STYLE_DIM, "  free        %s",
                      text_bytes((double)(use.total - use.used)).text);
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
