/*
 * Who started this process, and with whom it trains.
 *
 *     launcher  says how many, and which      they meet
 *     windrow   WINDROW_RANKS, WINDROW_RANK   at WINDROW_RENDEZVOUS
 *     mpirun    OMPI_COMM_WORLD_SIZE, _RANK   by MPI
 *     torchrun  WORLD_SIZE, RANK              at MASTER_ADDR, a port after MASTER_PORT
 *     srun      SLURM_STEP_NUM_TASKS,         by MPI where srun offers PMIx and the module is
 * there, SLURM_PROCID                  else at the first host of SLURM_STEP_NODELIST, a port made
 * of the job's number
 *
 * The first in this order that speaks of more than one rank counts. WINDROW_RENDEZVOUS goes before
 * the place of any launcher: tcp://HOST:PORT, of rank 0, or file:/PATH, which all ranks see and
 * rank 0 writes. The port of torchrun itself is taken by its own store, so rank 0 listens at the
 * first of the eight after it that is free, and the others look for it there; with srun likewise.
 *
 * The key of the job (tcp.h) is WINDROW_JOB, else TORCHELASTIC_RUN_ID with its restart, else
 * Slurm's job and step. WINDROW_JOIN_SECONDS (120) is how long ranks wait for each other at the
 * start.
 */
#ifndef WINDROW_ENGINE_COMM_WORLD_H
#define WINDROW_ENGINE_COMM_WORLD_H

#include "engine/comm/comm.h"
#include "engine/comm/tcp.h"

extern const char world_own_launcher[]; /* "windrow" */
extern const char world_mpi_launcher[]; /* "mpirun" */

/* What the environment says. */
struct world {
    const char *launcher; /* NULL: started alone */
    int ranks;
    int rank;
    int local_rank; /* -1: not said */
    bool mpi;       /* they meet by MPI */
    bool mpi_only;  /* there is no other way: `tcp` says nothing */
    struct tcp_options tcp;
};

/* -1 with an error that names the variable, what it holds and what it may hold. */
int world_find(struct world *world, struct error *err);

/* Joins the ranks that the environment speaks of: one rank is "single". `waiting`, which may be
 * NULL, is called again and again until all are there; false gives up. NULL with an error that says
 * what is missing. */
struct comm *world_open(bool (*waiting)(void *context), void *context, struct error *err);

/* The first host of a list of Slurm, "node[03-05,9],login" is node03. -1: it has none that fits. */
int world_first_host(const char *list, char *host, size_t size);

#endif
