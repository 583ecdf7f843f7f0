/* Matrix products for the emulated device: what kernels/cuda/cublaslt.h promises, in plain loops.
 * SIMT_BREAK=matmul in the environment makes every product a little wrong. */
#include "kernels/cuda/cublaslt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/scratch.h"
#include "simt/queue.h"

struct cublaslt {
    struct tuning tuning;
    bool deterministic;
    double wrong; /* every element is multiplied by it */
};

struct cublaslt *cublaslt_open(const char *device, int multiprocessors, char *why, size_t why_size)
{
    struct cublaslt *lt = calloc(1, sizeof *lt);
    if (lt == NULL) {
        snprintf(why, why_size, "out of memory");
        return NULL;
    }
    const char *broken = getenv("SIMT_BREAK");
    lt->wrong = broken != NULL && strcmp(broken, "matmul") == 0 ? 1.05 : 1.0;
    tuning_init(&lt->tuning, device, multiprocessors, 1);
    return lt;
}

void cublaslt_close(struct cublaslt *lt)
{
    if (lt != NULL) {
        tuning_free(&lt->tuning);
    }
    free(lt);
}

void cublaslt_be_deterministic(struct cublaslt *lt)
{
    lt->deterministic = true;
}

const struct tuning *cublaslt_tuning(const struct cublaslt *lt)
{
    return &lt->tuning;
}

int cublaslt_import(struct cublaslt *lt, const char *text, char *why, size_t why_size)
{
    if (lt->deterministic) {
        snprintf(why, why_size, "a deterministic run takes no choices made by time");
        return -1;
    }
    return tuning_parse(&lt->tuning, text, why, why_size);
}

/* One choice a shape, as the library's plans would leave it. */
static void remember(struct cublaslt *lt, const struct gemm *g)
{
    struct tuning_entry entry = { .key = { .m = g->m,
                                           .n = g->n,
                                           .k = g->k,
                                           .transpose_a = g->transpose_a,
                                           .transpose_b = g->transpose_b,
                                           .factor_type = g->factor_type,
                                           .result_type = g->result_type } };
    if (tuning_find(&lt->tuning, &entry.key) == NULL) {
        (void)tuning_put(&lt->tuning, &entry);
    }
}

static double element(const void *data, enum dtype dtype, int64_t at)
{
    return dtype == DTYPE_F32 ? (double)((const float *)data)[at]
                              : (double)bf16_to_float(((const uint16_t *)data)[at]);
}

struct product {
    struct gemm gemm;
    void *workspace;
    double wrong;
};

/* The workspace is written all over, as the library may: nobody else's bytes may lie there. */
static void run_product(void *state)
{
    const struct product *product = state;
    const struct gemm *g = &product->gemm;
    memset(product->workspace, 0xff, 4096);
    memset((char *)product->workspace + PRODUCT_WORKSPACE_BYTES - 4096, 0xff, 4096);
    for (int64_t j = 0; j < g->n; j++) {
        for (int64_t i = 0; i < g->m; i++) {
            double sum = 0.0;
            for (int64_t p = 0; p < g->k; p++) {
                int64_t a = g->transpose_a ? p + i * g->a_stride : i + p * g->a_stride;
                int64_t b = g->transpose_b ? j + p * g->b_stride : p + j * g->b_stride;
                sum += element(g->a, g->factor_type, a) * element(g->b, g->factor_type, b);
            }
            int64_t at = i + j * g->c_stride;
            sum *= product->wrong;
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
}

int cublaslt_multiply(struct cublaslt *lt, const struct gemm *g, const struct product_place *place,
                      char *why, size_t why_size)
{
    if (g->factor_type == DTYPE_F32 && g->result_type == DTYPE_BF16) {
        snprintf(why, why_size, "fp32 to bf16 is not supported");
        return -1;
    }
    struct product product = { .gemm = *g, .workspace = place->workspace, .wrong = lt->wrong };
    remember(lt, g);
    simt_queue(place->stream, run_product, &product, sizeof product);
    return 0;
}
