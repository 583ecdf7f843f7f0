/*
 * NVIDIA's NCCL, opened at run time. The part of its interface that is used is declared here:
 * numbers and layouts are fixed by the library's ABI, and are compared with nccl.h where a build
 * finds that.
 */
#ifndef WINDROW_ENGINE_COMM_NCCL_LIBRARY_H
#define WINDROW_ENGINE_COMM_NCCL_LIBRARY_H

#include <stddef.h>

/* ncclResult_t */
enum { NCCL_SUCCESS = 0, NCCL_IN_PROGRESS = 7 };
/* ncclDataType_t, ncclRedOp_t */
enum { NCCL_BYTE = 0, NCCL_FLOAT32 = 7, NCCL_BFLOAT16 = 9, NCCL_SUM = 0 };

struct nccl_id { /* ncclUniqueId */
    char bytes[128];
};

/* ncclConfig_t as of 2.17: later libraries take the shorter form, and know it by its version. */
struct nccl_config {
    size_t size;
    unsigned magic;
    unsigned version;
    int blocking;
    int cga_cluster_size;
    int min_blocks;
    int max_blocks;
    const char *network;
};
enum { NCCL_CONFIG_VERSION = 21700, NCCL_UNDEFINED = -0x7fffffff - 1 };
#define NCCL_CONFIG_MAGIC 0xcafebeefu

struct nccl_library {
    int (*version)(int *version);
    int (*make_id)(struct nccl_id *id);
    int (*init)(void **comm, int ranks, struct nccl_id id, int rank, struct nccl_config *config);
    int (*state)(void *comm, int *result);
    int (*all_reduce)(const void *from, void *to, size_t count, int type, int op, void *comm,
                      void *stream);
    int (*reduce)(const void *from, void *to, size_t count, int type, int op, int root, void *comm,
                  void *stream);
    int (*reduce_scatter)(const void *from, void *to, size_t each_count, int type, int op,
                          void *comm, void *stream);
    int (*all_gather)(const void *from, void *to, size_t each_count, int type, void *comm,
                      void *stream);
    int (*broadcast)(const void *from, void *to, size_t count, int type, int root, void *comm,
                     void *stream);
    int (*group_start)(void);
    int (*group_end)(void);
    int (*finalize)(void *comm);
    int (*destroy)(void *comm);
    int (*abort)(void *comm);
    const char *(*error_string)(int result);
    const char *(*last_error)(void *comm);
};

/* Opens `file`, or where that is NULL libnccl.so.2. It stays open: it has threads of its own. -1
 * with a sentence in `why`. */
int nccl_library_open(struct nccl_library *library, const char *file, char *why, size_t why_size);

#endif
