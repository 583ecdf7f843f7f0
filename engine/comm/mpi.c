/* Loads the module that talks to MPI. */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine/comm/mpi_module.h"
#include "engine/comm/transport.h"

#ifndef WINDROW_MPI_FOLDER
#define WINDROW_MPI_FOLDER "/usr/lib/windrow"
#endif

/* Beside the program first (a build, a relocatable folder), then where it is installed. Its symbols
 * are global: the components that Open MPI loads in turn expect to find them. */
static void *load(char *why, size_t why_size)
{
    char program[400];
    char path[512];
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    program[length > 0 ? length : 0] = '\0';
    char *slash = strrchr(program, '/');
    if (slash != NULL) {
        *slash = '\0';
    }
    snprintf(path, sizeof path, "%s/lib/windrow_mpi.so", program);
    void *module = NULL;
    if (access(path, F_OK) == 0) {
        module = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    } else {
        module = dlopen(WINDROW_MPI_FOLDER "/windrow_mpi.so", RTLD_NOW | RTLD_GLOBAL);
    }
    if (module == NULL) {
        const char *said = dlerror();
        snprintf(why, why_size, "%.300s", said ? said : "windrow_mpi.so was not found");
    }
    return module;
}

struct transport *transport_open_mpi(char *why, size_t why_size)
{
    void *module = load(why, why_size);
    if (module == NULL) {
        return NULL;
    }
    struct transport *(*join)(char *why, size_t why_size) = NULL;
    *(void **)&join = dlsym(module, "windrow_mpi_open");
    if (join == NULL) {
        snprintf(why, why_size, "windrow_mpi.so has no windrow_mpi_open");
        return NULL;
    }
    return join(why, why_size);
}
