/*
 * A libnccl.so.2 for tests whose ranks are threads of one process with tensors in host memory, or
 * in that of the emulated device, of which a program that is tested has the functions. It never
 * blocks: what is asked is done once all ranks have asked for the same, and "in progress" until
 * then. Sums are those of the ranks in order, in fp32, rounded once. FAKE_NCCL tells it what to do,
 * by words of no-id          there is no address to meet at no-init        no communicator ever
 * comes about bad-init       none does, with an error wrong          sums are too large error-at=N
 * collective N (from 0) of a rank fails, and all after it stuck-abort    ncclCommAbort does not
 * return stuck-end      ncclCommFinalize is never done Built with FAKE_NCCL_OLD it lacks a function
 * that is needed.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/comm/nccl_library.h"
#include "kernels/dtype.h"

enum { SYSTEM_ERROR = 2, INVALID_ARGUMENT = 4, INVALID_USAGE = 5, REMOTE_ERROR = 6 };
enum { RANKS_MAX = 8, WORLDS_MAX = 256, ASKED_MAX = 1024 };

#define EXPORT __attribute__((visibility("default")))

enum kind { ALL_REDUCE, REDUCE, REDUCE_SCATTER, ALL_GATHER, BROADCAST };

struct asked {
    enum kind kind;
    const char *from;
    char *to;
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
EXPORT int ncclReduce(const void *from, void *to, size_t count, int type, int op, int root,
                      struct member *member, void *stream);
EXPORT int ncclReduceScatter(const void *from, void *to, size_t count, int type, int op,
                             struct member *member, void *stream);
EXPORT int ncclAllGather(const void *from, void *to, size_t count, int type, struct member *member,
                         void *stream);
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

static const struct asked *asked_by(const struct world *world, int rank, long number)
{
    return &world->asked[rank][number % ASKED_MAX];
}

static size_t width_of(const struct asked *asked)
{
    return asked->type == NCCL_BFLOAT16 ? 2 : asked->type == NCCL_FLOAT32 ? 4 : 1;
}

static float element(const struct asked *asked, size_t i)
{
    const void *from = asked->from;
    return asked->type == NCCL_BFLOAT16 ? bf16_to_float(((const uint16_t *)from)[i])
                                        : ((const float *)from)[i];
}

static void put(const struct asked *asked, size_t i, float sum)
{
    void *to = asked->to;
    if (asked->type == NCCL_BFLOAT16) {
        ((uint16_t *)to)[i] = bf16_from_float(sum);
    } else {
        ((float *)to)[i] = sum;
    }
}

/* Of a reduce-scatter rank p alone gets numbers [p * count, (p + 1) * count). Every sum is made
 * before it is put: it may lie where it comes from. */
static void add_all(struct world *world, long number)
{
    const struct asked *first = asked_by(world, 0, number);
    bool scatters = first->kind == REDUCE_SCATTER;
    size_t total = first->count * (size_t)(scatters ? world->ranks : 1);
    for (size_t i = 0; i < total; i++) {
        float sum = element(first, i);
        for (int p = 1; p < world->ranks; p++) {
            sum += element(asked_by(world, p, number), i);
        }
        sum += word("wrong") != NULL ? 1.0f : 0.0f;
        for (int p = 0; p < world->ranks; p++) {
            bool gets = scatters ? i / first->count == (size_t)p
                                 : first->kind == ALL_REDUCE || first->root == p;
            if (gets) {
                put(asked_by(world, p, number), scatters ? i % first->count : i, sum);
            }
        }
    }
}

/* The parts of all ranks of an all-gather, that of the root of a broadcast. */
static void hand_out(struct world *world, long number)
{
    const struct asked *first = asked_by(world, 0, number);
    bool gathers = first->kind == ALL_GATHER;
    size_t bytes = first->count * width_of(first);
    for (int p = 0; p < world->ranks; p++) {
        for (int q = 0; q < world->ranks; q++) {
            const char *from = asked_by(world, q, number)->from;
            char *to = asked_by(world, p, number)->to + (gathers ? (size_t)q * bytes : 0);
            if ((gathers || q == first->root) && to != from) {
                memcpy(to, from, bytes);
            }
        }
    }
}

/* Does what all ranks have asked for. */
static void advance(struct world *world)
{
    for (;;) {
        const struct asked *first = asked_by(world, 0, world->done);
        for (int p = 0; p < world->ranks; p++) {
            const struct asked *asked = asked_by(world, p, world->done);
            if (world->posted[p] <= world->done) {
                return;
            }
            if (asked->kind != first->kind || asked->count != first->count ||
                asked->type != first->type || asked->root != first->root) {
                world->error = INVALID_USAGE;
                return;
            }
        }
        if (first->kind <= REDUCE_SCATTER) {
            add_all(world, world->done);
        } else {
            hand_out(world, world->done);
        }
        world->done++;
    }
}

/* Lets the emulated device come to the end of a stream. Tensors in host memory have none. */
static bool reach(void *stream)
{
    int (*finish)(void *stream) = NULL;
    if (stream != NULL) {
        *(void **)&finish = dlsym(RTLD_DEFAULT, "simt_finish");
    }
    return stream == NULL || (finish != NULL && finish(stream) == 0);
}

/* Everything is asked for in place here. */
static int post(struct member *member, const struct asked *asked, bool in_place, void *stream)
{
    struct world *world = member->world;
    const char *error_at = word("error-at=");
    if (!in_place || !reach(stream)) {
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

static bool can_sum(int type, int op)
{
    return op == NCCL_SUM && (type == NCCL_FLOAT32 || type == NCCL_BFLOAT16);
}

int ncclAllReduce(const void *from, void *to, size_t count, int type, int op, struct member *member,
                  void *stream)
{
    struct asked asked = { ALL_REDUCE, from, to, count, type, 0 };
    return can_sum(type, op) ? post(member, &asked, from == to, stream) : INVALID_ARGUMENT;
}

int ncclReduce(const void *from, void *to, size_t count, int type, int op, int root,
               struct member *member, void *stream)
{
    struct asked asked = { REDUCE, from, to, count, type, root };
    return can_sum(type, op) ? post(member, &asked, from == to, stream) : INVALID_ARGUMENT;
}

int ncclReduceScatter(const void *from, void *to, size_t count, int type, int op,
                      struct member *member, void *stream)
{
    struct asked asked = { REDUCE_SCATTER, from, to, count, type, 0 };
    size_t shift = (size_t)member->rank * count * width_of(&asked);
    bool in_place = to == (const char *)from + shift;
    return can_sum(type, op) ? post(member, &asked, in_place, stream) : INVALID_ARGUMENT;
}

int ncclAllGather(const void *from, void *to, size_t count, int type, struct member *member,
                  void *stream)
{
    struct asked asked = { ALL_GATHER, from, to, count, type, 0 };
    size_t shift = (size_t)member->rank * count * width_of(&asked);
    return post(member, &asked, from == (char *)to + shift, stream);
}

int ncclBroadcast(const void *from, void *to, size_t count, int type, int root,
                  struct member *member, void *stream)
{
    struct asked asked = { BROADCAST, from, to, count, type, root };
    return type == NCCL_BYTE ? post(member, &asked, from == to, stream) : INVALID_ARGUMENT;
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
