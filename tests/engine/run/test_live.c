/* A run that is steered while it trains, and its socket under clients that misbehave. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"
#include "engine/control.h"
#include "engine/inspect.h"
#include "engine/run/fixture.h"
#include "engine/run/live.h"

static void expect_refusal(const char *run, const char *key, const char *value, const char *error,
                           const char *hinted)
{
    struct control_reply reply = live_ask(run, "set", key, value);
    assert_false(reply.ok);
    if (!strstr(reply.error, error) || !strstr(reply.hint, hinted)) {
        fail_msg("%s=%s: \"%s\" (%s)", key, value, reply.error, reply.hint);
    }
}

/* ---- steering ------------------------------------------------------------------------------- */

static void settings_change_at_the_next_step(void **state)
{
    char *run;
    struct event event;
    struct child child = live_start_long(*state, &run);
    live_expect_ok(run, "pause", NULL, NULL);
    int64_t steps = fixture_events(run, EVENT_STEP, NULL);
    for (int i = 0; i < 50; i++) {
        live_nap();
    }
    assert_int_equal(fixture_events(run, EVENT_STEP, NULL), steps);
    struct control_reply reply = live_ask(run, "set", "optimizer.lr", "0.002");
    assert_true(reply.ok);
    assert_int_equal(reply.step, steps + 1);
    reply = live_ask(run, "plan", "method.rank", "4");
    assert_true(reply.ok && reply.bytes > 0 && reply.bytes < reply.bytes_now);
    int64_t promised = reply.bytes;
    live_expect_ok(run, "set", "method.rank", "4");
    assert_int_equal(fixture_events(run, EVENT_PLAN, &event), 2);
    assert_int_equal(event.plan.total_bytes, promised);
    event_free(&event);
    live_expect_ok(run, "resume", NULL, NULL);
    live_wait_steps(run, 3);
    live_expect_ok(run, "pause", NULL, NULL);
    steps = fixture_events(run, EVENT_STEP, &event);
    assert_int_equal(event.step_done.rank, 4);
    assert_true(event.step_done.learning_rate == 0.002);
    event_free(&event);
    assert_int_equal(fixture_events(run, EVENT_MEMORY, &event) >= 3, 1);
    for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
        assert_true(event.memory.peak_bytes[c] <= event.memory.planned_bytes[c]);
    }
    event_free(&event);
    assert_int_equal(fixture_events(run, EVENT_SETTING, &event), 2);
    assert_string_equal(event.setting.key, "method.rank");
    assert_string_equal(event.setting.from, "8");
    assert_string_equal(event.setting.to, "4");
    event_free(&event);
    live_stop(run, &child);
    free(run);
}

static void what_may_not_change_is_refused(void **state)
{
    char *run;
    struct child child = live_start_long(*state, &run);
    expect_refusal(run, "batch.micro", "3", "cannot change", "live");
    expect_refusal(run, "method.rnak", "3", "method.rnak", "method.rank");
    expect_refusal(run, "method.rank", "17", "hidden size", "16");
    expect_refusal(run, "method.rank", "some", "method.rank", "");
    expect_refusal(run, "", "", "unknown key", "");
    struct control_reply reply = live_ask(run, "sample", NULL, NULL);
    assert_false(reply.ok);
    assert_non_null(strstr(reply.hint, "sample_every"));
    live_expect_ok(run, "set", "train.sample_every", "1000000");
    live_expect_ok(run, "sample", NULL, NULL);
    assert_int_equal(fixture_events(run, EVENT_SAMPLE, NULL), 1);
    live_expect_ok(run, "sample", NULL, "rain");
    struct event event;
    assert_int_equal(fixture_events(run, EVENT_SAMPLE, &event), 2);
    assert_string_equal(event.sample.prompt, "rain");
    event_free(&event);
    assert_int_equal(fixture_events(run, EVENT_SETTING, NULL), 1);
    live_stop(run, &child);
    free(run);
}

static void a_rank_that_does_not_fit_names_the_largest(void **state)
{
    struct fixture *fixture = *state;
    struct error err = { 0 };
    struct material material;
    struct plan plan;
    char *run;
    assert_int_equal(material_open(&fixture->recipe, MATERIAL_CONFIG, NULL, &material, &err), 0);
    fixture_set(fixture, "train.eval_every=0");
    fixture_set(fixture, "method.rank=10");
    assert_int_equal(plan_make(&fixture->recipe, &material.config, &plan, &err), 0);
    char *limit = xasprintf("memory.limit=%zu", plan.total_bytes);
    fixture_set(fixture, limit);
    fixture_set(fixture, "method.rank=8");
    material_close(&material);
    struct child child = live_start_long(fixture, &run);
    /* Asking changes nothing, and says the same beforehand. */
    struct control_reply reply = live_ask(run, "plan", "method.rank", "16");
    assert_true(reply.ok && reply.unfit);
    assert_non_null(strstr(reply.hint, "largest rank that fits is 10"));
    assert_true(reply.bytes > reply.bytes_now && reply.flops > reply.flops_now);
    assert_true(reply.refresh_flops > reply.refresh_flops_now && reply.flops_now > 0);
    reply = live_ask(run, "plan", "method.rank", "10");
    assert_true(reply.ok && !reply.unfit);
    expect_refusal(run, "method.rank", "16", "", "largest rank that fits is 10");
    live_expect_ok(run, "set", "method.rank", "10");
    live_stop(run, &child);
    free(limit);
    free(run);
}

/* With selected inputs a rank decides about activations too. */
static void a_rank_may_change_what_activations_take(void **state)
{
    struct fixture *fixture = *state;
    char *run;
    fixture_set(fixture, "method.side=in");
    fixture_set(fixture, "method.inputs=columns");
    fixture_set(fixture, "method.rank=2");
    struct child child = live_start_long(fixture, &run);
    struct control_reply reply = live_ask(run, "plan", "method.rank", "7");
    assert_true(reply.ok && reply.bytes > reply.bytes_now);
    live_expect_ok(run, "set", "method.rank", "7");
    live_expect_ok(run, "set", "method.rank", "1");
    live_expect_ok(run, "set", "method.rank", "16");
    live_stop(run, &child);
    free(run);
}

static void adapters_keep_their_rank(void **state)
{
    struct fixture *fixture = *state;
    char *run;
    fixture_set(fixture, "method.name=lora");
    struct child child = live_start_long(fixture, &run);
    expect_refusal(run, "method.rank", "4", "shape of the adapters", "exported model");
    live_expect_ok(run, "set", "optimizer.lr", "0.001");
    live_stop(run, &child);
    free(run);
}

static void a_save_and_a_stop_leave_checkpoints(void **state)
{
    char *run;
    int64_t step = 0;
    struct error err = { 0 };
    struct event event;
    struct child child = live_start_long(*state, &run);
    struct control_reply reply = live_ask(run, "save", NULL, NULL);
    assert_true(reply.ok);
    char *path = run_latest_checkpoint(run, &step, NULL, NULL, &err);
    assert_non_null(path);
    assert_int_equal(step, reply.step);
    free(path);
    struct run_options again = { .resume = run };
    char *report = NULL;
    assert_int_equal(fixture_run(&again, &report), 1); /* one process a run */
    assert_non_null(strstr(report, "in use"));
    free(report);
    live_wait_steps(run, 2);
    live_stop(run, &child);
    assert_int_equal(fixture_events(run, EVENT_STOP, &event), 1);
    assert_string_equal(event.stop.reason, "stopped");
    path = run_latest_checkpoint(run, &step, NULL, NULL, &err);
    assert_int_equal(step, event.stop.steps);
    event_free(&event);
    free(path);
    assert_int_equal(control_connect(run, &err), -1);
    free(run);
}

static void signals_save_and_end(void **state)
{
    char *run;
    int64_t step = 0;
    struct error err = { 0 };
    struct child child = live_start_long(*state, &run);
    kill(child.pid, SIGHUP); /* nothing */
    live_wait_steps(run, 2);
    live_expect_ok(run, "pause", NULL, NULL);
    kill(child.pid, SIGINT); /* also while paused */
    assert_int_equal(fixture_finish(&child, NULL), 130);
    char *path = run_latest_checkpoint(run, &step, NULL, NULL, &err);
    assert_non_null(path);
    assert_int_equal(step, fixture_events(run, EVENT_STEP, NULL));
    free(path);
    free(run);
}

/* ---- clients that misbehave ----------------------------------------------------------------- */

/* Reads lines until one holds `part`; the connection must not end before. */
static void read_until(int fd, const char *part)
{
    struct buffer text = { 0 };
    char chunk[4096];
    double end = clock_monotonic() + LIVE_PATIENCE_S;
    bool found = false;
    buffer_append(&text, "", 0);
    while (!found) {
        struct pollfd polled = { .fd = fd, .events = POLLIN };
        assert_true(clock_monotonic() < end);
        poll(&polled, 1, 100);
        ssize_t got = recv(fd, chunk, sizeof chunk, MSG_DONTWAIT);
        assert_int_not_equal(got, 0);
        if (got > 0) {
            buffer_append(&text, chunk, (size_t)got);
            found = strstr(text.text, part) != NULL;
        }
    }
    buffer_free(&text);
}

static void put(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static int connect_run(const char *run)
{
    struct error err = { 0 };
    int fd = control_connect(run, &err);
    if (fd < 0) {
        fail_msg("%s", err.message);
    }
    return fd;
}

static void garbage_is_answered_and_harms_nobody(void **state)
{
    char *run;
    struct child child = live_start_long(*state, &run);
    int bad = connect_run(run);
    int good = connect_run(run);
    put(bad, "{\"id\":1,\"comm");
    put(good, "{\"id\":7,\"command\":\"save\"}\n");
    read_until(good, "{\"ack\":7,\"ok\":true");
    put(bad, "and\":\"save\"}\n"); /* the other half */
    read_until(bad, "{\"ack\":1,\"ok\":true");
    static const char *const lines[] = {
        "nonsense\n",
        "[]\n",
        "{}\n",
        "\xff\xfe\n",
        "{\"id\":2}\n",
        "{\"id\":\"x\",\"command\":5}\n",
        "{\"id\":3,\"command\":\"explode\"}\n",
        "{\"id\":1e400,\"command\":\"save\"}\n",
        "{\"id\":-5,\"command\":\"explode\"}\n",
        "{\"id\":4,\"command\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}\n",
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        put(bad, lines[i]);
        read_until(bad, "\"ok\":false");
    }
    put(bad, "\n\n\n{\"id\":9,\"command\":\"save\"}\n{\"id\":10,\"command\":\"save\"}\n");
    read_until(bad, "{\"ack\":10,\"ok\":true");
    /* A line without end is cut off with the connection. */
    char *flood = xmalloc(1 << 16);
    memset(flood, 'a', 1 << 16);
    for (int i = 0; i < 64; i++) {
        send(bad, flood, 1 << 16, MSG_NOSIGNAL | MSG_DONTWAIT);
        live_nap();
    }
    free(flood);
    close(bad);
    put(good, "{\"id\":8,\"command\":\"save\"}\n");
    read_until(good, "{\"ack\":8,\"ok\":true");
    close(good);
    live_stop(run, &child);
    free(run);
}

static void events_are_sent_from_any_offset(void **state)
{
    char *run;
    struct child child = live_start_long(*state, &run);
    struct error err = { 0 };
    int first = connect_run(run);
    assert_int_equal(control_send(first, 1, "hello", NULL, "0", &err), 0);
    read_until(first, "\"event\":\"start\"");
    int late = connect_run(run);
    assert_int_equal(control_send(late, 1, "hello", NULL, "999999999999", &err), 0);
    read_until(late, "{\"ack\":1,\"ok\":true");
    read_until(late, "\"event\":\"step\"");
    /* One that never reads costs nothing: steps go on. */
    int deaf = connect_run(run);
    assert_int_equal(control_send(deaf, 1, "hello", NULL, "0", &err), 0);
    live_wait_steps(run, 20);
    live_expect_ok(run, "stop", NULL, NULL);
    read_until(first, "\"event\":\"stop\"");
    assert_int_equal(fixture_finish(&child, NULL), 0);
    close(first);
    close(late);
    close(deaf);
    free(run);
}

static void many_clients_come_and_go(void **state)
{
    char *run;
    struct child child = live_start_long(*state, &run);
    for (int round = 0; round < 5; round++) {
        int fds[100];
        struct error err = { 0 };
        for (int i = 0; i < 100; i++) { /* more than are served at once */
            fds[i] = control_connect(run, &err);
        }
        for (int i = 0; i < 100; i++) {
            if (fds[i] >= 0) {
                close(fds[i]);
            }
        }
    }
    double end = clock_monotonic() + LIVE_PATIENCE_S;
    struct control_reply reply = { 0 };
    struct error err = { 0 };
    while (!reply.ok && clock_monotonic() < end) {
        control_request(run, "save", NULL, NULL, LIVE_PATIENCE_S, &reply, &err);
    }
    assert_true(reply.ok);
    live_stop(run, &child);
    free(run);
}

static void one_client_too_many_is_told(void **state)
{
    char *run;
    int fds[64];
    struct error err = { 0 };
    struct control_reply reply = { 0 };
    struct child child = live_start_long(*state, &run);
    for (int i = 0; i < 64; i++) {
        fds[i] = control_connect(run, &err);
        assert_true(fds[i] >= 0);
        assert_int_equal(control_send(fds[i], 1, "hello", NULL, "999999999999", &err), 0);
        read_until(fds[i], "{\"ack\":1,\"ok\":true");
    }
    for (int i = 0; i < 5; i++) {
        assert_int_equal(control_request(run, "save", NULL, NULL, LIVE_PATIENCE_S, &reply, &err),
                         0);
        assert_false(reply.ok);
        assert_non_null(strstr(reply.error, "too many clients are attached (64)"));
    }
    for (int i = 0; i < 64; i++) {
        close(fds[i]);
    }
    double end = clock_monotonic() + LIVE_PATIENCE_S;
    while (!reply.ok && clock_monotonic() < end) {
        control_request(run, "save", NULL, NULL, LIVE_PATIENCE_S, &reply, &err);
    }
    live_stop(run, &child);
    free(run);
}

/* A socket at this path that nobody listens at. */
static void leave_socket(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    close(fd);
}

static void sockets_of_dead_processes_go(void **state)
{
    struct fixture *fixture = *state;
    char *run;
    pid_t dead = fork(); /* its number is free after it was waited for */
    if (dead == 0) {
        _exit(0);
    }
    assert_int_equal(waitpid(dead, NULL, 0), dead);
    char *folder = fixture_path(fixture, "windrow");
    char *stale = xasprintf("%s/%ld.sock", folder, (long)dead);
    char *alive = xasprintf("%s/%ld.sock", folder, (long)getpid());
    char *other = xasprintf("%s/notes.sock", folder);
    mkdir(folder, 0700); /* may be there: runs lie in it too */
    leave_socket(stale);
    leave_socket(alive);
    leave_socket(other);
    struct child child = live_start_long(fixture, &run);
    assert_false(file_exists(stale));
    assert_true(file_exists(alive) && file_exists(other));
    live_stop(run, &child);
    free(stale);
    free(alive);
    free(other);
    free(folder);
    free(run);
}

static void the_socket_is_private(void **state)
{
    char *run;
    struct error err = { 0 };
    struct child child = live_start_long(*state, &run);
    char *control = path_join(run, "control");
    size_t size = 0;
    struct stat facts;
    char *path = file_read_all(control, 4096, &size, &err);
    assert_non_null(path);
    assert_int_equal(stat(path, &facts), 0);
    assert_true(S_ISSOCK(facts.st_mode));
    assert_int_equal(facts.st_mode & 0777, 0600);
    *strrchr(path, '/') = '\0';
    assert_int_equal(stat(path, &facts), 0);
    assert_int_equal(facts.st_mode & 0777, 0700);
    free(path);
    free(control);
    live_stop(run, &child);
    free(run);
}

static void replies_are_told_from_events(void **state)
{
    (void)state;
    struct control_reply reply;
    static const char *const no[] = { "",
                                      "{}",
                                      "{\"event\":\"step\"}",
                                      "{\"ack\":1}",
                                      "{\"ack\":1,\"ok\":5}",
                                      "{\"ack\":1,\"ok\":true" };
    for (size_t i = 0; i < sizeof no / sizeof no[0]; i++) {
        assert_int_equal(control_read_reply(no[i], strlen(no[i]), &reply), -1);
    }
    const char *line = "{\"ack\":3,\"ok\":false,\"error\":\"no\\u001b[31m\",\"hint\":\"h\"}";
    assert_int_equal(control_read_reply(line, strlen(line), &reply), 0);
    assert_false(reply.ok);
    assert_int_equal(reply.id, 3);
    assert_int_equal(reply.step, -1);
    assert_null(strchr(reply.error, '\x1b'));
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, fixture_make, fixture_remove)

int main(int argc, char **argv)
{
    (void)argc;
    fixture_single_thread(argv);
    const struct CMUnitTest tests[] = {
        TEST(settings_change_at_the_next_step),
        TEST(what_may_not_change_is_refused),
        TEST(a_rank_that_does_not_fit_names_the_largest),
        TEST(a_rank_may_change_what_activations_take),
        TEST(adapters_keep_their_rank),
        TEST(a_save_and_a_stop_leave_checkpoints),
        TEST(signals_save_and_end),
        TEST(garbage_is_answered_and_harms_nobody),
        TEST(events_are_sent_from_any_offset),
        TEST(many_clients_come_and_go),
        TEST(one_client_too_many_is_told),
        TEST(sockets_of_dead_processes_go),
        TEST(the_socket_is_private),
        cmocka_unit_test(replies_are_told_from_events),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
