/*
 * cuBLASLt through a table of its functions.
 *
 * The heuristic of the library costs more than a small product, so its answer is kept for each
 * shape, stride, type and alignment, the least recently used one making room. One algorithm, one
 * workspace and one stream: the same bits each time.
 */
#include "kernels/cuda/cublaslt.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

enum { PLAN_COUNT = 256, ALIGNMENT_MAX = 256 };

/* Large enough for the split sums of narrow products on every device of today. */
static const size_t workspace_bytes = (size_t)64 << 20;

/* All fields are 64 bits wide: there is no padding, and two keys are compared as bytes. */
struct plan_key {
    int64_t m, n, k;
    int64_t a_stride, b_stride, c_stride;
    int64_t transpose_a, transpose_b;
    int64_t factor_type, result_type;
    int64_t a_alignment, b_alignment, c_alignment;
};

struct plan {
    struct plan_key key;
    uint64_t used; /* when last; 0: free */
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algorithm;
};

/* The functions that are used, typed by the library's own header. */
struct functions {
    __typeof__(&cublasLtCreate) create;
    __typeof__(&cublasLtDestroy) destroy;
    __typeof__(&cublasLtGetStatusString) status_string;
    __typeof__(&cublasLtMatmul) matmul;
    __typeof__(&cublasLtMatmulAlgoGetHeuristic) heuristic;
    __typeof__(&cublasLtMatmulDescCreate) operation_create;
    __typeof__(&cublasLtMatmulDescDestroy) operation_destroy;
    __typeof__(&cublasLtMatmulDescSetAttribute) operation_set;
    __typeof__(&cublasLtMatrixLayoutCreate) layout_create;
    __typeof__(&cublasLtMatrixLayoutDestroy) layout_destroy;
    __typeof__(&cublasLtMatmulPreferenceCreate) preference_create;
    __typeof__(&cublasLtMatmulPreferenceDestroy) preference_destroy;
    __typeof__(&cublasLtMatmulPreferenceSetAttribute) preference_set;
};

struct cublaslt {
    void *library;
    struct functions call;
    cublasLtHandle_t handle;
    void *workspace;
    uint64_t clock;
    struct plan plan[PLAN_COUNT];
};

/* ---- opening -------------------------------------------------------------------------------- */

static int find_functions(struct cublaslt *lt, char *why, size_t why_size)
{
    struct {
        const char *name;
        void *pointer;
    } wanted[] = {
        { "cublasLtCreate", &lt->call.create },
        { "cublasLtDestroy", &lt->call.destroy },
        { "cublasLtGetStatusString", &lt->call.status_string },
        { "cublasLtMatmul", &lt->call.matmul },
        { "cublasLtMatmulAlgoGetHeuristic", &lt->call.heuristic },
        { "cublasLtMatmulDescCreate", &lt->call.operation_create },
        { "cublasLtMatmulDescDestroy", &lt->call.operation_destroy },
        { "cublasLtMatmulDescSetAttribute", &lt->call.operation_set },
        { "cublasLtMatrixLayoutCreate", &lt->call.layout_create },
        { "cublasLtMatrixLayoutDestroy", &lt->call.layout_destroy },
        { "cublasLtMatmulPreferenceCreate", &lt->call.preference_create },
        { "cublasLtMatmulPreferenceDestroy", &lt->call.preference_destroy },
        { "cublasLtMatmulPreferenceSetAttribute", &lt->call.preference_set },
    };
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        void *found = dlsym(lt->library, wanted[i].name);
        if (found == NULL) {
            snprintf(why, why_size, "libcublasLt has no %s", wanted[i].name);
            return -1;
        }
        memcpy(wanted[i].pointer, &found, sizeof found);
    }
    return 0;
}

static int open_library(struct cublaslt *lt, char *why, size_t why_size)
{
    char name[32];
    char usual[64]; /* where the toolkit installs it */
    snprintf(name, sizeof name, "libcublasLt.so.%d", CUBLAS_VER_MAJOR);
    snprintf(usual, sizeof usual, "/usr/local/cuda/lib64/%s", name);
    lt->library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (lt->library == NULL) {
        lt->library = dlopen(usual, RTLD_NOW | RTLD_LOCAL);
    }
    if (lt->library == NULL) {
        snprintf(why, why_size,
                 "%s cannot be opened: install the CUDA %d libraries or name their folder in "
                 "LD_LIBRARY_PATH",
                 name, CUDART_VERSION / 1000);
        return -1;
    }
    if (find_functions(lt, why, why_size) != 0) {
        return -1;
    }
    cublasStatus_t status = lt->call.create(&lt->handle);
    if (status != CUBLAS_STATUS_SUCCESS) {
        lt->handle = NULL;
        snprintf(why, why_size, "cuBLASLt does not start: %s", lt->call.status_string(status));
        return -1;
    }
    if (cudaMalloc(&lt->workspace, workspace_bytes) != cudaSuccess) {
        (void)cudaGetLastError();
        snprintf(why, why_size, "the device has no room for the %zu MiB that cuBLASLt works in",
                 workspace_bytes >> 20);
        return -1;
    }
    return 0;
}

struct cublaslt *cublaslt_open(char *why, size_t why_size)
{
    struct cublaslt *lt = calloc(1, sizeof *lt);
    if (lt == NULL) {
        snprintf(why, why_size, "out of memory");
        return NULL;
    }
    if (open_library(lt, why, why_size) != 0) {
        cublaslt_close(lt);
        return NULL;
    }
    return lt;
}

static void plan_free(struct cublaslt *lt, struct plan *p)
{
    if (p->operation != NULL) {
        lt->call.operation_destroy(p->operation);
    }
    cublasLtMatrixLayout_t layouts[] = { p->a, p->b, p->c };
    for (int i = 0; i < 3; i++) {
        if (layouts[i] != NULL) {
            lt->call.layout_destroy(layouts[i]);
        }
    }
    memset(p, 0, sizeof *p);
}

void cublaslt_close(struct cublaslt *lt)
{
    if (lt == NULL) {
        return;
    }
    for (int i = 0; i < PLAN_COUNT; i++) {
        plan_free(lt, &lt->plan[i]);
    }
    if (lt->handle != NULL) {
        lt->call.destroy(lt->handle);
    }
    if (lt->workspace != NULL) {
        cudaFree(lt->workspace);
    }
    if (lt->library != NULL) {
        dlclose(lt->library);
    }
    free(lt);
}

/* ---- plans ---------------------------------------------------------------------------------- */

static int64_t alignment_of(const void *address)
{
    int64_t alignment = 2;
    while (alignment < ALIGNMENT_MAX && (uintptr_t)address % (uintptr_t)(2 * alignment) == 0) {
        alignment *= 2;
    }
    return alignment;
}

static struct plan_key key_of(const struct gemm *g)
{
    return (struct plan_key){ .m = g->m,
                              .n = g->n,
                              .k = g->k,
                              .a_stride = g->a_stride,
                              .b_stride = g->b_stride,
                              .c_stride = g->c_stride,
                              .transpose_a = g->transpose_a,
                              .transpose_b = g->transpose_b,
                              .factor_type = g->factor_type,
                              .result_type = g->result_type,
                              .a_alignment = alignment_of(g->a),
                              .b_alignment = alignment_of(g->b),
                              .c_alignment = alignment_of(g->c) < alignment_of(g->addend)
                                                 ? alignment_of(g->c)
                                                 : alignment_of(g->addend) };
}

static cudaDataType_t type_of(int64_t dtype)
{
    return dtype == DTYPE_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

static cublasStatus_t describe(struct cublaslt *lt, struct plan *p)
{
    const struct plan_key *k = &p->key;
    const cublasOperation_t a_operation = k->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t b_operation = k->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    cudaDataType_t factor = type_of(k->factor_type);
    cublasStatus_t status =
        lt->call.operation_create(&p->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (status == CUBLAS_STATUS_SUCCESS) {
        status = lt->call.operation_set(p->operation, CUBLASLT_MATMUL_DESC_TRANSA, &a_operation,
                                        sizeof a_operation);
    }
    if (status == CUBLAS_STATUS_SUCCESS) {
        status = lt->call.operation_set(p->operation, CUBLASLT_MATMUL_DESC_TRANSB, &b_operation,
                                        sizeof b_operation);
    }
    if (status == CUBLAS_STATUS_SUCCESS) {
        status = lt->call.layout_create(&p->a, factor, (uint64_t)(k->transpose_a ? k->k : k->m),
                                        (uint64_t)(k->transpose_a ? k->m : k->k), k->a_stride);
    }
    if (status == CUBLAS_STATUS_SUCCESS) {
        status = lt->call.layout_create(&p->b, factor, (uint64_t)(k->transpose_b ? k->n : k->k),
                                        (uint64_t)(k->transpose_b ? k->k : k->n), k->b_stride);
    }
    if (status == CUBLAS_STATUS_SUCCESS) {
        status = lt->call.layout_create(&p->c, type_of(k->result_type), (uint64_t)k->m,
                                        (uint64_t)k->n, k->c_stride);
    }
    return status;
}

static cublasStatus_t choose(struct cublaslt *lt, struct plan *p)
{
    const struct plan_key *k = &p->key;
    const struct {
        cublasLtMatmulPreferenceAttributes_t attribute;
        int64_t bytes;
    } alignments[] = {
        { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, k->a_alignment },
        { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, k->b_alignment },
        { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, k->c_alignment },
        { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, k->c_alignment },
    };
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t result;
    int found = 0;
    cublasStatus_t status = lt->call.preference_create(&preference);
    if (status == CUBLAS_STATUS_SUCCESS) {
        status = lt->call.preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                         &workspace_bytes, sizeof workspace_bytes);
    }
    for (size_t i = 0; status == CUBLAS_STATUS_SUCCESS && i < 4; i++) {
        uint32_t bytes = (uint32_t)alignments[i].bytes;
        status = lt->call.preference_set(preference, alignments[i].attribute, &bytes, sizeof bytes);
    }
    if (status == CUBLAS_STATUS_SUCCESS) {
        status = lt->call.heuristic(lt->handle, p->operation, p->a, p->b, p->c, p->c, preference, 1,
                                    &result, &found);
    }
    if (preference != NULL) {
        lt->call.preference_destroy(preference);
    }
    if (status == CUBLAS_STATUS_SUCCESS && found == 0) {
        status = CUBLAS_STATUS_NOT_SUPPORTED;
    }
    if (status == CUBLAS_STATUS_SUCCESS) {
        p->algorithm = result.algo;
    }
    return status;
}

/* The plan for a product, made if there is none. NULL with the library's answer in `status`. */
static struct plan *plan_find(struct cublaslt *lt, const struct gemm *g, cublasStatus_t *status)
{
    struct plan_key key = key_of(g);
    struct plan *oldest = &lt->plan[0];
    for (int i = 0; i < PLAN_COUNT; i++) {
        struct plan *p = &lt->plan[i];
        if (p->used != 0 && memcmp(&p->key, &key, sizeof key) == 0) {
            p->used = ++lt->clock;
            return p;
        }
        oldest = p->used < oldest->used ? p : oldest;
    }
    plan_free(lt, oldest);
    oldest->key = key;
    *status = describe(lt, oldest);
    if (*status == CUBLAS_STATUS_SUCCESS) {
        *status = choose(lt, oldest);
    }
    if (*status != CUBLAS_STATUS_SUCCESS) {
        plan_free(lt, oldest);
        return NULL;
    }
    oldest->used = ++lt->clock;
    return oldest;
}

int cublaslt_multiply(struct cublaslt *lt, const struct gemm *gemm, void *stream, char *why,
                      size_t why_size)
{
    const float alpha = 1.0f;
    cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
    const struct plan *p = plan_find(lt, gemm, &status);
    if (p != NULL) {
        status = lt->call.matmul(lt->handle, p->operation, &alpha, gemm->a, p->a, gemm->b, p->b,
                                 &gemm->beta, gemm->addend, p->c, gemm->c, p->c, &p->algorithm,
                                 lt->workspace, workspace_bytes, (cudaStream_t)stream);
    }
    if (status != CUBLAS_STATUS_SUCCESS) {
        snprintf(why, why_size, "cuBLASLt cannot multiply (%lld, %lld, %lld, %s to %s): %s",
                 (long long)gemm->m, (long long)gemm->n, (long long)gemm->k,
                 dtype_name(gemm->factor_type), dtype_name(gemm->result_type),
                 lt->call.status_string(status));
        return -1;
    }
    return 0;
}
