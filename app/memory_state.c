/* The Memory screen's part of the reducer: asks the run what each live change would take, one after
 * the other, so that a run is never kept from its steps by a heap of questions. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/fare.h"
#include "app/workbench.h"
#include "engine/base/text.h"

static void add(struct whatif *whatif, const struct field *field, const char *value)
{
    if (whatif->count < WHATIF_MAX && strlen(value) < TUNE_VALUE_SIZE) {
        struct whatif_row *row = &whatif->row[whatif->count++];
        memset(row, 0, sizeof(*row));
        row->field = field;
        row->bytes = -1;
        snprintf(row->value, sizeof(row->value), "%s", value);
    }
}

static void add_scaled(struct whatif *whatif, const struct field *field, double now, double factor)
{
    char text[64];
    double value = now == 0 ? (field->type == FIELD_INTEGER ? 100 : 0.01) : now * factor;
    if (field->type == FIELD_INTEGER) {
        value = (double)(int64_t)value;
    }
    if (value >= field->minimum && value <= field->maximum && value != now) {
        text_from_double(text, value);
        add(whatif, field, text);
    }
}

/* A quarter to four times the rank, every other choice, and of other numbers the double. */
static void propose(struct workbench *workbench, const struct field *field)
{
    static const double factors[] = { 0.25, 0.5, 2, 4 };
    struct whatif *whatif = &workbench->whatif;
    char now[TUNE_VALUE_SIZE] = "";
    double value = 0;
    if (!history_setting_now(&workbench->history, field->key, now, sizeof(now))) {
        return;
    }
    if (field->type == FIELD_CHOICE) {
        for (int i = 0; field->choices[i]; i++) {
            if (strcmp(field->choices[i], now) != 0) {
                add(whatif, field, field->choices[i]);
            }
        }
    } else if (field->type == FIELD_BOOL) {
        add(whatif, field, strcmp(now, "true") == 0 ? "false" : "true");
    } else if (text_to_double(now, &value)) {
        bool rank = strcmp(field->key, "method.rank") == 0;
        for (int i = rank ? 0 : 2; i < (rank ? 4 : 3); i++) {
            add_scaled(whatif, field, value, factors[i]);
        }
    }
}

static void ask_next(struct workbench *workbench)
{
    struct whatif *whatif = &workbench->whatif;
    whatif->ask_id = 0;
    if (whatif->next < whatif->count && workbench_live(workbench)) {
        const struct whatif_row *row = &whatif->row[whatif->next];
        whatif->ask_id = workbench_send(workbench, "plan", row->field->key, row->value);
    }
}

static void ask_all(struct workbench *workbench)
{
    struct whatif *whatif = &workbench->whatif;
    whatif->count = whatif->next = 0;
    whatif->step = workbench->history.step;
    for (const struct field *field = recipe_fields; field->key; field++) {
        if (field->live) {
            propose(workbench, field);
        }
    }
    ask_next(workbench);
}

bool memory_reply(struct workbench *workbench, const struct control_reply *reply)
{
    struct whatif *whatif = &workbench->whatif;
    if (whatif->ask_id == 0 || reply->id != whatif->ask_id) {
        return false;
    }
    struct whatif_row *row = &whatif->row[whatif->next++];
    row->answered = true;
    if (reply->ok) {
        row->bytes = reply->bytes;
        row->bytes_now = reply->bytes_now;
    } else {
        /* The hint says what would fit, which is worth more here than by how much this does not. */
        snprintf(row->refusal, sizeof(row->refusal), "%.250s",
                 reply->hint[0] ? reply->hint : reply->error);
    }
    ask_next(workbench);
    return true;
}

int memory_ranks(const struct workbench *workbench)
{
    const struct event_ranks *ranks = history_ranks(&workbench->history);
    return ranks ? ranks->count : 0;
}

void memory_toggle_ranks(struct workbench *workbench)
{
    bool open = workbench->screen == SCREEN_MEMORY && workbench->ranks;
    if (!open && memory_ranks(workbench) == 0) {
        int64_t ranks = workbench->history.start.start.ranks;
        workbench_say(workbench, STYLE_WARN,
                      ranks > 1 ? "ranks: nothing was said of them yet"
                                : "ranks: this run has one, and nobody to wait for");
        return;
    }
    workbench->screen = SCREEN_MEMORY;
    workbench->ranks = !open;
    workbench->scroll = 0;
}

void memory_key(struct workbench *workbench, enum action action)
{
    bool ranks = workbench->ranks;
    int page =
        workbench->height > 16 ? ranks ? workbench->height - 10 : workbench->height / 2 - 4 : 1;
    int last = (ranks ? memory_ranks(workbench) : workbench->history.plan.largest_count) - 1;
    int to = workbench->scroll;
    switch (action) {
    case ACTION_WHAT_IF:
        workbench->asked = true;
        workbench->ranks = false;
        ask_all(workbench);
        return;
    case ACTION_BACK:
        workbench->scroll = ranks ? 0 : workbench->scroll;
        workbench->asked = ranks && workbench->asked;
        workbench->ranks = false;
        return;
    case ACTION_VIEW:
        if (ranks) {
            workbench->order = (workbench->order + 1) % FARE_ORDERS;
            workbench->scroll = 0;
        }
        return;
    case ACTION_UP:
        to--;
        break;
    case ACTION_DOWN:
        to++;
        break;
    case ACTION_PAGE_UP:
        to -= page;
        break;
    case ACTION_PAGE_DOWN:
        to += page;
        break;
    case ACTION_FIRST:
        to = 0;
        break;
    case ACTION_LAST:
        to = last;
        break;
    default:
        return;
    }
    workbench->scroll = to > last ? (last < 0 ? 0 : last) : to < 0 ? 0 : to;
}
