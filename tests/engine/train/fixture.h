/* A trainer over the golden model, for the tests of this folder. */
#ifndef WINDROW_TESTS_ENGINE_TRAIN_FIXTURE_H
#define WINDROW_TESTS_ENGINE_TRAIN_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/base/json.h"
#include "engine/generate.h"
#include "engine/plan.h"
#include "engine/train/trainer.h"
#include "engine/train/trainer_parts.h"

struct fixture {
    struct recipe recipe;
    struct model_config config;
    struct backend *be;
    struct trainer *trainer;
    struct plan plan;
    struct batch batch; /* of golden.json: 3 rows of 16 tokens */
    cJSON *golden;
};

/* `model` is a folder of tests/data/model ("untied", "tied"), whose weights are loaded; `words` are
 * key=value, ended by NULL. */
void fixture_open(struct fixture *f, const char *model, const char *const *words);
/* The same with the configuration of another folder. */
void fixture_open_config(struct fixture *f, const char *model, const char *config,
                         const char *const *words);
void fixture_close(struct fixture *f);

/* Fails the test with the message if `rc` is not 0. */
void check(int rc, const struct error *err);

/* Lays key=value words over a recipe, ended by NULL. */
void lay_words(struct recipe *recipe, const char *const *words);

/* Takes one step on the golden batch (and adds one to *step). */
struct step_result fixture_step(struct fixture *f, int64_t *step);

/* Reads the "batch" or "packed" object. */
void fixture_batch(struct fixture *f, const char *name);

/* All elements of a state tensor (malloc'd), by name. */
void *fixture_state(struct fixture *f, const char *name, struct state_entry *entry);

/* A digest of all state tensors. */
void fixture_digest(struct fixture *f, char text[DIGEST_TEXT_SIZE]);

const cJSON *golden_get(const struct fixture *f, const char *const *path);
#define GOLDEN(f, ...) golden_get((f), (const char *const[]){ __VA_ARGS__, NULL })
#define WORDS(...)     ((const char *const[]){ __VA_ARGS__, NULL })

#endif
