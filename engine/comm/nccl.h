/*
 * The engine "nccl": sums and spreads on the devices themselves, over NVLink, PCIe or a network,
 * by NVIDIA's NCCL.
 *
 * It grows out of the engine "host", which goes on to carry what lies in host memory (orders,
 * counts, gathering, broadcasts) and by which the ranks find each other. Work of NCCL goes to a
 * lane of its own on the device (kernels/transfer.h) and is watched by the host without blocking:
 * an error of any rank, or a `waiting` that returns false, aborts NCCL and is latched with the
 * collective named. Where the abort itself hangs, as it may with a lost device, the process ends
 * with ERROR_RUNTIME after `patience_s`: nothing else could be done with the device.
 */
#ifndef WINDROW_ENGINE_COMM_NCCL_H
#define WINDROW_ENGINE_COMM_NCCL_H

#include "engine/comm/comm.h"

struct nccl_options {
    const char *library; /* NULL: libnccl.so.2 */
    /* Sums in the order of a ring, which one shape of the machine always gives the same (the
     * environment's NCCL_ALGO goes before). */
    bool deterministic;
    double patience_s; /* 0: 5 s */
};

/* Takes a communicator of comm_open_host to NCCL, or one of comm_open_single, whose sums then go
 * through NCCL for the sake of trying it: they have the bits of what is summed. All ranks ask
 * together, each with the device that it trains on. First a few numbers are summed and checked.
 * False, with a sentence in `why`, if any rank has no NCCL or another version, or WINDROW_NCCL=off
 * is in its environment: then it stays as it was. Also false, with the error latched (comm_check),
 * if NCCL did not start: the other ranks may wait for this one, so there is no way back. */
bool comm_use_nccl(struct comm *comm, struct backend *be, const struct nccl_options *options,
                   char *why, size_t why_size);

#endif
