/* Answers of the terminal among the keys, in any pieces; and the pace of what is sent. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "app/answer.h"
#include "app/keymap.h"
#include "app/pace.h"

/* What came of a text: the keys as text, the answers counted and the last one kept. */
struct outcome {
    char keys[256];
    int ready;
    int grounds;
    int mice;
    struct answer last;
};

static void take_keys(struct answers *answers, struct outcome *outcome)
{
    uint32_t key;
    while ((key = answer_key(answers)) != 0) {
        size_t used = strlen(outcome->keys);
        const char *name = key == INPUT_UP     ? "<up>"
                           : key == INPUT_F1   ? "<f1>"
                           : key == INPUT_HOME ? "<home>"
                                               : NULL;
        assert_true(used + 8 < sizeof(outcome->keys));
        if (name) {
            snprintf(outcome->keys + used, sizeof(outcome->keys) - used, "%s", name);
        } else {
            outcome->keys[used] = key == 27 ? '^' : (char)key;
            outcome->keys[used + 1] = '\0';
        }
    }
}

static void feed(struct answers *answers, const char *text, struct outcome *outcome)
{
    for (const char *at = text; *at; at++) {
        struct answer answer;
        answer_take(answers, (unsigned char)*at, &answer);
        outcome->ready += answer.kind == ANSWER_READY;
        outcome->grounds += answer.kind == ANSWER_GROUND;
        outcome->mice += answer.kind == ANSWER_MOUSE;
        if (answer.kind != ANSWER_NONE) {
            outcome->last = answer;
        }
        take_keys(answers, outcome);
    }
}

static struct outcome outcome_of(const char *text)
{
    struct answers answers = { 0 };
    struct outcome outcome = { 0 };
    feed(&answers, text, &outcome);
    answer_give_up(&answers);
    take_keys(&answers, &outcome);
    return outcome;
}

static void check_keys(const char *text, const char *keys)
{
    struct outcome outcome = outcome_of(text);
    assert_string_equal(outcome.keys, keys);
}

static void test_keys(void **state)
{
    (void)state;
    check_keys("abc", "abc");
    check_keys("\x1b", "^");
    check_keys("\x1bq", "^q");
    check_keys("\x1b\x1b", "^^");
    check_keys("\x1b[", "^[");
    check_keys("\x1b]", "^]");
    check_keys("\x1b]x", "^]x"); /* Esc, then later */
    check_keys("\x1b[A", "<up>");
    check_keys("\x1bOA", "<up>");
    check_keys("\x1bOP", "<f1>");
    check_keys("\x1bO", "^O");
    check_keys("\x1bOx", "^Ox");
    check_keys("\x1bO\x1b[0nx", "^Ox");
    check_keys("a\x1b[1~b", "a<home>b");
    check_keys("\x1b[[A", "<f1>");
    /* Nothing of what is not understood is taken for keys. */
    check_keys("a\x1b[0nb", "ab");
    check_keys("a\x1b[15;5~b", "ab");
    check_keys("a\x1b[?64;1;2cb", "ab");
    check_keys("a\x1b]11;rgb:1e1e/1e1e/2e2e\x1b\\b", "ab");
    check_keys("a\x1b]11;rgb:1e1e/1e1e/2e2e\x07q", "aq");
    check_keys("a\x1b]52;c;cm0gLXJmCg==\x07q", "aq");
    /* A beginning that never became whole, and the answer after it. */
    check_keys("\x1b[0", "");
    check_keys("\x1b]11;rg", "");
    check_keys("\x1b]11;rg\x1b[0nx", "x");
    char longest[300] = "\x1b]11;";
    memset(longest + 5, 'q', 200);
    snprintf(longest + 205, sizeof(longest) - 205, "\x1b\\y");
    check_keys(longest, "y");
}

static void test_answers(void **state)
{
    (void)state;
    struct outcome outcome = outcome_of("\x1b[0nx\x1b[0n\x1b[3n");
    assert_int_equal(outcome.ready, 3);
    outcome = outcome_of("\x1b]11;rgb:ffff/8000/0\x1b\\");
    assert_int_equal(outcome.grounds, 1);
    assert_true(outcome.last.red == 1 && outcome.last.blue == 0);
    assert_true(fabs(outcome.last.green - 0.5) < 0.001);
    outcome = outcome_of("\x1b]11;rgba:ff/ff/ff/ff\x07");
    assert_int_equal(outcome.grounds, 1);
    outcome = outcome_of("\x1b]11;rgb:zz/zz/zz\x07\x1b]10;rgb:ff/ff/ff\x07\x1b]11;rgb\x07"
                         "\x1b]11;rgb:12345/1/1\x07\x1b]11;rgb:-1/1/1\x07");
    assert_int_equal(outcome.grounds, 0);
    assert_string_equal(outcome.keys, "");
    outcome = outcome_of("\x1b[<0;12;5M\x1b[<0;12;5m");
    assert_int_equal(outcome.mice, 2);
    assert_int_equal(outcome.last.button, MOUSE_NOTHING); /* the release */
    outcome = outcome_of("\x1b[<0;12;5M");
    assert_true(outcome.last.button == MOUSE_CLICK && outcome.last.x == 11 && outcome.last.y == 4);
    assert_int_equal(outcome_of("\x1b[<64;1;1M").last.button, MOUSE_WHEEL_UP);
    assert_int_equal(outcome_of("\x1b[<65;1;1M").last.button, MOUSE_WHEEL_DOWN);
    assert_int_equal(outcome_of("\x1b[<;;M\x1b[<0;99999;1M\x1b[<0;1M").mice, 0);
}

/* A lone Esc waits only while an answer is owed. */
static void test_patience(void **state)
{
    (void)state;
    struct answers answers = { 0 };
    struct outcome outcome = { 0 };
    assert_true(isinf(answer_held_until(&answers, true)));
    feed(&answers, "\x1b", &outcome);
    answers.taken_at = 100;
    assert_true(answer_held_until(&answers, false) <= 100);
    assert_true(answer_held_until(&answers, true) > 100.1);
    feed(&answers, "[0", &outcome);
    assert_true(answer_held_until(&answers, false) > 100.5);
    feed(&answers, "n", &outcome);
    assert_true(isinf(answer_held_until(&answers, true)));
    assert_int_equal(outcome.ready, 1);
    assert_string_equal(outcome.keys, "");
}

/* Whatever comes, nothing is written past its place and the keys come out again. */
static void test_noise(void **state)
{
    (void)state;
    static const char some[] = "\x1b\x1b\x1b[]0123456789;:/<>mMnrgbq\\\x07\x01~A";
    struct answers answers = { 0 };
    srand(5);
    for (int i = 0; i < 300000; i++) {
        struct answer answer;
        answer_take(&answers, (unsigned char)some[rand() % (int)(sizeof(some) - 1)], &answer);
        assert_true(answers.count >= 0 && answers.count <= ANSWER_SIZE);
        if (rand() % 50 == 0) {
            answer_give_up(&answers);
        }
        if (rand() % 500 != 0) {
            while (answer_key(&answers) != 0) {
            }
        }
    }
    answer_give_up(&answers);
    while (answer_key(&answers) != 0) {
    }
    assert_int_equal(answers.count, 0);
}

/* ---- the pace -----------------------------------------------------------------------------------
 */

/* A line of so many bytes a second and seconds there and back; returns what a piece took. */
static double send_over(struct pace *pace, double *now, size_t bytes, double rate, double way)
{
    assert_true(pace_ready(pace, *now));
    pace_sent(pace, bytes, *now);
    assert_false(pace_ready(pace, *now));
    double taken = (double)bytes / rate + way;
    *now += taken;
    pace_answered(pace, *now);
    assert_true(pace_ready(pace, *now));
    return taken;
}

static void begin(struct pace *pace, double *now, double way)
{
    pace_open(pace);
    pace_sent(pace, 0, *now);
    *now += way;
    pace_answered(pace, *now);
}

/* On 4 kB/s pieces soon take less than a tenth of a second, and stay so. */
static void test_slow_line(void **state)
{
    (void)state;
    static const double ways[] = { 0.005, 0.08, 0.4 };
    for (size_t k = 0; k < sizeof(ways) / sizeof(ways[0]); k++) {
        struct pace pace;
        double now = 10;
        begin(&pace, &now, ways[k]);
        for (int i = 0; i < 100; i++) {
            double taken = send_over(&pace, &now, pace_limit(&pace), 4000, ways[k]);
            assert_true(i < 1 || taken - ways[k] <= 0.1);
            assert_true(pace_limit(&pace) <= 400);
        }
    }
}

/* On a fast one whole frames go at once, however far away it is. */
static void test_fast_line(void **state)
{
    (void)state;
    struct pace pace;
    double now = 10;
    begin(&pace, &now, 0.25);
    for (int i = 0; i < 6; i++) {
        send_over(&pace, &now, pace_limit(&pace), 10e6, 0.25);
    }
    assert_true(pace_limit(&pace) >= 32768);
    /* Small pieces say nothing about what the line could take. */
    for (int i = 0; i < 50; i++) {
        send_over(&pace, &now, 60, 10e6, 0.25);
    }
    assert_true(pace_limit(&pace) >= 32768);
}

/* A line that becomes slow, and fast again; and one that merely becomes longer. */
static void test_changing_line(void **state)
{
    (void)state;
    struct pace pace;
    double now = 10;
    begin(&pace, &now, 0.01);
    for (int i = 0; i < 6; i++) {
        send_over(&pace, &now, pace_limit(&pace), 10e6, 0.01);
    }
    for (int i = 0; i < 3; i++) {
        size_t bytes = pace_limit(&pace) < 8000 ? pace_limit(&pace) : 8000;
        send_over(&pace, &now, bytes, 4000, 0.01);
    }
    assert_true(pace_limit(&pace) <= 400);
    for (int i = 0; i < 12; i++) {
        send_over(&pace, &now, pace_limit(&pace), 10e6, 0.01);
    }
    assert_true(pace_limit(&pace) >= 32768);
    for (int i = 0; i < 30; i++) {
        size_t bytes = pace_limit(&pace) < 8000 ? pace_limit(&pace) : 8000;
        send_over(&pace, &now, bytes, 10e6, 0.6);
    }
    assert_true(pace_limit(&pace) >= 8000);
}

/* A terminal that does not answer is asked twice; one that did is waited for. */
static void test_silent(void **state)
{
    (void)state;
    struct pace pace;
    pace_open(&pace);
    pace_sent(&pace, 0, 1);
    assert_true(pace_ready(&pace, 1)); /* the first frame does not wait */
    pace_sent(&pace, 5000, 1);
    assert_false(pace_ready(&pace, 1.2));
    assert_true(pace_overdue(&pace) < 2);
    assert_true(pace_ready(&pace, 2));
    assert_true(pace_asks(&pace));
    pace_sent(&pace, 5000, 2);
    assert_true(pace_ready(&pace, 3));
    assert_false(pace_asks(&pace));
    assert_true(isinf(pace_overdue(&pace)));
    pace_answered(&pace, 9); /* late, but it does */
    assert_true(pace_asks(&pace));
    pace_sent(&pace, 500, 10);
    pace_answered(&pace, 10.5); /* still of an earlier question */
    assert_false(pace_ready(&pace, 11));
    assert_true(pace_ready(&pace, 30));
    assert_true(pace_asks(&pace));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys),      cmocka_unit_test(test_answers),
        cmocka_unit_test(test_patience),  cmocka_unit_test(test_noise),
        cmocka_unit_test(test_slow_line), cmocka_unit_test(test_fast_line),
        cmocka_unit_test(test_silent),    cmocka_unit_test(test_changing_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
