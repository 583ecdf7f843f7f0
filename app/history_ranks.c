/* What was said of the ranks. An event about them is as long as they are many, so where there are
 * too many of them only every second, fourth ... is kept, and always the newest. Time travel then
 * shows the one before. */
#include <stdlib.h>

#include "app/fare.h"
#include "app/history_fold.h"

/* Ranks kept in all events together: 12 MB. */
enum { ITEMS_MAX = 50000 };

/* Kept are the events whose number, from 0, divides by fare_every, and the last one. */
static void thin(struct history *history)
{
    size_t kept = 0;
    for (size_t i = 0; i < history->fare_count; i++) {
        struct history_fare *fare = &history->fare[i];
        if (i % 2 == 0 || i + 1 == history->fare_count) {
            history->fare[kept++] = *fare;
        } else {
            history->fare_items -= fare->told.count;
            free(fare->told.item);
        }
    }
    history->fare_count = kept;
    history->fare_every *= 2;
}

void history_add_ranks(struct history *history, const struct event *event)
{
    if (event->ranks.count < 1) {
        return;
    }
    history->fare_every = history->fare_every > 0 ? history->fare_every : 1;
    bool replaces = history->fare_count > 0 && (history->fare_told - 1) % history->fare_every != 0;
    struct history_fare *fare = replaces ? &history->fare[history->fare_count - 1]
                                         : history_grow(&history->fare, &history->fare_count,
                                                        &history->fare_capacity, sizeof(*fare));
    history->fare_items += event->ranks.count - fare->told.count;
    free(fare->told.item);
    fare->seen = history->step;
    fare->told = fare_copy(&event->ranks);
    history->fare_told++;
    if (history->fare_items > ITEMS_MAX && history->fare_count > 2) {
        thin(history);
    }
}

void history_free_ranks(struct history *history)
{
    for (size_t i = 0; i < history->fare_count; i++) {
        free(history->fare[i].told.item);
    }
    free(history->fare);
}

const struct event_ranks *history_ranks(const struct history *history)
{
    return history->fare_count > 0 ? &history->fare[history->fare_count - 1].told : NULL;
}
