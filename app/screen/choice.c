/* What the launcher's cursor is on: a model, data with its first record, what a preset is for. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "app/text.h"
#include "app/widget/widget.h"
#include "app/workbench.h"

/* ---- data -------------------------------------------------------------------------------------
 */

/* Where text goes next. */
struct pen {
    struct canvas *canvas;
    struct rect area;
    int x;
    int y;
};

static void pen_glyph(struct pen *pen, const struct text_glyph *glyph, enum style style)
{
    for (int i = 0; i < glyph->count; i++) {
        if (glyph->width <= 0) {
            continue;
        }
        if (pen->x + glyph->width > pen->area.width) {
            pen->x = 0;
            pen->y++;
        }
        if (pen->y >= pen->area.height) {
            return;
        }
        if (glyph->width == 1) {
            canvas_put(pen->canvas, pen->area.x + pen->x, pen->area.y + pen->y, glyph->code[i],
                       glyph->odd ? STYLE_DIM : style);
        }
        pen->x += glyph->width;
    }
}

/* One character of the sample. Wide ones go through canvas_text, which keeps their two columns
 * together. */
static size_t pen_character(struct pen *pen, const char *text, size_t size, enum style style)
{
    struct text_glyph glyph;
    size_t used = text_next_glyph(text, size, &glyph);
    if (glyph.width == 2 && glyph.count > 0) {
        if (pen->x + 2 > pen->area.width) {
            pen->x = 0;
            pen->y++;
        }
        if (pen->y < pen->area.height) {
            struct rect at = { pen->area.x + pen->x, pen->area.y + pen->y, 2, 1 };
            canvas_text_size(pen->canvas, at, style, text, used);
        }
        pen->x += 2;
        return used;
    }
    if (pen->canvas->glyphs == GLYPHS_ASCII) {
        for (int i = 0; i < glyph.count; i++) {
            glyph.code[i] = glyph.code[i] < 0x7f ? glyph.code[i] : '?';
        }
    }
    pen_glyph(pen, &glyph, style);
    return used;
}

static void pen_mark(struct pen *pen, char mark)
{
    struct text_glyph glyph = { { (uint32_t)mark, 0 }, 1, 1, false };
    pen_glyph(pen, &glyph, STYLE_STRONG);
}

/* The record; what is trained stands between brackets, so that it can be told without colours. */
static void draw_sample(struct canvas *canvas, struct rect area,
                        const struct launcher_preview *preview)
{
    struct pen pen = { canvas, area, 0, 0 };
    bool records = preview->template_name[0] != '\0';
    bool before = false;
    size_t i = 0;
    while (i < preview->text_size && pen.y < area.height) {
        bool trained = preview->trained[i] != 0;
        if (records && trained != before) {
            pen_mark(&pen, trained ? '[' : ']');
        }
        before = trained;
        if (preview->text[i] == '\n') {
            /* The end of a line costs a sign here rather than a line of the few there are. */
            bool ascii = canvas->glyphs == GLYPHS_ASCII;
            struct text_glyph glyph = { { ascii ? '/' : 0x21b5, 0 }, 1, 1, false };
            pen_glyph(&pen, &glyph, STYLE_DIM);
            i++;
            continue;
        }
        i += pen_character(&pen, preview->text + i, preview->text_size - i,
                           trained ? STYLE_GOOD : STYLE_DIM);
    }
    if (records && before) {
        pen_mark(&pen, ']');
    }
}

static int draw_counts(struct canvas *canvas, struct rect line,
                       const struct launcher_preview *preview)
{
    char counts[320];
    bool part = preview->read_bytes < preview->total_bytes;
    double whole =
        part ? (double)preview->total_bytes / (double)(preview->read_bytes + 1) : 1; /* about */
    const char *about = part ? "about " : "";
    bool plain =
        preview->template_name[0] == '\0' || strcmp(preview->template_name, preview->format) == 0;
    double share =
        preview->tokens > 0 ? (double)preview->trained_tokens / (double)preview->tokens : 0;
    snprintf(counts, sizeof(counts), "%s%s%s, %s: %s%s rows of %" PRId64 ", %s tokens, %s trained",
             preview->format, plain ? "" : " as ", plain ? "" : preview->template_name,
             text_bytes((double)preview->total_bytes).text, about,
             text_count((double)preview->rows * whole).text, preview->sequence,
             text_count((double)preview->tokens * whole).text, text_percent(share).text);
    return widget_paragraph(canvas, line, STYLE_TEXT, counts);
}

static void draw_data(const struct launcher *launcher, struct canvas *canvas, struct rect area)
{
    const struct launcher_preview *preview = launcher_preview_now(launcher);
    if (!preview) {
        canvas_text(canvas, area.x, area.y, area.width, STYLE_DIM, "reading its beginning ...");
        return;
    }
    if (!preview->ok) {
        int used = widget_paragraph(canvas, area, STYLE_BAD, preview->message);
        area.y += used;
        area.height -= used;
        widget_paragraph(canvas, area, STYLE_TEXT, preview->hint);
        return;
    }
    int counts = draw_counts(canvas, (struct rect){ area.x, area.y, area.width, 2 }, preview);
    area.y += counts;
    area.height -= counts;
    if (preview->notice[0] && area.height > 3) {
        canvas_text(canvas, area.x, area.y, area.width, STYLE_WARN, preview->notice);
        area.y++;
        area.height--;
    }
    draw_sample(canvas, area, preview);
}

/* ---- the others -------------------------------------------------------------------------------
 */

static const struct launcher_item *item_now(const struct launcher *launcher, int list)
{
    int at = launcher->cursor[list];
    return at < launcher->list[list].count ? &launcher->list[list].item[at] : NULL;
}

static void draw_model(const struct launcher *launcher, struct canvas *canvas, struct rect area)
{
    const struct launcher_item *item = item_now(launcher, LAUNCHER_MODEL);
    const struct launcher_plan *plan = launcher_plan_of(launcher, launcher->cursor);
    if (!item) {
        return;
    }
    canvas_text(canvas, area.x, area.y, area.width, STYLE_STRONG, item->name);
    bool random = strcmp(item->note, "random") == 0;
    canvas_text(canvas, area.x, area.y + 1, area.width, STYLE_TEXT,
                random ? "an architecture with random weights: it learns from nothing"
                       : "trained weights: they are finetuned");
    area.y += 2;
    area.height -= 2;
    if (plan && plan->parameters > 0) {
        canvas_printf(canvas, area.x, area.y, area.width, STYLE_TEXT,
                      "%s parameters; a checkpoint of this training takes %s on disk",
                      text_count((double)plan->parameters).text,
                      text_bytes((double)plan->checkpoint_bytes).text);
        area.y++;
        area.height--;
    }
    widget_paragraph(canvas, area, STYLE_DIM, item->about ? item->about : "");
}

static void draw_preset(const struct launcher *launcher, struct canvas *canvas, struct rect area)
{
    const struct launcher_item *item = item_now(launcher, LAUNCHER_METHOD);
    if (!item) {
        return;
    }
    int used = canvas_text(canvas, area.x, area.y, area.width, STYLE_STRONG, item->name);
    if (item->model >= 0) {
        canvas_text(canvas, area.x + used, area.y, area.width - used, STYLE_DIM,
                    "  a recipe: takes its model and data along");
    }
    area.y++;
    area.height--;
    used = widget_paragraph(canvas, area, STYLE_TEXT, item->about ? item->about : "");
    area.y += used;
    area.height -= used;
    if (launcher->overrides[0] && area.height > 0) {
        canvas_printf(canvas, area.x, area.y, area.width, STYLE_WARN, "changed by you: %s",
                      launcher->overrides);
        area.y++;
        area.height--;
    }
    if (area.height > 0) {
        canvas_text(canvas, area.x, area.y, area.width, STYLE_DIM,
                    "e shows every setting, c the command line, w saves your own preset");
    }
}

static void draw_run(const struct launcher *launcher, struct canvas *canvas, struct rect area)
{
    if (launcher->run_cursor >= launcher->run_count) {
        return;
    }
    const struct launcher_run *run = &launcher->run[launcher->run_cursor];
    canvas_printf(canvas, area.x, area.y, area.width, STYLE_STRONG, "%s: %s", run->name,
                  run->status);
    canvas_text(canvas, area.x, area.y + 1, area.width, STYLE_TEXT, run->what);
    area.y += 2;
    area.height -= 2;
    widget_paragraph(canvas, area, STYLE_DIM, run->path);
}

void screen_choice(const struct workbench *workbench, struct canvas *canvas, struct rect area,
                   bool alone)
{
    static const char *const titles[] = { "this model", "first record", "this preset", "this run" };
    const struct launcher *launcher = &workbench->launcher;
    char note[64];
    int running = 0;
    for (int i = 0; i < launcher->run_count; i++) {
        running += strcmp(launcher->run[i].status, "running") == 0;
    }
    snprintf(note, sizeof(note), "runs: %d, %d running (Tab)", launcher->run_count, running);
    int pane = launcher->pane & 3;
    const struct launcher_preview *preview = launcher_preview_now(launcher);
    bool marked = pane == LAUNCHER_DATA && preview && preview->template_name[0];
    struct rect inside = widget_box(
        canvas, area, marked ? "first record, [trained] parts in brackets" : titles[pane],
        alone ? note : NULL, false);
    struct rect before = canvas_clip(canvas, inside);
    inside.x++;
    inside.width -= 2;
    if (pane == LAUNCHER_MODEL) {
        draw_model(launcher, canvas, inside);
    } else if (pane == LAUNCHER_DATA) {
        draw_data(launcher, canvas, inside);
    } else if (pane == LAUNCHER_METHOD) {
        draw_preset(launcher, canvas, inside);
    } else {
        draw_run(launcher, canvas, inside);
    }
    canvas_restore(canvas, before);
}
