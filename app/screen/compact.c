/* Too small for panes: the numbers that matter, and the keys that still work. */
#include <inttypes.h>
#include <math.h>

#include "app/layout.h"
#include "app/text.h"
#include "app/workbench.h"

static void compact_run(const struct workbench *workbench, struct canvas *canvas)
{
    const struct history *history = &workbench->history;
    int width = canvas->width;
    enum style style;
    const char *state = workbench_state(workbench, &style);
    canvas_text(canvas, 0, 0, width, style, state);
    canvas_printf(canvas, 0, 1, width, STYLE_TEXT, "step %" PRId64 "/%" PRId64, history->step,
                  history->start.start.total_steps);
    if (history->step > 0) {
        canvas_printf(canvas, 0, 2, width, STYLE_TEXT, "loss %s",
                      text_loss((double)history->last_step.loss).text);
        canvas_printf(canvas, 0, 3, width, STYLE_TEXT, "%s tok/s",
                      text_count(history->last_step.tokens_per_second).text);
    }
    if (history->memory_step >= 0) {
        canvas_printf(canvas, 0, 4, width, STYLE_TEXT, "mem %s",
                      text_bytes((double)history_total(history->memory.peak_bytes)).text);
    }
    if (isfinite(history_remaining(history))) {
        canvas_printf(canvas, 0, 5, width, STYLE_TEXT, "%s left",
                      text_duration(history_remaining(history)).text);
    }
}

void screen_compact(const struct workbench *workbench, struct canvas *canvas)
{
    int last = canvas->height - 1;
    if (workbench->overlay == OVERLAY_STOP) {
        canvas_text(canvas, 0, 0, canvas->width, STYLE_STRONG, "stop the run?");
        canvas_text(canvas, 0, 1, canvas->width, STYLE_TEXT, "s save and stop");
        canvas_text(canvas, 0, 2, canvas->width, STYLE_TEXT, "d leave, it goes on");
        canvas_text(canvas, 0, 3, canvas->width, STYLE_TEXT, "Esc go on");
        return;
    }
    if (workbench->mode == MODE_RUN) {
        compact_run(workbench, canvas);
    } else {
        canvas_text(canvas, 0, 0, canvas->width, STYLE_STRONG, "Windrow");
    }
    if (last >= 7) {
        canvas_printf(canvas, 0, last - 1, canvas->width, STYLE_DIM, "%dx%d: panes need %dx%d",
                      canvas->width, canvas->height, LAYOUT_WIDTH_MIN, LAYOUT_HEIGHT_MIN);
    }
    if (last >= 6) {
        canvas_text(canvas, 0, last, canvas->width, STYLE_TEXT,
                    workbench->mode == MODE_RUN ? "q leave p pause S stop" : "q leave Enter start");
    }
}
