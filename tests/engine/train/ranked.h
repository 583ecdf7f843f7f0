/* A small model on several ranks, with the same global batch whatever their number. */
#ifndef WINDROW_TESTS_ENGINE_TRAIN_RANKED_H
#define WINDROW_TESTS_ENGINE_TRAIN_RANKED_H

#include "engine/comm/comm.h"
#include "small.h"

enum { RANKED_ROWS = 4, RANKED_SEQUENCE = 12, RANKED_MICRO_BATCHES = 2 };

extern const struct model_config ranked_config;

/* A recipe of RANKED_ROWS rows a micro-batch over all ranks, and `words` (ended by NULL). */
int ranked_recipe(struct recipe *recipe, const char *const *words, int ranks, struct error *err);

/* The rows of this rank of a batch of RANKED_ROWS: ranks follow each other within it. */
struct batch ranked_share(const struct comm *comm, const struct batch *all);

/* A trainer of exactly the planned size on the cpu; its backend is trainer->be. */
struct trainer *ranked_trainer(const struct recipe *recipe, struct comm *comm, struct plan *plan,
                               struct error *err);
void ranked_close(struct trainer *trainer);

/* Whether what is planned has been used, to the byte. */
bool ranked_used(struct trainer *trainer, const struct plan *plan);

#endif
