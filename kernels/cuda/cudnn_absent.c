/* Built without the headers of cuDNN: opening it says so. */
#include "kernels/cuda/cudnn.h"

#include <stdio.h>

struct cudnn *cudnn_open(char *why, size_t why_size)
{
    snprintf(why, why_size, "this windrow was built without cuDNN");
    return NULL;
}

void cudnn_close(struct cudnn *cudnn)
{
    (void)cudnn;
}

size_t cudnn_version(const struct cudnn *cudnn)
{
    (void)cudnn;
    return 0;
}

int cudnn_try_graph(struct cudnn *cudnn, const struct cudnn_shape *shape, char *why,
                    size_t why_size)
{
    (void)cudnn;
    (void)shape;
    snprintf(why, why_size, "this windrow was built without cuDNN");
    return -1;
}

int cudnn_prepare(struct cudnn *cudnn, const struct cudnn_shape *shape, char *why, size_t why_size)
{
    return cudnn_try_graph(cudnn, shape, why, why_size);
}

int cudnn_run(struct cudnn *cudnn, const struct cudnn_shape *shape,
              const struct cudnn_tensors *tensors, void *stream, char *why, size_t why_size)
{
    (void)tensors;
    (void)stream;
    return cudnn_try_graph(cudnn, shape, why, why_size);
}
