/* What of a device's memory is taken before this process has a context there. */
#include "kernels/backend_private.h"
#include "kernels/nvml.h"

size_t backend_used_bytes(const char *bus_id)
{
    char why[256];
    struct nvml_sample sample;
    struct nvml *nvml = nvml_open(NULL, why, sizeof why);
    nvml_sample_clear(&sample);
    if (nvml != NULL) {
        if (nvml_choose(nvml, bus_id, why, sizeof why) == 0) {
            nvml_sample(nvml, &sample);
        }
        nvml_close(nvml);
    }
    return sample.used_bytes > 0 ? (size_t)sample.used_bytes : 0;
}
