/*
 * Eigenvectors on a device through cuSOLVER, which is opened at run time, when the first matrix
 * asks for it: few programs need it, and opening takes it long.
 *
 * Everything here may fail without harm: the host has a solver too (kernels/eigen.h).
 */
#ifndef WINDROW_KERNELS_CUDA_CUSOLVER_H
#define WINDROW_KERNELS_CUDA_CUSOLVER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct cusolver;

/* Opens the library for the current device; it works in the order of `stream` (a cudaStream_t).
 * NULL, with a sentence in `why`, if it cannot be had. Its handle takes device memory of its own
 * that nobody plans, as those of the other libraries do (backend_measure_context). */
struct cusolver *cusolver_open(void *stream, char *why, size_t why_size);
void cusolver_close(struct cusolver *solver);

/* All on the device but `args` itself. */
struct cusolver_problem {
    int64_t size;
    double *matrix; /* (size, size) symmetric: the lower triangle, column-major, is read; then
                     * its unit eigenvectors, one a column, the smallest eigenvalue first */
    double *values; /* (size) */
    int *info;      /* 0: solved; known when the stream is done */
    void *work;     /* undefined before and after */
    size_t work_bytes;
};

/* Queues the solution. 0, or -1 with a sentence in `why`: then nothing was asked of the device, or
 * what was asked is worth nothing. It fails if the library wants more than work_bytes. The stream
 * has to be waited for before the next one. */
int cusolver_solve(struct cusolver *solver, const struct cusolver_problem *args, char *why,
                   size_t why_size);

#ifdef __cplusplus
}
#endif

#endif
