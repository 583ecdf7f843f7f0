/* Operations on subspaces: orthonormal bases, eigenvectors, a step that was computed elsewhere;
 * checked, counted and handed to the backend. */
#include "kernels/call.h"
#include "kernels/eigen.h"

void op_orthonormalize(struct backend *be, const struct orthonormalize *args)
{
    struct call c;
    if (!call_begin(&c, be, "orthonormalize") ||
        !call_tensor(&c, "y", args->y, CALL_INOUT | CALL_FP32)) {
        return;
    }
    int64_t rows = tensor_rows(args->y);
    int64_t columns = tensor_columns(args->y);
    call_matrix(&c, "scratch", args->scratch, CALL_OUT | CALL_FP32, columns + 2, columns);
    call_require(&c, rows >= columns, "%lld orthonormal columns do not fit into %lld rows",
                 (long long)columns, (long long)rows);
    if (call_start(&c)) {
        be->ops->orthonormalize(be, args);
        call_finish(&c, OP_PROJECT, 6.0 * (double)rows * (double)columns * (double)columns);
    }
}

bool op_eigenvectors_built(void)
{
    return eigen_built();
}

void op_eigenvectors(struct backend *be, struct tensor *vectors, const struct tensor *matrix)
{
    struct call c;
    if (!call_begin(&c, be, "eigenvectors") ||
        !call_tensor(&c, "matrix", matrix, CALL_IN | CALL_FP32)) {
        return;
    }
    double size = (double)tensor_rows(matrix);
    call_matrix(&c, "matrix", matrix, CALL_IN | CALL_FP32, tensor_rows(matrix),
                tensor_rows(matrix));
    call_matrix(&c, "vectors", vectors, CALL_OUT | CALL_FP32, tensor_rows(matrix),
                tensor_columns(vectors));
    call_require(&c, tensor_columns(vectors) <= tensor_rows(matrix),
                 "a matrix of %lld rows has no %lld eigenvectors", (long long)tensor_rows(matrix),
                 (long long)tensor_columns(vectors));
    call_require(&c, eigen_built() || be->facts.imaginary,
                 "this program was built without LAPACK; use method.projection=subspace");
    if (call_start(&c)) {
        be->ops->eigenvectors(be, vectors, matrix);
        call_finish(&c, OP_PROJECT,
                    size * size * (4.0 / 3.0 * size + 2.0 * (double)tensor_columns(vectors)));
    }
}

void op_square(struct backend *be, struct tensor *y)
{
    struct call c;
    if (!call_begin(&c, be, "square")) {
        return;
    }
    call_tensor(&c, "y", y, CALL_INOUT | CALL_FLOAT);
    if (call_start(&c)) {
        be->ops->square(be, y);
        call_finish(&c, OP_ELEMENTWISE, (double)tensor_count(y));
    }
}

void op_descend(struct backend *be, const struct descend *args)
{
    struct call c;
    if (!call_begin(&c, be, "descend") ||
        !call_tensor(&c, "weight", args->weight, CALL_INOUT | CALL_FLOAT)) {
        return;
    }
    call_matrix(&c, "step", args->step, CALL_IN | CALL_FP32, tensor_rows(args->weight),
                tensor_columns(args->weight));
    call_elements(&c, "control", args->control, CALL_IN | CALL_FP32, CONTROL_COUNT);
    call_require(&c, args->first >= 0, "block begins at element %lld", (long long)args->first);
    if (call_start(&c)) {
        be->ops->descend(be, args);
        call_finish(&c, OP_OPTIMIZER, 5.0 * (double)tensor_count(args->weight));
    }
}
