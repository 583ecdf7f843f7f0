/* Weights in one file and in shards, and finding model directories. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/file.h"
#include "engine/base/xalloc.h"
#include "engine/model/hf_directory.h"
#include "engine/model/weights.h"

static char folder[] = "/tmp/windrow-test-weights-XXXXXX";

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

/* A path in the folder; free it. */
static char *in_folder(const char *name)
{
    return path_join(folder, name);
}

static void put_text(const char *name, const char *text)
{
    struct error err = { 0 };
    char *path = in_folder(name);
    char *parent = xstrndup(path, (size_t)(path_base(path) - path));
    assert_int_equal(file_make_directories(parent, &err), 0);
    assert_int_equal(file_replace(path, text, strlen(text), &err), 0);
    free(parent);
    free(path);
}

/* A file with one tensor of two by `columns` values, all `value`. */
static void put_weights(const char *name, const char *tensor, int64_t columns, float value)
{
    struct error err = { 0 };
    char *path = in_folder(name);
    char *parent = xstrndup(path, (size_t)(path_base(path) - path));
    struct safetensors_entry entry = { tensor, DTYPE_F32, 2, { 2, columns } };
    assert_int_equal(file_make_directories(parent, &err), 0);
    unlink(path);
    struct safetensors_writer *w = safetensors_writer_begin(path, &entry, 1, &err);
    assert_non_null(w);
    for (int64_t i = 0; i < 2 * columns; i++) {
        assert_int_equal(safetensors_writer_write(w, &value, sizeof value, &err), 0);
    }
    assert_int_equal(safetensors_writer_finish(w, NULL, NULL, &err), 0);
    free(parent);
    free(path);
}

static void check_refused(const char *directory, const char *part)
{
    struct error err = { 0 };
    char *path = in_folder(directory);
    struct weights_source *source = weights_open(path, &err);
    if (source || !strstr(err.message, part)) {
        print_message("%s: %s\n", part, source ? "accepted" : err.message);
    }
    assert_null(source);
    assert_non_null(strstr(err.message, part));
    assert_int_equal(err.code, ERROR_DATA);
    free(path);
}

static void test_single_file(void **state)
{
    (void)state;
    struct error err = { 0 };
    put_weights("one/model.safetensors", "a.weight", 3, 1.5f);
    char *path = in_folder("one");
    struct weights_source *source = weights_open(path, &err);
    assert_non_null(source);
    assert_int_equal(weights_count(source), 1);
    assert_int_equal(weights_file_count(source), 1);
    assert_string_equal(weights_get(source, 0).tensor->name, "a.weight");
    float values[6] = { 0 };
    assert_int_equal(weights_read(source, "a.weight", values, DTYPE_F32, &err), 0);
    assert_true(values[0] == 1.5f && values[5] == 1.5f);
    assert_int_equal(weights_read(source, "b.weight", values, DTYPE_F32, &err), -1);
    assert_non_null(strstr(err.message, "\"b.weight\" is missing"));

    struct weights_tensor found;
    int64_t dim[2] = { 2, 3 };
    assert_int_equal(weights_require(source, "a.weight", 2, dim, &found, &err), 0);
    uint16_t narrow[2];
    assert_int_equal(weights_read_range(&found, 4, 2, narrow, DTYPE_BF16, &err), 0);
    assert_int_equal(narrow[1], 0x3fc0);
    dim[1] = 4;
    assert_int_equal(weights_require(source, "a.weight", 2, dim, &found, &err), -1);
    assert_non_null(strstr(err.message, "(2, 3)"));
    assert_non_null(strstr(err.message, "(2, 4)"));
    assert_int_equal(weights_require(source, "a.weight", 1, dim, &found, &err), -1);
    assert_int_equal(weights_require(source, "c", 1, dim, &found, &err), -1);
    weights_close(source);
    free(path);
}

static void test_shards(void **state)
{
    (void)state;
    struct error err = { 0 };
    put_weights("sh/model-00001-of-00002.safetensors", "z", 2, 1.0f);
    put_weights("sh/model-00002-of-00002.safetensors", "a", 2, 2.0f);
    put_text("sh/model.safetensors.index.json", "{\"metadata\":{\"total_size\":32},\"weight_map\":{"
                                                "\"a\":\"model-00002-of-00002.safetensors\","
                                                "\"z\":\"model-00001-of-00002.safetensors\"}}");
    char *path = in_folder("sh");
    struct weights_source *source = weights_open(path, &err);
    assert_non_null(source);
    assert_int_equal(weights_count(source), 2);
    assert_int_equal(weights_file_count(source), 2);
    float values[4];
    assert_int_equal(weights_read(source, "a", values, DTYPE_F32, &err), 0);
    assert_true(values[3] == 2.0f);
    assert_int_equal(weights_read(source, "z", values, DTYPE_F32, &err), 0);
    assert_true(values[3] == 1.0f);
    weights_close(source);
    free(path);

    /* The map says something else than the files. */
    put_text("sh/model.safetensors.index.json",
             "{\"weight_map\":{\"a\":\"model-00001-of-00002.safetensors\","
             "\"z\":\"model-00001-of-00002.safetensors\"}}");
    check_refused("sh", "does not lie in model-00001-of-00002.safetensors");
    put_weights("sh/model-00002-of-00002.safetensors", "z", 2, 2.0f);
    put_text("sh/model.safetensors.index.json",
             "{\"weight_map\":{\"a\":\"model-00002-of-00002.safetensors\","
             "\"z\":\"model-00001-of-00002.safetensors\"}}");
    check_refused("sh", "lies in two files");
}

static void test_frequencies_are_not_shown(void **state)
{
    (void)state;
    struct error err = { 0 };
    put_weights("inv/model.safetensors", "model.layers.0.self_attn.rotary_emb.inv_freq", 1, 1.0f);
    char *path = in_folder("inv");
    struct weights_source *source = weights_open(path, &err);
    assert_non_null(source);
    assert_int_equal(weights_count(source), 0);
    weights_close(source);
    free(path);
}

static void test_index_cannot_lead_outside(void **state)
{
    (void)state;
    static const char *const names[] = {
        "../outside.safetensors",
        "/dev/zero",
        "/etc/passwd",
        "sub/b.safetensors",
        "..",
        ".",
        "",
        "..\\\\outside.safetensors",
        ".hidden.safetensors",
        "https://example.org/b.safetensors",
        "b\\n.safetensors",
        "b\\u001b[2J.safetensors",
    };
    put_weights("outside.safetensors", "a", 2, 1.0f);
    put_weights("ix/b.safetensors", "a", 2, 1.0f);
    put_weights("ix/sub/b.safetensors", "a", 2, 1.0f);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char *text = xasprintf("{\"weight_map\":{\"a\":\"%s\"}}", names[i]);
        put_text("ix/model.safetensors.index.json", text);
        check_refused("ix", "plain name");
        free(text);
    }
    put_text("ix/model.safetensors.index.json",
             "{\"weight_map\":{\"a\":\"b.safetensors\\u0000.txt\"}}");
    check_refused("ix", "u0000");
    put_text("ix/model.safetensors.index.json", "{\"weight_map\":{\"a\":7}}");
    check_refused("ix", "plain name");
    put_text("ix/model.safetensors.index.json", "{\"weight_map\":[]}");
    check_refused("ix", "weight_map");
    put_text("ix/model.safetensors.index.json", "{\"weight_map\":{}}");
    check_refused("ix", "weight_map");
    put_text("ix/model.safetensors.index.json", "{}");
    check_refused("ix", "weight_map");
    put_text("ix/model.safetensors.index.json", "[]");
    check_refused("ix", "weight_map");
    put_text("ix/model.safetensors.index.json",
             "{\"weight_map\":{\"a\":\"b.safetensors\",\"a\":\"b.safetensors\"}}");
    check_refused("ix", "twice");
    put_text("ix/model.safetensors.index.json", "{\"weight_map\":{\"a\":\"absent.safetensors\"}}");
    check_refused("ix", "absent.safetensors");
    put_text("ix/model.safetensors.index.json", "{\"weight_map\":{\"a\":\"sub\"}}");
    check_refused("ix", "directory");
}

/* To a regular file, as in the cache, they are followed; not to anything else. */
static void test_links(void **state)
{
    (void)state;
    put_weights("outside.safetensors", "a", 2, 1.0f);
    char *shard = in_folder("ix/link.safetensors");
    assert_int_equal(symlink("../outside.safetensors", shard), 0);
    put_text("ix/model.safetensors.index.json", "{\"weight_map\":{\"a\":\"link.safetensors\"}}");
    struct error err = { 0 };
    char *path = in_folder("ix");
    struct weights_source *source = weights_open(path, &err);
    assert_non_null(source);
    weights_close(source);
    assert_int_equal(unlink(shard), 0);
    assert_int_equal(symlink("/dev/zero", shard), 0);
    check_refused("ix", "device");
    assert_int_equal(unlink(shard), 0);
    assert_int_equal(symlink("link.safetensors", shard), 0);
    check_refused("ix", "link.safetensors");
    free(shard);
    free(path);
}

static void test_directories_without_weights(void **state)
{
    (void)state;
    struct error err = { 0 };
    put_text("none/config.json", "{}");
    check_refused("none", "no model.safetensors");
    put_text("none/pytorch_model.bin", "x");
    char *path = in_folder("none");
    assert_null(weights_open(path, &err));
    assert_non_null(strstr(err.hint, "pytorch_model.bin"));
    check_refused("absent", "not a directory");
    free(path);
}

/* ---- finding ------------------------------------------------------------------------------- */

static void check_resolves(const char *name, const char *expected)
{
    struct error err = { 0 };
    char *notice = NULL;
    char *path = hf_directory_resolve(name, &notice, &err);
    char *full = in_folder(expected);
    if (!path) {
        print_message("%s\n", err.message);
    }
    assert_non_null(path);
    assert_string_equal(path, full);
    free(full);
    free(path);
    free(notice);
}

static void check_unresolved(const char *name, const char *part)
{
    struct error err = { 0 };
    char *notice = NULL;
    assert_null(hf_directory_resolve(name, &notice, &err));
    if (!strstr(err.message, part)) {
        print_message("%s\n", err.message);
    }
    assert_non_null(strstr(err.message, part));
    assert_null(notice);
}

static void test_cache(void **state)
{
    (void)state;
    char *cache = in_folder("hub");
    setenv("HF_HUB_CACHE", cache, 1);
    put_text("hub/models--org--name/snapshots/0123abcd/config.json", "{}");
    put_text("hub/models--org--name/snapshots/4567/config.json", "{}");
    put_text("hub/models--org--name/refs/main", "0123abcd\n");
    put_text("hub/models--org--name/refs/v2", "4567");
    put_text("hub/models--gpt2/snapshots/aa/config.json", "{}");
    put_text("hub/models--org--empty/refs/main", "ffff");
    put_text("hub/models--org--evil/refs/main", "../../models--gpt2/snapshots/aa");
    put_text("hub/datasets--org--data/snapshots/aa/config.json", "{}");
    put_text("local/config.json", "{}");
    put_text("bare/readme", "");
    check_resolves("org/name", "hub/models--org--name/snapshots/0123abcd");
    check_resolves("org/name@v2", "hub/models--org--name/snapshots/4567");
    check_resolves("org/name@4567", "hub/models--org--name/snapshots/4567");
    check_resolves("gpt2", "hub/models--gpt2/snapshots/aa");
    check_unresolved("org/name@v3", "v3");
    check_unresolved("org/empty", "no snapshot");
    check_unresolved("org/evil", "no snapshot");
    check_unresolved("org/other", "cache");
    check_unresolved("a/b/c", "ORG/NAME");
    check_unresolved("../x", "ORG/NAME");
    check_unresolved("org/..", "ORG/NAME");
    check_unresolved("org/name@../x", "ORG/NAME");
    check_unresolved("", "empty");
    check_unresolved("x\x1b[2J", "x\\x1b[2J");
    char *path = in_folder("local");
    check_resolves(path, "local");
    free(path);
    path = in_folder("bare");
    check_unresolved(path, "no config.json");
    free(path);
    path = in_folder("local/config.json");
    check_unresolved(path, "is a file");
    free(path);

    struct error err = { 0 };
    char *notice = NULL;
    free(hf_directory_resolve("gpt2", &notice, &err));
    assert_non_null(strstr(notice, "newest"));
    free(notice);

    char **names = NULL;
    size_t count = 0;
    assert_int_equal(hf_directory_list(&names, &count, &err), 0);
    assert_int_equal(count, 2);
    assert_string_equal(names[0], "gpt2");
    assert_string_equal(names[1], "org/name");
    free(names[0]);
    free(names[1]);
    free(names);
    free(cache);
}

static void test_place_of_the_cache(void **state)
{
    (void)state;
    static const char *const all[] = { "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME",
                                       "XDG_CACHE_HOME", "HOME" };
    static const char *const expected[] = { "/v", "/v", "/v/hub", "/v/huggingface/hub",
                                            "/v/.cache/huggingface/hub" };
    for (size_t i = 0; i < 5; i++) {
        setenv(all[i], "/v", 1);
    }
    for (size_t i = 0; i < 5; i++) {
        char *cache = hf_directory_cache();
        assert_string_equal(cache, expected[i]);
        free(cache);
        if (i % 2) {
            unsetenv(all[i]);
        } else {
            setenv(all[i], "", 1); /* empty counts as unset */
        }
    }
    assert_null(hf_directory_cache());
    struct error err = { 0 };
    char **names = NULL;
    size_t count = 1;
    assert_int_equal(hf_directory_list(&names, &count, &err), 0);
    assert_int_equal(count, 0);
    check_unresolved("org/name", "neither");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_single_file),
        cmocka_unit_test(test_shards),
        cmocka_unit_test(test_frequencies_are_not_shown),
        cmocka_unit_test(test_index_cannot_lead_outside),
        cmocka_unit_test(test_links),
        cmocka_unit_test(test_directories_without_weights),
        cmocka_unit_test(test_cache),
        cmocka_unit_test(test_place_of_the_cache),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
