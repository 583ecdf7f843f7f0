/*
 * The graphs of operations that cuDNN is given: the library takes all descriptors and finalizes the
 * graph, forward and backward, for several shapes. Needs the library, but no device.
 *
 *   cudnn         exit 1 if a graph is refused, 77 if there is no library
 */
#include "kernels/cuda/cudnn.h"

#include <stdio.h>

static const struct cudnn_shape shapes[] = {
    { 1, 128, 2, 2, 32, false },     { 2, 256, 4, 2, 64, false },    { 3, 1024, 9, 3, 64, false },
    { 2, 2048, 32, 32, 128, false }, { 1, 8192, 32, 8, 128, false }, { 1, 256, 5, 1, 80, false },
    { 2, 384, 4, 4, 96, false },
};

int main(void)
{
    char why[256] = "";
    int bad = 0;
    int tried = 0;
    struct cudnn *cudnn = cudnn_open(why, sizeof why);
    if (cudnn == NULL) {
        printf("skipped: %s\n", why);
        return 77;
    }
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        for (int backward = 0; backward < 2; backward++, tried++) {
            struct cudnn_shape s = shapes[i];
            s.backward = backward != 0;
            size_t sums = (size_t)(s.batch * s.heads * s.sequence * s.head_size) * 4;
            bool enough = cudnn_scratch_bytes(&s) >= (s.backward ? sums : 1);
            if (!cudnn_takes(&s) || !enough || cudnn_try_graph(cudnn, &s, why, sizeof why) != 0) {
                printf("%s, %lld tokens, %lld/%lld heads of %lld: %s\n",
                       s.backward ? "backward" : "forward", (long long)s.sequence,
                       (long long)s.heads, (long long)s.kv_heads, (long long)s.head_size, why);
                bad++;
            }
        }
    }
    /* A head that the query heads cannot share, rows with a tail. */
    struct cudnn_shape wrong = { 1, 256, 5, 3, 64, true };
    struct cudnn_shape tail = { 1, 250, 4, 2, 64, false };
    bad += cudnn_try_graph(cudnn, &wrong, why, sizeof why) == 0 ? 1 : 0;
    bad += cudnn_takes(&tail) ? 1 : 0;
    printf("cuDNN %zu: %d of %d graphs are wrong\n", cudnn_version(cudnn), bad, tried);
    cudnn_close(cudnn);
    return bad > 0 ? 1 : 0;
}
