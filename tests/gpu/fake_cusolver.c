/*
 * A libcusolver for tests, for matrices in the memory of the emulated device, told what to do by
 * FAKE_CUSOLVER: words of
 *   no-start   cusolverDnCreate fails
 *   refuse     the question for the workspace fails
 *   hungry     it wants a byte more than is planned for any size
 *   most       it wants 3 n^2 + 256 n doubles, of which it uses each
 *   fail       the solution fails after the matrix was written over
 *   unsolved   the solution tells of no convergence, likewise
 * Built with FAKE_CUSOLVER_OLD it lacks cusolverDnXsyevd.
 *
 * It solves by rotations (C. G. J. Jacobi, Crelle's Journal 30, 1846), and gives every other vector
 * the sign that nobody wants.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 3, EXECUTION_FAILED = 6 };
enum { ROUNDS = 60, HOST_BYTES = 1000 };

#define EXPORT __attribute__((visibility("default")))

struct handle {
    void *stream;
};

static int word(const char *name)
{
    const char *all = getenv("FAKE_CUSOLVER");
    return all != NULL && strstr(all, name) != NULL;
}

EXPORT int cusolverDnCreate(struct handle **out);
EXPORT int cusolverDnDestroy(struct handle *handle);
EXPORT int cusolverDnSetStream(struct handle *handle, void *stream);
EXPORT int cusolverDnCreateParams(void **out);
EXPORT int cusolverDnDestroyParams(void *params);
EXPORT int cusolverDnXsyevd_bufferSize(struct handle *handle, void *params, int mode, int triangle,
                                       int64_t n, int matrix_type, const void *matrix,
                                       int64_t stride, int value_type, const void *values,
                                       int compute_type, size_t *device_bytes, size_t *host_bytes);
EXPORT int cusolverDnXsyevd(struct handle *handle, void *params, int mode, int triangle, int64_t n,
                            int matrix_type, void *matrix, int64_t stride, int value_type,
                            void *values, int compute_type, void *device_work, size_t device_bytes,
                            void *host_work, size_t host_bytes, int *info);

int cusolverDnCreate(struct handle **out)
{
    *out = word("no-start") ? NULL : calloc(1, sizeof **out);
    return *out == NULL ? NOT_INITIALIZED : SUCCESS;
}

int cusolverDnDestroy(struct handle *handle)
{
    free(handle);
    return SUCCESS;
}

int cusolverDnSetStream(struct handle *handle, void *stream)
{
    handle->stream = stream;
    return SUCCESS;
}

int cusolverDnCreateParams(void **out)
{
    *out = malloc(1);
    return *out == NULL ? NOT_INITIALIZED : SUCCESS;
}

int cusolverDnDestroyParams(void *params)
{
    free(params);
    return SUCCESS;
}

static size_t wanted(int64_t n)
{
    size_t usual = (size_t)(2 * n * n + 6 * n + 1) * sizeof(double);
    size_t most = (size_t)(3 * n * n + 256 * n) * sizeof(double);
    size_t planned = most + ((size_t)1 << 18) * sizeof(double);
    return word("hungry") ? planned + 1 : word("most") ? most : usual;
}

/* Vectors wanted (1), the lower triangle (0), doubles (1) all over, columns without gaps. */
static int good(const struct handle *handle, const void *params, const int numbers[5])
{
    return handle->stream != NULL && params != NULL && numbers[0] == 1 && numbers[1] == 0 &&
           numbers[2] == 1 && numbers[3] == 1 && numbers[4] == 1;
}

int cusolverDnXsyevd_bufferSize(struct handle *handle, void *params, int mode, int triangle,
                                int64_t n, int matrix_type, const void *matrix, int64_t stride,
                                int value_type, const void *values, int compute_type,
                                size_t *device_bytes, size_t *host_bytes)
{
    const int numbers[5] = { mode, triangle, matrix_type, value_type, compute_type };
    if (!good(handle, params, numbers) || matrix == NULL || values == NULL || stride != n ||
        word("refuse")) {
        return INVALID_VALUE;
    }
    *device_bytes = wanted(n);
    *host_bytes = HOST_BYTES;
    return SUCCESS;
}

#ifndef FAKE_CUSOLVER_OLD

/* Rows and columns p and q of a, and columns p and q of v, turned until a[p, q] is zero. */
static void rotate(double *a, double *v, int64_t n, int64_t p, int64_t q)
{
    double theta = (a[q + q * n] - a[p + p * n]) / (2.0 * a[p + q * n]);
    double t = (theta < 0.0 ? -1.0 : 1.0) / (fabs(theta) + sqrt(theta * theta + 1.0));
    double c = 1.0 / sqrt(t * t + 1.0);
    double s = t * c;
    for (int64_t i = 0; i < n; i++) {
        double x = a[i + p * n];
        double y = a[i + q * n];
        a[i + p * n] = c * x - s * y;
        a[i + q * n] = s * x + c * y;
    }
    for (int64_t i = 0; i < n; i++) {
        double x = a[p + i * n];
        double y = a[q + i * n];
        a[p + i * n] = c * x - s * y;
        a[q + i * n] = s * x + c * y;
        x = v[i + p * n];
        y = v[i + q * n];
        v[i + p * n] = c * x - s * y;
        v[i + q * n] = s * x + c * y;
    }
}

static void diagonalise(double *a, double *v, int64_t n)
{
    for (int64_t i = 0; i < n * n; i++) {
        v[i] = i / n == i % n ? 1.0 : 0.0;
        /* Of the matrix only the lower triangle counts: column i / n, row i % n. */
        a[i] = i % n < i / n ? a[i / n + i % n * n] : a[i];
    }
    for (int round = 0; round < ROUNDS; round++) {
        for (int64_t p = 0; p < n; p++) {
            for (int64_t q = p + 1; q < n; q++) {
                if (fabs(a[p + q * n]) > 1e-300) {
                    rotate(a, v, n, p, q);
                }
            }
        }
    }
}

/* Eigenvalues in rising order, and their vectors into the matrix. */
static void sort(double *a, double *v, double *values, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        values[i] = a[i + i * n];
    }
    for (int64_t to = 0; to < n; to++) {
        int64_t least = to;
        for (int64_t i = to; i < n; i++) {
            least = values[i] < values[least] ? i : least;
        }
        double value = values[least];
        values[least] = values[to];
        values[to] = value;
        for (int64_t i = 0; i < n; i++) {
            double x = v[i + least * n];
            v[i + least * n] = v[i + to * n];
            v[i + to * n] = x;
            a[i + to * n] = to % 2 == 0 ? x : -x;
        }
    }
}

int cusolverDnXsyevd(struct handle *handle, void *params, int mode, int triangle, int64_t n,
                     int matrix_type, void *matrix, int64_t stride, int value_type, void *values,
                     int compute_type, void *device_work, size_t device_bytes, void *host_work,
                     size_t host_bytes, int *info)
{
    const int numbers[5] = { mode, triangle, matrix_type, value_type, compute_type };
    if (!good(handle, params, numbers) || stride != n || device_bytes < wanted(n) ||
        host_bytes < HOST_BYTES) {
        return INVALID_VALUE;
    }
    memset(device_work, 0x55, wanted(n));
    memset(host_work, 0x55, HOST_BYTES);
    *info = 0;
    if (word("fail") || word("unsolved")) {
        memset(matrix, 0x55, (size_t)(n * n) * sizeof(double));
        *info = word("unsolved") ? 7 : 0;
        return word("fail") ? EXECUTION_FAILED : SUCCESS;
    }
    diagonalise(matrix, device_work, n);
    sort(matrix, device_work, values, n);
    return SUCCESS;
}

#endif
