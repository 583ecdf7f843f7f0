/* The pace of the terminal. */
#include "app/pace.h"

#include <math.h>
#include <string.h>

static const double piece_seconds = 0.05; /* a piece should take this long at most */
static const double harm_seconds = 0.08;  /* and is too large if it took longer than this */
static const double first_patience = 0.5; /* for a terminal that never answered */
static const double patience = 3;         /* for a line that stands still */

void pace_open(struct pace *pace)
{
    memset(pace, 0, sizeof(*pace));
    pace->limit = PACE_FIRST_BYTES;
}

size_t pace_limit(const struct pace *pace)
{
    return pace->answers ? (size_t)pace->limit : PACE_MOST_BYTES;
}

bool pace_asks(const struct pace *pace)
{
    return !pace->silent;
}

void pace_sent(struct pace *pace, size_t bytes, double now)
{
    if (pace->silent) {
        return;
    }
    pace->unanswered++;
    pace->waiting = bytes > 0;
    pace->sent_at = now;
    pace->sent_bytes = bytes;
}

/* The time of the piece without the way there and back. */
static void learn(struct pace *pace, double seconds)
{
    if (pace->round_trip == 0 || seconds < pace->round_trip) {
        pace->round_trip = seconds;
    }
    double taken = seconds - pace->round_trip;
    double bytes = (double)pace->sent_bytes;
    if (taken > harm_seconds) {
        bool small = bytes <= 2 * PACE_LEAST_BYTES;
        pace->slow_pieces = small ? pace->slow_pieces + 1 : 0;
        if (pace->slow_pieces >= 8) {
            pace->round_trip = seconds; /* so little does not take so long: the way has changed */
            pace->slow_pieces = 0;
        }
        pace->limit = fmin(pace->limit, bytes / taken * piece_seconds);
    } else {
        pace->slow_pieces = 0;
        /* Only a piece that was as large as allowed says that more would do. */
        if (bytes > pace->limit / 2) {
            double could = taken > 0.001 ? bytes / taken * piece_seconds : 4 * pace->limit;
            pace->limit = fmax(pace->limit, fmin(could, 4 * pace->limit));
        }
    }
    pace->limit = fmin(fmax(pace->limit, PACE_LEAST_BYTES), PACE_MOST_BYTES);
}

void pace_answered(struct pace *pace, double now)
{
    pace->answers = true;
    pace->silent = false;
    pace->misses = 0;
    pace->unanswered -= pace->unanswered > 0;
    if (pace->unanswered > 0) {
        return; /* of an earlier question */
    }
    pace->waiting = false;
    learn(pace, fmax(now - pace->sent_at, 1e-6));
}

double pace_overdue(const struct pace *pace)
{
    if (!pace->waiting) {
        return INFINITY;
    }
    return pace->sent_at + (pace->answers ? patience : first_patience);
}

bool pace_ready(struct pace *pace, double now)
{
    if (pace->waiting && now >= pace_overdue(pace)) {
        pace->waiting = false;
        pace->misses++;
        pace->silent = !pace->answers && pace->misses >= 2;
        pace->unanswered = pace->answers ? 0 : pace->unanswered;
    }
    return !pace->waiting;
}
