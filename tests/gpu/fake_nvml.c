/*
 * A libnvidia-ml.so.1 of two devices for tests, told what to do by FAKE_NVML: words of
 *   no-start   nvmlInit fails
 *   no-util no-power no-temperature no-clock no-memory no-facts    those queries fail
 *   emulated   memory is that of the emulated device in this program, which tells it
 *   slow       every sample takes 5 s
 *   lost=N     after N samples the device is gone
 * Built with FAKE_NVML_OLD it lacks the functions of power and clocks; with FAKE_NVML_BROKEN one
 * that nothing works without.
 *
 * Device 0 is at bus 0x17, device 1 at 0x65: the emulated device is the second one.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6, UNKNOWN = 999, GPU_IS_LOST = 15 };

#define EXPORT __attribute__((visibility("default")))

struct device {
    unsigned bus;
    unsigned samples;
};
static struct device devices[2] = { { 0x17, 0 }, { 0x65, 0 } };

static const char *word(const char *name)
{
    const char *all = getenv("FAKE_NVML");
    return all != NULL ? strstr(all, name) : NULL;
}

/* What a query of the device comes to. */
static int state_of(const struct device *device, const char *failing)
{
    const char *lost = word("lost=");
    if (lost != NULL && device->samples > strtoul(lost + 5, NULL, 10)) {
        return GPU_IS_LOST;
    }
    return word(failing) != NULL ? NOT_SUPPORTED : SUCCESS;
}

EXPORT int nvmlInit_v2(void);
EXPORT int nvmlShutdown(void);
EXPORT const char *nvmlErrorString(int status);
EXPORT int nvmlSystemGetDriverVersion(char *out, unsigned size);
EXPORT int nvmlDeviceGetCount_v2(unsigned *out);
EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct device **out);
EXPORT int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, struct device **out);
EXPORT int nvmlDeviceGetName(struct device *device, char *out, unsigned size);
EXPORT int nvmlDeviceGetPciInfo_v3(struct device *device, void *out);
EXPORT int nvmlDeviceGetCudaComputeCapability(struct device *device, int *major, int *minor);
EXPORT int nvmlDeviceGetMemoryInfo(struct device *device, unsigned long long out[3]);
EXPORT int nvmlDeviceGetUtilizationRates(struct device *device, unsigned out[2]);
EXPORT int nvmlDeviceGetPowerUsage(struct device *device, unsigned *out);
EXPORT int nvmlDeviceGetTemperature(struct device *device, int sensor, unsigned *out);
EXPORT int nvmlDeviceGetClockInfo(struct device *device, int which, unsigned *out);

int nvmlInit_v2(void)
{
    devices[0].samples = devices[1].samples = 0;
    return word("no-start") != NULL ? UNKNOWN : SUCCESS;
}

int nvmlShutdown(void)
{
    return SUCCESS;
}

const char *nvmlErrorString(int status)
{
    return status == NOT_FOUND ? "Not Found" : "Unknown Error";
}

int nvmlSystemGetDriverVersion(char *out, unsigned size)
{
    snprintf(out, size, "580.65.06");
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *out)
{
    *out = 2;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct device **out)
{
    *out = index < 2 ? &devices[index] : NULL;
    return index < 2 ? SUCCESS : NOT_FOUND;
}

#ifndef FAKE_NVML_BROKEN
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, struct device **out)
{
    unsigned domain = 0;
    unsigned bus = 0;
    char *end = NULL;
    domain = (unsigned)strtoul(bus_id, &end, 16);
    bus = *end == ':' ? (unsigned)strtoul(end + 1, NULL, 16) : 0;
    for (int i = 0; i < 2; i++) {
        if (domain == 0 && devices[i].bus == bus) {
            *out = &devices[i];
            return SUCCESS;
        }
    }
    return NOT_FOUND;
}
#endif

int nvmlDeviceGetName(struct device *device, char *out, unsigned size)
{
    snprintf(out, size, "Fake GPU %02X", device->bus);
    return word("no-facts") != NULL ? NOT_SUPPORTED : SUCCESS;
}

int nvmlDeviceGetPciInfo_v3(struct device *device, void *out)
{
    /* char[16], five unsigned, char[32] */
    memset(out, 0, 68);
    snprintf((char *)out + 36, 32, "00000000:%02X:00.0", device->bus);
    return SUCCESS;
}

int nvmlDeviceGetCudaComputeCapability(struct device *device, int *major, int *minor)
{
    (void)device;
    *major = 9;
    *minor = 0;
    return word("no-facts") != NULL ? NOT_SUPPORTED : SUCCESS;
}

/* total, free, used */
static void tell_emulated(unsigned long long out[3])
{
    void (*tell)(size_t * used, size_t * total);
    void *place = dlsym(RTLD_DEFAULT, "simt_device_memory");
    size_t used = 0;
    size_t total = 0;
    if (place == NULL) {
        return;
    }
    memcpy(&tell, &place, sizeof tell);
    tell(&used, &total);
    out[0] = total;
    out[2] = used;
}

int nvmlDeviceGetMemoryInfo(struct device *device, unsigned long long out[3])
{
    device->samples++; /* every sample begins here */
    if (word("slow") != NULL) {
        usleep(5000000);
    }
    out[0] = 80ull << 30;
    out[2] = (unsigned long long)(device->bus & 15) << 30;
    if (word("emulated") != NULL) {
        tell_emulated(out);
    }
    out[1] = out[0] - out[2];
    return state_of(device, "no-memory");
}

int nvmlDeviceGetUtilizationRates(struct device *device, unsigned out[2])
{
    out[0] = 97;
    out[1] = 55;
    return state_of(device, "no-util");
}

int nvmlDeviceGetTemperature(struct device *device, int sensor, unsigned *out)
{
    *out = sensor == 0 ? 61 : 0;
    return state_of(device, "no-temperature");
}

#ifndef FAKE_NVML_OLD
int nvmlDeviceGetPowerUsage(struct device *device, unsigned *out)
{
    *out = 412500;
    return state_of(device, "no-power");
}

int nvmlDeviceGetClockInfo(struct device *device, int which, unsigned *out)
{
    *out = which == 1 ? 1980 : 0;
    return state_of(device, "no-clock");
}
#endif
