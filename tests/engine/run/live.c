/* Steering runs. See live.h. */
#include "engine/run/live.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <time.h>

#include "engine/base/clock.h"
#include "engine/base/xalloc.h"

void live_nap(void)
{
    nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
}

struct child live_start(const struct run_options *options)
{
    const char *run = options->resume ? options->resume : options->directory;
    struct child child = fixture_start(options, NULL);
    char *control = path_join(run, "control");
    double end = clock_monotonic() + LIVE_PATIENCE_S;
    while ((!file_exists(control) || fixture_events(run, EVENT_STEP, NULL) == 0) &&
           clock_monotonic() < end) {
        live_nap();
    }
    assert_true(file_exists(control));
    free(control);
    return child;
}

struct child live_start_long(struct fixture *fixture, char **run)
{
    *run = fixture_path(fixture, "live");
    fixture_set(fixture, "train.steps=100000000");
    fixture_set(fixture, "train.save_every=0");
    fixture_set(fixture, "train.eval_every=0");
    return live_start(&(struct run_options){ .recipe = &fixture->recipe, .directory = *run });
}

struct control_reply live_ask(const char *run, const char *command, const char *key,
                              const char *value)
{
    struct error err = { 0 };
    struct control_reply reply;
    if (control_request(run, command, key, value, LIVE_PATIENCE_S, &reply, &err) != 0) {
        fail_msg("%s: %s", command, err.message);
    }
    return reply;
}

void live_expect_ok(const char *run, const char *command, const char *key, const char *value)
{
    struct control_reply reply = live_ask(run, command, key, value);
    if (!reply.ok) {
        fail_msg("%s %s=%s: %s (%s)", command, key, value, reply.error, reply.hint);
    }
}

void live_stop(const char *run, struct child *child)
{
    live_expect_ok(run, "stop", NULL, NULL);
    assert_int_equal(fixture_finish(child, NULL), 0);
}

void live_wait_steps(const char *run, int64_t more)
{
    int64_t now = fixture_events(run, EVENT_STEP, NULL);
    double end = clock_monotonic() + LIVE_PATIENCE_S;
    while (fixture_events(run, EVENT_STEP, NULL) < now + more && clock_monotonic() < end) {
        live_nap();
    }
}
