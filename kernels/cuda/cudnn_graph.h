/*
 * Causal attention as a graph of cuDNN's operations, by its backend API: tensors, pointwise
 * operations, reductions and matrix products, which the library recognises and runs as one kernel.
 *
 * Source: cuDNN's documentation of the backend API, "Supported graph patterns", fused attention;
 * the formulas are those of flash_forward.cu and flash_backward.cu.
 */
#ifndef WINDROW_KERNELS_CUDA_CUDNN_GRAPH_H
#define WINDROW_KERNELS_CUDA_CUDNN_GRAPH_H

#include <cudnn.h>

#include "kernels/cuda/cudnn.h"

/* The functions that are used, typed by the library's own header. */
struct cudnn_calls {
    __typeof__(&cudnnGetVersion) version;
    __typeof__(&cudnnGetErrorString) error_string;
    __typeof__(&cudnnGetLastErrorString) last_error;
    __typeof__(&cudnnCreate) create;
    __typeof__(&cudnnDestroy) destroy;
    __typeof__(&cudnnSetStream) set_stream;
    __typeof__(&cudnnBackendCreateDescriptor) make;
    __typeof__(&cudnnBackendDestroyDescriptor) drop;
    __typeof__(&cudnnBackendSetAttribute) set;
    __typeof__(&cudnnBackendGetAttribute) get;
    __typeof__(&cudnnBackendFinalize) finalize;
    __typeof__(&cudnnBackendExecute) execute;
};

/* Tensors that the caller gives when the graph runs. */
enum cudnn_id {
    CUDNN_ID_Q = 1,
    CUDNN_ID_K,
    CUDNN_ID_V,
    CUDNN_ID_OUT,
    CUDNN_ID_LSE,
    CUDNN_ID_SCALE, /* this and the next two are on the host */
    CUDNN_ID_HIDDEN,
    CUDNN_ID_ONE,
    CUDNN_ID_DOUT,
    CUDNN_ID_DQ,
    CUDNN_ID_DK,
    CUDNN_ID_DV,
    CUDNN_ID_DELTA,
    CUDNN_ID_DQ_SUM,
    CUDNN_ID_OTHER /* the first of those inside of the graph */
};

enum { CUDNN_HELD_MAX = 160, CUDNN_OPERATIONS_MAX = 40 };

/* Descriptors under construction. All are kept until cudnn_graph_free: they refer to each other.
 * The first failure is told in `why`, and makes the rest do nothing. */
struct cudnn_graph {
    const struct cudnn_calls *call;
    cudnnBackendDescriptor_t held[CUDNN_HELD_MAX];
    int held_count;
    cudnnBackendDescriptor_t operation[CUDNN_OPERATIONS_MAX];
    int operation_count;
    cudnnBackendDescriptor_t whole;
    int64_t next_id;
    bool failed;
    char why[256];
};

/* A new descriptor; NULL after a failure. */
cudnnBackendDescriptor_t cudnn_graph_make(struct cudnn_graph *graph,
                                          cudnnBackendDescriptorType_t type);
void cudnn_graph_set(struct cudnn_graph *graph, cudnnBackendDescriptor_t to,
                     cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                     int64_t count, const void *value);
void cudnn_graph_finalize(struct cudnn_graph *graph, cudnnBackendDescriptor_t descriptor,
                          const char *what);

/* Builds the graph in `graph`, which is zero but for `call`, for a handle or none. 0, or -1 with
 * graph->why. */
int cudnn_graph_build(struct cudnn_graph *graph, const struct cudnn_shape *shape,
                      cudnnHandle_t handle);
void cudnn_graph_free(struct cudnn_graph *graph);

#endif
