/*
 * A live change over all ranks: every rank has it, or none.
 *
 * Each rank tries the change and tells the others how that went. Where all could, it is kept; where
 * one could not, the others take it back. A rank that cannot even do that, since the memory it gave
 * up is not to be had again, ends the run: what was saved last is whole.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/xalloc.h"
#include "engine/run/parts.h"

/* What a rank tells the others. */
struct verdict {
    int64_t code; /* 0: done */
    int64_t lost; /* the trainer cannot be used any more */
    char host[64];
    char message[512];
    char hint[256];
};

/* Hears of all ranks, and gives back the worst: a lost one, or one that could not, or any. -1 if
 * they could not be heard. */
static int share_verdicts(struct run *run, bool done, const struct error *why,
                          struct verdict *worst, int *rank)
{
    struct verdict own = { .lost = !done && (trainer_lost(run->trainer) || run->be->failed) };
    gethostname(own.host, sizeof own.host - 1);
    if (!done) {
        own.code = why->code;
        snprintf(own.message, sizeof own.message, "%.500s", why->message);
        snprintf(own.hint, sizeof own.hint, "%.250s", why->hint);
    }
    struct verdict *all = xcalloc((size_t)run->comm->ranks, sizeof *all);
    comm_all_gather_bytes(run->comm, "how a change went", &own, all, sizeof own);
    *rank = 0;
    for (int p = 1; p < run->comm->ranks; p++) {
        const struct verdict *best = &all[*rank];
        if (all[p].lost > best->lost || (best->code == 0 && all[p].code != 0)) {
            *rank = p;
        }
    }
    *worst = all[*rank];
    free(all);
    return run->comm->failed ? -1 : 0;
}

/* The sentence of one rank, said by all. */
static int refuse(const struct run *run, const struct verdict *verdict, int rank, struct error *err)
{
    enum error_code code = verdict->code ? (enum error_code)verdict->code : ERROR_RUNTIME;
    if (rank == run->comm->rank) {
        fail(err, code, "%s", verdict->message);
    } else {
        fail(err, code, "rank %d on %s: %s", rank, verdict->host, verdict->message);
    }
    return verdict->hint[0] ? hint(err, "%s", verdict->hint) : -1;
}

int run_apply(struct run *run, const struct recipe *effective, const struct plan *plan,
              struct error *err)
{
    struct error why = *err;
    struct verdict worst = { 0 };
    struct trainer_before *before = NULL;
    int rank = 0;
    if (effective != NULL) {
        before = trainer_try(run->trainer, effective, plan->bytes, &why);
    }
    int heard = share_verdicts(run, before != NULL, &why, &worst, &rank);
    if (heard == 0 && worst.code == 0) {
        trainer_keep(before);
        recipe_copy(&run->effective, effective);
        run->plan = *plan;
        return 0;
    }
    struct error back = { 0 };
    bool taken_back = !before || trainer_take_back(run->trainer, before, &back) == 0;
    if (heard == 0 && !worst.lost) {
        struct verdict after = { 0 };
        int other = 0;
        heard = share_verdicts(run, taken_back, &back, &after, &other);
        if (after.lost) {
            worst = after;
            rank = other;
        }
    }
    run->broken = worst.lost || heard != 0;
    return heard == 0 ? refuse(run, &worst, rank, err) : comm_check(run->comm, err);
}
