/* Samples and Log: texts of the model, and everything that happened. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/layout.h"
#include "app/text.h"
#include "app/widget/widget.h"
#include "app/workbench.h"
#include "engine/base/xalloc.h"

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

/* One generation in a column: its step, and its text wrapped. */
static void draw_generation(const struct workbench *workbench, struct canvas *canvas,
                            struct rect area, const struct history_sample *sample, bool first)
{
    char title[48];
    snprintf(title, sizeof(title), "step %" PRId64, sample->step);
    struct rect inside = widget_box(canvas, area, title, first ? "the first" : NULL, false);
    struct rect before = canvas_clip(canvas, inside);
    int skip = workbench->scroll;
    wrapped(canvas, inside, inside.y, &skip, STYLE_TEXT,
            sample->text[0] ? sample->text : "(nothing)");
    canvas_restore(canvas, before);
}

static void draw_prompts(const struct workbench *workbench, struct canvas *canvas, struct rect area,
                         const int *prompts, int count)
{
    const struct history *history = &workbench->history;
    char note[48];
    snprintf(note, sizeof(note), "%d, last used first", count);
    struct rect inside = widget_box(canvas, area, "prompts", note, true);
    struct rect before = canvas_clip(canvas, inside);
    int cursor = workbench->prompt < count ? workbench->prompt : count - 1;
    int first = widget_scroll(cursor, count, inside.height);
    if (count == 0) {
        canvas_text(canvas, inside.x + 1, inside.y, inside.width - 2, STYLE_DIM,
                    workbench_live(workbench)
                        ? "none yet: r lets the model write, e takes a prompt of yours"
                        : "none in this recording");
    }
    for (int i = first; i < count && i - first < inside.height; i++) {
        int y = inside.y + i - first;
        const char *prompt = history->sample[prompts[i]].prompt;
        int times = 0;
        for (size_t k = 0; k < history->sample_count; k++) {
            times += strcmp(history->sample[k].prompt, prompt) == 0;
        }
        canvas_printf(canvas, inside.x + 1, y, 5, STYLE_DIM, "%3dx", times);
        canvas_text(canvas, inside.x + 7, y, inside.width - 8, STYLE_TEXT,
                    prompt[0] ? prompt : "(empty)");
        canvas_spot(canvas, (struct rect){ inside.x, y, inside.width, 1 }, TARGET_PROMPT, i);
        if (i == cursor) {
            canvas_restyle(canvas, (struct rect){ inside.x, y, inside.width, 1 }, STYLE_CURSOR);
        }
    }
    canvas_restore(canvas, before);
}

/* The first generation of the prompt at the left, the newest ones beside it, oldest to newest. */
void screen_samples(const struct workbench *workbench, struct canvas *canvas, struct rect body)
{
    const struct history *history = &workbench->history;
    int prompts[SAMPLES_PROMPTS];
    int of_prompt[HISTORY_SAMPLES];
    int count = samples_prompts(history, prompts);
    int rows = count < 1 ? 1 : count > 6 ? 6 : count;
    int height = rows + 2 > body.height / 3 ? body.height / 3 : rows + 2;
    height = height < 3 ? 3 : height;
    draw_prompts(workbench, canvas, (struct rect){ body.x, body.y, body.width, height }, prompts,
                 count);
    struct rect rest = { body.x, body.y + height, body.width, body.height - height };
    if (count == 0 || rest.height < 2) {
        return;
    }
    int chosen = prompts[workbench->prompt < count ? workbench->prompt : count - 1];
    int found = 0;
    for (size_t i = 0; i < history->sample_count; i++) {
        if (strcmp(history->sample[i].prompt, history->sample[chosen].prompt) == 0) {
            of_prompt[found++] = (int)i;
        }
    }
    int columns = body.width >= 150 ? 4 : body.width >= 110 ? 3 : 2;
    columns = columns > found ? found : columns;
    struct rect column[4];
    layout_split(rest, columns, column);
    int back = workbench->generation > found - columns ? found - columns : workbench->generation;
    for (int i = 0; i < columns; i++) {
        int index = i == 0 && columns > 1 ? 0 : found - back - (columns - i);
        draw_generation(workbench, canvas, column[i], &history->sample[of_prompt[index]],
                        index == 0);
    }
}

/* Shows where the search found something. */
static void mark_match(struct canvas *canvas, struct rect inside, int y, const char *text,
                       const char *search)
{
    const char *at = log_match(text, search);
    if (at) {
        char *before = xstrndup(text, (size_t)(at - text));
        char *match = xstrndup(at, strlen(search));
        canvas_restyle(
            canvas,
            (struct rect){ inside.x + 20 + text_columns(before), y, text_columns(match), 1 },
            STYLE_CURSOR);
        free(before);
        free(match);
    }
}

void screen_log(const struct workbench *workbench, struct canvas *canvas, struct rect body)
{
    const struct history *history = &workbench->history;
    char note[160];
    char filter[48] = "";
    if (workbench->filter[0]) {
        snprintf(filter, sizeof(filter), "with \"%.24s\", ", workbench->filter);
    }
    snprintf(note, sizeof(note), "%s%s, newest first; warnings %" PRId64 ", errors %" PRId64,
             filter, workbench->serious ? "serious only" : "all", history->warnings,
             history->errors);
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
        if (!log_shows(workbench, line) || skip-- > 0) {
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
        mark_match(canvas, inside, y, said.text, workbench->search);
        y++;
    }
    canvas_restore(canvas, before);
}
