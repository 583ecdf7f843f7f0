#include "fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/xalloc.h"

void check(int rc, const struct error *err)
{
    if (rc != 0) {
        fail_msg("%s (%s)", err->message, err->hint);
    }
}

static void take_array(const cJSON *object, const char *key, int32_t *out)
{
    const cJSON *item;
    size_t i = 0;
    cJSON_ArrayForEach (item, json_get(object, key)) {
        out[i++] = (int32_t)item->valuedouble;
    }
}

void fixture_batch(struct fixture *f, const char *name)
{
    const cJSON *object = GOLDEN(f, name);
    take_array(object, "ids", f->batch.ids);
    take_array(object, "targets", f->batch.targets);
    take_array(object, "positions", f->batch.positions);
    take_array(object, "starts", f->batch.starts);
    f->batch.trained_tokens = 0;
    for (int64_t i = 0; i < f->batch.rows * f->batch.sequence; i++) {
        f->batch.trained_tokens += f->batch.targets[i] >= 0;
    }
}

const cJSON *golden_get(const struct fixture *f, const char *const *path)
{
    const cJSON *at = f->golden;
    for (; *path != NULL; path++) {
        at = json_get(at, *path);
        assert_non_null(at);
    }
    return at;
}

static void load_weights(struct fixture *f, const char *model)
{
    struct error err = { 0 };
    char *directory = xasprintf("%s/model/%s", TEST_DATA, model);
    struct weights_source *source = weights_open(directory, &err);
    check(source == NULL ? -1 : 0, &err);
    check(trainer_load_weights(f->trainer, source, &err), &err);
    weights_close(source);
    free(directory);
}

void lay_words(struct recipe *recipe, const char *const *words)
{
    struct error err = { 0 };
    for (; *words != NULL; words++) {
        check(recipe_set(recipe, *words, &err), &err);
    }
}

void fixture_open_config(struct fixture *f, const char *model, const char *config,
                         const char *const *words)
{
    static const char *const base[] = { "batch.micro=3",          "data.sequence_length=16",
                                        "train.steps=100",        "train.clip=0",
                                        "optimizer.lr=0.001",     "optimizer.weight_decay=0.01",
                                        "schedule.name=constant", "schedule.warmup=0",
                                        "precision.weights=fp32", "method.name=full",
                                        "train.sample_every=0",   NULL };
    struct error err = { 0 };
    char why[256];
    memset(f, 0, sizeof *f);
    recipe_init(&f->recipe);
    lay_words(&f->recipe, base);
    lay_words(&f->recipe, words);
    char *path = xasprintf("%s/model/%s/config.json", TEST_DATA, config);
    check(config_read(path, &f->config, &err), &err);
    free(path);
    check(plan_make(&f->recipe, &f->config, &f->plan, &err), &err);
    f->be = backend_open("cpu", 0, why, sizeof why);
    assert_non_null(f->be);
    f->trainer = trainer_open(
        &(struct trainer_options){
            .recipe = &f->recipe, .config = &f->config, .be = f->be, .capacity = f->plan.bytes },
        &err);
    check(f->trainer == NULL ? -1 : 0, &err);
    load_weights(f, model);
    path = xasprintf("%s/model/golden.json", TEST_DATA);
    f->golden = json_read(path, &err);
    check(f->golden == NULL ? -1 : 0, &err);
    free(path);
    check(batch_init(&f->batch, 3, 16, &err), &err);
    fixture_batch(f, "batch");
}

void fixture_open(struct fixture *f, const char *model, const char *const *words)
{
    fixture_open_config(f, model, model, words);
}

void fixture_close(struct fixture *f)
{
    trainer_close(f->trainer);
    backend_close(f->be);
    batch_free(&f->batch);
    recipe_free(&f->recipe);
    cJSON_Delete(f->golden);
}

struct step_result fixture_step(struct fixture *f, int64_t *step)
{
    struct error err = { 0 };
    struct step_result result;
    check(trainer_step(f->trainer, ++*step, &f->batch, 1, &result, &err), &err);
    return result;
}

void *fixture_state(struct fixture *f, const char *name, struct state_entry *entry)
{
    struct error err = { 0 };
    int64_t count = trainer_state_count(f->trainer);
    for (int64_t i = 0; i < count; i++) {
        trainer_state_entry(f->trainer, i, entry);
        if (strcmp(entry->name, name) == 0) {
            int64_t elements = entry->dim[0] * entry->dim[1] * entry->dim[2] * entry->dim[3];
            void *out = malloc((size_t)elements * dtype_size(entry->dtype) + 1);
            check(trainer_state_read(f->trainer, i, 0, elements, out, &err), &err);
            return out;
        }
    }
    fail_msg("no state tensor '%s'", name);
    return NULL;
}

void fixture_digest(struct fixture *f, char text[DIGEST_TEXT_SIZE])
{
    struct digest *digest = digest_begin();
    struct error err = { 0 };
    int64_t count = trainer_state_count(f->trainer);
    for (int64_t i = 0; i < count; i++) {
        struct state_entry entry;
        trainer_state_entry(f->trainer, i, &entry);
        int64_t elements = entry.dim[0] * entry.dim[1] * entry.dim[2] * entry.dim[3];
        size_t bytes = (size_t)elements * dtype_size(entry.dtype);
        void *out = malloc(bytes + 1);
        check(trainer_state_read(f->trainer, i, 0, elements, out, &err), &err);
        digest_add(digest, entry.name, strlen(entry.name));
        digest_add(digest, out, bytes);
        free(out);
    }
    digest_end(digest, text);
}
