/* Entry points of the backends, for backend_open alone. Each returns NULL with a sentence in `why`
 * if the device cannot be had. */
#ifndef WINDROW_KERNELS_BACKEND_PRIVATE_H
#define WINDROW_KERNELS_BACKEND_PRIVATE_H

#include "kernels/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

struct backend *backend_cpu_open(int index, char *why, size_t why_size);
struct backend *backend_null_open(int index, char *why, size_t why_size);
struct backend *backend_cuda_open(int index, char *why, size_t why_size);

#ifdef __cplusplus
}
#endif

#endif
