/* Forks that live: beside the run they came from, and after they were killed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/xalloc.h"
#include "engine/run/live.h"

/* What a fork began from stays although its run saves at every step and keeps one checkpoint, until
 * the fork has its own. */
static void a_fork_keeps_what_it_began_from(void **state)
{
    struct fixture *fixture = *state;
    struct error err = { 0 };
    struct event event;
    char *run = fixture_path(fixture, "live");
    char *forked = fixture_path(fixture, "forked");
    const char *changes[] = { "train.save_every=0" };
    fixture_set(fixture, "train.steps=100000000");
    fixture_set(fixture, "train.eval_every=0");
    fixture_set(fixture, "train.save_every=1");
    fixture_set(fixture, "train.keep=1");
    struct child child =
        live_start(&(struct run_options){ .recipe = &fixture->recipe, .directory = run });
    live_wait_steps(run, 3);
    struct child fork = live_start(&(struct run_options){
        .fork = run, .directory = forked, .changes = changes, .change_count = 1 });
    assert_int_equal(fixture_events(forked, EVENT_RESUME, &event), 1);
    live_wait_steps(run, 5);
    assert_true(file_is_directory(event.resume.path));
    live_stop(run, &child);
    assert_true(file_is_directory(event.resume.path));
    assert_int_equal(run_prune(run, &err), -1);
    assert_non_null(strstr(err.message, "another run has begun"));
    live_expect_ok(forked, "save", NULL, NULL);
    assert_int_equal(run_prune(run, &err), 0);
    live_stop(forked, &fork);
    event_free(&event);
    free(forked);
    free(run);
}

/* A fork that is killed before its first save begins again where it was forked, with its own
 * recipe; once that is gone, it says so. */
static void a_fork_that_saved_nothing_begins_where_it_was_forked(void **state)
{
    struct fixture *fixture = *state;
    struct event event;
    char *run = fixture_path(fixture, "parent");
    char *forked = fixture_path(fixture, "forked");
    char *at = xasprintf("%s@6", run);
    const char *changes[] = { "train.steps=100000000", "train.save_every=0", "optimizer.lr=0.002",
                              "optimizer.beta1=0.8" };
    fixture_train(fixture, "parent");
    struct child fork = live_start(&(struct run_options){
        .fork = at, .directory = forked, .changes = changes, .change_count = 4 });
    live_wait_steps(forked, 3);
    kill(fork.pid, SIGKILL);
    assert_int_equal(fixture_finish(&fork, NULL), 1000 + SIGKILL);
    fork = live_start(&(struct run_options){ .resume = forked });
    live_wait_steps(forked, 3);
    assert_int_equal(fixture_events(forked, EVENT_RESUME, &event), 1);
    assert_string_equal(event.resume.reason, "forked");
    assert_int_equal(event.resume.from_step, 6);
    assert_non_null(strstr(event.resume.path, "parent/checkpoints/step-000006"));
    event_free(&event);
    int64_t steps = fixture_events(forked, EVENT_STEP, &event);
    assert_int_equal(event.step, 6 + steps);
    assert_true(event.step_done.learning_rate == 0.002);
    event_free(&event);
    kill(fork.pid, SIGKILL);
    assert_int_equal(fixture_finish(&fork, NULL), 1000 + SIGKILL);
    /* What it began from goes. */
    struct error err = { 0 };
    char *report = NULL;
    assert_int_equal(run_prune(run, &err), 0);
    assert_int_equal(fixture_run(&(struct run_options){ .resume = forked }, &report), ERROR_DATA);
    assert_non_null(strstr(report, "what it was forked from is gone"));
    assert_non_null(strstr(report, "windrow fork RUN"));
    free(report);
    free(at);
    free(forked);
    free(run);
}

/* Data and tokenizer that a fork was given are its own when it begins again. */
static void a_fork_with_other_data_begins_again(void **state)
{
    struct fixture *fixture = *state;
    struct event event;
    char *run = fixture_path(fixture, "parent");
    char *forked = fixture_path(fixture, "forked");
    char *data = fixture_path(fixture, "other.txt");
    char *word = xasprintf("data.train=%s", data);
    char *text = xcalloc(1, 20001);
    struct error err = { 0 };
    for (int i = 0; i < 20000; i++) {
        text[i] = "a mat on the cat sat\n"[i * 7 % 21];
    }
    assert_int_equal(file_replace(data, text, strlen(text), &err), 0);
    const char *changes[] = { "train.steps=100000000", "train.save_every=0", word };
    fixture_train(fixture, "parent");
    struct child fork = live_start(&(struct run_options){
        .fork = run, .directory = forked, .changes = changes, .change_count = 3 });
    kill(fork.pid, SIGKILL);
    assert_int_equal(fixture_finish(&fork, NULL), 1000 + SIGKILL);
    fork = live_start(&(struct run_options){ .resume = forked });
    live_wait_steps(forked, 1);
    assert_int_equal(fixture_events(forked, EVENT_RESUME, &event), 1);
    assert_int_equal(event.resume.from_step, 8);
    event_free(&event);
    live_stop(forked, &fork); /* which saves: from here on it has its own */
    const char *further[] = { "train.steps=9" };
    assert_int_equal(
        fixture_run(
            &(struct run_options){ .resume = forked, .changes = further, .change_count = 1 }, NULL),
        0);
    free(text);
    free(word);
    free(data);
    free(forked);
    free(run);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, fixture_make, fixture_remove)

int main(int argc, char **argv)
{
    (void)argc;
    fixture_single_thread(argv);
    const struct CMUnitTest tests[] = {
        TEST(a_fork_keeps_what_it_began_from),
        TEST(a_fork_that_saved_nothing_begins_where_it_was_forked),
        TEST(a_fork_with_other_data_begins_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
