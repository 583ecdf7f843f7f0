/* Time travel: which step the screens show. */
#include <inttypes.h>

#include "app/workbench.h"

int64_t workbench_at(const struct workbench *workbench)
{
    return workbench->at > 0 && workbench->at < workbench->history.step ? workbench->at : 0;
}

void workbench_travel(struct workbench *workbench, int64_t step)
{
    int64_t last = workbench->history.step;
    workbench->at = step >= last ? 0 : step < 1 ? 1 : step;
    workbench->dirty = true;
}

/* Of the refresh before or after the one that is shown; 0: there is none. */
static int64_t other_refresh(const struct history *history, int64_t step, bool later)
{
    size_t shown = 0; /* refreshes up to `step` */
    while (shown < history->refresh_count && history->refresh[shown].seen <= step) {
        shown++;
    }
    if (later) {
        return shown < history->refresh_count ? history->refresh[shown].seen : 0;
    }
    return shown >= 2 ? history->refresh[shown - 2].seen : 0;
}

void travel_key(struct workbench *workbench, enum action action)
{
    const struct history *history = &workbench->history;
    int64_t at = workbench_at(workbench);
    int64_t now = at > 0 ? at : history->step;
    bool later = action == ACTION_LATER || action == ACTION_MUCH_LATER;
    if (action == ACTION_FOLLOW || history->step < 2) {
        workbench->at = 0;
        return;
    }
    if (later && at == 0) {
        workbench_say(workbench, STYLE_TEXT, "this is the newest step");
        return;
    }
    bool much = action == ACTION_MUCH_EARLIER || action == ACTION_MUCH_LATER;
    if (workbench->screen == SCREEN_LAYERS && !much) {
        int64_t step = other_refresh(history, now, later);
        if (step == 0 && !later) {
            workbench_say(workbench, STYLE_TEXT, "this is the first refresh");
        } else {
            workbench_travel(workbench, step == 0 ? history->step : step);
        }
        return;
    }
    int64_t span = history->step >> workbench->zoom;
    int64_t by = span / (much ? 10 : 100);
    by = by < 1 ? 1 : by;
    if (!later && now == 1) {
        workbench_say(workbench, STYLE_TEXT, "this is the first step");
        return;
    }
    workbench_travel(workbench, later ? now + by : now - by);
}
