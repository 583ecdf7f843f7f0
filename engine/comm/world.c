/* From the environment to a communicator. */
#include "engine/comm/world.h"

#include <stdlib.h>

#include "engine/base/text.h"
#include "engine/comm/transport.h"

struct launcher {
    const char *name;
    const char *ranks; /* names of variables */
    const char *rank;
};

static const struct launcher launchers[] = {
    { "mpirun", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK" },
    { "srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID" },
    { "torchrun", "WORLD_SIZE", "RANK" },
};

static bool number_of(const char *variable, int *out)
{
    const char *text = getenv(variable);
    int64_t value = 0;
    if (text == NULL || !text_to_integer(text, &value) || value < 0 || value > 1 << 20) {
        return false;
    }
    *out = (int)value;
    return true;
}

struct world world_find(void)
{
    struct world world = { .ranks = 1 };
    for (size_t i = 0; i < sizeof launchers / sizeof launchers[0]; i++) {
        int ranks = 0;
        int rank = 0;
        if (number_of(launchers[i].ranks, &ranks) && number_of(launchers[i].rank, &rank) &&
            ranks > 1 && rank < ranks) {
            world = (struct world){ launchers[i].name, rank, ranks };
            break;
        }
    }
    return world;
}

struct comm *world_open(struct error *err)
{
    struct world world = world_find();
    if (world.ranks == 1) {
        return comm_open_single();
    }
    char why[512] = "";
    struct transport *transport = transport_open_mpi(why, sizeof why);
    if (transport == NULL) {
        fail(err, ERROR_RUNTIME, "%s started %d ranks, but MPI cannot be used: %s", world.launcher,
             world.ranks, why);
        hint(err, "install libopenmpi-dev and openmpi-bin, and build again");
        return NULL;
    }
    if (transport->ranks != world.ranks) {
        fail(err, ERROR_RUNTIME, "%s speaks of %d ranks, MPI found %d", world.launcher, world.ranks,
             transport->ranks);
        hint(err, "start the ranks with mpirun -np %d windrow train ...", world.ranks);
        transport->ops->close(transport, true);
        return NULL;
    }
    return comm_open_host(transport);
}
