/* The one name of the module windrow_mpi.so. */
#ifndef WINDROW_ENGINE_COMM_MPI_MODULE_H
#define WINDROW_ENGINE_COMM_MPI_MODULE_H

#include <stddef.h>

struct transport;

/* As transport_open_mpi (transport.h). */
__attribute__((visibility("default"))) struct transport *windrow_mpi_open(char *why,
                                                                          size_t why_size);

#endif
