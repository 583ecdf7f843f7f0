/*
 * How long a micro-batch takes when activations leave: the schedule of offload.h and the store of
 * store.h, played through with given times.
 *
 * One caller computes block after block and copies spans; one disk writes and reads them in the
 * order asked, with STORE_STAGING buffers between; what was not written yet when the backward asks
 * is handed back from memory. All times are in seconds.
 */
#ifndef WINDROW_ENGINE_ACTIVATION_OFFLOAD_MODEL_H
#define WINDROW_ENGINE_ACTIVATION_OFFLOAD_MODEL_H

#include <stdint.h>

struct offload_times {
    int64_t layers;
    int64_t resident;
    double forward;  /* of a block */
    double backward; /* of a block, recomputing included */
    double between;  /* the last block's forward and its backward: head and loss */
    double copy;     /* of a span to or from its buffer, as far as computing stands still for it */
    double write;    /* of a span, checksum included; 0: host memory */
    double read;
};

struct offload_forecast {
    double seconds; /* of the blocks and what is between */
    double stall;   /* of those, waiting for the disk */
    double copying; /* of those, copying */
    int64_t written_spans;
    int64_t read_spans;
};

void offload_forecast(const struct offload_times *times, struct offload_forecast *out);

#endif
