/* See ranked.h. */
#include "ranked.h"
#include "tests/llama.h"

#include <stdio.h>

const struct model_config ranked_config = {
    LLAMA_REST,          .hidden_size = 16,       .intermediate_size = 24, .layers = 2,
    .heads = 4,          .kv_heads = 2,           .head_size = 4,          .vocabulary = 37,
    .max_positions = 64, .initializer_range = 0.1
};

int ranked_recipe(struct recipe *recipe, const char *const *words, int ranks, struct error *err)
{
    char micro[32];
    snprintf(micro, sizeof micro, "batch.micro=%d", RANKED_ROWS / ranks);
    const char *const base[] = { "model.init=random",  "data.sequence_length=12",
                                 "batch.accumulate=2", "train.steps=7",
                                 "optimizer.lr=0.01",  "train.clip=0.5",
                                 "device=cpu",         micro };
    int rc = 0;
    recipe_init(recipe);
    for (size_t i = 0; rc == 0 && i < sizeof base / sizeof base[0]; i++) {
        rc = recipe_set(recipe, base[i], err);
    }
    for (const char *const *word = words; rc == 0 && *word != NULL; word++) {
        rc = recipe_set(recipe, *word, err);
    }
    return rc;
}

struct batch ranked_share(const struct comm *comm, const struct batch *all)
{
    int64_t rows = RANKED_ROWS / comm->ranks;
    int64_t first = comm->rank * rows * RANKED_SEQUENCE;
    struct batch share = *all;
    share.rows = rows;
    share.ids += first;
    share.targets += first;
    share.positions += first;
    share.starts += first;
    share.trained_tokens = 0;
    for (int64_t i = 0; i < rows * RANKED_SEQUENCE; i++) {
        share.trained_tokens += share.targets[i] >= 0;
    }
    return share;
}

struct trainer *ranked_trainer(const struct recipe *recipe, struct comm *comm, struct plan *plan,
                               struct error *err)
{
    char why[128];
    if (plan_make_ranks(recipe, &ranked_config, comm->ranks, plan, err) != 0) {
        return NULL;
    }
    struct backend *be = backend_open("cpu", 0, why, sizeof why);
    struct trainer *trainer = trainer_open(&(struct trainer_options){ .recipe = recipe,
                                                                      .config = &ranked_config,
                                                                      .be = be,
                                                                      .comm = comm,
                                                                      .capacity = plan->bytes },
                                           err);
    if (trainer == NULL) {
        backend_close(be);
    }
    return trainer;
}

void ranked_close(struct trainer *trainer)
{
    if (trainer != NULL) {
        struct backend *be = trainer->be;
        trainer_close(trainer);
        backend_close(be);
    }
}

bool ranked_used(struct trainer *trainer, const struct plan *plan)
{
    for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
        if (memory_peak(trainer_memory(trainer), (enum memory_category)c) != plan->bytes[c]) {
            return false;
        }
    }
    return true;
}
