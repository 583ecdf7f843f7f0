/*
 * kill -9 at any instant, then resume: the weights, the optimizer state and the step events at the
 * end are those of a run that was never interrupted, byte for byte.
 *
 * Runs the program itself. WINDROW_KILLS sets the number of kills (default 10; with WINDROW_TORTURE
 * 100).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"
#include "engine/event.h"
#include "engine/run/checkpoint.h"
#include "kernels/random.h"

enum { STEPS = 24, KILLS_DEFAULT = 10, KILLS_TORTURE = 100, PATIENCE_S = 120 };

struct place {
    char path[64];
    char *recipe;
    char *whole; /* the run that is never interrupted */
};

static void nap(long microseconds)
{
    struct timespec pause = { .tv_sec = microseconds / 1000000,
                              .tv_nsec = microseconds % 1000000 * 1000 };
    nanosleep(&pause, NULL);
}

/* ---- what is trained ------------------------------------------------------------------------ */

static void write_text(const char *path, const char *text)
{
    struct error err = { 0 };
    assert_int_equal(file_replace(path, text, strlen(text), &err), 0);
}

static void write_data(const char *path)
{
    static const char *const words[] = { "the ", "cat ", "sat ", "on ",
                                         "a ",   "mat ", "and ", "slept.\n" };
    struct random_key key = { .seed = 3, .purpose = RANDOM_TEST };
    struct buffer text = { 0 };
    for (uint64_t i = 0; i < 4000; i++) {
        const char *word = words[random_u32(&key, i) % 8];
        buffer_append(&text, word, strlen(word));
    }
    write_text(path, text.text);
    buffer_free(&text);
}

static const char recipe_text[] =
    "{\"model\": {\"preset\": \"model.json\"}, \"tokenizer\": {\"vocab\": 290},"
    " \"data\": {\"train\": \"data.txt\", \"validation\": 0.1, \"sequence_length\": 16},"
    " \"method\": {\"name\": \"grass\", \"rank\": 8, \"interval\": 3},"
    " \"optimizer\": {\"lr\": 0.003}, \"batch\": {\"micro\": 2, \"accumulate\": 2},"
    " \"train\": {\"steps\": 24, \"save_every\": 2, \"eval_every\": 6, \"sample_every\": 8},"
    " \"device\": \"cpu\"}";

static const char model_text[] =
    "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\","
    " \"hidden_act\": \"silu\", \"hidden_size\": 16, \"intermediate_size\": 40,"
    " \"num_hidden_layers\": 2, \"num_attention_heads\": 2, \"num_key_value_heads\": 1,"
    " \"vocab_size\": 290, \"max_position_embeddings\": 64, \"rms_norm_eps\": 1e-05,"
    " \"tie_word_embeddings\": true, \"bos_token_id\": 1, \"eos_token_id\": 2}";

/* ---- the program ---------------------------------------------------------------------------- */

/* `windrow train A B C` (NULL ends the words) in the background, without output. */
static pid_t start(const char *a, const char *b, const char *c)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        int null = open("/dev/null", O_RDWR);
        dup2(null, 0);
        dup2(null, 1);
        dup2(null, 2);
        execl(WINDROW_PROGRAM, "windrow", "train", a, b, c, (char *)NULL);
        _exit(126);
    }
    return pid;
}

static int finish(pid_t pid)
{
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static bool is_gone(pid_t pid)
{
    siginfo_t info = { 0 };
    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid;
}

static int64_t count_lines(const char *run)
{
    char *path = path_join(run, "events.jsonl");
    struct error err = { 0 };
    size_t size = 0;
    char *text = file_exists(path) ? file_read_all(path, 1 << 28, &size, &err) : NULL;
    int64_t lines = 0;
    for (size_t i = 0; text && i < size; i++) {
        lines += text[i] == '\n' ? 1 : 0;
    }
    free(text);
    free(path);
    return lines;
}

static bool is_saving(const char *run)
{
    char *path = path_join(run, "checkpoints");
    DIR *directory = opendir(path);
    bool found = false;
    const struct dirent *entry;
    while (directory && (entry = readdir(directory))) {
        found = found || strncmp(entry->d_name, ".tmp-", 5) == 0;
    }
    if (directory) {
        closedir(directory);
    }
    free(path);
    return found;
}

/* Waits for a random instant (every other time within a save) and kills. False if the run ended
 * before it came. */
static bool kill_somewhere(const char *run, pid_t pid, uint32_t word)
{
    int64_t lines = count_lines(run) + word % 60;
    bool in_save = word >> 8 & 1;
    double end = clock_monotonic() + PATIENCE_S;
    while (!is_gone(pid) && (count_lines(run) < lines || (in_save && !is_saving(run)))) {
        assert_true(clock_monotonic() < end);
        nap(200);
    }
    nap((long)(word >> 16 & 0xfff));
    bool alive = !is_gone(pid);
    kill(pid, SIGKILL);
    finish(pid);
    return alive;
}

/* ---- comparing ------------------------------------------------------------------------------ */

static void compare_files(const char *a, const char *b, const char *name)
{
    struct error err = { 0 };
    size_t sizes[2] = { 0 };
    char *text[2];
    const char *runs[] = { a, b };
    for (int i = 0; i < 2; i++) {
        char *path = xasprintf("%s/checkpoints/step-%06d/%s", runs[i], STEPS, name);
        text[i] = file_read_all(path, 1 << 28, &sizes[i], &err);
        if (!text[i]) {
            fail_msg("%s", err.message);
        }
        free(path);
    }
    assert_int_equal(sizes[0], sizes[1]);
    if (memcmp(text[0], text[1], sizes[0]) != 0) {
        fail_msg("%s differs", name);
    }
    free(text[0]);
    free(text[1]);
}

struct steps {
    struct event_step step[STEPS + 1];
    int64_t count;
};

static void read_steps(const char *run, struct steps *out)
{
    struct error err = { 0 };
    char *path = path_join(run, "events.jsonl");
    size_t size = 0;
    char *text = file_read_all(path, 1 << 28, &size, &err);
    assert_non_null(text);
    *out = (struct steps){ 0 };
    for (char *line = text; line < text + size;) {
        char *end = memchr(line, '\n', size - (size_t)(line - text));
        struct event event;
        assert_non_null(end);
        assert_int_equal(event_read(line, (size_t)(end - line), &event, &err), 0);
        if (event.kind == EVENT_STEP) {
            out->count++;
            assert_int_equal(event.step, out->count); /* each once, in order */
            assert_true(event.step <= STEPS);
            out->step[event.step] = event.step_done;
        }
        event_free(&event);
        line = end + 1;
    }
    free(text);
    free(path);
}

static void compare_runs(const char *a, const char *b)
{
    struct steps *steps = xcalloc(2, sizeof *steps);
    compare_files(a, b, CHECKPOINT_WEIGHTS);
    compare_files(a, b, CHECKPOINT_STATE);
    read_steps(a, &steps[0]);
    read_steps(b, &steps[1]);
    assert_int_equal(steps[0].count, STEPS);
    assert_int_equal(steps[1].count, STEPS);
    for (int i = 1; i <= STEPS; i++) {
        const struct event_step *left = &steps[0].step[i];
        const struct event_step *right = &steps[1].step[i];
        assert_true(left->loss == right->loss && isfinite(left->loss));
        assert_true(left->grad_norm == right->grad_norm);
        assert_true(left->learning_rate == right->learning_rate);
        assert_int_equal(left->tokens_total, right->tokens_total);
        assert_int_equal(left->refreshed, right->refreshed);
    }
    free(steps);
}

static int prepare(void **state)
{
    struct place *place = xcalloc(1, sizeof *place);
    memcpy(place->path, "/tmp/windrow-kill-XXXXXX", 25);
    assert_non_null(mkdtemp(place->path));
    setenv("OMP_NUM_THREADS", "1", 1);
    setenv("XDG_STATE_HOME", place->path, 1);
    char *data = path_join(place->path, "data.txt");
    char *model = path_join(place->path, "model.json");
    place->recipe = path_join(place->path, "recipe.json");
    place->whole = path_join(place->path, "whole");
    write_data(data);
    write_text(model, model_text);
    write_text(place->recipe, recipe_text);
    free(data);
    free(model);
    int code = finish(start(place->recipe, "--run-dir", place->whole));
    if (code != 0) {
        fail_msg("the uninterrupted run ends with %d", code);
    }
    *state = place;
    return 0;
}

static int clean(void **state)
{
    struct place *place = *state;
    struct error err = { 0 };
    assert_int_equal(file_remove_tree(place->path, &err), 0);
    free(place->recipe);
    free(place->whole);
    free(place);
    return 0;
}

static void a_killed_run_ends_as_if_nothing_had_happened(void **state)
{
    struct place *place = *state;
    const char *wanted = getenv("WINDROW_KILLS");
    int64_t kills = getenv("WINDROW_TORTURE") ? KILLS_TORTURE : KILLS_DEFAULT;
    int64_t done = 0;
    if (wanted) {
        assert_true(text_to_integer(wanted, &kills));
    }
    struct random_key key = { .seed = (uint64_t)(clock_wall() * 1e3), .purpose = RANDOM_TEST };
    for (uint64_t round = 0; done < kills; round++) {
        char *run = xasprintf("%s/run-%d", place->path, (int)round);
        uint32_t word = random_u32(&key, 4 * round);
        struct error err = { 0 };
        done += kill_somewhere(run, start(place->recipe, "--run-dir", run), word) ? 1 : 0;
        for (uint32_t i = 1; i <= word >> 30; i++) { /* up to three more in the same run */
            char *recipe = path_join(run, "recipe.json");
            bool begun = file_exists(recipe);
            free(recipe);
            if (begun) {
                word = random_u32(&key, 4 * round + i);
                done += kill_somewhere(run, start("--resume", run, NULL), word) ? 1 : 0;
            }
        }
        char *recipe = path_join(run, "recipe.json");
        bool begun = file_exists(recipe);
        free(recipe);
        if (begun) { /* else it was killed before it was a run */
            int code = finish(start("--resume", run, NULL));
            if (code != 0) {
                fail_msg("resuming %s (seed %llu) ends with %d", run, (unsigned long long)key.seed,
                         code);
            }
            assert_false(is_saving(run));
            compare_runs(place->whole, run);
        }
        assert_int_equal(file_remove_tree(run, &err), 0);
        free(run);
    }
}

/* Resumed and killed before the first step, again and again: nothing may change. */
static void resuming_alone_changes_nothing(void **state)
{
    struct place *place = *state;
    struct error err = { 0 };
    char *run = path_join(place->path, "again");
    pid_t pid = start(place->recipe, "--run-dir", run);
    char *early = xasprintf("%s/checkpoints/step-000006", run);
    double end = clock_monotonic() + PATIENCE_S;
    while (!file_exists(early) && !is_gone(pid) && clock_monotonic() < end) {
        nap(200);
    }
    kill(pid, SIGKILL);
    finish(pid);
    for (int i = 0; i < 4; i++) {
        pid = start("--resume", run, NULL);
        nap(20000 + 60000 * i);
        kill(pid, SIGKILL);
        finish(pid);
    }
    assert_int_equal(finish(start("--resume", run, NULL)), 0);
    compare_runs(place->whole, run);
    assert_int_equal(file_remove_tree(run, &err), 0);
    free(early);
    free(run);
}

/* SIGTERM saves and exits 143; resumed, the run ends the same. */
static void a_terminated_run_saves(void **state)
{
    struct place *place = *state;
    struct error err = { 0 };
    char *run = path_join(place->path, "ended");
    pid_t pid = start(place->recipe, "--run-dir", run);
    double end = clock_monotonic() + PATIENCE_S;
    while (count_lines(run) < 20 && !is_gone(pid) && clock_monotonic() < end) {
        nap(200);
    }
    kill(pid, SIGTERM);
    int code = finish(pid);
    assert_true(code == 143 || code == 0);
    assert_int_equal(finish(start("--resume", run, NULL)), 0);
    compare_runs(place->whole, run);
    assert_int_equal(file_remove_tree(run, &err), 0);
    free(run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_run_ends_as_if_nothing_had_happened),
        cmocka_unit_test(resuming_alone_changes_nothing),
        cmocka_unit_test(a_terminated_run_saves),
    };
    return cmocka_run_group_tests(tests, prepare, clean);
}
