/* Names of libraries, and opening them. */
#include "kernels/libraries.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#ifndef CUBLASLT_MAJOR /* known where there is a CUDA toolkit to build with */
#define CUBLASLT_MAJOR 13
#endif
#define TEXT_OF(number) #number
#define TEXT(number)    TEXT_OF(number)

enum { NAMES_MAX = 3 };
static const struct {
    const char *name[NAMES_MAX]; /* the preferred one first */
    bool of_the_driver;          /* which the system finds, or nobody */
} libraries[LIBRARY_COUNT] = {
    [LIBRARY_CUBLASLT] = { { "libcublasLt.so." TEXT(CUBLASLT_MAJOR) }, false },
    [LIBRARY_CUDNN] = { { "libcudnn.so.9" }, false },
    /* What is used of it has been the same since CUDA 11.1. */
    [LIBRARY_CUSOLVER] = { { "libcusolver.so.12", "libcusolver.so.11", "libcusolver.so" }, false },
    [LIBRARY_NVML] = { { "libnvidia-ml.so.1" }, true },
    [LIBRARY_NCCL] = { { "libnccl.so.2" }, false },
};
static const char toolkit[] = "/usr/local/cuda/lib64";

const char *library_name(enum library which)
{
    return libraries[which].name[0];
}

static void *open_file(const char *file)
{
    return dlopen(file, RTLD_NOW | RTLD_LOCAL);
}

void *library_open(enum library which, const char *file)
{
    void *handle = file != NULL ? open_file(file) : NULL;
    const char *const *names = libraries[which].name;
    for (int i = 0; file == NULL && handle == NULL && i < NAMES_MAX && names[i] != NULL; i++) {
        handle = open_file(names[i]);
    }
    bool elsewhere = file == NULL && !libraries[which].of_the_driver;
    for (int i = 0; elsewhere && handle == NULL && i < NAMES_MAX && names[i] != NULL; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", toolkit, names[i]);
        handle = open_file(path);
    }
    return handle;
}
