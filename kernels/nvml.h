/*
 * What the driver says of NVIDIA devices: NVML, opened at run time.
 *
 * It lies in kernels, which owns devices, but not in kernels/cuda: it needs neither the CUDA
 * toolkit nor a device to build, and a program built without CUDA can still say what it is missing.
 * The prototypes are our own (from the NVML API reference), so nvml.h is not needed either.
 *
 * Devices are named by their PCI bus id, never by an index: CUDA counts the devices that
 * CUDA_VISIBLE_DEVICES leaves in the order it names, NVML counts all of them. On a part of a device
 * (MIG) the figures are those of the whole.
 *
 * A call may take milliseconds and holds a lock of the driver, so a training thread must not make
 * one. Lists of processes, which take longest, are never asked for. One object is used by one
 * thread at a time.
 *
 * A value that cannot be had is NaN, -1 or "", never 0.
 */
#ifndef WINDROW_KERNELS_NVML_H
#define WINDROW_KERNELS_NVML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct nvml;
enum { NVML_BUS_ID_SIZE = 32 }; /* "0000:65:00.0" or "00000000:65:00.0" */

struct nvml_facts {
    char name[96];
    char bus_id[NVML_BUS_ID_SIZE];
    int64_t memory_bytes;
    int major, minor; /* compute capability; -1 */
};

struct nvml_sample {
    double gpu_util;      /* percent of the last period in which a kernel ran */
    double power_w;       /* of the whole board */
    double temperature_c; /* of the chip */
    double clock_mhz;     /* of the multiprocessors */
    int64_t used_bytes;   /* by all processes and the driver */
    int64_t total_bytes;
    bool lost; /* the device is gone: nothing else is known, and asking again is of no use */
};

/* Opens the library `file` (NULL: libnvidia-ml.so.1, as the system finds it) and starts it. NULL,
 * with a sentence in `why`, if it is not there, lacks a function that nothing works without, or
 * does not start. Functions that only one value needs may be missing: that value is unknown. */
struct nvml *nvml_open(const char *file, char *why, size_t why_size);
void nvml_close(struct nvml *nvml);

/* "580.65.06" */
const char *nvml_driver_version(const struct nvml *nvml);

/* Devices of the machine, whatever CUDA_VISIBLE_DEVICES says; 0 if that cannot be known. */
int nvml_device_count(struct nvml *nvml);
/* Facts of device `index` in NVML's order; false if it does not answer. */
bool nvml_device_facts(struct nvml *nvml, int index, struct nvml_facts *out);

/* Takes the device with this bus id for nvml_sample. 0, or -1 with a sentence in `why`. */
int nvml_choose(struct nvml *nvml, const char *bus_id, char *why, size_t why_size);
/* What the chosen device does now; all unknown if none is chosen. */
void nvml_sample(struct nvml *nvml, struct nvml_sample *out);

/* Everything unknown. */
void nvml_sample_clear(struct nvml_sample *sample);

#ifdef __cplusplus
}
#endif

#endif
