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
struct backend *backend_null_cuda_open(int index, char *why, size_t why_size);
struct backend *backend_cuda_open(int index, char *why, size_t why_size);
int backend_cuda_count(void);

/* Bytes in use by everybody on the device with this PCI bus id; 0 if nobody can tell. Needs no
 * context. */
size_t backend_used_bytes(const char *bus_id);

#ifdef __cplusplus
}
#endif

#endif
