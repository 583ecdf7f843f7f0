/* What of a device's memory is taken, asked without a context there. */
#include "kernels/backend_private.h"
#include "kernels/nvml.h"

int backend_bus_memory(const char *bus_id, size_t *used_bytes, size_t *total_bytes)
{
    char why[256];
    struct nvml_sample sample;
    struct nvml *nvml = bus_id[0] != '\0' ? nvml_open(NULL, why, sizeof why) : NULL;
    nvml_sample_clear(&sample);
    if (nvml != NULL) {
        if (nvml_choose(nvml, bus_id, why, sizeof why) == 0) {
            nvml_sample(nvml, &sample);
        }
        nvml_close(nvml);
    }
    if (sample.used_bytes < 0 || sample.total_bytes <= 0) {
        return -1;
    }
    *used_bytes = (size_t)sample.used_bytes;
    *total_bytes = (size_t)sample.total_bytes;
    return 0;
}
