/* The sampling thread: it tells, ends, and is never waited for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/clock.h"
#include "engine/run/sampler.h"

#define WHOLE  FAKE_NVML_FOLDER "/whole/libnvidia-ml.so.1"
#define BROKEN FAKE_NVML_FOLDER "/broken/libnvidia-ml.so.1"

/* Waits for a sample, or for trouble. */
static bool wait_for(struct sampler *sampler, struct nvml_sample *sample, char *why, size_t size)
{
    for (int i = 0; i < 1000; i++) {
        sampler_read(sampler, sample);
        if (sample->used_bytes >= 0 && why == NULL) {
            return true;
        }
        if (why != NULL && sampler_trouble(sampler, why, size)) {
            return true;
        }
        poll(NULL, 0, 10);
    }
    return false;
}

static void it_samples(void **state)
{
    (void)state;
    char why[256] = "";
    struct nvml_sample sample;
    setenv("FAKE_NVML", "no-power", 1);
    struct sampler *sampler = sampler_open("0000:65:00.0", WHOLE);
    assert_true(wait_for(sampler, &sample, NULL, 0));
    assert_true(fabs(sample.gpu_util - 97) < 1e-9 && isnan(sample.power_w));
    assert_true(sample.used_bytes == (int64_t)5 << 30);
    assert_false(sampler_trouble(sampler, why, sizeof why));
    sampler_close(sampler);
}

static void no_sampler_is_good(void **state)
{
    (void)state;
    char why[256];
    struct nvml_sample sample;
    sampler_read(NULL, &sample);
    assert_true(isnan(sample.gpu_util) && sample.used_bytes == -1);
    assert_false(sampler_trouble(NULL, why, sizeof why));
    sampler_close(NULL);
}

static void trouble_is_told_once(void **state)
{
    (void)state;
    static const struct {
        const char *file, *words, *bus, *says;
    } rows[] = {
        { WHOLE, "lost=0", "0000:65:00.0", "lost the device" },
        { WHOLE, "", "0000:99:00.0", "0000:99:00.0" },
        { WHOLE, "no-start", "0000:65:00.0", "does not start" },
        { BROKEN, "", "0000:65:00.0", "nvmlDeviceGetHandleByPciBusId_v2" },
        { "/nowhere.so", "", "0000:65:00.0", "/nowhere.so" },
    };
    for (int i = 0; i < 5; i++) {
        char why[256] = "";
        struct nvml_sample sample;
        setenv("FAKE_NVML", rows[i].words, 1);
        struct sampler *sampler = sampler_open(rows[i].bus, rows[i].file);
        assert_true(wait_for(sampler, &sample, why, sizeof why));
        if (strstr(why, rows[i].says) == NULL) {
            fail_msg("%s", why);
        }
        assert_false(sampler_trouble(sampler, why, sizeof why));
        sampler_read(sampler, &sample);
        assert_true(isnan(sample.gpu_util) && sample.used_bytes == -1);
        sampler_close(sampler);
    }
}

/* Readers return at once while the driver holds the thread, and closing waits a second at most. */
static void a_slow_driver_holds_nobody(void **state)
{
    (void)state;
    struct nvml_sample sample;
    setenv("FAKE_NVML", "slow", 1);
    double began = clock_monotonic();
    struct sampler *sampler = sampler_open("0000:65:00.0", WHOLE);
    for (int i = 0; i < 100; i++) {
        sampler_read(sampler, &sample);
    }
    assert_true(clock_monotonic() - began < 4.0);
    poll(NULL, 0, 100); /* so that it is inside the driver */
    began = clock_monotonic();
    sampler_close(sampler);
    assert_true(clock_monotonic() - began < 4.0);
    poll(NULL, 0, 5500); /* it has tidied up before the process looks for leaks */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_samples),
        cmocka_unit_test(no_sampler_is_good),
        cmocka_unit_test(trouble_is_told_once),
        cmocka_unit_test(a_slow_driver_holds_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
