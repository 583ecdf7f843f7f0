/* Memory: the bytes of every category over one step, what is alive at the peak, and what changes
 * would take. */
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

/* ---- the timeline
 * --------------------------------------------------------------------------------
 */

/* Milliseconds of a phase in the last step; NaN if it was not measured. */
static double phase_ms(const struct event_step *step, const char *name)
{
    double ms = strcmp(name, "forward") == 0    ? step->forward_ms
                : strcmp(name, "backward") == 0 ? step->backward_ms
                : strcmp(name, "refresh") == 0  ? step->refresh_ms
                : strcmp(name, "update") == 0   ? step->update_ms
                                                : (double)NAN;
    return ms > 0 && isfinite(ms) ? ms : (double)NAN;
}

struct span {
    int phase;
    int begin; /* columns of the chart */
    int end;
};

/* Phases side by side, each as wide as it is long, but wide enough for its name. */
static int lay_out(const struct workbench *workbench, int width,
                   struct span span[EVENT_PHASE_COUNT])
{
    const struct event_plan *plan = &workbench->history.plan;
    double ms[EVENT_PHASE_COUNT];
    double sum = 0;
    int count = 0;
    for (int i = 0; i < plan->phase_count; i++) {
        if (history_total(plan->phase[i].bytes) > 0) {
            span[count].phase = i;
            ms[count] = phase_ms(&workbench->history.last_step, plan->phase[i].name);
            sum += isfinite(ms[count]) ? ms[count] : 0;
            count++;
        }
    }
    if (count == 0 || width < count) {
        return 0;
    }
    int least = width / count < 9 ? width / count : 9;
    int rest = width - least * count;
    double used = 0;
    int at = 0;
    for (int i = 0; i < count; i++) {
        used += sum > 0 ? (isfinite(ms[i]) ? ms[i] / sum : 0) : 1.0 / count;
        span[i].begin = at;
        at = least * (i + 1) + (int)lround(used * rest);
        span[i].end = at > width ? width : at;
    }
    return count;
}

/* The category at a height of the stack; -1: above it. */
static int category_at(const int64_t bytes[MEMORY_CATEGORY_COUNT], double height)
{
    double sum = 0;
    for (int i = 0; i < MEMORY_CATEGORY_COUNT; i++) {
        sum += (double)(bytes[i] > 0 ? bytes[i] : 0);
        if (height < sum) {
            return i;
        }
    }
    return -1;
}

static void draw_stack(struct canvas *canvas, struct rect chart, const struct span *span,
                       const int64_t bytes[MEMORY_CATEGORY_COUNT], double scale)
{
    for (int row = 0; row < chart.height; row++) {
        double height = ((double)chart.height - 1 - row + 0.5) / chart.height * scale;
        int category = category_at(bytes, height);
        for (int x = span->begin; category >= 0 && x < span->end - 1; x++) {
            canvas_put(canvas, chart.x + x, chart.y + row, (uint32_t)letters[category],
                       styles[category]);
        }
    }
}

static void draw_timeline(const struct workbench *workbench, struct canvas *canvas,
                          struct rect area)
{
    const struct event_plan *plan = &workbench->history.plan;
    struct rect inside =
        widget_box(canvas, area, "one step, planned bytes by phase",
                   "W weights G gradients O optimizer A activations T workspace", true);
    struct rect before = canvas_clip(canvas, inside);
    struct rect chart = { inside.x + 10, inside.y + 1, inside.width - 11, inside.height - 3 };
    struct span span[EVENT_PHASE_COUNT];
    int count = lay_out(workbench, chart.width, span);
    double scale = 0;
    int peak = 0;
    for (int i = 0; i < count; i++) {
        double total = (double)history_total(plan->phase[span[i].phase].bytes);
        peak = total > scale ? i : peak;
        scale = fmax(scale, total);
    }
    if (count == 0 || chart.height < 1) {
        canvas_text(canvas, inside.x + 1, inside.y, inside.width - 2, STYLE_DIM, "not planned yet");
        canvas_restore(canvas, before);
        return;
    }
    canvas_printf(canvas, inside.x + 1, inside.y, inside.width - 2, STYLE_STRONG,
                  "highest in %s: at most %s alive at once, in regions of %s",
                  plan->phase[span[peak].phase].name, text_bytes((double)plan->peak_bytes).text,
                  text_bytes((double)plan->total_bytes).text);
    canvas_text_right(canvas, inside.x, chart.y, 9, STYLE_DIM, text_bytes(scale).text);
    canvas_text_right(canvas, inside.x, chart.y + chart.height - 1, 9, STYLE_DIM, "0");
    for (int i = 0; i < count; i++) {
        int x = chart.x + span[i].begin;
        int width = span[i].end - span[i].begin - 1;
        int y = chart.y + chart.height;
        const int64_t *bytes = plan->phase[span[i].phase].bytes;
        double ms = phase_ms(&workbench->history.last_step, plan->phase[span[i].phase].name);
        draw_stack(canvas, chart, &span[i], bytes, scale);
        int used = canvas_text(canvas, x, y, width, i == peak ? STYLE_STRONG : STYLE_TEXT,
                               plan->phase[span[i].phase].name);
        if (isfinite(ms) && width > used + 10) {
            canvas_printf(canvas, x + used + 1, y, width - used - 1, STYLE_DIM, "%s ms",
                          text_count(ms).text);
        }
        canvas_text(canvas, x, y + 1, width, i == peak ? STYLE_STRONG : STYLE_DIM,
                    text_bytes((double)history_total(bytes)).text);
    }
    canvas_restore(canvas, before);
}

/* ---- tensors
 * -------------------------------------------------------------------------------------
 */

static void shape_text(const struct memory_record *record, char *out, size_t size)
{
    size_t used = 0;
    out[0] = '\0';
    for (int i = 0; i < record->rank && used + 24 < size; i++) {
        used +=
            (size_t)snprintf(out + used, size - used, "%s%" PRId64, i ? "x" : "", record->dim[i]);
    }
    snprintf(out + used, size - used, " %s", dtype_name(record->dtype));
}

static void draw_tensors(const struct workbench *workbench, struct canvas *canvas, struct rect area)
{
    const struct event_plan *plan = &workbench->history.plan;
    char note[64] = "";
    double sum = 0;
    for (int i = 0; i < plan->largest_count; i++) {
        sum += (double)plan->largest[i].bytes;
    }
    if (plan->largest_count > 0) {
        snprintf(note, sizeof(note), "%d with %s", plan->largest_count, text_bytes(sum).text);
    }
    struct rect inside = widget_box(canvas, area, "largest at the peak", note, false);
    struct rect before = canvas_clip(canvas, inside);
    int first = workbench->scroll;
    first =
        first > plan->largest_count - inside.height ? plan->largest_count - inside.height : first;
    first = first < 0 ? 0 : first;
    for (int i = first; i < plan->largest_count && i - first < inside.height; i++) {
        const struct memory_record *record = &plan->largest[i];
        int y = inside.y + i - first;
        bool known = (unsigned)record->category < MEMORY_CATEGORY_COUNT;
        char shape[64];
        shape_text(record, shape, sizeof(shape));
        int columns = text_columns(shape);
        int room = inside.width - 14;
        bool both = room - columns - 1 >= text_columns(record->name) || inside.width > 70;
        canvas_text_right(canvas, inside.x + 1, y, 8, STYLE_TEXT,
                          text_bytes((double)record->bytes).text);
        canvas_put(canvas, inside.x + 10, y, (uint32_t)(known ? letters[record->category] : '?'),
                   known ? styles[record->category] : STYLE_TEXT);
        canvas_text(canvas, inside.x + 12, y, both ? room - columns : room + 1, STYLE_TEXT,
                    record->name);
        if (both) {
            canvas_text_right(canvas, inside.x + 12, y, inside.width - 13, STYLE_DIM, shape);
        }
    }
    if (plan->largest_count == 0) {
        canvas_text(canvas, inside.x + 1, inside.y, inside.width - 2, STYLE_DIM, "not planned yet");
    }
    canvas_restore(canvas, before);
}

/* ---- what a change would take
 * --------------------------------------------------------------------
 */

/* Without the section: "rank". */
static const char *short_key(const struct field *field)
{
    const char *dot = strrchr(field->key, '.');
    return dot ? dot + 1 : field->key;
}

/* Settings that change no byte share a line. */
static void draw_unmoved(const struct whatif *whatif, struct canvas *canvas, struct rect inside,
                         int y)
{
    char text[256] = "";
    size_t used = 0;
    const struct field *last = NULL;
    for (int i = 0; i < whatif->next; i++) {
        const struct whatif_row *row = &whatif->row[i];
        if (row->refusal[0] || row->bytes != row->bytes_now || row->field == last) {
            continue;
        }
        used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%s", used ? ", " : "",
                                 short_key(row->field));
        used = used < sizeof(text) ? used : sizeof(text) - 1;
        last = row->field;
    }
    if (used > 0) {
        canvas_printf(canvas, inside.x + 1, y, inside.width - 2, STYLE_DIM, "no change: %s", text);
    }
}

static void draw_what_if(const struct workbench *workbench, struct canvas *canvas, struct rect area)
{
    const struct whatif *whatif = &workbench->whatif;
    char note[48] = "";
    if (whatif->count > 0) {
        snprintf(note, sizeof(note), "%d of %d, step %" PRId64, whatif->next, whatif->count,
                 whatif->step);
    }
    struct rect inside = widget_box(canvas, area, "what if", note, false);
    struct rect before = canvas_clip(canvas, inside);
    int y = inside.y;
    if (whatif->count == 0) {
        canvas_text(canvas, inside.x + 1, y, inside.width - 2, STYLE_DIM,
                    workbench_live(workbench) ? "w asks the run what each live change would take"
                                              : "only a run that is running can be asked");
    }
    for (int i = 0; i < whatif->next && y < inside.y + inside.height; i++) {
        const struct whatif_row *row = &whatif->row[i];
        double change = (double)row->bytes - (double)row->bytes_now;
        if (!row->refusal[0] && (row->bytes < 0 || change == 0)) {
            continue;
        }
        int used = canvas_printf(canvas, inside.x + 1, y, inside.width - 2, STYLE_TEXT, "%s=%s",
                                 short_key(row->field), row->value);
        int x = inside.x + 2 + (used > 12 ? used : 12);
        int room = inside.x + inside.width - 1 - x;
        if (row->refusal[0]) {
            canvas_text(canvas, x, y, room, STYLE_BAD, row->refusal);
        } else {
            canvas_printf(canvas, x, y, room, STYLE_STRONG, "%s%s -> %s", change < 0 ? "-" : "+",
                          text_bytes(fabs(change)).text, text_bytes((double)row->bytes).text);
        }
        y++;
    }
    draw_unmoved(whatif, canvas, inside, y);
    canvas_restore(canvas, before);
}

void screen_memory(const struct workbench *workbench, struct canvas *canvas, struct rect body)
{
    struct rect rows[2];
    struct rect columns[2];
    struct rect right[2];
    if (workbench->ranks) {
        screen_ranks(workbench, canvas, body);
        return;
    }
    layout_rows(body, 45, rows);
    layout_columns(rows[1], 48, columns);
    draw_timeline(workbench, canvas, rows[0]);
    screen_memory_table(workbench, canvas, columns[0]);
    layout_rows(columns[1], 50, right);
    if (columns[1].height >= 16) {
        draw_tensors(workbench, canvas, right[0]);
        draw_what_if(workbench, canvas, right[1]);
    } else if (workbench->asked) {
        draw_what_if(workbench, canvas, columns[1]);
    } else {
        draw_tensors(workbench, canvas, columns[1]);
    }
}
