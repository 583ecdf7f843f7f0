/*
 * How something went, on all ranks: what one of them cannot do, none goes on without.
 *
 * Before the first step each rank opens its own model, data and device, and may fail where others
 * do not. They tell each other at a few places, and end together: rank 0 says why, in the words of
 * the rank that failed, and the others say nothing.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/base/xalloc.h"
#include "engine/run/parts.h"

void run_make_verdict(struct verdict *verdict, const struct error *why, bool lost)
{
    *verdict = (struct verdict){ .lost = lost };
    gethostname(verdict->host, sizeof verdict->host - 1);
    if (why) {
        verdict->code = why->code == ERROR_NONE ? ERROR_RUNTIME : why->code;
        snprintf(verdict->message, sizeof verdict->message, "%s", why->message);
        snprintf(verdict->hint, sizeof verdict->hint, "%s", why->hint);
    }
}

int run_hear_verdicts(struct run *run, const char *what, struct verdict *verdict, int *rank)
{
    struct verdict *all = xcalloc((size_t)run->comm->ranks, sizeof *all);
    comm_all_gather_bytes(run->comm, what, verdict, all, sizeof *verdict);
    *rank = 0;
    for (int p = 1; p < run->comm->ranks; p++) {
        const struct verdict *worst = &all[*rank];
        if (all[p].lost > worst->lost || (worst->code == 0 && all[p].code != 0)) {
            *rank = p;
        }
    }
    *verdict = all[*rank];
    free(all);
    return run->comm->failed ? -1 : 0;
}

int run_quote_verdict(const struct run *run, const struct verdict *verdict, int rank,
                      struct error *err)
{
    enum error_code code = verdict->code ? (enum error_code)verdict->code : ERROR_RUNTIME;
    if (rank == run->comm->rank) {
        fail(err, code, "%s", verdict->message);
    } else {
        fail(err, code, "rank %d on %s: %.900s", rank, verdict->host, verdict->message);
    }
    return verdict->hint[0] ? hint(err, "%s", verdict->hint) : -1;
}

int run_agree(struct run *run, int result, struct error *err)
{
    struct verdict verdict;
    int rank = 0;
    if (run->comm->ranks == 1 || run->ended_together || run->comm->failed) {
        return result;
    }
    run_make_verdict(&verdict, result == 0 ? NULL : err, false);
    if (run_hear_verdicts(run, "how it went", &verdict, &rank) != 0) {
        return result == 0 ? comm_check(run->comm, err) : result;
    }
    if (verdict.code == 0) {
        return 0;
    }
    run->ended_together = true;
    run->end_code = (int)verdict.code;
    if (run_follows(run)) {
        *err = (struct error){ 0 };
        return -1;
    }
    return run_quote_verdict(run, &verdict, rank, err);
}
