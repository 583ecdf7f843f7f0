/*
 * Eigenvectors by LAPACK's dsyevr (Dhillon, Parlett, Voemel, "The design and implementation of the
 * MRRR algorithm", ACM TOMS 32, 2006), in double: the matrix is a product of gradients, whose
 * eigenvalues are squares and spread over twice as many decades.
 */
#include "kernels/eigen.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#ifdef KERNELS_LAPACK

#include <omp.h>

/* LAPACK has no header of its own in C: all arguments by address, lengths of words at the end. */
extern void dsyevr_(const char *job, const char *range, const char *triangle, const int *n,
                    double *a, const int *a_stride, const double *low, const double *high,
                    const int *first, const int *last, const double *tolerance, int *found,
                    double *values, double *vectors, const int *vectors_stride, int *support,
                    double *work, const int *work_count, int *iwork, const int *iwork_count,
                    int *info, size_t job_length, size_t range_length, size_t triangle_length);

/* OpenBLAS may stand in for LAPACK, with threads of its own. */
extern void openblas_set_num_threads(int threads) __attribute__((weak));

enum { DOUBLES = 26, INTEGERS = 10 }; /* work of dsyevr, for each row */

bool eigen_built(void)
{
    return true;
}

size_t eigen_work_bytes(int64_t size, int64_t count)
{
    int64_t doubles = size * size + size * count + (DOUBLES + 1) * size;
    int64_t integers = INTEGERS * size + 2 * size;
    return (size_t)doubles * sizeof(double) + (size_t)integers * sizeof(int);
}

static bool finite_matrix(const float *matrix, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        if (!isfinite(matrix[i])) {
            return false;
        }
    }
    return true;
}

static void unit_vectors(const struct eigen *args)
{
    memset(args->vectors, 0, (size_t)(args->size * args->count) * sizeof *args->vectors);
    for (int64_t j = 0; j < args->count; j++) {
        args->vectors[j * args->count + j] = 1.0f;
    }
}

/* Column `j` of the result from a vector of LAPACK. */
static void take_vector(const struct eigen *args, int64_t j, const double *vector)
{
    int64_t largest = 0;
    for (int64_t i = 1; i < args->size; i++) {
        /* A component that is equal but for rounding must not decide. */
        if (fabs(vector[i]) > fabs(vector[largest]) * (1.0 + 1e-6)) {
            largest = i;
        }
    }
    double sign = vector[largest] < 0.0 ? -1.0 : 1.0;
    for (int64_t i = 0; i < args->size; i++) {
        args->vectors[i * args->count + j] = (float)(sign * vector[i]);
    }
}

static int call_lapack(const struct eigen *args, double *a, double *vectors, double *rest)
{
    int n = (int)args->size;
    int first = n - (int)args->count + 1;
    int work_count = DOUBLES * n;
    int integer_count = INTEGERS * n;
    double *values = rest + (int64_t)DOUBLES * n;
    int *integers = (int *)(values + n);
    double unused = 0.0;
    double tolerance = 0.0;
    int found = 0;
    int info = 0;
    int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    if (openblas_set_num_threads) {
        openblas_set_num_threads(1);
    }
    dsyevr_("V", "I", "U", &n, a, &n, &unused, &unused, &first, &n, &tolerance, &found, values,
            vectors, &n, integers + integer_count, rest, &work_count, integers, &integer_count,
            &info, 1, 1, 1);
    omp_set_num_threads(threads);
    return info != 0 ? info : found - (int)args->count;
}

int eigen_solve(const struct eigen *args, char *why, size_t why_size)
{
    int64_t size = args->size;
    int64_t count = args->count;
    if (size == 0 || count == 0) {
        return 0;
    }
    if (!finite_matrix(args->matrix, size * size)) {
        unit_vectors(args);
        return 0;
    }
    double *a = args->work;
    double *vectors = a + size * size;
    for (int64_t i = 0; i < size * size; i++) {
        a[i] = (double)args->matrix[i];
    }
    int status = call_lapack(args, a, vectors, vectors + size * count);
    if (status != 0) {
        snprintf(why, why_size, "LAPACK dsyevr fails with status %d", status);
        return -1;
    }
    for (int64_t j = 0; j < count; j++) {
        take_vector(args, j, vectors + (count - 1 - j) * size);
    }
    return 0;
}

#else

bool eigen_built(void)
{
    return false;
}

size_t eigen_work_bytes(int64_t size, int64_t count)
{
    (void)size;
    (void)count;
    return 0;
}

int eigen_solve(const struct eigen *args, char *why, size_t why_size)
{
    (void)args;
    snprintf(why, why_size, "this program was built without LAPACK");
    return -1;
}

#endif
