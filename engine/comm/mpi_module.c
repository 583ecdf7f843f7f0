/*
 * MPI as a transport: a module (windrow_mpi.so), so that nothing of MPI is loaded where it is not
 * used. Collectives are non-blocking and polled, so that a peer that does not answer can be given
 * up. See transport.h.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "engine/comm/mpi_module.h"
#include "engine/comm/transport.h"

enum { POLLS_WITHOUT_REST = 2000, REST_NS = 50000 };

static int tell(struct transport *transport, int code)
{
    char text[MPI_MAX_ERROR_STRING] = "unknown";
    int length = 0;
    MPI_Error_string(code, text, &length);
    snprintf(transport->error, sizeof transport->error, "MPI: %.200s", text);
    return -1;
}

/* Waits for what `code` says has begun. */
static int complete(struct transport *transport, int code, MPI_Request *request)
{
    int done = 0;
    for (int64_t polls = 0; code == MPI_SUCCESS && !done; polls++) {
        code = MPI_Test(request, &done, MPI_STATUS_IGNORE);
        if (done) {
            break;
        }
        if (transport->waiting != NULL && !transport->waiting(transport->context)) {
            snprintf(transport->error, sizeof transport->error, "it was given up");
            return -1;
        }
        if (polls > POLLS_WITHOUT_REST) {
            nanosleep(&(struct timespec){ .tv_nsec = REST_NS }, NULL);
        }
    }
    return code == MPI_SUCCESS ? 0 : tell(transport, code);
}

static int mpi_exchange(struct transport *transport, const void *send, void *receive, size_t bytes)
{
    MPI_Request request = MPI_REQUEST_NULL;
    return complete(transport,
                    MPI_Ialltoall(send, (int)bytes, MPI_BYTE, receive, (int)bytes, MPI_BYTE,
                                  MPI_COMM_WORLD, &request),
                    &request);
}

static int mpi_gather(struct transport *transport, const void *mine, void *all, size_t bytes)
{
    MPI_Request request = MPI_REQUEST_NULL;
    return complete(transport,
                    MPI_Iallgather(mine, (int)bytes, MPI_BYTE, all, (int)bytes, MPI_BYTE,
                                   MPI_COMM_WORLD, &request),
                    &request);
}

static int mpi_broadcast(struct transport *transport, void *data, size_t bytes, int root)
{
    MPI_Request request = MPI_REQUEST_NULL;
    return complete(transport,
                    MPI_Ibcast(data, (int)bytes, MPI_BYTE, root, MPI_COMM_WORLD, &request),
                    &request);
}

/* MPI_Finalize waits for all ranks: where one is lost, it would wait for ever. */
static void mpi_close(struct transport *transport, bool broken)
{
    if (!broken) {
        MPI_Finalize();
    }
    free(transport);
}

static const struct transport_ops mpi_ops = {
    .name = "mpi",
    .exchange = mpi_exchange,
    .gather = mpi_gather,
    .broadcast = mpi_broadcast,
    .close = mpi_close,
};

static int find_local_rank(int *local_rank)
{
    MPI_Comm host;
    int code = MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host);
    if (code == MPI_SUCCESS) {
        code = MPI_Comm_rank(host, local_rank);
        MPI_Comm_free(&host);
    }
    return code;
}

struct transport *windrow_mpi_open(char *why, size_t why_size)
{
    struct transport *transport = calloc(1, sizeof *transport);
    int provided = 0;
    if (transport == NULL) {
        snprintf(why, why_size, "out of memory");
        return NULL;
    }
    int code = MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &provided);
    if (code == MPI_SUCCESS) {
        MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
        code = MPI_Comm_rank(MPI_COMM_WORLD, &transport->rank);
    }
    if (code == MPI_SUCCESS) {
        code = MPI_Comm_size(MPI_COMM_WORLD, &transport->ranks);
    }
    if (code == MPI_SUCCESS) {
        code = find_local_rank(&transport->local_rank);
    }
    if (code != MPI_SUCCESS) {
        tell(transport, code);
        snprintf(why, why_size, "%s", transport->error);
        free(transport);
        return NULL;
    }
    transport->ops = &mpi_ops;
    transport->one_thread = provided < MPI_THREAD_SERIALIZED;
    return transport;
}
