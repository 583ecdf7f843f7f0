/* A run in a child process that is steered while it trains. What fails fails the test. */
#ifndef WINDROW_TESTS_RUN_LIVE_H
#define WINDROW_TESTS_RUN_LIVE_H

#include "engine/control.h"
#include "engine/run/fixture.h"

#define LIVE_PATIENCE_S 120.0

/* 2 ms. */
void live_nap(void);
/* Starts a run and waits until it listens and has done a step. */
struct child live_start(const struct run_options *options);
/* A long run, which saves only when asked. Its path is xmalloc'd. */
struct child live_start_long(struct fixture *fixture, char **run);
/* Sends a command and waits for the answer. */
struct control_reply live_ask(const char *run, const char *command, const char *key,
                              const char *value);
void live_expect_ok(const char *run, const char *command, const char *key, const char *value);
/* Ends the run by a command; it must end with 0. */
void live_stop(const char *run, struct child *child);
/* Until so many more steps are done. */
void live_wait_steps(const char *run, int64_t more);

#endif
