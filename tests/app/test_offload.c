/* Activations on a disk, through the program: nothing is left there, the room does not grow, and
 * what was written is told. */
#include <dirent.h>
#include <limits.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "app/program.h"
#include "app/tiny.h"
#include "engine/base/file.h"
#include "engine/base/json.h"
#include "engine/base/xalloc.h"

static const char model_text[] =
    "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\","
    " \"hidden_act\": \"silu\", \"hidden_size\": 16, \"intermediate_size\": 40,"
    " \"num_hidden_layers\": 12, \"num_attention_heads\": 2, \"num_key_value_heads\": 1,"
    " \"vocab_size\": 320, \"max_position_embeddings\": 64, \"rms_norm_eps\": 1e-05,"
    " \"tie_word_embeddings\": true, \"bos_token_id\": 1, \"eos_token_id\": 2}";

struct place {
    char *recipe;
    char *model;     /* model.preset=... */
    char *disk;      /* a folder */
    char *directory; /* activation.offload_dir=... */
};

static struct place place_make(int steps)
{
    struct error err = { 0 };
    char *path = program_file("deep.json", model_text);
    struct place p = { .recipe = tiny_recipe(steps),
                       .model = xasprintf("model.preset=%s", path),
                       .disk = path_join(program_sandbox(), "disk") };
    p.directory = xasprintf("activation.offload_dir=%s", p.disk);
    assert_int_equal(file_make_directories(p.disk, &err), 0);
    free(path);
    return p;
}

static void place_free(struct place *p)
{
    free(p->recipe);
    free(p->model);
    free(p->disk);
    free(p->directory);
}

static int count_entries(const char *folder)
{
    DIR *directory = opendir(folder);
    int count = 0;
    assert_non_null(directory);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    }
    closedir(directory);
    return count;
}

static int count_steps(const char *run)
{
    struct error err = { 0 };
    size_t size = 0;
    int count = 0;
    char *path = path_join(run, "events.jsonl");
    char *text = file_read_all(path, 1 << 24, &size, &err);
    for (char *at = text; at != NULL && (at = strstr(at, "\"event\":\"step\"")) != NULL; at++) {
        count++;
    }
    free(text);
    free(path);
    return count;
}

static void wait_for_steps(const char *run, int steps, pid_t pid)
{
    for (int i = 0; i < 6000 && count_steps(run) < steps; i++) {
        nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
        assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
    }
    assert_true(count_steps(run) >= steps);
}

/* Blocks of the nameless file in `folder` that a process holds open; -1: none. */
static long blocks_held(pid_t pid, const char *folder)
{
    char base[64];
    snprintf(base, sizeof base, "/proc/%d/fd", (int)pid);
    DIR *directory = opendir(base);
    long blocks = -1;
    assert_non_null(directory);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        char target[PATH_MAX] = "";
        char *path = path_join(base, entry->d_name);
        struct stat status;
        if (readlink(path, target, sizeof target - 1) > 0 &&
            strncmp(target, folder, strlen(folder)) == 0 && stat(path, &status) == 0) {
            blocks = (long)status.st_blocks;
        }
        free(path);
    }
    closedir(directory);
    return blocks;
}

static void a_kill_leaves_nothing_and_the_room_does_not_grow(void **state)
{
    (void)state;
    struct place p = place_make(100000);
    char *run = path_join(program_sandbox(), "killed");
    pid_t pid = START("train", p.recipe, "--run-dir", run, p.model, "activation.offload=ssd",
                      p.directory, "train.eval_every=0", "train.sample_every=0");
    wait_for_steps(run, 2, pid);
    long early = blocks_held(pid, p.disk);
    assert_true(early > 0);
    assert_int_equal(count_entries(p.disk), 0);
    wait_for_steps(run, 100, pid);
    assert_int_equal(blocks_held(pid, p.disk), early);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(count_entries(p.disk), 0);
    free(run);
    place_free(&p);
}

static void a_place_without_files_is_refused(void **state)
{
    (void)state;
    struct place p = place_make(4);
    REFUSES(1, "offloaded activations", "train", p.recipe, "--json", p.model,
            "activation.offload=ssd", "activation.offload_dir=/proc");
    place_free(&p);
}

static double number(const cJSON *root, const char *object, const char *key)
{
    const cJSON *item = json_get(json_get(root, object), key);
    assert_true(cJSON_IsNumber(item));
    return item->valuedouble;
}

static void the_plan_predicts_and_show_tells(void **state)
{
    (void)state;
    struct place p = place_make(4);
    char *run = path_join(program_sandbox(), "told");
    cJSON *plan = RUN_JSON(0, "plan", p.recipe, "--measure", "--json", p.model,
                           "activation.offload=ssd", p.directory);
    double spans = json_get(plan, "offload_spans")->valuedouble;
    double room = ceil(json_get(plan, "offload_span_bytes")->valuedouble / 4096) * 4096;
    assert_true(spans == 9);
    assert_true(number(plan, "measured", "step_seconds") > 0);
    assert_true(number(plan, "measured", "offloaded_step_seconds") >=
                number(plan, "measured", "step_seconds"));
    assert_true(number(plan, "measured", "written_bytes") <= spans * room);
    assert_true(number(plan, "measured", "write_bytes_per_second") > 0);
    assert_true(number(plan, "measured", "read_bytes_per_second") > 0);
    struct result trained = RUN("train", p.recipe, "--run-dir", run, p.model,
                                "activation.offload=ssd", "activation.resident=0", p.directory);
    assert_int_equal(trained.code, 0);
    cJSON *shown = RUN_JSON(0, "show", run, "--json");
    double written = number(shown, "offload", "written_bytes");
    assert_true(written > 0 && written <= 4 * spans * room);
    assert_true(number(shown, "offload", "stall_ms_per_step") >= 0);
    cJSON_Delete(plan);
    cJSON_Delete(shown);
    result_free(&trained);
    free(run);
    place_free(&p);
}

static int teardown(void **state)
{
    (void)state;
    program_sandbox_remove();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_kill_leaves_nothing_and_the_room_does_not_grow),
        cmocka_unit_test(a_place_without_files_is_refused),
        cmocka_unit_test(the_plan_predicts_and_show_tells),
    };
    return cmocka_run_group_tests(tests, NULL, teardown);
}
