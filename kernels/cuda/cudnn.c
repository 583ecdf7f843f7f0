/*
 * cuDNN through a table of its functions: one plan a shape, kept.
 *
 * A plan takes the library up to a second (it compiles a kernel) and fits one shape only; training
 * has few of them. What it refused once is not asked again.
 */
#include "kernels/cuda/cudnn.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cudnn_graph.h"
#include "kernels/libraries.h"

enum {
    PLAN_COUNT = 32,
    ENGINES_MAX = 8,
    VERSION_OLDEST = 91100, /* clears the sums of dQ itself, hides keys with minus infinity */
    VERSION_NEXT = 100000,  /* another major version may mean other attributes */
};

struct plan {
    struct cudnn_shape shape;
    bool used;
    bool ready; /* else it was refused, see graph.why */
    struct cudnn_graph graph;
    cudnnBackendDescriptor_t execution;
};

struct cudnn {
    void *library;
    struct cudnn_calls call;
    cudnnHandle_t handle; /* made when the first plan is */
    struct plan plan[PLAN_COUNT];
    int next; /* the plan that makes room */
};

/* ---- opening -------------------------------------------------------------------------------- */

static int find_functions(struct cudnn *cudnn, char *why, size_t why_size)
{
    struct {
        const char *name;
        void *pointer;
    } wanted[] = {
        { "cudnnGetVersion", &cudnn->call.version },
        { "cudnnGetErrorString", &cudnn->call.error_string },
        { "cudnnGetLastErrorString", &cudnn->call.last_error },
        { "cudnnCreate", &cudnn->call.create },
        { "cudnnDestroy", &cudnn->call.destroy },
        { "cudnnSetStream", &cudnn->call.set_stream },
        { "cudnnBackendCreateDescriptor", &cudnn->call.make },
        { "cudnnBackendDestroyDescriptor", &cudnn->call.drop },
        { "cudnnBackendSetAttribute", &cudnn->call.set },
        { "cudnnBackendGetAttribute", &cudnn->call.get },
        { "cudnnBackendFinalize", &cudnn->call.finalize },
        { "cudnnBackendExecute", &cudnn->call.execute },
    };
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        void *found = dlsym(cudnn->library, wanted[i].name);
        if (found == NULL) {
            snprintf(why, why_size, "libcudnn has no %s", wanted[i].name);
            return -1;
        }
        memcpy(wanted[i].pointer, &found, sizeof found);
    }
    return 0;
}

static int open_library(struct cudnn *cudnn, char *why, size_t why_size)
{
    cudnn->library = library_open(LIBRARY_CUDNN, NULL);
    if (cudnn->library == NULL) {
        snprintf(why, why_size,
                 "%s cannot be opened: install cuDNN 9 or name its folder in LD_LIBRARY_PATH",
                 library_name(LIBRARY_CUDNN));
        return -1;
    }
    if (find_functions(cudnn, why, why_size) != 0) {
        return -1;
    }
    size_t version = cudnn->call.version();
    if (version < VERSION_OLDEST || version >= VERSION_NEXT) {
        snprintf(why, why_size, "cuDNN %zu.%zu.%zu is there; 9.11 or a later 9 is needed",
                 version / 10000, version / 100 % 100, version % 100);
        return -1;
    }
    return 0;
}

struct cudnn *cudnn_open(char *why, size_t why_size)
{
    struct cudnn *cudnn = calloc(1, sizeof *cudnn);
    if (cudnn == NULL) {
        snprintf(why, why_size, "out of memory");
        return NULL;
    }
    if (open_library(cudnn, why, why_size) != 0) {
        cudnn_close(cudnn);
        return NULL;
    }
    return cudnn;
}

static void plan_free(struct plan *p)
{
    if (p->used) {
        cudnn_graph_free(&p->graph);
    }
    memset(p, 0, sizeof *p);
}

void cudnn_close(struct cudnn *cudnn)
{
    if (cudnn == NULL) {
        return;
    }
    for (int i = 0; i < PLAN_COUNT; i++) {
        plan_free(&cudnn->plan[i]);
    }
    if (cudnn->handle != NULL) {
        cudnn->call.destroy(cudnn->handle);
    }
    if (cudnn->library != NULL) {
        dlclose(cudnn->library);
    }
    free(cudnn);
}

size_t cudnn_version(const struct cudnn *cudnn)
{
    return cudnn->call.version();
}

/* ---- shapes --------------------------------------------------------------------------------- */

static bool same_shape(const struct cudnn_shape *a, const struct cudnn_shape *b)
{
    return a->batch == b->batch && a->sequence == b->sequence && a->heads == b->heads &&
           a->kv_heads == b->kv_heads && a->head_size == b->head_size && a->backward == b->backward;
}

int cudnn_try_graph(struct cudnn *cudnn, const struct cudnn_shape *shape, char *why,
                    size_t why_size)
{
    struct cudnn_graph *graph = calloc(1, sizeof *graph);
    if (graph == NULL) {
        snprintf(why, why_size, "out of memory");
        return -1;
    }
    graph->call = &cudnn->call;
    int result = cudnn_graph_build(graph, shape, NULL);
    if (result != 0) {
        snprintf(why, why_size, "%s", graph->why);
    }
    cudnn_graph_free(graph);
    free(graph);
    return result;
}

/* ---- plans ---------------------------------------------------------------------------------- */

/* The kernels that the library would choose, best first. */
static int64_t find_engines(struct cudnn *cudnn, struct cudnn_graph *g,
                            cudnnBackendDescriptor_t engine[ENGINES_MAX])
{
    cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
    int64_t found = 0;
    cudnnBackendDescriptor_t heuristic = cudnn_graph_make(g, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    cudnn_graph_set(g, heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH,
                    CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &g->whole);
    cudnn_graph_set(g, heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    cudnn_graph_finalize(g, heuristic, "to choose a kernel");
    for (int i = 0; i < ENGINES_MAX; i++) {
        engine[i] = cudnn_graph_make(g, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    }
    if (g->failed ||
        cudnn->call.get(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                        ENGINES_MAX, &found, engine) != CUDNN_STATUS_SUCCESS) {
        return 0;
    }
    return found < ENGINES_MAX ? found : ENGINES_MAX;
}

/* The first of them that can be had in the memory that is planned for it. */
static void choose_engine(struct cudnn *cudnn, struct plan *p)
{
    struct cudnn_graph *g = &p->graph;
    cudnnBackendDescriptor_t engine[ENGINES_MAX];
    int64_t found = find_engines(cudnn, g, engine);
    for (int64_t i = 0; i < found && !p->ready && !g->failed; i++) {
        int64_t bytes = 0;
        int64_t count = 0;
        cudnnBackendDescriptor_t d = cudnn_graph_make(g, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
        cudnn_graph_set(g, d, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1,
                        &cudnn->handle);
        cudnn_graph_set(g, d, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
                        CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &engine[i]);
        p->ready = !g->failed && cudnn->call.finalize(d) == CUDNN_STATUS_SUCCESS &&
                   cudnn->call.get(d, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1,
                                   &count, &bytes) == CUDNN_STATUS_SUCCESS &&
                   bytes >= 0 && (size_t)bytes <= cudnn_workspace_bytes(&p->shape);
        p->execution = d;
    }
    if (!p->ready && !g->failed) {
        snprintf(g->why, sizeof g->why,
                 "cuDNN has no kernel for attention over %lld tokens with heads of %lld in %zu "
                 "bytes of scratch",
                 (long long)p->shape.sequence, (long long)p->shape.head_size,
                 cudnn_scratch_bytes(&p->shape));
    }
}

static struct plan *plan_of(struct cudnn *cudnn, const struct cudnn_shape *shape)
{
    for (int i = 0; i < PLAN_COUNT; i++) {
        if (cudnn->plan[i].used && same_shape(&cudnn->plan[i].shape, shape)) {
            return &cudnn->plan[i];
        }
    }
    return NULL;
}

int cudnn_prepare(struct cudnn *cudnn, const struct cudnn_shape *shape, char *why, size_t why_size)
{
    struct plan *p = plan_of(cudnn, shape);
    if (cudnn->handle == NULL) {
        cudnnStatus_t status = cudnn->call.create(&cudnn->handle);
        if (status != CUDNN_STATUS_SUCCESS) {
            cudnn->handle = NULL;
            snprintf(why, why_size, "cuDNN does not start: %s", cudnn->call.error_string(status));
            return -1;
        }
    }
    if (p == NULL) {
        p = &cudnn->plan[cudnn->next];
        cudnn->next = (cudnn->next + 1) % PLAN_COUNT;
        plan_free(p);
        p->used = true;
        p->shape = *shape;
        p->graph.call = &cudnn->call;
        if (cudnn_graph_build(&p->graph, shape, cudnn->handle) == 0) {
            choose_engine(cudnn, p);
        }
    }
    if (!p->ready) {
        snprintf(why, why_size, "%s", p->graph.why);
        return -1;
    }
    return 0;
}

/* ---- running -------------------------------------------------------------------------------- */

/* Names and addresses for one run; those on the host have to live as long. */
struct pack {
    int64_t id[CUDNN_ID_OTHER];
    void *data[CUDNN_ID_OTHER];
    int64_t count;
    float scale, hidden, one;
};

static void pack_add(struct pack *pack, enum cudnn_id id, const void *data, int64_t offset)
{
    pack->id[pack->count] = id;
    memcpy(&pack->data[pack->count], &data, sizeof data); /* the library wants no const */
    pack->data[pack->count] = (uint16_t *)pack->data[pack->count] + offset;
    pack->count++;
}

static void pack_fill(struct pack *pack, const struct cudnn_shape *s, const struct cudnn_tensors *t)
{
    int64_t keys = s->heads * s->head_size;
    int64_t values = keys + s->kv_heads * s->head_size;
    pack->scale = t->scale;
    pack->hidden = -INFINITY;
    pack->one = 1.0f;
    pack_add(pack, CUDNN_ID_Q, t->qkv, 0);
    pack_add(pack, CUDNN_ID_K, t->qkv, keys);
    pack_add(pack, CUDNN_ID_V, t->qkv, values);
    pack_add(pack, CUDNN_ID_OUT, t->out, 0);
    pack_add(pack, CUDNN_ID_LSE, t->lse, 0);
    pack_add(pack, CUDNN_ID_SCALE, &pack->scale, 0);
    pack_add(pack, CUDNN_ID_HIDDEN, &pack->hidden, 0);
    if (s->backward) {
        pack_add(pack, CUDNN_ID_ONE, &pack->one, 0);
        pack_add(pack, CUDNN_ID_DOUT, t->dout, 0);
        pack_add(pack, CUDNN_ID_DQ, t->dqkv, 0);
        pack_add(pack, CUDNN_ID_DK, t->dqkv, keys);
        pack_add(pack, CUDNN_ID_DV, t->dqkv, values);
        pack_add(pack, CUDNN_ID_DELTA, t->delta, 0);
        pack_add(pack, CUDNN_ID_DQ_SUM, t->scratch, 0);
    }
}

int cudnn_run(struct cudnn *cudnn, const struct cudnn_shape *shape, const struct cudnn_tensors *t,
              void *stream, char *why, size_t why_size)
{
    const struct cudnn_calls *call = &cudnn->call;
    struct plan *p = plan_of(cudnn, shape);
    struct pack pack;
    cudnnBackendDescriptor_t variant = NULL;
    void *workspace = (char *)t->scratch + (shape->backward ? cudnn_sum_bytes(shape) : 0);
    if (p == NULL || !p->ready) {
        snprintf(why, why_size, "attention by cuDNN was not prepared");
        return -1;
    }
    memset(&pack, 0, sizeof pack);
    pack_fill(&pack, shape, t);
    cudnnStatus_t status = call->set_stream(cudnn->handle, stream);
    status = status != CUDNN_STATUS_SUCCESS
                 ? status
                 : call->make(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &variant);
    status = status != CUDNN_STATUS_SUCCESS ? status
                                            : call->set(variant, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS,
                                                        CUDNN_TYPE_INT64, pack.count, pack.id);
    status = status != CUDNN_STATUS_SUCCESS
                 ? status
                 : call->set(variant, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR,
                             pack.count, (void *)pack.data);
    status = status != CUDNN_STATUS_SUCCESS ? status
                                            : call->set(variant, CUDNN_ATTR_VARIANT_PACK_WORKSPACE,
                                                        CUDNN_TYPE_VOID_PTR, 1, (void *)&workspace);
    status = status != CUDNN_STATUS_SUCCESS ? status : call->finalize(variant);
    status = status != CUDNN_STATUS_SUCCESS ? status
                                            : call->execute(cudnn->handle, p->execution, variant);
    if (variant != NULL) {
        call->drop(variant);
    }
    if (status != CUDNN_STATUS_SUCCESS) {
        char detail[120] = "";
        call->last_error(detail, sizeof detail);
        snprintf(why, why_size, "cuDNN: %s (%.110s)", call->error_string(status), detail);
        return -1;
    }
    return 0;
}
