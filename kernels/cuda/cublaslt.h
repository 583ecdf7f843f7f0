/*
 * Matrix products on a device through cuBLASLt, which is opened at run time: a program that was
 * built with CUDA starts on machines that have none.
 */
#ifndef WINDROW_KERNELS_CUDA_CUBLASLT_H
#define WINDROW_KERNELS_CUDA_CUBLASLT_H

#include <stdbool.h>

#include "kernels/dtype.h"

#ifdef __cplusplus
extern "C" {
#endif

struct cublaslt;

/* c (m, n) = op(a) op(b) + beta addend, all in column-major order, as BLAS has it: a is (m, k) with
 * columns a_stride elements apart, or (k, m) if transpose_a; b is (k, n), or (n, k). a and b are
 * both fp32 (summed in fp32, no TF32) or both bf16; c is fp32, or bf16 if they are. */
struct gemm {
    int64_t m, n, k;
    const void *a;
    const void *b;
    void *c;
    const void *addend; /* like c, or c itself */
    int64_t a_stride, b_stride, c_stride;
    bool transpose_a, transpose_b;
    enum dtype factor_type, result_type;
    float beta;
};

/* Opens the library for the current device. NULL, with a sentence in `why`, if it cannot be had. */
struct cublaslt *cublaslt_open(char *why, size_t why_size);
void cublaslt_close(struct cublaslt *lt);

/* Queues the product on `stream` (a cudaStream_t). 0, or -1 with a sentence in `why`. */
int cublaslt_multiply(struct cublaslt *lt, const struct gemm *gemm, void *stream, char *why,
                      size_t why_size);

#ifdef __cplusplus
}
#endif

#endif
