/* NVML through a table of its functions, typed by our own declarations. */
#include "kernels/nvml.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/libraries.h"

/* The part of the interface that is used; numbers and layouts are fixed by the library's ABI. */
enum { STATUS_SUCCESS = 0, STATUS_GPU_IS_LOST = 15 };
enum { SENSOR_GPU = 0, CLOCK_SM = 1, VERSION_SIZE = 81 };
typedef void *device_handle; /* nvmlDevice_t */

struct pci_info { /* nvmlPciInfo_t, since _v3 */
    char bus_id_legacy[16];
    unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
    char bus_id[32];
};
struct utilization { /* nvmlUtilization_t */
    unsigned gpu, memory;
};
struct memory_info { /* nvmlMemory_t */
    unsigned long long total, free, used;
};

struct functions {
    int (*init)(void);
    int (*shutdown)(void);
    const char *(*error_string)(int status);
    int (*by_bus_id)(const char *bus_id, device_handle *out);
    /* Optional from here on. */
    int (*driver_version)(char *out, unsigned size);
    int (*count)(unsigned *out);
    int (*by_index)(unsigned index, device_handle *out);
    int (*name)(device_handle device, char *out, unsigned size);
    int (*pci)(device_handle device, struct pci_info *out);
    int (*capability)(device_handle device, int *major, int *minor);
    int (*memory)(device_handle device, struct memory_info *out);
    int (*utilization)(device_handle device, struct utilization *out);
    int (*power)(device_handle device, unsigned *milliwatts);
    int (*temperature)(device_handle device, int sensor, unsigned *out);
    int (*clock)(device_handle device, int which, unsigned *mhz);
};

struct nvml {
    void *library;
    struct functions call;
    bool started;
    char driver[VERSION_SIZE];
    device_handle chosen; /* NULL: none */
};

static int find_functions(struct nvml *nvml, char *why, size_t why_size)
{
    struct {
        const char *name;
        void *pointer;
        bool needed;
    } wanted[] = {
        { "nvmlInit_v2", &nvml->call.init, true },
        { "nvmlShutdown", &nvml->call.shutdown, true },
        { "nvmlErrorString", &nvml->call.error_string, true },
        { "nvmlDeviceGetHandleByPciBusId_v2", &nvml->call.by_bus_id, true },
        { "nvmlSystemGetDriverVersion", &nvml->call.driver_version, false },
        { "nvmlDeviceGetCount_v2", &nvml->call.count, false },
        { "nvmlDeviceGetHandleByIndex_v2", &nvml->call.by_index, false },
        { "nvmlDeviceGetName", &nvml->call.name, false },
        { "nvmlDeviceGetPciInfo_v3", &nvml->call.pci, false },
        { "nvmlDeviceGetCudaComputeCapability", &nvml->call.capability, false },
        { "nvmlDeviceGetMemoryInfo", &nvml->call.memory, false },
        { "nvmlDeviceGetUtilizationRates", &nvml->call.utilization, false },
        { "nvmlDeviceGetPowerUsage", &nvml->call.power, false },
        { "nvmlDeviceGetTemperature", &nvml->call.temperature, false },
        { "nvmlDeviceGetClockInfo", &nvml->call.clock, false },
    };
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        void *found = dlsym(nvml->library, wanted[i].name);
        if (found == NULL && wanted[i].needed) {
            snprintf(why, why_size, "the NVML library has no %s: its driver is too old",
                     wanted[i].name);
            return -1;
        }
        memcpy(wanted[i].pointer, &found, sizeof found);
    }
    return 0;
}

struct nvml *nvml_open(const char *file, char *why, size_t why_size)
{
    struct nvml *nvml = calloc(1, sizeof *nvml);
    if (nvml == NULL) {
        snprintf(why, why_size, "out of memory");
        return NULL;
    }
    nvml->library = library_open(LIBRARY_NVML, file);
    if (nvml->library == NULL) {
        snprintf(why, why_size, "%s, which comes with NVIDIA's driver, cannot be opened",
                 file != NULL ? file : library_name(LIBRARY_NVML));
    } else if (find_functions(nvml, why, why_size) == 0) {
        int status = nvml->call.init();
        nvml->started = status == STATUS_SUCCESS;
        if (!nvml->started) {
            snprintf(why, why_size, "NVML does not start: %s", nvml->call.error_string(status));
        }
    }
    if (!nvml->started) {
        nvml_close(nvml);
        return NULL;
    }
    if (nvml->call.driver_version == NULL ||
        nvml->call.driver_version(nvml->driver, sizeof nvml->driver) != STATUS_SUCCESS) {
        nvml->driver[0] = '\0';
    }
    nvml->driver[sizeof nvml->driver - 1] = '\0';
    return nvml;
}

void nvml_close(struct nvml *nvml)
{
    if (nvml == NULL) {
        return;
    }
    if (nvml->started) {
        nvml->call.shutdown();
    }
    if (nvml->library != NULL) {
        dlclose(nvml->library);
    }
    free(nvml);
}

const char *nvml_driver_version(const struct nvml *nvml)
{
    return nvml->driver;
}

int nvml_device_count(struct nvml *nvml)
{
    unsigned count = 0;
    bool known = nvml->call.count != NULL && nvml->call.count(&count) == STATUS_SUCCESS;
    return known ? (int)count : 0;
}

bool nvml_device_facts(struct nvml *nvml, int index, struct nvml_facts *out)
{
    device_handle device = NULL;
    struct pci_info pci = { .domain = 0 };
    struct memory_info memory;
    *out = (struct nvml_facts){ .memory_bytes = -1, .major = -1, .minor = -1 };
    if (nvml->call.by_index == NULL ||
        nvml->call.by_index((unsigned)index, &device) != STATUS_SUCCESS) {
        return false;
    }
    if (nvml->call.name == NULL ||
        nvml->call.name(device, out->name, sizeof out->name) != STATUS_SUCCESS) {
        out->name[0] = '\0';
    }
    if (nvml->call.pci != NULL && nvml->call.pci(device, &pci) == STATUS_SUCCESS) {
        snprintf(out->bus_id, sizeof out->bus_id, "%.31s", pci.bus_id);
    }
    if (nvml->call.memory != NULL && nvml->call.memory(device, &memory) == STATUS_SUCCESS) {
        out->memory_bytes = (int64_t)memory.total;
    }
    if (nvml->call.capability == NULL ||
        nvml->call.capability(device, &out->major, &out->minor) != STATUS_SUCCESS) {
        out->major = out->minor = -1;
    }
    return true;
}

int nvml_choose(struct nvml *nvml, const char *bus_id, char *why, size_t why_size)
{
    int status = nvml->call.by_bus_id(bus_id, &nvml->chosen);
    if (status != STATUS_SUCCESS) {
        nvml->chosen = NULL;
        snprintf(why, why_size, "NVML knows no device %s: %s", bus_id,
                 nvml->call.error_string(status));
        return -1;
    }
    return 0;
}

void nvml_sample_clear(struct nvml_sample *sample)
{
    *sample = (struct nvml_sample){ .gpu_util = (double)NAN,
                                    .power_w = (double)NAN,
                                    .temperature_c = (double)NAN,
                                    .clock_mhz = (double)NAN,
                                    .used_bytes = -1,
                                    .total_bytes = -1 };
}

/* Whether a query gave its value; notes a device that is gone. */
static bool answered(int status, struct nvml_sample *sample)
{
    sample->lost = sample->lost || status == STATUS_GPU_IS_LOST;
    return status == STATUS_SUCCESS;
}

void nvml_sample(struct nvml *nvml, struct nvml_sample *out)
{
    const struct functions *call = &nvml->call;
    device_handle device = nvml->chosen;
    struct memory_info memory;
    struct utilization utilization;
    unsigned number = 0;
    nvml_sample_clear(out);
    if (device == NULL) {
        return;
    }
    if (call->memory != NULL && answered(call->memory(device, &memory), out)) {
        out->used_bytes = (int64_t)memory.used;
        out->total_bytes = (int64_t)memory.total;
    }
    if (call->utilization != NULL && answered(call->utilization(device, &utilization), out)) {
        out->gpu_util = (double)utilization.gpu;
    }
    if (call->power != NULL && answered(call->power(device, &number), out)) {
        out->power_w = 1e-3 * (double)number;
    }
    if (call->temperature != NULL &&
        answered(call->temperature(device, SENSOR_GPU, &number), out)) {
        out->temperature_c = (double)number;
    }
    if (call->clock != NULL && answered(call->clock(device, CLOCK_SM, &number), out)) {
        out->clock_mhz = (double)number;
    }
    if (out->lost) {
        nvml_sample_clear(out);
        out->lost = true;
    }
}
