/*
 * Attention through cuDNN, which is opened at run time: a program that was built with its headers
 * starts on machines that have no cuDNN, and one built without them says so.
 *
 * Only rows that are one run of text (no packed records), of a multiple of 128 tokens: other
 * lengths have given NaN in some of its versions, see cudnn_takes.
 */
#ifndef WINDROW_KERNELS_CUDA_CUDNN_H
#define WINDROW_KERNELS_CUDA_CUDNN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct cudnn;

/* Shapes as in struct attention_shape of kernels/ops.h; everything bf16, causal. */
struct cudnn_shape {
    int64_t batch, sequence, heads, kv_heads, head_size;
    bool backward;
};

/* Where things are on the device. Rows of qkv and dqkv are packed as in kernels/ops.h. */
struct cudnn_tensors {
    const void *qkv;
    void *out;
    float *lse;
    const void *dout; /* from here on for the backward */
    void *dqkv;
    float *delta;
    void *scratch; /* cudnn_scratch_bytes, aligned to 256 */
    float scale;
};

/* Opens the library, nothing of a device. NULL, with a sentence in `why`, if it cannot be had or
 * its version is not one that is known to work. */
struct cudnn *cudnn_open(char *why, size_t why_size);
void cudnn_close(struct cudnn *cudnn);
/* As the library counts it: 91900 is 9.19.0. */
size_t cudnn_version(const struct cudnn *cudnn);

/* Sequences are multiples of it. Operations inside the memory of one begin at multiples of these
 * bytes. The library may ask for these bytes besides what the shape tells. */
enum { CUDNN_TOKENS = 128, CUDNN_ALIGNMENT = 256, CUDNN_SPARE_BYTES = 1 << 20 };

/* Whether a shape is one to ask the library for. */
static inline bool cudnn_takes(const struct cudnn_shape *s)
{
    return s->sequence % CUDNN_TOKENS == 0 && s->sequence > 0 && s->head_size % 8 == 0 &&
           s->head_size >= 32 && s->head_size <= 128;
}

/* The sums of the queries' gradients, fp32. */
static inline size_t cudnn_sum_bytes(const struct cudnn_shape *s)
{
    size_t bytes = (size_t)(s->batch * s->heads * s->sequence * s->head_size) * sizeof(float);
    return (bytes + CUDNN_ALIGNMENT - 1) / CUDNN_ALIGNMENT * CUDNN_ALIGNMENT;
}

/* What the library may ask for itself: with grouped queries, bf16 gradients of the keys and values
 * of each query head, before they are summed, which are as large as those sums. */
static inline size_t cudnn_workspace_bytes(const struct cudnn_shape *s)
{
    bool grouped = s->backward && s->heads != s->kv_heads;
    return (grouped ? cudnn_sum_bytes(s) : 0) + CUDNN_SPARE_BYTES;
}

/* Memory that an operation of this shape works in: a function of the shape alone, so that it can be
 * planned. A plan of the library that wants more is refused. */
static inline size_t cudnn_scratch_bytes(const struct cudnn_shape *s)
{
    return (s->backward ? cudnn_sum_bytes(s) : 0) + cudnn_workspace_bytes(s);
}

/* Builds all descriptors and the graph of operations, for no device. 0, or -1 with a sentence in
 * `why`. Tests need it. */
int cudnn_try_graph(struct cudnn *cudnn, const struct cudnn_shape *shape, char *why,
                    size_t why_size);

/* Sees to it that there is a plan for the shape on the current device; takes up to a second the
 * first time. 0, or -1 with a sentence in `why`: the same each time it is asked again. */
int cudnn_prepare(struct cudnn *cudnn, const struct cudnn_shape *shape, char *why, size_t why_size);

/* Queues the operation on `stream` (a cudaStream_t), after cudnn_prepare. 0, or -1 with `why`. */
int cudnn_run(struct cudnn *cudnn, const struct cudnn_shape *shape,
              const struct cudnn_tensors *tensors, void *stream, char *why, size_t why_size);

#ifdef __cplusplus
}
#endif

#endif
