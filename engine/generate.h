/* Text from a model. */
#ifndef WINDROW_ENGINE_GENERATE_H
#define WINDROW_ENGINE_GENERATE_H

#include "engine/plan.h"
#include "tokenizer/tokenizer.h"

struct generate_options {
    const char *prompt; /* may be empty: BOS alone */
    int64_t max_tokens; /* new ones */
    double temperature; /* 0: greedy, ties to the lower id */
    double top_p;       /* (0, 1]: smallest set of tokens that holds this probability */
    uint64_t seed;
    /* Text as it comes, in whole characters; may be NULL. */
    void (*on_text)(void *context, const char *text, size_t size);
    void *context;
};

/* The generated text alone: neither the prompt nor special tokens (free()). Ends at max_tokens, at
 * an end-of-text id of the configuration, or where the trainer's positions end. A prompt that
 * leaves no room for a new token is an error. */
char *generate_text(struct trainer *trainer, const struct tokenizer *tokenizer,
                    const struct generate_options *options, struct error *err);

/* The next id by the options from logits (V), which are overwritten; `index` counts draws. */
int32_t generate_choose(float *logits, int64_t vocabulary, const struct generate_options *options,
                        uint64_t index);

/* A trainer that only looks (evaluates and generates), with memory planned for exactly that:
 * batches of recipe batch.micro x data.sequence_length, and `positions` tokens of generation. The
 * weights of `source` are compared with the configuration before memory is taken, and loaded; NULL:
 * as model.init says. */
struct inference_options {
    const struct recipe *recipe;
    const struct model_config *config;
    struct backend *be;
    struct weights_source *source;
    int64_t positions;
};
struct trainer *inference_open(const struct inference_options *options, struct error *err);

#endif
