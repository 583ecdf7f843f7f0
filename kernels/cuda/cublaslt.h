/*
 * Matrix products on a device through cuBLASLt, which is opened at run time: a program that was
 * built with CUDA starts on machines that have none.
 */
#ifndef WINDROW_KERNELS_CUDA_CUBLASLT_H
#define WINDROW_KERNELS_CUDA_CUBLASLT_H

#include <stdbool.h>

#include "kernels/cuda/tuning.h"
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

/* Opens the library for the current device, of this name and with so many multiprocessors. NULL,
 * with a sentence in `why`, if it cannot be had. */
struct cublaslt *cublaslt_open(const char *device, int multiprocessors, char *why, size_t why_size);
void cublaslt_close(struct cublaslt *lt);

/* From now on the library's first proposal is taken, among algorithms whose sums have a fixed
 * order, and nothing is timed or taken from a text: the choice is the same in every process. */
void cublaslt_be_deterministic(struct cublaslt *lt);

/* Where a product works: `stream` is a cudaStream_t, `workspace` of PRODUCT_WORKSPACE_BYTES
 * (scratch.h). While the stream is being recorded nothing is timed. */
struct product_place {
    void *stream;
    void *workspace;
    bool recording;
};

/* Queues the product. The first one of a shape is tuned: candidates are timed on these very
 * matrices. 0, or -1 with a sentence in `why`. */
int cublaslt_multiply(struct cublaslt *lt, const struct gemm *gemm,
                      const struct product_place *place, char *why, size_t why_size);

/* Choices made so far; the text of tuning.h. Export: malloc'd, or NULL. */
const struct tuning *cublaslt_tuning(const struct cublaslt *lt);
int cublaslt_import(struct cublaslt *lt, const char *text, char *why, size_t why_size);

#ifdef __cplusplus
}
#endif

#endif
