/* NVML as a fake library has it: values, devices by bus id, failures one by one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/nvml.h"

#define WHOLE  FAKE_NVML_FOLDER "/whole/libnvidia-ml.so.1"
#define OLD    FAKE_NVML_FOLDER "/old/libnvidia-ml.so.1"
#define BROKEN FAKE_NVML_FOLDER "/broken/libnvidia-ml.so.1"

static struct nvml *open_fake(const char *file, const char *words)
{
    char why[256] = "";
    setenv("FAKE_NVML", words, 1);
    struct nvml *nvml = nvml_open(file, why, sizeof why);
    if (nvml == NULL) {
        fail_msg("%s", why);
    }
    return nvml;
}

static struct nvml_sample sample_of(struct nvml *nvml, const char *bus_id)
{
    char why[256] = "";
    struct nvml_sample sample;
    if (nvml_choose(nvml, bus_id, why, sizeof why) != 0) {
        fail_msg("%s", why);
    }
    nvml_sample(nvml, &sample);
    return sample;
}

static void near(double found, double expected)
{
    assert_true(fabs(found - expected) < 1e-9);
}

static void devices_are_found_by_bus(void **state)
{
    (void)state;
    char why[256] = "";
    struct nvml_facts facts;
    struct nvml *nvml = open_fake(WHOLE, "");
    assert_string_equal(nvml_driver_version(nvml), "580.65.06");
    assert_int_equal(nvml_device_count(nvml), 2);
    assert_true(nvml_device_facts(nvml, 1, &facts));
    assert_string_equal(facts.name, "Fake GPU 65");
    assert_string_equal(facts.bus_id, "00000000:65:00.0");
    assert_true(facts.memory_bytes == (int64_t)80 << 30);
    assert_int_equal(facts.major, 9);
    assert_false(nvml_device_facts(nvml, 2, &facts));
    struct nvml_sample sample = sample_of(nvml, "0000:17:00.0");
    assert_true(sample.used_bytes == (int64_t)7 << 30);
    sample = sample_of(nvml, facts.bus_id[0] ? facts.bus_id : "00000000:65:00.0");
    assert_true(sample.used_bytes == (int64_t)5 << 30);
    assert_true(sample.total_bytes == (int64_t)80 << 30);
    near(sample.gpu_util, 97);
    near(sample.power_w, 412.5);
    near(sample.temperature_c, 61);
    near(sample.clock_mhz, 1980);
    assert_int_equal(nvml_choose(nvml, "0000:99:00.0", why, sizeof why), -1);
    assert_non_null(strstr(why, "0000:99:00.0"));
    nvml_sample(nvml, &sample);
    assert_true(isnan(sample.gpu_util) && sample.used_bytes == -1);
    nvml_close(nvml);
}

/* A query that fails leaves its own value unknown and no other. */
static void failures_stay_apart(void **state)
{
    (void)state;
    static const char *const words[] = { "no-util", "no-power", "no-temperature", "no-clock",
                                         "no-memory" };
    for (int i = 0; i < 5; i++) {
        struct nvml *nvml = open_fake(WHOLE, words[i]);
        struct nvml_sample s = sample_of(nvml, "0000:65:00.0");
        assert_int_equal(isnan(s.gpu_util), i == 0);
        assert_int_equal(isnan(s.power_w), i == 1);
        assert_int_equal(isnan(s.temperature_c), i == 2);
        assert_int_equal(isnan(s.clock_mhz), i == 3);
        assert_int_equal(s.used_bytes == -1 && s.total_bytes == -1, i == 4);
        assert_false(s.lost);
        nvml_close(nvml);
    }
    struct nvml_facts facts;
    struct nvml *nvml = open_fake(WHOLE, "no-facts");
    assert_true(nvml_device_facts(nvml, 0, &facts));
    assert_string_equal(facts.name, "");
    assert_int_equal(facts.major, -1);
    nvml_close(nvml);
}

static void a_lost_device_tells_nothing(void **state)
{
    (void)state;
    struct nvml *nvml = open_fake(WHOLE, "lost=1");
    struct nvml_sample s = sample_of(nvml, "0000:65:00.0");
    assert_false(s.lost);
    nvml_sample(nvml, &s);
    assert_true(s.lost);
    assert_true(isnan(s.gpu_util) && isnan(s.power_w) && s.used_bytes == -1);
    nvml_close(nvml);
}

static void missing_functions_are_named(void **state)
{
    (void)state;
    char why[256] = "";
    struct nvml *nvml = open_fake(OLD, "");
    struct nvml_sample s = sample_of(nvml, "0000:65:00.0");
    assert_true(isnan(s.power_w) && isnan(s.clock_mhz));
    near(s.gpu_util, 97);
    nvml_close(nvml);
    assert_null(nvml_open(BROKEN, why, sizeof why));
    assert_non_null(strstr(why, "nvmlDeviceGetHandleByPciBusId_v2"));
    assert_null(nvml_open("/nowhere/libnvidia-ml.so.1", why, sizeof why));
    assert_non_null(strstr(why, "/nowhere/libnvidia-ml.so.1"));
    setenv("FAKE_NVML", "no-start", 1);
    assert_null(nvml_open(WHOLE, why, sizeof why));
    assert_non_null(strstr(why, "Unknown Error"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(devices_are_found_by_bus),
        cmocka_unit_test(failures_stay_apart),
        cmocka_unit_test(a_lost_device_tells_nothing),
        cmocka_unit_test(missing_functions_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
