/* NCCL through a table of its functions. */
#include "engine/comm/nccl_library.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "kernels/libraries.h"

#ifdef WINDROW_NCCL_HEADER
#include <nccl.h>

_Static_assert((int)ncclSuccess == (int)NCCL_SUCCESS, "the results are numbered so");
_Static_assert((int)ncclInProgress == (int)NCCL_IN_PROGRESS, "the results are numbered so");
_Static_assert((int)ncclInt8 == (int)NCCL_BYTE, "the types are numbered so");
_Static_assert((int)ncclFloat32 == (int)NCCL_FLOAT32, "the types are numbered so");
_Static_assert((int)ncclBfloat16 == (int)NCCL_BFLOAT16, "the types are numbered so");
_Static_assert((int)ncclSum == (int)NCCL_SUM, "the operations are numbered so");
_Static_assert(sizeof(ncclUniqueId) == sizeof(struct nccl_id), "an id is so large");
_Static_assert(offsetof(ncclConfig_t, version) == offsetof(struct nccl_config, version) &&
                   offsetof(ncclConfig_t, blocking) == offsetof(struct nccl_config, blocking) &&
                   offsetof(ncclConfig_t, netName) == offsetof(struct nccl_config, network),
               "a configuration begins so");
_Static_assert(sizeof(ncclConfig_t) >= sizeof(struct nccl_config), "configurations only grow");
_Static_assert(NCCL_CONFIG_UNDEF_INT == NCCL_UNDEFINED, "what is left to the library");
#endif

static int find_functions(struct nccl_library *library, void *handle, char *why, size_t why_size)
{
    struct {
        const char *name;
        void *pointer;
    } wanted[] = {
        { "ncclGetVersion", &library->version },
        { "ncclGetUniqueId", &library->make_id },
        { "ncclCommInitRankConfig", &library->init },
        { "ncclCommGetAsyncError", &library->state },
        { "ncclAllReduce", &library->all_reduce },
        { "ncclReduce", &library->reduce },
        { "ncclReduceScatter", &library->reduce_scatter },
        { "ncclAllGather", &library->all_gather },
        { "ncclBroadcast", &library->broadcast },
        { "ncclGroupStart", &library->group_start },
        { "ncclGroupEnd", &library->group_end },
        { "ncclCommFinalize", &library->finalize },
        { "ncclCommDestroy", &library->destroy },
        { "ncclCommAbort", &library->abort },
        { "ncclGetErrorString", &library->error_string },
        { "ncclGetLastError", &library->last_error },
    };
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        void *found = dlsym(handle, wanted[i].name);
        if (found == NULL) {
            snprintf(why, why_size, "NCCL has no %s: 2.17 or newer is needed", wanted[i].name);
            return -1;
        }
        memcpy(wanted[i].pointer, &found, sizeof found);
    }
    return 0;
}

int nccl_library_open(struct nccl_library *library, const char *file, char *why, size_t why_size)
{
    void *handle = library_open(LIBRARY_NCCL, file);
    if (handle == NULL) {
        snprintf(why, why_size, "%.120s cannot be opened",
                 file != NULL ? file : library_name(LIBRARY_NCCL));
        return -1;
    }
    return find_functions(library, handle, why, why_size);
}
