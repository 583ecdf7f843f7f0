/*
 * state.json: what a checkpoint remembers beside tensors.
 *
 *   {"format": "windrow-state", "version": 1, "program": "0.1.0", "step": 100, "rows": 800,
 *    "tokens_total": ..., "skipped": 0, "skipped_in_row": 0, "returns": 0, "seconds": ...,
 *    "loss": ..., "best_loss": ..., "best_step": ..., "events_bytes": ..., "last_refresh": ...,
 *    "refresh_count": ..., "digests": {"data", "tokenizer", "model"}, "recipe": {...}}
 * loss and best_loss are absent where there is none. The order of the data and all random numbers
 * are functions of the seed and of these numbers: nothing else has to be stored.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/file.h"
#include "engine/base/json.h"
#include "engine/base/xalloc.h"
#include "engine/run/parts.h"

/* The whole numbers of the state by key. */
static const struct {
    const char *key;
    size_t offset;
} wholes[] = {
    { "step", offsetof(struct run_state, step) },
    { "rows", offsetof(struct run_state, rows) },
    { "tokens_total", offsetof(struct run_state, tokens_total) },
    { "skipped", offsetof(struct run_state, skipped) },
    { "skipped_in_row", offsetof(struct run_state, skipped_in_row) },
    { "returns", offsetof(struct run_state, returns) },
    { "best_step", offsetof(struct run_state, best_step) },
    { "events_bytes", offsetof(struct run_state, events_bytes) },
    { "last_refresh", offsetof(struct run_state, counters.last_refresh) },
    { "refresh_count", offsetof(struct run_state, counters.refresh_count) },
};
enum { WHOLES = sizeof wholes / sizeof wholes[0] };

static void add_finite(cJSON *root, const char *key, double value)
{
    if (isfinite(value)) {
        cJSON_AddNumberToObject(root, key, value);
    }
}

char *run_state_text(const struct run *run)
{
    const struct run_state *state = &run->state;
    struct error ignored = { 0 };
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "format", "windrow-state");
    cJSON_AddNumberToObject(root, "version", 1);
    cJSON_AddStringToObject(root, "program", WINDROW_VERSION);
    for (size_t i = 0; i < WHOLES; i++) {
        int64_t value = 0;
        memcpy(&value, (const char *)state + wholes[i].offset, sizeof value);
        cJSON_AddNumberToObject(root, wholes[i].key, (double)value);
    }
    add_finite(root, "seconds", state->seconds);
    add_finite(root, "loss", (double)state->loss);
    add_finite(root, "best_loss", state->best_loss);
    cJSON *digests = cJSON_AddObjectToObject(root, "digests");
    cJSON_AddStringToObject(digests, "data", state->digests.data);
    cJSON_AddStringToObject(digests, "tokenizer", state->digests.tokenizer);
    cJSON_AddStringToObject(digests, "model", state->digests.model);
    char *recipe = recipe_json(&run->recipe);
    cJSON_AddItemToObject(root, "recipe",
                          json_parse(recipe, strlen(recipe), "recipe", 1, &ignored));
    free(recipe);
    char *text = json_print_pretty(root);
    cJSON_Delete(root);
    return text;
}

static int read_digest(const cJSON *digests, const char *key, char out[DIGEST_TEXT_SIZE],
                       const char *name, struct error *err)
{
    const char *text = NULL;
    if (json_string(digests, key, "", &text, name, err) != 0) {
        return -1;
    }
    if (strlen(text) >= DIGEST_TEXT_SIZE) {
        return fail(err, ERROR_DATA, "%s: the digest of \"%s\" is too long", name, key);
    }
    memcpy(out, text, strlen(text) + 1);
    return 0;
}

int run_state_read(const cJSON *root, const char *name, struct run_state *out, struct error *err)
{
    const char *format = NULL;
    double loss = 0.0;
    int64_t version = 0;
    struct json_range range = { 0, 1LL << 53, 0, true };
    *out = (struct run_state){ 0 };
    if (json_string(root, "format", "", &format, name, err) != 0 ||
        json_integer(root, "version", range, &version, name, err) != 0) {
        return -1;
    }
    if (strcmp(format, "windrow-state") != 0 || version != 1) {
        fail(err, ERROR_DATA, "%s: version %lld of the state is not known here", name,
             (long long)version);
        return hint(err, "it was written by another version of the program");
    }
    for (size_t i = 0; i < WHOLES; i++) {
        int64_t value = 0;
        if (json_integer(root, wholes[i].key, range, &value, name, err) != 0) {
            return -1;
        }
        memcpy((char *)out + wholes[i].offset, &value, sizeof value);
    }
    const cJSON *digests = json_get(root, "digests");
    if (json_number(root, "seconds", 0.0, &out->seconds, name, err) != 0 ||
        json_number(root, "loss", (double)NAN, &loss, name, err) != 0 ||
        json_number(root, "best_loss", (double)NAN, &out->best_loss, name, err) != 0 ||
        read_digest(digests, "data", out->digests.data, name, err) != 0 ||
        read_digest(digests, "tokenizer", out->digests.tokenizer, name, err) != 0 ||
        read_digest(digests, "model", out->digests.model, name, err) != 0) {
        return -1;
    }
    out->loss = (float)loss;
    return 0;
}

/* ---- digests -------------------------------------------------------------------------------- */

/* Of the configuration and of the names and sizes of the weight files: their bytes are in the
 * checkpoint. */
static void digest_model(const struct run *run, char out[DIGEST_TEXT_SIZE])
{
    struct digest *digest = digest_begin();
    cJSON *config = config_to_json(&run->material.config, DTYPE_F32);
    char *text = json_print(config);
    digest_add(digest, text, strlen(text));
    free(text);
    cJSON_Delete(config);
    static const char *const names[] = { "model.safetensors", "model.safetensors.index.json" };
    bool pretrained = run->recipe.model_init == MODEL_PRETRAINED;
    for (size_t i = 0; pretrained && i < sizeof names / sizeof names[0]; i++) {
        char *path = path_join(run->material.model_directory, names[i]);
        struct stat facts;
        if (stat(path, &facts) == 0) {
            int64_t size = facts.st_size;
            digest_add(digest, names[i], strlen(names[i]));
            digest_add(digest, &size, sizeof size);
        }
        free(path);
    }
    digest_end(digest, out);
}

void run_digest(const struct run *run, struct run_digests *out)
{
    const struct material *material = &run->material;
    memcpy(out->data, dataset_facts(material->dataset)->digest, DIGEST_TEXT_SIZE);
    digest_of(material->tokenizer_bytes, material->tokenizer_size, out->tokenizer);
    digest_model(run, out->model);
}
