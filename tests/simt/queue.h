/* Work of the emulated device in the order of its streams, and its memory (runtime.cc). */
#ifndef WINDROW_TESTS_SIMT_QUEUE_H
#define WINDROW_TESTS_SIMT_QUEUE_H

#include <stdbool.h>
#include <stddef.h>

struct simt_stream;

#ifdef __cplusplus
/* Whether the emulation can run a launch of this form (simt.cc). */
bool simt_possible(struct dim3 grid, struct dim3 block, size_t shared_bytes);
extern "C" {
#endif

/* Queues run(copy of the `bytes` of state) on a stream, or records it if the stream is recording.
 * Without a stream it runs at once. */
void simt_queue(struct simt_stream *stream, void (*run)(void *), const void *state, size_t bytes);

/* Bytes of the device in use by all programs, and in all. */
void simt_device_memory(size_t *used, size_t *total);

#ifdef __cplusplus
}
#endif

#endif
