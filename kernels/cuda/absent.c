/* Built without CUDA: the entry point exists and says so. */
#include <stdio.h>

#include "kernels/backend_private.h"

int backend_cuda_count(void)
{
    return 0;
}

int backend_cuda_find(int index, char bus_id[BUS_ID_SIZE], char *why, size_t why_size)
{
    (void)index;
    bus_id[0] = '\0';
    snprintf(why, why_size, "this windrow was built without CUDA");
    return -1;
}

struct backend *backend_cuda_open(int index, char *why, size_t why_size)
{
    (void)index;
    snprintf(why, why_size, "this windrow was built without CUDA");
    return NULL;
}
