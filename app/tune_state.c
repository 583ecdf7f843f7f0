/* The Tune screen's part of the reducer: stage a value, ask what it would take, send it, see it
 * acknowledged, take it back. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/workbench.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"

void tune_open(struct tune *tune)
{
    memset(tune, 0, sizeof(*tune));
    for (const struct field *field = recipe_fields; field->key; field++) {
        if (field->live && tune->count < TUNE_ROWS_MAX) {
            struct tune_row *row = &tune->row[tune->count++];
            row->field = field;
            row->bytes = row->bytes_now = -1;
            row->applied_step = -1;
        }
    }
}

/* Checks a value with the table of settings. */
static bool acceptable(const struct field *field, const char *text, struct error *err)
{
    struct recipe recipe;
    recipe_init(&recipe);
    bool good = field_set(field, &recipe, text, err) == 0;
    recipe_free(&recipe);
    return good;
}

static void stage(struct workbench *workbench, struct tune_row *row, const char *text)
{
    struct error err = { 0 };
    if (strlen(text) >= TUNE_VALUE_SIZE || !acceptable(row->field, text, &err)) {
        workbench_say(workbench, STYLE_BAD, "%s",
                      err.message[0] ? err.message : "this value is too long");
        return;
    }
    char now[TUNE_VALUE_SIZE] = "";
    history_setting_now(&workbench->history, row->field->key, now, sizeof(now));
    row->bytes = row->bytes_now = -1;
    row->flops = row->flops_now = row->refresh_flops = row->refresh_flops_now = 0;
    row->refusal[0] = '\0';
    row->unfit = false;
    row->ask_id = 0;
    row->sent = false;
    if (strcmp(now, text) == 0) {
        row->staged[0] = '\0';
        return;
    }
    snprintf(row->staged, sizeof(row->staged), "%s", text);
    row->ask_id = workbench_send(workbench, "plan", row->field->key, text);
}

void tune_typed(struct workbench *workbench, const char *text)
{
    if (workbench->tune.count > 0) {
        stage(workbench, &workbench->tune.row[workbench->tune.cursor], text);
    }
}

/* The next smaller or larger value: half or double, or the neighbouring choice. */
static void step_value(struct workbench *workbench, struct tune_row *row, bool larger)
{
    const struct field *field = row->field;
    char now[TUNE_VALUE_SIZE] = "";
    char next[TUNE_VALUE_SIZE] = "";
    if (row->staged[0]) {
        snprintf(now, sizeof(now), "%s", row->staged);
    } else if (!history_setting_now(&workbench->history, field->key, now, sizeof(now))) {
        snprintf(now, sizeof(now), "%s", field->default_text);
    }
    double value = 0;
    if (field->type == FIELD_CHOICE) {
        int count = 0;
        int at = 0;
        for (; field->choices[count]; count++) {
            at = strcmp(field->choices[count], now) == 0 ? count : at;
        }
        if (count > 0) {
            at = (at + (larger ? 1 : count - 1)) % count;
            snprintf(next, sizeof(next), "%s", field->choices[at]);
        }
    } else if (field->type == FIELD_BOOL) {
        snprintf(next, sizeof(next), "%s", strcmp(now, "true") == 0 ? "false" : "true");
    } else if (text_to_double(now, &value)) {
        value = value == 0 ? (larger ? (field->type == FIELD_INTEGER ? 1 : 0.01) : 0)
                           : (larger ? value * 2 : value / 2);
        if (field->type == FIELD_INTEGER) {
            value = (double)(int64_t)value;
        }
        value = value < field->minimum ? field->minimum : value;
        value = value > field->maximum ? field->maximum : value;
        text_from_double(next, value);
    }
    if (next[0]) {
        stage(workbench, row, next);
    }
}

static void apply(struct workbench *workbench)
{
    int sent = 0;
    const struct tune_row *unfit = NULL;
    for (int i = 0; i < workbench->tune.count; i++) {
        struct tune_row *row = &workbench->tune.row[i];
        if (row->staged[0] && !row->sent && row->unfit) {
            unfit = row;
        } else if (row->staged[0] && !row->sent) {
            row->applied_bytes = row->bytes;
            row->applied_before = row->bytes_now;
            row->ask_id = workbench_send(workbench, "set", row->field->key, row->staged);
            row->sent = true;
            sent++;
        }
    }
    if (unfit) {
        workbench_say(workbench, STYLE_BAD, "%s=%s is not sent: %.160s", unfit->field->key,
                      unfit->staged, unfit->refusal);
    } else if (sent == 0) {
        workbench_say(workbench, STYLE_TEXT, "nothing is staged: Left and Right change a value");
    } else {
        workbench_say(workbench, STYLE_STRONG, "sent %d change%s", sent, sent == 1 ? "" : "s");
    }
}

static void undo(struct workbench *workbench)
{
    const struct history *history = &workbench->history;
    int64_t last = tune_undoable(history);
    if (workbench->tune.undo_id != 0) {
        workbench_say(workbench, STYLE_TEXT, "the run has not answered the last undo yet");
    } else if (last < 0) {
        workbench_say(workbench, STYLE_TEXT, "%s",
                      history->setting_count == 0 ? "nothing was changed in this run"
                                                  : "every change was taken back");
    } else {
        const struct history_setting *setting = &history->setting[last];
        workbench->tune.undo_id = workbench_send(workbench, "set", setting->key, setting->from);
        workbench_say(workbench, STYLE_STRONG, "sent %s back to %s", setting->key, setting->from);
    }
}

static void discard(struct workbench *workbench)
{
    for (int i = 0; i < workbench->tune.count; i++) {
        if (!workbench->tune.row[i].sent) {
            workbench->tune.row[i].staged[0] = '\0';
            workbench->tune.row[i].refusal[0] = '\0';
            workbench->tune.row[i].unfit = false;
            workbench->tune.row[i].ask_id = 0;
        }
    }
}

void tune_key(struct workbench *workbench, enum action action)
{
    struct tune *tune = &workbench->tune;
    if (tune->count == 0) {
        return;
    }
    int last = tune->count - 1;
    switch (action) {
    case ACTION_UP:
        tune->cursor -= tune->cursor > 0;
        break;
    case ACTION_DOWN:
        tune->cursor += tune->cursor < last;
        break;
    case ACTION_FIRST:
    case ACTION_PAGE_UP:
        tune->cursor = 0;
        break;
    case ACTION_LAST:
    case ACTION_PAGE_DOWN:
        tune->cursor = last;
        break;
    case ACTION_LEFT:
    case ACTION_RIGHT:
        if (workbench_live(workbench)) {
            step_value(workbench, &tune->row[tune->cursor], action == ACTION_RIGHT);
        } else {
            workbench_say(workbench, STYLE_WARN, "nothing is running here, this is a recording");
        }
        break;
    case ACTION_APPLY:
        apply(workbench);
        break;
    case ACTION_UNDO:
        undo(workbench);
        break;
    case ACTION_FORK: {
        char staged[256];
        tune_staged(tune, staged, sizeof(staged));
        runs_fork(workbench, workbench->run_name, staged);
        break;
    }
    case ACTION_BACK:
        discard(workbench);
        break;
    default:
        break;
    }
}

static void take_plan(struct tune_row *row, const struct control_reply *reply)
{
    row->bytes = reply->bytes;
    row->bytes_now = reply->bytes_now;
    row->flops = reply->flops;
    row->flops_now = reply->flops_now;
    row->refresh_flops = reply->refresh_flops;
    row->refresh_flops_now = reply->refresh_flops_now;
    row->unfit = reply->unfit;
    if (reply->unfit) {
        snprintf(row->refusal, sizeof(row->refusal), "%.100s%s%.90s",
                 reply->hint[0] ? reply->hint : reply->error, reply->hint[0] ? "; " : "",
                 reply->hint[0] ? reply->error : "");
    }
}

void tune_reply(struct workbench *workbench, const struct control_reply *reply)
{
    if (reply->id != 0 && reply->id == workbench->tune.undo_id) {
        workbench->tune.undo_id = 0;
        if (reply->ok) {
            workbench_say(workbench, STYLE_GOOD, "taken back from step %" PRId64 " on",
                          reply->step);
        }
        return;
    }
    for (int i = 0; i < workbench->tune.count; i++) {
        struct tune_row *row = &workbench->tune.row[i];
        if (row->ask_id == 0 || row->ask_id != reply->id) {
            continue;
        }
        row->ask_id = 0;
        if (!reply->ok) {
            row->sent = false;
            snprintf(row->refusal, sizeof(row->refusal), "%.100s%s%.90s",
                     reply->hint[0] ? reply->hint : reply->error, reply->hint[0] ? "; " : "",
                     reply->hint[0] ? reply->error : "");
            if (reply->hint[0]) {
                workbench_say(workbench, STYLE_BAD, "%.160s - %.90s", reply->error, reply->hint);
            }
            return;
        }
        if (row->sent) {
            workbench_say(workbench, STYLE_GOOD, "%s = %s holds from step %" PRId64,
                          row->field->key, row->staged, reply->step);
            row->applied_step = reply->step;
            row->staged[0] = '\0';
            row->sent = false;
        } else {
            take_plan(row, reply);
        }
        return;
    }
}

void tune_setting(struct workbench *workbench, const struct event *event)
{
    /* Somebody else may have changed what is staged here to the same value. */
    for (int i = 0; i < workbench->tune.count; i++) {
        struct tune_row *row = &workbench->tune.row[i];
        const struct event_setting *setting = &event->setting;
        if (!row->sent && setting->key && setting->to &&
            strcmp(row->field->key, setting->key) == 0 && strcmp(row->staged, setting->to) == 0) {
            row->staged[0] = '\0';
        }
    }
}

void tune_lost(struct tune *tune)
{
    tune->undo_id = 0;
    for (int i = 0; i < tune->count; i++) {
        tune->row[i].ask_id = 0;
        tune->row[i].sent = false;
    }
}

int tune_staged(const struct tune *tune, char *out, size_t size)
{
    int count = 0;
    out[0] = '\0';
    for (int i = 0; i < tune->count; i++) {
        const struct tune_row *row = &tune->row[i];
        size_t used = strlen(out);
        if (row->staged[0]) {
            snprintf(out + used, size - used, "%s%s=%s", used ? " " : "", row->field->key,
                     row->staged);
            count++;
        }
    }
    return count;
}
