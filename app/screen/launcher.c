/* Home: three lists, the plan of what is chosen, recent runs. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "app/layout.h"
#include "app/text.h"
#include "app/widget/widget.h"
#include "app/workbench.h"

static const char *const titles[LAUNCHER_LISTS] = { "1 model", "2 data", "3 preset" };

/* What a preset takes, where its plan is known. */
static void method_note(const struct launcher *launcher, int index, char *out, size_t size)
{
    int choice[LAUNCHER_LISTS];
    memcpy(choice, launcher->cursor, sizeof(choice));
    choice[LAUNCHER_METHOD] = index;
    const struct launcher_plan *plan = launcher_plan_of(launcher, choice);
    const struct launcher_item *item = &launcher->list[LAUNCHER_METHOD].item[index];
    if (!plan && item->model >= 0) {
        snprintf(out, size, "%s", item->note);
    } else if (!plan) {
        snprintf(out, size, "...");
    } else if (plan->total_bytes <= 0) {
        snprintf(out, size, "not possible");
    } else {
        snprintf(out, size, "%s%s", text_bytes((double)plan->total_bytes).text,
                 plan->ok ? "" : " !");
    }
}

static void draw_list(const struct workbench *workbench, struct canvas *canvas, struct rect area,
                      int which)
{
    const struct launcher *launcher = &workbench->launcher;
    const struct launcher_list *list = &launcher->list[which];
    bool focus = launcher->pane == which;
    struct rect inside =
        widget_box(canvas, area, titles[which], which == LAUNCHER_METHOD ? "memory" : NULL, focus);
    canvas_spot(canvas, area, TARGET_PANE, which);
    struct rect before = canvas_clip(canvas, inside);
    int cursor = launcher->cursor[which];
    int first = widget_scroll(cursor, list->count, inside.height);
    for (int i = first; i < list->count && i - first < inside.height; i++) {
        int y = inside.y + i - first;
        char note[48];
        snprintf(note, sizeof(note), "%s", list->item[i].note);
        if (which == LAUNCHER_METHOD) {
            method_note(launcher, i, note, sizeof(note));
        }
        int columns = text_columns(note);
        int room = inside.width - 3;
        if (columns + 8 > room) {
            columns = 0;
        }
        canvas_put(canvas, inside.x, y, i == cursor ? '>' : ' ', STYLE_STRONG);
        canvas_text(canvas, inside.x + 2, y, room - columns - (columns > 0), STYLE_TEXT,
                    list->item[i].name);
        canvas_text_right(canvas, inside.x + 2, y, room, STYLE_DIM, columns > 0 ? note : "");
        struct rect row = { inside.x, y, inside.width, 1 };
        canvas_spot(canvas, row, (enum target)(TARGET_MODEL + which), i);
        if (i == cursor) {
            canvas_restyle(canvas, row, focus ? STYLE_CURSOR : STYLE_STRONG);
        }
    }
    if (list->count == 0) {
        canvas_text(canvas, inside.x + 1, inside.y, inside.width - 2, STYLE_DIM,
                    "none found; a adds a path");
    }
    canvas_restore(canvas, before);
}

static void plan_bar(struct canvas *canvas, struct rect area, const struct launcher_plan *plan,
                     double scale)
{
    static const char letters[] = "WGOAT";
    static const enum style styles[] = { STYLE_SERIES_1, STYLE_SERIES_2, STYLE_SERIES_3,
                                         STYLE_SERIES_4, STYLE_DIM };
    double sum = 0;
    int at = 0;
    for (int i = 0; i < MEMORY_CATEGORY_COUNT && scale > 0; i++) {
        sum += (double)plan->bytes[i];
        int to = (int)lround(sum / scale * area.width);
        for (; at < to && at < area.width; at++) {
            canvas_put(canvas, area.x + at, area.y, (uint32_t)letters[i], styles[i]);
        }
    }
}

/* The categories and the checkpoint, in two or three columns; returns the lines used. */
static int plan_numbers(struct canvas *canvas, struct rect line, const struct launcher_plan *plan)
{
    static const char letters[] = "WGOAT";
    int columns = line.width >= 75 ? 3 : 2;
    int width = line.width / columns;
    int number = width > 24 ? 14 : width - 10;
    for (int i = 0; i <= MEMORY_CATEGORY_COUNT; i++) {
        int x = line.x + (i % columns) * width;
        int y = line.y + i / columns;
        bool disk = i == MEMORY_CATEGORY_COUNT;
        enum style style = disk ? STYLE_DIM : STYLE_TEXT;
        int64_t bytes = disk ? plan->checkpoint_bytes : plan->bytes[i];
        canvas_printf(canvas, x, y, number, style, "%c %s", disk ? ' ' : letters[i],
                      disk ? "on disk" : memory_category_names[i]);
        canvas_text_right(canvas, x + number, y, 9, style, text_bytes((double)bytes).text);
    }
    return (MEMORY_CATEGORY_COUNT + columns) / columns;
}

static const struct launcher_plan *full_plan(const struct launcher *launcher)
{
    const struct launcher_list *list = &launcher->list[LAUNCHER_METHOD];
    int choice[LAUNCHER_LISTS];
    memcpy(choice, launcher->cursor, sizeof(choice));
    for (int i = 0; i < list->count; i++) {
        if (strcmp(list->item[i].name, "full") == 0) {
            choice[LAUNCHER_METHOD] = i;
            return launcher_plan_of(launcher, choice);
        }
    }
    return NULL;
}

/* Fits or does not, by how much. */
static int draw_verdict(struct canvas *canvas, struct rect line, const struct launcher_plan *plan)
{
    double total = (double)plan->total_bytes;
    double limit = (double)plan->limit_bytes;
    char fits[48] = "fits";
    if (plan->ranks > 1) {
        snprintf(fits, sizeof(fits), "each of %d ranks fits", plan->ranks);
    }
    if (!plan->ok && limit > 0) {
        return canvas_printf(canvas, line.x, line.y, line.width, STYLE_BAD,
                             "does not fit: %s too much for the %s of %s",
                             text_bytes(total - limit).text, text_bytes(limit).text, plan->device);
    }
    if (!plan->ok) {
        return canvas_printf(canvas, line.x, line.y, line.width, STYLE_BAD, "does not fit: %s",
                             plan->message);
    }
    if (limit > 0) {
        return canvas_printf(canvas, line.x, line.y, line.width, STYLE_GOOD,
                             "%s: %s of %s on %s, %.0f%% free", fits, text_bytes(total).text,
                             text_bytes(limit).text, plan->device, 100.0 - 100.0 * total / limit);
    }
    return canvas_printf(canvas, line.x, line.y, line.width, STYLE_TEXT, "takes %s on %s",
                         text_bytes(total).text, plan->device);
}

/* The cheapest change of a plan that does not fit. */
static void draw_changes(struct canvas *canvas, struct rect line, const struct launcher_plan *plan)
{
    if (plan->change_count == 0) {
        widget_paragraph(canvas, line, STYLE_DIM,
                         plan->detailed ? "no change of one setting makes it fit"
                                        : "looking for the cheapest change that fits ...");
        return;
    }
    for (int i = 0; i < plan->change_count && line.height > 0; i++) {
        const struct launcher_change *change = &plan->change[i];
        char cost[80];
        snprintf(cost, sizeof(cost), "takes %s, %+.0f%% time",
                 text_bytes((double)change->total_bytes).text, 100.0 * (change->time_factor - 1));
        if (i == 0) {
            canvas_text(canvas, line.x, line.y, 1, STYLE_KEY, "f");
        }
        int used = 2 + canvas_text(canvas, line.x + 2, line.y, line.width - 2, STYLE_STRONG,
                                   change->words);
        bool apart = used + 2 + text_columns(cost) > line.width && line.height > 1;
        if (apart) {
            line.y++;
            line.height--;
            used = 2;
        }
        canvas_text(canvas, line.x + used + 2, line.y, line.width - used - 2, STYLE_TEXT, cost);
        line.y++;
        line.height--;
    }
}

static void draw_bars(const struct launcher *launcher, struct canvas *canvas, struct rect *line,
                      const struct launcher_plan *plan)
{
    const struct launcher_plan *full = full_plan(launcher);
    double scale = fmax((double)plan->total_bytes, full ? (double)full->total_bytes : 0);
    struct rect bar = { line->x + 6, line->y, line->width - 16, 1 };
    canvas_text(canvas, line->x, line->y, 5, STYLE_STRONG, "this");
    plan_bar(canvas, bar, plan, scale);
    canvas_text_right(canvas, line->x, line->y++, line->width, STYLE_STRONG,
                      text_bytes((double)plan->total_bytes).text);
    if (full && full != plan && full->total_bytes > 0 && plan->ok) {
        bar.y = line->y;
        canvas_text(canvas, line->x, line->y, 5, STYLE_TEXT, "full");
        plan_bar(canvas, bar, full, scale);
        canvas_text_right(canvas, line->x, line->y++, line->width, STYLE_TEXT,
                          text_bytes((double)full->total_bytes).text);
    }
}

static void draw_plan(const struct workbench *workbench, struct canvas *canvas, struct rect area)
{
    const struct launcher *launcher = &workbench->launcher;
    const struct launcher_plan *plan = launcher_plan_of(launcher, launcher->cursor);
    struct rect inside = widget_box(canvas, area, "plan", plan ? plan->shape : NULL, false);
    struct rect before = canvas_clip(canvas, inside);
    struct rect line = { inside.x + 1, inside.y, inside.width - 2, 1 };
    int end = inside.y + inside.height;
    if (!plan) {
        canvas_text(canvas, line.x, line.y, line.width, STYLE_DIM,
                    launcher->list[0].count == 0 ? "nothing to plan" : "planning ...");
    } else if (plan->total_bytes <= 0) {
        line.height = inside.height;
        int used = widget_paragraph(canvas, line, STYLE_BAD, plan->message);
        line.y += used;
        line.height -= used;
        widget_paragraph(canvas, line, STYLE_TEXT, plan->hint);
    } else {
        draw_verdict(canvas, line, plan);
        line.y++;
        draw_bars(launcher, canvas, &line, plan);
        line.y += plan_numbers(canvas, line, plan);
        line.height = end - line.y;
        if (!plan->ok) {
            draw_changes(canvas, line, plan);
        } else if (line.height > 0) {
            char facts[240];
            char exchange[64] = "";
            if (plan->ranks > 1) {
                snprintf(exchange, sizeof(exchange), "; %s exchanged in it",
                         text_bytes(plan->exchanged_bytes).text);
            }
            snprintf(
                facts, sizeof(facts), "%s parameters, %s of them train; %s operations a step%s",
                text_count((double)plan->parameters).text, text_count((double)plan->trained).text,
                text_count(plan->step_flops).text, exchange);
            widget_paragraph(canvas, line, STYLE_DIM, facts);
        }
    }
    canvas_restore(canvas, before);
}

static void draw_run(const struct launcher_run *run, struct canvas *canvas, struct rect line)
{
    bool wide = line.width > 100;
    int x = line.x;
    int name = wide ? 36 : 28;
    canvas_text(canvas, x, line.y, name, STYLE_TEXT, run->name);
    x += name + 1;
    canvas_text(canvas, x, line.y, 8, STYLE_STRONG, run->status);
    x += 9;
    char steps[48];
    snprintf(steps, sizeof(steps), "%" PRId64 "/%" PRId64, run->step, run->total_steps);
    canvas_text_right(canvas, x, line.y, 11, STYLE_TEXT, steps);
    x += 12;
    canvas_printf(canvas, x, line.y, 12, STYLE_TEXT, "loss %s", text_loss(run->loss).text);
    x += 12;
    if (wide) {
        canvas_printf(canvas, x, line.y, 12, STYLE_TEXT, "%s/s",
                      text_count(run->tokens_per_second).text);
        x += 12;
    }
    canvas_text_right(canvas, x, line.y, 8, STYLE_TEXT, text_bytes((double)run->peak_bytes).text);
    x += 9;
    if (wide) {
        canvas_text(canvas, x, line.y, line.x + line.width - x, STYLE_DIM, run->what);
    }
}

static void draw_runs(const struct workbench *workbench, struct canvas *canvas, struct rect area)
{
    const struct launcher *launcher = &workbench->launcher;
    bool focus = launcher->pane == LAUNCHER_LISTS;
    char title[48];
    snprintf(title, sizeof(title), "4 runs (%d)", launcher->run_count);
    struct rect inside =
        widget_box(canvas, area, title, focus ? "Enter opens  r resumes  d removes" : "Tab", focus);
    canvas_spot(canvas, area, TARGET_PANE, LAUNCHER_LISTS);
    struct rect before = canvas_clip(canvas, inside);
    int first = widget_scroll(launcher->run_cursor, launcher->run_count, inside.height);
    for (int i = first; i < launcher->run_count && i - first < inside.height; i++) {
        struct rect line = { inside.x + 2, inside.y + i - first, inside.width - 3, 1 };
        draw_run(&launcher->run[i], canvas, line);
        canvas_spot(canvas, line, TARGET_RUN, i);
        if (focus && i == launcher->run_cursor) {
            canvas_put(canvas, inside.x, line.y, '>', STYLE_STRONG);
            canvas_restyle(canvas, (struct rect){ inside.x, line.y, inside.width, 1 },
                           STYLE_CURSOR);
        }
    }
    if (launcher->run_count == 0) {
        canvas_text(canvas, inside.x + 1, inside.y, inside.width - 2, STYLE_DIM,
                    "no runs yet: Enter starts the first");
    }
    canvas_restore(canvas, before);
}

void screen_launcher(const struct workbench *workbench, struct canvas *canvas, struct rect body)
{
    bool runs = workbench->launcher.pane == LAUNCHER_LISTS;
    struct layout_launcher layout = layout_launcher(body, runs);
    for (int i = 0; i < LAUNCHER_LISTS; i++) {
        draw_list(workbench, canvas, layout.list[i], i);
    }
    draw_plan(workbench, canvas, layout.plan);
    if (layout.detail.height > 0) {
        screen_choice(workbench, canvas, layout.detail, layout.runs.height == 0);
    }
    if (layout.runs.height > 0) {
        draw_runs(workbench, canvas, layout.runs);
    }
}
