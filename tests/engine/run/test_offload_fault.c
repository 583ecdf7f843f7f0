/* A disk that fails in the middle of a step whose activations it holds ends the run; what was saved
 * is whole, and the run that goes on from it ends like one that was never disturbed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/xalloc.h"
#include "engine/run/checkpoint.h"
#include "engine/run/fixture.h"
#include "engine/run/saved.h"

enum { STEPS = 8, SAVED = 3, SOUND_TRANSFERS = 5 };

/* In the child: transfers of activations since the checkpoint of step 3 is there. */
static struct {
    char *checkpoint;
    int64_t transfers;
} disk;

/* Of the nameless file, once there is a checkpoint and a step is under way. */
static bool fails_now(int fd)
{
    struct stat facts;
    if (fstat(fd, &facts) != 0 || facts.st_nlink != 0 || !file_exists(disk.checkpoint)) {
        return false;
    }
    return __atomic_add_fetch(&disk.transfers, 1, __ATOMIC_SEQ_CST) > SOUND_TRANSFERS;
}

static ssize_t failing_write(int fd, const void *bytes, size_t size, off_t offset)
{
    if (fails_now(fd)) {
        errno = EIO;
        return -1;
    }
    return pwrite(fd, bytes, size, offset);
}

static ssize_t failing_read(int fd, void *bytes, size_t size, off_t offset)
{
    if (fails_now(fd)) {
        errno = EIO;
        return -1;
    }
    return pread(fd, bytes, size, offset);
}

/* More blocks than stay in the buffers, so that some come back from the disk. */
static void use_deep_model(struct fixture *fixture)
{
    static const char text[] =
        "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\","
        " \"hidden_act\": \"silu\", \"hidden_size\": 16, \"intermediate_size\": 24,"
        " \"num_hidden_layers\": 12, \"num_attention_heads\": 2, \"num_key_value_heads\": 1,"
        " \"vocab_size\": 290, \"max_position_embeddings\": 64, \"rms_norm_eps\": 1e-05,"
        " \"tie_word_embeddings\": true, \"bos_token_id\": 1, \"eos_token_id\": 2}";
    struct error err = { 0 };
    char *path = fixture_path(fixture, "deep.json");
    char *word = xasprintf("model.preset=%s", path);
    assert_int_equal(file_replace(path, text, strlen(text), &err), 0);
    fixture_set(fixture, word);
    fixture_set(fixture, "activation.offload=ssd");
    fixture_set(fixture, "activation.resident=0");
    free(word);
    free(path);
}

static void digest_weights(const char *run, char digest[DIGEST_TEXT_SIZE])
{
    struct error err = { 0 };
    char *path = xasprintf("%s/checkpoints/step-%06d/%s", run, STEPS, CHECKPOINT_WEIGHTS);
    assert_int_equal(digest_of_file(path, digest, &err), 0);
    free(path);
}

/* The run into "<folder>/<name>" that fails, and what it leaves. */
static void fail_run(struct fixture *fixture, const char *name, const struct file_ops *ops,
                     const char *says)
{
    char *run = fixture_path(fixture, name);
    struct run_options options = { .recipe = &fixture->recipe, .directory = run };
    struct event event;
    char *report = NULL;
    disk.checkpoint = step_path(run, SAVED);
    struct child child = fixture_start(&options, ops);
    int code = fixture_finish(&child, &report);
    if (code != ERROR_RUNTIME || !strstr(report, says) || !strstr(report, strerror(EIO)) ||
        !strstr(report, "the last checkpoint is whole")) {
        fail_msg("exit %d: %s", code, report);
    }
    assert_int_equal(fixture_events(run, EVENT_STEP, &event), SAVED);
    event_free(&event);
    assert_int_equal(fixture_events(run, EVENT_STOP, &event), 1);
    assert_int_equal(event.stop.status, ERROR_RUNTIME);
    event_free(&event);
    assert_true(is_whole(run, SAVED));
    free(report);
    free(disk.checkpoint);
    free(run);
}

static void go_on(struct fixture *fixture, const char *name, const char *expected)
{
    char *run = fixture_path(fixture, name);
    char found[DIGEST_TEXT_SIZE];
    char *report = NULL;
    struct run_options options = { .resume = run };
    int code = fixture_run(&options, &report);
    if (code != 0) {
        fail_msg("the resumed run ends with %d: %s", code, report);
    }
    digest_weights(run, found);
    assert_string_equal(found, expected);
    free(report);
    free(run);
}

static void a_failing_disk_ends_the_run(void **state)
{
    struct fixture *fixture = *state;
    struct file_ops write_fails = *file_ops();
    struct file_ops read_fails = *file_ops();
    char expected[DIGEST_TEXT_SIZE];
    write_fails.pwrite = failing_write;
    read_fails.pread = failing_read;
    use_deep_model(fixture);
    fixture_train(fixture, "sound");
    char *sound = fixture_path(fixture, "sound");
    digest_weights(sound, expected);
    free(sound);
    fail_run(fixture, "writing", &write_fails, "cannot write offloaded activations");
    go_on(fixture, "writing", expected);
    fail_run(fixture, "reading", &read_fails, "cannot read offloaded activations");
    go_on(fixture, "reading", expected);
}

int main(int argc, char **argv)
{
    (void)argc;
    fixture_single_thread(argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_failing_disk_ends_the_run, fixture_make, fixture_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
