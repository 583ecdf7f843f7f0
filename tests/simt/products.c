/* Matrix products for the emulated device: what kernels/cuda/cublaslt.h promises, in plain loops.
 */
#include "kernels/cuda/cublaslt.h"

#include <stdio.h>
#include <stdlib.h>

struct cublaslt {
    int64_t products; /* computed so far */
};

struct cublaslt *cublaslt_open(char *why, size_t why_size)
{
    struct cublaslt *lt = calloc(1, sizeof *lt);
    if (lt == NULL) {
        snprintf(why, why_size, "out of memory");
    }
    return lt;
}

void cublaslt_close(struct cublaslt *lt)
{
    free(lt);
}

static double element(const void *data, enum dtype dtype, int64_t at)
{
    return dtype == DTYPE_F32 ? (double)((const float *)data)[at]
                              : (double)bf16_to_float(((const uint16_t *)data)[at]);
}

int cublaslt_multiply(struct cublaslt *lt, const struct gemm *g, void *stream, char *why,
                      size_t why_size)
{
    (void)stream;
    if (g->factor_type == DTYPE_F32 && g->result_type == DTYPE_BF16) {
        snprintf(why, why_size, "fp32 to bf16 is not supported");
        return -1;
    }
    lt->products++;
    for (int64_t j = 0; j < g->n; j++) {
        for (int64_t i = 0; i < g->m; i++) {
            double sum = 0.0;
            for (int64_t p = 0; p < g->k; p++) {
                int64_t a = g->transpose_a ? p + i * g->a_stride : i + p * g->a_stride;
                int64_t b = g->transpose_b ? j + p * g->b_stride : p + j * g->b_stride;
                sum += element(g->a, g->factor_type, a) * element(g->b, g->factor_type, b);
            }
            int64_t at = i + j * g->c_stride;
            if (g->beta != 0.0f) {
                sum += element(g->addend, g->result_type, at);
            }
            if (g->result_type == DTYPE_F32) {
                ((float *)g->c)[at] = (float)sum;
            } else {
                ((uint16_t *)g->c)[at] = bf16_from_float((float)sum);
            }
        }
    }
    return 0;
}
