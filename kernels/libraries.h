/*
 * Libraries of others that are opened while the program runs, if they are there: who looks for one
 * looks for the same names in the same places.
 */
#ifndef WINDROW_KERNELS_LIBRARIES_H
#define WINDROW_KERNELS_LIBRARIES_H

enum library {
    LIBRARY_CUBLASLT, /* of the major version that the program was built with */
    LIBRARY_CUDNN,
    LIBRARY_CUSOLVER,
    LIBRARY_NVML,
    LIBRARY_NCCL,
    LIBRARY_COUNT
};

/* The name under which one is known best: "libnccl.so.2". */
const char *library_name(enum library which);

/* Opens `file`, or where that is NULL the first that is found under any of its names: as the system
 * searches, then where the CUDA toolkit installs it. NULL if there is none. A handle of dlopen, the
 * caller's. */
void *library_open(enum library which, const char *file);

#endif
