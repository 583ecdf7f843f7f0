/*
 * cuBLASLt through a table of its functions.
 *
 * The heuristic of the library costs more than a small product, so its answer is kept for each
 * shape, stride, type and alignment, the least recently used one making room. Its proposals are
 * timed the first time that a shape is seen. From then on: one algorithm, one workspace and one
 * stream, so the same bits each time.
 */
#include "kernels/cuda/cublaslt.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/cuda/scratch.h"
#include "kernels/libraries.h"

#ifdef CUBLASLT_MAJOR
_Static_assert(CUBLASLT_MAJOR == CUBLAS_VER_MAJOR, "the library that is opened is the headers'");
#endif

enum { PLAN_COUNT = 256, ALIGNMENT_MAX = 256 };

/* A shape is tuned for at most this long, and each candidate timed over so many products. */
static const float tuning_ms = 200.0f;
enum { TIMED_PRODUCTS = 3 };

struct plan {
    struct product_key key;
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
    __typeof__(&cublasLtGetVersion) version;
    __typeof__(&cublasLtMatmulAlgoCheck) check;
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
    bool deterministic;
    struct tuning tuning;
    uint64_t clock;
    struct plan plan[PLAN_COUNT];
};

static void plan_free(struct cublaslt *lt, struct plan *p);

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
        { "cublasLtGetVersion", &lt->call.version },
        { "cublasLtMatmul", &lt->call.matmul },
        { "cublasLtMatmulAlgoCheck", &lt->call.check },
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
    lt->library = library_open(LIBRARY_CUBLASLT, NULL);
    if (lt->library == NULL) {
        snprintf(why, why_size,
                 "%s cannot be opened: install the CUDA %d libraries or name their folder in "
                 "LD_LIBRARY_PATH",
                 library_name(LIBRARY_CUBLASLT), CUDART_VERSION / 1000);
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
    return 0;
}

struct cublaslt *cublaslt_open(const char *device, int multiprocessors, char *why, size_t why_size)
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
    tuning_init(&lt->tuning, device, multiprocessors, lt->call.version());
    return lt;
}

void cublaslt_be_deterministic(struct cublaslt *lt)
{
    lt->deterministic = true;
    tuning_free(&lt->tuning);
    for (int i = 0; i < PLAN_COUNT; i++) {
        plan_free(lt, &lt->plan[i]);
    }
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
    tuning_free(&lt->tuning);
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

static struct product_key key_of(const struct gemm *g)
{
    return (struct product_key){ .m = g->m,
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
    const struct product_key *k = &p->key;
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

/* What the library may propose: workspace, alignments, and in which ways partial sums are added. */
static cublasStatus_t prefer(struct cublaslt *lt, const struct product_key *k,
                             cublasLtMatmulPreference_t preference)
{
    const struct {
        cublasLtMatmulPreferenceAttributes_t attribute;
        int64_t bytes;
    } alignments[] = {
        { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, k->a_alignment },
        { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, k->b_alignment },
        { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, k->c_alignment },
        { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, k->c_alignment },
    };
    const uint32_t ordered =
        CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE | CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE;
    size_t workspace_bytes = PRODUCT_WORKSPACE_BYTES;
    cublasStatus_t status =
        lt->call.preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                &workspace_bytes, sizeof workspace_bytes);
    for (size_t i = 0; status == CUBLAS_STATUS_SUCCESS && i < 4; i++) {
        uint32_t bytes = (uint32_t)alignments[i].bytes;
        status = lt->call.preference_set(preference, alignments[i].attribute, &bytes, sizeof bytes);
    }
    if (status == CUBLAS_STATUS_SUCCESS && lt->deterministic) {
        status = lt->call.preference_set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                         &ordered, sizeof ordered);
    }
    return status;
}

static cublasStatus_t propose(struct cublaslt *lt, const struct plan *p,
                              cublasLtMatmulHeuristicResult_t *proposal, int limit, int *count)
{
    cublasLtMatmulPreference_t preference = NULL;
    cublasStatus_t status = lt->call.preference_create(&preference);
    *count = 0;
    if (status == CUBLAS_STATUS_SUCCESS) {
        status = prefer(lt, &p->key, preference);
    }
    if (status == CUBLAS_STATUS_SUCCESS) {
        status = lt->call.heuristic(lt->handle, p->operation, p->a, p->b, p->c, p->c, preference,
                                    limit, proposal, count);
    }
    if (preference != NULL) {
        lt->call.preference_destroy(preference);
    }
    return status == CUBLAS_STATUS_SUCCESS && *count == 0 ? CUBLAS_STATUS_NOT_SUPPORTED : status;
}

/* ---- tuning ---------------------------------------------------------------------------------- */

/* A product that is repeated only to be timed; its result goes to `result`, which nobody reads. */
struct timing {
    const struct gemm *gemm;
    const struct product_place *place;
    void *result;
    cudaEvent_t began, ended;
};

static cublasStatus_t multiply(struct cublaslt *lt, const struct plan *p, const struct gemm *g,
                               const struct product_place *place, void *result)
{
    const float alpha = 1.0f;
    return lt->call.matmul(lt->handle, p->operation, &alpha, g->a, p->a, g->b, p->b, &g->beta,
                           g->addend, p->c, result, p->c, &p->algorithm, place->workspace,
                           PRODUCT_WORKSPACE_BYTES, (cudaStream_t)place->stream);
}

/* Milliseconds of one product with the plan's algorithm; 0 if it fails. */
static float time_plan(struct cublaslt *lt, const struct plan *p, const struct timing *t)
{
    float ms = 0.0f;
    cudaStream_t stream = (cudaStream_t)t->place->stream;
    bool good = multiply(lt, p, t->gemm, t->place, t->result) == CUBLAS_STATUS_SUCCESS &&
                cudaEventRecord(t->began, stream) == cudaSuccess;
    for (int i = 0; good && i < TIMED_PRODUCTS; i++) {
        good = multiply(lt, p, t->gemm, t->place, t->result) == CUBLAS_STATUS_SUCCESS;
    }
    good = good && cudaEventRecord(t->ended, stream) == cudaSuccess &&
           cudaEventSynchronize(t->ended) == cudaSuccess &&
           cudaEventElapsedTime(&ms, t->began, t->ended) == cudaSuccess;
    return good ? ms / TIMED_PRODUCTS : 0.0f;
}

/* Takes the fastest of the proposals. */
static void time_proposals(struct cublaslt *lt, struct plan *p, const struct timing *t,
                           const cublasLtMatmulHeuristicResult_t *proposal, int count)
{
    double seconds[TUNING_CANDIDATES] = { 0.0 };
    float spent = 0.0f;
    for (int i = 0; i < count && spent < tuning_ms; i++) {
        p->algorithm = proposal[i].algo;
        float ms = time_plan(lt, p, t);
        seconds[i] = 1e-3 * (double)ms;
        spent += ms * (TIMED_PRODUCTS + 1);
    }
    int best = tuning_choose(seconds, count);
    p->algorithm = proposal[best < 0 ? 0 : best].algo;
}

/* The result of a product that adds may not be overwritten: it is tuned into other memory if there
 * is any, for that moment. Elsewhere the product itself follows, and overwrites what timing left.
 */
static void tune(struct cublaslt *lt, struct plan *p, const struct gemm *g,
                 const struct product_place *place, const cublasLtMatmulHeuristicResult_t *proposal,
                 int count)
{
    struct timing t = { .gemm = g, .place = place, .result = g->c };
    void *spare = NULL;
    if (g->beta != 0.0f && g->addend == g->c) {
        size_t bytes = (size_t)(g->c_stride * g->n) * dtype_size(g->result_type);
        if (cudaMalloc(&spare, bytes) != cudaSuccess) {
            (void)cudaGetLastError();
            return;
        }
        t.result = spare;
    }
    if (cudaEventCreate(&t.began) == cudaSuccess) {
        if (cudaEventCreate(&t.ended) == cudaSuccess) {
            time_proposals(lt, p, &t, proposal, count);
            cudaEventDestroy(t.ended);
        }
        cudaEventDestroy(t.began);
    }
    cudaFree(spare);
    (void)cudaGetLastError();
}

static void remember(struct cublaslt *lt, const struct plan *p)
{
    struct tuning_entry entry = { .key = p->key };
    _Static_assert(sizeof p->algorithm == sizeof entry.algorithm, "64 bytes an algorithm");
    memcpy(entry.algorithm, &p->algorithm, sizeof entry.algorithm);
    (void)tuning_put(&lt->tuning, &entry); /* a choice that is forgotten is made again */
}

/* A choice of an earlier process, if the library still knows it. */
static bool recall(struct cublaslt *lt, struct plan *p)
{
    cublasLtMatmulHeuristicResult_t result;
    const struct tuning_entry *entry = lt->deterministic ? NULL : tuning_find(&lt->tuning, &p->key);
    if (entry == NULL) {
        return false;
    }
    memcpy(&p->algorithm, entry->algorithm, sizeof p->algorithm);
    return lt->call.check(lt->handle, p->operation, p->a, p->b, p->c, p->c, &p->algorithm,
                          &result) == CUBLAS_STATUS_SUCCESS &&
           result.workspaceSize <= PRODUCT_WORKSPACE_BYTES;
}

static cublasStatus_t choose(struct cublaslt *lt, struct plan *p, const struct gemm *g,
                             const struct product_place *place)
{
    cublasLtMatmulHeuristicResult_t proposal[TUNING_CANDIDATES];
    bool timed = !lt->deterministic && !place->recording;
    int count = 0;
    if (recall(lt, p)) {
        return CUBLAS_STATUS_SUCCESS;
    }
    cublasStatus_t status = propose(lt, p, proposal, timed ? TUNING_CANDIDATES : 1, &count);
    if (status != CUBLAS_STATUS_SUCCESS) {
        return status;
    }
    p->algorithm = proposal[0].algo;
    if (timed && count > 1) {
        tune(lt, p, g, place, proposal, count);
    }
    remember(lt, p);
    return status;
}

/* ---- products -------------------------------------------------------------------------------- */

/* The plan for a product, made if there is none. NULL with the library's answer in `status`. */
static struct plan *plan_find(struct cublaslt *lt, const struct gemm *g,
                              const struct product_place *place, cublasStatus_t *status)
{
    struct product_key key = key_of(g);
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
        *status = choose(lt, oldest, g, place);
    }
    if (*status != CUBLAS_STATUS_SUCCESS) {
        plan_free(lt, oldest);
        return NULL;
    }
    oldest->used = ++lt->clock;
    return oldest;
}

int cublaslt_multiply(struct cublaslt *lt, const struct gemm *gemm,
                      const struct product_place *place, char *why, size_t why_size)
{
    cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
    const struct plan *p = plan_find(lt, gemm, place, &status);
    if (p != NULL) {
        status = multiply(lt, p, gemm, place, gemm->c);
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
