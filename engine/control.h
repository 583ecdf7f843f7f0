/*
 * The control socket of a running run, seen from outside.
 *
 * Lines of JSON both ways. A client sends {"id":N,"command":"set","key":"method.rank","value":"32"}
 * (commands: pause, resume, save, sample, stop, set, plan, hello); the run answers
 * {"ack":N,"ok":true,"step":K,...} with the step at which it holds, or {"ack":N,"ok":false,
 * "error":"...","hint":"..."}. "sample" writes one text now; its value, if there is one, is the
 * prompt (at most 511 bytes), else train.sample_prompt is. "set" and "plan" answer with the bytes
 * and FLOPs of the plan with the change and without it; "plan" changes nothing and says in "fits"
 * whether "set" would be taken, with the error and hint it would get if not. After "hello" with
 * "from":OFFSET the run sends every event line from that byte offset of events.jsonl on, then new
 * ones as they come.
 */
#ifndef WINDROW_ENGINE_CONTROL_H
#define WINDROW_ENGINE_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/error.h"

/* The answer to a command. */
struct control_reply {
    bool ok;
    int64_t id;
    int64_t step;      /* first step that runs with it; -1 if it does not apply */
    int64_t bytes;     /* plan: total bytes the change would take; -1 if it does not apply */
    int64_t bytes_now; /* plan: total bytes now; -1 */
    double flops;      /* of an optimizer step with the change; 0 if unknown */
    double flops_now;
    double refresh_flops; /* of one that chooses rows anew; 0 if the method has none */
    double refresh_flops_now;
    bool unfit; /* plan: the change would be refused; error and hint say why */
    char error[512];
    char hint[256];
};

/* Connects to the socket of a run directory. A descriptor (non-blocking, close-on-exec), or -1:
 * not running, socket owned by somebody else. */
int control_connect(const char *run, struct error *err);

/* Sends one command; `key` and `value` may be NULL. The id is the caller's. */
int control_send(int fd, int64_t id, const char *command, const char *key, const char *value,
                 struct error *err);

/* Reads a reply line. -1 if the line is not a reply. */
int control_read_reply(const char *line, size_t size, struct control_reply *reply);

/* Connect, send, wait for the answer (at most `timeout_s`), close. */
int control_request(const char *run, const char *command, const char *key, const char *value,
                    double timeout_s, struct control_reply *reply, struct error *err);

#endif
