/* Counting what was left out. */
#include "engine/data/skips.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/file.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"

static struct skip *find(struct skips *skips, const char *reason)
{
    for (int i = 0; i < skips->count; i++) {
        if (strcmp(skips->skip[i].reason, reason) == 0) {
            return &skips->skip[i];
        }
    }
    if (skips->count == SKIPS_REASONS) {
        return &skips->skip[SKIPS_REASONS - 1];
    }
    struct skip *skip = &skips->skip[skips->count++];
    snprintf(skip->reason, sizeof(skip->reason), "%s",
             skips->count == SKIPS_REASONS ? "other reasons" : reason);
    return skip;
}

void skips_add(struct skips *skips, const char *reason, const char *path, int64_t line)
{
    char shortened[SKIPS_REASON_SIZE];
    snprintf(shortened, sizeof(shortened), "%s", reason);
    struct skip *skip = find(skips, shortened);
    skip->count++;
    skips->total++;
    /* Every reason names at least its first place. */
    if (skip->places != NULL && skips->places >= SKIPS_PLACES) {
        return;
    }
    char *places = skip->places == NULL
                       ? xasprintf("%s:%lld", text_show(path_base(path)).text, (long long)line)
                       : xasprintf("%s, %s:%lld", skip->places, text_show(path_base(path)).text,
                                   (long long)line);
    free(skip->places);
    skip->places = places;
    skips->places++;
}

char *skips_sentence(const struct skips *skips, int index)
{
    if (index < 0 || index >= skips->count) {
        return NULL;
    }
    const struct skip *skip = &skips->skip[index];
    return xasprintf("%lld %s skipped: %s (first: %s)", (long long)skip->count,
                     skip->count == 1 ? "record" : "records", skip->reason, skip->places);
}

void skips_free(struct skips *skips)
{
    for (int i = 0; i < skips->count; i++) {
        free(skips->skip[i].places);
    }
    *skips = (struct skips){ 0 };
}
