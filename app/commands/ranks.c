/*
 * train --gpus N: N processes on this machine, started by mpirun.
 *
 * mpirun gives ranks that it tells to stop one second, and then waits that long in any case: a rank
 * that saves its state gets four. Ranks share the processor: each gets its part of the cores,
 * unless OMP_NUM_THREADS says otherwise.
 */
#include "app/commands/ranks.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/xalloc.h"

static void share_cores(int ranks)
{
    char text[32];
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    long each = cores / ranks > 0 ? cores / ranks : 1;
    snprintf(text, sizeof text, "%ld", each);
    setenv("OMP_NUM_THREADS", text, 0);
    if (geteuid() == 0) { /* in a container; mpirun asks twice */
        setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 0);
        setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 0);
    }
}

/* Words of mpirun, those of the command, and room for its name, --json and the end. */
enum { MPIRUN_WORDS = 10, FURTHER_WORDS = 3 };

int ranks_start(const struct arguments *arguments, int ranks, struct error *err)
{
    char count[16];
    char program[512];
    snprintf(count, sizeof count, "%d", ranks);
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    program[length > 0 ? length : 0] = '\0';
    const char *const own[MPIRUN_WORDS] = { "mpirun",    "-np",
                                            count,       "--oversubscribe",
                                            "--bind-to", "none",
                                            "--mca",     "odls_base_sigkill_timeout",
                                            "4",         program };
    size_t most = MPIRUN_WORDS + FURTHER_WORDS + arguments->word_count + arguments->setting_count +
                  2 * arguments->option_count;
    const char **word = xcalloc(most, sizeof *word);
    size_t used = MPIRUN_WORDS;
    memcpy(word, own, sizeof own);
    word[used++] = arguments->command->name;
    for (size_t i = 0; i < arguments->word_count; i++) {
        word[used++] = arguments->word[i];
    }
    for (size_t i = 0; i < arguments->setting_count; i++) {
        word[used++] = arguments->setting[i];
    }
    for (size_t i = 0; i < arguments->option_count; i++) {
        const struct option_value *option = &arguments->option[i];
        if (strcmp(option->option->name, "gpus") != 0) {
            word[used++] = xasprintf("--%s", option->option->name);
            if (option->value != NULL) {
                word[used++] = option->value;
            }
        }
    }
    if (arguments->json) {
        word[used++] = "--json";
    }
    share_cores(ranks);
    execvp("mpirun", (char *const *)word);
    fail(err, ERROR_RUNTIME, "%d ranks need mpirun, which cannot be started: %s", ranks,
         strerror(errno));
    free(word);
    return hint(err, "install openmpi-bin (Debian), or train without --gpus");
}
