/* Orthonormal bases, eigenvectors and random numbers in double. */
#include <math.h>
#include <stdlib.h>

#include "gpu/reference.h"

/* ---- orthonormal columns --------------------------------------------------------------------- */

/* Column j of y (rows, columns) loses what the columns before it explain, and gets length 1. False
 * if nothing is left. */
static bool orthogonal_column(double *y, int64_t rows, int64_t columns, int64_t j)
{
    double before = 0.0;
    double after = 0.0;
    for (int64_t i = 0; i < rows; i++) {
        before += y[i * columns + j] * y[i * columns + j];
    }
    for (int64_t k = 0; k < 2 * j; k++) { /* twice is enough (Parlett) */
        double sum = 0.0;
        for (int64_t i = 0; i < rows; i++) {
            sum += y[i * columns + j] * y[i * columns + k % j];
        }
        for (int64_t i = 0; i < rows; i++) {
            y[i * columns + j] -= sum * y[i * columns + k % j];
        }
    }
    for (int64_t i = 0; i < rows; i++) {
        after += y[i * columns + j] * y[i * columns + j];
    }
    bool some = after > 1e-6 * before;
    for (int64_t i = 0; i < rows; i++) {
        y[i * columns + j] = some ? y[i * columns + j] / sqrt(after) : 0.0;
    }
    return some;
}

/* Columns that the others explain are random numbers of the first round, made orthogonal in the
 * next. */
void reference_orthonormalize(struct backend *be, const struct orthonormalize *args)
{
    (void)be;
    double *y = numbers_of(args->y);
    int64_t rows = tensor_rows(args->y);
    int64_t columns = tensor_columns(args->y);
    struct random_key key = args->key;
    double *replaced = reference_room(columns);
    key.purpose = RANDOM_FILL;
    for (int64_t j = 0; j < columns; j++) {
        bool some = orthogonal_column(y, rows, columns, j);
        replaced[j] = some ? 0.0 : 1.0;
    }
    for (int64_t at = 0; at < rows * columns; at++) {
        bool keep = !(replaced[at % columns] > 0.0);
        y[at] = keep ? y[at] : (double)random_uniform(&key, (uint64_t)at) - 0.5;
    }
    for (int64_t j = 0; j < columns; j++) {
        (void)orthogonal_column(y, rows, columns, j);
    }
    free(replaced);
}

/* ---- eigenvectors ---------------------------------------------------------------------------- */

/* One rotation that makes element (p, q) of the symmetric a (n, n) zero; vectors in the columns of
 * v (Golub, Van Loan, "Matrix computations", section 8.5.2). */
static void rotate(double *a, double *v, int64_t n, int64_t p, int64_t q)
{
    double apq = a[p * n + q];
    if (!(fabs(apq) > 0.0)) {
        return;
    }
    double tau = (a[q * n + q] - a[p * n + p]) / (2.0 * apq);
    double t = (tau >= 0.0 ? 1.0 : -1.0) / (fabs(tau) + sqrt(1.0 + tau * tau));
    double c = 1.0 / sqrt(1.0 + t * t);
    double s = t * c;
    for (int64_t k = 0; k < n; k++) {
        double x = a[k * n + p];
        double y = a[k * n + q];
        a[k * n + p] = c * x - s * y;
        a[k * n + q] = s * x + c * y;
    }
    for (int64_t k = 0; k < n; k++) {
        double x = a[p * n + k];
        double y = a[q * n + k];
        a[p * n + k] = c * x - s * y;
        a[q * n + k] = s * x + c * y;
        double from = v[k * n + p];
        double to = v[k * n + q];
        v[k * n + p] = c * from - s * to;
        v[k * n + q] = s * from + c * to;
    }
}

/* Column `column` of v, its largest component positive. */
static void write_vector(struct tensor *vectors, int64_t j, const double *v, int64_t n,
                         int64_t column)
{
    int64_t largest = 0;
    for (int64_t i = 1; i < n; i++) {
        double most = fabs(v[largest * n + column]) * (1.0 + 1e-6);
        largest = fabs(v[i * n + column]) > most ? i : largest;
    }
    double sign = v[largest * n + column] < 0.0 ? -1.0 : 1.0;
    for (int64_t i = 0; i < n; i++) {
        numbers_of(vectors)[i * tensor_columns(vectors) + j] = sign * v[i * n + column];
    }
}

/* By Jacobi's method, which needs no factorisation and is exact to the last bits. */
void reference_eigenvectors(struct backend *be, struct tensor *vectors, const struct tensor *matrix)
{
    (void)be;
    enum { SWEEPS = 30 };
    int64_t n = tensor_rows(matrix);
    double *a = reference_room(2 * n * n);
    double *v = a + n * n;
    bool finite = true;
    for (int64_t i = 0; i < n * n; i++) {
        a[i] = numbers_of(matrix)[i];
        v[i] = i / n == i % n ? 1.0 : 0.0;
        finite = finite && isfinite(a[i]);
    }
    for (int64_t turn = 0; turn < SWEEPS * n * n && finite; turn++) {
        int64_t p = turn / n % n;
        int64_t q = turn % n;
        if (p < q) {
            rotate(a, v, n, p, q);
        }
    }
    for (int64_t j = 0; j < tensor_columns(vectors); j++) {
        int64_t best = 0;
        for (int64_t i = 1; i < n && finite; i++) {
            best = a[i * n + i] > a[best * n + best] ? i : best;
        }
        write_vector(vectors, j, v, n, finite ? best : j);
        a[best * n + best] = finite ? (double)-INFINITY : a[best * n + best];
    }
    free(a);
}

/* ---- random ---------------------------------------------------------------------------------- */

void reference_random_normal(struct backend *be, struct tensor *x, float deviation,
                             struct random_key key)
{
    (void)be;
    const double two_pi = 6.283185307179586;
    for (int64_t at = 0; at < tensor_count(x); at++) {
        uint64_t pair = (uint64_t)(at - at % 2);
        double radius = sqrt(-2.0 * log((double)random_uniform(&key, pair)));
        double angle = two_pi * (double)random_uniform(&key, pair + 1);
        numbers_of(x)[at] = (double)deviation * radius * (at % 2 == 0 ? cos(angle) : sin(angle));
    }
}

void reference_random_sign(struct backend *be, struct tensor *x, float magnitude,
                           struct random_key key)
{
    (void)be;
    for (int64_t at = 0; at < tensor_count(x); at++) {
        bool positive = (random_u32(&key, (uint64_t)at) & 1u) != 0;
        numbers_of(x)[at] = positive ? (double)magnitude : -(double)magnitude;
    }
}
