/* Samples and Log: texts of the model, and everything that happened. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "app/text.h"
#include "app/widget/widget.h"
#include "app/workbench.h"

/* Draws wrapped text from row `y` on, skipping `*skip` rows first; the next free row. */
static int wrapped(struct canvas *canvas, struct rect inside, int y, int *skip, enum style style,
                   const char *text)
{
    size_t size = strlen(text);
    for (size_t at = 0; at < size && y < inside.y + inside.height;) {
        size_t next = 0;
        size_t length = text_wrap(text + at, size - at, inside.width - 2, &next);
        if (*skip > 0) {
            (*skip)--;
        } else {
            canvas_text_size(canvas, (struct rect){ inside.x + 1, y++, inside.width - 2, 1 }, style,
                             text + at, length);
        }
        at += next > 0 ? next : size;
    }
    return y;
}

void screen_samples(const struct workbench *workbench, struct canvas *canvas, struct rect body)
{
    const struct history *history = &workbench->history;
    char note[48];
    snprintf(note, sizeof(note), "%zu, newest first", history->sample_count);
    struct rect inside = widget_box(canvas, body, "samples", note, true);
    struct rect before = canvas_clip(canvas, inside);
    int y = inside.y;
    int skip = workbench->scroll;
    if (history->sample_count == 0) {
        canvas_text(canvas, inside.x + 1, y, inside.width - 2, STYLE_DIM,
                    workbench_live(workbench) ? "none yet: r lets the model write one"
                                              : "none in this recording");
    }
    for (size_t i = history->sample_count; i > 0 && y < inside.y + inside.height; i--) {
        const struct history_sample *sample = &history->sample[i - 1];
        if (skip > 0) {
            skip--;
        } else {
            canvas_printf(canvas, inside.x + 1, y++, inside.width - 2, STYLE_STRONG,
                          "step %" PRId64 "  prompt: %.200s", sample->step,
                          sample->prompt[0] ? sample->prompt : "(empty)");
        }
        y = wrapped(canvas, inside, y, &skip, STYLE_TEXT, sample->text);
        y++;
    }
    canvas_restore(canvas, before);
}

void screen_log(const struct workbench *workbench, struct canvas *canvas, struct rect body)
{
    const struct history *history = &workbench->history;
    char note[96];
    snprintf(note, sizeof(note), "%s, newest first; warnings %" PRId64 ", errors %" PRId64,
             workbench->serious ? "serious only" : "all", history->warnings, history->errors);
    struct rect inside = widget_box(canvas, body, "log", note, true);
    struct rect before = canvas_clip(canvas, inside);
    int y = inside.y;
    int skip = workbench->scroll;
    for (size_t i = 0; y < inside.y + inside.height; i++) {
        const struct history_line *line = history_line_at(history, i);
        if (!line) {
            break;
        }
        bool serious =
            line->kind == EVENT_WARNING || line->kind == EVENT_ERROR || line->kind == EVENT_STEP;
        if ((workbench->serious && !serious) || skip-- > 0) {
            continue;
        }
        struct history_text said = history_line_text(history, line, false);
        canvas_text(canvas, inside.x + 1, y, 8, STYLE_DIM, text_clock(line->time).text);
        if (line->step >= 0) {
            char step[24];
            snprintf(step, sizeof(step), "%" PRId64, line->step);
            canvas_text_right(canvas, inside.x + 10, y, 8, STYLE_DIM, step);
        }
        canvas_text(canvas, inside.x + 20, y, inside.width - 21,
                    line->kind == EVENT_WARNING ? STYLE_WARN
                    : serious                   ? STYLE_BAD
                                                : STYLE_TEXT,
                    said.text);
        y++;
    }
    canvas_restore(canvas, before);
}
