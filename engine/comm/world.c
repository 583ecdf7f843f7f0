/* From the environment to a communicator. */
#include "engine/comm/world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "engine/base/text.h"
#include "engine/comm/socket.h"

const char world_own_launcher[] = "windrow";
const char world_mpi_launcher[] = "mpirun";
static const char torchrun[] = "torchrun";
static const char srun[] = "srun";

enum { RANKS_MAX = 1 << 14, PORTS = 8, SLURM_FIRST_PORT = 20480, SLURM_PORTS = 12000 };
#define JOIN_S 120.0

struct launcher {
    const char *name;
    const char *ranks; /* names of variables */
    const char *rank;
    const char *local_rank;
};

static const struct launcher launchers[] = {
    { world_own_launcher, "WINDROW_RANKS", "WINDROW_RANK", "WINDROW_LOCAL_RANK" },
    { world_mpi_launcher, "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK",
      "OMPI_COMM_WORLD_LOCAL_RANK" },
    { torchrun, "WORLD_SIZE", "RANK", "LOCAL_RANK" },
    { srun, "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID" },
};

/* ---- variables ------------------------------------------------------------------------------ */

/* A variable that is set to nothing is not set. */
static const char *variable(const char *name)
{
    const char *text = getenv(name);
    return text && text[0] != '\0' ? text : NULL;
}

/* 1: read, 0: not set, -1: something else than a number of this range. */
static int read_number(const char *name, int least, int most, int *out, struct error *err)
{
    const char *text = variable(name);
    int64_t value = 0;
    if (text == NULL) {
        return 0;
    }
    if (!text_to_integer(text, &value) || value < least || value > most) {
        return fail(err, ERROR_USAGE, "%s is %s; it has to be a whole number from %d to %d", name,
                    text_show(text).text, least, most);
    }
    *out = (int)value;
    return 1;
}

/* Whether this launcher started ranks: 1, or 0; -1: it contradicts itself. */
static int speaks(const struct launcher *launcher, struct world *world, struct error *err)
{
    int ranks = 0;
    int local_rank = -1;
    int rank = -1;
    int said = read_number(launcher->ranks, 1, RANKS_MAX, &ranks, err);
    if (said <= 0 || ranks == 1) {
        return said < 0 ? -1 : 0;
    }
    said = read_number(launcher->rank, 0, ranks - 1, &rank, err);
    if (said < 0) {
        return -1;
    }
    if (said == 0) {
        if (launcher->name == torchrun && variable("SLURM_PROCID")) {
            return 0; /* a script's own variable: srun knows the rank */
        }
        fail(err, ERROR_USAGE, "%s is %d, but %s is not set", launcher->ranks, ranks,
             launcher->rank);
        return hint(err, "set both for each rank, or neither");
    }
    if (read_number(launcher->local_rank, 0, ranks - 1, &local_rank, err) < 0) {
        return -1;
    }
    world->launcher = launcher->name;
    world->ranks = ranks;
    world->rank = rank;
    world->local_rank = local_rank;
    return 1;
}

/* ---- places --------------------------------------------------------------------------------- */

/* The first of what stands in brackets, "03-05,9" or "7": its digits, zeros in front too. */
static size_t first_number(const char *range)
{
    return strspn(range, "0123456789");
}

int world_first_host(const char *list, char *host, size_t size)
{
    size_t plain = strcspn(list, "[,");
    int written = 0;
    if (list[plain] == '[') {
        const char *range = list + plain + 1;
        size_t digits = first_number(range);
        const char *end = strchr(range, ']');
        size_t tail = end ? strcspn(end + 1, "[,") : 0;
        if (digits == 0 || end == NULL || end[1 + tail] == '[') {
            return -1;
        }
        written = snprintf(host, size, "%.*s%.*s%.*s", (int)plain, list, (int)digits, range,
                           (int)tail, end + 1);
    } else {
        written = snprintf(host, size, "%.*s", (int)plain, list);
    }
    return written > 0 && (size_t)written < size ? 0 : -1;
}

static int bad_rendezvous(const char *text, struct error *err)
{
    return fail(err, ERROR_USAGE,
                "WINDROW_RENDEZVOUS is %s; it has to be tcp://HOST:PORT or file:/PATH",
                text_show(text).text);
}

static int read_rendezvous(const char *text, struct tcp_place *place, struct error *err)
{
    static const char tcp[] = "tcp://";
    static const char file[] = "file:";
    if (strncmp(text, file, sizeof file - 1) == 0) {
        const char *path = text + sizeof file - 1;
        path += strncmp(path, "///", 3) == 0 ? 2 : 0;
        size_t length = strlen(path);
        if (path[0] != '/' || length >= sizeof place->file || path[length - 1] == '/') {
            return bad_rendezvous(text, err);
        }
        snprintf(place->file, sizeof place->file, "%s", path);
        return 0;
    }
    const char *host = text + sizeof tcp - 1;
    const char *colon = strrchr(text, ':');
    if (strncmp(text, tcp, sizeof tcp - 1) != 0 || colon < host) {
        return bad_rendezvous(text, err);
    }
    int64_t port = 0;
    size_t length = (size_t)(colon - host);
    if (host[0] == '[' && length > 2 && host[length - 1] == ']') { /* an address of IPv6 */
        host++;
        length -= 2;
    }
    if (length == 0 || length >= sizeof place->host || !text_to_integer(colon + 1, &port) ||
        port < 1 || port > 65535) {
        return bad_rendezvous(text, err);
    }
    memcpy(place->host, host, length);
    place->port = (int)port;
    place->port_count = 1;
    return 0;
}

static int find_master(struct tcp_place *place, struct error *err)
{
    const char *host = variable("MASTER_ADDR");
    int port = 0;
    int said = read_number("MASTER_PORT", 1, 65535 - PORTS, &port, err);
    if (said < 0) {
        return -1;
    }
    if (host == NULL || said == 0 || strlen(host) >= sizeof place->host) {
        fail(err, ERROR_USAGE,
             "WORLD_SIZE and RANK speak of several ranks, but %s %s where they meet",
             host && said ? "MASTER_ADDR"
             : host       ? "MASTER_PORT"
                          : "MASTER_ADDR",
             host && said ? "is too long to say" : "is not set to say");
        return hint(err, "set MASTER_ADDR and MASTER_PORT as torchrun does, or WINDROW_RENDEZVOUS="
                         "tcp://HOST:PORT");
    }
    snprintf(place->host, sizeof place->host, "%s", host);
    place->port = port + 1;
    place->port_count = PORTS;
    return 0;
}

static int find_slurm(struct tcp_place *place, struct error *err)
{
    const char *list = variable("SLURM_STEP_NODELIST");
    const char *address = variable("SLURM_LAUNCH_NODE_IPADDR");
    int job = 0;
    int step = 0;
    if (read_number("SLURM_JOB_ID", 0, INT32_MAX, &job, err) < 0) {
        return -1;
    }
    const char *text = variable("SLURM_STEP_ID");
    int64_t number = 0;
    step = text && text_to_integer(text, &number) ? (int)(number & 0xff) : 0;
    if (list && world_first_host(list, place->host, sizeof place->host) != 0) {
        return fail(err, ERROR_USAGE, "SLURM_STEP_NODELIST is %s, which has no first host",
                    text_show(list).text);
    }
    if (list == NULL && (address == NULL || strlen(address) >= sizeof place->host)) {
        fail(err, ERROR_USAGE,
             "srun started several ranks, but neither SLURM_STEP_NODELIST nor "
             "SLURM_LAUNCH_NODE_IPADDR says where they meet");
        return hint(err, "set WINDROW_RENDEZVOUS=tcp://HOST:PORT, HOST is that of rank 0");
    }
    if (list == NULL) {
        snprintf(place->host, sizeof place->host, "%s", address);
    }
    place->port =
        SLURM_FIRST_PORT + (int)(((int64_t)job * 40 + (int64_t)step * PORTS) % SLURM_PORTS);
    place->port_count = PORTS;
    return 0;
}

/* ---- the job -------------------------------------------------------------------------------- */

static void find_job(struct world *world)
{
    char *job = world->tcp.job;
    size_t size = sizeof world->tcp.job;
    const char *own = variable("WINDROW_JOB");
    const char *elastic = variable("TORCHELASTIC_RUN_ID");
    const char *restart = variable("TORCHELASTIC_RESTART_COUNT");
    const char *slurm = variable("SLURM_JOB_ID");
    const char *step = variable("SLURM_STEP_ID");
    if (own) {
        snprintf(job, size, "own %s", own);
    } else if (world->launcher == torchrun && elastic) {
        snprintf(job, size, "torchrun %s %s", elastic, restart ? restart : "0");
    } else if (world->launcher == srun && slurm) {
        snprintf(job, size, "srun %s %s", slurm, step ? step : "0");
    }
}

/* ---- the world ------------------------------------------------------------------------------ */

static int find_place(struct world *world, struct error *err)
{
    const char *rendezvous = variable("WINDROW_RENDEZVOUS");
    struct tcp_place *place = &world->tcp.place;
    if (rendezvous) {
        return read_rendezvous(rendezvous, place, err);
    }
    if (world->launcher == torchrun) {
        return find_master(place, err);
    }
    if (world->launcher == srun) {
        /* PMI-2, which srun may offer too, ends the process in an Open MPI that was not built for
         * it. */
        world->mpi = variable("PMIX_RANK") != NULL;
        return find_slurm(place, err);
    }
    if (world->launcher == world_mpi_launcher) {
        world->mpi = true;
        world->mpi_only = true;
        return 0;
    }
    fail(err, ERROR_USAGE,
         "WINDROW_RANKS is %d, but WINDROW_RENDEZVOUS is not set to say where "
         "they meet",
         world->ranks);
    return hint(err, "tcp://HOST:PORT, of rank 0, or file:/PATH, which all ranks see");
}

static int find_listener(struct world *world, struct error *err)
{
    int fd = -1;
    world->tcp.listener = -1;
    int said = world->launcher == world_own_launcher && world->rank == 0
                   ? read_number("WINDROW_LISTENER", 3, 1 << 20, &fd, err)
                   : 0;
    if (said == 1) {
        if (socket_port(fd) != world->tcp.place.port) {
            return fail(err, ERROR_USAGE,
                        "WINDROW_LISTENER is %d, which does not listen at port %d; only windrow "
                        "itself sets it",
                        fd, world->tcp.place.port);
        }
        world->tcp.listener = fd;
    }
    return said < 0 ? -1 : 0;
}

int world_find(struct world *world, struct error *err)
{
    *world = (struct world){ .ranks = 1, .local_rank = -1, .tcp.listener = -1 };
    int said = 0;
    int seconds = (int)JOIN_S;
    const char *memory = variable("WINDROW_SHARED_MEMORY");
    bool alone = false; /* one rank, said so */
    for (size_t i = 0; said == 0 && i < sizeof launchers / sizeof launchers[0]; i++) {
        said = speaks(&launchers[i], world, err);
        alone = alone || (said == 0 && variable(launchers[i].ranks));
    }
    if (said < 0) {
        return -1;
    }
    if (said == 0) {
        if (variable("WINDROW_RENDEZVOUS") && !alone) {
            fail(err, ERROR_USAGE,
                 "WINDROW_RENDEZVOUS is set, but nothing says which rank this is");
            return hint(err, "set WINDROW_RANKS and WINDROW_RANK for each, or WORLD_SIZE and RANK");
        }
        return 0;
    }
    if (read_number("WINDROW_JOIN_SECONDS", 1, 86400, &seconds, err) < 0 ||
        find_place(world, err) != 0 || find_listener(world, err) != 0) {
        return -1;
    }
    find_job(world);
    world->tcp.rank = world->rank;
    world->tcp.ranks = world->ranks;
    world->tcp.local_rank = world->local_rank;
    world->tcp.wait_s = seconds;
    world->tcp.sockets_only = memory && strcmp(memory, "off") == 0;
    return 0;
}

/* ---- joining -------------------------------------------------------------------------------- */

/* What the meeting asks while it waits. */
struct waiter {
    bool watches_children;
    bool (*waiting)(void *context);
    void *context;
    pid_t ended; /* a rank that this process started, which ended before it came; 0: none */
    int status;
};

static bool goes_on(void *context)
{
    struct waiter *waiter = context;
    siginfo_t info = { 0 };
    if (waiter->watches_children && waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
        info.si_pid != 0) {
        waiter->ended = info.si_pid;
        waiter->status = info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
        return false;
    }
    return waiter->waiting == NULL || waiter->waiting(waiter->context);
}

static struct transport *open_tcp(struct world *world, struct waiter *waiter, struct error *err)
{
    waiter->watches_children = world->tcp.listener >= 0;
    world->tcp.waiting = goes_on;
    world->tcp.context = waiter;
    struct transport *transport = transport_open_tcp(&world->tcp, err);
    if (transport == NULL && waiter->ended != 0) {
        fail(err, ERROR_RUNTIME,
             "a rank that was started here (process %d) ended with %d before it had joined",
             (int)waiter->ended, waiter->status);
    }
    return transport;
}

/* NULL without an error in `err` where TCP can do it instead. */
static struct transport *open_mpi(const struct world *world, struct error *err)
{
    char why[512] = "";
    struct transport *transport = transport_open_mpi(why, sizeof why);
    if (transport && transport->ranks == world->ranks) {
        return transport;
    }
    int found = transport ? transport->ranks : 0;
    if (transport) {
        transport->ops->close(transport, true);
    }
    if (!world->mpi_only) {
        return NULL;
    }
    if (found > 0) {
        fail(err, ERROR_RUNTIME, "%s speaks of %d ranks, MPI found %d", world->launcher,
             world->ranks, found);
    } else {
        fail(err, ERROR_RUNTIME, "%s started %d ranks, but MPI cannot be used: %s", world->launcher,
             world->ranks, why);
    }
    hint(err, "windrow train --gpus N needs no MPI; nor does mpirun with WINDROW_RENDEZVOUS="
              "tcp://HOST:PORT or file:/PATH for all ranks");
    return NULL;
}

struct comm *world_open(bool (*waiting)(void *context), void *context, struct error *err)
{
    struct world world;
    struct waiter waiter = { .waiting = waiting, .context = context };
    if (world_find(&world, err) != 0) {
        return NULL;
    }
    if (world.ranks == 1) {
        return comm_open_single();
    }
    struct transport *transport = world.mpi ? open_mpi(&world, err) : NULL;
    if (transport == NULL && !world.mpi_only) {
        transport = open_tcp(&world, &waiter, err);
    }
    if (transport == NULL) {
        return NULL;
    }
    char first[sizeof transport->first];
    memcpy(first, transport->first, sizeof first);
    struct comm *comm = comm_open_host(transport);
    memcpy(comm->first, first, sizeof first);
    comm->launcher = world.launcher;
    return comm;
}
