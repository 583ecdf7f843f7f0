/*
 * Eigenvectors of symmetric matrices on the host, by LAPACK where the program was built with it.
 */
#ifndef WINDROW_KERNELS_EIGEN_H
#define WINDROW_KERNELS_EIGEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

bool eigen_built(void);

/* Bytes of `work` for a matrix of `size` rows and `count` vectors. */
size_t eigen_work_bytes(int64_t size, int64_t count);

/* vectors (size, count), row-major: the unit eigenvectors of the `count` largest eigenvalues of
 * matrix (size, size), the largest first; the largest component of each (the first of equals) is
 * positive. The first unit vectors if the matrix is not finite. One thread, so that every machine
 * gives the same bits whatever it has. 0, or -1 with a sentence in `why`. */
struct eigen {
    float *vectors;
    const float *matrix;
    int64_t size;
    int64_t count;
    void *work;
};
int eigen_solve(const struct eigen *args, char *why, size_t why_size);

#ifdef __cplusplus
}
#endif

#endif
