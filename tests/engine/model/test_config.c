/* config.json: what is read, what is refused, what is written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/file.h"
#include "engine/base/json.h"
#include "engine/model/config.h"

/* The good one; `change` replaces or adds keys ("key":value, ...). */
static int parse(const char *change, struct model_config *config, struct error *err)
{
    static const char good[] =
        "{\"architectures\":[\"LlamaForCausalLM\"],\"bos_token_id\":1,\"eos_token_id\":2,"
        "\"hidden_act\":\"silu\",\"hidden_size\":64,\"initializer_range\":0.02,"
        "\"intermediate_size\":172,\"max_position_embeddings\":512,\"model_type\":\"llama\","
        "\"num_attention_heads\":8,\"num_hidden_layers\":5,\"num_key_value_heads\":4,"
        "\"rms_norm_eps\":1e-05,\"rope_theta\":10000.0,\"tie_word_embeddings\":true,"
        "\"torch_dtype\":\"float32\",\"vocab_size\":512}";
    cJSON *json = json_parse(good, sizeof good - 1, "good", 1, err);
    char *text = xasprintf("{%s}", change);
    cJSON *changes = json_parse(text, strlen(text), "changes", 1, err);
    assert_non_null(json);
    assert_non_null(changes);
    while (changes->child) {
        cJSON *item = cJSON_DetachItemViaPointer(changes, changes->child);
        cJSON_DeleteItemFromObjectCaseSensitive(json, item->string);
        if (strcmp(item->string, "REMOVE") == 0) {
            cJSON_DeleteItemFromObjectCaseSensitive(json, item->valuestring);
            cJSON_Delete(item);
        } else {
            char *key = xstrdup(item->string);
            cJSON_AddItemToObject(json, key, item);
            free(key);
        }
    }
    int result = config_parse("dir/config.json", json, config, err);
    cJSON_Delete(json);
    cJSON_Delete(changes);
    free(text);
    return result;
}

static void check_refused(const char *change, const char *part)
{
    struct error err = { 0 };
    struct model_config config = { .layers = 77 };
    int result = parse(change, &config, &err);
    if (result == 0 || !strstr(err.message, part)) {
        print_message("%s: %s\n", change, result == 0 ? "accepted" : err.message);
    }
    assert_int_equal(result, -1);
    assert_int_equal(config.layers, 77);
    assert_int_equal(err.code, ERROR_DATA);
    assert_non_null(strstr(err.message, "dir/config.json"));
    assert_non_null(strstr(err.message, part));
}

static struct model_config check_good(const char *change)
{
    struct error err = { 0 };
    struct model_config config = { 0 };
    if (parse(change, &config, &err) != 0) {
        print_message("%s: %s\n", change, err.message);
        assert_true(false);
    }
    return config;
}

static void test_version_4(void **state)
{
    (void)state;
    struct model_config c = check_good("");
    assert_string_equal(c.family, "llama");
    assert_int_equal(c.hidden_size, 64);
    assert_int_equal(c.intermediate_size, 172);
    assert_int_equal(c.layers, 5);
    assert_int_equal(c.heads, 8);
    assert_int_equal(c.kv_heads, 4);
    assert_int_equal(c.head_size, 8);
    assert_int_equal(c.vocabulary, 512);
    assert_int_equal(c.max_positions, 512);
    assert_true(c.rms_norm_eps == 1e-5 && c.rope_theta == 10000 && c.initializer_range == 0.02);
    assert_true(c.tied && !c.auto_map);
    assert_int_equal(c.bos, 1);
    assert_int_equal(c.eos, 2);
    assert_int_equal(c.eos_count, 1);
    assert_int_equal(c.pad, -1);
    assert_int_equal(c.dtype, DTYPE_F32);
    /* 512*64 + 5*(2*64 + 64*64*2 + 2*64*32 + 3*64*172) + 64: the published 260,032 */
    assert_int_equal(model_config_parameters(&c), 260032);
}

static void test_version_5_and_scaling(void **state)
{
    (void)state;
    struct model_config c = check_good(
        "\"REMOVE\":\"rope_theta\",\"REMOVE2\":0,\"dtype\":\"bfloat16\","
        "\"rope_parameters\":{\"rope_theta\":500000.0,\"rope_type\":\"llama3\",\"factor\":8.0,"
        "\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,\"original_max_position_embeddings\":"
        "8192}");
    assert_true(c.rope_theta == 500000);
    assert_int_equal(c.rope_scaling.kind, ROPE_SCALING_LLAMA3);
    assert_true(c.rope_scaling.factor == 8 && c.rope_scaling.low_frequency_factor == 1 &&
                c.rope_scaling.high_frequency_factor == 4);
    assert_int_equal(c.rope_scaling.original_max_positions, 8192);
    assert_int_equal(c.dtype, DTYPE_BF16);
    c = check_good("\"rope_parameters\":{\"rope_theta\":5.0,\"rope_type\":\"default\"}");
    assert_true(c.rope_theta == 5 && c.rope_scaling.kind == ROPE_SCALING_NONE);
    c = check_good("\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.5}");
    assert_true(c.rope_scaling.kind == ROPE_SCALING_LINEAR && c.rope_scaling.factor == 2.5);
    c = check_good("\"rope_scaling\":null");
    assert_int_equal(c.rope_scaling.kind, ROPE_SCALING_NONE);
    check_refused("\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2.0}", "rope_type");
    check_refused("\"rope_scaling\":{\"type\":\"linear\"}", "factor\" is missing");
    check_refused("\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":0}", "factor");
    check_refused("\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":\"2\"}",
                  "rope_scaling.factor");
    check_refused("\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,"
                  "\"high_freq_factor\":4}",
                  "high_freq_factor");
    check_refused("\"rope_scaling\":[1]", "rope_scaling");
    check_refused("\"rope_theta\":0", "rope_theta");
    check_refused("\"rope_theta\":-1", "rope_theta");
}

static void test_ids(void **state)
{
    (void)state;
    struct model_config c =
        check_good("\"eos_token_id\":[3,5,7],\"bos_token_id\":null,\"pad_token_id\":0");
    assert_int_equal(c.eos, 3);
    assert_int_equal(c.eos_count, 3);
    assert_int_equal(c.eos_list[2], 7);
    assert_int_equal(c.bos, -1);
    assert_int_equal(c.pad, 0);
    c = check_good("\"eos_token_id\":null,\"pad_token_id\":-1");
    assert_int_equal(c.eos, -1);
    assert_int_equal(c.eos_count, 0);
    c = check_good("\"REMOVE\":\"eos_token_id\"");
    assert_int_equal(c.eos, 2);
    c = check_good("\"REMOVE\":\"eos_token_id\",\"bos_token_id\":0,\"vocab_size\":1");
    assert_int_equal(c.eos, -1);
    check_refused("\"eos_token_id\":512", "eos_token_id");
    check_refused("\"eos_token_id\":[1,2,3,4,5,6,7,8,9]", "at most 8");
    check_refused("\"eos_token_id\":[\"2\"]", "eos_token_id");
    check_refused("\"eos_token_id\":1.5", "eos_token_id");
    check_refused("\"bos_token_id\":-2", "bos_token_id");
    check_refused("\"bos_token_id\":true", "bos_token_id");
    check_refused("\"vocab_size\":2", "eos_token_id");
}

static void test_refusals(void **state)
{
    (void)state;
    check_refused("\"num_attention_heads\":0", "num_attention_heads");
    check_refused("\"num_attention_heads\":-8", "num_attention_heads");
    check_refused("\"num_attention_heads\":\"8\"", "num_attention_heads");
    check_refused("\"num_attention_heads\":7", "no multiple");
    check_refused("\"num_key_value_heads\":3", "must divide");
    check_refused("\"num_key_value_heads\":16", "must divide");
    check_refused("\"hidden_size\":9223372036854775808", "hidden_size");
    check_refused("\"hidden_size\":0", "hidden_size");
    check_refused("\"hidden_size\":64.5", "hidden_size");
    check_refused("\"hidden_size\":null", "hidden_size");
    check_refused("\"REMOVE\":\"hidden_size\"", "missing");
    check_refused("\"REMOVE\":\"vocab_size\"", "vocab_size");
    check_refused("\"num_hidden_layers\":1e30", "num_hidden_layers");
    check_refused("\"num_hidden_layers\":0", "num_hidden_layers");
    check_refused("\"num_hidden_layers\":100000", "num_hidden_layers");
    check_refused("\"head_dim\":7", "even");
    check_refused("\"head_dim\":100000", "head_dim");
    check_refused("\"vocab_size\":1073741824", "vocab_size");
    check_refused(
        "\"hidden_size\":1048576,\"intermediate_size\":4194304,\"num_hidden_layers\":4096,"
        "\"vocab_size\":16777216,\"num_attention_heads\":4096",
        "parameters");
    check_refused("\"hidden_size\":1048576,\"intermediate_size\":1073741824,"
                  "\"num_hidden_layers\":65536,\"vocab_size\":1073741824",
                  "1 ..");
    check_refused("\"rms_norm_eps\":0", "rms_norm_eps");
    check_refused("\"rms_norm_eps\":\"x\"", "rms_norm_eps");
    check_refused("\"initializer_range\":-1", "initializer_range");
    check_refused("\"model_type\":\"gpt2\\u001b[2J\"", "gpt2\\x1b[2J");
    check_refused("\"REMOVE\":\"model_type\"", "model_type");
    check_refused("\"model_type\":7", "model_type");
    check_refused("\"hidden_act\":\"gelu\"", "silu");
    check_refused("\"attention_bias\":true", "attention_bias");
    check_refused("\"mlp_bias\":true", "mlp_bias");
    check_refused("\"mlp_bias\":1", "mlp_bias");
    check_refused("\"sliding_window\":4096", "sliding_window");
    check_refused("\"model_type\":\"mistral\"", "sliding_window");
    check_refused("\"quantization_config\":{\"bits\":4}", "quantised");
    check_refused("\"tie_word_embeddings\":\"yes\"", "tie_word_embeddings");
    check_refused("\"max_position_embeddings\":0", "max_position_embeddings");
    struct error err = { 0 };
    struct model_config config;
    cJSON *list = cJSON_CreateArray();
    assert_int_equal(config_parse("x", list, &config, &err), -1);
    cJSON_Delete(list);
}

static void test_accepted_with_remarks(void **state)
{
    (void)state;
    struct model_config c =
        check_good("\"auto_map\":{\"AutoModelForCausalLM\":\"evil--evil.Model\"}");
    assert_true(c.auto_map);
    c = check_good("\"model_type\":\"mistral\",\"sliding_window\":null");
    assert_string_equal(c.family, "llama");
    assert_string_equal(c.model_type, "mistral");
    c = check_good("\"head_dim\":16,\"unknown_key\":[1,2]");
    assert_int_equal(c.head_size, 16);
    c = check_good("\"REMOVE\":\"num_key_value_heads\"");
    assert_int_equal(c.kv_heads, 8);
}

/* Written and read again is the same. */
static void check_round_trip(const char *change)
{
    struct error err = { 0 };
    struct model_config a = check_good(change);
    struct model_config b = { 0 };
    cJSON *json = config_to_json(&a, a.dtype);
    char *text = json_print_pretty(json);
    cJSON_Delete(json);
    json = json_parse(text, strlen(text), "written", 1, &err);
    assert_non_null(json);
    assert_int_equal(config_parse("written", json, &b, &err), 0);
    assert_string_equal(a.model_type, b.model_type);
    assert_int_equal(a.hidden_size, b.hidden_size);
    assert_int_equal(a.head_size, b.head_size);
    assert_int_equal(a.kv_heads, b.kv_heads);
    assert_int_equal(a.bos, b.bos);
    assert_int_equal(a.pad, b.pad);
    assert_int_equal(a.eos_count, b.eos_count);
    assert_memory_equal(a.eos_list, b.eos_list, sizeof(int32_t) * (size_t)a.eos_count);
    assert_int_equal(a.tied, b.tied);
    assert_int_equal(a.dtype, b.dtype);
    assert_true(a.rope_theta == b.rope_theta && a.rms_norm_eps == b.rms_norm_eps);
    assert_int_equal(a.rope_scaling.kind, b.rope_scaling.kind);
    assert_true(a.rope_scaling.factor == b.rope_scaling.factor);
    assert_true(a.rope_scaling.high_frequency_factor == b.rope_scaling.high_frequency_factor);
    assert_int_equal(a.rope_scaling.original_max_positions, b.rope_scaling.original_max_positions);
    assert_int_equal(model_config_parameters(&a), model_config_parameters(&b));
    cJSON_Delete(json);
    free(text);
}

static void test_round_trips(void **state)
{
    (void)state;
    check_round_trip("");
    check_round_trip("\"eos_token_id\":[3,5],\"bos_token_id\":null,\"pad_token_id\":4");
    check_round_trip("\"eos_token_id\":null,\"head_dim\":32,\"torch_dtype\":\"bfloat16\"");
    check_round_trip(
        "\"model_type\":\"mistral\",\"sliding_window\":null,\"torch_dtype\":\"float16\"");
    check_round_trip(
        "\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.5},\"tie_word_embeddings\":false");
    check_round_trip(
        "\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,"
        "\"high_freq_factor\":4,\"original_max_position_embeddings\":8192},"
        "\"rope_theta\":500000.0,\"rms_norm_eps\":1e-6");
    struct model_config c = check_good("");
    cJSON *json = config_to_json(&c, DTYPE_BF16);
    char *text = json_print(json);
    assert_non_null(strstr(text, "\"torch_dtype\":\"bfloat16\""));
    assert_non_null(strstr(text, "\"rope_theta\":10000.0"));
    assert_non_null(strstr(text, "\"rms_norm_eps\":1e-05"));
    assert_non_null(strstr(text, "\"architectures\":[\"LlamaForCausalLM\"]"));
    free(text);
    cJSON_Delete(json);
}

static void test_check_of_made_up_ones(void **state)
{
    (void)state;
    struct error err = { 0 };
    struct model_config c = check_good("");
    assert_int_equal(config_check("preset", &c, &err), 0);
    c.kv_heads = 3;
    assert_int_equal(config_check("preset", &c, &err), -1);
    c = check_good("");
    c.heads = 0;
    assert_int_equal(config_check("preset", &c, &err), -1);
    assert_non_null(strstr(err.message, "preset"));
}

static void put(const char *path, const char *text)
{
    struct error err = { 0 };
    assert_int_equal(file_replace(path, text, strlen(text), &err), 0);
}

static void test_files(void **state)
{
    (void)state;
    struct error err = { 0 };
    char path[] = "/tmp/windrow-test-config-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    struct model_config c = check_good("\"pad_token_id\":7");
    put(path, "{\"eos_token_id\":[4,2],\"temperature\":0.6}");
    assert_int_equal(config_read_generation(path, &c, &err), 0);
    assert_int_equal(c.eos, 4);
    assert_int_equal(c.eos_count, 2);
    assert_int_equal(c.bos, 1); /* not named: as it was */
    assert_int_equal(c.pad, 7);
    put(path, "{\"eos_token_id\":600}");
    assert_int_equal(config_read_generation(path, &c, &err), -1);
    assert_non_null(strstr(err.message, path));
    assert_int_equal(c.eos, 4);
    put(path, "[]");
    assert_int_equal(config_read_generation(path, &c, &err), -1);
    assert_int_equal(config_read(path, &c, &err), -1);
    put(path, "{\"hidden_size\":8,\"hidden_size\":64}");
    assert_int_equal(config_read(path, &c, &err), -1);
    assert_non_null(strstr(err.message, "twice"));
    put(path, "{\"hidden_size\":8");
    assert_int_equal(config_read(path, &c, &err), -1);
    assert_non_null(strstr(err.message, "line 1, column"));
    unlink(path);
    assert_int_equal(config_read(path, &c, &err), -1);
    assert_int_equal(config_read_generation(path, &c, &err), -1);
    assert_int_equal(err.code, ERROR_DATA);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_version_4),
        cmocka_unit_test(test_version_5_and_scaling),
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_accepted_with_remarks),
        cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_check_of_made_up_ones),
        cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
