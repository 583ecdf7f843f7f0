/* The dashboard's panes about speed: tokens a second, where the time of a step goes, what the
 * device does, the size of gradients; and the sentence about what the run does now. */
#include "app/screen/speed.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "app/fare.h"
#include "app/plot.h"
#include "app/text.h"
#include "app/widget/widget.h"

/* ---- where the time goes
 * -------------------------------------------------------------------------
 */

enum { PARTS = 8, BREAKDOWN_STEPS = 100 };

static const struct {
    const char *name;
    char letter;
    enum style style;
} parts[PARTS] = {
    { "forward", 'F', STYLE_SERIES_1 }, { "backward", 'B', STYLE_SERIES_2 },
    { "refresh", 'R', STYLE_SERIES_3 }, { "update", 'U', STYLE_SERIES_4 },
    { "data", 'D', STYLE_TEXT },        { "stall", 'S', STYLE_BAD },
    { "exchange", 'X', STYLE_WARN },    { "other", '.', STYLE_DIM },
};

static double known(float ms)
{
    return ms > 0 && isfinite(ms) ? (double)ms : 0;
}

/* Shares of the time of the last hundred steps; false if there is none. Waiting for offloaded
 * activations happens within the backward pass and is taken out of it. */
static bool breakdown(const struct history *history, double share[PARTS])
{
    double sum[PARTS] = { 0 };
    double whole = 0;
    int count = 0;
    for (int64_t at = history->step; at >= 1 && count < BREAKDOWN_STEPS; at--) {
        const struct history_step *step = &history->steps[at - 1];
        if (step->time == 0) {
            continue;
        }
        count++;
        sum[0] += known(step->forward_ms);
        sum[1] += known(step->backward_ms);
        sum[2] += known(step->refresh_ms);
        sum[3] += known(step->update_ms);
        sum[4] += known(step->data_ms);
        sum[5] += known(step->stall_ms);
        sum[6] += known(step->exchange_ms);
        whole += known(step->step_ms);
    }
    double inner = fmin(sum[5], sum[1]);
    sum[1] -= inner;
    double told = 0;
    for (int i = 0; i < PARTS - 1; i++) {
        told += sum[i];
    }
    whole = fmax(whole, told);
    sum[PARTS - 1] = whole - told;
    for (int i = 0; i < PARTS; i++) {
        share[i] = whole > 0 ? sum[i] / whole : 0;
    }
    return told > 0;
}

static void draw_parts(struct canvas *canvas, struct rect line, const double share[PARTS])
{
    double sum = 0;
    int at = 0;
    for (int i = 0; i < PARTS; i++) {
        sum += share[i];
        int to = (int)lround(sum * line.width);
        for (; at < to && at < line.width; at++) {
            canvas_put(canvas, line.x + at, line.y, (uint32_t)(unsigned char)parts[i].letter,
                       parts[i].style);
        }
    }
}

/* "forward 31%, backward 55%" or "F31 B55 %", the largest first, as many as fit. */
static void name_parts(struct canvas *canvas, struct rect line, const double share[PARTS])
{
    char text[160];
    size_t used = 0;
    bool done[PARTS] = { false };
    bool wide = line.width > 36;
    text[0] = '\0';
    for (int round = 0; round < PARTS; round++) {
        int best = -1;
        for (int i = 0; i < PARTS; i++) {
            best = !done[i] && (best < 0 || share[i] > share[best]) ? i : best;
        }
        done[best] = true;
        char one[32];
        if (share[best] < 0.005) {
            break;
        }
        if (wide) {
            snprintf(one, sizeof(one), "%s%s %.0f%%", used ? ", " : "", parts[best].name,
                     100 * share[best]);
        } else {
            snprintf(one, sizeof(one), "%s%c%.0f", used ? " " : "", parts[best].letter,
                     100 * share[best]);
        }
        if (used + strlen(one) + (wide ? 0 : 2) > (size_t)(line.width > 0 ? line.width : 0) ||
            used + strlen(one) >= sizeof(text)) {
            break;
        }
        memcpy(text + used, one, strlen(one) + 1);
        used += strlen(one);
    }
    canvas_printf(canvas, line.x, line.y, line.width, STYLE_TEXT, "%s%s", text,
                  wide || used == 0 ? "" : " %");
}

/* ---- throughput --------------------------------------------------------------------------------
 */

static void spark(struct canvas *canvas, struct rect area, const struct series *series,
                  int64_t last)
{
    if (area.height < 1 || area.width < 4) {
        return;
    }
    struct plot plot;
    plot_begin(&plot, canvas, area);
    int64_t first = last - (int64_t)area.width * plot.dots_x + 1;
    first = first < 1 ? 1 : first;
    struct series_range range = series_look(series, first, last);
    double low = range.minimum > 0 ? 0 : range.minimum;
    plot_range(&plot, low, range.maximum, false);
    plot_steps(&plot, first, first + (int64_t)area.width * plot.dots_x - 1);
    plot_line(&plot, series, STYLE_SERIES_1, '-');
    plot_end(&plot);
}

/* A line of what the device does, or the processor where there is no device to ask. */
static void device_line(const struct event_telemetry *now, struct canvas *canvas, struct rect line)
{
    bool gpu = isfinite(now->gpu_util) || isfinite(now->power_w);
    double share = gpu ? now->gpu_util / 100 : (double)NAN;
    char numbers[64];
    size_t used = 0;
    numbers[0] = '\0';
    if (gpu) {
        if (isfinite(now->power_w)) {
            used += (size_t)snprintf(numbers, sizeof(numbers), " %.0f W", now->power_w);
        }
        if (isfinite(now->temperature_c)) {
            snprintf(numbers + used, sizeof(numbers) - used, " %.0f C", now->temperature_c);
        }
    } else if (now->host_bytes > 0) {
        snprintf(numbers, sizeof(numbers), " %s", text_bytes((double)now->host_bytes).text);
    }
    double percent = gpu ? now->gpu_util : now->cpu_percent;
    char label[24] = "";
    if (isfinite(percent)) {
        snprintf(label, sizeof(label), " %.0f%%", fmin(fmax(percent, 0), 99999));
    }
    int x = line.x;
    x += canvas_printf(canvas, x, line.y, line.width, STYLE_TEXT, "%s%s", gpu ? "GPU" : "CPU",
                       label);
    int room = line.x + line.width - x - text_columns(numbers) - 2;
    if (isfinite(share) && room >= 6) {
        widget_bar(canvas, (struct rect){ x + 1, line.y, room, 1 }, share, -1, STYLE_SERIES_1);
        x += room + 1;
    }
    canvas_text(canvas, x, line.y, line.x + line.width - x, STYLE_TEXT, numbers);
}

/* The clock and the memory of the device, where it has told them. */
static void clock_line(const struct event_telemetry *now, struct canvas *canvas, struct rect line)
{
    int x = line.x;
    if (isfinite(now->clock_mhz)) {
        x += canvas_printf(canvas, x, line.y, line.width, STYLE_DIM, "%.0f MHz  ", now->clock_mhz);
    }
    if (now->device_used_bytes > 0) {
        canvas_printf(canvas, x, line.y, line.x + line.width - x, STYLE_DIM, "%s of %s in use",
                      text_bytes((double)now->device_used_bytes).text,
                      text_bytes((double)now->device_total_bytes).text);
    }
}

void screen_speed(const struct workbench *workbench, struct canvas *canvas, struct rect area)
{
    const struct history *history = &workbench->history;
    const struct event_step *step = &history->last_step;
    struct rect inside = widget_box(canvas, area, "speed", "tok/s", false);
    struct rect before = canvas_clip(canvas, inside);
    int x = inside.x + 1;
    int width = inside.width - 2;
    if (history->step == 0) {
        canvas_text(canvas, x, inside.y, width, STYLE_DIM, "no step yet");
        canvas_restore(canvas, before);
        return;
    }
    struct series_range range =
        series_look(&history->tokens_per_second, 1, (int64_t)history->tokens_per_second.count);
    double share[PARTS];
    bool parted = breakdown(history, share);
    bool telemetry = history->telemetry_seen && inside.height >= 5;
    bool gpu = telemetry && isfinite(history->telemetry.gpu_util) && inside.height >= 9;
    const struct event_ranks *fare = inside.height >= 6 ? history_ranks(history) : NULL;
    int lines = 1 + 2 * parted + telemetry + gpu + (fare != NULL);
    canvas_printf(canvas, x, inside.y, width, STYLE_TEXT,
                  width < 26 ? "%s, mean %s" : "%s tok/s, mean %s",
                  text_count(step->tokens_per_second).text, text_count(range.mean).text);
    spark(canvas, (struct rect){ x, inside.y + 1, width, inside.height - 1 - lines },
          &history->tokens_per_second, history->step);
    int y = inside.y + inside.height - lines;
    int used = canvas_printf(canvas, x, y, width, STYLE_TEXT, "step %s ms",
                             text_count(step->step_ms).text);
    if (isfinite(step->mfu)) {
        used += canvas_printf(canvas, x + used, y, width - used, STYLE_TEXT, "  MFU %.0f%%",
                              100 * step->mfu);
    }
    if (width - used > 20) {
        canvas_printf(canvas, x + used, y, width - used, STYLE_DIM, "  %s tokens in all",
                      text_count((double)step->tokens_total).text);
    }
    y++;
    if (parted) {
        draw_parts(canvas, (struct rect){ x, y++, width, 1 }, share);
        name_parts(canvas, (struct rect){ x, y++, width, 1 }, share);
    }
    if (telemetry) {
        device_line(&history->telemetry, canvas, (struct rect){ x, y++, width, 1 });
    }
    if (gpu) {
        clock_line(&history->telemetry, canvas, (struct rect){ x, y++, width, 1 });
    }
    if (fare) {
        char text[192];
        fare_sentence(fare, width, text, sizeof(text));
        canvas_text(canvas, x, y, width, STYLE_TEXT, text);
    }
    canvas_restore(canvas, before);
}

/* ---- gradients
 * -----------------------------------------------------------------------------------
 */

static void draw_series(const struct workbench *workbench, struct canvas *canvas, struct rect area,
                        const struct series *series, const char *label)
{
    int64_t first;
    int64_t last;
    struct plot plot;
    workbench_window(workbench, &first, &last);
    struct series_range range = series_look(series, first, last);
    canvas_printf(canvas, area.x, area.y, area.width, STYLE_TEXT, "%s %s", label,
                  text_value((double)series_at(series, workbench->history.step)).text);
    char text[80];
    snprintf(text, sizeof(text), "%s .. %s", text_value(range.minimum).text,
             text_value(range.maximum).text);
    canvas_text_right(canvas, area.x + area.width / 2, area.y, area.width - area.width / 2,
                      STYLE_DIM, text);
    plot_begin(&plot, canvas, (struct rect){ area.x, area.y + 1, area.width, area.height - 1 });
    plot_range(&plot, range.minimum, range.maximum, range.minimum > 0 && !workbench->linear);
    plot_steps(&plot, first, last);
    plot_band(&plot, series, STYLE_RAW);
    plot_line(&plot, series, STYLE_SERIES_1, '*');
    plot_end(&plot);
}

void screen_gradient(const struct workbench *workbench, struct canvas *canvas, struct rect area)
{
    const struct history *history = &workbench->history;
    struct rect inside = widget_box(canvas, area, "gradient", NULL, false);
    struct rect before = canvas_clip(canvas, inside);
    struct rect half = { inside.x + 1, inside.y, inside.width - 2, inside.height / 2 };
    if (history->step == 0) {
        canvas_text(canvas, half.x, half.y, half.width, STYLE_DIM, "no step yet");
    } else {
        draw_series(workbench, canvas, half, &history->grad_norm, "norm");
        half.y += half.height;
        half.height = inside.height - half.height;
        draw_series(workbench, canvas, half, &history->learning_rate, "learning rate");
    }
    canvas_restore(canvas, before);
}

/* ---- now
 * -----------------------------------------------------------------------------------------
 */

static size_t add_next(const struct history *history, enum event_kind kind, const char *word,
                       char *out, size_t size)
{
    int64_t next = history_next(history, kind);
    double seconds = history_step_seconds(history) * (double)(next - history->step);
    if (next == 0) {
        return 0;
    }
    int used = isfinite(seconds) ? snprintf(out, size, ", %s at %" PRId64 " (%s)", word, next,
                                            text_duration(seconds).text)
                                 : snprintf(out, size, ", %s at %" PRId64, word, next);
    return used < 0 ? 0 : (size_t)used >= size ? size - 1 : (size_t)used;
}

bool screen_now(const struct workbench *workbench, char *out, size_t size)
{
    static const struct {
        enum event_kind kind;
        const char *word;
        const char *state;
    } next[] = { { EVENT_SELECTION, "refresh", "" },
                 { EVENT_EVALUATION, "evaluation", "evaluating" },
                 { EVENT_CHECKPOINT, "checkpoint", "saving" },
                 { EVENT_SAMPLE, "sample", "sampling" } };
    const struct history *history = &workbench->history;
    if (history->stopped || history->step == 0 || history->start.start.total_steps == 0) {
        return false;
    }
    for (size_t i = 1; i < sizeof(next) / sizeof(next[0]); i++) {
        if (strcmp(history->state, next[i].state) == 0) {
            double usual = history_pause_seconds(history, next[i].kind);
            snprintf(out, size, "%s after step %" PRId64 "%s%s", history->state, history->step,
                     isfinite(usual) ? "; takes about " : "",
                     isfinite(usual) ? text_duration(usual).text : "");
            return true;
        }
    }
    if (strcmp(history->state, "running") != 0 ||
        history->step >= history->start.start.total_steps) {
        return false;
    }
    size_t used = (size_t)snprintf(out, size, "training step %" PRId64, history->step + 1);
    for (size_t i = 0; i < sizeof(next) / sizeof(next[0]) && used < size; i++) {
        used += add_next(history, next[i].kind, next[i].word, out + used, size - used);
    }
    return true;
}
