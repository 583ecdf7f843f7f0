/*
 * Sampling: temperature, then the nucleus (Holtzman et al., arXiv 1904.09751, section 3.1).
 *
 * The text of new tokens is what decoding everything gives beyond what decoding the prompt gives:
 * a piece that begins a word keeps its space.
 */
#include "engine/generate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/xalloc.h"
#include "engine/model/model_weights.h"
#include "kernels/random.h"

struct candidate {
    float probability;
    int32_t id;
};

static int by_probability(const void *a, const void *b)
{
    const struct candidate *left = a;
    const struct candidate *right = b;
    if (left->probability != right->probability) {
        return left->probability < right->probability ? 1 : -1;
    }
    return left->id < right->id ? -1 : 1;
}

static int32_t greedy(const float *logits, int64_t vocabulary)
{
    int32_t best = 0;
    for (int32_t i = 1; i < vocabulary; i++) {
        if (logits[i] > logits[best]) {
            best = i;
        }
    }
    return best;
}

int32_t generate_choose(float *logits, int64_t vocabulary, const struct generate_options *options,
                        uint64_t index)
{
    int32_t best = greedy(logits, vocabulary);
    if (options->temperature <= 0.0) {
        return best;
    }
    struct candidate *candidate = xmalloc((size_t)vocabulary * sizeof *candidate);
    double total = 0.0;
    float top = logits[best];
    for (int32_t i = 0; i < vocabulary; i++) {
        candidate[i].id = i;
        candidate[i].probability = (float)exp((double)(logits[i] - top) / options->temperature);
        total += (double)candidate[i].probability;
    }
    qsort(candidate, (size_t)vocabulary, sizeof *candidate, by_probability);
    double nucleus = 0.0;
    int64_t kept = 0;
    while (kept < vocabulary && (kept == 0 || nucleus < options->top_p * total)) {
        nucleus += (double)candidate[kept++].probability;
    }
    struct random_key key = { .seed = options->seed, .purpose = RANDOM_SAMPLE };
    double draw = (double)random_uniform(&key, index) * nucleus;
    int64_t chosen = 0;
    while (chosen + 1 < kept && draw >= (double)candidate[chosen].probability) {
        draw -= (double)candidate[chosen++].probability;
    }
    int32_t id = candidate[chosen].id;
    free(candidate);
    return id;
}

static bool ends_text(const struct model_config *config, const struct tokenizer *tokenizer,
                      int32_t id)
{
    for (int i = 0; i < config->eos_count; i++) {
        if (config->eos_list[i] == id) {
            return true;
        }
    }
    return id == tokenizer_facts(tokenizer)->eos;
}

/* Bytes of `text` that later tokens cannot change. A byte piece that is not yet a whole character
 * decodes to U+FFFD, so those at the end wait. */
static size_t settled(const char *text, size_t size)
{
    while (size >= 3 && memcmp(text + size - 3, "\xef\xbf\xbd", 3) == 0) {
        size -= 3;
    }
    return size;
}

struct generation {
    struct trainer *trainer;
    const struct tokenizer *tokenizer;
    const struct generate_options *options;
    int32_t *ids; /* BOS, prompt, new ones */
    size_t count;
    size_t prompt_count;
    size_t told; /* bytes of the decoded whole that on_text has seen */
    float *logits;
};

static int tell(struct generation *g, bool last, struct error *err)
{
    char why[256];
    size_t size = 0;
    if (g->options->on_text == NULL) {
        return 0;
    }
    char *text = tokenizer_decode(g->tokenizer, g->ids, g->count, &size, why, sizeof why);
    if (text == NULL) {
        return fail(err, ERROR_DATA, "cannot decode what was generated: %s", why);
    }
    size_t end = last ? size : settled(text, size);
    if (end > g->told) {
        g->options->on_text(g->options->context, text + g->told, end - g->told);
        g->told = end;
    }
    free(text);
    return 0;
}

static int generate_ids(struct generation *g, size_t room, struct error *err)
{
    const struct model_config *config = trainer_config(g->trainer);
    for (size_t i = 0; i < g->count; i++) {
        float *logits = i + 1 == g->count ? g->logits : NULL;
        if (trainer_generate_feed(g->trainer, g->ids[i], logits, err) != 0) {
            return -1;
        }
    }
    while (g->count < room) {
        int32_t id =
            generate_choose(g->logits, config->vocabulary, g->options, g->count - g->prompt_count);
        if (ends_text(config, g->tokenizer, id)) {
            break;
        }
        if (id >= tokenizer_facts(g->tokenizer)->vocabulary) {
            return fail(err, ERROR_DATA,
                        "the model chose id %d, which the tokenizer of %d pieces "
                        "does not have",
                        (int)id, (int)tokenizer_facts(g->tokenizer)->vocabulary);
        }
        g->ids[g->count++] = id;
        if (tell(g, false, err) != 0) {
            return -1;
        }
        if (g->count < room && trainer_generate_feed(g->trainer, id, g->logits, err) != 0) {
            return -1;
        }
    }
    return tell(g, true, err);
}

/* The decoded whole beyond the decoded prompt. */
static char *new_text(const struct generation *g, struct error *err)
{
    char why[256];
    size_t before = 0;
    size_t size = 0;
    char *prompt =
        tokenizer_decode(g->tokenizer, g->ids, g->prompt_count, &before, why, sizeof why);
    char *all = tokenizer_decode(g->tokenizer, g->ids, g->count, &size, why, sizeof why);
    free(prompt);
    if (prompt == NULL || all == NULL) {
        free(all);
        fail(err, ERROR_DATA, "cannot decode what was generated: %s", why);
        return NULL;
    }
    before = before > size ? size : before;
    memmove(all, all + before, size - before + 1);
    return all;
}

static int encode_prompt(struct generation *g, size_t positions, struct error *err)
{
    char why[256];
    struct token_list list = { 0 };
    const char *prompt = g->options->prompt;
    if (tokenizer_encode(g->tokenizer, prompt, strlen(prompt), &list, why, sizeof why) != 0) {
        return fail(err, ERROR_USAGE, "prompt: %s", why);
    }
    int32_t bos = tokenizer_facts(g->tokenizer)->bos;
    if (list.count + 1 >= positions) {
        fail(err, ERROR_USAGE, "prompt: %zu tokens leave no room in %zu positions", list.count + 1,
             positions);
        token_list_free(&list);
        return -1;
    }
    if (bos >= 0) {
        g->ids[g->count++] = bos;
    }
    for (size_t i = 0; i < list.count; i++) {
        g->ids[g->count++] = list.id[i];
    }
    token_list_free(&list);
    if (g->count == 0) {
        return fail(err, ERROR_USAGE, "prompt: empty, and the tokenizer has no BOS to begin with");
    }
    g->prompt_count = g->count;
    return 0;
}

char *generate_text(struct trainer *trainer, const struct tokenizer *tokenizer,
                    const struct generate_options *options, struct error *err)
{
    size_t positions = (size_t)trainer_positions(trainer);
    struct generation g = { .trainer = trainer, .tokenizer = tokenizer, .options = options };
    char *text = NULL;
    char why[256];
    g.ids = xmalloc((positions + 1) * sizeof *g.ids);
    g.logits = xmalloc((size_t)trainer_config(trainer)->vocabulary * sizeof *g.logits);
    if (encode_prompt(&g, positions, err) != 0) {
        goto out;
    }
    size_t room = g.prompt_count + (size_t)(options->max_tokens < 0 ? 0 : options->max_tokens);
    room = room > positions ? positions : room;
    char *prompt = tokenizer_decode(tokenizer, g.ids, g.count, &g.told, why, sizeof why);
    free(prompt);
    if (trainer_generate_begin(trainer, (int64_t)room, err) == 0) {
        if (generate_ids(&g, room, err) == 0) {
            text = new_text(&g, err);
        }
        trainer_generate_end(trainer);
    }
out:
    free(g.ids);
    free(g.logits);
    return text;
}

struct trainer *inference_open(const struct inference_options *wanted, struct error *err)
{
    size_t capacity[MEMORY_CATEGORY_COUNT];
    struct trainer_options options = { .recipe = wanted->recipe,
                                       .config = wanted->config,
                                       .be = wanted->be,
                                       .inference = true,
                                       .positions = wanted->positions };
    if (wanted->source != NULL && model_check_weights(wanted->config, wanted->source, err) != 0) {
        return NULL;
    }
    if (plan_inference(&options, capacity, err) != 0) {
        return NULL;
    }
    options.capacity = capacity;
    struct trainer *trainer = trainer_open(&options, err);
    if (trainer != NULL && wanted->source != NULL &&
        trainer_load_weights(trainer, wanted->source, err) != 0) {
        trainer_close(trainer);
        return NULL;
    }
    return trainer;
}
