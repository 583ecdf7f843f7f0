/* What has to be the same on all ranks: ranks that differ are refused before the first step. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/digest.h"
#include "engine/base/file.h"
#include "engine/base/xalloc.h"
#include "engine/run/parts.h"

/* Who a rank is; and, as text, what has to be the same on all. */
struct passport {
    struct rank_name name;
    char version[32];
    char build[DIGEST_TEXT_SIZE]; /* of the program's file; empty: it cannot be read */
    char data[DIGEST_TEXT_SIZE];
    char tokenizer[DIGEST_TEXT_SIZE];
    char model[DIGEST_TEXT_SIZE];
    char device[16];
};

/* The file that this process was started from, also where another has its name by now. */
static void digest_program(char text[DIGEST_TEXT_SIZE])
{
    enum { CHUNK = 1 << 18 };
    struct error ignored = { 0 };
    struct stat facts;
    int fd = file_ops()->open("/proc/self/exe", O_RDONLY | O_CLOEXEC, 0);
    bool good = fd >= 0 && fstat(fd, &facts) == 0;
    struct digest *digest = digest_begin();
    char *chunk = xmalloc(CHUNK);
    for (int64_t at = 0; good && at < facts.st_size; at += CHUNK) {
        size_t part = facts.st_size - at < CHUNK ? (size_t)(facts.st_size - at) : (size_t)CHUNK;
        good = file_read_at(fd, "the program", chunk, part, at, &ignored) == 0;
        digest_add(digest, chunk, good ? part : 0);
    }
    free(chunk);
    digest_end(digest, text);
    if (fd >= 0) {
        file_ops()->close(fd);
    }
    if (!good) {
        text[0] = '\0';
    }
}

static int compare(const struct passport *first, const struct passport *other, int rank,
                   struct error *err)
{
    const struct {
        const char *what;
        const char *here;
        const char *there;
    } rows[] = {
        { "version of windrow", first->version, other->version },
        { "build of windrow", first->build, other->build },
        { "training data", first->data, other->data },
        { "tokenizer", first->tokenizer, other->tokenizer },
        { "model", first->model, other->model },
        { "kind of device", first->device, other->device },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (strcmp(rows[i].here, rows[i].there) != 0) {
            fail(err, ERROR_DATA, "rank %d on %s has another %s than rank 0 on %s: %s, not %s",
                 rank, other->name.host, rows[i].what, first->name.host, rows[i].there,
                 rows[i].here);
            return hint(err, "all ranks need the same program and the same files");
        }
    }
    return 0;
}

int run_check_ranks(struct run *run, struct error *err)
{
    if (run->comm->ranks == 1) {
        return 0;
    }
    struct passport mine = { .version = WINDROW_VERSION };
    const struct run_digests *digests = &run->state.digests;
    run_name_self(run, &mine.name);
    digest_program(mine.build);
    snprintf(mine.data, sizeof mine.data, "%s", digests->data);
    snprintf(mine.tokenizer, sizeof mine.tokenizer, "%s", digests->tokenizer);
    snprintf(mine.model, sizeof mine.model, "%s", digests->model);
    snprintf(mine.device, sizeof mine.device, "%s", device_is_cuda(run->be) ? "cuda" : "cpu");
    struct passport *all = xcalloc((size_t)run->comm->ranks, sizeof *all);
    comm_all_gather_bytes(run->comm, "what each rank trains on", &mine, all, sizeof mine);
    int result = comm_check(run->comm, err);
    for (int p = 1; result == 0 && p < run->comm->ranks; p++) {
        result = compare(&all[0], &all[p], p, err);
    }
    for (int p = 0; result == 0 && !run_follows(run) && p < run->comm->ranks; p++) {
        run_name_rank(run, p, &all[p].name);
    }
    free(all);
    return result;
}
