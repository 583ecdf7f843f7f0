/* The emulation of simt.h: fibres and barriers. */
#include "simt/simt.h"

#include <stdio.h>
#include <stdlib.h>
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
#define OWN_SWITCH 1
#else
#define OWN_SWITCH 0
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#include "simt/order.h"
#include "simt/queue.h"

enum { THREAD_MAX = 1024, LANES = 32, STACK_BYTES = 128 * 1024, GRID_Y_MAX = 65535 };
enum { SHARE_BYTES = 32, COPY_MAX = 256 };
enum wait { READY, AT_WARP, AT_BLOCK, DONE };

/* Where a stack was left. Almost all time of the emulation is spent in switching: the C library's
 * contexts make two system calls for each, and the sanitizer then clears its notes of the whole
 * stack. What x86-64 has to keep across a call is six registers. */
struct place {
#if OWN_SWITCH
    void *top; /* of the stack, where the registers lie */
#else
    ucontext_t context;
#endif
};

/* A fibre runs one thread after the other until one of them has to wait; that one then keeps it. */
struct fibre {
    struct place place;
    void *fake_stack; /* the sanitizer's */
    char *stack;
};

struct copy {
    void *to;
    const void *from; /* NULL: zeros */
    size_t bytes;
};

struct thread {
    struct fibre *fibre; /* NULL: not begun */
    enum wait wait;
    unsigned turn; /* which half of `given` is written next */
    unsigned char given[2][SHARE_BYTES];
    struct copy copy[COPY_MAX]; /* begun, not waited for */
    int copies;
};

static struct {
    struct fibre fibre[THREAD_MAX];
    struct thread thread[THREAD_MAX];
    unsigned fibres; /* in use */
    unsigned begun;  /* threads */
    struct place scheduler;
    void *scheduler_fake_stack;
    const void *scheduler_stack;
    size_t scheduler_stack_bytes;
    struct thread *current;
    unsigned threads;
    void (*body)(void *);
    void *state;
    unsigned char *pool;
    bool reverse;
} simt;

struct uint3 threadIdx;
struct uint3 blockIdx;
struct uint3 blockDim;
struct uint3 gridDim;

extern "C" {
extern unsigned char __start_simt_shared[];
extern unsigned char __stop_simt_shared[];

void simt_reverse(bool reverse)
{
    simt.reverse = reverse;
}
}

static void give_up(const char *why)
{
    fprintf(stderr, "block (%u, %u, %u): %s\n", blockIdx.x, blockIdx.y, blockIdx.z, why);
    abort();
}

/* ---- places --------------------------------------------------------------------------------- */

#if OWN_SWITCH
extern "C" void simt_switch(void **left, void *top) __attribute__((visibility("hidden")));
__asm__(".text\n"
        ".globl simt_switch\n"
        ".hidden simt_switch\n"
        ".type simt_switch, @function\n"
        "simt_switch:\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    ret\n"
        ".size simt_switch, . - simt_switch\n");

static void place_switch(struct place *left, struct place *to)
{
    simt_switch(&left->top, to->top);
}

/* The begin of `body` on an empty stack: six registers, its address, and no caller. */
static void place_make(struct place *place, char *stack, void (*body)(void))
{
    enum { REGISTERS = 6, FRAMES = 1024 };
    void *first[REGISTERS + 2] = { NULL };
    memcpy(&first[REGISTERS], &body, sizeof body);
#if defined(__SANITIZE_ADDRESS__)
    ASAN_UNPOISON_MEMORY_REGION(stack + STACK_BYTES - FRAMES, FRAMES); /* those never left */
#endif
    place->top = stack + STACK_BYTES - sizeof first;
    memcpy(place->top, first, sizeof first);
}
#else
static void place_switch(struct place *left, struct place *to)
{
    swapcontext(&left->context, &to->context);
}

static void place_make(struct place *place, char *stack, void (*body)(void))
{
    getcontext(&place->context);
    place->context.uc_stack.ss_sp = stack;
    place->context.uc_stack.ss_size = STACK_BYTES;
    place->context.uc_link = NULL;
    makecontext(&place->context, body, 0);
}
#endif

/* ---- fibres --------------------------------------------------------------------------------- */

static void before_switch(void **fake_stack, const void *bottom, size_t bytes)
{
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(fake_stack, bottom, bytes);
#else
    (void)fake_stack;
    (void)bottom;
    (void)bytes;
#endif
}

static void after_switch(void *fake_stack, const void **bottom, size_t *bytes)
{
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake_stack, bottom, bytes);
#else
    (void)fake_stack;
    (void)bottom;
    (void)bytes;
#endif
}

static void to_scheduler(struct fibre *f, bool forever)
{
    before_switch(forever ? NULL : &f->fake_stack, simt.scheduler_stack,
                  simt.scheduler_stack_bytes);
    place_switch(&f->place, &simt.scheduler);
    after_switch(f->fake_stack, NULL, NULL);
}

static void pause_as(enum wait wait)
{
    simt.current->wait = wait;
    to_scheduler(simt.current->fibre, false);
}

/* Thread number `i` in the order of the day. */
static unsigned in_order(unsigned i)
{
    return simt.reverse ? simt.threads - 1 - i : i;
}

static void fibre_main(void)
{
    after_switch(NULL, &simt.scheduler_stack, &simt.scheduler_stack_bytes);
    struct fibre *self = &simt.fibre[simt.fibres - 1];
    while (simt.begun < simt.threads) {
        unsigned number = in_order(simt.begun++);
        simt.current = &simt.thread[number];
        simt.current->fibre = self;
        threadIdx.x = number;
        simt.body(simt.state);
        simt.current->wait = DONE;
        if (simt.current != &simt.thread[in_order(simt.begun - 1)]) {
            break; /* it had waited: the scheduler goes on */
        }
    }
    to_scheduler(self, true);
}

static void fibre_start(struct fibre *f)
{
    if (f->stack == NULL) {
        f->stack = (char *)malloc(STACK_BYTES);
        if (f->stack == NULL) {
            give_up("out of memory");
        }
    }
    f->fake_stack = NULL;
    place_make(&f->place, f->stack, fibre_main);
}

/* Goes on with a thread, or with all that have not begun until one waits. */
static void resume(unsigned number)
{
    struct fibre *f = simt.thread[number].fibre;
    if (f == NULL) {
        f = &simt.fibre[simt.fibres++];
        fibre_start(f);
    } else {
        simt.current = &simt.thread[number];
        threadIdx.x = number;
    }
    before_switch(&simt.scheduler_fake_stack, f->stack, STACK_BYTES);
    place_switch(&simt.scheduler, &f->place);
    after_switch(simt.scheduler_fake_stack, NULL, NULL);
}

/* ---- barriers ------------------------------------------------------------------------------- */

static unsigned count_waiting(unsigned first, unsigned count, enum wait wait)
{
    unsigned found = 0;
    for (unsigned i = first; i < first + count; i++) {
        found += simt.thread[i].wait == wait ? 1 : 0;
    }
    return found;
}

static bool release(unsigned first, unsigned count, enum wait wait)
{
    if (count_waiting(first, count, wait) != count) {
        return false;
    }
    for (unsigned i = first; i < first + count; i++) {
        simt.thread[i].wait = READY;
    }
    return true;
}

static void run_block(void)
{
    for (unsigned i = 0; i < simt.threads; i++) {
        simt.thread[i].fibre = NULL;
        simt.thread[i].wait = READY;
        simt.thread[i].turn = 0;
        simt.thread[i].copies = 0;
    }
    simt.fibres = 0;
    simt.begun = 0;
    while (count_waiting(0, simt.threads, DONE) < simt.threads) {
        bool moved = false;
        for (unsigned i = 0; i < simt.threads; i++) {
            unsigned number = in_order(i);
            if (simt.thread[number].wait == READY) {
                resume(number);
                moved = true;
            }
        }
        for (unsigned first = 0; first + LANES <= simt.threads; first += LANES) {
            moved = release(first, LANES, AT_WARP) || moved;
        }
        moved = release(0, simt.threads, AT_BLOCK) || moved;
        if (!moved) {
            give_up("a barrier or warp operation was not reached by all threads");
        }
    }
}

void __syncthreads(void)
{
    pause_as(AT_BLOCK);
}

void __syncwarp(void)
{
    pause_as(AT_WARP);
}

/* Two halves by turns: nobody writes where a slower lane may still have to read. */
unsigned simt_share(const void *data, size_t bytes)
{
    struct thread *self = simt.current;
    unsigned turn = self->turn;
    memcpy(self->given[turn], data, bytes);
    self->turn = 1 - turn;
    pause_as(AT_WARP);
    return turn;
}

const void *simt_given(unsigned lane, unsigned turn)
{
    return simt.thread[threadIdx.x / LANES * LANES + lane].given[turn];
}

double __shfl_xor_sync(unsigned lanes, double value, int mask)
{
    if (lanes != 0xffffffffu) {
        give_up("only whole warps are emulated");
    }
    unsigned turn = simt_share(&value, sizeof value);
    double other;
    memcpy(&other, simt_given(threadIdx.x % LANES ^ (unsigned)mask, turn), sizeof other);
    return other;
}

float __shfl_xor_sync(unsigned lanes, float value, int mask)
{
    return (float)__shfl_xor_sync(lanes, (double)value, mask);
}

int atomicAdd(int *at, int value)
{
    int old = *at;
    *at += value;
    return old;
}

/* ---- asynchronous copies -------------------------------------------------------------------- */

static void copy_now(const struct copy *c)
{
    if (c->from != NULL) {
        memcpy(c->to, c->from, c->bytes);
    } else {
        memset(c->to, 0, c->bytes);
    }
}

static void copy_later(void *shared, const void *global, bool inside, size_t bytes)
{
    struct thread *self = simt.current;
    struct copy c = { shared, inside ? global : NULL, bytes };
    if ((uintptr_t)shared % bytes != 0 || (uintptr_t)global % bytes != 0) {
        give_up("an asynchronous copy between addresses that are not aligned");
    }
    if (simt.reverse) {
        copy_now(&c);
    } else if (self->copies == COPY_MAX) {
        give_up("too many asynchronous copies at a time");
    } else {
        self->copy[self->copies++] = c;
    }
}

void copy_begin(void *shared, const void *global, bool inside)
{
    copy_later(shared, global, inside, 16);
}

void copy_begin_word(void *shared, const void *global, bool inside)
{
    copy_later(shared, global, inside, 4);
}

void copy_wait(void)
{
    for (int i = 0; i < simt.current->copies; i++) {
        copy_now(&simt.current->copy[i]);
    }
    simt.current->copies = 0;
}

/* ---- launches ------------------------------------------------------------------------------- */

void *simt_pool(void)
{
    return simt.pool;
}

bool simt_possible(struct dim3 grid, struct dim3 block, size_t shared_bytes)
{
    return block.y == 1 && block.z == 1 && block.x > 0 && block.x <= THREAD_MAX && grid.x > 0 &&
           grid.x <= INT32_MAX && grid.y > 0 && grid.y <= GRID_Y_MAX && grid.z > 0 &&
           grid.z <= GRID_Y_MAX && shared_bytes <= 99 * 1024;
}

void simt_run(struct dim3 grid, struct dim3 block, size_t shared_bytes, void (*body)(void *),
              void *state)
{
    simt.threads = block.x;
    simt.body = body;
    simt.state = state;
    gridDim = { grid.x, grid.y, grid.z };
    blockDim = { block.x, 1, 1 };
    void *pool = NULL;
    if (posix_memalign(&pool, 16, shared_bytes > 0 ? shared_bytes : 1) != 0) {
        give_up("out of memory");
    }
    simt.pool = (unsigned char *)pool;
    uint64_t blocks = (uint64_t)grid.x * grid.y * grid.z;
    for (uint64_t i = 0; i < blocks; i++) {
        uint64_t number = simt.reverse ? blocks - 1 - i : i;
        blockIdx = { (unsigned)(number % grid.x), (unsigned)(number / grid.x % grid.y),
                     (unsigned)(number / grid.x / grid.y) };
        memset(pool, 0xff, shared_bytes);
        memset(__start_simt_shared, 0xff, (size_t)(__stop_simt_shared - __start_simt_shared));
        run_block();
    }
    free(pool);
    simt.pool = NULL;
}

/* For a library of collectives that works in host memory (tests/gpu/fake_nccl.c). */
extern "C" __attribute__((visibility("default"))) int simt_finish(struct simt_stream *stream)
{
    return (int)cudaStreamSynchronize(stream);
}
