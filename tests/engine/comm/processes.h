/* Ranks that are processes: what a test needs to start, strike and count them. */
#ifndef WINDROW_TESTS_ENGINE_COMM_PROCESSES_H
#define WINDROW_TESTS_ENGINE_COMM_PROCESSES_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { PROCESSES_MAX = 8 };

/* Seconds that only go forward. */
double processes_now(void);

/* Zeroed memory that processes started later share with this one. */
void *processes_share(size_t size);

/* Starts work(rank, context) as a process of its own; it ends with what that returns. */
pid_t process_start(int rank, int (*work)(int rank, void *context), void *context);
/* Its exit status, 128 + its signal, or -1 (and it is killed) if it is still there at `until_s`. */
int process_wait(pid_t process, double until_s);

/* Starts `ranks` of them and waits for all, at most `limit_s`. */
void processes_run(int ranks, int (*work)(int rank, void *context), void *context, double limit_s,
                   int status[PROCESSES_MAX]);

/* A socket of the loopback interface that listens at some port. */
int processes_listen(int *port);
/* A stranger's connection to it; -1: it is refused. */
int processes_connect(int port);

#endif
