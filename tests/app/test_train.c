/* A run from the command line to the exported model: a tiny LLaMA on a tiny text. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
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

enum { STEPS = 8 };

/* The lines of a stream of events, checked one by one. */
struct stream {
    int lines;
    int steps;
    int kinds[8]; /* start plan evaluation checkpoint memory selection setting stop */
    double first_loss;
    double last_loss;
    double losses[64];
    int status;
};

static void take_line(struct stream *stream, const char *line, size_t size)
{
    static const char *const kinds[] = { "start",  "plan",      "evaluation", "checkpoint",
                                         "memory", "selection", "setting",    "stop" };
    struct error err = { 0 };
    cJSON *event = json_parse(line, size, "event", stream->lines + 1, &err);
    assert_non_null(event);
    assert_true(cJSON_IsNumber(json_get(event, "time")));
    const char *kind = json_get(event, "event")->valuestring;
    for (int i = 0; i < 8; i++) {
        stream->kinds[i] += strcmp(kind, kinds[i]) == 0 ? 1 : 0;
    }
    if (strcmp(kind, "step") == 0) {
        int step = (int)json_get(event, "step")->valuedouble;
        double loss = json_get(event, "loss")->valuedouble;
        stream->first_loss = stream->steps == 0 ? loss : stream->first_loss;
        stream->last_loss = loss;
        assert_in_range(step, 1, 63);
        stream->losses[step] = loss;
        stream->steps++;
        static const char *const measured[] = { "grad_norm",   "learning_rate", "tokens",
                                                "step_ms",     "forward_ms",    "backward_ms",
                                                "update_ms",   "mfu",           "tokens_per_second",
                                                "tokens_total" };
        for (size_t i = 0; i < sizeof measured / sizeof measured[0]; i++) {
            const cJSON *value = json_get(event, measured[i]);
            assert_true(cJSON_IsNumber(value) && value->valuedouble > 0);
        }
    } else if (strcmp(kind, "stop") == 0) {
        stream->status = (int)json_get(event, "status")->valuedouble;
    }
    cJSON_Delete(event);
    stream->lines++;
}

static struct stream read_stream(const char *text)
{
    struct stream stream = { .status = -1 };
    for (const char *line = text; *line != '\0';) {
        const char *end = strchr(line, '\n');
        assert_non_null(end);
        take_line(&stream, line, (size_t)(end - line));
        line = end + 1;
    }
    return stream;
}

static char *run_path(const char *name)
{
    return path_join(program_sandbox(), name);
}

static void must(int code, const struct result *result)
{
    if (result->code != code) {
        print_error("exit code %d\n%s\n", result->code, result->error);
    }
    assert_int_equal(result->code, code);
}

static void check_training(const char *recipe, const char *run)
{
    struct result trained = RUN("train", recipe, "--json", "--run-dir", run);
    must(0, &trained);
    struct stream stream = read_stream(trained.output);
    assert_int_equal(stream.steps, STEPS);
    assert_int_equal(stream.status, 0);
    assert_int_equal(stream.kinds[0], 1); /* start */
    assert_true(stream.kinds[1] >= 1);    /* plan */
    assert_true(stream.kinds[2] >= 2);    /* evaluation */
    assert_true(stream.kinds[3] >= 2);    /* checkpoint */
    assert_true(stream.kinds[4] >= 2);    /* memory */
    assert_true(stream.kinds[5] >= 2);    /* selection */
    assert_int_equal(stream.kinds[7], 1); /* stop */
    assert_true(stream.last_loss < stream.first_loss);
    assert_non_null(strstr(trained.error, "step 8/8"));
    assert_non_null(strstr(trained.error, "done after step 8"));
    result_free(&trained);

    /* What was printed is what the file holds. */
    cJSON *shown = RUN_JSON(0, "show", run, "--json");
    assert_string_equal(json_get(shown, "status")->valuestring, "done");
    assert_true(json_get(shown, "step")->valuedouble == STEPS);
    assert_true(cJSON_GetArraySize(json_get(shown, "evaluations")) == stream.kinds[2]);
    cJSON_Delete(shown);

    /* Nobody else can read a run. */
    struct stat found;
    assert_int_equal(stat(run, &found), 0);
    assert_int_equal(found.st_mode & 0777, 0700);
}

static void check_resume(const char *run)
{
    struct result again = RUN("train", "--resume", run);
    must(0, &again);
    result_free(&again);
    struct result longer = RUN("train", "--resume", run, "train.steps=10", "--json");
    must(0, &longer);
    struct stream rest = read_stream(longer.output);
    assert_int_equal(rest.steps, 2);
    assert_true(rest.losses[9] > 0 && rest.losses[10] > 0);
    result_free(&longer);
}

/* A new run begins where the old one stood, with another setting; the old one stays. */
static void check_fork(const char *run)
{
    char *forked = run_path("forked");
    struct result result =
        RUN("fork", run, "--run-dir", forked, "train.steps=12", "optimizer.lr=0.0005", "--json");
    must(0, &result);
    struct stream stream = read_stream(result.output);
    assert_int_equal(stream.steps, 2);
    assert_true(stream.losses[11] > 0 && stream.losses[12] > 0);
    result_free(&result);
    cJSON *shown = RUN_JSON(0, "show", run, "--json");
    assert_true(json_get(shown, "step")->valuedouble == 10);
    cJSON_Delete(shown);
    REFUSES(2, "no/such is not the directory of a run", "fork", "no/such", "train.steps=12");
    free(forked);
}

static double evaluate(const char *model, const char *data)
{
    cJSON *evaluated = RUN_JSON(0, "eval", model, data, "--json", "data.sequence_length=32");
    double loss = json_get(evaluated, "loss")->valuedouble;
    assert_true(json_get(evaluated, "tokens")->valuedouble > 1000);
    assert_true(loss > 0.1 && loss < 7);
    cJSON_Delete(evaluated);
    return loss;
}

/* The exported directory is a model like any other, and the same one as the run's. */
static void check_export(const char *run, const char *data)
{
    char *model = run_path("model");
    struct result exported = RUN("export", run, "--to", model);
    must(0, &exported);
    result_free(&exported);
    assert_true(evaluate(run, data) == evaluate(model, data));
    cJSON *inspected = RUN_JSON(0, "inspect", model, "--json");
    assert_true(cJSON_GetArraySize(json_get(inspected, "tensors")) > 10);
    cJSON_Delete(inspected);
    struct result one =
        RUN("generate", model, "--prompt", "the cat", "--max-tokens", "12", "--temperature", "0");
    struct result two =
        RUN("generate", run, "--prompt", "the cat", "--max-tokens", "12", "--temperature", "0");
    must(0, &one);
    must(0, &two);
    assert_true(strlen(one.output) > 0);
    assert_string_equal(one.output, two.output);
    assert_null(strstr(one.output, "<s>"));
    result_free(&one);
    result_free(&two);
    REFUSES(2, model, "export", run, "--to", model);
    free(model);
}

static void a_run_trains_resumes_and_becomes_a_model(void **state)
{
    (void)state;
    char *recipe = tiny_recipe(STEPS);
    char *run = run_path("first");
    char *data = run_path("text.txt");
    check_training(recipe, run);
    check_resume(run);
    check_fork(run);
    check_export(run, data);
    REFUSES(2, "a run is needed", "prune", "");
    struct result pruned = RUN("prune", run);
    must(0, &pruned);
    assert_false(file_exists(run));
    result_free(&pruned);
    free(data);
    free(run);
    free(recipe);
}

static void the_same_words_give_the_same_losses(void **state)
{
    (void)state;
    char *recipe = tiny_recipe(STEPS);
    char *run[2] = { run_path("left"), run_path("right") };
    struct stream stream[2];
    for (int i = 0; i < 2; i++) {
        struct result result = RUN("train", recipe, "--json", "--run-dir", run[i],
                                   "train.eval_every=0", "train.save_every=0", "train.steps=5");
        must(0, &result);
        stream[i] = read_stream(result.output);
        result_free(&result);
    }
    assert_int_equal(stream[0].steps, 5);
    assert_memory_equal(stream[0].losses, stream[1].losses, sizeof stream[0].losses);
    free(run[0]);
    free(run[1]);
    free(recipe);
}

static void what_cannot_start_says_why(void **state)
{
    (void)state;
    char *recipe = tiny_recipe(STEPS);
    char *run = run_path("refused");
    REFUSES(3, "missing.txt", "train", recipe, "data.train=/nonexistent/missing.txt", "--run-dir",
            run);
    REFUSES(4, "does not fit", "train", recipe, "memory.limit=100KB", "--run-dir", run);
    REFUSES(2, "method.selection", "train", recipe, "method.selection=best", "--run-dir", run);
    REFUSES(2, "no-such-run", "train", "--resume", "no-such-run");
    free(run);
    free(recipe);
}

static void a_limit_of_file_sizes_is_like_a_full_disk(void **state)
{
    (void)state;
    char *recipe = tiny_recipe(STEPS);
    char *run = run_path("limited");
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    struct rlimit small = { .rlim_cur = 100 << 10, .rlim_max = before.rlim_max };
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    struct result result = RUN("train", recipe, "--run-dir", run);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(result.code, 1);
    assert_non_null(strstr(result.error, "File too large"));
    assert_non_null(strstr(result.error, "failed after step 8")); /* training went on */
    result_free(&result);
    free(run);
    free(recipe);
}

/* Starts a run in the background that does not end by itself. */
static pid_t start_long(const char *recipe, const char *run)
{
    return START("train", recipe, "--run-dir", run, "train.steps=100000", "train.eval_every=0",
                 "train.save_every=0");
}

/* Waits until the run answers (or fails the test after a minute). */
static void wait_until_it_answers(const char *run)
{
    for (int i = 0; i < 600; i++) {
        struct result result = RUN("set", run, "optimizer.lr=0.002", "--json");
        int code = result.code;
        result_free(&result);
        if (code == 0) {
            return;
        }
        nanosleep(&(struct timespec){ .tv_nsec = 100000000 }, NULL);
    }
    fail_msg("the run does not answer");
}

static void a_running_run_takes_commands(void **state)
{
    (void)state;
    char *recipe = tiny_recipe(STEPS);
    char *run = run_path("long");
    pid_t pid = start_long(recipe, run);
    wait_until_it_answers(run);

    cJSON *answer = RUN_JSON(0, "set", run, "method.rank=32", "--json");
    assert_true(cJSON_IsTrue(json_get(answer, "ok")));
    assert_true(json_get(answer, "step")->valuedouble >= 1);
    cJSON_Delete(answer);
    struct result refused = RUN("prune", run);
    assert_int_not_equal(refused.code, 0);
    assert_true(file_is_directory(run));
    result_free(&refused);
    cJSON *list = RUN_JSON(0, "show", run, "--json");
    assert_string_equal(json_get(list, "status")->valuestring, "running");
    cJSON_Delete(list);
    static const char *const words[] = { "pause", "resume", "save", "stop" };
    for (int i = 0; i < 4; i++) {
        struct result result = RUN(words[i], run);
        must(0, &result);
        result_free(&result);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0); /* a run that was stopped is done */
    list = RUN_JSON(0, "show", run, "--json");
    assert_string_equal(json_get(list, "status")->valuestring, "stopped");
    const cJSON *settings = json_get(list, "settings");
    const cJSON *last = cJSON_GetArrayItem(settings, cJSON_GetArraySize(settings) - 1);
    assert_string_equal(json_get(last, "key")->valuestring, "method.rank");
    assert_string_equal(json_get(last, "to")->valuestring, "32");
    const cJSON *saved = json_get(list, "checkpoints");
    assert_true(cJSON_GetArraySize(saved) >= 1);
    const cJSON *newest = cJSON_GetArrayItem(saved, cJSON_GetArraySize(saved) - 1);
    assert_true(cJSON_IsTrue(json_get(newest, "kept")));
    char *checkpoint = xstrdup(json_get(newest, "path")->valuestring);
    cJSON_Delete(list);
    struct error err = { 0 };
    assert_int_equal(file_remove_tree(checkpoint, &err), 0);
    list = RUN_JSON(0, "show", run, "--json");
    saved = json_get(list, "checkpoints");
    newest = cJSON_GetArrayItem(saved, cJSON_GetArraySize(saved) - 1);
    assert_true(cJSON_IsFalse(json_get(newest, "kept")));
    cJSON_Delete(list);
    free(checkpoint);
    free(run);
    free(recipe);
}

static void an_interrupt_saves_and_ends_with_its_code(void **state)
{
    (void)state;
    static const int signals[2][2] = { { SIGINT, 130 }, { SIGTERM, 143 } };
    char *recipe = tiny_recipe(STEPS);
    for (int i = 0; i < 2; i++) {
        char *run = run_path(i == 0 ? "interrupted" : "terminated");
        pid_t pid = start_long(recipe, run);
        wait_until_it_answers(run);
        kill(pid, signals[i][0]);
        int status = 0;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), signals[i][1]);
        cJSON *shown = RUN_JSON(0, "show", run, "--json");
        assert_true(cJSON_GetArraySize(json_get(shown, "checkpoints")) >= 1);
        cJSON_Delete(shown);
        free(run);
    }
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
        cmocka_unit_test(a_run_trains_resumes_and_becomes_a_model),
        cmocka_unit_test(the_same_words_give_the_same_losses),
        cmocka_unit_test(what_cannot_start_says_why),
        cmocka_unit_test(a_limit_of_file_sizes_is_like_a_full_disk),
        cmocka_unit_test(a_running_run_takes_commands),
        cmocka_unit_test(an_interrupt_saves_and_ends_with_its_code),
    };
    return cmocka_run_group_tests(tests, NULL, leave);
}
