/* All ranks of a run: who computes how long and waits how long, and how full each is. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/fare.h"
#include "app/text.h"
#include "app/widget/widget.h"
#include "app/workbench.h"
#include "engine/base/xalloc.h"

/* Columns, as many as the width has room for: widths of 0 are left out. */
struct columns {
    int host;
    int device;
    int time; /* the bar of a step */
    int limit;
    int memory; /* the bar of bytes */
    int load;   /* use and temperature of the device */
};
enum { RANK = 6, MS = 8, BYTES = 9, LOAD = 11 };

static struct columns choose(const struct event_ranks *ranks, int width)
{
    struct columns columns = { .host = 11 };
    bool gpu = false;
    int host = 5;
    int device = 7;
    for (int p = 0; p < ranks->count; p++) {
        gpu = gpu || isfinite(ranks->item[p].gpu_util);
        host = (int)fmax(host, 1 + text_columns(ranks->item[p].host));
        device = (int)fmax(device, 4 + text_columns(ranks->item[p].device));
    }
    columns.host = host < (width >= 100 ? 22 : 12) ? host : width >= 100 ? 22 : 12;
    columns.device = width < 100 ? 0 : device < width / 4 ? device : width / 4;
    columns.limit = width >= 84 ? BYTES : 0;
    columns.load = gpu && width >= 110 ? LOAD : 0;
    int rest = width - RANK - columns.host - columns.device - 2 * MS - BYTES - columns.limit -
               columns.load - 2;
    columns.time = rest >= 12 ? rest / 2 : 0;
    columns.memory = rest >= 12 ? rest - columns.time - 1 : rest;
    return columns;
}

/* What a full bar means, the same for all ranks. */
struct scales {
    double step_ms;
    double bytes; /* 0: a full bar is the limit of its rank */
    bool shared;  /* devices tell what all programs use of them: the marks */
    int slowest;  /* -1: unknown */
};

/* Where all take little of what they may, bars are compared with each other. */
static struct scales choose_scales(const struct event_ranks *ranks, const struct fare *fare)
{
    struct scales scales = { .step_ms = isfinite(fare->step_ms) ? fare->step_ms : 0,
                             .shared = ranks->item[0].device_used_bytes >= 0,
                             .slowest = fare->slowest };
    double most = (double)fare->peak_high;
    bool limited = false;
    for (int p = 0; p < ranks->count; p++) {
        const struct event_rank *rank = &ranks->item[p];
        double limit = (double)fare_limit(rank);
        most = fmax(most, (double)rank->planned_bytes);
        limited |= limit > 0 && (double)rank->peak_bytes > limit / 20;
    }
    scales.bytes = limited || scales.shared ? 0 : most * 1.02;
    return scales;
}

static void draw_head(struct canvas *canvas, struct rect line, const struct columns *columns,
                      const struct scales *scales)
{
    int x = line.x;
    canvas_text_right(canvas, x, line.y, RANK - 1, STYLE_DIM, "rank");
    x += RANK;
    canvas_text(canvas, x, line.y, columns->host - 1, STYLE_DIM, "host");
    x += columns->host;
    canvas_text(canvas, x, line.y, columns->device - 1, STYLE_DIM, "device");
    x += columns->device;
    canvas_text_right(canvas, x, line.y, MS - 1, STYLE_DIM, "compute");
    x += MS;
    canvas_text_right(canvas, x, line.y, MS - 1, STYLE_DIM, "wait ms");
    x += MS;
    canvas_text(canvas, x, line.y, columns->time, STYLE_DIM,
                columns->time >= 22   ? "C computing, . waiting"
                : columns->time >= 17 ? "C compute, . wait"
                                      : "one step");
    x += columns->time + (columns->time > 0);
    canvas_text_right(canvas, x, line.y, BYTES - 1, STYLE_DIM, "peak");
    x += BYTES;
    canvas_text_right(canvas, x, line.y, columns->limit - 1, STYLE_DIM, "limit");
    x += columns->limit;
    canvas_text(canvas, x, line.y, columns->memory, STYLE_DIM,
                columns->memory < 16 ? "memory"
                : scales->bytes > 0  ? "memory | plan"
                : scales->shared     ? "of limit | in use"
                                     : "of limit | plan");
    x += columns->memory;
    canvas_text_right(canvas, x, line.y, columns->load, STYLE_DIM, "load");
}

static void draw_step(struct canvas *canvas, struct rect line, const struct event_rank *rank,
                      double scale)
{
    double compute = rank->compute_ms > 0 ? rank->compute_ms : 0;
    double wait = rank->wait_ms > 0 ? rank->wait_ms : 0;
    if (!(scale > 0)) {
        return;
    }
    int first = (int)lround(fmin(1, compute / scale) * line.width);
    int end = (int)lround(fmin(1, (compute + wait) / scale) * line.width);
    for (int x = 0; x < end; x++) {
        bool waits = x >= first;
        canvas_put(canvas, line.x + x, line.y, waits ? '.' : 'C',
                   waits ? STYLE_WARN : STYLE_SERIES_1);
    }
}

static void draw_memory(struct canvas *canvas, struct rect line, const struct event_rank *rank,
                        const struct scales *scales)
{
    double whole = scales->bytes > 0 ? scales->bytes : (double)fare_limit(rank);
    double mark = (double)(scales->shared ? rank->device_used_bytes : rank->planned_bytes);
    if (line.width > 1 && whole > 0 && rank->peak_bytes >= 0) {
        widget_bar(canvas, line, (double)rank->peak_bytes / whole, mark >= 0 ? mark / whole : -1,
                   STYLE_SERIES_2);
    }
}

static void draw_load(struct canvas *canvas, struct rect line, const struct event_rank *rank)
{
    char text[48] = "";
    size_t used = 0;
    if (isfinite(rank->gpu_util)) {
        used = (size_t)snprintf(text, sizeof(text), "%.0f%%", fmin(fmax(rank->gpu_util, 0), 999));
    }
    if (isfinite(rank->temperature_c)) {
        snprintf(text + used, sizeof(text) - used, " %.0f C",
                 fmin(fmax(rank->temperature_c, -99), 999));
    }
    canvas_text_right(canvas, line.x, line.y, line.width, STYLE_TEXT, text);
}

static void draw_rank(struct canvas *canvas, struct rect line, const struct event_ranks *ranks,
                      int p, const struct columns *columns, const struct scales *scales)
{
    const struct event_rank *rank = &ranks->item[p];
    bool slowest = p == scales->slowest && ranks->count > 1;
    char text[96];
    int x = line.x;
    snprintf(text, sizeof(text), "%d", p);
    canvas_put(canvas, x, line.y, slowest ? '*' : ' ', STYLE_WARN);
    canvas_text_right(canvas, x + 1, line.y, RANK - 2, slowest ? STYLE_WARN : STYLE_TEXT, text);
    x += RANK;
    canvas_text(canvas, x, line.y, columns->host - 1, STYLE_TEXT, rank->host);
    x += columns->host;
    if (columns->device > 0) {
        snprintf(text, sizeof(text), "%s", rank->device);
        if (isfinite(rank->gpu_util) && rank->local_rank >= 0) {
            snprintf(text, sizeof(text), "%d: %s", (int)rank->local_rank, rank->device);
        }
        canvas_text(canvas, x, line.y, columns->device - 1, STYLE_DIM, text);
        x += columns->device;
    }
    canvas_text_right(canvas, x, line.y, MS - 1, slowest ? STYLE_WARN : STYLE_TEXT,
                      text_count(rank->compute_ms).text);
    x += MS;
    canvas_text_right(canvas, x, line.y, MS - 1, STYLE_TEXT, text_count(rank->wait_ms).text);
    x += MS;
    draw_step(canvas, (struct rect){ x, line.y, columns->time, 1 }, rank, scales->step_ms);
    x += columns->time + (columns->time > 0);
    canvas_text_right(canvas, x, line.y, BYTES - 1, STYLE_TEXT,
                      text_bytes((double)rank->peak_bytes).text);
    x += BYTES;
    if (columns->limit > 0) {
        canvas_text_right(canvas, x, line.y, BYTES - 1, STYLE_DIM,
                          fare_limit(rank) > 0 ? text_bytes((double)fare_limit(rank)).text : "-");
        x += columns->limit;
    }
    draw_memory(canvas, (struct rect){ x, line.y, columns->memory, 1 }, rank, scales);
    x += columns->memory;
    if (columns->load > 0) {
        draw_load(canvas, (struct rect){ x, line.y, columns->load, 1 }, rank);
    }
}

/* What the times are means of, and what is exchanged. */
static void draw_means(const struct event_ranks *ranks, const struct fare *fare,
                       struct canvas *canvas, struct rect line)
{
    char text[160] = "";
    size_t used = 0;
    if (ranks->steps > 0) {
        used = (size_t)snprintf(text, sizeof(text), "means of %lld step%s", (long long)ranks->steps,
                                ranks->steps == 1 ? "" : "s");
    }
    if (fare->exchanged_bytes > 0) {
        snprintf(text + used, sizeof(text) - used, "%s%s exchanged in each", used ? ", " : "",
                 text_bytes((double)fare->exchanged_bytes).text);
    }
    canvas_text(canvas, line.x, line.y, line.width, STYLE_DIM, text);
}

void screen_ranks(const struct workbench *workbench, struct canvas *canvas, struct rect area)
{
    const struct event_ranks *ranks = history_ranks(&workbench->history);
    enum fare_order order = (enum fare_order)workbench->order;
    char note[64];
    struct fare fare;
    int count = ranks ? ranks->count : 0;
    int height = area.height - 5; /* lines of ranks */
    int first = workbench->scroll > count - height ? count - height : workbench->scroll;
    first = first < 0 ? 0 : first;
    int last = first + height < count ? first + height : count;
    snprintf(note, sizeof(note), "%s, %d-%d of %d", fare_order_names[order],
             count > 0 ? first + 1 : 0, last, count);
    struct rect inside = widget_box(canvas, area, "ranks", note, true);
    struct rect before = canvas_clip(canvas, inside);
    struct rect line = { inside.x + 1, inside.y, inside.width - 2, 1 };
    if (!ranks) {
        canvas_text(canvas, line.x, line.y, line.width, STYLE_DIM,
                    "nothing was said of ranks up to here");
        canvas_restore(canvas, before);
        return;
    }
    fare_of(ranks, &fare);
    char sentence[192];
    fare_sentence(ranks, line.width, sentence, sizeof(sentence));
    canvas_text(canvas, line.x, line.y++, line.width, STYLE_STRONG, sentence);
    draw_means(ranks, &fare, canvas, line);
    line.y++;
    struct columns columns = choose(ranks, line.width);
    struct scales scales = choose_scales(ranks, &fare);
    draw_head(canvas, line, &columns, &scales);
    int *number = xcalloc((size_t)count, sizeof(*number));
    fare_sort(ranks, order, number);
    for (int i = first; i < last; i++) {
        line.y++;
        draw_rank(canvas, line, ranks, number[i], &columns, &scales);
    }
    free(number);
    canvas_restore(canvas, before);
}
