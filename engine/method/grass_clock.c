/* Grass, when rows are chosen anew, and what becomes of a step that did. See grass.h. */
#include "engine/method/grass_parts.h"
#include "engine/method/refresh_clock.h"

bool grass_group_refreshing(const struct grass_group *group)
{
    return group->part[0]->refreshing;
}

const struct tensor *grass_index_in_use(const struct grass_group *group)
{
    return grass_group_refreshing(group) ? &group->next_index : &group->index;
}

static int64_t last_refresh(const struct method *method, const struct grass_part *part)
{
    return method->settings.stagger ? part->refreshed : method->counters.last_refresh;
}

int64_t grass_last_refresh(const struct method *method, const struct grass_group *group)
{
    return last_refresh(method, group->part[0]);
}

static bool any_waiting(const struct grass *grass)
{
    for (int64_t i = 0; i < grass->part_count; i++) {
        if (grass->part[i].waiting != NULL) {
            return true;
        }
    }
    return false;
}

void grass_begin_step(struct method *method, int64_t step)
{
    struct grass *grass = method->state;
    const struct method_settings *s = &method->settings;
    bool all = any_waiting(grass);
    method->step = step;
    method->refreshed = false;
    grass->refreshing = false;
    grass->guarded = false;
    for (int64_t g = 0; g < grass->group_count; g++) {
        struct grass_group *group = &grass->group[g];
        bool due = all || refresh_due(step, grass_last_refresh(method, group), s->interval,
                                      s->stagger, group->unit, grass->unit_count);
        for (int p = 0; p < group->part_count; p++) {
            group->part[p]->refreshing = due;
        }
        grass->refreshing = grass->refreshing || due;
    }
}

/* A refresh needs the host anyway, so here the verdict on the step is waited for. */
static bool step_is_skipped(struct method *method, const struct rule_settings *settings)
{
    float control[CONTROL_COUNT] = { 0 };
    backend_download(method->be, control, settings->control->data, sizeof control);
    return control[CONTROL_SKIP] != 0.0f;
}

bool grass_settle_refreshes(struct method *method, const struct rule_settings *settings)
{
    struct grass *grass = method->state;
    if (!grass->refreshing) {
        return true;
    }
    bool skipped = step_is_skipped(method, settings);
    int64_t reported = 0;
    for (int64_t i = 0; i < grass->part_count; i++) {
        struct grass_part *part = &grass->part[i];
        if (part->refreshing && !skipped) {
            grass_commit_part(method, part);
            grass->reported[reported++] = i;
        }
        part->refreshing = false;
    }
    grass->refreshing = false;
    if (!skipped) {
        grass->reported_count = reported;
        method->refreshed = true;
        method->counters.last_refresh = method->step;
        method->counters.refresh_count++;
    }
    return !skipped;
}
