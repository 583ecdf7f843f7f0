/*
 * cuSOLVER's cusolverDnXsyevd through a table of its functions.
 *
 * Xsyevd came with CUDA 11.1 and has had the same arguments since, so what is used of the interface
 * is declared here: a program finds any of three major versions of the library, and is built
 * without its headers. Where they are, the compiler compares. By default the library computes the
 * same bits each time (CUSOLVER_DETERMINISTIC_RESULTS).
 */
#include "kernels/cuda/cusolver.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/libraries.h"

enum { SUCCESS = 0, EIG_MODE_VECTOR = 1, FILL_MODE_LOWER = 0, REAL_64F = 1 };

struct functions {
    int (*create)(void **handle);
    int (*destroy)(void *handle);
    int (*set_stream)(void *handle, void *stream);
    int (*create_params)(void **params);
    int (*destroy_params)(void *params);
    int (*size)(void *handle, void *params, int mode, int triangle, int64_t n, int matrix_type,
                const void *matrix, int64_t stride, int value_type, const void *values,
                int compute_type, size_t *device_bytes, size_t *host_bytes);
    int (*solve)(void *handle, void *params, int mode, int triangle, int64_t n, int matrix_type,
                 void *matrix, int64_t stride, int value_type, void *values, int compute_type,
                 void *device_work, size_t device_bytes, void *host_work, size_t host_bytes,
                 int *info);
};

#if defined(__has_include)
#if __has_include(<cusolverDn.h>)
#include <cusolverDn.h>

_Static_assert(CUSOLVER_STATUS_SUCCESS == (int)SUCCESS &&
                   CUSOLVER_EIG_MODE_VECTOR == (int)EIG_MODE_VECTOR &&
                   CUBLAS_FILL_MODE_LOWER == (int)FILL_MODE_LOWER && CUDA_R_64F == (int)REAL_64F &&
                   sizeof(cusolverStatus_t) == sizeof(int) && sizeof(cudaDataType) == sizeof(int),
               "the numbers of cuSOLVER");
/* Assigned to types of its own, a function of other arguments would not compile. */
_Static_assert(__builtin_types_compatible_p(
                   __typeof__(&cusolverDnXsyevd),
                   cusolverStatus_t (*)(cusolverDnHandle_t, cusolverDnParams_t, cusolverEigMode_t,
                                        cublasFillMode_t, int64_t, cudaDataType, void *, int64_t,
                                        cudaDataType, void *, cudaDataType, void *, size_t, void *,
                                        size_t, int *)),
               "the arguments of cusolverDnXsyevd");
_Static_assert(__builtin_types_compatible_p(
                   __typeof__(&cusolverDnXsyevd_bufferSize),
                   cusolverStatus_t (*)(cusolverDnHandle_t, cusolverDnParams_t, cusolverEigMode_t,
                                        cublasFillMode_t, int64_t, cudaDataType, const void *,
                                        int64_t, cudaDataType, const void *, cudaDataType, size_t *,
                                        size_t *)),
               "the arguments of cusolverDnXsyevd_bufferSize");
#endif
#endif

struct cusolver {
    void *library;
    struct functions call;
    void *handle;
    void *params;
    void *host; /* what the library works in on the host, until the next solution is asked for */
};

/* ---- opening -------------------------------------------------------------------------------- */

static int find_functions(struct cusolver *solver, char *why, size_t why_size)
{
    struct {
        const char *name;
        void *pointer;
    } wanted[] = {
        { "cusolverDnCreate", &solver->call.create },
        { "cusolverDnDestroy", &solver->call.destroy },
        { "cusolverDnSetStream", &solver->call.set_stream },
        { "cusolverDnCreateParams", &solver->call.create_params },
        { "cusolverDnDestroyParams", &solver->call.destroy_params },
        { "cusolverDnXsyevd_bufferSize", &solver->call.size },
        { "cusolverDnXsyevd", &solver->call.solve },
    };
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        void *found = dlsym(solver->library, wanted[i].name);
        if (found == NULL) {
            snprintf(why, why_size, "libcusolver has no %s", wanted[i].name);
            return -1;
        }
        memcpy(wanted[i].pointer, &found, sizeof found);
    }
    return 0;
}

/* On an emulated device the real library would be given addresses that no device knows. */
#ifdef CUSOLVER_STAND_IN
static const char *const stand_in = CUSOLVER_STAND_IN;
#else
static const char *const stand_in = NULL;
#endif

static int start(struct cusolver *solver, void *stream, char *why, size_t why_size)
{
    solver->library = library_open(LIBRARY_CUSOLVER, stand_in);
    if (solver->library == NULL) {
        snprintf(why, why_size, "libcusolver cannot be opened");
        return -1;
    }
    if (find_functions(solver, why, why_size) != 0) {
        return -1;
    }
    int status = solver->call.create(&solver->handle);
    if (status != SUCCESS) {
        solver->handle = NULL;
        snprintf(why, why_size, "cuSOLVER does not start (status %d)", status);
        return -1;
    }
    status = solver->call.create_params(&solver->params);
    if (status != SUCCESS) {
        solver->params = NULL;
    } else {
        status = solver->call.set_stream(solver->handle, stream);
    }
    if (status != SUCCESS) {
        snprintf(why, why_size, "cuSOLVER takes no stream (status %d)", status);
        return -1;
    }
    return 0;
}

struct cusolver *cusolver_open(void *stream, char *why, size_t why_size)
{
    struct cusolver *solver = calloc(1, sizeof *solver);
    if (solver == NULL) {
        snprintf(why, why_size, "out of memory");
        return NULL;
    }
    if (start(solver, stream, why, why_size) != 0) {
        cusolver_close(solver);
        return NULL;
    }
    return solver;
}

void cusolver_close(struct cusolver *solver)
{
    if (solver == NULL) {
        return;
    }
    if (solver->params != NULL) {
        solver->call.destroy_params(solver->params);
    }
    if (solver->handle != NULL) {
        solver->call.destroy(solver->handle);
    }
    if (solver->library != NULL) {
        dlclose(solver->library);
    }
    free(solver->host);
    free(solver);
}

/* ---- solving -------------------------------------------------------------------------------- */

int cusolver_solve(struct cusolver *solver, const struct cusolver_problem *args, char *why,
                   size_t why_size)
{
    long long n = (long long)args->size;
    size_t device_bytes = 0;
    size_t host_bytes = 0;
    int status = solver->call.size(solver->handle, solver->params, EIG_MODE_VECTOR, FILL_MODE_LOWER,
                                   args->size, REAL_64F, args->matrix, args->size, REAL_64F,
                                   args->values, REAL_64F, &device_bytes, &host_bytes);
    if (status != SUCCESS) {
        snprintf(why, why_size, "cuSOLVER does not take %lld rows (status %d)", n, status);
        return -1;
    }
    if (device_bytes > args->work_bytes) {
        snprintf(why, why_size,
                 "cuSOLVER wants %zu bytes to work in for %lld rows, planned are %zu", device_bytes,
                 n, args->work_bytes);
        return -1;
    }
    free(solver->host);
    solver->host = malloc(host_bytes + 1);
    if (solver->host == NULL) {
        snprintf(why, why_size, "cuSOLVER wants %zu bytes of the host", host_bytes);
        return -1;
    }
    status = solver->call.solve(solver->handle, solver->params, EIG_MODE_VECTOR, FILL_MODE_LOWER,
                                args->size, REAL_64F, args->matrix, args->size, REAL_64F,
                                args->values, REAL_64F, args->work, args->work_bytes, solver->host,
                                host_bytes, args->info);
    if (status != SUCCESS) {
        snprintf(why, why_size, "cuSOLVER cannot solve %lld rows (status %d)", n, status);
        return -1;
    }
    return 0;
}
