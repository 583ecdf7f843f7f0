/*
 * Eigenvectors of symmetric matrices (kernels/ops.h) by cuSOLVER on a copy in double, or by the
 * host (kernels/eigen.h), where the library is absent, wants more memory than is planned, or fails.
 *
 * A matrix that is not finite never reaches the library, whose iterations might not end. Signs are
 * chosen by the host's rule, in its order, by one thread a column: that costs a thousandth of the
 * solution.
 */
#include <stdio.h>
#include <stdlib.h>

#include "kernels/backend_private.h"
#include "kernels/cuda/check.cuh"
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/scratch.h"
#include "kernels/cuda/vector.cuh"
#include "kernels/eigen.h"

enum { FLAG_INFINITE, FLAG_INFO, FLAG_COUNT };

/* The pieces of the scratch (scratch_eigenvectors). */
struct solving {
    double *matrix;
    double *values;
    int *flag; /* FLAG_COUNT of them */
    void *work;
    int64_t size, count;
};

/* All threads that find something store the same. */
static __global__ void widen_kernel(struct solving s, const float *matrix)
{
    int64_t at = thread_number();
    if (at < s.size * s.size) {
        float x = matrix[at];
        s.matrix[at] = (double)x;
        if (!isfinite(x)) {
            s.flag[FLAG_INFINITE] = 1;
        }
    }
}

/* Column j of the result is the j-th from the end of the solution. */
static __global__ void take_kernel(struct solving s, float *vectors)
{
    int64_t j = thread_number();
    if (j >= s.count) {
        return;
    }
    const double *vector = s.matrix + (s.size - 1 - j) * s.size;
    double largest = vector[0];
    for (int64_t i = 1; i < s.size; i++) {
        /* A component that is equal but for rounding must not decide. */
        if (fabs(vector[i]) > fabs(largest) * (1.0 + 1e-6)) {
            largest = vector[i];
        }
    }
    double sign = largest < 0.0 ? -1.0 : 1.0;
    for (int64_t i = 0; i < s.size; i++) {
        vectors[i * s.count + j] = (float)(sign * vector[i]);
    }
}

static __global__ void unit_kernel(struct solving s, float *vectors)
{
    int64_t at = thread_number();
    if (at < s.size * s.count) {
        vectors[at] = at / s.count == at % s.count ? 1.0f : 0.0f;
    }
}

/* The library, opened by the first who asks. NULL with the reason in be->host_solver. */
static struct cusolver *solver_of(struct backend *be)
{
    struct cuda_state *state = cuda_state_of(be);
    if (!state->solver_sought) {
        state->solver_sought = true;
        state->solver = cusolver_open(state->stream, be->host_solver, sizeof be->host_solver);
    }
    return state->solver;
}

static bool pieces(struct backend *be, struct solving *s)
{
    size_t matrix = scratch_aligned((size_t)(s->size * s->size) * sizeof(double));
    size_t values = scratch_aligned((size_t)s->size * sizeof(double));
    char *at = (char *)cuda_scratch(be, scratch_eigenvectors(s->size, s->count));
    if (at == NULL) {
        return false;
    }
    s->matrix = (double *)(void *)at;
    s->values = (double *)(void *)(at + matrix);
    s->flag = (int *)(void *)(at + matrix + values);
    s->work = at + matrix + values + scratch_aligned(FLAG_COUNT * sizeof(int));
    return true;
}

/* Whether the host has nothing left to do: the device did it, or failed altogether. */
static bool solve_there(struct backend *be, const struct solving *s, float *vectors,
                        const float *matrix)
{
    struct cusolver *solver = solver_of(be);
    struct cusolver_problem problem;
    int flag[FLAG_COUNT] = { 0, 0 };
    if (solver == NULL) {
        return false;
    }
    cudaMemsetAsync(s->flag, 0, FLAG_COUNT * sizeof(int), cuda_stream(be));
    LAUNCH(widen_kernel, cuda_blocks(s->size * s->size), BLOCK_THREADS, 0, cuda_stream(be), *s,
           matrix);
    backend_download(be, flag, s->flag, sizeof flag);
    if (be->failed) {
        return true;
    }
    if (flag[FLAG_INFINITE] != 0) {
        LAUNCH(unit_kernel, cuda_blocks(s->size * s->count), BLOCK_THREADS, 0, cuda_stream(be), *s,
               vectors);
        return true;
    }
    problem.size = s->size;
    problem.matrix = s->matrix;
    problem.values = s->values;
    problem.info = s->flag + FLAG_INFO;
    problem.work = s->work;
    problem.work_bytes = scratch_solver(s->size);
    if (cusolver_solve(solver, &problem, be->host_solver, sizeof be->host_solver) != 0) {
        return false;
    }
    backend_download(be, flag, s->flag, sizeof flag);
    if (be->failed) {
        return true;
    }
    if (flag[FLAG_INFO] != 0) {
        snprintf(be->host_solver, sizeof be->host_solver, "cuSOLVER found no solution (info %d)",
                 flag[FLAG_INFO]);
        return false;
    }
    LAUNCH(take_kernel, cuda_blocks(s->count), BLOCK_THREADS, 0, cuda_stream(be), *s, vectors);
    return true;
}

static void solve_here(struct backend *be, struct tensor *vectors, const struct tensor *matrix)
{
    char why[128];
    struct eigen eigen;
    size_t matrix_bytes = tensor_bytes(matrix);
    size_t vectors_bytes = tensor_bytes(vectors);
    eigen.size = tensor_rows(matrix);
    eigen.count = tensor_columns(vectors);
    size_t work_bytes = eigen_work_bytes(eigen.size, eigen.count);
    char *host = (char *)malloc(work_bytes + matrix_bytes + vectors_bytes + 1);
    if (host == NULL) {
        backend_fail(be, "eigenvectors: out of memory on the host");
        return;
    }
    eigen.work = host;
    eigen.matrix = (const float *)(void *)(host + work_bytes);
    eigen.vectors = (float *)(void *)(host + work_bytes + matrix_bytes);
    backend_download(be, host + work_bytes, matrix->data, matrix_bytes);
    if (eigen_solve(&eigen, why, sizeof why) != 0) {
        backend_fail(be, "eigenvectors: %s", why);
    }
    backend_upload(be, vectors->data, eigen.vectors, vectors_bytes);
    free(host);
    be->tally.host_solves++;
}

void cuda_eigenvectors(struct backend *be, struct tensor *vectors, const struct tensor *matrix)
{
    struct solving s;
    s.size = tensor_rows(matrix);
    s.count = tensor_columns(vectors);
    if (s.size == 0 || s.count == 0 || !pieces(be, &s)) {
        return;
    }
    if (!solve_there(be, &s, (float *)vectors->data, (const float *)matrix->data)) {
        solve_here(be, vectors, matrix);
    }
    cuda_check(be, "eigenvectors");
}
