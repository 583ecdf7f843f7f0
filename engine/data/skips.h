/* Records that were left out, counted by reason, with the places of the first ones. */
#ifndef WINDROW_ENGINE_DATA_SKIPS_H
#define WINDROW_ENGINE_DATA_SKIPS_H

#include <stddef.h>
#include <stdint.h>

enum {
    SKIPS_REASONS = 20, /* kinds told apart; the rest counts as "other reasons" */
    SKIPS_PLACES = 20,  /* places named, over all reasons */
    SKIPS_REASON_SIZE = 200,
};

struct skip {
    char reason[SKIPS_REASON_SIZE];
    int64_t count;
    char *places; /* "data.jsonl:17, data.jsonl:40" */
};

struct skips {
    struct skip skip[SKIPS_REASONS];
    int count;
    int places;
    int64_t total;
};

void skips_add(struct skips *skips, const char *reason, const char *path, int64_t line);
/* A sentence about reason `index`, newly allocated (xmalloc), or NULL past the last. */
char *skips_sentence(const struct skips *skips, int index);
void skips_free(struct skips *skips);

#endif
