/* Adapter files that are wrong, or ask for what is not there: refused with a sentence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/file.h"
#include "engine/base/xalloc.h"
#include "engine/model/adapter.h"

static const char q0[] = "base_model.model.model.layers.0.self_attn.q_proj";

struct place {
    char path[64];
    struct model_config config;
};

static int make(void **state)
{
    struct error err = { 0 };
    struct place *place = xcalloc(1, sizeof *place);
    memcpy(place->path, "/tmp/windrow-adapter-XXXXXX", 28);
    assert_non_null(mkdtemp(place->path));
    assert_int_equal(config_read(TEST_DATA "/model/untied/config.json", &place->config, &err), 0);
    *state = place;
    return 0;
}

static int clean(void **state)
{
    struct error err = { 0 };
    struct place *place = *state;
    assert_int_equal(file_remove_tree(place->path, &err), 0);
    free(place);
    return 0;
}

static void write_config(const struct place *place, const char *text)
{
    struct error err = { 0 };
    char *path = path_join(place->path, ADAPTER_CONFIG);
    assert_int_equal(file_replace(path, text, strlen(text), &err), 0);
    free(path);
}

struct half {
    const char *name;
    int64_t rows;
    int64_t columns;
    float value;
};

static void write_tensors(const struct place *place, const struct half *half, size_t count)
{
    struct error err = { 0 };
    char *path = path_join(place->path, ADAPTER_WEIGHTS);
    struct safetensors_entry entry[4];
    unlink(path);
    for (size_t i = 0; i < count; i++) {
        entry[i] = (struct safetensors_entry){ .name = half[i].name,
                                               .rank = 2,
                                               .dim = { half[i].rows, half[i].columns } };
    }
    struct safetensors_writer *writer = safetensors_writer_begin(path, entry, count, &err);
    assert_non_null(writer);
    for (size_t i = 0; i < count; i++) {
        for (int64_t k = 0; k < half[i].rows * half[i].columns; k++) {
            assert_int_equal(safetensors_writer_write(writer, &half[i].value, 4, &err), 0);
        }
    }
    assert_int_equal(safetensors_writer_finish(writer, NULL, NULL, &err), 0);
    free(path);
}

static void refuse(const struct place *place, const char *part)
{
    struct error err = { 0 };
    struct adapter *adapter = adapter_open(place->path, &place->config, &err);
    if (adapter != NULL || !strstr(err.message, part) || err.code != ERROR_DATA) {
        fail_msg("\"%s\" (wanted %s)", err.message, part);
    }
}

static void test_configurations(void **state)
{
    struct place *place = *state;
    static const struct {
        const char *text;
        const char *part;
    } rows[] = {
        { "{\"peft_type\": \"IA3\"}", "peft_type is \"IA3\"" },
        { "{\"use_dora\": true}", "use_dora is set: DoRA" },
        { "{\"bias\": \"all\"}", "bias is \"all\"" },
        { "{\"modules_to_save\": [\"lm_head\"]}", "modules_to_save is set" },
        { "{\"fan_in_fan_out\": true}", "fan_in_fan_out" },
        { "{\"lora_bias\": true}", "lora_bias" },
        { "{\"trainable_token_indices\": {\"embed_tokens\": [1]}}", "trainable_token_indices" },
        { "{\"lora_alpha\": \"much\"}", "lora_alpha" },
        { "{\"lora_alpha\": 1e300}", "alpha of model.layers.0.self_attn.q_proj is out of range" },
        { "{\"alpha_pattern\": {\"(q|k)_proj\": 3}}", "\"(q|k)_proj\" is not a module's name" },
        { "{\"alpha_pattern\": {\"q_proj\": \"x\"}}", "is not a module's name with a number" },
        { "{\"use_rslora\": 3}", "use_rslora" },
        { "[1]", "not a JSON object" },
        { "{", "adapter_config.json" },
    };
    char *a = xasprintf("%s.lora_A.weight", q0);
    char *b = xasprintf("%s.lora_B.weight", q0);
    write_tensors(place, (const struct half[]){ { a, 2, 32, 1.0f }, { b, 32, 2, 1.0f } }, 2);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        write_config(place, rows[i].text);
        refuse(place, rows[i].part);
    }
    free(a);
    free(b);
}

static void test_tensors(void **state)
{
    struct place *place = *state;
    char *a = xasprintf("%s.lora_A.weight", q0);
    char *b = xasprintf("%s.lora_B.weight", q0);
    const struct half good_a = { a, 2, 32, 1.0f };
    const struct half good_b = { b, 32, 2, 1.0f };
    refuse(place, "has no adapter_config.json");
    write_config(place, "{}");
    refuse(place, "has no adapter_model.safetensors");
    write_tensors(place, &good_a, 1);
    refuse(place, "only one of lora_A and lora_B");
    write_tensors(place, (const struct half[]){ { a, 2, 31, 1.0f }, good_b }, 2);
    refuse(place, "is not a float matrix that goes with the 32 x 32");
    write_tensors(place, (const struct half[]){ good_a, { b, 32, 3, 1.0f } }, 2);
    refuse(place, "is not a float matrix");
    write_tensors(place, (const struct half[]){ good_a, { b, 32, 2, NAN } }, 2);
    refuse(place, "not finite");
    write_tensors(place, (const struct half[]){ good_a, good_b, { "lm_head.weight", 1, 1, 0 } }, 3);
    refuse(place, "\"lm_head.weight\" is no adapter of a matrix");
    write_tensors(place,
                  (const struct half[]){ { "base_model.model.model.layers.9.self_attn."
                                           "q_proj.lora_A.weight",
                                           2, 32, 0 } },
                  1);
    refuse(place, "is no adapter of a matrix");
    char *path = path_join(place->path, ADAPTER_WEIGHTS);
    assert_int_equal(truncate(path, 100), 0);
    refuse(place, "adapter_model.safetensors");
    free(path);
    free(a);
    free(b);
}

/* scale = alpha / sqrt(r) with use_rslora; unknown keys do not matter; B A is added once. */
static void test_scales_and_merging(void **state)
{
    struct place *place = *state;
    struct error err = { 0 };
    char *a = xasprintf("%s.lora_A.weight", q0);
    char *b = xasprintf("%s.lora_B.weight", q0);
    write_tensors(place, (const struct half[]){ { a, 4, 32, 0.5f }, { b, 32, 4, 0.25f } }, 2);
    static const struct {
        const char *text;
        double scale;
    } rows[] = {
        { "{\"lora_alpha\": 6, \"future\": {\"key\": [1]}}", 1.5 },
        { "{\"lora_alpha\": 6, \"use_rslora\": true, \"use_dora\": false}", 3.0 },
        { "{\"alpha_pattern\": {\"k_proj\": 1, \"self_attn\\\\.q_proj\": 2}}", 0.5 },
        { "{\"alpha_pattern\": {\"^q_proj\": 1}}", 2.0 },
        { "{\"alpha_pattern\": {\"^model.layers.0.self_attn.q_proj$\": 1}}", 0.25 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        write_config(place, rows[i].text);
        struct adapter *adapter = adapter_open(place->path, &place->config, &err);
        if (adapter == NULL) {
            fail_msg("%s", err.message);
        }
        assert_true(adapter->count == 1 && adapter->entry[0].scale == rows[i].scale);
        float values[70];
        uint16_t stored[70];
        float wide[70];
        for (int k = 0; k < 70; k++) {
            values[k] = 1.0f;
            stored[k] = bf16_from_float(1.0f);
        }
        const char *name = adapter->entry[0].parameter;
        float expected = 1.0f + (float)(rows[i].scale * 4 * 0.5 * 0.25);
        adapter_merge(adapter, name, 17, 70, values);
        adapter_merge_into(adapter, name, 17, 70,
                           &(struct adapter_buffer){ stored, DTYPE_BF16, wide });
        for (int k = 0; k < 70; k++) {
            assert_true(values[k] == expected);
            assert_int_equal(stored[k], bf16_from_float(expected));
        }
        adapter_merge(adapter, "model.norm.weight", 0, 32, values);
        assert_true(values[0] == expected);
        adapter_close(adapter);
    }
    free(a);
    free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_configurations, make, clean),
        cmocka_unit_test_setup_teardown(test_tensors, make, clean),
        cmocka_unit_test_setup_teardown(test_scales_and_merging, make, clean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
