/*
 * A run that is killed again and again, at any instant, and resumed each time, ends as one that was
 * left alone: the same losses step by step, one event a step, the same bytes in the last
 * checkpoint. WINDROW_TORTURE=1 kills more often.
 */
#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "app/program.h"
#include "app/tiny.h"
#include "engine/base/digest.h"
#include "engine/base/file.h"
#include "engine/base/json.h"

enum { STEPS = 24 };

/* Losses by step, from events.jsonl; every step exactly once. */
static void read_losses(const char *run, double losses[STEPS + 1])
{
    struct error err = { 0 };
    size_t size = 0;
    char *path = path_join(run, "events.jsonl");
    char *text = file_read_all(path, 1 << 24, &size, &err);
    assert_non_null(text);
    for (int i = 0; i <= STEPS; i++) {
        losses[i] = -1;
    }
    for (char *line = text; *line != '\0';) {
        char *end = strchr(line, '\n');
        assert_non_null(end); /* no torn line is left behind */
        cJSON *event = json_parse(line, (size_t)(end - line), path, 1, &err);
        assert_non_null(event);
        if (strcmp(json_get(event, "event")->valuestring, "step") == 0) {
            int step = (int)json_get(event, "step")->valuedouble;
            assert_in_range(step, 1, STEPS);
            assert_true(losses[step] == -1);
            losses[step] = json_get(event, "loss")->valuedouble;
        }
        cJSON_Delete(event);
        line = end + 1;
    }
    for (int i = 1; i <= STEPS; i++) {
        assert_true(losses[i] >= 0);
    }
    free(text);
    free(path);
}

/* Digests of all tensors of the last checkpoint, one after the other. */
static void digest_tensors(const char *run, char text[DIGEST_TEXT_SIZE])
{
    struct error err = { 0 };
    struct dirent **entry = NULL;
    char *folder = path_join(run, "latest");
    int count = scandir(folder, &entry, NULL, alphasort);
    int tensors = 0;
    struct digest *all = digest_begin();
    for (int i = 0; i < count; i++) {
        const char *dot = strrchr(entry[i]->d_name, '.');
        if (dot != NULL && strcmp(dot, ".safetensors") == 0) {
            char one[DIGEST_TEXT_SIZE];
            char *path = path_join(folder, entry[i]->d_name);
            assert_int_equal(digest_of_file(path, one, &err), 0);
            digest_add(all, one, strlen(one));
            free(path);
            tensors++;
        }
        free(entry[i]);
    }
    free(entry);
    free(folder);
    digest_end(all, text);
    assert_true(tensors > 0);
}

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){ .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 }, NULL);
}

/* Whether a checkpoint is there to go on from; waits for it as long as the process lives. */
static void wait_for_checkpoint(const char *run, pid_t pid)
{
    char *latest = path_join(run, "latest");
    for (int i = 0; i < 6000 && !file_exists(latest); i++) {
        int status;
        assert_int_equal(waitpid(pid, &status, WNOHANG), 0);
        sleep_ms(10);
    }
    assert_true(file_exists(latest));
    free(latest);
}

static void kills_leave_no_trace(void **state)
{
    (void)state;
    int kills = getenv("WINDROW_TORTURE") == NULL ? 4 : 60;
    char *recipe = tiny_recipe(STEPS);
    char *quiet = path_join(program_sandbox(), "quiet");
    char *killed = path_join(program_sandbox(), "killed");
    struct result whole = RUN("train", recipe, "--run-dir", quiet, "train.save_every=3");
    assert_int_equal(whole.code, 0);
    result_free(&whole);

    pid_t pid = START("train", recipe, "--run-dir", killed, "train.save_every=3");
    wait_for_checkpoint(killed, pid);
    unsigned seed = (unsigned)getpid();
    int landed = 0;
    for (int i = 0; i < kills; i++) {
        int status;
        sleep_ms(rand_r(&seed) % 1200);
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        landed += WIFSIGNALED(status) ? 1 : 0;
        pid = START("train", "--resume", killed);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    print_message("%d of %d kills found it alive (seed %d)\n", landed, kills, (int)getpid());

    double left[STEPS + 1];
    double right[STEPS + 1];
    char left_digest[DIGEST_TEXT_SIZE];
    char right_digest[DIGEST_TEXT_SIZE];
    read_losses(quiet, left);
    read_losses(killed, right);
    assert_memory_equal(left, right, sizeof left);
    digest_tensors(quiet, left_digest);
    digest_tensors(killed, right_digest);
    assert_string_equal(left_digest, right_digest);
    free(quiet);
    free(killed);
    free(recipe);
}

static int leave(void **state)
{
    (void)state;
    program_sandbox_remove();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kills_leave_no_trace),
    };
    return cmocka_run_group_tests(tests, NULL, leave);
}
