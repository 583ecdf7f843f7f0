/*
 * A libnccl.so.2 for tests whose ranks are threads of one process with tensors in host memory. It
 * never blocks: what is asked is done once all ranks have asked for the same, and "in progress"
 * until then. Sums are those of the ranks in order, in fp32, rounded once. FAKE_NCCL tells it what
 * to do, by words of
 *   no-id          there is no address to meet at
 *   no-init        no communicator ever comes about
 *   bad-init       none does, with an error
 *   wrong          sums are too large
 *   error-at=N     collective N (from 0) of a rank fails, and all after it
 *   stuck-abort    ncclCommAbort does not return
 *   stuck-end      ncclCommFinalize is never done
 * Built with FAKE_NCCL_OLD it lacks a function that is needed.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/comm/nccl_library.h"
#include "kernels/dtype.h"

enum { SYSTEM_ERROR = 2, INVALID_ARGUMENT = 4, INVALID_USAGE = 5, REMOTE_ERROR = 6 };
enum { RANKS_MAX = 8, WORLDS_MAX = 256, ASKED_MAX = 64 };

#define EXPORT __attribute__((visibility("default")))

struct asked {
    bool sum; /* else a broadcast */
    void *to;
    size_t count;
    int type;
    int root;
};

struct world {
    int ranks;
    int joined;
    int left;
    int error;
    long done;
    long posted[RANKS_MAX];
    struct asked asked[RANKS_MAX][ASKED_MAX]; /* number n at n % ASKED_MAX */
};

struct member {
    struct world *world;
    int rank;
    int error; /* of this rank alone */
    bool leaving;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct world *worlds[WORLDS_MAX];
static int world_count;

static const char *word(const char *name)
{
    const char *all = getenv("FAKE_NCCL");
    return all != NULL ? strstr(all, name) : NULL;
}

EXPORT int ncclGetVersion(int *version);
EXPORT int ncclGetUniqueId(struct nccl_id *id);
EXPORT int ncclCommInitRankConfig(struct member **out, int ranks, struct nccl_id id, int rank,
                                  const struct nccl_config *config);
EXPORT int ncclCommGetAsyncError(struct member *member, int *result);
EXPORT int ncclAllReduce(const void *from, void *to, size_t count, int type, int op,
                         struct member *member, void *stream);
EXPORT int ncclBroadcast(const void *from, void *to, size_t count, int type, int root,
                         struct member *member, void *stream);
EXPORT int ncclGroupStart(void);
EXPORT int ncclGroupEnd(void);
EXPORT int ncclCommFinalize(struct member *member);
EXPORT int ncclCommDestroy(struct member *member);
EXPORT int ncclCommAbort(struct member *member);
EXPORT const char *ncclGetErrorString(int result);
EXPORT const char *ncclGetLastError(struct member *member);

int ncclGetVersion(int *version)
{
    *version = 22809;
    return NCCL_SUCCESS;
}

int ncclGetUniqueId(struct nccl_id *id)
{
    pthread_mutex_lock(&mutex);
    bool good = word("no-id") == NULL && world_count < WORLDS_MAX;
    if (good) {
        memset(id, 0, sizeof *id);
        worlds[world_count] = calloc(1, sizeof **worlds);
        memcpy(id->bytes, &world_count, sizeof world_count);
        world_count++;
    }
    pthread_mutex_unlock(&mutex);
    return good ? NCCL_SUCCESS : SYSTEM_ERROR;
}

int ncclCommInitRankConfig(struct member **out, int ranks, struct nccl_id id, int rank,
                           const struct nccl_config *config)
{
    int number;
    *out = NULL;
    memcpy(&number, id.bytes, sizeof number);
    if (config->size < 24 || config->magic != NCCL_CONFIG_MAGIC || config->version < 21400 ||
        config->blocking != 0 || ranks > RANKS_MAX || rank >= ranks || number >= world_count) {
        return INVALID_ARGUMENT;
    }
    pthread_mutex_lock(&mutex);
    struct member *member = calloc(1, sizeof *member);
    member->world = worlds[number];
    member->rank = rank;
    member->world->ranks = ranks;
    member->world->joined += word("no-init") == NULL;
    member->world->error = word("bad-init") != NULL ? SYSTEM_ERROR : NCCL_SUCCESS;
    pthread_mutex_unlock(&mutex);
    *out = member;
    return NCCL_IN_PROGRESS;
}

int ncclCommGetAsyncError(struct member *member, int *result)
{
    const struct world *world = member->world;
    pthread_mutex_lock(&mutex);
    bool under_way = world->joined < world->ranks || world->posted[member->rank] > world->done ||
                     (member->leaving && (world->left < world->ranks || word("stuck-end")));
    int error = world->error != NCCL_SUCCESS ? world->error : member->error;
    *result = error != NCCL_SUCCESS ? error : under_way ? NCCL_IN_PROGRESS : NCCL_SUCCESS;
    pthread_mutex_unlock(&mutex);
    return NCCL_SUCCESS;
}

/* ---- collectives ---------------------------------------------------------------------------- */

static float element(const struct asked *asked, size_t i)
{
    return asked->type == NCCL_BFLOAT16 ? bf16_to_float(((const uint16_t *)asked->to)[i])
                                        : ((const float *)asked->to)[i];
}

static void add_all(struct world *world, long number)
{
    const struct asked *first = &world->asked[0][number % ASKED_MAX];
    for (size_t i = 0; i < first->count; i++) {
        float sum = word("wrong") != NULL ? 1.0f : 0.0f;
        for (int p = 0; p < world->ranks; p++) {
            sum += element(&world->asked[p][number % ASKED_MAX], i);
        }
        for (int p = 0; p < world->ranks; p++) {
            void *to = world->asked[p][number % ASKED_MAX].to;
            if (first->type == NCCL_BFLOAT16) {
                ((uint16_t *)to)[i] = bf16_from_float(sum);
            } else {
                ((float *)to)[i] = sum;
            }
        }
    }
}

static void hand_out(struct world *world, long number)
{
    const struct asked *root =
        &world->asked[world->asked[0][number % ASKED_MAX].root][number % ASKED_MAX];
    for (int p = 0; p < world->ranks; p++) {
        const struct asked *asked = &world->asked[p][number % ASKED_MAX];
        if (asked != root) {
            memcpy(asked->to, root->to, root->count);
        }
    }
}

/* Does what all ranks have asked for. */
static void advance(struct world *world)
{
    for (;;) {
        const struct asked *first = &world->asked[0][world->done % ASKED_MAX];
        for (int p = 0; p < world->ranks; p++) {
            const struct asked *asked = &world->asked[p][world->done % ASKED_MAX];
            if (world->posted[p] <= world->done) {
                return;
            }
            if (asked->sum != first->sum || asked->count != first->count ||
                asked->type != first->type || asked->root != first->root) {
                world->error = INVALID_USAGE;
                return;
            }
        }
        if (first->sum) {
            add_all(world, world->done);
        } else {
            hand_out(world, world->done);
        }
        world->done++;
    }
}

static int post(struct member *member, const struct asked *asked, const void *from, void *stream)
{
    struct world *world = member->world;
    const char *error_at = word("error-at=");
    if (from != asked->to || stream != NULL) {
        return INVALID_ARGUMENT;
    }
    pthread_mutex_lock(&mutex);
    long number = world->posted[member->rank];
    if (error_at != NULL && number >= strtol(error_at + 9, NULL, 10)) {
        member->error = REMOTE_ERROR;
    } else if (number - world->done >= ASKED_MAX) {
        world->error = INVALID_USAGE;
    } else {
        world->asked[member->rank][number % ASKED_MAX] = *asked;
        world->posted[member->rank]++;
        advance(world);
    }
    pthread_mutex_unlock(&mutex);
    return NCCL_IN_PROGRESS;
}

int ncclAllReduce(const void *from, void *to, size_t count, int type, int op, struct member *member,
                  void *stream)
{
    struct asked asked = { .sum = true, .to = to, .count = count, .type = type, .root = op };
    bool known = op == NCCL_SUM && (type == NCCL_FLOAT32 || type == NCCL_BFLOAT16);
    return known ? post(member, &asked, from, stream) : INVALID_ARGUMENT;
}

int ncclBroadcast(const void *from, void *to, size_t count, int type, int root,
                  struct member *member, void *stream)
{
    struct asked asked = { .to = to, .count = count, .type = type, .root = root };
    return type == NCCL_BYTE ? post(member, &asked, from, stream) : INVALID_ARGUMENT;
}

int ncclGroupStart(void)
{
    return NCCL_SUCCESS;
}

int ncclGroupEnd(void)
{
    return NCCL_IN_PROGRESS;
}

/* ---- ending --------------------------------------------------------------------------------- */

int ncclCommFinalize(struct member *member)
{
    pthread_mutex_lock(&mutex);
    member->leaving = true;
    member->world->left++;
    pthread_mutex_unlock(&mutex);
    return NCCL_IN_PROGRESS;
}

int ncclCommDestroy(struct member *member)
{
    free(member);
    return NCCL_SUCCESS;
}

int ncclCommAbort(struct member *member)
{
    while (word("stuck-abort") != NULL) {
        pause();
    }
    free(member);
    return NCCL_SUCCESS;
}

const char *ncclGetErrorString(int result)
{
    static const char *const texts[] = {
        [NCCL_SUCCESS] = "no error",
        [SYSTEM_ERROR] = "unhandled system error",
        [INVALID_ARGUMENT] = "invalid argument",
        [INVALID_USAGE] = "invalid usage",
        [REMOTE_ERROR] = "remote process exited or there was a network error",
        [NCCL_IN_PROGRESS] = "NCCL operation in progress",
    };
    bool known = result >= 0 && result <= NCCL_IN_PROGRESS && texts[result] != NULL;
    return known ? texts[result] : "unknown";
}

#ifndef FAKE_NCCL_OLD
const char *ncclGetLastError(struct member *member)
{
    (void)member;
    return "";
}
#endif
