/* Exporting: the directory is whole or not there, and reads back as what it was. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/faults.h"
#include "engine/base/file.h"
#include "engine/base/json.h"
#include "engine/model/export.h"
#include "engine/model/weights.h"

static char folder[] = "/tmp/windrow-test-export-XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    struct error err = { 0 };
    (void)state;
    return file_remove_tree(folder, &err);
}

enum { ROWS = 700, COLUMNS = 512, NORM = 512 };

static const struct model_config config = {
    .family = "llama",
    .model_type = "llama",
    .hidden_size = 512,
    .intermediate_size = 16,
    .layers = 1,
    .heads = 8,
    .kv_heads = 4,
    .head_size = 64,
    .vocabulary = ROWS,
    .max_positions = 128,
    .rms_norm_eps = 1e-5,
    .rope_theta = 10000,
    .tied = true,
    .bos = 1,
    .eos = 2,
    .pad = -1,
    .eos_list = { 2 },
    .eos_count = 1,
    .initializer_range = 0.02,
};

static const struct safetensors_entry entries[] = {
    { "model.embed_tokens.weight", DTYPE_F32, 2, { ROWS, COLUMNS } },
    { "model.norm.weight", DTYPE_F32, 1, { NORM } },
};

/* Value `index` of tensor `t`. */
static float value_of(size_t t, int64_t index)
{
    return (float)(t + 1) + (float)index * 0.001f;
}

static int read_values(void *context, size_t index, int64_t first, int64_t count, void *out,
                       struct error *err)
{
    int *fail_at = context;
    float *values = out;
    if (fail_at && (*fail_at)-- == 0) {
        return (fail)(err, ERROR_RUNTIME, "the device went away");
    }
    assert_true(count * (int64_t)sizeof(float) <= 1 << 20);
    for (int64_t i = 0; i < count; i++) {
        values[i] = value_of(index, first + i);
    }
    return 0;
}

static struct model_export arguments(const char *target)
{
    return (struct model_export){
        .target = target, .config = &config, .entry = entries, .entry_count = 2, .read = read_values
    };
}

static size_t count_entries(const char *path)
{
    DIR *directory = opendir(path);
    size_t count = 0;
    assert_non_null(directory);
    while (readdir(directory)) {
        count++;
    }
    closedir(directory);
    return count - 2;
}

static char *read_file(const char *directory, const char *name, size_t *size)
{
    struct error err = { 0 };
    char *path = path_join(directory, name);
    char *text = file_read_all(path, 10000000, size, &err);
    free(path);
    return text;
}

static void check_whole(const char *target)
{
    struct error err = { 0 };
    struct model_config back = { 0 };
    char *path = path_join(target, "config.json");
    assert_int_equal(config_read(path, &back, &err), 0);
    assert_int_equal(back.hidden_size, config.hidden_size);
    assert_int_equal(back.vocabulary, config.vocabulary);
    struct weights_source *source = weights_open(target, &err);
    assert_non_null(source);
    assert_int_equal(weights_count(source), 2);
    static float values[ROWS * COLUMNS];
    for (size_t t = 0; t < 2; t++) {
        struct weights_tensor tensor = weights_get(source, t);
        assert_string_equal(tensor.tensor->name, entries[t].name);
        assert_int_equal(
            weights_read_range(&tensor, 0, tensor.tensor->elements, values, DTYPE_F32, &err), 0);
        for (int64_t i = 0; i < tensor.tensor->elements; i++) {
            assert_true(values[i] == value_of(t, i));
        }
    }
    weights_close(source);
    free(path);
}

static void test_export_with_source(void **state)
{
    (void)state;
    struct error err = { 0 };
    char *source = path_join(folder, "source");
    char *target = path_join(folder, "deep/er/out/");
    assert_int_equal(file_make_directories(source, &err), 0);
    static const char *const files[] = { "generation_config.json", "tokenizer.model",
                                         "tokenizer_config.json", "chat_template.jinja",
                                         "merges.txt" };
    static const char bytes[] = "any\0bytes\xff\n";
    for (size_t i = 0; i < 5; i++) {
        char *path = path_join(source, files[i]);
        assert_int_equal(file_replace(path, bytes, sizeof bytes - i, &err), 0);
        free(path);
    }
    char *other = path_join(source, "modeling_evil.py"); /* not copied */
    assert_int_equal(file_replace(other, "x", 1, &err), 0);
    struct model_export args = arguments(target);
    args.source_directory = source;
    args.tokenizer_bytes = "unused";
    args.tokenizer_size = 6;
    assert_int_equal(model_export(&args, &err), 0);
    check_whole(target);
    assert_int_equal(count_entries(target), 7);
    for (size_t i = 0; i < 5; i++) {
        size_t size = 0;
        char *text = read_file(target, files[i], &size);
        assert_int_equal(size, sizeof bytes - i);
        assert_memory_equal(text, bytes, size);
        free(text);
    }
    /* Not again into the same place. */
    assert_int_equal(model_export(&args, &err), -1);
    assert_int_equal(err.code, ERROR_USAGE);
    assert_non_null(strstr(err.message, "not empty"));
    check_whole(target);
    char *above = path_join(folder, "deep/er");
    assert_int_equal(count_entries(above), 1); /* nothing temporary is left */
    free(above);
    free(other);
    free(source);
    free(target);
}

static void test_export_with_bytes(void **state)
{
    (void)state;
    struct error err = { 0 };
    char *target = path_join(folder, "bytes");
    assert_int_equal(mkdir(target, 0700), 0); /* empty: fine */
    struct model_export args = arguments(target);
    args.tokenizer_bytes = "a\0b";
    args.tokenizer_size = 3;
    args.bos_piece = "<s>";
    args.eos_piece = "</s>";
    assert_int_equal(model_export(&args, &err), 0);
    check_whole(target);
    size_t size = 0;
    char *text = read_file(target, "tokenizer.model", &size);
    assert_int_equal(size, 3);
    assert_memory_equal(text, "a\0b", 3);
    free(text);
    text = read_file(target, "tokenizer_config.json", &size);
    cJSON *json = json_parse(text, size, "x", 1, &err);
    assert_string_equal(json_get(json, "bos_token")->valuestring, "<s>");
    assert_string_equal(json_get(json, "tokenizer_class")->valuestring, "LlamaTokenizer");
    assert_null(json_get(json, "unk_token"));
    cJSON_Delete(json);
    free(text);
    free(target);
}

static void test_bad_targets(void **state)
{
    (void)state;
    struct error err = { 0 };
    char *file = path_join(folder, "a-file");
    assert_int_equal(file_replace(file, "x", 1, &err), 0);
    struct model_export args = arguments(file);
    assert_int_equal(model_export(&args, &err), -1);
    args.target = "";
    assert_int_equal(model_export(&args, &err), -1);
    args.target = "/";
    assert_int_equal(model_export(&args, &err), -1);
    args.target = "..";
    assert_int_equal(model_export(&args, &err), -1);
    char *below = path_join(file, "out");
    args.target = below;
    assert_int_equal(model_export(&args, &err), -1);
    assert_true(file_exists(file));
    free(below);
    free(file);
}

static void test_source_that_fails(void **state)
{
    (void)state;
    struct error err = { 0 };
    char *place = path_join(folder, "failing");
    char *target = path_join(place, "out");
    for (int at = 0; at < 3; at++) {
        int fail_at = at;
        struct model_export args = arguments(target);
        args.context = &fail_at;
        assert_int_equal(model_export(&args, &err), -1);
        assert_string_equal(err.message, "the device went away");
        assert_int_equal(count_entries(place), 0);
    }
    free(target);
    free(place);
}

static void test_everything_is_synced_before_the_rename(void **state)
{
    (void)state;
    struct error err = { 0 };
    char *target = path_join(folder, "order");
    struct model_export args = arguments(target);
    faults_begin(FAULT_NONE, 0, 0);
    assert_int_equal(model_export(&args, &err), 0);
    struct faults faults = faults_end();
    /* mkdirs; config.json as file_replace does it; the weights; their directory; the rename, and
     * the directory above. */
    size_t start = strspn(faults.log, "m");
    size_t size = strlen(faults.log);
    assert_true(start > 0);
    assert_memory_equal(faults.log + start, "owfcrofco", 9);
    assert_string_equal(faults.log + size - 9, "fcofcrofc");
    assert_int_equal(strspn(faults.log + start + 9, "w"), size - start - 18);
    free(target);
}

static void test_tokenizer_of_another_directory(void **state)
{
    (void)state;
    struct error err = { 0 };
    char *model = path_join(folder, "of-model");
    char *tokenizer = path_join(folder, "of-tokenizer");
    static const char *const files[] = { "generation_config.json", "tokenizer.json" };
    for (size_t i = 0; i < 4; i++) {
        const char *directory = i < 2 ? model : tokenizer;
        char *path = path_join(directory, files[i % 2]);
        assert_int_equal(file_make_directories(directory, &err), 0);
        assert_int_equal(file_replace(path, i < 2 ? "M" : "T", 1, &err), 0);
        free(path);
    }
    for (int round = 0; round < 2; round++) {
        size_t size = 0;
        char *target = path_join(folder, round ? "no-tokenizer" : "both");
        struct model_export args = arguments(target);
        args.source_directory = model;
        args.tokenizer_directory = round ? "" : tokenizer;
        assert_int_equal(model_export(&args, &err), 0);
        char *text = read_file(target, "generation_config.json", &size);
        assert_string_equal(text, "M");
        free(text);
        text = read_file(target, "tokenizer.json", &size);
        if (round) {
            assert_null(text);
        } else {
            assert_string_equal(text, "T");
        }
        free(text);
        free(target);
    }
    free(model);
    free(tokenizer);
}

/* Every call fails once, with a full disk and with an I/O error. */
static void test_every_failing_call(void **state)
{
    (void)state;
    static const int numbers[] = { ENOSPC, EIO };
    struct error err = { 0 };
    char *place = path_join(folder, "faulty");
    char *source = path_join(folder, "faulty-source");
    char *target = path_join(place, "out");
    assert_int_equal(file_make_directories(source, &err), 0);
    assert_int_equal(file_make_directories(place, &err), 0);
    char *tokenizer = path_join(source, "tokenizer.model");
    assert_int_equal(file_replace(tokenizer, "abc", 3, &err), 0);
    for (size_t i = 0; i < 2; i++) {
        bool hit = true;
        long at = 1;
        for (; hit; at++) {
            struct model_export args = arguments(target);
            args.source_directory = source;
            faults_begin(FAULT_ERROR, numbers[i], at);
            int result = model_export(&args, &err);
            hit = faults_end().hit;
            if (file_exists(target)) {
                check_whole(target); /* also if its last sync failed */
            } else {
                assert_int_equal(result, -1);
            }
            /* One fault: what was made is taken away again. */
            assert_int_equal(count_entries(place), file_exists(target) ? 1 : 0);
            assert_int_equal(file_remove_tree(target, &err), 0);
        }
        assert_true(at > 25);
    }
    free(tokenizer);
    free(source);
    free(target);
    free(place);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_export_with_source),
        cmocka_unit_test(test_export_with_bytes),
        cmocka_unit_test(test_tokenizer_of_another_directory),
        cmocka_unit_test(test_everything_is_synced_before_the_rename),
        cmocka_unit_test(test_bad_targets),
        cmocka_unit_test(test_source_that_fails),
        cmocka_unit_test(test_every_failing_call),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
