/* How the ranks of a run fare, in a few numbers. */
#include "app/fare.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/text.h"
#include "engine/base/xalloc.h"

const char *const fare_order_names[FARE_ORDERS] = { "by number", "slowest first", "fullest first" };

/* Hosts of which the name is told; ranks of a host follow each other, as launchers place them, or
 * do not: so each is looked for among those before it. */
static int count_hosts(const struct event_ranks *ranks)
{
    int hosts = 0;
    for (int p = 0; p < ranks->count; p++) {
        const char *host = ranks->item[p].host;
        bool seen = host[0] == '\0' || (p > 0 && strcmp(ranks->item[p - 1].host, host) == 0);
        for (int q = 0; q + 1 < p && !seen; q++) {
            seen = strcmp(ranks->item[q].host, host) == 0;
        }
        hosts += !seen;
    }
    return hosts;
}

static int find_slowest(const struct event_ranks *ranks)
{
    int slowest = -1;
    for (int p = 0; p < ranks->count; p++) {
        double ms = ranks->item[p].compute_ms;
        if (isfinite(ms) && (slowest < 0 || ms > ranks->item[slowest].compute_ms)) {
            slowest = p;
        }
    }
    return slowest;
}

void fare_of(const struct event_ranks *ranks, struct fare *out)
{
    double compute = 0;
    double wait = 0;
    double steps = 0;
    int told = 0;
    *out = (struct fare){ .count = ranks->count,
                          .hosts = count_hosts(ranks),
                          .slowest = find_slowest(ranks),
                          .behind = (double)NAN,
                          .exchange = (double)NAN,
                          .step_ms = (double)NAN,
                          .exchanged_bytes = EVENT_UNKNOWN,
                          .peak_low = EVENT_UNKNOWN,
                          .peak_high = EVENT_UNKNOWN };
    for (int p = 0; p < ranks->count; p++) {
        const struct event_rank *rank = &ranks->item[p];
        if (rank->exchanged_bytes > out->exchanged_bytes) {
            out->exchanged_bytes = rank->exchanged_bytes;
        }
        if (rank->peak_bytes >= 0) {
            bool first = out->peak_low == EVENT_UNKNOWN;
            out->peak_low =
                first || rank->peak_bytes < out->peak_low ? rank->peak_bytes : out->peak_low;
            out->peak_high = rank->peak_bytes > out->peak_high ? rank->peak_bytes : out->peak_high;
        }
        if (isfinite(rank->compute_ms) && rank->wait_ms >= 0 && rank->step_ms > 0) {
            out->step_ms = told == 0 ? rank->step_ms : fmax(out->step_ms, rank->step_ms);
            compute += rank->compute_ms;
            wait += rank->wait_ms;
            steps += rank->step_ms;
            told++;
        }
    }
    if (told > 0 && compute > 0) {
        out->behind = ranks->item[out->slowest].compute_ms / (compute / told) - 1;
    }
    if (told > 0) {
        out->exchange = fmin(1, wait / steps);
    }
}

void fare_sentence(const struct event_ranks *ranks, int width, char *out, size_t size)
{
    enum { FORMS = 7 };
    char form[FORMS][192];
    struct fare fare;
    fare_of(ranks, &fare);
    int n = fare.count;
    out[0] = '\0';
    if (fare.slowest < 0 || !isfinite(fare.behind) || !isfinite(fare.exchange)) {
        snprintf(form[0], sizeof(form[0]), "%d ranks", n);
        if (text_columns(form[0]) <= width) {
            snprintf(out, size, "%s", form[0]);
        }
        return;
    }
    int slow = fare.slowest;
    const char *host = ranks->item[slow].host;
    double behind = 100 * fmin(fare.behind, 99);
    double exchange = 100 * fare.exchange;
    char hosts[32] = "";
    char name[80] = "";
    if (fare.hosts > 1) {
        snprintf(hosts, sizeof(hosts), " on %d hosts", fare.hosts);
    }
    if (host[0] != '\0') {
        snprintf(name, sizeof(name), " (%s)", host);
    }
    snprintf(form[0], sizeof(form[0]),
             "%d ranks%s, slowest %d%s %.0f%% behind the mean, exchange %.0f%% of a step", n, hosts,
             slow, name, behind, exchange);
    snprintf(form[1], sizeof(form[1]),
             "%d ranks, slowest %d%s %.0f%% behind the mean, exchange %.0f%%", n, slow, name,
             behind, exchange);
    snprintf(form[2], sizeof(form[2]), "%d ranks, slowest %d%s +%.0f%%, exchange %.0f%%", n, slow,
             name, behind, exchange);
    snprintf(form[3], sizeof(form[3]), "%d ranks, slowest %d +%.0f%%, exchange %.0f%%", n, slow,
             behind, exchange);
    snprintf(form[4], sizeof(form[4]), "%d ranks, %d is +%.0f%%, exchange %.0f%%", n, slow, behind,
             exchange);
    snprintf(form[5], sizeof(form[5]), "%d ranks, slowest %d +%.0f%%", n, slow, behind);
    snprintf(form[6], sizeof(form[6]), "%d ranks, %d is +%.0f%%", n, slow, behind);
    for (int i = 0; i < FORMS; i++) {
        if (text_columns(form[i]) <= width) {
            snprintf(out, size, "%s", form[i]);
            return;
        }
    }
}

int64_t fare_limit(const struct event_rank *rank)
{
    int64_t limit = rank->limit_bytes > 0 ? rank->limit_bytes : rank->device_total_bytes;
    return limit > 0 ? limit : 0;
}

/* What the order is by; the larger comes first. */
static double weight(const struct event_rank *rank, enum fare_order order)
{
    if (order == FARE_SLOWEST_FIRST) {
        return isfinite(rank->compute_ms) ? rank->compute_ms : -1;
    }
    if (order == FARE_FULLEST_FIRST) {
        int64_t limit = fare_limit(rank);
        return rank->peak_bytes < 0 ? -1
               : limit > 0          ? (double)rank->peak_bytes / (double)limit
                                    : (double)rank->peak_bytes;
    }
    return 0;
}

/* Merges sorted runs of doubling length: stable, so that ties stay in the order of numbers. */
void fare_sort(const struct event_ranks *ranks, enum fare_order order, int *out)
{
    int count = ranks->count;
    int *other = xcalloc((size_t)count + 1, sizeof(*other));
    for (int i = 0; i < count; i++) {
        out[i] = i;
    }
    for (int run = 1; run < count; run *= 2) {
        for (int at = 0; at < count; at += 2 * run) {
            int a = at;
            int middle = at + run < count ? at + run : count;
            int b = middle;
            int end = at + 2 * run < count ? at + 2 * run : count;
            for (int i = at; i < end; i++) {
                bool first = b == end || (a < middle && weight(&ranks->item[out[a]], order) >=
                                                            weight(&ranks->item[out[b]], order));
                other[i] = first ? out[a++] : out[b++];
            }
        }
        memcpy(out, other, (size_t)count * sizeof(*out));
    }
    free(other);
}

struct event_ranks fare_copy(const struct event_ranks *ranks)
{
    struct event_ranks copy = *ranks;
    copy.item = xcalloc((size_t)(ranks->count > 0 ? ranks->count : 1), sizeof(*copy.item));
    if (ranks->count > 0) {
        memcpy(copy.item, ranks->item, (size_t)ranks->count * sizeof(*copy.item));
    }
    return copy;
}
