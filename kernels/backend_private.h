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
/* Whether there is such a device; its PCI bus id ("" if that is not told) needs no context. */
enum { BUS_ID_SIZE = 32 };
int backend_cuda_find(int index, char bus_id[BUS_ID_SIZE], char *why, size_t why_size);

/* Bytes in use by everybody and in all on the device with this PCI bus id; -1 if nobody can tell.
 * Needs no context. */
int backend_bus_memory(const char *bus_id, size_t *used_bytes, size_t *total_bytes);

#ifdef __cplusplus
}
#endif

#endif
