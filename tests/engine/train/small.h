/* Small models and batches drawn at random, for tests that want many of them. */
#ifndef WINDROW_TESTS_ENGINE_TRAIN_SMALL_H
#define WINDROW_TESTS_ENGINE_TRAIN_SMALL_H

#include "fixture.h"

/* Random numbers of a test case: the same for the same start. */
struct dice {
    uint64_t state;
};

/* Uniform in [0, sides). */
int64_t dice_roll(struct dice *dice, int64_t sides);

/* One of `count` numbers. */
int64_t dice_pick(struct dice *dice, const int64_t *choices, int64_t count);
#define DICE_PICK(dice, ...)                                                                       \
    dice_pick((dice), (const int64_t[]){ __VA_ARGS__ },                                            \
              (int64_t)(sizeof((const int64_t[]){ __VA_ARGS__ }) / sizeof(int64_t)))

/* A configuration with sizes from 1 up, grouped queries or not, tied or not; checked. */
void small_config(struct dice *dice, struct model_config *config);

/* Fills the batch: random ids, records of random lengths that share rows, some tokens untrained;
 * at least one is trained. */
void small_batch(struct dice *dice, int64_t vocabulary, struct batch *batch);

/* A trainer with the recipe's random weights on the cpu, of exactly the planned size. */
struct trainer *small_trainer(const struct recipe *recipe, const struct model_config *config,
                              const struct plan *plan, struct backend *be);
/* With a place for offloaded activations. */
struct trainer *small_trainer_with(const struct recipe *recipe, const struct model_config *config,
                                   const struct plan *plan, struct backend *be,
                                   struct store *store);

/* The place that the recipe asks for, of the plan's size; NULL where nothing leaves. */
struct store *small_store(const struct recipe *recipe, const struct plan *plan, struct backend *be);

struct backend *small_backend(void);

/* A digest of all state tensors. */
void small_digest(struct trainer *trainer, char text[DIGEST_TEXT_SIZE]);

#endif
