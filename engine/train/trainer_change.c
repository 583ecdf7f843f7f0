/* Live settings: a change that is tried between two steps, and kept or taken back. */
#include <stdlib.h>

#include "engine/base/xalloc.h"
#include "engine/train/trainer_parts.h"

struct trainer_before {
    struct recipe recipe;
    size_t capacity[MEMORY_CATEGORY_COUNT];
    struct state_snapshot *states; /* NULL: memory is laid out as before */
};

static bool capacity_changed(const struct trainer *trainer, const size_t *capacity)
{
    for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
        if (capacity != NULL &&
            capacity[c] != memory_capacity(trainer->memory, (enum memory_category)c)) {
            return true;
        }
    }
    return false;
}

/* Takes the regions of gradients and states anew and puts the states back, which are saved on the
 * host: a change of rank is a restore under another rank. Weights stay where they are; adapters,
 * which lie behind them in their region, come back with the states. Between two steps the region of
 * activations holds nothing but inputs and tables; spans that are moved away have a size and places
 * that stay. */
static int lay_out(struct trainer *trainer, const size_t *capacity, struct state_snapshot *states,
                   struct error *err)
{
    static const enum memory_category moved[] = { MEMORY_GRADIENTS, MEMORY_OPTIMIZER,
                                                  MEMORY_WORKSPACE, MEMORY_ACTIVATIONS };
    size_t count = sizeof moved / sizeof moved[0] - (trainer->offloads ? 1 : 0);
    struct state_source source = trainer_snapshot_source(states);
    trainer->layout++;
    trainer->method.ops->detach(&trainer->method);
    dense_detach(&trainer->dense);
    for (size_t i = 0; i < count; i++) {
        size_t bytes = capacity == NULL ? 0 : capacity[moved[i]];
        if (memory_resize(trainer->memory, moved[i], bytes, err) != 0) {
            return -1;
        }
    }
    memory_release(trainer->memory, MEMORY_WEIGHTS, trainer->after_weights);
    if (!trainer->offloads) {
        model_place_table(&trainer->model, trainer->be, trainer->memory);
        trainer_place_step(trainer);
    }
    if (trainer_attach(trainer, err) != 0 || dense_restore(&trainer->dense, &source, err) != 0 ||
        trainer->method.ops->restore(&trainer->method, &source, err) != 0) {
        return -1;
    }
    return backend_sync(trainer->be) == 0 ? 0 : trainer_device_error(trainer, err);
}

static int check_rank(const struct trainer *trainer, const struct recipe *recipe,
                      const size_t *capacity, struct error *err)
{
    if (recipe->method_rank == trainer->recipe.method_rank) {
        return 0;
    }
    if (trainer->method.ops->adapters) {
        fail(err, ERROR_USAGE,
             "method.rank: the rank of adapters cannot change while they train: it is their shape");
        return hint(err, "start a new run from this one's exported model with another rank");
    }
    size_t room = memory_capacity(trainer->memory, MEMORY_ACTIVATIONS);
    if (trainer->offloads && capacity != NULL && capacity[MEMORY_ACTIVATIONS] > room) {
        fail(err, ERROR_USAGE,
             "method.rank: with method.inputs=columns a higher rank takes more memory for "
             "activations (%zu bytes, there are %zu), whose places are fixed while "
             "activation.offload=%s moves them",
             capacity[MEMORY_ACTIVATIONS], room, trainer->recipe.activation_offload);
        return hint(err, "stop the run and go on with `windrow fork RUN method.rank=%lld`",
                    (long long)recipe->method_rank);
    }
    return 0;
}

static void take_recipe(struct trainer *trainer, const struct recipe *recipe)
{
    recipe_copy(&trainer->recipe, recipe);
    trainer_take_settings(trainer);
    trainer->dense.weight_decay = recipe->optimizer_weight_decay;
}

struct trainer_before *trainer_try(struct trainer *trainer, const struct recipe *recipe,
                                   const size_t *capacity, struct error *err)
{
    if (check_rank(trainer, recipe, capacity, err) != 0) {
        return NULL;
    }
    bool moves =
        recipe->method_rank != trainer->recipe.method_rank || capacity_changed(trainer, capacity);
    struct state_snapshot *states = moves ? trainer_snapshot(trainer, err) : NULL;
    if (moves && states == NULL) {
        return NULL;
    }
    struct trainer_before *before = xcalloc(1, sizeof *before);
    before->states = states;
    recipe_init(&before->recipe);
    recipe_copy(&before->recipe, &trainer->recipe);
    for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
        before->capacity[c] = memory_capacity(trainer->memory, (enum memory_category)c);
    }
    take_recipe(trainer, recipe);
    if (moves && lay_out(trainer, capacity, states, err) != 0) {
        struct error first = *err;
        struct error second = { 0 };
        if (trainer_take_back(trainer, before, &second) != 0) {
            fail(err, first.code, "%.400s; nor could the change be taken back: %.400s",
                 first.message, second.message);
        }
        return NULL;
    }
    return before;
}

void trainer_keep(struct trainer_before *before)
{
    recipe_free(&before->recipe);
    trainer_snapshot_free(before->states);
    free(before);
}

int trainer_take_back(struct trainer *trainer, struct trainer_before *before, struct error *err)
{
    take_recipe(trainer, &before->recipe);
    if (before->states != NULL && lay_out(trainer, before->capacity, before->states, err) != 0) {
        trainer->lost = true;
    }
    trainer_keep(before);
    return trainer->lost ? -1 : 0;
}

int trainer_apply(struct trainer *trainer, const struct recipe *recipe, const size_t *capacity,
                  struct error *err)
{
    struct trainer_before *before = trainer_try(trainer, recipe, capacity, err);
    if (before == NULL) {
        return -1;
    }
    trainer_keep(before);
    return 0;
}

bool trainer_lost(const struct trainer *trainer)
{
    return trainer->lost;
}
