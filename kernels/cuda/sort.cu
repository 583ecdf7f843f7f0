/*
 * Sorting of 64-bit keys: runs of SORT_RUN in shared memory, then pairs of runs merged by rank
 * until one is left. Keys that differ have one order only, so that nothing depends on that of the
 * threads.
 *
 * Floor: 16 bytes a key for the runs and for each of the log2(count / SORT_RUN) merges; at the
 * sizes of a training step all of it stays in the cache.
 */
#include "kernels/cuda/sort.cuh"

#include "kernels/cuda/check.cuh"
#include "kernels/cuda/vector.cuh"

enum { SORT_RUN = 1024, SORT_THREADS = SORT_RUN / 2 };

/* A bitonic network; what lies behind the last key sorts to the end. */
static __global__ void sort_runs_kernel(uint64_t *keys, int64_t count)
{
    __shared__ uint64_t key[SORT_RUN];
    int64_t first = (int64_t)blockIdx.x * SORT_RUN;
    for (int i = (int)threadIdx.x; i < SORT_RUN; i += SORT_THREADS) {
        key[i] = first + i < count ? keys[first + i] : UINT64_MAX;
    }
    __syncthreads();
    for (int size = 2; size <= SORT_RUN; size *= 2) {
        for (int stride = size / 2; stride > 0; stride /= 2) {
            int low = (int)threadIdx.x / stride * 2 * stride + (int)threadIdx.x % stride;
            int high = low + stride;
            uint64_t a = key[low];
            uint64_t b = key[high];
            if ((a > b) == ((low & size) == 0)) {
                key[low] = b;
                key[high] = a;
            }
            __syncthreads();
        }
    }
    for (int i = (int)threadIdx.x; i < SORT_RUN && first + i < count; i += SORT_THREADS) {
        keys[first + i] = key[i];
    }
}

/* Merges runs of `run` keys, two by two: a key's place is its own in its run, and as many places
 * further as the other run has smaller keys. Of equal keys those of the lower run come first. */
static __global__ void merge_runs_kernel(uint64_t *to, const uint64_t *from, int64_t run,
                                         int64_t count)
{
    int64_t at = thread_number();
    if (at >= count) {
        return;
    }
    uint64_t key = from[at];
    int64_t pair = at / (2 * run) * 2 * run;
    bool upper = at >= pair + run;
    int64_t first = upper ? pair : pair + run;
    int64_t begin = first < count ? first : count;
    int64_t low = begin;
    int64_t high = first + run < count ? first + run : count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (from[middle] < key || (upper && from[middle] == key)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    to[at - (upper ? run : 0) + (low - begin)] = key;
}

uint64_t *cuda_sort(struct backend *be, uint64_t *keys, uint64_t *spare, int64_t count)
{
    if (count == 0) {
        return keys;
    }
    LAUNCH(sort_runs_kernel, (unsigned)((count + SORT_RUN - 1) / SORT_RUN), SORT_THREADS, 0,
           cuda_stream(be), keys, count);
    for (int64_t run = SORT_RUN; run < count; run *= 2) {
        LAUNCH(merge_runs_kernel, cuda_blocks(count), BLOCK_THREADS, 0, cuda_stream(be), spare,
               keys, run, count);
        uint64_t *swap = keys;
        keys = spare;
        spare = swap;
    }
    return keys;
}
