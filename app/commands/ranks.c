/*
 * train --gpus N: N processes on this machine, of which this one is the first.
 *
 * Ranks share the processor: each gets its part of the cores, unless OMP_NUM_THREADS says
 * otherwise. Libraries read that when a program starts, so this one starts itself once more.
 */
#include "app/commands/ranks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/xalloc.h"

/* Words besides those of people: the program's name, the command's, --gpus, --json, --, the end. */
enum { FURTHER_WORDS = 6 };

/* The words of the command once more: with --gpus, or (0) without. */
static char **make_words(const struct arguments *arguments, int gpus)
{
    char **word = xcalloc(FURTHER_WORDS + arguments->word_count + arguments->setting_count +
                              arguments->option_count,
                          sizeof *word);
    size_t used = 0;
    word[used++] = xstrdup("windrow");
    word[used++] = xstrdup(arguments->command->name);
    for (size_t i = 0; i < arguments->option_count; i++) {
        const struct option_value *option = &arguments->option[i];
        if (strcmp(option->option->name, "gpus") != 0) {
            word[used++] = option->value ? xasprintf("--%s=%s", option->option->name, option->value)
                                         : xasprintf("--%s", option->option->name);
        }
    }
    if (gpus > 0) {
        word[used++] = xasprintf("--gpus=%d", gpus);
    }
    if (arguments->json) {
        word[used++] = xstrdup("--json");
    }
    word[used++] = xstrdup("--"); /* what follows is no option, whatever it begins with */
    for (size_t i = 0; i < arguments->word_count; i++) {
        word[used++] = xstrdup(arguments->word[i]);
    }
    for (size_t i = 0; i < arguments->setting_count; i++) {
        word[used++] = xstrdup(arguments->setting[i]);
    }
    return word;
}

static void free_words(char **word)
{
    for (size_t i = 0; word[i] != NULL; i++) {
        free(word[i]);
    }
    free(word);
}

static void share_cores(const struct arguments *arguments, int ranks)
{
    char text[32];
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (getenv("OMP_NUM_THREADS") != NULL) {
        return;
    }
    snprintf(text, sizeof text, "%ld", cores / ranks > 0 ? cores / ranks : 1);
    setenv("OMP_NUM_THREADS", text, 0);
    char **word = make_words(arguments, ranks);
    execv("/proc/self/exe", word);
    free_words(word); /* no /proc: this rank has more threads than the others */
}

struct launch *ranks_start(const struct arguments *arguments, int ranks, struct error *err)
{
    share_cores(arguments, ranks);
    char **word = make_words(arguments, 0);
    struct launch *launch = launch_ranks(ranks, (const char *const *)word, err);
    free_words(word);
    return launch;
}
