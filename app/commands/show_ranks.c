/* The ranks of a run, as windrow show prints them. */
#include "app/commands/show_ranks.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "app/commands/output.h"
#include "app/fare.h"
#include "app/text.h"
#include "engine/base/json.h"

/* The mean of `old` with that weight and `new`; what one does not tell, the other does. */
static double mean(double old, double weight, double new, double new_weight)
{
    return !isfinite(new)   ? old
           : !isfinite(old) ? new
                            : (old * weight + new *new_weight) / (weight + new_weight);
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

void show_ranks_take(struct shown_ranks *shown, const struct event_ranks *ranks)
{
    double weight = ranks->steps > 0 ? (double)ranks->steps : 1.0;
    if (ranks->count < 1) {
        return;
    }
    struct event_ranks before = shown->mean;
    double old = shown->weight;
    shown->mean = fare_copy(ranks);
    shown->weight = weight;
    if (before.count == ranks->count) {
        for (int p = 0; p < before.count; p++) {
            const struct event_rank *from = &before.item[p];
            struct event_rank *to = &shown->mean.item[p];
            to->step_ms = mean(from->step_ms, old, to->step_ms, weight);
            to->compute_ms = mean(from->compute_ms, old, to->compute_ms, weight);
            to->wait_ms = mean(from->wait_ms, old, to->wait_ms, weight);
            to->peak_bytes = larger(from->peak_bytes, to->peak_bytes);
            if (from->exchanged_bytes >= 0 && to->exchanged_bytes >= 0) {
                to->exchanged_bytes = (int64_t)mean((double)from->exchanged_bytes, old,
                                                    (double)to->exchanged_bytes, weight);
            }
        }
        shown->weight += old;
    }
    shown->mean.steps = (int64_t)shown->weight;
    free(before.item);
}

void show_ranks_free(struct shown_ranks *shown)
{
    free(shown->mean.item);
    *shown = (struct shown_ranks){ .weight = 0.0 };
}

void show_ranks_print(const struct shown_ranks *shown)
{
    const struct event_ranks *ranks = &shown->mean;
    struct fare fare;
    char sentence[192];
    struct table table;
    if (ranks->count < 1) {
        return;
    }
    fare_of(ranks, &fare);
    fare_sentence(ranks, 160, sentence, sizeof sentence);
    output_data("             %s\n", sentence);
    table_open(&table, "rllrrrrrr");
    table_add(&table, (const char *[]){ "RANK", "host", "device", "compute", "waiting", "exchanged",
                                        "in use", "peak", "limit" });
    for (int p = 0; p < ranks->count; p++) {
        const struct event_rank *rank = &ranks->item[p];
        char number[24];
        char compute[48];
        char wait[48];
        snprintf(number, sizeof number, "%s%d", p == fare.slowest ? "* " : "", p);
        snprintf(compute, sizeof compute, "%s ms", text_count(rank->compute_ms).text);
        snprintf(wait, sizeof wait, "%s ms", text_count(rank->wait_ms).text);
        table_add(
            &table,
            (const char *[]){
                number, rank->host[0] ? rank->host : "-", rank->device[0] ? rank->device : "-",
                compute, wait, text_bytes((double)rank->exchanged_bytes).text,
                text_bytes((double)rank->bytes).text, text_bytes((double)rank->peak_bytes).text,
                fare_limit(rank) > 0 ? text_bytes((double)fare_limit(rank)).text : "-" });
    }
    table_print(&table);
}

void show_ranks_json(const struct shown_ranks *shown, cJSON *root)
{
    struct fare fare;
    if (shown->mean.count < 1) {
        return;
    }
    /* The line of the event has the right members already. */
    struct event event;
    struct buffer line = { 0 };
    struct error ignored = { 0 };
    event_init(&event, EVENT_RANKS);
    event.ranks = shown->mean;
    event_write(&event, &line);
    cJSON *whole = json_parse(line.text, line.size, "ranks", 1, &ignored);
    cJSON *ranks = cJSON_DetachItemFromObjectCaseSensitive(whole, "ranks");
    fare_of(&shown->mean, &fare);
    if (fare.slowest >= 0) {
        json_add_number(root, "slowest_rank", fare.slowest);
        json_add_number(root, "slowest_behind_mean", fare.behind);
        json_add_number(root, "exchange_share", fare.exchange);
    }
    if (ranks) {
        cJSON_AddItemToObject(root, "ranks", ranks);
    }
    cJSON_Delete(whole);
    buffer_free(&line);
}
