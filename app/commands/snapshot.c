/* windrow snapshot: a screen of a run as text or as a picture, for documents. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "app/canvas_write.h"
#include "app/commands/command.h"
#include "app/commands/output.h"
#include "app/workbench.h"
#include "engine/base/text.h"
#include "engine/run.h"

enum { SIDE_MAX = 500 };

struct shot {
    struct workbench workbench;
    int64_t last_step; /* records of later steps are left out; 0: none */
};

static void take_record(void *context, struct event *event)
{
    struct shot *shot = context;
    bool late =
        shot->last_step > 0 && event->step != EVENT_UNKNOWN && event->step > shot->last_step;
    if (!late && (shot->last_step == 0 || event->kind != EVENT_STOP)) {
        workbench_event(&shot->workbench,
                        &(struct workbench_event){ .kind = WORKBENCH_RECORD, .record = event });
    }
}

/* "120x36" */
static int parse_size(const char *text, int *width, int *height, struct error *err)
{
    char *copy = xstrdup(text);
    char *rest = copy;
    const char *first = strsep(&rest, "x");
    int64_t w = 0;
    int64_t h = 0;
    bool good = rest != NULL && text_to_integer(first, &w) && text_to_integer(rest, &h) &&
                w >= 20 && h >= 5 && w <= SIDE_MAX && h <= SIDE_MAX;
    free(copy);
    if (!good) {
        return fail(err, ERROR_USAGE, "--size wants columns x lines, 20x5 to %dx%d, found \"%s\"",
                    (int)SIDE_MAX, (int)SIDE_MAX, text_show(text).text);
    }
    *width = (int)w;
    *height = (int)h;
    return 0;
}

static int choose(const struct arguments *arguments, const char *option, const char *const *names,
                  int count, int *out, struct error *err)
{
    const char *text = option_text(arguments, option);
    struct buffer list = { 0 };
    bool found = text == NULL;
    for (int i = 0; i < count; i++) {
        if (text != NULL && strcasecmp(text, names[i]) == 0) {
            *out = i;
            found = true;
        }
        buffer_printf(&list, "%s%s", i > 0 ? ", " : "", names[i]);
    }
    if (!found) {
        fail(err, ERROR_USAGE, "--%s must be one of %s, found \"%s\"", option, list.text,
             text_show(text).text);
    }
    buffer_free(&list);
    return found ? 0 : -1;
}

/* The screens, and behind them the page of all ranks. */
enum { SHOT_RANKS = SCREEN_COUNT, SHOT_COUNT };

struct request {
    int screen;
    int format;
    int ground;
    int glyphs;
    int width;
    int height;
};

static int parse(const struct arguments *arguments, struct request *request, struct shot *shot,
                 struct error *err)
{
    static const char *const formats[] = { "text", "svg" };
    static const char *const grounds[] = { "dark", "light" };
    const char *size = option_text(arguments, "size");
    const char *screens[SHOT_COUNT] = { [SHOT_RANKS] = "ranks" };
    memcpy(screens, screen_names, sizeof screen_names);
    *request = (struct request){ .width = 120, .height = 36, .glyphs = GLYPHS_BRAILLE };
    return choose(arguments, "screen", screens, SHOT_COUNT, &request->screen, err) != 0 ||
                   choose(arguments, "format", formats, 2, &request->format, err) != 0 ||
                   choose(arguments, "ground", grounds, 2, &request->ground, err) != 0 ||
                   choose(arguments, "glyphs", glyph_set_names, GLYPHS_COUNT, &request->glyphs,
                          err) != 0 ||
                   (size != NULL &&
                    parse_size(size, &request->width, &request->height, err) != 0) ||
                   option_integer(arguments, "step", 1, INT64_C(1) << 40, &shot->last_step, err) !=
                       0
               ? -1
               : 0;
}

static int draw(const char *run, const struct request *request, struct shot *shot,
                struct buffer *out, struct error *err)
{
    struct workbench *workbench = &shot->workbench;
    struct run_summary summary = { 0 };
    if (run_summary_read(run, &summary, err) != 0) {
        return -1;
    }
    workbench_show_run(workbench, summary.name, CONNECTION_NONE);
    int result = event_file_read(run, take_record, shot, err);
    if (result == 0) {
        struct canvas canvas;
        const char *status =
            shot->last_step > 0 ? "an earlier step" : run_status_names[summary.status];
        workbench_event(workbench,
                        &(struct workbench_event){ .kind = WORKBENCH_CONNECTION,
                                                   .link = { CONNECTION_NONE, status } });
        workbench_event(workbench,
                        &(struct workbench_event){ .kind = WORKBENCH_RESIZE,
                                                   .size = { request->width, request->height } });
        workbench_event(workbench, &(struct workbench_event){ .kind = WORKBENCH_TICK,
                                                              .now = workbench->history.time });
        workbench->ranks = request->screen == SHOT_RANKS;
        workbench->screen = workbench->ranks ? SCREEN_MEMORY : (enum screen)request->screen;
        canvas_open(&canvas, request->width, request->height, (enum glyph_set)request->glyphs);
        workbench_draw(workbench, &canvas);
        if (request->format == 1) {
            canvas_write_svg(&canvas, request->ground == 0, out);
        } else {
            canvas_write_text(&canvas, out);
        }
        canvas_close(&canvas);
    }
    run_summary_free(&summary);
    return result;
}

int command_snapshot(const struct arguments *arguments)
{
    struct error err = { 0 };
    struct shot shot = { 0 };
    struct request request;
    struct buffer out = { 0 };
    workbench_open(&shot.workbench);
    char *run = NULL;
    int code = 0;
    if (parse(arguments, &request, &shot, &err) != 0 ||
        (run = run_resolve(arguments->word[0], &err)) == NULL ||
        draw(run, &request, &shot, &out, &err) != 0) {
        code = output_error(&err);
    } else {
        output_bytes(out.text, out.size);
    }
    free(run);
    buffer_free(&out);
    workbench_close(&shot.workbench);
    return output_finish(code);
}
