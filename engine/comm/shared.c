/*
 * Each rank has a box for every other one, into which it lays the part that is for it, and a number
 * that says which exchange lies there. Whoever has taken its part says so; once all have, the boxes
 * are filled anew. So nothing is locked, and a rank that is killed leaves nothing locked.
 *
 * The memory is a descriptor without a name, gone with the last process that has it.
 */
#include "engine/comm/shared.h"

#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/file.h"
#include "engine/base/xalloc.h"
#include "engine/comm/transport.h"

/* While it waits a rank looks, then lets others run between looks, then sleeps: ranks may be more
 * than the processor has cores. */
enum { LOOKS = 100, YIELDS = 100, REST_NS = 50000 };

/* What a rank says of its boxes. */
struct slot {
    _Alignas(64) _Atomic uint32_t laid; /* the exchange that lies in them */
    uint32_t kind;
    uint64_t bytes;
    _Atomic uint32_t begun;                                /* the exchange it came to */
    _Alignas(64) _Atomic uint32_t taken[SHARED_RANKS_MAX]; /* by whom, up to which exchange */
};

struct head {
    uint64_t token;
    struct slot slot[SHARED_RANKS_MAX];
};
enum { HEAD_BYTES = 1 << 16 };
_Static_assert(sizeof(struct head) <= HEAD_BYTES, "boxes begin behind the head");

struct shared {
    struct head *head;
    char *box;
    size_t bytes;
    int rank;
    int ranks;
    int fd;        /* of rank 0, until it is sealed; -1 */
    uint32_t laid; /* the last exchange in which this rank sent */
};

static size_t size_for(int ranks)
{
    return HEAD_BYTES + (size_t)ranks * (size_t)ranks * TRANSPORT_PART_BYTES;
}

static struct shared *map(int fd, int rank, int ranks)
{
    size_t bytes = size_for(ranks);
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) {
        return NULL;
    }
    struct shared *shared = xcalloc(1, sizeof *shared);
    *shared = (struct shared){ .head = memory,
                               .box = (char *)memory + HEAD_BYTES,
                               .bytes = bytes,
                               .rank = rank,
                               .ranks = ranks,
                               .fd = -1 };
    return shared;
}

struct shared *shared_create(int ranks, struct shared_place *place)
{
    *place = (struct shared_place){ 0 };
    if (ranks > SHARED_RANKS_MAX) {
        return NULL;
    }
    int fd = memfd_create("windrow ranks", MFD_CLOEXEC);
    struct shared *shared = NULL;
    if (fd >= 0 && ftruncate(fd, (off_t)size_for(ranks)) == 0) {
        shared = map(fd, 0, ranks);
    }
    if (shared == NULL || getrandom(&shared->head->token, sizeof shared->head->token, 0) < 0) {
        shared_close(shared);
        if (fd >= 0) {
            close(fd);
        }
        return NULL;
    }
    shared->fd = fd;
    *place = (struct shared_place){ getpid(), fd, shared->head->token };
    return shared;
}

struct shared *shared_join(int rank, int ranks, const struct shared_place *place)
{
    char path[64];
    struct stat facts;
    struct shared *shared = NULL;
    if (place->process == 0 || ranks > SHARED_RANKS_MAX) {
        return NULL;
    }
    snprintf(path, sizeof path, "/proc/%lld/fd/%lld", (long long)place->process,
             (long long)place->fd);
    int fd = file_ops()->open(path, O_RDWR | O_CLOEXEC, 0);
    if (fd >= 0 && fstat(fd, &facts) == 0 && S_ISREG(facts.st_mode) &&
        (size_t)facts.st_size == size_for(ranks)) {
        shared = map(fd, rank, ranks);
    }
    if (fd >= 0) {
        file_ops()->close(fd);
    }
    if (shared != NULL && shared->head->token != place->token) { /* another process's number */
        shared_close(shared);
        shared = NULL;
    }
    return shared;
}

void shared_seal(struct shared *shared)
{
    if (shared != NULL && shared->fd >= 0) {
        close(shared->fd);
        shared->fd = -1;
    }
}

void shared_close(struct shared *shared)
{
    if (shared != NULL) {
        shared_seal(shared);
        munmap(shared->head, shared->bytes);
        free(shared);
    }
}

/* Until the number at `at` has come to `number`: numbers only grow. */
static bool wait_for(const _Atomic uint32_t *at, uint32_t number, const struct shared_move *move)
{
    for (int looks = 0;; looks++) {
        if (atomic_load_explicit(at, memory_order_acquire) >= number) {
            return true;
        }
        if (looks >= LOOKS + YIELDS) {
            if (!move->rest(move->context)) { /* what was laid before the end counts */
                return atomic_load_explicit(at, memory_order_acquire) >= number;
            }
            nanosleep(&(struct timespec){ .tv_nsec = REST_NS }, NULL);
        } else if (looks >= LOOKS) {
            sched_yield();
        }
    }
}

static char *box_of(const struct shared *shared, int from, int to)
{
    size_t index = (size_t)from * (size_t)shared->ranks + (size_t)to;
    return shared->box + index * TRANSPORT_PART_BYTES;
}

/* Fills the own boxes, once all have emptied them. */
static enum shared_result lay(struct shared *shared, const struct shared_move *move, int *rank)
{
    struct slot *own = &shared->head->slot[shared->rank];
    for (int p = 0; p < shared->ranks; p++) {
        if (p != shared->rank && !wait_for(&own->taken[p], shared->laid, move)) {
            *rank = p;
            return SHARED_GIVEN_UP;
        }
    }
    for (int p = 0; p < shared->ranks; p++) {
        bool first = p == (shared->rank == 0 ? 1 : 0); /* one box does for all */
        if (p != shared->rank && (move->send_stride > 0 || first)) {
            memcpy(box_of(shared, shared->rank, move->send_stride > 0 ? p : shared->rank),
                   move->send + (size_t)p * move->send_stride, move->bytes);
        }
    }
    own->kind = move->kind;
    own->bytes = move->bytes;
    shared->laid = move->number;
    atomic_store_explicit(&own->laid, move->number, memory_order_release);
    return SHARED_DONE;
}

static enum shared_result take(struct shared *shared, const struct shared_move *move, int from)
{
    struct slot *slot = &shared->head->slot[from];
    if (!wait_for(&slot->laid, move->number, move)) {
        return SHARED_GIVEN_UP;
    }
    if (atomic_load_explicit(&slot->laid, memory_order_acquire) != move->number ||
        slot->kind != move->kind || slot->bytes != move->bytes) {
        return SHARED_APART;
    }
    memcpy(move->receive + (size_t)from * move->receive_stride,
           box_of(shared, from, move->send_stride > 0 ? shared->rank : from), move->bytes);
    atomic_store_explicit(&slot->taken[shared->rank], move->number, memory_order_release);
    return SHARED_DONE;
}

/* Who is waited for may wait for another: the one that is farthest behind is at fault. */
static void find_last(const struct shared *shared, uint32_t number, int *rank)
{
    for (int p = 0; p < shared->ranks; p++) {
        uint32_t begun = atomic_load(&shared->head->slot[p].begun);
        if (p != shared->rank && begun < number) {
            number = begun;
            *rank = p;
        }
    }
}

enum shared_result shared_exchange(struct shared *shared, const struct shared_move *move, int *rank)
{
    atomic_store(&shared->head->slot[shared->rank].begun, move->number);
    enum shared_result result = move->send ? lay(shared, move, rank) : SHARED_DONE;
    /* Each begins with the one behind it, so that not all read the same boxes at once. */
    for (int i = 1; result == SHARED_DONE && move->receive && i < shared->ranks; i++) {
        int p = (shared->rank + i) % shared->ranks;
        if (move->from < 0 || move->from == p) {
            *rank = p;
            result = take(shared, move, p);
        }
    }
    if (result == SHARED_GIVEN_UP) {
        find_last(shared, move->number, rank);
    }
    return result;
}
