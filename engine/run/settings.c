/*
 * A live change over all ranks: every rank has it, or none.
 *
 * Each rank tries the change and tells the others how that went. Where all could, it is kept; where
 * one could not, the others take it back. A rank that cannot even do that, since the memory it gave
 * up is not to be had again, ends the run: what was saved last is whole.
 */
#include "engine/run/parts.h"

static int hear(struct run *run, bool done, const struct error *why, struct verdict *worst,
                int *rank)
{
    bool lost = !done && (trainer_lost(run->trainer) || run->be->failed);
    run_make_verdict(worst, done ? NULL : why, lost);
    return run_hear_verdicts(run, "how a change went", worst, rank);
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
    int heard = hear(run, before != NULL, &why, &worst, &rank);
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
        heard = hear(run, taken_back, &back, &after, &other);
        if (after.lost) {
            worst = after;
            rank = other;
        }
    }
    run->broken = worst.lost || heard != 0;
    run->ended_together = run->ended_together || (heard == 0 && worst.lost);
    return heard == 0 ? run_quote_verdict(run, &worst, rank, err) : comm_check(run->comm, err);
}
