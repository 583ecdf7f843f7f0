/* Who started this process, and with whom it trains. */
#ifndef WINDROW_ENGINE_COMM_WORLD_H
#define WINDROW_ENGINE_COMM_WORLD_H

#include "engine/comm/comm.h"

/* What the environment says of ranks. Known are Open MPI (OMPI_COMM_WORLD_SIZE, ..._RANK), Slurm's
 * srun (SLURM_STEP_NUM_TASKS, SLURM_PROCID) and torchrun (WORLD_SIZE, RANK); the first that speaks
 * of more than one rank counts. */
struct world {
    const char *launcher; /* "mpirun", "srun", "torchrun"; NULL: started alone */
    int rank;
    int ranks;
};
struct world world_find(void);

/* Joins the ranks that the environment speaks of: one rank is "single". NULL with an error that
 * says what is missing. */
struct comm *world_open(struct error *err);

#endif
