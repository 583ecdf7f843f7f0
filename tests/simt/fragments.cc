/*
 * The emulated tensor cores against plain loops: fragments are filled and read element by element
 * as the PTX ISA numbers them (mma.m16n8k16 with .bf16: elements a0 to a7, b0 to b3, c0 to c3 of a
 * lane), the product is compared with the one of the whole matrices, and what ldmatrix loads with
 * the fragments. Also that copies come late in one order of threads and at once in the other.
 */
#include "kernels/cuda/mma.cuh"

#include <stdio.h>

#include "simt/order.h"

enum { N = 16 };

struct matrices {
    uint16_t a[N][N]; /* rows, columns */
    uint16_t b[N][N];
    float before[N][N];
    float after[N][N];
    int wrong; /* fragments that were loaded otherwise */
};

static uint32_t pair(uint16_t low, uint16_t high)
{
    return (uint32_t)low | (uint32_t)high << 16;
}

/* The fragments of this lane, from the tables of the PTX ISA. */
static void fill(const struct matrices *x, uint32_t a[4], uint32_t b[4])
{
    unsigned group = threadIdx.x >> 2;
    unsigned member = threadIdx.x % 4;
    uint16_t element[8];
    for (unsigned i = 0; i < 8; i++) {
        bool upper = i < 2 || (i >= 4 && i < 6);
        unsigned row = upper ? group : group + 8;
        unsigned column = member * 2 + (i & 1) + (i < 4 ? 0 : 8);
        element[i] = x->a[row][column];
    }
    for (unsigned i = 0; i < 4; i++) {
        a[i] = pair(element[2 * i], element[2 * i + 1]);
    }
    for (unsigned half = 0; half < 2; half++) {
        for (unsigned i = 0; i < 4; i++) {
            unsigned row = member * 2 + (i & 1) + (i < 2 ? 0 : 8);
            element[i] = x->b[row][8 * half + group];
        }
        b[2 * half] = pair(element[0], element[1]);
        b[2 * half + 1] = pair(element[2], element[3]);
    }
}

static void multiply_kernel(struct matrices *x)
{
    uint32_t a[4];
    uint32_t b[4];
    float c[2][4];
    fill(x, a, b);
    for (int turn = 0; turn < 2; turn++) { /* to write, to read */
        for (unsigned half = 0; half < 2; half++) {
            for (unsigned i = 0; i < 4; i++) {
                unsigned row = (threadIdx.x >> 2) + (i < 2 ? 0 : 8);
                unsigned column = 8 * half + threadIdx.x % 4 * 2 + (i & 1);
                if (turn == 0) {
                    c[half][i] = x->before[row][column];
                } else {
                    x->after[row][column] = c[half][i];
                }
            }
        }
        if (turn == 0) {
            mma_pair(c[0], c[1], a, b);
        }
    }
}

/* A from its rows, B from its rows transposed, and B from the rows of its transpose. */
static void load_kernel(struct matrices *x)
{
    SHARED_POOL(uint16_t, pool);
    uint16_t *columns = pool + N * N;
    __shared__ uint4 space[N * N / 8]; /* aligned */
    uint16_t *rows = (uint16_t *)(void *)space;
    unsigned lane = threadIdx.x;
    uint32_t a[4];
    uint32_t b[4];
    uint32_t loaded[4];
    for (unsigned i = lane; i < N * N; i += WARP) {
        pool[i] = x->a[i / N][i % N];
        columns[i] = x->b[i % N][i / N];
        rows[i] = x->b[i / N][i % N];
    }
    __syncthreads();
    fill(x, a, b);
    matrix_load(loaded, pool + lane % 16 * N + lane / 16 * 8);
    x->wrong += memcmp(loaded, a, sizeof a) != 0;
    matrix_load_transposed(loaded, rows + lane % 16 * N + lane / 16 * 8);
    x->wrong += memcmp(loaded, b, sizeof b) != 0;
    matrix_load(loaded, columns + ((lane & 7) + (lane >> 4) * 8) * N + (lane >> 3 & 1) * 8);
    x->wrong += memcmp(loaded, b, sizeof b) != 0;
}

static void copy_kernel(const uint32_t *from, uint32_t *early, uint32_t *late)
{
    SHARED_POOL(uint32_t, pool);
    copy_begin(pool, from, true);
    copy_begin(pool + 4, from, false);
    copy_begin_word(pool + 8, from + 1, true);
    *early = pool[0];
    copy_wait();
    for (int i = 0; i < 9; i++) {
        late[i] = pool[i];
    }
}

static int check_product(struct matrices *x)
{
    int wrong = 0;
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < N; j++) {
            double sum = (double)x->before[i][j];
            for (int k = 0; k < N; k++) {
                sum += (double)bf16_to_float(x->a[i][k]) * (double)bf16_to_float(x->b[k][j]);
            }
            wrong += fabs(sum - (double)x->after[i][j]) > 1e-5;
        }
    }
    return wrong;
}

static int check_copies(bool at_once)
{
    alignas(16) uint32_t from[4] = { 11, 12, 13, 14 };
    const uint32_t expected[9] = { 11, 12, 13, 14, 0, 0, 0, 0, 12 };
    uint32_t early = 0;
    uint32_t late[9];
    const uint32_t *given = from;
    uint32_t *first = &early;
    uint32_t *last = late;
    simt_reverse(at_once);
    LAUNCH(copy_kernel, 1, 1, 36, NULL, given, first, last);
    return (early == (at_once ? 11 : 0xffffffffu) ? 0 : 1) +
           (memcmp(late, expected, sizeof late) == 0 ? 0 : 1);
}

int main(void)
{
    static struct matrices x;
    struct matrices *given = &x;
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < N; j++) {
            x.a[i][j] = bf16_from_float((float)((i * 37 + j * 11) % 29 - 14) / 8.0f);
            x.b[i][j] = bf16_from_float((float)((i * 13 + j * 31) % 23 - 11) / 4.0f);
            x.before[i][j] = (float)(i - 2 * j);
        }
    }
    int wrong = 0;
    for (int reverse = 0; reverse < 2; reverse++) {
        simt_reverse(reverse != 0);
        memset(x.after, 0xff, sizeof x.after);
        LAUNCH(multiply_kernel, 1, WARP, 0, NULL, given);
        LAUNCH(load_kernel, 1, WARP, 2 * N * N * sizeof(uint16_t), NULL, given);
        wrong += check_product(&x) + check_copies(reverse != 0);
    }
    printf("%d elements, %d fragments are wrong\n", wrong, x.wrong);
    return wrong + x.wrong > 0 ? 1 : 0;
}
