/* Cases of subspaces: orthonormal bases, eigenvectors, a step that was computed elsewhere. */
#include <stdlib.h>

#include "gpu/cases.h"

static const enum dtype types[] = { DTYPE_F32, DTYPE_BF16 };

static struct item uniform(int64_t rows, int64_t columns, enum dtype dtype, float low, float high)
{
    return (struct item){ rows, columns, dtype, FILL_UNIFORM, low, high, NULL, false };
}

static struct item changed(int64_t rows, int64_t columns, enum dtype dtype, float low)
{
    return (struct item){ rows, columns, dtype, FILL_UNIFORM, low, 1.0f, NULL, true };
}

static struct item output(int64_t rows, int64_t columns, enum dtype dtype)
{
    return (struct item){ rows, columns, dtype, FILL_POISON, 0.0f, 0.0f, NULL, true };
}

static void run_orthonormalize(struct backend *be, struct tensor *t, const struct numbers *n)
{
    int64_t columns = t[0].dim[1];
    struct tensor scratch = {
        .dim = { columns + 2, columns, 1, 1 }, .rank = 2, .dtype = DTYPE_F32, .name = "scratch"
    };
    scratch.data = backend_alloc(be, tensor_bytes(&scratch));
    op_orthonormalize(be, &(struct orthonormalize){ .y = &t[0],
                                                    .scratch = &scratch,
                                                    .key = { 5, RANDOM_INIT, 6, (uint32_t)n->a } });
    backend_free(be, scratch.data, tensor_bytes(&scratch));
}

/* Tall matrices, where both backends take the same way: what nearly dependent columns become is
 * decided by rounding. Columns of zeros and copies are replaced by the same random numbers. */
static void cases_orthonormalize(struct report *r)
{
    for (int i = 0; i < 10; i++) {
        int64_t columns = i < 4 ? case_random(r, 1, 12) : case_random(r, 30, 100);
        int64_t rows = 4 * columns + case_random(r, 0, 40);
        float *y = malloc((size_t)(rows * columns) * sizeof *y);
        if (y == NULL) {
            abort();
        }
        for (int64_t at = 0; at < rows * columns; at++) {
            bool zero = i % 3 == 2 && at % columns % 5 == 3;
            y[at] = zero ? 0.0f : (float)case_random(r, -1000, 1000) * 1e-3f;
        }
        struct trial t = { "orthonormalize",
                           { { rows, columns, DTYPE_F32, FILL_GIVEN, 0, 0, y, true } },
                           1,
                           { .a = i },
                           run_orthonormalize };
        case_run(r, &t);
        free(y);
    }
}

static void run_eigenvectors(struct backend *be, struct tensor *t, const struct numbers *n)
{
    (void)n;
    op_eigenvectors(be, &t[0], &t[1]);
}

static void cases_eigenvectors(struct report *r)
{
    for (int i = 0; i < 3 && op_eigenvectors_built(); i++) {
        int64_t size = case_random(r, 1, 30);
        float *matrix = calloc((size_t)(size * size), sizeof *matrix);
        if (matrix == NULL) {
            abort();
        }
        for (int64_t at = 0; at < size * size; at++) {
            int64_t row = at / size;
            int64_t column = at % size;
            matrix[at] = row == column                            ? (float)(row + 2)
                         : row - column == 1 || column - row == 1 ? 0.5f
                                                                  : 0.0f;
        }
        struct trial t = { "eigenvectors",
                           { output(size, case_random(r, 1, size), DTYPE_F32) },
                           2,
                           { 0 },
                           run_eigenvectors };
        t.item[1] = (struct item){ size, size, DTYPE_F32, FILL_GIVEN, 0, 0, matrix, false };
        case_run(r, &t);
        free(matrix);
    }
}

static void run_square(struct backend *be, struct tensor *t, const struct numbers *n)
{
    (void)n;
    op_square(be, &t[0]);
}

static void run_descend(struct backend *be, struct tensor *t, const struct numbers *n)
{
    op_descend(be, &(struct descend){ .weight = &t[0],
                                      .step = &t[1],
                                      .control = &t[2],
                                      .lr = 0.01f,
                                      .scale = 0.25f,
                                      .weight_decay = 0.1f,
                                      .rounding = n->yes ? ROUNDING_STOCHASTIC : ROUNDING_NEAREST,
                                      .first = n->a,
                                      .key = { 17, RANDOM_INIT, 9, 3 } });
}

static void cases_descend(struct report *r)
{
    static const float controls[2][3] = { { 0.5f, 0.0f, 2.0f }, { 0.5f, 1.0f, 2.0f } };
    for (int i = 0; i < 12; i++) {
        int64_t rows = case_random(r, 1, 20);
        int64_t columns = i % 2 == 0 ? case_random(r, 1, 50) : 8 * case_random(r, 1, 60);
        struct trial s = {
            "square", { changed(rows, columns, types[i & 1], -1) }, 1, { 0 }, run_square
        };
        case_run(r, &s);
        struct numbers n = { .a = case_random(r, 0, 3) * columns, .yes = i % 3 != 0 };
        struct trial t = {
            "descend", { changed(rows, columns, types[i / 2 & 1], -1) }, 3, n, run_descend
        };
        t.item[1] = uniform(rows, columns, DTYPE_F32, -1, 1);
        t.item[2] = (struct item){ 1, 3, DTYPE_F32, FILL_GIVEN, 0, 0, controls[i == 7], false };
        case_run(r, &t);
    }
}

void cases_subspace(struct report *report)
{
    cases_orthonormalize(report);
    cases_eigenvectors(report);
    cases_descend(report);
}
